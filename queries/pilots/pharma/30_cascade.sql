-- What the shipper runs on, what its findings put out of trust, and whom that
-- reaches. An edge (src, dst): src depends on dst.

CREATE TABLE pharma_nodes (id TEXT PRIMARY KEY, kind TEXT, name TEXT, value_per_hour DOUBLE);
INSERT INTO pharma_nodes VALUES
  ('pharma.reefers-bsl',    'asset',   'Reefers out of Basel',         0),
  ('pharma.reefers-dub',    'asset',   'Reefers out of Dublin',        0),
  ('pharma.reefers-lej',    'asset',   'Reefers out of Leipzig',       0),
  ('pharma.reefers-vie',    'asset',   'Reefers out of Vienna',        0),
  ('pharma.sensor-gateway', 'asset',   'Sensor gateway',               0),
  ('pharma.portal',         'asset',   'Reefer control portal',        0),
  ('pharma.filling-line',   'asset',   'Filling line',                 0),
  ('pharma.loggers',        'asset',   'Loggers in parcels',           0),
  ('pharma.pack-registry',  'asset',   'Registry of packs',            0),
  ('pharma.web-shop',       'asset',   'Web shop',                     0),
  ('pharma.lane-bsl',       'service', 'Lane Basel',                   0),
  ('pharma.lane-dub',       'service', 'Lane Dublin',                  0),
  ('pharma.lane-lej',       'service', 'Lane Leipzig',                 0),
  ('pharma.lane-vie',       'service', 'Lane Vienna',                  0),
  ('pharma.monitoring',     'service', 'Cold chain monitoring',        0),
  ('pharma.release',        'service', 'Batch release',                0),
  ('pharma.verification',   'service', 'Pack verification',            0),
  ('pharma.dispensing',     'service', 'Dispensing',                   0),
  ('pharma.vaccines',       'process', 'Vaccine supply',           60000),
  ('pharma.insulin',        'process', 'Insulin supply',           35000),
  ('pharma.oncology',       'process', 'Oncology supply',          80000),
  ('pharma.trials',         'process', 'Clinical trials',          15000),
  ('pharma.audit',          'process', 'Temperature records',       2500),
  ('pharma.production',     'process', 'Production',               70000),
  ('pharma.pharmacies',     'process', 'Sales of pharmacies',      28000);

CREATE TABLE pharma_depends_on (src TEXT, dst TEXT);
INSERT INTO pharma_depends_on VALUES
  ('pharma.lane-bsl',   'pharma.reefers-bsl'),
  ('pharma.lane-dub',   'pharma.reefers-dub'),
  ('pharma.lane-lej',   'pharma.reefers-lej'),
  ('pharma.lane-vie',   'pharma.reefers-vie'),
  ('pharma.lane-bsl',   'pharma.portal'),
  ('pharma.lane-dub',   'pharma.portal'),
  ('pharma.lane-lej',   'pharma.portal'),
  ('pharma.lane-vie',   'pharma.portal'),
  ('pharma.monitoring', 'pharma.sensor-gateway'),
  ('pharma.release',    'pharma.monitoring'),
  ('pharma.vaccines',   'pharma.lane-bsl'),
  ('pharma.vaccines',   'pharma.lane-vie'),
  ('pharma.insulin',    'pharma.lane-dub'),
  ('pharma.oncology',   'pharma.lane-lej'),
  ('pharma.trials',     'pharma.release'),
  ('pharma.trials',     'pharma.lane-bsl'),
  ('pharma.audit',      'pharma.monitoring'),
  ('pharma.production', 'pharma.filling-line'),
  ('pharma.monitoring', 'pharma.loggers'),
  ('pharma.verification', 'pharma.pack-registry'),
  ('pharma.dispensing', 'pharma.verification'),
  ('pharma.dispensing', 'pharma.web-shop'),
  ('pharma.pharmacies', 'pharma.dispensing');

