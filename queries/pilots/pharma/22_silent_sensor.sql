-- P3, silent or frozen sensor: nothing from a logger for more than twice its
-- interval; or the same value in all its readings of four intervals or more (an
-- hour, where it writes every quarter), up to the last one.
--
-- Silence is found by the clock, when nothing arrives, and withdrawn when the
-- logger speaks; standing still is withdrawn when it moves. A reading without a
-- value is none: a logger that never told another is silent since the first.
--
-- Does not fire: a logger that writes once an hour; a trip that is over; a
-- reading held up for some minutes; one told five times (a repetition is no
-- time later).

CREATE DETECTION silent_sensor WITH (severity = 'medium', entity = 'device', attack = 'T0804') AS
SELECT l.device, l.shipment, l.last_ts, 'silent' AS state
FROM (
  SELECT device, shipment, coalesce(max(ts) FILTER (WHERE value IS NOT NULL), min(ts)) AS last_ts
  FROM sensors
  WHERE kind = 'temperature'
  GROUP BY device, shipment
) l
JOIN logger_models m ON m.model = split_part(l.device, '-', 1)
WHERE l.last_ts + CAST(m.interval_minutes * 2 || ' minutes' AS INTERVAL) < now()
  AND NOT EXISTS (
    SELECT 1 FROM sensors r WHERE r.shipment = l.shipment AND r.kind = 'received')
UNION ALL
SELECT l.device, l.shipment, l.since AS last_ts, 'frozen' AS state
FROM (
  SELECT device, shipment, max(ts) AS last_ts,
         max(CASE WHEN prev_value IS NULL OR value <> prev_value THEN ts END) AS since
  FROM (
    SELECT device, shipment, ts, value,
           lag(value) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_value
    FROM sensors
    WHERE kind = 'temperature' AND value IS NOT NULL
  ) steps
  GROUP BY device, shipment
) l
JOIN logger_models m ON m.model = split_part(l.device, '-', 1)
WHERE extract(epoch FROM l.last_ts) - extract(epoch FROM l.since) >= m.interval_minutes * 240
  AND NOT EXISTS (
    SELECT 1 FROM sensors r WHERE r.shipment = l.shipment AND r.kind = 'received');
