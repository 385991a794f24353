-- What it costs, in euros: per process, organisation and in all; as it is now, and if.

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

-- Counter-measures, and what they cost in a year.
CREATE TABLE controls (control TEXT PRIMARY KEY, name TEXT, cost DOUBLE);
INSERT INTO controls VALUES
  ('card-velocity',       'Limits on cards per address',          25000),
  ('step-up',             'A second factor for new payees',       40000),
  ('order-matching',      'Payments only against orders',         30000),
  ('script-integrity',    'Scripts pinned by their hash',         15000),
  ('four-eyes',           'Refunds need a second clerk',          20000),
  ('atm-interlock',       'Open cash machines do not pay',        60000),
  ('stand-by-reefers',    'Reefers at each origin to swap',      120000),
  ('spare-loggers',       'A second logger in each parcel',       35000),
  ('pack-scan',           'Every pack scanned on receipt',        45000),
  ('credential-check',    'The shop asks for the credential',     18000),
  ('portal-two-factors',  'The portal asks for two factors',      12000),
  ('scanner-lock',        'Scanners work with a credential only', 50000),
  ('geofence',            'Vans report when off their corridor',  55000),
  ('hand-over-proof',     'Parcels handed over against a code',   30000),
  ('weigh-in',            'Returns weighed before a refund',      22000),
  ('write-once-logs',     'Logs that cannot be rewritten',        28000);

-- The findings that a control prevents, by their detection.
CREATE TABLE control_prevents (control TEXT, detection TEXT, PRIMARY KEY (control, detection));
INSERT INTO control_prevents VALUES
  ('card-velocity',      'card_testing'),
  ('step-up',            'account_takeover'),
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
  ('geofence',           'diversion'),
  ('hand-over-proof',    'false_delivery'),
  ('hand-over-proof',    'skipped_custody'),
  ('weigh-in',           'returns_fraud'),
  ('write-once-logs',    'log_tampering');

-- Controls that save most together, where a process needs several things that are all attacked.
CREATE TABLE control_bundles (bundle TEXT, control TEXT, PRIMARY KEY (bundle, control));
INSERT INTO control_bundles VALUES
  ('Cold chain',  'stand-by-reefers'), ('Cold chain', 'portal-two-factors'), ('Cold chain', 'scanner-lock'),
  ('Card sales',  'card-velocity'), ('Card sales', 'order-matching'), ('Card sales', 'script-integrity'),
  ('Monitoring',  'spare-loggers'), ('Monitoring', 'write-once-logs'),
  ('Pharmacies',  'pack-scan'), ('Pharmacies', 'credential-check'), ('Pharmacies', 'card-velocity'),
  ('Accounts',    'step-up'), ('Accounts', 'write-once-logs'),
  ('Parcels',     'scanner-lock'), ('Parcels', 'geofence'), ('Parcels', 'hand-over-proof');

CREATE VIEW trial_parts AS
SELECT 'control' AS kind, control AS scenario, detection FROM control_prevents
UNION
SELECT 'bundle', b.bundle, p.detection FROM control_bundles b JOIN control_prevents p ON p.control = b.control;

-- Those that change something.
CREATE VIEW trials AS
SELECT DISTINCT t.kind, t.scenario FROM trial_parts t JOIN failed_assets f ON f.detection = t.detection;

-- What is played through. kind: now; supposed, besides what is now; control and bundle, without what they prevent.
CREATE VIEW played_failures AS
SELECT 'now' AS kind, 'now' AS scenario, node FROM failed_assets
UNION
SELECT 'supposed', scenario, node FROM hypothetical_failures
UNION
SELECT 'supposed', h.scenario, f.node FROM hypothetical_failures h CROSS JOIN failed_assets f
UNION
SELECT t.kind, t.scenario, f.node FROM trials t CROSS JOIN failed_assets f
WHERE NOT EXISTS (
  SELECT 1 FROM trial_parts p WHERE p.kind = t.kind AND p.scenario = t.scenario AND p.detection = f.detection);

