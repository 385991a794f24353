-- Threats: which categories threaten which element of the model, which of them a safeguard averts, and which of
-- the others a detection sees.

-- What averts a category's threats.
-- STRIDE: Hernan, Lambert, Ostwald, Shostack, "Uncover Security Design Flaws Using The STRIDE Approach", MSDN
-- Magazine, November 2006. LINDDUN: Deng, Wuyts, Scandariato, Preneel, Joosen, "A privacy threat analysis
-- framework", Requirements Engineering 16, 2011.
CREATE TABLE threat_categories (method TEXT, category TEXT, averted_by TEXT, PRIMARY KEY (method, category));
INSERT INTO threat_categories VALUES
  ('STRIDE',  'spoofing',               'authentication'),
  ('STRIDE',  'tampering',              'integrity'),
  ('STRIDE',  'repudiation',            'non_repudiation'),
  ('STRIDE',  'information_disclosure', 'confidentiality'),
  ('STRIDE',  'denial_of_service',      'availability'),
  ('STRIDE',  'elevation_of_privilege', 'authorization'),
  ('LINDDUN', 'linkability',            'unlinkability'),
  ('LINDDUN', 'identifiability',        'anonymity'),
  ('LINDDUN', 'non_repudiation',        'plausible_deniability'),
  ('LINDDUN', 'detectability',          'undetectability'),
  ('LINDDUN', 'information_disclosure', 'confidentiality'),
  ('LINDDUN', 'unawareness',            'content_awareness'),
  ('LINDDUN', 'non_compliance',         'policy_and_consent_compliance');

-- Which category threatens which kind of element, as the same two have it. applies_if: NULL always, or is_log,
-- personal_data, at_boundary. Who trusts what stays within a zone says so:
-- UPDATE threat_rules SET applies_if = 'at_boundary' WHERE method = 'STRIDE' AND kind = 'data_flow'
CREATE TABLE threat_rules (method TEXT, category TEXT, kind TEXT, applies_if TEXT, PRIMARY KEY (method, category, kind));
INSERT INTO threat_rules VALUES
  ('STRIDE',  'spoofing',               'external_entity', NULL),
  ('STRIDE',  'repudiation',            'external_entity', NULL),
  ('STRIDE',  'spoofing',               'process',         NULL),
  ('STRIDE',  'tampering',              'process',         NULL),
  ('STRIDE',  'repudiation',            'process',         NULL),
  ('STRIDE',  'information_disclosure', 'process',         NULL),
  ('STRIDE',  'denial_of_service',      'process',         NULL),
  ('STRIDE',  'elevation_of_privilege', 'process',         NULL),
  ('STRIDE',  'tampering',              'data_store',      NULL),
  ('STRIDE',  'repudiation',            'data_store',      'is_log'),
  ('STRIDE',  'information_disclosure', 'data_store',      NULL),
  ('STRIDE',  'denial_of_service',      'data_store',      NULL),
  ('STRIDE',  'tampering',              'data_flow',       NULL),
  ('STRIDE',  'information_disclosure', 'data_flow',       NULL),
  ('STRIDE',  'denial_of_service',      'data_flow',       NULL),
  ('LINDDUN', 'linkability',            'external_entity', 'personal_data'),
  ('LINDDUN', 'identifiability',        'external_entity', 'personal_data'),
  ('LINDDUN', 'unawareness',            'external_entity', 'personal_data');
INSERT INTO threat_rules
SELECT 'LINDDUN' AS method, category, kind, 'personal_data' AS applies_if
FROM (VALUES
  ('linkability'), ('identifiability'), ('non_repudiation'), ('detectability'), ('information_disclosure'), ('non_compliance')
) AS c (category)
CROSS JOIN (VALUES ('process'), ('data_store'), ('data_flow')) AS k (kind);

-- Flows from one zone of trust to another, and the elements at their ends.
CREATE VIEW crossings AS
SELECT f.element, f.source, f.target
FROM elements f
LEFT JOIN elements s ON s.element = f.source
LEFT JOIN elements t ON t.element = f.target
WHERE f.kind = 'data_flow' AND NOT coalesce(s.zone = t.zone, false);

CREATE VIEW boundary_elements AS
SELECT element FROM crossings
UNION
SELECT source AS element FROM crossings
UNION
SELECT target AS element FROM crossings;

-- averted: the element has the property that averts the category.
CREATE MATERIALIZED VIEW threats AS
SELECT e.element, e.kind, e.asset, r.method, r.category, b.element IS NOT NULL AS at_boundary, s.element IS NOT NULL AS averted
FROM elements e
JOIN threat_rules r ON r.kind = e.kind
JOIN threat_categories c ON c.method = r.method AND c.category = r.category
LEFT JOIN boundary_elements b ON b.element = e.element
LEFT JOIN safeguards s ON s.element = e.element AND s.property = c.averted_by
WHERE r.applies_if IS NULL
  OR (r.applies_if = 'at_boundary' AND b.element IS NOT NULL)
  OR (r.applies_if = 'personal_data' AND coalesce(e.personal_data, true))
  OR (r.applies_if = 'is_log' AND coalesce(e.is_log, true));

-- Which detection would see which threat.
CREATE MATERIALIZED VIEW covered_threats AS
SELECT DISTINCT t.element, t.asset, t.method, t.category, c.detection
FROM threats t
JOIN detection_coverage c ON c.method = t.method AND c.category = t.category
WHERE NOT t.averted
  AND (c.kind IS NULL OR c.kind = t.kind)
  AND (c.element IS NULL OR c.element = t.element);

