-- Losses per process, organisation and in all.

CREATE MATERIALIZED VIEW played_losses AS
SELECT d.scenario, d.kind, d.trial, d.node AS process, n.org, d.down_ms,
  coalesce(d.down_ms > n.rto_ms, false) AS misses_rto,
  coalesce(d.down_ms >= n.mtpd_ms, false) AS reaches_mtpd,
  n.loss_per_hour * d.down_ms / 3600000
    + CASE WHEN d.down_ms > n.rto_ms THEN coalesce(n.late_per_hour, 0) * (d.down_ms - n.rto_ms) / 3600000 ELSE 0 END
    + CASE WHEN d.down_ms >= n.mtpd_ms THEN coalesce(n.fixed_loss, 0) ELSE 0 END AS loss
FROM down d JOIN impact_nodes n ON n.node = d.node
WHERE n.loss_per_hour IS NOT NULL;

CREATE MATERIALIZED VIEW process_losses AS
SELECT scenario, process, org, down_ms, misses_rto, reaches_mtpd, loss FROM played_losses WHERE kind IS NULL;

CREATE MATERIALIZED VIEW organisation_losses AS
SELECT scenario, org, count(*) AS processes, sum(loss) AS loss
FROM process_losses
GROUP BY scenario, org;

-- Per scenario; resilience is the part of the week's weighted work that is left
-- (Bruneau et al., Earthquake Spectra 2003).
CREATE MATERIALIZED VIEW scenario_losses AS
SELECT l.scenario, l.loss, l.missed_rto, l.reached_mtpd, 1 - l.lost / (604800000 * w.weight) AS resilience
FROM (
  SELECT p.scenario, sum(p.loss) AS loss,
    count(*) FILTER (WHERE p.misses_rto) AS missed_rto, count(*) FILTER (WHERE p.reaches_mtpd) AS reached_mtpd,
    sum(coalesce(n.weight, 1) * p.down_ms) AS lost
  FROM process_losses p JOIN impact_nodes n ON n.node = p.process
  GROUP BY p.scenario
) l
CROSS JOIN (SELECT sum(coalesce(weight, 1)) AS weight FROM impact_nodes WHERE loss_per_hour IS NOT NULL) w;

-- What users suppose, and how much more it costs than the incident beside it.
CREATE MATERIALIZED VIEW hypothetical_losses AS
SELECT h.scenario, h.besides, coalesce(l.loss, 0) AS loss, coalesce(l.loss, 0) - coalesce(i.loss, 0) AS more
FROM (SELECT DISTINCT scenario, besides FROM hypothetical_outages) h
LEFT JOIN scenario_losses l ON l.scenario = h.scenario
LEFT JOIN scenario_losses i ON i.scenario = h.besides;
