-- Features and detections over card transactions. Bring two files of JSON lines,
-- or replace this file by sources with the same columns: TRANSACTIONS names the
-- transactions, LABELS what became known of them later.
--
-- Boundaries, once for the whole pack: a window of length w that ends with a
-- transaction at t is (t - w, t], as in pandas: what happened exactly w before
-- is out. Times are whole milliseconds, so w is written as w less one. At one
-- moment the lower tx_id comes first. A transaction told twice counts once, and
-- is told the same way both times.

-- lat and lon are NULL where nobody was present, such as on the Internet. ts may
-- be an hour late, if a terminal was offline.
CREATE SOURCE transactions (
  tx_id BIGINT, customer TEXT, card TEXT, device TEXT, ip TEXT, merchant TEXT,
  amount DOUBLE, lat DOUBLE, lon DOUBLE, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '1 hour'
) WITH (connector = 'file', path = '${TRANSACTIONS}', format = 'json');

-- A transaction that proved to be fraud, and when that was known.
CREATE SOURCE fraud_labels (
  tx_id BIGINT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '1 hour'
) WITH (connector = 'file', path = '${LABELS}', format = 'json');

-- Who is compared with whom. A customer without a group is compared with nobody.
CREATE TABLE peer_groups (customer TEXT PRIMARY KEY, peers TEXT);

-- Each transaction once, for as long as the longest window looks back: thirty
-- days, seven days later, and three days for the features to be read. Features
-- of a transaction are told as long as all of its window is there, and no longer:
-- what was left of it would be other features.
CREATE MATERIALIZED VIEW recent_transactions AS
SELECT DISTINCT tx_id, customer, card, device, ip, merchant, amount, lat, lon, ts
FROM transactions
WHERE ts > watermark('transactions') - INTERVAL '40 days';
