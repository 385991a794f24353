-- How much of its work each part of the carrier loses: the cascade says whom a failure reaches, and as if a part without one
-- thing that it needs did nothing at all.

-- What part of src's work needs dst, where it is not all of it. Parts of one src do not overlap, so they are 1 at most
-- together, with those that need another pilot.
CREATE TABLE logistics_shares (src TEXT, dst TEXT, share DOUBLE, PRIMARY KEY (src, dst));
INSERT INTO logistics_shares VALUES
  ('logistics.sorting-bru',  'logistics.hub-bru',      0.8),
  ('logistics.sorting-bru',  'logistics.sorting-cgn',  0.2),
  ('logistics.sorting-cgn',  'logistics.hub-cgn',      0.8),
  ('logistics.sorting-cgn',  'logistics.sorting-bru',  0.2),
  ('logistics.lastmile-ams', 'logistics.fleet-ams',    0.6),
  ('logistics.lastmile-ams', 'logistics.sorting-ams',  0.4),
  ('logistics.lastmile-bru', 'logistics.fleet-bru',    0.6),
  ('logistics.lastmile-bru', 'logistics.sorting-bru',  0.4),
  ('logistics.lastmile-cgn', 'logistics.fleet-cgn',    0.6),
  ('logistics.lastmile-cgn', 'logistics.sorting-cgn',  0.4),
  ('logistics.lastmile-lil', 'logistics.fleet-lil',    0.6),
  ('logistics.lastmile-lil', 'logistics.sorting-lil',  0.4),
  ('logistics.on-delivery',  'logistics.tracking',     0.5),
  ('logistics.imports',      'logistics.customs-link', 0.9),
  ('logistics.tracking',     'logistics.scan-archive', 0.8),
  ('logistics.resale',       'logistics.returns',      0.9);

CREATE VIEW logistics_shared_dependencies AS
SELECT DISTINCT d.src AS node, d.dst AS needs, coalesce(s.share, 1) AS coefficient
FROM logistics_depends_on d
LEFT JOIN logistics_shares s ON s.src = d.src AND s.dst = d.dst;

-- What part of its work each loses, from 0 to 1, and what an hour of that costs.
CREATE MATERIALIZED VIEW logistics_lost_work AS
SELECT n.id, n.kind, n.name, i.inoperability AS part, i.inoperability * n.value_per_hour AS euros
FROM inoperability((SELECT DISTINCT node, 1.0 AS inoperability FROM logistics_failed_assets), logistics_shared_dependencies) i
JOIN logistics_nodes n ON n.id = i.node;

-- What an hour without an asset costs in all, for each of them: where protection is worth most.
CREATE MATERIALIZED VIEW logistics_asset_worth AS
SELECT n.id, n.name AS asset, s.sensitivity AS euros
FROM sensitivity(
  (SELECT id AS node, value_per_hour AS loss FROM logistics_nodes WHERE kind = 'process'), logistics_shared_dependencies) s
JOIN logistics_nodes n ON n.id = s.node
WHERE n.kind = 'asset';
