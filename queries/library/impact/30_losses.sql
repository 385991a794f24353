-- Losses per process, organisation and in all.

-- The loss of a process that is down for down_ms: of each term that has begun by then, per_hour since then, and once.
CREATE VIEW loss_terms AS
SELECT node AS process, 0 AS from_ms, loss_per_hour AS per_hour, 0 AS once FROM model_nodes WHERE loss_per_hour IS NOT NULL
UNION ALL
SELECT node, rto_ms, late_per_hour, 0
FROM model_nodes WHERE loss_per_hour IS NOT NULL AND rto_ms IS NOT NULL AND late_per_hour IS NOT NULL
UNION ALL
SELECT node, mtpd_ms, 0, fixed_loss
FROM model_nodes WHERE loss_per_hour IS NOT NULL AND mtpd_ms IS NOT NULL AND fixed_loss IS NOT NULL;

CREATE MATERIALIZED VIEW played_losses AS
SELECT d.kind, d.scenario, d.trial, d.cases, d.node AS process, d.down_ms,
  sum(t.per_hour * (d.down_ms - t.from_ms) / 3600000 + t.once) AS loss
FROM downtimes d
JOIN loss_terms t ON t.process = d.node AND t.from_ms <= d.down_ms
GROUP BY d.kind, d.scenario, d.trial, d.cases, d.node, d.down_ms;

-- kind: incident or supposed.
CREATE MATERIALIZED VIEW losses_by_process AS
SELECT l.kind, l.scenario, l.process, n.org, l.down_ms,
  coalesce(l.down_ms > n.rto_ms, false) AS misses_rto,
  coalesce(l.down_ms >= n.mtpd_ms, false) AS reaches_mtpd,
  l.loss
FROM played_losses l
JOIN model_nodes n ON n.node = l.process
WHERE l.kind IN ('incident', 'supposed');

CREATE MATERIALIZED VIEW losses_by_organisation AS
SELECT kind, scenario, org, count(*) AS processes, sum(loss) AS loss,
  count(*) FILTER (WHERE misses_rto) AS missed_rto, count(*) FILTER (WHERE reaches_mtpd) AS reached_mtpd
FROM losses_by_process
GROUP BY kind, scenario, org;

-- Resilience is the part of the weighted work up to the horizon that is left
-- (Bruneau et al., Earthquake Spectra 2003).
CREATE MATERIALIZED VIEW losses_by_scenario AS
SELECT l.kind, l.scenario, l.loss, l.missed_rto, l.reached_mtpd,
  1 - l.lost / (h.horizon_ms * w.weight) AS resilience
FROM (
  SELECT p.kind, p.scenario, sum(p.loss) AS loss,
    count(*) FILTER (WHERE p.misses_rto) AS missed_rto, count(*) FILTER (WHERE p.reaches_mtpd) AS reached_mtpd,
    sum(coalesce(n.weight, 1) * p.down_ms) AS lost
  FROM losses_by_process p JOIN model_nodes n ON n.node = p.process
  GROUP BY p.kind, p.scenario
) l
CROSS JOIN (SELECT sum(coalesce(weight, 1)) AS weight FROM model_nodes WHERE loss_per_hour IS NOT NULL) w
CROSS JOIN model_horizon h;

-- What users suppose, and how much more it costs than the incident beside it.
CREATE MATERIALIZED VIEW supposed_losses AS
SELECT h.scenario, h.besides, coalesce(l.loss, 0) AS loss, coalesce(l.loss, 0) - coalesce(i.loss, 0) AS more
FROM (SELECT DISTINCT scenario, besides FROM model_suppositions) h
LEFT JOIN losses_by_scenario l ON l.kind = 'supposed' AND l.scenario = h.scenario
LEFT JOIN losses_by_scenario i ON i.kind = 'incident' AND i.scenario = h.besides
WHERE NOT EXISTS (
  SELECT 1 FROM unsettled u
  WHERE (u.kind = 'supposed' AND u.scenario = h.scenario) OR (u.kind = 'incident' AND u.scenario = h.besides));
