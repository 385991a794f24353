-- P4, tampered logger: what a shipment's logger says and what its reefer's air
-- is differ by more than 2 °C in four consecutive quarters of an hour (of an
-- hourly logger: in four consecutive readings), each by its mean.
--
-- Does not fire: a jump of the air that is over after twenty minutes (P2, or a
-- door); a product that warms behind its air; 2.0 °C; four quarters with one
-- between that is still on its way, or has no reading of the air. A reading told
-- twice counts once in its mean.

CREATE MATERIALIZED VIEW quarters_apart AS
SELECT l.shipment, l.device, l.quarter, l.celsius AS logger_celsius, a.celsius AS air_celsius
FROM (
  SELECT shipment, device, date_bin(INTERVAL '15 minutes', ts) AS quarter, avg(value) AS celsius
  FROM (SELECT DISTINCT shipment, device, ts, value FROM sensors WHERE kind = 'temperature') readings
  GROUP BY shipment, device, date_bin(INTERVAL '15 minutes', ts)
) l
JOIN (
  SELECT shipment, date_bin(INTERVAL '15 minutes', ts) AS quarter, avg(value) AS celsius
  FROM (SELECT DISTINCT shipment, device, ts, value FROM sensors WHERE kind = 'air') readings
  GROUP BY shipment, date_bin(INTERVAL '15 minutes', ts)
) a ON a.shipment = l.shipment AND a.quarter = l.quarter
-- Rounded, as 8.3 - 6.3 is 2.0000000000000009 to a float.
WHERE round(abs(l.celsius - a.celsius), 6) > 2;

CREATE DETECTION tampered_logger WITH (severity = 'high', entity = 'device', attack = 'T0832') AS
SELECT q.device, q.shipment, min(q.first_quarter) AS since
FROM (
  SELECT device, shipment, quarter,
         lag(quarter, 3) OVER (PARTITION BY shipment, device ORDER BY quarter) AS first_quarter
  FROM quarters_apart
) q
JOIN logger_models m ON m.model = split_part(q.device, '-', 1)
WHERE extract(epoch FROM q.quarter) - extract(epoch FROM q.first_quarter) <= m.interval_minutes * 180
GROUP BY q.device, q.shipment;
