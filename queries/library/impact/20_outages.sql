-- What is played through: each incident as it is, what users suppose, and trials: each incident again, in the cases in
-- which a control, a bundle of them, or a finding's absence would have prevented something.

-- What of the cases a control leaves, as a logarithm, so that several add up; one that always helps leaves none to
-- speak of. One that has an impossible part helps in none, and is in impact_errors.
CREATE VIEW control_effects AS
SELECT control, effect, CASE WHEN effect < 1 THEN ln(1 - effect) ELSE -50 END AS log_left
FROM (
  SELECT control, coalesce(surface, 1) * coalesce(effectiveness, 1) AS effect
  FROM controls
  WHERE coalesce(surface, 1) BETWEEN 0 AND 1 AND coalesce(effectiveness, 1) BETWEEN 0 AND 1
) c;

-- In the order in which they began.
CREATE VIEW incident_findings AS
SELECT incident, finding, row_number() OVER (PARTITION BY incident ORDER BY starts, finding) AS nth
FROM (SELECT incident, finding, min(starts) AS starts FROM model_outages GROUP BY incident, finding) f;

-- Which controls answer what was found.
CREATE VIEW finding_controls AS
SELECT f.incident, f.finding, e.control, e.log_left
FROM incident_findings f
JOIN control_prevents p ON p.finding = f.finding
JOIN control_effects e ON e.control = p.control;

-- Each of the first hundred is on trial, three times, with all others of its incident: what that takes grows with their square.
-- Of later ones no share is told; the next is tried as well, for the share of the one before it reaches up to it.
CREATE VIEW tried_findings AS
SELECT incident, finding, nth FROM incident_findings WHERE nth <= 101;

-- What a trial prevents of an incident, in how many of a million cases. until: all that came later; since: all that
-- came before.
CREATE VIEW trial_parts AS
SELECT incident, kind, trial, finding, CAST(round(1000000 * (1 - exp(sum(log_left)))) AS BIGINT) AS cases
FROM (
  SELECT incident, 'control' AS kind, control AS trial, finding, log_left FROM finding_controls
  UNION ALL
  SELECT f.incident, 'bundle' AS kind, b.bundle AS trial, f.finding, f.log_left
  FROM finding_controls f JOIN control_bundles b ON b.control = f.control
  UNION ALL
  SELECT incident, 'finding' AS kind, finding AS trial, finding, -50 AS log_left FROM tried_findings
  UNION ALL
  SELECT f.incident, CASE WHEN f.nth < o.nth THEN 'until' ELSE 'since' END AS kind, f.finding AS trial, o.finding, -50 AS log_left
  FROM tried_findings f JOIN incident_findings o ON o.incident = f.incident AND o.nth <> f.nth
) x
GROUP BY incident, kind, trial, finding;

-- The stretches of cases, each up to so many of a million, in which the same is prevented.
CREATE VIEW trials AS
SELECT incident, kind, trial, cases, cases - coalesce(lag(cases) OVER (PARTITION BY incident, kind, trial ORDER BY cases), 0) AS stretch
FROM (SELECT DISTINCT incident, kind, trial, cases FROM trial_parts WHERE cases > 0) c;

CREATE MATERIALIZED VIEW trial_outages AS
SELECT t.incident, t.kind, t.trial, t.cases, o.node, o.starts, o.ends
FROM trials t
JOIN model_outages o ON o.incident = t.incident
LEFT JOIN trial_parts p ON p.incident = t.incident AND p.kind = t.kind AND p.trial = t.trial AND p.finding = o.finding
WHERE p.cases IS NULL OR p.cases < t.cases;

-- An incident and a supposition of the same name are two.
CREATE VIEW scenario_outages AS
SELECT 'incident' AS kind, incident AS scenario, node, starts, ends FROM model_outages
UNION ALL
SELECT 'supposed' AS kind, scenario, node, starts, ends FROM model_suppositions
UNION ALL
SELECT 'supposed' AS kind, h.scenario, o.node, o.starts, o.ends
FROM (SELECT DISTINCT scenario, besides FROM model_suppositions) h
JOIN model_outages o ON o.incident = h.besides;

CREATE VIEW model_restarts AS
SELECT node, restart_ms FROM model_nodes WHERE restart_ms IS NOT NULL;

-- One cascade for all. kind: incident, supposed, or the trial's; trial and cases are NULL where nothing is on trial.
CREATE MATERIALIZED VIEW down_intervals AS
SELECT scenario[1] AS kind, scenario[2] AS scenario, scenario[3] AS trial, CAST(scenario[4] AS BIGINT) AS cases, node, starts, ends
FROM scenario_downtime(
  (SELECT make_array(kind, scenario) AS scenario, node, starts, ends FROM scenario_outages
   UNION ALL
   SELECT make_array(kind, incident, trial, CAST(cases AS TEXT)) AS scenario, node, starts, ends FROM trial_outages),
  model_groups,
  model_members,
  model_restarts,
  horizon => (SELECT horizon_ms FROM model_horizon));

-- A timeline of each incident: who fails when, until when, for how long in all. What is down at the
-- same time: fails_ms <= t AND t < recovers_ms, and in down_intervals to the interval.
CREATE MATERIALIZED VIEW downtimes AS
SELECT kind, scenario, trial, cases, node, min(starts) AS fails_ms, max(ends) AS recovers_ms, sum(ends - starts) AS down_ms
FROM down_intervals
GROUP BY kind, scenario, trial, cases, node;

-- What goes round for too long has no downtimes: sys.errors says so, and it has no losses instead of none to speak of.
CREATE MATERIALIZED VIEW unsettled AS
(SELECT kind, scenario, CAST(NULL AS TEXT) AS trial, CAST(NULL AS BIGINT) AS cases
 FROM scenario_outages CROSS JOIN model_horizon
 WHERE starts < horizon_ms AND (ends IS NULL OR starts < ends)
 UNION
 SELECT kind, incident AS scenario, trial, cases
 FROM trial_outages CROSS JOIN model_horizon
 WHERE starts < horizon_ms AND (ends IS NULL OR starts < ends))
EXCEPT
SELECT kind, scenario, trial, cases FROM down_intervals;