-- Neither averted nor seen.
CREATE MATERIALIZED VIEW uncovered_threats AS
SELECT t.element, t.kind, t.asset, t.method, t.category, t.at_boundary
FROM threats t
WHERE NOT t.averted AND NOT EXISTS (
  SELECT 1 FROM covered_threats c WHERE c.element = t.element AND c.method = t.method AND c.category = t.category);

-- Of a category's threats so many are averted, seen, or neither; covered_percent of those that are not averted.
CREATE MATERIALIZED VIEW category_coverage AS
WITH counts AS (
  SELECT c.method, c.category, count(t.element) AS threats, count(t.element) FILTER (WHERE t.averted) AS averted,
    count(u.element) AS uncovered
  FROM threat_categories c
  LEFT JOIN threats t ON t.method = c.method AND t.category = c.category
  LEFT JOIN uncovered_threats u ON u.element = t.element AND u.method = t.method AND u.category = t.category
  GROUP BY c.method, c.category
)
SELECT method, category, threats, averted, threats - averted - uncovered AS covered, uncovered,
  CASE WHEN threats > averted
    THEN CAST(100.0 * (threats - averted - uncovered) / (threats - averted) AS DECIMAL(5, 2)) END AS covered_percent
FROM counts;

-- A threat of the design is what an open finding or anomaly may be about: its detection sees the threat, and its
-- asset is the element's.
CREATE MATERIALIZED VIEW materialised_threats AS
SELECT c.element, c.asset, c.method, c.category, c.detection, f.entity
FROM covered_threats c
JOIN (
  SELECT asset, detection, entity FROM risk_findings
  UNION
  SELECT asset, detection, sensor AS entity FROM risk_anomalies
) f ON f.asset = c.asset AND f.detection = c.detection;

-- What the model says and cannot mean, and what it leaves open.
CREATE MATERIALIZED VIEW model_errors AS
SELECT 'threat_rules' AS relation, method || ' ' || category AS item,
  'there is no condition "' || applies_if || '": say is_log, personal_data or at_boundary' AS reason
FROM threat_rules WHERE applies_if NOT IN ('is_log', 'personal_data', 'at_boundary')
UNION ALL
SELECT 'threat_rules', r.method || ' ' || r.category, 'threat_categories has no such category'
FROM threat_rules r WHERE NOT EXISTS (SELECT 1 FROM threat_categories c WHERE c.method = r.method AND c.category = r.category)
UNION ALL
SELECT 'elements', element,
  'there is no kind "' || coalesce(kind, 'NULL') || '": say external_entity, process, data_store or data_flow'
FROM elements WHERE coalesce(kind NOT IN ('external_entity', 'process', 'data_store', 'data_flow'), true)
UNION ALL
SELECT 'elements', f.element, 'its ' || f.side || ' "' || coalesce(f.node, 'NULL') || '" is no element that flows can have'
FROM (
  SELECT element, 'source' AS side, source AS node FROM elements WHERE kind = 'data_flow'
  UNION ALL
  SELECT element, 'target' AS side, target AS node FROM elements WHERE kind = 'data_flow'
) f
WHERE NOT EXISTS (SELECT 1 FROM elements e WHERE e.element = f.node AND e.kind <> 'data_flow')
UNION ALL
SELECT 'elements', e.element, 'its asset "' || e.asset || '" is not in asset_impacts, so no finding is about it'
FROM elements e
LEFT JOIN asset_impacts a ON a.asset = e.asset
WHERE e.asset IS NOT NULL AND a.asset IS NULL
UNION ALL
SELECT 'elements', e.element, 'its zone is not known'
FROM elements e WHERE e.kind <> 'data_flow' AND e.zone IS NULL
UNION ALL
SELECT 'elements', e.element, 'whether it has personal data is not known'
FROM elements e WHERE e.personal_data IS NULL
UNION ALL
SELECT 'elements', e.element, 'whether it is a log is not known'
FROM elements e WHERE e.kind = 'data_store' AND e.is_log IS NULL
UNION ALL
SELECT 'safeguards', s.element, 'there is no element of that name'
FROM safeguards s WHERE NOT EXISTS (SELECT 1 FROM elements e WHERE e.element = s.element)
UNION ALL
SELECT 'safeguards', s.element, 'the property "' || s.property || '" averts no category'
FROM safeguards s WHERE NOT EXISTS (SELECT 1 FROM threat_categories c WHERE c.averted_by = s.property)
UNION ALL
SELECT 'detection_coverage', c.detection,
  'there is no category "' || coalesce(c.category, 'NULL') || '" of "' || coalesce(c.method, 'NULL') || '"'
FROM detection_coverage c
WHERE NOT EXISTS (SELECT 1 FROM threat_categories k WHERE k.method = c.method AND k.category = c.category)
UNION ALL
SELECT 'detection_coverage', c.detection, 'it sees nothing: no element is threatened as it says'
FROM detection_coverage c JOIN threat_categories k ON k.method = c.method AND k.category = c.category
WHERE NOT EXISTS (
  SELECT 1 FROM threats t
  WHERE t.method = c.method AND t.category = c.category
    AND (c.kind IS NULL OR c.kind = t.kind) AND (c.element IS NULL OR c.element = t.element));
