-- Delayed merchant risk: of a merchant's transactions in (t - 7 d - w, t - 7 d],
-- the share that proved to be fraud, for w of one, seven and thirty days.
--
-- The delay of seven days is the time it takes to know: what happened since is
-- left out, whether known by now or not, so that what is said of a transaction
-- at its time and later is the same. Where it took longer to know it is not: such
-- a label changes what is said from then on, also of transactions before it. The
-- share is 0 where there was none. A label that comes twice is counted once.

CREATE MATERIALIZED VIEW known_frauds AS
SELECT DISTINCT tx_id FROM fraud_labels;

CREATE MATERIALIZED VIEW merchant_risk AS
WITH marked AS (
  SELECT t.tx_id, t.merchant, t.ts, CASE WHEN f.tx_id IS NULL THEN 0 ELSE 1 END AS fraud
  FROM recent_transactions t
  LEFT JOIN known_frauds f ON f.tx_id = t.tx_id
  WHERE t.merchant IS NOT NULL
),
framed AS (
  SELECT tx_id, merchant, ts,
         count(*) OVER d AS n_1d, sum(fraud) OVER d AS f_1d,
         count(*) OVER w AS n_7d, sum(fraud) OVER w AS f_7d,
         count(*) OVER m AS n_30d, sum(fraud) OVER m AS f_30d
  FROM marked
  WINDOW
    d AS (PARTITION BY merchant ORDER BY ts RANGE BETWEEN INTERVAL '691199.999 seconds' PRECEDING AND INTERVAL '604800 seconds' PRECEDING),
    w AS (PARTITION BY merchant ORDER BY ts RANGE BETWEEN INTERVAL '1209599.999 seconds' PRECEDING AND INTERVAL '604800 seconds' PRECEDING),
    m AS (PARTITION BY merchant ORDER BY ts RANGE BETWEEN INTERVAL '3196799.999 seconds' PRECEDING AND INTERVAL '604800 seconds' PRECEDING)
)
SELECT tx_id, merchant, ts,
       n_1d, CASE WHEN n_1d > 0 THEN CAST(f_1d AS DOUBLE) / n_1d ELSE 0 END AS risk_1d,
       n_7d, CASE WHEN n_7d > 0 THEN CAST(f_7d AS DOUBLE) / n_7d ELSE 0 END AS risk_7d,
       n_30d, CASE WHEN n_30d > 0 THEN CAST(f_30d AS DOUBLE) / n_30d ELSE 0 END AS risk_30d
FROM framed
WHERE ts > watermark('transactions') - INTERVAL '3 days';
