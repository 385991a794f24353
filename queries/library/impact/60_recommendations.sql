-- Which counter-measures to take for the budget, and what they avert together.

-- The choice reckons as if what one saves were independent of the others: each process's loss in each incident is
-- averted by a control as far as alone, by a bundle as far as in one, and by several one after the other of what is
-- left. Of a bundle only those that answer a finding are chosen. Costs are told in billionths of the budget.
CREATE MATERIALIZED VIEW chosen_controls AS
SELECT x.control, x.step, c.cost
FROM choose_controls(
  (SELECT c.control, floor(1000000000 * least(c.cost / r.budget, 2)) AS cost
   FROM controls c CROSS JOIN risk_appetite r WHERE r.budget > 0),
  (SELECT trial AS control, make_array(incident, process) AS finding, CAST(NULL AS TEXT) AS way, saved / loss AS effectiveness
   FROM savings WHERE kind = 'control' AND saved > 0
   UNION ALL
   SELECT b.control, make_array(s.incident, s.process) AS finding, s.trial AS way, s.saved / s.loss AS effectiveness
   FROM savings s
   JOIN candidate_bundles b ON b.bundle = s.trial
   JOIN (SELECT DISTINCT control, incident FROM finding_controls) a ON a.control = b.control AND a.incident = s.incident
   WHERE s.kind = 'bundle' AND s.saved > 0),
  (SELECT make_array(scenario, process) AS finding, loss FROM losses_by_process WHERE kind = 'incident'),
  control_exclusions,
  budget => 1000000000) x
JOIN controls c ON c.control = x.control;

-- But two may prevent the same, or what only matters with the other. So the incidents are played through once more
-- with the chosen, and from here on only what these replays say counts.
CREATE MATERIALIZED VIEW answered AS
SELECT c.step, f.incident, f.finding, f.log_left
FROM chosen_controls c
JOIN finding_controls f ON f.control = c.control;

CREATE VIEW replays AS SELECT DISTINCT incident, step FROM answered;

-- Each incident with the chosen up to a step, and with all but one; in stretches of cases, as the trials.
CREATE VIEW replay_parts AS
SELECT incident, kind, step, finding, CAST(round(1000000 * (1 - exp(sum(log_left)))) AS BIGINT) AS cases
FROM (
  SELECT r.incident, 'up to' AS kind, r.step, a.finding, a.log_left
  FROM replays r JOIN answered a ON a.incident = r.incident AND a.step <= r.step
  UNION ALL
  SELECT r.incident, 'without' AS kind, r.step, a.finding, a.log_left
  FROM replays r JOIN answered a ON a.incident = r.incident AND a.step <> r.step
) x
GROUP BY incident, kind, step, finding;

CREATE VIEW replay_stretches AS
SELECT incident, kind, step, cases, cases - coalesce(lag(cases) OVER (PARTITION BY incident, kind, step ORDER BY cases), 0) AS stretch
FROM (SELECT DISTINCT incident, kind, step, cases FROM replay_parts WHERE cases > 0) c;

CREATE VIEW replayed_outages AS
SELECT r.incident, r.kind, r.step, r.cases, o.node, o.starts, o.ends
FROM replay_stretches r
JOIN model_outages o ON o.incident = r.incident
LEFT JOIN replay_parts p ON p.incident = r.incident AND p.kind = r.kind AND p.step = r.step AND p.finding = o.finding
WHERE p.cases IS NULL OR p.cases < r.cases;

CREATE MATERIALIZED VIEW replayed_losses AS
SELECT d.scenario[1] AS incident, d.scenario[2] AS kind, CAST(d.scenario[3] AS BIGINT) AS step, CAST(d.scenario[4] AS BIGINT) AS cases,
  t.process, sum(t.per_hour * (d.down_ms - t.from_ms) / 3600000 + t.once) AS loss
FROM (
  SELECT scenario, node, sum(ends - starts) AS down_ms
  FROM scenario_downtime(
    (SELECT make_array(incident, kind, CAST(step AS TEXT), CAST(cases AS TEXT)) AS scenario, node, starts, ends FROM replayed_outages),
    model_groups,
    model_members,
    model_restarts,
    horizon => (SELECT horizon_ms FROM model_horizon))
  GROUP BY scenario, node
) d
JOIN loss_terms t ON t.process = d.node AND t.from_ms <= d.down_ms
GROUP BY d.scenario, t.process;

-- What a replay saves of each process's loss.
CREATE MATERIALIZED VIEW replay_savings AS
SELECT r.incident, r.kind, r.step, p.process, sum(r.stretch * (p.loss - coalesce(l.loss, 0))) / 1000000 AS saved
FROM replay_stretches r
JOIN losses_by_process p ON p.kind = 'incident' AND p.scenario = r.incident
LEFT JOIN replayed_losses l
  ON l.incident = r.incident AND l.kind = r.kind AND l.step = r.step AND l.cases = r.cases AND l.process = p.process
