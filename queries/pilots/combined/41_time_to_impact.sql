-- The cascade in time: what fails when, along which path, and in which order it comes back. Times count from the
-- moment an asset is out of trust, so that nothing changes only because time passes.

-- How long src lasts without dst; no time at all where it is not listed.
CREATE TABLE buffers (src TEXT, dst TEXT, minutes BIGINT, PRIMARY KEY (src, dst));
INSERT INTO buffers VALUES
  ('bank.fraud-scoring',     'bank.card-payments',     1440),
  ('bank.settlement',        'bank.order-intake',        60),
  ('bank.merchant-payout',   'bank.settlement',         240),
  ('bank.merchant-payout',   'logistics.tracking',      480),
  ('bank.cash-supply',       'bank.withdrawals',        120),
  ('bank.customer-care',     'bank.refunds',            120),
  ('pharma.lane-bsl',        'pharma.reefers-bsl',       30),
  ('pharma.lane-dub',        'pharma.reefers-dub',       30),
  ('pharma.lane-lej',        'pharma.reefers-lej',       30),
  ('pharma.lane-vie',        'pharma.reefers-vie',       30),
  ('pharma.lane-lej',        'logistics.sorting-cgn',   120),
  ('pharma.lane-dub',        'logistics.sorting-ams',   120),
  ('pharma.monitoring',      'pharma.loggers',           60),
  ('pharma.release',         'pharma.monitoring',       120),
  ('pharma.vaccines',        'pharma.lane-bsl',         360),
  ('pharma.vaccines',        'pharma.lane-vie',         360),
  ('pharma.insulin',         'pharma.lane-dub',         240),
  ('pharma.oncology',        'pharma.lane-lej',          90),
  ('pharma.trials',          'pharma.release',          720),
  ('pharma.trials',          'pharma.lane-bsl',         180),
  ('pharma.trials',          'bank.order-intake',      1440),
  ('pharma.audit',           'pharma.monitoring',        60),
  ('pharma.pharmacies',      'pharma.dispensing',        15),
  ('logistics.sorting-bru',  'logistics.sorting-cgn',   720),
  ('logistics.sorting-cgn',  'logistics.sorting-bru',   720),
  ('logistics.lastmile-ams', 'logistics.sorting-ams',   120),
  ('logistics.lastmile-bru', 'logistics.sorting-bru',   120),
  ('logistics.lastmile-cgn', 'logistics.sorting-cgn',   120),
  ('logistics.lastmile-lil', 'logistics.sorting-lil',   120),
  ('logistics.tracking',     'logistics.scan-archive',   30),
  ('logistics.resale',       'logistics.returns',      1440);

-- What src needs while it works, but not to start again; without these, cycles could not.
CREATE TABLE cold_starts (src TEXT, dst TEXT, PRIMARY KEY (src, dst));
INSERT INTO cold_starts VALUES
  ('bank.fraud-scoring',    'bank.card-payments'),
  ('logistics.sorting-bru', 'logistics.sorting-cgn'),
  ('logistics.sorting-cgn', 'logistics.sorting-bru');

CREATE OR REPLACE VIEW model_groups AS
SELECT d.src || ' on ' || d.dst AS group_id, d.src AS node, CAST(NULL AS BIGINT) AS need, b.minutes * 60000 AS buffer_ms
FROM depends_on d
LEFT JOIN buffers b ON b.src = d.src AND b.dst = d.dst;

CREATE OR REPLACE VIEW model_members AS
SELECT src || ' on ' || dst AS group_id, dst AS node, CAST(NULL AS BIGINT) AS delay_ms FROM depends_on;

-- What is reached, and after how long, if nothing is mended meanwhile: 0 is now.
CREATE MATERIALIZED VIEW times_to_impact AS
SELECT t.node, n.name, n.kind, split_part(t.node, '.', 1) AS organisation, t.starts AS after_ms, t.hops
FROM time_to_impact((SELECT DISTINCT node, 0 AS starts FROM failed_assets), model_groups, model_members) t
JOIN nodes n ON n.id = t.node;

-- What each of them fails for: the last link of its path.
CREATE MATERIALIZED VIEW impact_paths AS
SELECT node, cause, starts AS after_ms
FROM impact_causes((SELECT DISTINCT node, 0 AS starts FROM failed_assets), model_groups, model_members)
WHERE critical AND cause IS NOT NULL;

-- The order in which what is reached can start again. Step 1 can at once; no step has what waits for itself.
CREATE MATERIALIZED VIEW restoration_steps AS
SELECT r.step, r.node, n.name, n.kind, split_part(r.node, '.', 1) AS organisation
FROM restoration_order(
  (SELECT id AS node FROM affected),
  (SELECT g.group_id, g.node FROM model_groups g
   WHERE NOT EXISTS (SELECT 1 FROM cold_starts c WHERE c.src || ' on ' || c.dst = g.group_id)),
  model_members) r
JOIN nodes n ON n.id = r.node;
