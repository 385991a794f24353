-- What it costs, in euros: per process, organisation and in all; as it is now, and if. The pack library/impact reckons
-- it: what is open is the incident "now", whose findings are the detections.

-- How long it takes until an asset can be trusted again. Unknown: more than a week.
CREATE TABLE recovery_times (node TEXT PRIMARY KEY, minutes BIGINT);
INSERT INTO recovery_times VALUES
  ('bank.card-gateway',        60), ('bank.ledger-db',       240), ('bank.order-db',          180),
  ('bank.directory',          120), ('bank.swift-link',      360), ('bank.market-feed',        60),
  ('bank.checkout-pages',      30), ('bank.back-office',     240), ('bank.atm-fleet',         480),
  ('pharma.reefers-bsl',      300), ('pharma.reefers-dub',   300), ('pharma.reefers-lej',     300),
  ('pharma.reefers-vie',      300), ('pharma.sensor-gateway', 90), ('pharma.portal',           60),
  ('pharma.filling-line',    1440), ('pharma.loggers',       180), ('pharma.pack-registry',   240),
  ('pharma.web-shop',          60), ('logistics.hub-ams',    240), ('logistics.hub-bru',      240),
  ('logistics.hub-cgn',       240), ('logistics.hub-lil',    240), ('logistics.fleet-ams',    120),
  ('logistics.fleet-bru',     120), ('logistics.fleet-cgn',  120), ('logistics.fleet-lil',    120),
  ('logistics.customs-link',  720), ('logistics.returns-desk', 480), ('logistics.scan-archive', 240);

-- How long the others take to start, once they have all they need.
CREATE TABLE restart_times (kind TEXT PRIMARY KEY, minutes BIGINT);
INSERT INTO restart_times VALUES ('service', 10), ('process', 30);

-- What a process costs beyond its value per hour: late_per_hour from rto_minutes of downtime on (the recovery time
-- objective), fixed_loss once mtpd_minutes are reached (the maximum tolerable period of disruption).
CREATE TABLE process_terms (
  node TEXT PRIMARY KEY, rto_minutes BIGINT, late_per_hour DOUBLE, mtpd_minutes BIGINT, fixed_loss DOUBLE);
INSERT INTO process_terms VALUES
  ('bank.card-sales',         60, 20000,  240,  250000),
  ('bank.customer-transfers', 120, 5000,  480,  100000),
  ('bank.merchant-payout',    240, 4000, 1440,   80000),
  ('bank.loan-desk',          480, 1000, 2880,   20000),
  ('bank.trading',             30, 50000, 120,  500000),
  ('bank.customer-care',      240,  500, 1440,   10000),
  ('bank.cash-supply',        240, 6000,  720,   60000),
  ('pharma.vaccines',         240, 30000, 720,  900000),
  ('pharma.insulin',          120, 40000, 480,  700000),
  ('pharma.oncology',          60, 60000, 240, 1500000),
  ('pharma.trials',           480, 5000, 1440,  400000),
  ('pharma.audit',            240, 1000,  720,   50000),
  ('pharma.production',       480, 20000, 2880, 300000),
  ('pharma.pharmacies',        60, 14000, 480,  120000),
  ('logistics.parcels-nl',    240, 3000, 1440,   60000),
  ('logistics.parcels-be',    240, 2500, 1440,   45000),
  ('logistics.parcels-de',    240, 5000, 1440,  100000),
  ('logistics.parcels-fr',    240, 2500, 1440,   55000),
  ('logistics.on-delivery',   120, 1000,  720,   15000),
  ('logistics.imports',       720, 7000, 2880,  140000),
  ('logistics.resale',       1440,  500, 4320,   10000);

