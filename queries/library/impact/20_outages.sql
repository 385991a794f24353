-- What is played through: each incident as it is, what users suppose, and trials: each incident again
-- without what a control, a bundle of them, or a finding's absence would have prevented.

CREATE VIEW trial_parts AS
SELECT 'control' AS kind, control AS trial, finding FROM control_prevents
UNION ALL
SELECT 'bundle' AS kind, b.bundle AS trial, p.finding
FROM control_bundles b JOIN control_prevents p ON p.control = b.control
UNION ALL
SELECT DISTINCT 'finding' AS kind, finding AS trial, finding FROM incident_outages;

-- Those that change something.
CREATE VIEW trials AS
SELECT DISTINCT o.incident, t.kind, t.trial
FROM incident_outages o JOIN trial_parts t ON t.finding = o.finding;

CREATE VIEW trial_outages AS
SELECT t.incident, t.kind, t.trial, o.node, o.starts, o.ends
FROM trials t JOIN incident_outages o ON o.incident = t.incident
WHERE NOT EXISTS (
  SELECT 1 FROM trial_parts p WHERE p.kind = t.kind AND p.trial = t.trial AND p.finding = o.finding);

CREATE VIEW scenario_outages AS
SELECT incident AS scenario, node, starts, ends FROM incident_outages
UNION ALL
SELECT scenario, node, starts, ends FROM hypothetical_outages
UNION ALL
SELECT h.scenario, o.node, o.starts, o.ends
FROM (SELECT DISTINCT scenario, besides FROM hypothetical_outages) h
JOIN incident_outages o ON o.incident = h.besides;

CREATE VIEW restarts AS
SELECT node, restart_ms FROM impact_nodes WHERE restart_ms IS NOT NULL;

-- One cascade for all. The horizon is a week. kind and trial are NULL where nothing is on trial.
CREATE MATERIALIZED VIEW down_intervals AS
SELECT scenario[1] AS scenario, scenario[2] AS kind, scenario[3] AS trial, node, starts, ends
FROM scenario_downtime(
  (SELECT make_array(scenario) AS scenario, node, starts, ends FROM scenario_outages
   UNION ALL
   SELECT make_array(incident, kind, trial) AS scenario, node, starts, ends FROM trial_outages),
  impact_groups,
  impact_members,
  restarts,
  horizon => INTERVAL '7 days');

-- A timeline of each incident: who fails when, until when, for how long in all. What is down at the
-- same time: fails_ms <= t AND t < recovers_ms, and in down_intervals to the interval.
CREATE MATERIALIZED VIEW down AS
SELECT scenario, kind, trial, node, min(starts) AS fails_ms, max(ends) AS recovers_ms, sum(ends - starts) AS down_ms
FROM down_intervals
GROUP BY scenario, kind, trial, node;
