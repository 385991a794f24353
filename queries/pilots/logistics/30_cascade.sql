-- What the carrier runs on, what its findings put out of trust, and whom that
-- reaches. An edge (src, dst): src depends on dst.

CREATE TABLE logistics_nodes (id TEXT PRIMARY KEY, kind TEXT, name TEXT, value_per_hour DOUBLE);
INSERT INTO logistics_nodes VALUES
  ('logistics.hub-ams',      'asset',   'Hub Amsterdam',             0),
  ('logistics.hub-bru',      'asset',   'Hub Brussels',              0),
  ('logistics.hub-cgn',      'asset',   'Hub Cologne',               0),
  ('logistics.hub-lil',      'asset',   'Hub Lille',                 0),
  ('logistics.fleet-ams',    'asset',   'Vans around Amsterdam',     0),
  ('logistics.fleet-bru',    'asset',   'Vans around Brussels',      0),
  ('logistics.fleet-cgn',    'asset',   'Vans around Cologne',       0),
  ('logistics.fleet-lil',    'asset',   'Vans around Lille',         0),
  ('logistics.customs-link', 'asset',   'Customs link',              0),
  ('logistics.returns-desk', 'asset',   'Returns desk',              0),
  ('logistics.scan-archive', 'asset',   'Archive of scans',          0),
  ('logistics.sorting-ams',  'service', 'Sorting Amsterdam',         0),
  ('logistics.sorting-bru',  'service', 'Sorting Brussels',          0),
  ('logistics.sorting-cgn',  'service', 'Sorting Cologne',           0),
  ('logistics.sorting-lil',  'service', 'Sorting Lille',             0),
  ('logistics.lastmile-ams', 'service', 'Last mile Amsterdam',       0),
  ('logistics.lastmile-bru', 'service', 'Last mile Brussels',        0),
  ('logistics.lastmile-cgn', 'service', 'Last mile Cologne',         0),
  ('logistics.lastmile-lil', 'service', 'Last mile Lille',           0),
  ('logistics.tracking',     'service', 'Tracking',                  0),
  ('logistics.returns',      'service', 'Returns',                   0),
  ('logistics.parcels-nl',   'process', 'Parcels Netherlands',   12000),
  ('logistics.parcels-be',   'process', 'Parcels Belgium',        9000),
  ('logistics.parcels-de',   'process', 'Parcels Germany',       20000),
  ('logistics.parcels-fr',   'process', 'Parcels France',        11000),
  ('logistics.on-delivery',  'process', 'Payment on delivery',    4000),
  ('logistics.imports',      'process', 'Imports',               14000),
  ('logistics.resale',       'process', 'Resale of returns',      5000);

-- Brussels and Cologne send each other what they cannot sort: a cycle.
CREATE TABLE logistics_depends_on (src TEXT, dst TEXT);
INSERT INTO logistics_depends_on VALUES
  ('logistics.sorting-ams',  'logistics.hub-ams'),
  ('logistics.sorting-bru',  'logistics.hub-bru'),
  ('logistics.sorting-cgn',  'logistics.hub-cgn'),
  ('logistics.sorting-lil',  'logistics.hub-lil'),
  ('logistics.sorting-bru',  'logistics.sorting-cgn'),
  ('logistics.sorting-cgn',  'logistics.sorting-bru'),
  ('logistics.lastmile-ams', 'logistics.fleet-ams'),
  ('logistics.lastmile-bru', 'logistics.fleet-bru'),
  ('logistics.lastmile-cgn', 'logistics.fleet-cgn'),
  ('logistics.lastmile-lil', 'logistics.fleet-lil'),
  ('logistics.lastmile-ams', 'logistics.sorting-ams'),
  ('logistics.lastmile-bru', 'logistics.sorting-bru'),
  ('logistics.lastmile-cgn', 'logistics.sorting-cgn'),
  ('logistics.lastmile-lil', 'logistics.sorting-lil'),
  ('logistics.parcels-nl',   'logistics.lastmile-ams'),
  ('logistics.parcels-be',   'logistics.lastmile-bru'),
  ('logistics.parcels-de',   'logistics.lastmile-cgn'),
  ('logistics.parcels-fr',   'logistics.lastmile-lil'),
  ('logistics.on-delivery',  'logistics.tracking'),
  ('logistics.imports',      'logistics.customs-link'),
  ('logistics.tracking',     'logistics.scan-archive'),
  ('logistics.returns',      'logistics.returns-desk'),
  ('logistics.resale',       'logistics.returns');