-- What if: what would fail besides what has failed. Supposed is what is in here; INSERT and read on.
CREATE TABLE hypothetical_failures (scenario TEXT, node TEXT, PRIMARY KEY (scenario, node));
INSERT INTO hypothetical_failures VALUES
  ('Ransomware at the carrier', 'logistics.hub-ams'),
  ('Ransomware at the carrier', 'logistics.hub-bru'),
  ('Ransomware at the carrier', 'logistics.hub-cgn'),
  ('Ransomware at the carrier', 'logistics.hub-lil'),
  ('Ransomware at the carrier', 'logistics.customs-link'),
  ('Filling line stops',        'pharma.filling-line'),
  ('Interbank link is cut',     'bank.swift-link'),
  ('Market data is forged',     'bank.market-feed');

INSERT INTO risk_appetite VALUES (1, 3000000, 1500000, 250000);

-- Counter-measures. surface: in how much of what is done it is in place; effectiveness: how often it helps there.
INSERT INTO controls (control, name, cost, surface, effectiveness) VALUES
  ('card-velocity',       'Limits on cards per address',          25000, 0.9,  0.8),
  ('step-up',             'A second factor for new payees',       40000, 0.95, 0.9),
  ('call-back',           'New payees are called back',           22000, 0.7,  0.8),
  ('order-matching',      'Payments only against orders',         30000, 1,    0.95),
  ('script-integrity',    'Scripts pinned by their hash',         15000, 0.9,  0.95),
  ('four-eyes',           'Refunds need a second clerk',          20000, 0.8,  0.9),
  ('atm-interlock',       'Open cash machines do not pay',        60000, 0.9,  0.9),
  ('stand-by-reefers',    'Reefers at each origin to swap',      120000, 0.75, 0.9),
  ('spare-loggers',       'A second logger in each parcel',       35000, 0.9,  0.8),
  ('pack-scan',           'Every pack scanned on receipt',        45000, 0.95, 0.9),
  ('credential-check',    'The shop asks for the credential',     18000, 1,    0.9),
  ('portal-two-factors',  'The portal asks for two factors',      12000, 1,    0.95),
  ('scanner-lock',        'Scanners work with a credential only', 50000, 1,    0.95),
  ('clerk-at-scanners',   'A clerk looks on at each scan',        42000, 0.8,  0.75),
  ('geofence',            'Vans report when off their corridor',  55000, 0.9,  0.7),
  ('hand-over-proof',     'Parcels handed over against a code',   30000, 0.9,  0.9),
  ('weigh-in',            'Returns weighed before a refund',      22000, 0.9,  0.8),
  ('write-once-logs',     'Logs that cannot be rewritten',        28000, 1,    0.9);

-- Who has the one has no use for the other.
INSERT INTO control_exclusions VALUES ('step-up', 'call-back'), ('scanner-lock', 'clerk-at-scanners');

-- The findings that a control prevents, by their detection.
INSERT INTO control_prevents VALUES
  ('card-velocity',      'card_testing'),
  ('step-up',            'account_takeover'),
  ('call-back',          'account_takeover'),
  ('order-matching',     'process_bypass'),
  ('script-integrity',   'web_skimmer'),
  ('four-eyes',          'insider_refund'),
  ('atm-interlock',      'atm_jackpotting'),
  ('stand-by-reefers',   'temperature_excursion'),
  ('stand-by-reefers',   'sudden_change'),
  ('spare-loggers',      'silent_sensor'),
  ('spare-loggers',      'tampered_logger'),
  ('pack-scan',          'falsified_pack'),
  ('credential-check',   'restricted_sale'),
  ('portal-two-factors', 'reefer_sabotage'),
  ('scanner-lock',       'rogue_scanner'),
  ('clerk-at-scanners',  'rogue_scanner'),
  ('geofence',           'diversion'),
  ('hand-over-proof',    'false_delivery'),
  ('hand-over-proof',    'skipped_custody'),
  ('weigh-in',           'returns_fraud'),
  ('write-once-logs',    'log_tampering');

