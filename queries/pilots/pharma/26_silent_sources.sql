-- Streams that say nothing while the others go on: a cut link or a stopped service, and what waits for them finds nothing.
-- What time it is, is what the others told.

-- How long it may take from one event to the next; UPDATE it to what is usual. A stream without a row is not watched.
CREATE TABLE pharma_source_gaps (source TEXT PRIMARY KEY, minutes BIGINT);
INSERT INTO pharma_source_gaps VALUES
  ('sensors', 60),
  ('auth_log', 720),
  ('authenticity', 720),
  ('sales', 240);

CREATE MATERIALIZED VIEW pharma_heard AS
SELECT source, first_ts, last_ts
FROM (
  SELECT 'sensors' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM sensors
  UNION ALL
  SELECT 'auth_log' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM auth_log
  UNION ALL
  SELECT 'authenticity' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM authenticity
  UNION ALL
  SELECT 'sales' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM sales
) s;

-- last_ts NULL: it has never spoken, which is so for as long as any other has.
CREATE MATERIALIZED VIEW pharma_silent_sources AS
SELECT h.source, h.last_ts, n.newest_ts
FROM pharma_heard h
JOIN pharma_source_gaps g ON g.source = h.source
CROSS JOIN (SELECT min(first_ts) AS oldest_ts, max(last_ts) AS newest_ts FROM pharma_heard) n
WHERE coalesce(h.last_ts, n.oldest_ts) + CAST(g.minutes || ' minutes' AS INTERVAL) < n.newest_ts;
