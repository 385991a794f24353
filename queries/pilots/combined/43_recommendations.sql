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

-- The choice reckons as if what one saves were independent of the others: each process's loss is averted by a
-- control as far as alone, by a bundle as far as in one, and by several one after the other of what is left. Of a
-- bundle only those that answer what is open are chosen.
CREATE MATERIALIZED VIEW chosen_controls AS
SELECT step, control, cost
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
  budget => 250000);

-- But two may prevent the same, or what only matters with the other. So what is now is played through once more with
-- the chosen, and from here on only what these replays say counts.
CREATE VIEW chosen_answers AS
SELECT DISTINCT c.step, p.detection
FROM chosen_controls c
JOIN control_prevents p ON p.control = c.control
JOIN failed_assets f ON f.detection = p.detection;

-- Who answers only what is answered already is not even played.
CREATE VIEW answers AS
SELECT a.step, a.detection
FROM chosen_answers a
WHERE a.step IN (SELECT min(step) FROM chosen_answers GROUP BY detection);

-- By whom first, and by whom last: if it is the same, by nobody else.
CREATE MATERIALIZED VIEW answered AS
SELECT detection, min(step) AS first_step, max(step) AS last_step FROM answers GROUP BY detection;

-- What is now with the chosen up to a step, and with all but one.
CREATE VIEW replays AS
SELECT DISTINCT 'up to' AS kind, first_step AS step FROM answered
UNION ALL
SELECT DISTINCT 'without' AS kind, first_step AS step FROM answered WHERE first_step = last_step;

CREATE VIEW replayed_failures AS
SELECT DISTINCT r.kind, r.step, f.node
FROM replays r
CROSS JOIN failed_assets f
LEFT JOIN answered a ON a.detection = f.detection
WHERE a.detection IS NULL
  OR (r.kind = 'up to' AND r.step < a.first_step)
  OR (r.kind = 'without' AND r.step = a.first_step AND r.step = a.last_step);

-- The losses as in played_losses.
CREATE MATERIALIZED VIEW replayed_losses AS
SELECT d.kind, d.step, d.node AS id,
  p.loss_per_hour * d.down_ms / 3600000
    + CASE WHEN d.down_ms > p.rto_ms THEN p.late_per_hour * (d.down_ms - p.rto_ms) / 3600000 ELSE 0 END
    + CASE WHEN d.down_ms >= p.mtpd_ms THEN p.fixed_loss ELSE 0 END AS euros
FROM (
  SELECT scenario[1] AS kind, CAST(scenario[2] AS BIGINT) AS step, node, sum(ends - starts) AS down_ms
  FROM scenario_downtime(
    (SELECT make_array(f.kind, CAST(f.step AS TEXT)) AS scenario, f.node, 0 AS starts, r.minutes * 60000 AS ends
     FROM replayed_failures f LEFT JOIN recovery_times r ON r.node = f.node),
    impact_groups, impact_members, restarts, horizon => INTERVAL '7 days')
  GROUP BY scenario, node
) d
JOIN processes p ON p.id = d.node;

-- What a step averts beside those chosen before it, so that the sum is what all avert; and what would be missing without.
CREATE MATERIALIZED VIEW step_savings AS
SELECT u.step,
  coalesce(lag(u.euros) OVER (ORDER BY u.step), t.euros) - u.euros AS averted,
  coalesce(w.euros - min(u.euros) OVER (), 0) AS missing
FROM (
  SELECT r.step, coalesce(sum(l.euros), 0) AS euros
  FROM replays r LEFT JOIN replayed_losses l ON l.kind = r.kind AND l.step = r.step
  WHERE r.kind = 'up to'
  GROUP BY r.step
) u
LEFT JOIN (SELECT step, sum(euros) AS euros FROM replayed_losses WHERE kind = 'without' GROUP BY step) w ON w.step = u.step
CROSS JOIN total_losses t;

-- Each of these is not needed. Whether all of them are not is for one more replay to say: two may stand in for each other.
CREATE MATERIALIZED VIEW idle_steps AS
SELECT step FROM step_savings WHERE averted <= 0 AND missing <= 0;

CREATE VIEW failures_without_idle AS
SELECT DISTINCT f.node
FROM failed_assets f
WHERE EXISTS (SELECT 1 FROM idle_steps)
  AND f.detection NOT IN (SELECT detection FROM answers WHERE step NOT IN (SELECT step FROM idle_steps));

CREATE MATERIALIZED VIEW losses_without_idle AS
SELECT d.node AS id,
  p.loss_per_hour * d.down_ms / 3600000
    + CASE WHEN d.down_ms > p.rto_ms THEN p.late_per_hour * (d.down_ms - p.rto_ms) / 3600000 ELSE 0 END
    + CASE WHEN d.down_ms >= p.mtpd_ms THEN p.fixed_loss ELSE 0 END AS euros
FROM (
  SELECT node, sum(ends - starts) AS down_ms
  FROM downtime(
    (SELECT f.node, 0 AS starts, r.minutes * 60000 AS ends
     FROM failures_without_idle f LEFT JOIN recovery_times r ON r.node = f.node),
    impact_groups, impact_members, restarts, horizon => INTERVAL '7 days')
  GROUP BY node
) d
JOIN processes p ON p.id = d.node;

-- What is left with all that are chosen.
CREATE MATERIALIZED VIEW process_losses_with_recommended AS
SELECT l.id, l.process, l.organisation, l.euros AS without_controls,
  CASE WHEN s.step IS NULL THEN l.euros ELSE coalesce(r.euros, 0) END AS with_controls
FROM process_losses l
CROSS JOIN (SELECT max(step) AS step FROM step_savings) s
LEFT JOIN replayed_losses r ON r.kind = 'up to' AND r.step = s.step AND r.id = l.id;

-- What to take: the chosen without the idle ones, with which as much is left; without the last of them only, if one has
-- to stand in for another.
CREATE MATERIALIZED VIEW recommended_controls AS
SELECT CAST(row_number() OVER (ORDER BY h.step) AS BIGINT) AS step, h.control, c.name, h.cost, s.averted
FROM chosen_controls h
JOIN controls c ON c.control = h.control
JOIN step_savings s ON s.step = h.step
LEFT JOIN idle_steps i ON i.step = h.step
CROSS JOIN (SELECT coalesce(sum(euros), 0) AS euros FROM losses_without_idle) w
CROSS JOIN (SELECT coalesce(sum(with_controls), 0) AS euros FROM process_losses_with_recommended) a
CROSS JOIN (SELECT max(step) AS step FROM idle_steps) t
WHERE i.step IS NULL OR (w.euros > a.euros AND i.step < t.step);

-- A row per recommended control and detection that it answers; it goes with the last finding.
CREATE MATERIALIZED VIEW recommendations AS
SELECT r.step, r.control, r.name, r.cost, r.averted, f.detection, count(*) AS findings
FROM recommended_controls r
JOIN control_prevents p ON p.control = r.control
JOIN findings f ON f.detection = p.detection
GROUP BY r.step, r.control, r.name, r.cost, r.averted, f.detection;
