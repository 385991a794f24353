-- What the bank runs on, what its findings put out of trust, and whom that
-- reaches. An edge (src, dst): src depends on dst.

CREATE TABLE bank_nodes (id TEXT PRIMARY KEY, kind TEXT, name TEXT, value_per_hour DOUBLE);
INSERT INTO bank_nodes VALUES
  ('bank.card-gateway',       'asset',   'Card gateway',              0),
  ('bank.ledger-db',          'asset',   'Ledger database',           0),
  ('bank.order-db',           'asset',   'Order database',            0),
  ('bank.directory',          'asset',   'Customer directory',        0),
  ('bank.swift-link',         'asset',   'Interbank link',            0),
  ('bank.market-feed',        'asset',   'Market data feed',          0),
  ('bank.checkout-pages',     'asset',   'Checkout pages',            0),
  ('bank.back-office',        'asset',   'Back office',               0),
  ('bank.atm-fleet',          'asset',   'Cash machines',             0),
  ('bank.card-payments',      'service', 'Card payments',             0),
  ('bank.fraud-scoring',      'service', 'Fraud scoring',             0),
  ('bank.transfers',          'service', 'Transfers',                 0),
  ('bank.online-banking',     'service', 'Online banking',            0),
  ('bank.order-intake',       'service', 'Order intake',              0),
  ('bank.settlement',         'service', 'Settlement',                0),
  ('bank.checkout',           'service', 'Hosted checkout',           0),
  ('bank.refunds',            'service', 'Refunds',                   0),
  ('bank.withdrawals',        'service', 'Cash withdrawals',          0),
  ('bank.card-sales',         'process', 'Card sales',            42000),
  ('bank.customer-transfers', 'process', 'Customer transfers',    18000),
  ('bank.merchant-payout',    'process', 'Merchant payout',        9000),
  ('bank.loan-desk',          'process', 'Loan desk',              6000),
  ('bank.trading',            'process', 'Securities trading',    25000),
  ('bank.customer-care',      'process', 'Customer care',          3000),
  ('bank.cash-supply',        'process', 'Cash supply',           12000);

-- Payments wait for the score, and the score reads the payments: a cycle.
CREATE TABLE bank_depends_on (src TEXT, dst TEXT);
INSERT INTO bank_depends_on VALUES
  ('bank.card-payments',      'bank.card-gateway'),
  ('bank.card-payments',      'bank.fraud-scoring'),
  ('bank.fraud-scoring',      'bank.card-payments'),
  ('bank.transfers',          'bank.ledger-db'),
  ('bank.transfers',          'bank.swift-link'),
  ('bank.online-banking',     'bank.directory'),
  ('bank.online-banking',     'bank.ledger-db'),
  ('bank.order-intake',       'bank.order-db'),
  ('bank.settlement',         'bank.ledger-db'),
  ('bank.settlement',         'bank.order-intake'),
  ('bank.card-sales',         'bank.card-payments'),
  ('bank.card-sales',         'bank.order-intake'),
  ('bank.customer-transfers', 'bank.transfers'),
  ('bank.customer-transfers', 'bank.online-banking'),
  ('bank.merchant-payout',    'bank.settlement'),
  ('bank.loan-desk',          'bank.online-banking'),
  ('bank.trading',            'bank.swift-link'),
  ('bank.trading',            'bank.market-feed'),
  ('bank.checkout',           'bank.checkout-pages'),
  ('bank.card-sales',         'bank.checkout'),
  ('bank.refunds',            'bank.back-office'),
  ('bank.refunds',            'bank.ledger-db'),
  ('bank.customer-care',      'bank.refunds'),
  ('bank.withdrawals',        'bank.atm-fleet'),
  ('bank.withdrawals',        'bank.ledger-db'),
  ('bank.cash-supply',        'bank.withdrawals');

-- What a finding of each kind puts out of trust.
CREATE TABLE bank_exposure (detection TEXT, node TEXT);
INSERT INTO bank_exposure VALUES
  ('card_testing',     'bank.card-gateway'),
  ('account_takeover', 'bank.directory'),
  ('process_bypass',   'bank.order-db'),
  ('web_skimmer',      'bank.checkout-pages'),
  ('insider_refund',   'bank.back-office'),
  ('atm_jackpotting',  'bank.atm-fleet');

CREATE MATERIALIZED VIEW bank_findings AS
SELECT 'B1' AS scenario, 'card_testing' AS detection, 'high' AS severity, ip AS entity,
       'five or more cards declined within five minutes' AS summary
FROM card_testing
UNION ALL
SELECT 'B2', 'account_takeover', 'critical', usr,
       'transfer to a new payee after a password reset on new device ' || coalesce(device, 'unknown')
FROM account_takeover
UNION ALL
SELECT 'B3', 'process_bypass', 'high', payment_id, 'payment for ' || coalesce('order ' || order_id, 'nothing') || ': ' || reason
FROM process_bypass
UNION ALL
SELECT 'B4', 'web_skimmer', 'critical', page, coalesce(script, 'a script') || ' as nobody released it: ' || coalesce(sha256, 'without a hash')
FROM web_skimmer
UNION ALL
SELECT 'B5', 'insider_refund', 'high', clerk, 'refund to account ' || account || ' after an edit of its IBAN'
FROM insider_refund
UNION ALL
SELECT 'B6', 'atm_jackpotting', 'critical', atm, 'paid ' || coalesce(txn, 'what has no number') || ' with its door open and no authorisation'
FROM atm_jackpotting;

CREATE MATERIALIZED VIEW bank_failed_assets AS
SELECT DISTINCT e.node, f.detection
FROM bank_findings f
JOIN bank_exposure e ON e.detection = f.detection;

CREATE MATERIALIZED VIEW bank_affected AS
WITH RECURSIVE reached AS (
  SELECT node AS id FROM bank_failed_assets
  UNION
  SELECT d.src AS id FROM bank_depends_on d JOIN reached r ON d.dst = r.id
)
SELECT n.id, n.kind, n.name, n.value_per_hour FROM reached r JOIN bank_nodes n ON n.id = r.id;

-- Euros per hour of the processes that can no longer be trusted.
CREATE MATERIALIZED VIEW bank_euros_at_risk AS
SELECT name AS process, value_per_hour AS euros FROM bank_affected WHERE kind = 'process';
