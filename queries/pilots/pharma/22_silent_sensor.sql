-- P3, silent or frozen sensor: nothing from a logger for more than twice its
-- interval; or the same value in its last readings, four or more of them over an
-- hour or more.
--
-- Silence is withdrawn when the logger speaks; standing still when it moves. A
-- reading without a value is none: a logger that never told another is silent since
-- the first.
--
-- What time it is, is what others told: a logger is silent that they have outlived.
-- While the log is live the clock says so, too, for then all may be silent at once.
-- A log is live until what is newest in it is live_hours old. After that it has
-- ended, and with it the loggers that it ends with.
--
-- Does not fire: a logger that writes once an hour; a trip that is over; a
-- reading held up for some minutes; one told five times; two readings an hour
-- apart that happen to be equal.

-- One row.
CREATE TABLE sensor_watch (id BIGINT PRIMARY KEY, live_hours BIGINT);
INSERT INTO sensor_watch VALUES (1, 24);

-- The same row as long as it is so: who reads it learns nothing of each reading.
CREATE MATERIALIZED VIEW live_sensors AS
SELECT true AS is_live
FROM (
  SELECT s.newest_ts, s.newest_ts + CAST(w.live_hours || ' hours' AS INTERVAL) AS until_ts
  FROM (SELECT max(ts) AS newest_ts FROM sensors) s CROSS JOIN sensor_watch w
) l
WHERE now() < until_ts;

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
  -- The watermark is two hours behind what is newest.
  SELECT device, shipment, last_ts, 'silent' AS state
  FROM awaited
  WHERE due_ts < now() AND due_ts < watermark('sensors') + INTERVAL '2 hours'
  UNION
  SELECT device, shipment, last_ts, 'silent' AS state
  FROM awaited CROSS JOIN live_sensors
  WHERE due_ts < now()
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