-- What a finding of each kind puts out of trust, by the shipment's lane (the
-- part of its name before the dash), or whatever the lane ('').
CREATE TABLE pharma_exposure (detection TEXT, lane TEXT, node TEXT);
INSERT INTO pharma_exposure VALUES
  ('temperature_excursion', 'BSL', 'pharma.reefers-bsl'),
  ('temperature_excursion', 'DUB', 'pharma.reefers-dub'),
  ('temperature_excursion', 'LEJ', 'pharma.reefers-lej'),
  ('temperature_excursion', 'VIE', 'pharma.reefers-vie'),
  ('sudden_change',         'BSL', 'pharma.reefers-bsl'),
  ('sudden_change',         'DUB', 'pharma.reefers-dub'),
  ('sudden_change',         'LEJ', 'pharma.reefers-lej'),
  ('sudden_change',         'VIE', 'pharma.reefers-vie'),
  ('silent_sensor',         '',    'pharma.sensor-gateway'),
  ('tampered_logger',       '',    'pharma.loggers'),
  ('falsified_pack',        '',    'pharma.pack-registry'),
  ('restricted_sale',       '',    'pharma.web-shop');

CREATE MATERIALIZED VIEW pharma_findings AS
SELECT 'P1' AS scenario, 'temperature_excursion' AS detection, 'critical' AS severity, shipment AS entity,
       'two consecutive readings outside 2 to 8 °C' AS summary
FROM temperature_excursion
UNION ALL
SELECT 'P1', 'reading_outside', 'low', shipment, 'one reading outside 2 to 8 °C: ' || value || ' °C, by ' || coalesce(device, 'an unnamed logger')
FROM reading_outside
UNION ALL
SELECT 'P2', 'sudden_change', 'medium', shipment,
       'air at ' || coalesce(device, 'an unnamed probe') || ' changed by ' || degrees || ' °C with the door closed'
FROM sudden_change
UNION ALL
SELECT 'P3', 'silent_sensor', 'medium', device, state || ': the logger of ' || coalesce(shipment, 'no known shipment')
FROM silent_sensor
UNION ALL
SELECT 'P3', 'unknown_logger', 'medium', device,
       'a model nobody entered, taken for one of 15 minutes: the logger of ' || coalesce(shipment, 'no known shipment')
FROM unknown_logger
UNION ALL
SELECT 'P4', 'tampered_logger', 'high', device, 'more than 2 °C from the air of ' || shipment || ', and for long'
FROM tampered_logger
UNION ALL
SELECT 'P5', 'falsified_pack', 'critical', serial, reason
FROM falsified_pack
UNION ALL
SELECT 'P6', 'restricted_sale', 'high', sale_id, product || ' sold to ' || coalesce(buyer, 'nobody known') || ' without a credential of ' || coalesce(needs, 'any kind')
FROM restricted_sale;

CREATE MATERIALIZED VIEW pharma_failed_assets AS
SELECT DISTINCT e.node, f.detection
FROM (
  SELECT 'temperature_excursion' AS detection, split_part(shipment, '-', 1) AS lane FROM temperature_excursion
  UNION ALL
  SELECT 'sudden_change', split_part(shipment, '-', 1) FROM sudden_change
  UNION ALL
  SELECT 'silent_sensor', '' FROM silent_sensor
  UNION ALL
  SELECT 'tampered_logger', '' FROM tampered_logger
  UNION ALL
  SELECT 'falsified_pack', '' FROM falsified_pack
  UNION ALL
  SELECT 'restricted_sale', '' FROM restricted_sale
) f
JOIN pharma_exposure e ON e.detection = f.detection AND e.lane = f.lane;

CREATE MATERIALIZED VIEW pharma_affected AS
WITH RECURSIVE reached AS (
  SELECT node AS id FROM pharma_failed_assets
  UNION
  SELECT d.src AS id FROM pharma_depends_on d JOIN reached r ON d.dst = r.id
)
SELECT n.id, n.kind, n.name, n.value_per_hour FROM reached r JOIN pharma_nodes n ON n.id = r.id;

-- Euros per hour of the processes that can no longer be trusted.
CREATE MATERIALIZED VIEW pharma_euros_at_risk AS
SELECT name AS process, value_per_hour AS euros FROM pharma_affected WHERE kind = 'process';
