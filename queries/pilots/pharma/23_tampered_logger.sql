-- P4, tampered logger: what a shipment's logger says and what its reefer's air
-- is differ by more than 2 °C in four consecutive quarters of an hour, or by more
-- than 10 °C in two (of an hourly logger: in so many consecutive readings), each
-- by its mean.
--
-- Does not fire: a jump of the air that is over after twenty minutes (P2, or a
-- door); a product that warms behind its air; 2.0 °C; quarters with one between
-- that is still on its way, or has no reading of the air.

CREATE MATERIALIZED VIEW quarters_apart AS
SELECT l.shipment, l.device, l.interval_minutes, l.quarter, l.celsius AS logger_celsius, a.celsius AS air_celsius,
       -- Rounded, as 8.3 - 6.3 is 2.0000000000000009 to a float.
       round(abs(l.celsius - a.celsius), 6) AS degrees
FROM (
  SELECT shipment, device, interval_minutes, date_bin(INTERVAL '15 minutes', ts) AS quarter, avg(value) AS celsius
  FROM logger_readings
  GROUP BY shipment, device, interval_minutes, date_bin(INTERVAL '15 minutes', ts)
) l
JOIN (
  SELECT shipment, date_bin(INTERVAL '15 minutes', ts) AS quarter, avg(value) AS celsius
  FROM readings
  WHERE kind = 'air'
  GROUP BY shipment, date_bin(INTERVAL '15 minutes', ts)
) a ON a.shipment = l.shipment AND a.quarter = l.quarter
WHERE round(abs(l.celsius - a.celsius), 6) > 2;

CREATE DETECTION tampered_logger WITH (severity = 'high', entity = 'device', attack = 'T0832') AS
SELECT device, shipment, min(since) AS since
FROM (
  SELECT device, shipment, interval_minutes, quarter, 3 AS steps,
         lag(quarter, 3) OVER (PARTITION BY shipment, device ORDER BY quarter) AS since
  FROM quarters_apart
  UNION ALL
  SELECT device, shipment, interval_minutes, quarter, 1 AS steps,
         lag(quarter) OVER (PARTITION BY shipment, device ORDER BY quarter) AS since
  FROM quarters_apart
  WHERE degrees > 10
) q
WHERE extract(epoch FROM quarter) - extract(epoch FROM since) <= interval_minutes * 60 * steps
GROUP BY device, shipment;
