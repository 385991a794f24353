-- What sensors say, and what is wrong with it, a row per moment: for charts and annotations. time is the event's.

-- Loggers and air probes, of the last day.
CREATE MATERIALIZED VIEW sensor_readings AS
SELECT ts AS time, device, shipment, split_part(shipment, '-', 1) AS lane, kind, value AS celsius
FROM readings
WHERE value IS NOT NULL AND ts > watermark('sensors') - INTERVAL '24 hours';

-- Lanes, by quarters of an hour.
CREATE MATERIALIZED VIEW lane_temperatures AS
SELECT date_bin(INTERVAL '15 minutes', time) AS time, lane, min(celsius) AS coldest, avg(celsius) AS mean, max(celsius) AS warmest
FROM sensor_readings
WHERE kind = 'temperature'
GROUP BY date_bin(INTERVAL '15 minutes', time), lane;

-- Mean kinetic temperature of what a logger travels with: what the product bore over its last day, as one number.
-- ΔH/R = 83.144 kJ/mol / 8.3144 J/(mol K) = 10000 K (USP <1160>).
CREATE MATERIALIZED VIEW kinetic_temperatures AS
SELECT device, shipment, lane, count(*) AS readings, 10000 / -ln(avg(exp(-10000 / (celsius + 273.15)))) - 273.15 AS celsius
FROM sensor_readings
WHERE kind = 'temperature'
GROUP BY device, shipment, lane;

-- Between which readings a logger said nothing for more than one and a half of its intervals. A gap goes when what it
-- lacks comes late.
CREATE MATERIALIZED VIEW sensor_gaps AS
SELECT r.since AS time, r.time AS timeend, r.device, r.shipment,
  (extract(epoch FROM r.time) - extract(epoch FROM r.since)) / 60 AS minutes
FROM (
  SELECT device, shipment, interval_minutes, ts AS time, lag(ts) OVER (PARTITION BY device, shipment ORDER BY ts) AS since
  FROM logger_readings WHERE value IS NOT NULL AND ts > watermark('sensors') - INTERVAL '24 hours'
) r
WHERE extract(epoch FROM r.time) - extract(epoch FROM r.since) > r.interval_minutes * 90;

-- How many deviations a reading of the air is from the twelve before it, once there are twelve.
CREATE MATERIALIZED VIEW sensor_scores AS
SELECT time, device, shipment, celsius, z
FROM (
  SELECT time, device, shipment, celsius,
    level_z(celsius, 12) OVER (PARTITION BY device, shipment ORDER BY time) AS z,
    lag(celsius, 12) OVER (PARTITION BY device, shipment ORDER BY time) AS twelfth
  FROM sensor_readings WHERE kind = 'air'
) s
WHERE twelfth IS NOT NULL;

-- Every alarm of the last day: those of detections, and readings of the air eight deviations off.
CREATE MATERIALIZED VIEW sensor_alarms AS
SELECT DISTINCT ts AS time, device, shipment, 'excursion' AS alarm, value || ' °C' AS detail
FROM excursion_readings WHERE ts > watermark('sensors') - INTERVAL '24 hours'
UNION ALL
SELECT ts, device, shipment, 'reading outside', value || ' °C'
FROM reading_outside
UNION ALL
SELECT ts, device, shipment, 'sudden change', degrees || ' °C within five minutes'
FROM sudden_change WHERE ts > watermark('sensors') - INTERVAL '24 hours'
UNION ALL
SELECT last_ts, device, shipment, state, 'since then'
FROM silent_sensor WHERE last_ts > watermark('sensors') - INTERVAL '24 hours'
UNION ALL
SELECT since, device, shipment, 'tampered', 'more than 2 °C from the air'
FROM tampered_logger WHERE since > watermark('sensors') - INTERVAL '24 hours'
UNION ALL
SELECT time, device, shipment, 'outlier', round(z, 1) || ' deviations'
FROM sensor_scores WHERE abs(z) >= 8;