-- What a finding of each kind puts out of trust, by the parcel's region (the
-- part of its name before the dash), or whatever the region ('').
CREATE TABLE logistics_exposure (detection TEXT, region TEXT, node TEXT);
INSERT INTO logistics_exposure VALUES
  ('rogue_scanner',   'AMS', 'logistics.hub-ams'),
  ('rogue_scanner',   'BRU', 'logistics.hub-bru'),
  ('rogue_scanner',   'CGN', 'logistics.hub-cgn'),
  ('rogue_scanner',   'LIL', 'logistics.hub-lil'),
  ('diversion',       'AMS', 'logistics.fleet-ams'),
  ('diversion',       'BRU', 'logistics.fleet-bru'),
  ('diversion',       'CGN', 'logistics.fleet-cgn'),
  ('diversion',       'LIL', 'logistics.fleet-lil'),
  ('skipped_custody', 'AMS', 'logistics.fleet-ams'),
  ('skipped_custody', 'BRU', 'logistics.fleet-bru'),
  ('skipped_custody', 'CGN', 'logistics.fleet-cgn'),
  ('skipped_custody', 'LIL', 'logistics.fleet-lil'),
  ('false_delivery',  'AMS', 'logistics.fleet-ams'),
  ('false_delivery',  'BRU', 'logistics.fleet-bru'),
  ('false_delivery',  'CGN', 'logistics.fleet-cgn'),
  ('false_delivery',  'LIL', 'logistics.fleet-lil'),
  ('returns_fraud',   '',    'logistics.returns-desk');

CREATE MATERIALIZED VIEW logistics_findings AS
SELECT 'L1' AS scenario, 'rogue_scanner' AS detection, 'high' AS severity, device AS entity,
       'parcel ' || coalesce(parcel, 'without a name') || ' scanned without a valid credential' AS summary
FROM rogue_scanner
UNION ALL
SELECT 'L2', 'diversion', 'high', parcel,
       CASE WHEN km_per_hour IS NULL THEN km || ' km off its corridor, by ' || coalesce(device, 'an unnamed device') ELSE km || ' km at ' || km_per_hour || ' km/h' END
FROM diversion
UNION ALL
SELECT 'L3', 'false_delivery', 'medium', parcel, 'delivered without proof of purchase, by ' || coalesce(device, 'an unnamed device')
FROM false_delivery
UNION ALL
SELECT 'L4', 'skipped_custody', 'medium', parcel, 'out for delivery without a hub, by ' || coalesce(device, 'an unnamed device')
FROM skipped_custody
UNION ALL
SELECT 'L5', 'returns_fraud', 'medium', usr, reason
FROM returns_fraud;

CREATE MATERIALIZED VIEW logistics_failed_assets AS
SELECT DISTINCT e.node, f.detection
FROM (
  SELECT 'rogue_scanner' AS detection, split_part(parcel, '-', 1) AS region FROM rogue_scanner
  UNION ALL
  SELECT 'diversion', split_part(parcel, '-', 1) FROM diversion
  UNION ALL
  SELECT 'false_delivery', split_part(parcel, '-', 1) FROM false_delivery
  UNION ALL
  SELECT 'skipped_custody', split_part(parcel, '-', 1) FROM skipped_custody
  UNION ALL
  SELECT 'returns_fraud', '' FROM returns_fraud
) f
JOIN logistics_exposure e ON e.detection = f.detection AND e.region = f.region;

CREATE MATERIALIZED VIEW logistics_affected AS
WITH RECURSIVE reached AS (
  SELECT node AS id FROM logistics_failed_assets
  UNION
  SELECT d.src AS id FROM logistics_depends_on d JOIN reached r ON d.dst = r.id
)
SELECT n.id, n.kind, n.name, n.value_per_hour FROM reached r JOIN logistics_nodes n ON n.id = r.id;

-- Euros per hour of the processes that can no longer be trusted.
CREATE MATERIALIZED VIEW logistics_euros_at_risk AS
SELECT name AS process, value_per_hour AS euros FROM logistics_affected WHERE kind = 'process';
