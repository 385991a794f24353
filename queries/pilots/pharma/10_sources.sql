-- The pharma shipper: what shipments report, the portal that sets their reefers,
-- and what becomes of the packs. A logger keeps its readings while it is out of
-- coverage, so sensors may be two hours late.

-- kind: temperature (the product's logger, °C), air (the reefer's probe, °C,
-- every five minutes), door (1 opened, 0 closed), received (the trip is over).
-- What was told stays told. A reading is corrected by another with the moment of
-- the first in corrects, and the moment of the correction in ts, so that none
-- comes too late; one without a value takes the reading back.
CREATE SOURCE sensors (
  shipment TEXT, device TEXT, kind TEXT, value DOUBLE, corrects TIMESTAMP, ts TIMESTAMP,
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

-- What loggers and probes said of each moment, once: the last correction. Of two
-- that contradict each other, and neither corrects the other, the warmer.
CREATE MATERIALIZED VIEW readings AS
SELECT shipment, device, kind, moment AS ts, value
FROM (
  SELECT shipment, device, kind, coalesce(corrects, ts) AS moment, value,
         row_number() OVER (
           PARTITION BY shipment, device, kind, coalesce(corrects, ts) ORDER BY ts DESC, value DESC NULLS LAST) AS number
  FROM sensors
  WHERE kind IN ('temperature', 'air')
) told
WHERE number = 1;

-- A logger whose model nobody entered is taken for one of a quarter of an hour,
-- and is a finding (unknown_logger); its model is NULL here.
CREATE MATERIALIZED VIEW logger_readings AS
SELECT r.shipment, r.device, r.ts, r.value, m.model, coalesce(m.interval_minutes, 15) AS interval_minutes
FROM readings r
LEFT JOIN logger_models m ON m.model = split_part(r.device, '-', 1)
WHERE r.kind = 'temperature';

-- What is known of a medicine's pack by its serial: its maker's credential of
-- authenticity, and where it was. step: received, dispensed.
CREATE SOURCE authenticity (
  serial TEXT, maker TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'authenticity');

CREATE SOURCE packs (
  serial TEXT, site TEXT, step TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'packs');

CREATE SOURCE sales (
  sale_id TEXT, buyer TEXT, product TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'sales');

-- kind: age (of a bank) or condition (of a practitioner). Issued, and told
-- again with revoked_at when revoked, without when that is taken back. ts is the
-- registry's time: of one credential the last telling counts.
CREATE SOURCE buyer_credentials (
  buyer TEXT, kind TEXT, valid_from TIMESTAMP, revoked_at TIMESTAMP, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'buyer_credentials');

-- Products that need a credential, and of which kind.
CREATE TABLE restricted_products (product TEXT PRIMARY KEY, needs TEXT);
INSERT INTO restricted_products VALUES ('codeine', 'age'), ('insulin', 'condition'), ('isotretinoin', 'condition');
