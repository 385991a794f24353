-- P1, excursion: two consecutive readings of a logger outside 2 to 8 °C are an
-- excursion, and the lot is spoiled; one is to be investigated.
--
-- No excursion: the door opened at the dock, one reading outside (also when
-- that reading is told twice); outside, inside, outside, even while the middle
-- one is on its way (without it the two are not consecutive: more than one and a
-- half intervals apart); 8.0 °C. A reading without a value is none. What is
-- corrected counts as corrected.

CREATE MATERIALIZED VIEW excursion_readings AS
SELECT shipment, device, prev_ts, ts, prev_value, value
FROM (
  SELECT shipment, device, ts, value, interval_minutes,
         lag(ts) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_ts,
         lag(value) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_value
  FROM logger_readings
  WHERE value IS NOT NULL
) p
WHERE extract(epoch FROM ts) - extract(epoch FROM prev_ts) <= interval_minutes * 90
  AND (value < 2 OR value > 8)
  AND (prev_value < 2 OR prev_value > 8);

CREATE DETECTION temperature_excursion WITH (severity = 'critical', entity = 'shipment', attack = 'T0831') AS
SELECT shipment, min(prev_ts) AS since
FROM excursion_readings
GROUP BY shipment;

-- Withdrawn when the shipment's excursion is found, which says more, and after a
-- day.
CREATE DETECTION reading_outside WITH (severity = 'low', entity = 'shipment', attack = 'T0831') AS
SELECT r.shipment, r.device, r.ts, r.value
FROM logger_readings r
WHERE (r.value < 2 OR r.value > 8)
  AND r.ts > watermark('sensors') - INTERVAL '24 hours'
  AND NOT EXISTS (
    SELECT 1 FROM temperature_excursion x WHERE x.shipment = r.shipment);
