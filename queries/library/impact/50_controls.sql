-- Counter-measures: what each would have saved, and their rankings; and to which findings a loss goes back.

-- What a trial saves of each process's loss. Of an incident of which one trial does not settle nothing is told: what has
-- no downtimes would seem to save all.
CREATE MATERIALIZED VIEW savings AS
SELECT t.incident, t.kind, t.trial, p.process, p.loss, sum(t.stretch * (p.loss - coalesce(l.loss, 0))) / 1000000 AS saved
FROM trials t
JOIN losses_by_process p ON p.kind = 'incident' AND p.scenario = t.incident
LEFT JOIN played_losses l
  ON l.kind = t.kind AND l.scenario = t.incident AND l.trial = t.trial AND l.cases = t.cases AND l.process = p.process
WHERE t.incident NOT IN (SELECT scenario FROM unsettled WHERE kind <> 'supposed')
GROUP BY t.incident, t.kind, t.trial, p.process, p.loss;

CREATE VIEW trial_savings AS
SELECT incident, kind, trial, sum(loss) AS loss, sum(saved) AS saved
FROM savings
GROUP BY incident, kind, trial;

-- An incident once more, with a control or a bundle on, or without one of its findings.
CREATE MATERIALIZED VIEW post_event AS
SELECT incident, kind, trial, loss, saved FROM trial_savings WHERE kind IN ('control', 'bundle', 'finding');

-- The root findings of a loss are those that have a share of it. saved: without this one. Where each of two would have
-- been enough, without either nothing is saved, and yet they are the cause; so the share is what a finding adds to
-- those that came before it, and to those that came after it, half of each: a Shapley value over two orders. The shares
-- add up to the loss, or to less where there are more than a hundred findings.
CREATE MATERIALIZED VIEW root_findings AS
SELECT incident, finding, loss, saved, share
FROM (
  SELECT incident, finding, nth, loss, saved,
    (coalesce(lag(later) OVER (PARTITION BY incident ORDER BY nth), loss) - later
      + coalesce(lead(earlier) OVER (PARTITION BY incident ORDER BY nth), loss) - earlier) / 2 AS share
  FROM (
    SELECT f.incident, f.finding, f.nth, a.loss, a.saved, coalesce(u.saved, 0) AS later, coalesce(s.saved, 0) AS earlier
    FROM tried_findings f
    JOIN trial_savings a ON a.kind = 'finding' AND a.incident = f.incident AND a.trial = f.finding
    LEFT JOIN trial_savings u ON u.kind = 'until' AND u.incident = f.incident AND u.trial = f.finding
    LEFT JOIN trial_savings s ON s.kind = 'since' AND s.incident = f.incident AND s.trial = f.finding
  ) x
) y
WHERE nth <= 100;

-- Ranked by what is saved per cost or by return: ROSI of what was saved, and RORI (Gonzalez-Granadillo et
-- al., 2012) of the annual loss, in percent, where surface · effectiveness of the risk goes.
CREATE MATERIALIZED VIEW control_ranking AS
SELECT c.control, c.cost, coalesce(s.saved, 0) AS saved,
  CASE WHEN c.cost > 0 THEN coalesce(s.saved, 0) / c.cost END AS saved_per_cost,
  CASE WHEN c.cost > 0 THEN (coalesce(s.saved, 0) - c.cost) / c.cost END AS rosi,
  CASE WHEN c.cost + r.infrastructure_value > 0
    THEN 100 * (r.annual_loss * e.effect - c.cost) / (c.cost + r.infrastructure_value) END AS rori
FROM controls c
CROSS JOIN risk_appetite r
LEFT JOIN control_effects e ON e.control = c.control
LEFT JOIN (SELECT trial, sum(saved) AS saved FROM post_event WHERE kind = 'control' GROUP BY trial) s ON s.trial = c.control;

-- Two together: costs add up, and independently they leave (1 - a)(1 - b) of the risk.
CREATE MATERIALIZED VIEW pair_ranking AS
SELECT a.control AS control, b.control AS other, a.cost + b.cost AS cost,
  CASE WHEN a.cost + b.cost + r.infrastructure_value > 0
    THEN 100 * (r.annual_loss * (1 - (1 - e.effect) * (1 - f.effect)) - (a.cost + b.cost))
      / (a.cost + b.cost + r.infrastructure_value) END AS rori
FROM controls a
JOIN control_effects e ON e.control = a.control
JOIN controls b ON a.control < b.control
JOIN control_effects f ON f.control = b.control
CROSS JOIN risk_appetite r
WHERE NOT EXISTS (
  SELECT 1 FROM control_exclusions x
  WHERE (x.control = a.control AND x.other = b.control) OR (x.control = b.control AND x.other = a.control));

-- What counts nowhere, or as nothing.
CREATE MATERIALIZED VIEW impact_errors AS
SELECT 'controls' AS relation, control AS item, 'its surface or effectiveness is not between 0 and 1' AS reason
FROM controls
WHERE control NOT IN (SELECT control FROM control_effects)
UNION ALL
SELECT 'controls', control, 'it has no cost, and so is not recommended' FROM controls WHERE cost IS NULL
UNION ALL
SELECT 'control_bundles', bundle, 'its controls exclude each other, and so it is no candidate'
FROM impossible_bundles
WHERE bundle IN (SELECT bundle FROM control_bundles)
UNION ALL
SELECT 'model_nodes', node, 'it is no process, and its loss is counted beside those of the processes that need it'
FROM model_nodes
WHERE loss_per_hour IS NOT NULL AND level IS DISTINCT FROM 'process'
UNION ALL
SELECT DISTINCT CASE kind WHEN 'supposed' THEN 'model_suppositions' ELSE 'model_outages' END, scenario,
  CASE WHEN trial IS NULL THEN 'it goes round for too long, and so has no losses' ELSE 'it goes round for too long in a trial, and so nothing is told of what would have saved' END
    || ': with longer restarts or a nearer model_horizon it ends sooner'
FROM unsettled
UNION ALL
SELECT 'model_outages', incident, 'it has ' || CAST(count(*) AS TEXT) || ' findings: shares are told of the first 100'
FROM incident_findings
GROUP BY incident
HAVING count(*) > 100;
