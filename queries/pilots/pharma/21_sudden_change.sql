-- P2, sudden change: the air changes by 3 °C or more within five minutes, and no
-- door explains it: a faulty or a forged probe. Readings that are farther apart
-- count by the change that five minutes have of theirs.
--
-- A door explains it that was open within the ten minutes before the last of the
-- readings: five for the change, and five in which the air settles. It is open
-- from when it says so until it says otherwise, for an hour at most: its word may
-- have been lost.
--
-- Does not fire: a door of which one hears after the change (judged five minutes
-- later); defrosting, which takes its time; a missed reading (3.9 °C in ten
-- minutes may have been 1.95 in each five); 2.9 °C. A reading without a value is
-- none.

CREATE MATERIALIZED VIEW door_openings AS
SELECT shipment, ts AS opened_ts, least(until_ts, ts + INTERVAL '1 hour') AS until_ts
FROM (
  SELECT shipment, value, ts, lead(ts) OVER (PARTITION BY shipment, device ORDER BY ts, value) AS until_ts
  FROM sensors
  WHERE kind = 'door' AND value IS NOT NULL
) d
WHERE value = 1;

CREATE DETECTION sudden_change WITH (severity = 'medium', entity = 'shipment', attack = 'T0856') AS
WITH steps AS (
  SELECT shipment, device, ts,
         value - min(value) OVER (
           PARTITION BY shipment, device ORDER BY ts RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW) AS rise,
         value - max(value) OVER (
           PARTITION BY shipment, device ORDER BY ts RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW) AS fall,
         value - lag(value) OVER (PARTITION BY shipment, device ORDER BY ts) AS step,
         extract(epoch FROM ts) - extract(epoch FROM lag(ts) OVER (PARTITION BY shipment, device ORDER BY ts)) AS seconds
  FROM readings
  WHERE kind = 'air' AND value IS NOT NULL
),
changes AS (
  SELECT shipment, device, ts,
         CASE WHEN seconds > 300 THEN step * 300 / seconds WHEN rise >= -fall THEN rise ELSE fall END AS degrees
  FROM steps
)
SELECT c.shipment, c.device, c.ts, round(c.degrees, 1) AS degrees
FROM changes c
-- Rounded, as 8.2 - 5.2 is 2.9999999999999991 to a float.
WHERE round(abs(c.degrees), 6) >= 3
  AND c.ts < now() - INTERVAL '5 minutes'
  AND NOT EXISTS (
    SELECT 1 FROM door_openings d
    WHERE d.shipment = c.shipment
      AND d.opened_ts <= c.ts
      AND d.until_ts >= c.ts - INTERVAL '10 minutes');
