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

-- Where each of several findings would bring a node down alone, a control against one of them helps only beside others:
-- which findings reach what fails, by whatever way.
CREATE MATERIALIZED VIEW node_causes AS
SELECT c.scenario[1] AS incident, c.scenario[2] AS finding, c.node
FROM what_if(
  (SELECT make_array(incident, finding) AS scenario, node FROM model_outages),
  (SELECT group_id, node, CAST(NULL AS BIGINT) AS need FROM model_groups),
  model_members) c
JOIN what_if((SELECT incident AS scenario, node FROM model_outages), model_groups, model_members) f
  ON f.scenario = c.scenario[1] AND f.node = c.node;

-- Two controls against each finding: what helps most for its price, and what helps most.
CREATE MATERIALIZED VIEW best_controls AS
SELECT incident, finding, best, control
FROM (
  SELECT f.incident, f.finding, 'price' AS best, f.control,
    row_number() OVER (PARTITION BY f.incident, f.finding ORDER BY c.cost / e.effect, f.control) AS nth
  FROM finding_controls f JOIN controls c ON c.control = f.control JOIN control_effects e ON e.control = f.control
  WHERE e.effect > 0 AND c.cost IS NOT NULL
  UNION ALL
  SELECT f.incident, f.finding, 'help' AS best, f.control,
    row_number() OVER (PARTITION BY f.incident, f.finding ORDER BY e.effect DESC, c.cost, f.control) AS nth
  FROM finding_controls f JOIN controls c ON c.control = f.control JOIN control_effects e ON e.control = f.control
  WHERE e.effect > 0 AND c.cost IS NOT NULL
) x
WHERE nth = 1;

-- So these are bundles by themselves, named by their controls: per node that fails, one control against each of its
-- findings. Of two to eight controls each, and of each incident the fifty smallest.
CREATE MATERIALIZED VIEW found_bundles AS
SELECT DISTINCT array_to_string(controls, ' + ') AS bundle, controls
FROM (
  SELECT controls, row_number() OVER (PARTITION BY incident ORDER BY cardinality(controls), controls) AS nth
  FROM (
    SELECT DISTINCT n.incident, controls
    FROM (
      SELECT n.incident, n.node, b.best, array_agg(DISTINCT b.control ORDER BY b.control) AS controls
      FROM node_causes n JOIN best_controls b ON b.incident = n.incident AND b.finding = n.finding
      GROUP BY n.incident, n.node, b.best
      HAVING count(DISTINCT b.control) BETWEEN 2 AND 8
    ) n
    WHERE controls NOT IN (SELECT array_agg(DISTINCT control ORDER BY control) FROM control_bundles GROUP BY bundle)
  ) d
) r
WHERE nth <= 50;

CREATE VIEW all_bundles AS
SELECT bundle, control FROM control_bundles
UNION
SELECT bundle, unnest(controls) AS control FROM found_bundles;

-- What excludes each other is not taken together.
CREATE VIEW impossible_bundles AS
SELECT DISTINCT a.bundle
FROM all_bundles a
JOIN all_bundles b ON b.bundle = a.bundle
JOIN control_exclusions x ON x.control = a.control AND x.other = b.control;

CREATE MATERIALIZED VIEW candidate_bundles AS
SELECT bundle, control FROM all_bundles WHERE bundle NOT IN (SELECT bundle FROM impossible_bundles);

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
  FROM finding_controls f JOIN candidate_bundles b ON b.control = f.control
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