CREATE VIEW restarts AS
SELECT n.id AS node, t.minutes * 60000 AS restart_ms FROM nodes n JOIN restart_times t ON t.kind = n.kind;

-- The horizon is a week.
CREATE MATERIALIZED VIEW down AS
SELECT d.scenario[1] AS kind, d.scenario[2] AS scenario, d.node, min(d.starts) AS fails_ms, max(d.ends) AS recovers_ms,
  sum(d.ends - d.starts) AS down_ms
FROM scenario_downtime(
  (SELECT make_array(p.kind, p.scenario) AS scenario, p.node, 0 AS starts, r.minutes * 60000 AS ends
   FROM played_failures p LEFT JOIN recovery_times r ON r.node = p.node),
  impact_groups, impact_members, restarts, horizon => INTERVAL '7 days') d
GROUP BY d.scenario[1], d.scenario[2], d.node;

CREATE VIEW processes AS
SELECT n.id, n.name, split_part(n.id, '.', 1) AS organisation, n.value_per_hour AS loss_per_hour,
  t.rto_minutes * 60000 AS rto_ms, t.late_per_hour, t.mtpd_minutes * 60000 AS mtpd_ms, t.fixed_loss
FROM nodes n LEFT JOIN process_terms t ON t.node = n.id
WHERE n.kind = 'process';

CREATE MATERIALIZED VIEW played_losses AS
SELECT d.kind, d.scenario, d.node AS id, p.name AS process, p.organisation, d.down_ms, p.rto_ms, p.mtpd_ms,
  coalesce(d.down_ms > p.rto_ms, false) AS misses_rto,
  coalesce(d.down_ms >= p.mtpd_ms, false) AS reaches_mtpd,
  p.loss_per_hour * d.down_ms / 3600000
    + CASE WHEN d.down_ms > p.rto_ms THEN p.late_per_hour * (d.down_ms - p.rto_ms) / 3600000 ELSE 0 END
    + CASE WHEN d.down_ms >= p.mtpd_ms THEN p.fixed_loss ELSE 0 END AS euros
FROM down d JOIN processes p ON p.id = d.node;

-- What open findings cost each process until all is mended, at the usual pace.
CREATE MATERIALIZED VIEW process_losses AS
SELECT id, process, organisation, down_ms, rto_ms, mtpd_ms, misses_rto, reaches_mtpd, euros
FROM played_losses WHERE kind = 'now';

CREATE MATERIALIZED VIEW organisation_losses AS
SELECT organisation, count(*) AS processes, sum(euros) AS euros,
  count(*) FILTER (WHERE misses_rto) AS misses_rto, count(*) FILTER (WHERE reaches_mtpd) AS reaches_mtpd
FROM process_losses
GROUP BY organisation;

CREATE MATERIALIZED VIEW total_losses AS
SELECT coalesce(sum(euros), 0) AS euros,
  count(*) FILTER (WHERE misses_rto) AS misses_rto, count(*) FILTER (WHERE reaches_mtpd) AS reaches_mtpd
FROM process_losses;

-- What is supposed, beside what is now.
CREATE MATERIALIZED VIEW hypothetical_losses AS
SELECT h.scenario, coalesce(s.euros, 0) AS euros, coalesce(s.euros, 0) - t.euros AS more
FROM (SELECT DISTINCT scenario FROM hypothetical_failures) h
CROSS JOIN total_losses t
LEFT JOIN (SELECT scenario, sum(euros) AS euros FROM played_losses WHERE kind = 'supposed' GROUP BY scenario) s
  ON s.scenario = h.scenario;

-- If one asset failed, for each of them: how many nodes go with it, and what an hour of that costs.
CREATE MATERIALIZED VIEW asset_blast AS
SELECT b.scenario AS id, n.name AS asset, split_part(b.scenario, '.', 1) AS organisation, b.nodes, b.loss AS euros_per_hour
FROM blast_radius(
  (SELECT id AS scenario, id AS node FROM nodes WHERE kind = 'asset'),
  impact_groups, impact_members,
  (SELECT id AS node, loss_per_hour AS loss FROM processes)) b
JOIN nodes n ON n.id = b.scenario;
