-- Counter-measures: what each would have saved, and their rankings.

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
