-- P3, silent sensor: nothing from a logger for more than twice its interval.
-- Found by the clock, when nothing arrives; withdrawn when the logger speaks.
--
-- Does not fire: a logger that writes once an hour; a trip that is over; a
-- reading held up for some minutes.

CREATE DETECTION silent_sensor WITH (severity = 'medium', entity = 'device', attack = 'T0804') AS
SELECT l.device, l.shipment, l.last_ts
FROM (
  SELECT device, shipment, max(ts) AS last_ts
  FROM sensors
  WHERE kind = 'temperature'
  GROUP BY device, shipment
) l
JOIN logger_models m ON m.model = split_part(l.device, '-', 1)
WHERE l.last_ts + CAST(m.interval_minutes * 2 || ' minutes' AS INTERVAL) < now()
  AND NOT EXISTS (
    SELECT 1 FROM sensors r WHERE r.shipment = l.shipment AND r.kind = 'received');
