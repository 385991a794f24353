-- P3, silent or frozen sensor: nothing from a logger for more than twice its
-- interval; or the same value in its last readings, four or more of them over an
-- hour or more.
--
-- Silence is found by the clock, when nothing arrives, and withdrawn when the
-- logger speaks; standing still is withdrawn when it moves. A reading without a
-- value is none: a logger that never told another is silent since the first.
--
-- The clock says so for a week. After that, and in a log that ended long ago, a
-- logger is silent that others have outlived: since its last reading they told
-- what is newer than twice its interval.
--
-- Does not fire: a logger that writes once an hour; a trip that is over; a
-- reading held up for some minutes; one told five times; two readings an hour
-- apart that happen to be equal.

CREATE DETECTION silent_sensor WITH (severity = 'medium', entity = 'device', attack = 'T0804') AS
WITH awaited AS (
  SELECT device, shipment, last_ts, last_ts + CAST(interval_minutes * 2 || ' minutes' AS INTERVAL) AS due_ts
  FROM (
    SELECT device, shipment, interval_minutes, coalesce(max(ts) FILTER (WHERE value IS NOT NULL), min(ts)) AS last_ts
    FROM logger_readings
    GROUP BY device, shipment, interval_minutes
  ) heard
),
steps AS (
  SELECT device, shipment, ts, value,
         lag(value) OVER (PARTITION BY shipment, device ORDER BY ts) AS prev_value,
         lag(ts, 3) OVER (PARTITION BY shipment, device ORDER BY ts) AS fourth_last_ts
  FROM logger_readings
  WHERE value IS NOT NULL
),
stills AS (
  SELECT device, shipment, max(ts) AS last_ts, max(fourth_last_ts) AS fourth_last_ts,
         max(CASE WHEN prev_value IS NULL OR value <> prev_value THEN ts END) AS since
  FROM steps
  GROUP BY device, shipment
),
errors AS (
  SELECT device, shipment, last_ts, 'silent' AS state
  FROM awaited
  WHERE due_ts < now() AND last_ts > now() - INTERVAL '7 days'
  UNION
  -- The watermark is two hours behind what is newest.
  SELECT device, shipment, last_ts, 'silent' AS state
  FROM awaited
  WHERE due_ts < now() AND due_ts < watermark('sensors') + INTERVAL '2 hours'
  UNION ALL
  SELECT device, shipment, since AS last_ts, 'frozen' AS state
  FROM stills
  WHERE since <= fourth_last_ts
    AND extract(epoch FROM last_ts) - extract(epoch FROM since) >= 3600
)
SELECT e.device, e.shipment, e.last_ts, e.state
FROM errors e
WHERE NOT EXISTS (
  SELECT 1 FROM sensors r WHERE r.shipment = e.shipment AND r.kind = 'received');

-- A logger of which nobody said how often it writes: it is taken for one of a
-- quarter of an hour, until its model is entered in logger_models.
CREATE DETECTION unknown_logger WITH (severity = 'medium', entity = 'device', attack = 'T0848') AS
SELECT DISTINCT device, shipment
FROM logger_readings
WHERE model IS NULL;
