-- Impossible travel: between two consecutive transactions of a customer lie more
-- than 100 km, and more than one can fly at 900 km/h in the time between.
--
-- Does not fire: 100 km, at any pace; two cities by plane; a transaction with no
-- place, such as on the Internet, which is passed over; one told twice. A late
-- transaction changes what is said of itself and of its successor.

CREATE MATERIALIZED VIEW travel AS
WITH steps AS (
  SELECT tx_id, customer, ts, lat, lon,
         lag(ts) OVER (PARTITION BY customer ORDER BY ts, tx_id) AS prev_ts,
         lag(lat) OVER (PARTITION BY customer ORDER BY ts, tx_id) AS prev_lat,
         lag(lon) OVER (PARTITION BY customer ORDER BY ts, tx_id) AS prev_lon
  FROM recent_transactions
  WHERE lat IS NOT NULL AND lon IS NOT NULL
)
-- Great-circle distance on a sphere of 6371.0088 km (haversine).
SELECT tx_id, customer, ts,
       (CAST(ts AS BIGINT) - CAST(prev_ts AS BIGINT)) / 3600000.0 AS hours,
       2 * 6371.0088 * asin(sqrt(least(1.0,
         power(sin(radians(lat - prev_lat) / 2), 2)
         + cos(radians(prev_lat)) * cos(radians(lat)) * power(sin(radians(lon - prev_lon) / 2), 2)))) AS km
FROM steps
WHERE prev_ts IS NOT NULL;

-- At one moment in two places: no pace, and impossible.
CREATE DETECTION impossible_travel WITH (severity = 'high', entity = 'customer', attack = 'T1078') AS
SELECT customer, tx_id, ts, km, CASE WHEN hours > 0 THEN km / hours END AS km_per_hour
FROM travel
WHERE km > 100 AND km > 900 * hours;