GROUP BY r.incident, r.kind, r.step, p.process;

-- What a step averts beside those chosen before it, so that the sum is what all avert; and what would be missing without.
CREATE MATERIALIZED VIEW step_savings AS
SELECT step, sum(averted) AS averted, sum(missing) AS missing
FROM (
  SELECT step, saved - coalesce(lag(saved) OVER (PARTITION BY incident ORDER BY step), 0) AS averted,
    max(saved) OVER (PARTITION BY incident) - saved_without AS missing
  FROM (
    SELECT r.incident, r.step,
      coalesce(sum(s.saved) FILTER (WHERE s.kind = 'up to'), 0) AS saved,
      coalesce(sum(s.saved) FILTER (WHERE s.kind = 'without'), 0) AS saved_without
    FROM replays r
    LEFT JOIN replay_savings s ON s.incident = r.incident AND s.step = r.step
    GROUP BY r.incident, r.step
  ) t
) x
GROUP BY step;

-- Each of these is not needed: less than a cent may come of rounding. Whether all of them are not is for one more replay
-- to say: two may stand in for each other.
CREATE MATERIALIZED VIEW idle_steps AS
SELECT step FROM step_savings WHERE averted < 0.01 AND missing < 0.01;

CREATE MATERIALIZED VIEW lean_parts AS
SELECT incident, finding, CAST(round(1000000 * (1 - exp(sum(log_left)))) AS BIGINT) AS cases
FROM answered
WHERE step NOT IN (SELECT step FROM idle_steps) AND EXISTS (SELECT 1 FROM idle_steps)
GROUP BY incident, finding;

CREATE VIEW lean_stretches AS
SELECT incident, cases, cases - coalesce(lag(cases) OVER (PARTITION BY incident ORDER BY cases), 0) AS stretch
FROM (SELECT DISTINCT incident, cases FROM lean_parts WHERE cases > 0) c;

CREATE VIEW lean_outages AS
SELECT s.incident, s.cases, o.node, o.starts, o.ends
FROM lean_stretches s
JOIN model_outages o ON o.incident = s.incident
LEFT JOIN lean_parts p ON p.incident = s.incident AND p.finding = o.finding
WHERE p.cases IS NULL OR p.cases < s.cases;

-- What is saved of an incident without the idle steps.
CREATE MATERIALIZED VIEW lean_savings AS
SELECT s.incident, sum(s.stretch * (i.loss - coalesce(l.loss, 0))) / 1000000 AS saved
FROM lean_stretches s
JOIN losses_by_scenario i ON i.kind = 'incident' AND i.scenario = s.incident
LEFT JOIN (
  SELECT d.scenario[1] AS incident, CAST(d.scenario[2] AS BIGINT) AS cases,
    sum(t.per_hour * (d.down_ms - t.from_ms) / 3600000 + t.once) AS loss
  FROM (
    SELECT scenario, node, sum(ends - starts) AS down_ms
    FROM scenario_downtime(
      (SELECT make_array(incident, CAST(cases AS TEXT)) AS scenario, node, starts, ends FROM lean_outages),
      model_groups,
      model_members,
      model_restarts,
      horizon => (SELECT horizon_ms FROM model_horizon))
    GROUP BY scenario, node
  ) d
  JOIN loss_terms t ON t.process = d.node AND t.from_ms <= d.down_ms
  GROUP BY d.scenario
) l ON l.incident = s.incident AND l.cases = s.cases
GROUP BY s.incident;

-- What to take: the chosen without the idle ones; without the last of them only, if one has to stand in for another.
CREATE MATERIALIZED VIEW recommended AS
SELECT c.control, CAST(row_number() OVER (ORDER BY c.step) AS BIGINT) AS step, c.cost, s.averted
FROM chosen_controls c
JOIN step_savings s ON s.step = c.step
LEFT JOIN idle_steps i ON i.step = c.step
CROSS JOIN (SELECT coalesce(sum(averted), 0) AS averted FROM step_savings) a
CROSS JOIN (SELECT coalesce(sum(saved), 0) AS saved FROM lean_savings) w
CROSS JOIN (SELECT max(step) AS step FROM idle_steps) t
WHERE i.step IS NULL OR (w.saved < a.averted - 0.01 AND i.step < t.step);

-- A row per recommendation and finding that it answers, and what it averts of all losses; both go with the finding.
CREATE MATERIALIZED VIEW recommended_answers AS
SELECT r.step, r.control, r.cost, r.averted, f.incident, f.finding
FROM recommended r
JOIN finding_controls f ON f.control = r.control;
