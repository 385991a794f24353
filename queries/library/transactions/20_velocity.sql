-- Velocity: how many transactions, and how much, within ten minutes, a day and
-- seven days up to each one, by customer; within ten minutes by card, by address
-- and by device, with the number of distinct cards on the device.
--
-- Windows are (t - w, t]. At one moment those with a higher tx_id do not count
-- for those with a lower one. A late transaction changes the features of those
-- that follow it within the window, and no others.

-- A frame by RANGE holds all of its last moment. What comes later at that
-- moment is counted beside it, and taken off below.
CREATE MATERIALIZED VIEW customer_velocity AS
WITH framed AS (
  SELECT tx_id, customer, amount, ts,
         count(*) OVER m AS n_10m, sum(amount) OVER m AS s_10m,
         count(*) OVER d AS n_1d, sum(amount) OVER d AS s_1d,
         count(*) OVER w AS n_7d, sum(amount) OVER w AS s_7d,
         count(*) OVER later AS n_later, coalesce(sum(amount) OVER later, 0) AS s_later
  FROM recent_transactions
  WINDOW
    m AS (PARTITION BY customer ORDER BY ts RANGE BETWEEN INTERVAL '599.999 seconds' PRECEDING AND CURRENT ROW),
    d AS (PARTITION BY customer ORDER BY ts RANGE BETWEEN INTERVAL '86399.999 seconds' PRECEDING AND CURRENT ROW),
    w AS (PARTITION BY customer ORDER BY ts RANGE BETWEEN INTERVAL '604799.999 seconds' PRECEDING AND CURRENT ROW),
    later AS (PARTITION BY customer, ts ORDER BY tx_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT tx_id, customer, ts,
       n_10m - n_later AS count_10m, s_10m - s_later AS sum_10m,
       n_1d - n_later AS count_1d, s_1d - s_later AS sum_1d, (s_1d - s_later) / (n_1d - n_later) AS mean_1d,
       n_7d - n_later AS count_7d, s_7d - s_later AS sum_7d, (s_7d - s_later) / (n_7d - n_later) AS mean_7d
FROM framed
WHERE ts > watermark('transactions') - INTERVAL '33 days';

CREATE MATERIALIZED VIEW card_velocity AS
WITH framed AS (
  SELECT tx_id, card, amount, ts,
         count(*) OVER m AS n_10m, sum(amount) OVER m AS s_10m,
         count(*) OVER later AS n_later, coalesce(sum(amount) OVER later, 0) AS s_later
  FROM recent_transactions
  WHERE card IS NOT NULL
  WINDOW
    m AS (PARTITION BY card ORDER BY ts RANGE BETWEEN INTERVAL '599.999 seconds' PRECEDING AND CURRENT ROW),
    later AS (PARTITION BY card, ts ORDER BY tx_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT tx_id, card, ts, n_10m - n_later AS count_10m, s_10m - s_later AS sum_10m
FROM framed
WHERE ts > watermark('transactions') - INTERVAL '39 days';

CREATE MATERIALIZED VIEW address_velocity AS
WITH framed AS (
  SELECT tx_id, ip, amount, ts,
         count(*) OVER m AS n_10m, sum(amount) OVER m AS s_10m,
         count(*) OVER later AS n_later, coalesce(sum(amount) OVER later, 0) AS s_later
  FROM recent_transactions
  WHERE ip IS NOT NULL
  WINDOW
    m AS (PARTITION BY ip ORDER BY ts RANGE BETWEEN INTERVAL '599.999 seconds' PRECEDING AND CURRENT ROW),
    later AS (PARTITION BY ip, ts ORDER BY tx_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT tx_id, ip, ts, n_10m - n_later AS count_10m, s_10m - s_later AS sum_10m
FROM framed
WHERE ts > watermark('transactions') - INTERVAL '39 days';

-- Cards are counted over the pairs within the window, since a card that comes
-- later at the same moment cannot be taken off a count of distinct ones.
CREATE MATERIALIZED VIEW device_velocity AS
SELECT t.tx_id, t.device, t.ts, count(*) AS count_10m, sum(o.amount) AS sum_10m, count(DISTINCT o.card) AS cards_10m
FROM recent_transactions t
JOIN recent_transactions o
  ON o.device = t.device
 AND o.ts > t.ts - INTERVAL '10 minutes'
 AND (o.ts < t.ts OR (o.ts = t.ts AND o.tx_id <= t.tx_id))
WHERE t.ts > watermark('transactions') - INTERVAL '39 days'
GROUP BY t.tx_id, t.device, t.ts;
