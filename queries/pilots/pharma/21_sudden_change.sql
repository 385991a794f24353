-- P2, sudden change: the air changes by 3 °C or more between two readings five
-- minutes apart, and no door explains it: a faulty or a forged probe.
--
-- Does not fire: a door opened up to twenty minutes before, also when word of
-- it comes after the change (judged five minutes later); defrosting, which
-- takes its time; a missed reading (its neighbours are ten minutes apart); 2.9
-- °C. A reading without a value is none.

CREATE DETECTION sudden_change WITH (severity = 'medium', entity = 'shipment', attack = 'T0856') AS
SELECT DISTINCT a.shipment, a.device, a.ts, round(a.value - a.prev_value, 1) AS degrees
FROM (
  SELECT shipment, device, ts, value,
         lag(ts) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_ts,
         lag(value) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_value
  FROM sensors
  WHERE kind = 'air' AND value IS NOT NULL
) a
WHERE a.prev_ts < a.ts
  AND extract(epoch FROM a.ts) - extract(epoch FROM a.prev_ts) <= 450
  -- Rounded, as 8.2 - 5.2 is 2.9999999999999991 to a float.
  AND round(abs(a.value - a.prev_value), 6) >= 3
  AND a.ts < now() - INTERVAL '5 minutes'
  AND NOT EXISTS (
    SELECT 1 FROM sensors d
    WHERE d.shipment = a.shipment AND d.kind = 'door' AND d.value = 1
      AND d.ts <= a.ts AND d.ts >= a.ts - INTERVAL '20 minutes');
