-- Peer deviation: how far a transaction's amount is from those of the customer's
-- peer group on the same day (UTC), in two ways.
--
-- loo_z    (x - mean) / standard deviation, both of all others of the group and
--          day (sample deviation), from their count, sum and sum of squares
-- mad_z    (x - median) / (1.4826 * median of |x - median|), of all of them
--
-- Each is NULL where it says nothing: fewer than two others, or no spread among
-- them. The days are [00:00, 24:00). A late transaction changes its group's day.
--
-- Does not fire: a day with fewer than five; an amount below its peers'; what
-- only one of the two finds far off. One told twice counts once.

-- A day goes as a whole: among what was left of it, others would deviate.
CREATE MATERIALIZED VIEW peer_amounts AS
SELECT t.tx_id, t.customer, g.peers, date_bin(INTERVAL '1 day', t.ts) AS day, t.amount
FROM recent_transactions t
JOIN peer_groups g ON g.customer = t.customer
WHERE date_bin(INTERVAL '1 day', t.ts) > watermark('transactions') - INTERVAL '39 days';

CREATE MATERIALIZED VIEW peer_days AS
SELECT peers, day, count(*) AS n, sum(amount) AS s, sum(amount * amount) AS q, median(amount) AS median
FROM peer_amounts
GROUP BY peers, day;

CREATE MATERIALIZED VIEW peer_spreads AS
SELECT a.peers, a.day, median(abs(a.amount - d.median)) AS mad
FROM peer_amounts a
JOIN peer_days d ON d.peers = a.peers AND d.day = a.day
GROUP BY a.peers, a.day;

CREATE MATERIALIZED VIEW peer_scores AS
WITH others AS (
  SELECT a.tx_id, a.customer, a.peers, a.day, a.amount, d.n, d.median,
         (d.s - a.amount) / nullif(d.n - 1, 0) AS mean,
         d.q - a.amount * a.amount AS q
  FROM peer_amounts a
  JOIN peer_days d ON d.peers = a.peers AND d.day = a.day
),
spread AS (
  SELECT tx_id, customer, peers, day, amount, n, median, mean,
         (q - (n - 1) * mean * mean) / nullif(n - 2, 0) AS variance
  FROM others
)
-- A variance that is nothing beside the mean's square is what rounding left.
SELECT s.tx_id, s.customer, s.peers, s.day, s.amount, s.n,
       CASE WHEN s.n > 2 AND s.variance > 1e-9 * s.mean * s.mean THEN (s.amount - s.mean) / sqrt(s.variance) END AS loo_z,
       (s.amount - s.median) / nullif(1.4826 * m.mad, 0) AS mad_z
FROM spread s
JOIN peer_spreads m ON m.peers = s.peers AND m.day = s.day;

CREATE DETECTION peer_deviation WITH (severity = 'medium', entity = 'tx_id') AS
SELECT tx_id, customer, peers, day, amount, loo_z, mad_z
FROM peer_scores
WHERE n >= 5 AND loo_z > 6 AND mad_z > 6;
