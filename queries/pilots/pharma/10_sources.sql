-- The pharma shipper: what shipments report, and the portal that sets their
-- reefers. A logger keeps its readings while it is out of coverage, so sensors
-- may be two hours late.

-- kind: temperature (the product's logger, °C), air (the reefer's probe, °C,
-- every five minutes), door (1 opened, 0 closed), received (the trip is over).
CREATE SOURCE sensors (
  shipment TEXT, device TEXT, kind TEXT, value DOUBLE, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'sensors');

CREATE SOURCE setpoints (
  shipment TEXT, usr TEXT, celsius DOUBLE, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'setpoints');

-- Logins of administrators. outcome: success or failure.
CREATE SOURCE auth_log (
  usr TEXT, ip TEXT, outcome TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'auth_log');

-- Loggers by model, the part of their name before the first dash.
CREATE TABLE logger_models (model TEXT PRIMARY KEY, interval_minutes BIGINT);
INSERT INTO logger_models VALUES ('TL15', 15), ('TL60', 60);
