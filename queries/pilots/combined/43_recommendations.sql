-- Which counter-measures to take against what is open, for a budget of 250,000 euros, and what is left with them.

-- What a control or a bundle would have saved of each process's loss.
CREATE MATERIALIZED VIEW savings AS
SELECT t.kind, t.scenario, p.id, p.euros, p.euros - coalesce(l.euros, 0) AS saved
FROM trials t
CROSS JOIN process_losses p
LEFT JOIN played_losses l ON l.kind = t.kind AND l.scenario = t.scenario AND l.id = p.id;

CREATE MATERIALIZED VIEW control_savings AS
SELECT c.control, c.name, c.cost, coalesce(s.saved, 0) AS saved, coalesce(s.saved, 0) / c.cost AS saved_per_euro
FROM controls c
LEFT JOIN (SELECT scenario, sum(saved) AS saved FROM savings WHERE kind = 'control' GROUP BY scenario) s
  ON s.scenario = c.control;

CREATE MATERIALIZED VIEW bundle_savings AS
SELECT b.bundle, b.cost, coalesce(s.saved, 0) AS saved
FROM (
  SELECT g.bundle, sum(c.cost) AS cost FROM control_bundles g JOIN controls c ON c.control = g.control GROUP BY g.bundle
) b
LEFT JOIN (SELECT scenario, sum(saved) AS saved FROM savings WHERE kind = 'bundle' GROUP BY scenario) s
  ON s.scenario = b.bundle;

-- Of a bundle only those that answer what is open: the others are not needed for what it saves.
CREATE MATERIALIZED VIEW recommended_controls AS
SELECT r.step, r.control, c.name, r.cost, r.averted
FROM choose_controls(
  (SELECT control, cost FROM controls),
  (SELECT scenario AS control, id AS finding, CAST(NULL AS TEXT) AS way, saved / euros AS effectiveness
   FROM savings WHERE kind = 'control' AND saved > 0
   UNION ALL
   SELECT b.control, s.id AS finding, s.scenario AS way, s.saved / s.euros AS effectiveness
   FROM savings s
   JOIN control_bundles b ON b.bundle = s.scenario
   JOIN (
     SELECT DISTINCT p.control FROM control_prevents p JOIN failed_assets f ON f.detection = p.detection
   ) o ON o.control = b.control
   WHERE s.kind = 'bundle' AND s.saved > 0),
  (SELECT id AS finding, euros AS loss FROM process_losses),
  budget => 250000) r
JOIN controls c ON c.control = r.control;

-- A row per recommended control and detection that it answers; it goes with the last finding.
CREATE MATERIALIZED VIEW recommendations AS
SELECT r.step, r.control, r.name, r.cost, r.averted, f.detection, count(*) AS findings
FROM recommended_controls r
JOIN control_prevents p ON p.control = r.control
JOIN findings f ON f.detection = p.detection
GROUP BY r.step, r.control, r.name, r.cost, r.averted, f.detection;

-- What is now, once more, with all that is recommended on: a cascade of its own, as savings do not add up.
CREATE MATERIALIZED VIEW down_with_recommended AS
SELECT node, sum(ends - starts) AS down_ms
FROM downtime(
  (SELECT f.node, 0 AS starts, r.minutes * 60000 AS ends
   FROM (
     SELECT DISTINCT f.node FROM failed_assets f
     WHERE NOT EXISTS (
       SELECT 1 FROM recommended_controls r JOIN control_prevents p ON p.control = r.control
       WHERE p.detection = f.detection)
   ) f
   LEFT JOIN recovery_times r ON r.node = f.node),
  impact_groups, impact_members, restarts, horizon => INTERVAL '7 days')
GROUP BY node;

CREATE MATERIALIZED VIEW process_losses_with_recommended AS
SELECT l.id, l.process, l.organisation, l.euros AS without_controls,
  coalesce(p.loss_per_hour * d.down_ms / 3600000
    + CASE WHEN d.down_ms > p.rto_ms THEN p.late_per_hour * (d.down_ms - p.rto_ms) / 3600000 ELSE 0 END
    + CASE WHEN d.down_ms >= p.mtpd_ms THEN p.fixed_loss ELSE 0 END, 0) AS with_controls
FROM process_losses l
JOIN processes p ON p.id = l.id
LEFT JOIN down_with_recommended d ON d.node = l.id;
