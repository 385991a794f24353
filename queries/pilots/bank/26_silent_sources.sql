-- Streams that say nothing while the others go on: a cut link or a stopped service, and what waits for them finds nothing.
-- What time it is, is what the others told.

-- How long it may take from one event to the next; UPDATE it to what is usual. A stream without a row is not watched.
CREATE TABLE bank_source_gaps (source TEXT PRIMARY KEY, minutes BIGINT);
INSERT INTO bank_source_gaps VALUES
  ('orders', 60),
  ('payments', 60),
  ('web_events', 60),
  ('back_office', 720),
  ('host_authorisations', 120),
  ('atm_events', 120);

CREATE MATERIALIZED VIEW bank_heard AS
SELECT source, first_ts, last_ts
FROM (
  SELECT 'orders' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM orders
  UNION ALL
  SELECT 'payments' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM payments
  UNION ALL
  SELECT 'web_events' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM web_events
  UNION ALL
  SELECT 'back_office' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM back_office
  UNION ALL
  SELECT 'host_authorisations' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM host_authorisations
  UNION ALL
  SELECT 'atm_events' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM atm_events
) s;

-- last_ts NULL: it has never spoken, which is so for as long as any other has.
CREATE MATERIALIZED VIEW bank_silent_sources AS
SELECT h.source, h.last_ts, n.newest_ts
FROM bank_heard h
JOIN bank_source_gaps g ON g.source = h.source
CROSS JOIN (SELECT min(first_ts) AS oldest_ts, max(last_ts) AS newest_ts FROM bank_heard) n
WHERE coalesce(h.last_ts, n.oldest_ts) + CAST(g.minutes || ' minutes' AS INTERVAL) < n.newest_ts;
