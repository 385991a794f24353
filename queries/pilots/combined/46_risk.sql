-- The risk of the pilots' assets: their findings and sensors as evidence, and as impact what the cascade says.

-- A cold chain that fails costs more than money.
INSERT INTO risk_categories VALUES ('cyber', 2), ('physical', 3);

CREATE TABLE physical_assets (node TEXT PRIMARY KEY);
INSERT INTO physical_assets VALUES
  ('bank.atm-fleet'), ('pharma.reefers-bsl'), ('pharma.reefers-dub'), ('pharma.reefers-lej'), ('pharma.reefers-vie'),
  ('pharma.filling-line'), ('pharma.loggers'), ('logistics.hub-ams'), ('logistics.hub-bru'), ('logistics.hub-cgn'),
  ('logistics.hub-lil'), ('logistics.fleet-ams'), ('logistics.fleet-bru'), ('logistics.fleet-cgn'), ('logistics.fleet-lil'),
  ('logistics.returns-desk');

-- Who depends on which asset, directly or not.
CREATE MATERIALIZED VIEW dependants AS
WITH RECURSIVE supported AS (
  SELECT id AS asset, id FROM nodes WHERE kind = 'asset'
  UNION
  SELECT s.asset, d.src AS id FROM supported s JOIN depends_on d ON d.dst = s.id
)
SELECT asset, id FROM supported;

-- Impact: of the euros per hour that its pilot's processes make, those that depend on the asset.
CREATE OR REPLACE VIEW asset_impacts AS
SELECT a.id AS asset, a.name, CASE WHEN p.node IS NULL THEN 'cyber' ELSE 'physical' END AS category,
  CAST(100 * coalesce(d.euros, 0) / t.euros AS DECIMAL(5, 2)) AS impact
FROM nodes a
LEFT JOIN physical_assets p ON p.node = a.id
LEFT JOIN (
  SELECT s.asset, sum(n.value_per_hour) AS euros
  FROM dependants s
  JOIN nodes n ON n.id = s.id AND split_part(n.id, '.', 1) = split_part(s.asset, '.', 1)
  GROUP BY s.asset
) d ON d.asset = a.id
JOIN (SELECT split_part(id, '.', 1) AS pilot, sum(value_per_hour) AS euros FROM nodes GROUP BY split_part(id, '.', 1)) t
  ON t.pilot = split_part(a.id, '.', 1)
WHERE a.kind = 'asset';

CREATE VIEW pharma_evidence AS
SELECT e.node AS asset, f.detection, f.entity, f.severity, f.scenario IN ('P1', 'P2', 'P3') AS is_anomaly
FROM pharma_findings f
JOIN pharma_exposure e ON e.detection = f.detection AND e.lane IN ('', split_part(f.entity, '-', 1));

CREATE OR REPLACE VIEW risk_findings AS
SELECT e.node AS asset, f.detection, f.entity, f.severity
FROM bank_findings f JOIN bank_exposure e ON e.detection = f.detection
UNION ALL
SELECT asset, detection, entity, severity FROM pharma_evidence WHERE NOT is_anomaly
UNION ALL
SELECT e.node, f.detection, f.entity, f.severity
FROM logistics_findings f JOIN logistics_exposure e ON e.detection = f.detection AND e.region IN ('', split_part(f.entity, '-', 1))
WHERE f.detection <> 'rogue_scanner'
UNION ALL
SELECT e.node, e.detection, s.device, 'high'
FROM rogue_scanner s JOIN logistics_exposure e ON e.detection = 'rogue_scanner' AND e.region = split_part(s.parcel, '-', 1)
UNION ALL
SELECT 'pharma.portal', detection, entity, severity FROM findings WHERE detection = 'reefer_sabotage'
UNION ALL
SELECT o.node, f.detection, f.entity, f.severity
FROM findings f JOIN log_owners o ON o.pilot = split_part(f.entity, '/', 1)
WHERE f.detection = 'log_tampering';

CREATE OR REPLACE VIEW risk_anomalies AS
SELECT asset, detection, entity AS sensor, severity FROM pharma_evidence WHERE is_anomaly;

-- What is open about which asset, each entity once.
CREATE MATERIALIZED VIEW asset_findings AS
SELECT asset, detection, severity, count(DISTINCT entity) AS findings
FROM (
  SELECT asset, detection, entity, severity FROM risk_findings
  UNION ALL
  SELECT asset, detection, sensor AS entity, severity FROM risk_anomalies
) f
GROUP BY asset, detection, severity;
