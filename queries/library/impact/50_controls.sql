-- Counter-measures: what each would have saved, ranked; and which to take for a budget of 100,000.

-- What a trial saves of each process's loss.
CREATE MATERIALIZED VIEW savings AS
SELECT t.incident, t.kind, t.trial, p.process, p.loss, p.loss - coalesce(l.loss, 0) AS saved
FROM trials t
JOIN process_losses p ON p.scenario = t.incident
LEFT JOIN played_losses l
  ON l.scenario = t.incident AND l.kind = t.kind AND l.trial = t.trial AND l.process = p.process;

-- An incident once more, with a control or a bundle on, or without one of its findings: root findings
-- are those without which much would have been saved.
CREATE MATERIALIZED VIEW post_event AS
SELECT incident, kind, trial, sum(loss) AS loss, sum(saved) AS saved
FROM savings
GROUP BY incident, kind, trial;

-- Ranked by what is saved per cost or by return: ROSI of what was saved, and RORI (Gonzalez-Granadillo et
-- al., 2012) of the annual loss, in percent, where surface · effectiveness of the risk goes.
CREATE MATERIALIZED VIEW control_ranking AS
SELECT c.control, c.cost, coalesce(s.saved, 0) AS saved,
  CASE WHEN c.cost > 0 THEN coalesce(s.saved, 0) / c.cost END AS saved_per_cost,
  CASE WHEN c.cost > 0 THEN (coalesce(s.saved, 0) - c.cost) / c.cost END AS rosi,
  CASE WHEN c.cost + r.infrastructure_value > 0
    THEN 100 * (r.annual_loss * c.surface * c.effectiveness - c.cost) / (c.cost + r.infrastructure_value) END AS rori
FROM controls c
CROSS JOIN risk_appetite r
LEFT JOIN (SELECT trial, sum(saved) AS saved FROM post_event WHERE kind = 'control' GROUP BY trial) s ON s.trial = c.control;

-- Two together: costs add up, and independently they leave (1 - a)(1 - b) of the risk.
CREATE MATERIALIZED VIEW pair_ranking AS
SELECT a.control AS control, b.control AS other, a.cost + b.cost AS cost,
  CASE WHEN a.cost + b.cost + r.infrastructure_value > 0
    THEN 100 * (r.annual_loss * (1 - (1 - a.surface * a.effectiveness) * (1 - b.surface * b.effectiveness)) - (a.cost + b.cost))
      / (a.cost + b.cost + r.infrastructure_value) END AS rori
FROM controls a
JOIN controls b ON a.control < b.control
CROSS JOIN risk_appetite r
WHERE NOT EXISTS (
  SELECT 1 FROM control_exclusions x
  WHERE (x.control = a.control AND x.other = b.control) OR (x.control = b.control AND x.other = a.control));

-- What to take. What is to be averted is each process's loss in each incident; a control averts what it saves
-- alone, a bundle what it saves as one, and several of them what is left by one after the other. Of a bundle only those
-- that answer a finding are taken: it saves as much without the others.
CREATE MATERIALIZED VIEW recommended AS
SELECT control, step, cost, averted
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

-- A row per recommendation and finding that it answers, and what it averts of all losses; both go with the finding.
CREATE MATERIALIZED VIEW recommendations AS
SELECT r.step, r.control, r.cost, r.averted, o.incident, o.finding
FROM recommended r
JOIN control_prevents p ON p.control = r.control
JOIN (SELECT DISTINCT incident, finding FROM incident_outages) o ON o.finding = p.finding;
