-- Which counter-measures to take against what is open, and what is left with them. The pack library/impact chooses.

-- What a control or a bundle would have saved of what is now.
CREATE MATERIALIZED VIEW control_savings AS
SELECT c.control, c.name, c.cost, coalesce(s.saved, 0) AS saved, coalesce(s.saved, 0) / nullif(c.cost, 0) AS saved_per_euro
FROM controls c
LEFT JOIN post_event s ON s.kind = 'control' AND s.trial = c.control;

CREATE MATERIALIZED VIEW bundle_savings AS
SELECT b.bundle, b.cost, coalesce(s.saved, 0) AS saved
FROM (
  SELECT g.bundle, sum(c.cost) AS cost FROM candidate_bundles g JOIN controls c ON c.control = g.control GROUP BY g.bundle
) b
LEFT JOIN post_event s ON s.kind = 'bundle' AND s.trial = b.bundle;

-- What is left with all that are recommended.
CREATE MATERIALIZED VIEW process_losses_with_recommended AS
SELECT l.id, l.process, l.organisation, l.euros AS without_controls, l.euros - coalesce(s.saved, 0) AS with_controls
FROM process_losses l
CROSS JOIN (SELECT max(step) AS step FROM step_savings) t
LEFT JOIN replay_savings s ON s.kind = 'up to' AND s.step = t.step AND s.process = l.id;

CREATE MATERIALIZED VIEW recommended_controls AS
SELECT r.step, r.control, c.name, r.cost, r.averted
FROM recommended r
JOIN controls c ON c.control = r.control;

-- A row per recommended control and open finding that it answers; it goes with the finding.
CREATE MATERIALIZED VIEW recommendations AS
SELECT DISTINCT r.step, r.control, r.name, r.cost, r.averted, f.detection, f.entity
FROM recommended_controls r
JOIN recommended_answers a ON a.step = r.step
JOIN findings f ON f.detection = a.finding;
