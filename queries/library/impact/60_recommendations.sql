-- Which counter-measures to take for a budget of 100,000, and what they avert together.

-- The choice reckons as if what one saves were independent of the others: each process's loss in each incident is
-- averted by a control as far as alone, by a bundle as far as in one, and by several one after the other of what is
-- left. Of a bundle only those that answer a finding are chosen.
CREATE MATERIALIZED VIEW chosen_controls AS
SELECT control, step, cost
FROM choose_controls(
  (SELECT control, cost FROM controls),
  (SELECT trial AS control, make_array(incident, process) AS finding, CAST(NULL AS TEXT) AS way, saved / loss AS effectiveness
   FROM savings WHERE kind = 'control' AND saved > 0
   UNION ALL
   SELECT b.control, make_array(s.incident, s.process) AS finding, s.trial AS way, s.saved / s.loss AS effectiveness
   FROM savings s
   JOIN control_bundles b ON b.bundle = s.trial
   JOIN (
     SELECT DISTINCT p.control, o.incident FROM control_prevents p JOIN incident_outages o ON o.finding = p.finding
   ) a ON a.control = b.control AND a.incident = s.incident
   WHERE s.kind = 'bundle' AND s.saved > 0),
  (SELECT make_array(scenario, process) AS finding, loss FROM process_losses
   WHERE scenario IN (SELECT incident FROM incident_outages)),
  control_exclusions,
  budget => 100000);

-- But two may prevent the same, or what only matters with the other. So the incidents are played through once more
-- with the chosen, and from here on only what these replays say counts.
CREATE VIEW chosen_answers AS
SELECT DISTINCT c.step, p.finding
FROM chosen_controls c
JOIN control_prevents p ON p.control = c.control
JOIN incident_outages o ON o.finding = p.finding;

-- Who answers only what is answered already is not even played.
CREATE VIEW answers AS
SELECT a.step, a.finding
FROM chosen_answers a
WHERE a.step IN (SELECT min(step) FROM chosen_answers GROUP BY finding);

-- By whom first, and by whom last: if it is the same, by nobody else.
CREATE MATERIALIZED VIEW answered AS
SELECT o.incident, a.finding, min(a.step) AS first_step, max(a.step) AS last_step
FROM answers a
JOIN incident_outages o ON o.finding = a.finding
GROUP BY o.incident, a.finding;

-- Each incident with the chosen up to a step, and with all but one; where that changes something.
CREATE VIEW replays AS
SELECT DISTINCT incident, 'up to' AS kind, first_step AS step FROM answered
UNION ALL
SELECT DISTINCT incident, 'without' AS kind, first_step AS step FROM answered WHERE first_step = last_step;

CREATE VIEW replayed_outages AS
SELECT r.incident, r.kind, r.step, o.node, o.starts, o.ends
FROM replays r
JOIN incident_outages o ON o.incident = r.incident
LEFT JOIN answered a ON a.incident = o.incident AND a.finding = o.finding
WHERE a.finding IS NULL
  OR (r.kind = 'up to' AND r.step < a.first_step)
  OR (r.kind = 'without' AND r.step = a.first_step AND r.step = a.last_step);

-- The losses as in played_losses.
CREATE MATERIALIZED VIEW replayed_losses AS
SELECT r.incident, r.kind, r.step, coalesce(sum(l.loss), 0) AS loss
FROM replays r
LEFT JOIN (
  SELECT d.incident, d.kind, d.step,
    n.loss_per_hour * d.down_ms / 3600000
      + CASE WHEN d.down_ms > n.rto_ms THEN coalesce(n.late_per_hour, 0) * (d.down_ms - n.rto_ms) / 3600000 ELSE 0 END
      + CASE WHEN d.down_ms >= n.mtpd_ms THEN coalesce(n.fixed_loss, 0) ELSE 0 END AS loss
  FROM (
    SELECT scenario[1] AS incident, scenario[2] AS kind, CAST(scenario[3] AS BIGINT) AS step, node, sum(ends - starts) AS down_ms
    FROM scenario_downtime(
      (SELECT make_array(incident, kind, CAST(step AS TEXT)) AS scenario, node, starts, ends FROM replayed_outages),
      impact_groups,
      impact_members,
      restarts,
      horizon => INTERVAL '7 days')
    GROUP BY scenario, node
  ) d
  JOIN impact_nodes n ON n.node = d.node
  WHERE n.loss_per_hour IS NOT NULL
) l ON l.incident = r.incident AND l.kind = r.kind AND l.step = r.step
GROUP BY r.incident, r.kind, r.step;

