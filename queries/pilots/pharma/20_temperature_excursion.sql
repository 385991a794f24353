-- P1, excursion: two consecutive readings of a logger outside 2 to 8 °C.
--
-- Does not fire: the door opened at the dock, one reading outside (also when
-- that reading is told twice: a repetition is no time later); outside, inside,
-- outside, even while the middle one is on its way (without it the two are not
-- consecutive: more than one and a half intervals apart); 8.0 °C.

CREATE MATERIALIZED VIEW excursion_readings AS
SELECT p.shipment, p.device, p.prev_ts, p.ts, p.prev_value, p.value
FROM (
  SELECT shipment, device, ts, value,
         lag(ts) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_ts,
         lag(value) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_value
  FROM sensors
  WHERE kind = 'temperature'
) p
JOIN logger_models m ON m.model = split_part(p.device, '-', 1)
WHERE p.prev_ts < p.ts
  AND extract(epoch FROM p.ts) - extract(epoch FROM p.prev_ts) <= m.interval_minutes * 90
  AND (p.value < 2 OR p.value > 8)
  AND (p.prev_value < 2 OR p.prev_value > 8);

CREATE DETECTION temperature_excursion WITH (severity = 'critical', entity = 'shipment', attack = 'T0831') AS
SELECT shipment, min(prev_ts) AS since
FROM excursion_readings
GROUP BY shipment;
