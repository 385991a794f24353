-- How much of its work each part of the shipper loses: the cascade says whom a failure reaches, and as if a part without one
-- thing that it needs did nothing at all.

-- What part of src's work needs dst, where it is not all of it. Parts of one src do not overlap, so they are 1 at most
-- together, with those that need another pilot.
CREATE TABLE pharma_shares (src TEXT, dst TEXT, share DOUBLE, PRIMARY KEY (src, dst));
INSERT INTO pharma_shares VALUES
  ('pharma.lane-bsl',   'pharma.reefers-bsl',    0.8),
  ('pharma.lane-bsl',   'pharma.portal',         0.2),
  ('pharma.lane-dub',   'pharma.reefers-dub',    0.6),
  ('pharma.lane-dub',   'pharma.portal',         0.2),
  ('pharma.lane-lej',   'pharma.reefers-lej',    0.6),
  ('pharma.lane-lej',   'pharma.portal',         0.2),
  ('pharma.lane-vie',   'pharma.reefers-vie',    0.8),
  ('pharma.lane-vie',   'pharma.portal',         0.2),
  ('pharma.monitoring', 'pharma.sensor-gateway', 0.6),
  ('pharma.monitoring', 'pharma.loggers',        0.4),
  ('pharma.release',    'pharma.monitoring',     0.7),
  ('pharma.vaccines',   'pharma.lane-bsl',       0.5),
  ('pharma.vaccines',   'pharma.lane-vie',       0.5),
  ('pharma.trials',     'pharma.release',        0.5),
  ('pharma.trials',     'pharma.lane-bsl',       0.3),
  ('pharma.dispensing', 'pharma.verification',   0.7),
  ('pharma.dispensing', 'pharma.web-shop',       0.3),
  ('pharma.pharmacies', 'pharma.dispensing',     0.8);

CREATE VIEW pharma_shared_dependencies AS
SELECT DISTINCT d.src AS node, d.dst AS needs, coalesce(s.share, 1) AS coefficient
FROM pharma_depends_on d
LEFT JOIN pharma_shares s ON s.src = d.src AND s.dst = d.dst;

-- What part of its work each loses, from 0 to 1, and what an hour of that costs.
CREATE MATERIALIZED VIEW pharma_lost_work AS
SELECT n.id, n.kind, n.name, i.inoperability AS part, i.inoperability * n.value_per_hour AS euros
FROM inoperability((SELECT DISTINCT node, 1.0 AS inoperability FROM pharma_failed_assets), pharma_shared_dependencies) i
JOIN pharma_nodes n ON n.id = i.node;

-- What an hour without an asset costs in all, for each of them: where protection is worth most.
CREATE MATERIALIZED VIEW pharma_asset_worth AS
SELECT n.id, n.name AS asset, s.sensitivity AS euros
FROM sensitivity(
  (SELECT id AS node, value_per_hour AS loss FROM pharma_nodes WHERE kind = 'process'), pharma_shared_dependencies) s
JOIN pharma_nodes n ON n.id = s.node
WHERE n.kind = 'asset';
