-- The cascade over all pilots: from findings to assets, along dependencies to
-- services and processes, to euros. An edge (src, dst): src depends on dst.

-- Where one pilot depends on another.
CREATE TABLE cross_depends_on (src TEXT, dst TEXT);
INSERT INTO cross_depends_on VALUES
  ('pharma.lane-lej',       'logistics.sorting-cgn'),
  ('pharma.lane-dub',       'logistics.sorting-ams'),
  ('logistics.on-delivery', 'bank.card-payments'),
  ('bank.merchant-payout',  'logistics.tracking'),
  ('pharma.trials',         'bank.order-intake'),
  ('pharma.pharmacies',     'bank.card-payments'),
  ('logistics.resale',      'bank.refunds');

-- Whose logs speak for which asset.
CREATE TABLE log_owners (pilot TEXT PRIMARY KEY, node TEXT);
INSERT INTO log_owners VALUES
  ('bank', 'bank.ledger-db'), ('pharma', 'pharma.portal'), ('logistics', 'logistics.scan-archive');

CREATE VIEW nodes AS
SELECT id, kind, name, value_per_hour FROM bank_nodes
UNION ALL
SELECT id, kind, name, value_per_hour FROM pharma_nodes
UNION ALL
SELECT id, kind, name, value_per_hour FROM logistics_nodes;

CREATE VIEW depends_on AS
SELECT src, dst FROM bank_depends_on
UNION ALL
SELECT src, dst FROM pharma_depends_on
UNION ALL
SELECT src, dst FROM logistics_depends_on
UNION ALL
SELECT src, dst FROM cross_depends_on;

-- Assets that open findings put out of trust, and which detection says so.
CREATE MATERIALIZED VIEW failed_assets AS
SELECT node, detection FROM bank_failed_assets
UNION ALL
SELECT node, detection FROM pharma_failed_assets
UNION ALL
SELECT node, detection FROM logistics_failed_assets
UNION ALL
SELECT DISTINCT 'pharma.portal', 'reefer_sabotage' FROM reefer_sabotage
UNION ALL
SELECT DISTINCT o.node, 'log_tampering' FROM log_tampering t JOIN log_owners o ON o.pilot = split_part(t.log, '/', 1);

-- Which asset reaches whom.
CREATE MATERIALIZED VIEW reached_from AS
WITH RECURSIVE reached AS (
  SELECT node AS asset, node AS id FROM failed_assets
  UNION
  SELECT r.asset, d.src AS id FROM reached r JOIN depends_on d ON d.dst = r.id
)
SELECT asset, id FROM reached;

-- Who is reached, and by how many assets.
CREATE MATERIALIZED VIEW affected AS
SELECT n.id, n.kind, n.name, n.value_per_hour, count(*) AS assets
FROM reached_from r
JOIN nodes n ON n.id = r.id
GROUP BY n.id, n.kind, n.name, n.value_per_hour;

CREATE MATERIALIZED VIEW affected_services AS
SELECT id, name, assets FROM affected WHERE kind = 'service';

-- Euros per hour of the processes that can no longer be trusted.
CREATE MATERIALIZED VIEW euros_at_risk AS
SELECT id, name AS process, value_per_hour AS euros FROM affected WHERE kind = 'process';

CREATE MATERIALIZED VIEW euros_at_risk_total AS
SELECT coalesce(sum(euros), 0) AS euros FROM euros_at_risk;

-- Orders per hour that a process takes; one that is not in here takes none.
CREATE TABLE order_rates (node TEXT PRIMARY KEY, orders_per_hour BIGINT);
INSERT INTO order_rates VALUES
  ('bank.card-sales',         900), ('bank.customer-transfers', 400), ('bank.merchant-payout',   60),
  ('bank.loan-desk',           12), ('bank.trading',            250), ('bank.cash-supply',      150),
  ('pharma.vaccines',          40), ('pharma.insulin',           70), ('pharma.oncology',        25),
  ('pharma.trials',             3), ('pharma.production',         8), ('pharma.pharmacies',     500),
  ('logistics.parcels-nl',    800), ('logistics.parcels-be',    600), ('logistics.parcels-de', 1300),
  ('logistics.parcels-fr',    700), ('logistics.on-delivery',   120), ('logistics.imports',     200),
  ('logistics.resale',         90);

-- What a sabotaged shipment (X1) reaches: through the portal, and through the reefers of its lane, which was proved to
-- be in the intruder's hands. Processes, and their orders and euros per hour, each process once.
CREATE MATERIALIZED VIEW sabotage_cascade AS
SELECT s.shipment, count(*) AS processes, sum(coalesce(o.orders_per_hour, 0)) AS orders, sum(n.value_per_hour) AS euros
FROM (
  SELECT a.shipment, r.id
  FROM (
    SELECT shipment, 'pharma.portal' AS asset FROM reefer_sabotage
    UNION
    SELECT s.shipment, e.node FROM reefer_sabotage s
    JOIN pharma_exposure e ON e.detection = 'temperature_excursion' AND e.lane = split_part(s.shipment, '-', 1)
  ) a
  JOIN reached_from r ON r.asset = a.asset
  GROUP BY a.shipment, r.id
) s
JOIN nodes n ON n.id = s.id AND n.kind = 'process'
LEFT JOIN order_rates o ON o.node = n.id
GROUP BY s.shipment;
