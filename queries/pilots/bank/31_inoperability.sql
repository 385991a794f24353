-- How much of its work each part of the bank loses: the cascade says whom a failure reaches, and as if a part without one
-- thing that it needs did nothing at all.

-- What part of src's work needs dst, where it is not all of it. Parts of one src do not overlap, so they are 1 at most
-- together, with those that need another pilot.
CREATE TABLE bank_shares (src TEXT, dst TEXT, share DOUBLE, PRIMARY KEY (src, dst));
INSERT INTO bank_shares VALUES
  ('bank.card-payments',      'bank.card-gateway',   0.7),
  ('bank.card-payments',      'bank.fraud-scoring',  0.3),
  ('bank.fraud-scoring',      'bank.card-payments',  0.5),
  ('bank.transfers',          'bank.ledger-db',      0.6),
  ('bank.transfers',          'bank.swift-link',     0.4),
  ('bank.online-banking',     'bank.directory',      0.5),
  ('bank.online-banking',     'bank.ledger-db',      0.5),
  ('bank.settlement',         'bank.ledger-db',      0.6),
  ('bank.settlement',         'bank.order-intake',   0.4),
  ('bank.card-sales',         'bank.card-payments',  0.6),
  ('bank.card-sales',         'bank.order-intake',   0.2),
  ('bank.card-sales',         'bank.checkout',       0.2),
  ('bank.customer-transfers', 'bank.transfers',      0.5),
  ('bank.customer-transfers', 'bank.online-banking', 0.5),
  ('bank.merchant-payout',    'bank.settlement',     0.8),
  ('bank.loan-desk',          'bank.online-banking', 0.8),
  ('bank.trading',            'bank.swift-link',     0.4),
  ('bank.trading',            'bank.market-feed',    0.6),
  ('bank.refunds',            'bank.back-office',    0.7),
  ('bank.refunds',            'bank.ledger-db',      0.3),
  ('bank.customer-care',      'bank.refunds',        0.4),
  ('bank.withdrawals',        'bank.atm-fleet',      0.8),
  ('bank.withdrawals',        'bank.ledger-db',      0.2);

CREATE VIEW bank_shared_dependencies AS
SELECT DISTINCT d.src AS node, d.dst AS needs, coalesce(s.share, 1) AS coefficient
FROM bank_depends_on d
LEFT JOIN bank_shares s ON s.src = d.src AND s.dst = d.dst;

-- What part of its work each loses, from 0 to 1, and what an hour of that costs.
CREATE MATERIALIZED VIEW bank_lost_work AS
SELECT n.id, n.kind, n.name, i.inoperability AS part, i.inoperability * n.value_per_hour AS euros
FROM inoperability((SELECT DISTINCT node, 1.0 AS inoperability FROM bank_failed_assets), bank_shared_dependencies) i
JOIN bank_nodes n ON n.id = i.node;

-- What an hour without an asset costs in all, for each of them: where protection is worth most.
CREATE MATERIALIZED VIEW bank_asset_worth AS
SELECT n.id, n.name AS asset, s.sensitivity AS euros
FROM sensitivity(
  (SELECT id AS node, value_per_hour AS loss FROM bank_nodes WHERE kind = 'process'), bank_shared_dependencies) s
JOIN bank_nodes n ON n.id = s.node
WHERE n.kind = 'asset';
