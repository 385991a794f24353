-- Risk: the threats to each element of a model and those that no detection sees; vulnerabilities with their
-- scores, and whether they are exploited; and the risk of each asset, which follows all of these as they change.
-- What is not known counts as the worst, and is listed in model_errors, cvss_errors or risk_errors.
--
-- Fill the tables with INSERT, UPDATE and DELETE. Beside other packs, name this one in "needs" of their
-- tidegate.toml, and say where their rows come from: CREATE OR REPLACE VIEW risk_findings AS …, and likewise
-- risk_anomalies, asset_impacts and known_exploited, each with the columns that it has here.

-- What can be harmed. impact: how much of all there is to lose would be lost with it, in percent.
CREATE TABLE risk_assets (asset TEXT PRIMARY KEY, name TEXT, category TEXT, impact DECIMAL(5, 2));

-- How much a category of assets counts: 1 low, 2 moderate, 3 high priority (Gerbec et al., "Cross-CI Assessment
-- of Risks and Cascading Effects in ATLANTIS Project", Applied Sciences 15(19) 10374, 2025).
CREATE TABLE risk_categories (category TEXT PRIMARY KEY, weight BIGINT);

-- A data flow diagram. kind: external_entity, process, data_store or data_flow; a flow has a source and a target,
-- all others a zone of trust. Several elements may be one asset.
CREATE TABLE elements (
  element TEXT PRIMARY KEY, kind TEXT, asset TEXT,
  zone TEXT,                -- NULL: unknown, and so another one than any
  source TEXT, target TEXT, -- of flows
  personal_data BOOLEAN,    -- it is, holds or carries data about persons
  is_log BOOLEAN            -- of data stores: it says who did what
);

-- What an element has against threats: a property of threat_categories, and what provides it.
CREATE TABLE safeguards (element TEXT, property TEXT, provided_by TEXT, PRIMARY KEY (element, property));

-- What a detection would see. element, kind: NULL where it sees all.
CREATE TABLE detection_coverage (detection TEXT, method TEXT, category TEXT, kind TEXT, element TEXT);

-- What is open: findings, and anomalies of sensors, each by its detection. severity: critical, high, medium or low.
CREATE TABLE reported_findings (asset TEXT, detection TEXT, entity TEXT, severity TEXT, PRIMARY KEY (asset, detection, entity));
CREATE TABLE reported_anomalies (asset TEXT, detection TEXT, sensor TEXT, severity TEXT, PRIMARY KEY (asset, detection, sensor));

-- What scanners find, until it is patched.
CREATE TABLE asset_vulnerabilities (asset TEXT, cve TEXT, PRIMARY KEY (asset, cve));
-- What runs where, with the names that CISA gives to vendors and products.
CREATE TABLE asset_products (asset TEXT, vendor TEXT, product TEXT, PRIMARY KEY (asset, vendor, product));

CREATE TABLE cvss_vectors (cve TEXT PRIMARY KEY, vector TEXT);

-- The catalogue of known exploited vulnerabilities in CISA's columns. Its CSV is a source of these columns, too.
CREATE TABLE kev (
  "cveID" TEXT PRIMARY KEY, "vendorProject" TEXT, product TEXT, "vulnerabilityName" TEXT, "dateAdded" DATE,
  "shortDescription" TEXT, "requiredAction" TEXT, "dueDate" DATE, "knownRansomwareCampaignUse" TEXT
);

CREATE VIEW risk_findings AS SELECT asset, detection, entity, severity FROM reported_findings;

CREATE VIEW risk_anomalies AS SELECT asset, detection, sensor, severity FROM reported_anomalies;

CREATE VIEW asset_impacts AS SELECT asset, name, category, impact FROM risk_assets;

CREATE VIEW known_exploited AS
SELECT upper("cveID") AS cve, "vendorProject" AS vendor, product, "vulnerabilityName" AS name,
  "requiredAction" AS required_action, "dueDate" AS due_date,
  coalesce("knownRansomwareCampaignUse" = 'Known', false) AS ransomware
FROM kev;
