-- Streams that say nothing while the others go on: a cut link or a stopped service, and what waits for them finds nothing.
-- What time it is, is what the others told.

-- How long it may take from one event to the next; UPDATE it to what is usual. A stream without a row is not watched.
CREATE TABLE logistics_source_gaps (source TEXT PRIMARY KEY, minutes BIGINT);
INSERT INTO logistics_source_gaps VALUES
  ('scans', 60),
  ('proofs', 240),
  ('refunds', 720);

CREATE MATERIALIZED VIEW logistics_heard AS
SELECT source, first_ts, last_ts
FROM (
  SELECT 'scans' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM scans
  UNION ALL
  SELECT 'proofs' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM proofs
  UNION ALL
  SELECT 'refunds' AS source, min(ts) AS first_ts, max(ts) AS last_ts FROM refunds
) s;

-- last_ts NULL: it has never spoken, which is so for as long as any other has.
CREATE MATERIALIZED VIEW logistics_silent_sources AS
SELECT h.source, h.last_ts, n.newest_ts
FROM logistics_heard h
JOIN logistics_source_gaps g ON g.source = h.source
CROSS JOIN (SELECT min(first_ts) AS oldest_ts, max(last_ts) AS newest_ts FROM logistics_heard) n
WHERE coalesce(h.last_ts, n.oldest_ts) + CAST(g.minutes || ' minutes' AS INTERVAL) < n.newest_ts;
