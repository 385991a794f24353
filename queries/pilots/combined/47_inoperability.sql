-- How much of its work each part of all pilots loses, as in each of them, and with what one pilot loses another does.

CREATE TABLE cross_shares (src TEXT, dst TEXT, share DOUBLE, PRIMARY KEY (src, dst));
INSERT INTO cross_shares VALUES
  ('pharma.lane-lej',       'logistics.sorting-cgn', 0.2),
  ('pharma.lane-dub',       'logistics.sorting-ams', 0.2),
  ('logistics.on-delivery', 'bank.card-payments',    0.5),
  ('bank.merchant-payout',  'logistics.tracking',    0.2),
  ('pharma.trials',         'bank.order-intake',     0.2),
  ('pharma.pharmacies',     'bank.card-payments',    0.2),
  ('logistics.resale',      'bank.refunds',          0.1);

CREATE VIEW shared_dependencies AS
SELECT node, needs, coefficient FROM bank_shared_dependencies
UNION ALL
SELECT node, needs, coefficient FROM pharma_shared_dependencies
UNION ALL
SELECT node, needs, coefficient FROM logistics_shared_dependencies
UNION ALL
SELECT DISTINCT d.src, d.dst, coalesce(s.share, 1)
FROM cross_depends_on d
LEFT JOIN cross_shares s ON s.src = d.src AND s.dst = d.dst;

CREATE MATERIALIZED VIEW lost_work AS
SELECT n.id, n.kind, n.name, split_part(n.id, '.', 1) AS organisation, i.inoperability AS part,
  i.inoperability * n.value_per_hour AS euros
FROM inoperability((SELECT DISTINCT node, 1.0 AS inoperability FROM failed_assets), shared_dependencies) i
JOIN nodes n ON n.id = i.node;

-- What part of an organisation's work, each process by its value.
CREATE MATERIALIZED VIEW organisation_lost_work AS
SELECT p.organisation, coalesce(sum(l.euros), 0) / sum(p.loss_per_hour) AS part, coalesce(sum(l.euros), 0) AS euros
FROM processes p
LEFT JOIN lost_work l ON l.id = p.id
GROUP BY p.organisation;

CREATE MATERIALIZED VIEW asset_worth AS
SELECT n.id, n.name AS asset, split_part(n.id, '.', 1) AS organisation, s.sensitivity AS euros
FROM sensitivity((SELECT id AS node, loss_per_hour AS loss FROM processes), shared_dependencies) s
JOIN nodes n ON n.id = s.node
WHERE n.kind = 'asset';

-- Which asset a finding of each kind puts out of trust.
CREATE VIEW exposure AS
SELECT detection, node FROM bank_exposure
UNION
SELECT detection, node FROM pharma_exposure
UNION
SELECT detection, node FROM logistics_exposure
UNION
SELECT 'reefer_sabotage', 'pharma.portal'
UNION
SELECT 'log_tampering', node FROM log_owners;

-- What an hour without all that a control protects costs, before anything has happened; and for a euro of its cost.
CREATE MATERIALIZED VIEW control_worth AS
SELECT c.control, c.name, c.cost, sum(a.euros) AS euros, sum(a.euros) / c.cost AS euros_per_cost
FROM (
  SELECT DISTINCT p.control, e.node FROM control_prevents p JOIN exposure e ON e.detection = p.finding
) g
JOIN controls c ON c.control = g.control
JOIN asset_worth a ON a.id = g.node
GROUP BY c.control, c.name, c.cost;