-- What a step averts beside those chosen before it, so that the sum is what all avert; and what would be missing without.
CREATE MATERIALIZED VIEW step_savings AS
SELECT step, sum(averted) AS averted, coalesce(sum(missing), 0) AS missing
FROM (
  SELECT u.step,
    coalesce(lag(u.loss) OVER (PARTITION BY u.incident ORDER BY u.step), s.loss, 0) - u.loss AS averted,
    w.loss - min(u.loss) OVER (PARTITION BY u.incident) AS missing
  FROM replayed_losses u
  LEFT JOIN replayed_losses w ON w.kind = 'without' AND w.incident = u.incident AND w.step = u.step
  LEFT JOIN scenario_losses s ON s.scenario = u.incident
  WHERE u.kind = 'up to'
) x
GROUP BY step;

-- Each of these is not needed. Whether all of them are not is for one more replay to say: two may stand in for each other.
CREATE MATERIALIZED VIEW idle_steps AS
SELECT step FROM step_savings WHERE averted <= 0 AND missing <= 0;

CREATE VIEW outages_without_idle AS
SELECT o.incident, o.node, o.starts, o.ends
FROM incident_outages o
WHERE o.incident IN (SELECT a.incident FROM answered a JOIN idle_steps i ON i.step = a.first_step)
  AND o.finding NOT IN (SELECT finding FROM answers WHERE step NOT IN (SELECT step FROM idle_steps));

CREATE MATERIALIZED VIEW losses_without_idle AS
SELECT d.incident, sum(
  n.loss_per_hour * d.down_ms / 3600000
    + CASE WHEN d.down_ms > n.rto_ms THEN coalesce(n.late_per_hour, 0) * (d.down_ms - n.rto_ms) / 3600000 ELSE 0 END
    + CASE WHEN d.down_ms >= n.mtpd_ms THEN coalesce(n.fixed_loss, 0) ELSE 0 END) AS loss
FROM (
  SELECT scenario AS incident, node, sum(ends - starts) AS down_ms
  FROM scenario_downtime(
    (SELECT incident AS scenario, node, starts, ends FROM outages_without_idle),
    impact_groups,
    impact_members,
    restarts,
    horizon => INTERVAL '7 days')
  GROUP BY scenario, node
) d
JOIN impact_nodes n ON n.node = d.node
WHERE n.loss_per_hour IS NOT NULL
GROUP BY d.incident;

-- What to take: the chosen without the idle ones; without the last of them only, if one has to stand in for another.
CREATE MATERIALIZED VIEW recommended AS
SELECT c.control, CAST(row_number() OVER (ORDER BY c.step) AS BIGINT) AS step, c.cost, s.averted
FROM chosen_controls c
JOIN step_savings s ON s.step = c.step
LEFT JOIN idle_steps i ON i.step = c.step
CROSS JOIN (
  SELECT count(*) AS incidents
  FROM losses_without_idle w
  JOIN (SELECT incident, min(loss) AS loss FROM replayed_losses WHERE kind = 'up to' GROUP BY incident) u ON u.incident = w.incident
  WHERE w.loss > u.loss
) m
CROSS JOIN (SELECT max(step) AS step FROM idle_steps) t
WHERE i.step IS NULL OR (m.incidents > 0 AND i.step < t.step);

-- A row per recommendation and finding that it answers, and what it averts of all losses; both go with the finding.
CREATE MATERIALIZED VIEW recommendations AS
SELECT r.step, r.control, r.cost, r.averted, o.incident, o.finding
FROM recommended r
JOIN control_prevents p ON p.control = r.control
JOIN (SELECT DISTINCT incident, finding FROM incident_outages) o ON o.finding = p.finding;