-- Controls that save most together, where a process needs several things that are all attacked.
INSERT INTO control_bundles VALUES
  ('Cold chain',  'stand-by-reefers'), ('Cold chain', 'portal-two-factors'), ('Cold chain', 'scanner-lock'),
  ('Card sales',  'card-velocity'), ('Card sales', 'order-matching'), ('Card sales', 'script-integrity'),
  ('Monitoring',  'spare-loggers'), ('Monitoring', 'write-once-logs'),
  ('Pharmacies',  'pack-scan'), ('Pharmacies', 'credential-check'), ('Pharmacies', 'card-velocity'),
  ('Accounts',    'step-up'), ('Accounts', 'write-once-logs'),
  ('Parcels',     'scanner-lock'), ('Parcels', 'geofence'), ('Parcels', 'hand-over-proof');

CREATE VIEW processes AS
SELECT n.id, n.name, split_part(n.id, '.', 1) AS organisation, n.value_per_hour AS loss_per_hour,
  t.rto_minutes * 60000 AS rto_ms, t.late_per_hour, t.mtpd_minutes * 60000 AS mtpd_ms, t.fixed_loss
FROM nodes n LEFT JOIN process_terms t ON t.node = n.id
WHERE n.kind = 'process';

CREATE OR REPLACE VIEW model_nodes AS
SELECT n.id AS node, n.kind AS level, split_part(n.id, '.', 1) AS org, t.minutes * 60000 AS restart_ms,
  p.loss_per_hour, p.late_per_hour, p.rto_ms, p.mtpd_ms, p.fixed_loss, CAST(NULL AS DOUBLE) AS weight
FROM nodes n
LEFT JOIN restart_times t ON t.kind = n.kind
LEFT JOIN processes p ON p.id = n.id;

CREATE OR REPLACE VIEW model_outages AS
SELECT 'now' AS incident, f.detection AS finding, f.node, 0 AS starts, r.minutes * 60000 AS ends
FROM failed_assets f LEFT JOIN recovery_times r ON r.node = f.node;

CREATE OR REPLACE VIEW model_suppositions AS
SELECT h.scenario, 'now' AS besides, h.node, 0 AS starts, r.minutes * 60000 AS ends
FROM hypothetical_failures h LEFT JOIN recovery_times r ON r.node = h.node;

CREATE MATERIALIZED VIEW down AS
SELECT node, fails_ms, recovers_ms, down_ms FROM downtimes WHERE kind = 'incident';

-- What open findings cost each process until all is mended, at the usual pace.
CREATE MATERIALIZED VIEW process_losses AS
SELECT p.id, p.name AS process, p.organisation, l.down_ms, p.rto_ms, p.mtpd_ms, l.misses_rto, l.reaches_mtpd, l.loss AS euros
FROM losses_by_process l
JOIN processes p ON p.id = l.process
WHERE l.kind = 'incident';

CREATE MATERIALIZED VIEW organisation_losses AS
SELECT org AS organisation, processes, loss AS euros, missed_rto AS misses_rto, reached_mtpd AS reaches_mtpd
FROM losses_by_organisation
WHERE kind = 'incident';

CREATE MATERIALIZED VIEW total_losses AS
SELECT coalesce(sum(loss), 0) AS euros, coalesce(sum(missed_rto), 0) AS misses_rto, coalesce(sum(reached_mtpd), 0) AS reaches_mtpd
FROM losses_by_scenario
WHERE kind = 'incident';

-- What is supposed, beside what is now.
CREATE MATERIALIZED VIEW hypothetical_losses AS
SELECT scenario, loss AS euros, more FROM supposed_losses;

-- If one asset failed, for each of them: how many nodes go with it, and what an hour of that costs.
CREATE MATERIALIZED VIEW asset_blast AS
SELECT l.asset AS id, n.name AS asset, split_part(l.asset, '.', 1) AS organisation, l.nodes, l.loss_per_hour AS euros_per_hour
FROM asset_losses l
JOIN nodes n ON n.id = l.asset;
