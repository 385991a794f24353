-- The risk of each asset: how likely it is that something is wrong with it, times what would be lost.

-- How likely one open finding, vulnerability or anomaly means harm, by what it says of itself; "unknown" is what
-- says nothing that is in this table. The numbers are the middles of the levels very low (0 to 4 %), low (5 to
-- 20), moderate (21 to 79), high (80 to 95) and very high (96 to 100) of NIST SP 800-30 rev. 1, appendix G. Which
-- level is whose is ours, and yours to change: a vulnerability is an opportunity, and counts as more only where
-- it is known to be taken.
CREATE TABLE evidence_likelihoods (kind TEXT, level TEXT, likelihood DECIMAL(4, 3), PRIMARY KEY (kind, level));
INSERT INTO evidence_likelihoods VALUES
  ('finding',       'critical',   0.98),
  ('finding',       'high',       0.875),
  ('finding',       'medium',     0.5),
  ('finding',       'low',        0.125),
  ('finding',       'unknown',    0.98),
  ('anomaly',       'critical',   0.98),
  ('anomaly',       'high',       0.875),
  ('anomaly',       'medium',     0.5),
  ('anomaly',       'low',        0.125),
  ('anomaly',       'unknown',    0.98),
  ('vulnerability', 'ransomware', 0.98),
  ('vulnerability', 'exploited',  0.875),
  ('vulnerability', 'critical',   0.5),
  ('vulnerability', 'high',       0.125),
  ('vulnerability', 'medium',     0.02),
  ('vulnerability', 'low',        0.02),
  ('vulnerability', 'none',       0),
  ('vulnerability', 'unknown',    0.5);

CREATE VIEW evidence_levels AS
SELECT asset, 'finding' AS kind, detection || ': ' || coalesce(entity, '') AS item, severity AS level FROM risk_findings
UNION ALL
SELECT asset, 'anomaly', detection || ': ' || coalesce(sensor, ''), severity FROM risk_anomalies
UNION ALL
SELECT asset, 'vulnerability', cve, CASE WHEN ransomware THEN 'ransomware' WHEN exploited THEN 'exploited' ELSE severity END
FROM open_vulnerabilities;

-- Each piece of evidence once, with its worst level.
CREATE MATERIALIZED VIEW risk_evidence AS
SELECT e.asset, e.kind, e.item, max(least(greatest(coalesce(l.likelihood, u.likelihood, 1), 0), 1)) AS likelihood
FROM evidence_levels e
LEFT JOIN evidence_likelihoods l ON l.kind = e.kind AND l.level = e.level
LEFT JOIN evidence_likelihoods u ON u.kind = e.kind AND u.level = 'unknown'
GROUP BY e.asset, e.kind, e.item;

-- Evidence is taken as independent, so that all is well with an asset with the product of (1 - likelihood). As a
-- sum of logarithms it can be taken back exactly, piece by piece; 0.999999 stands for certainty, which has none.
CREATE VIEW evidence_weights AS
SELECT asset, kind, item, likelihood, ln(1 - least(CAST(likelihood AS DOUBLE), 0.999999)) AS log_well FROM risk_evidence;

CREATE VIEW asset_likelihoods AS
SELECT asset, sum(log_well) AS log_well,
  count(*) FILTER (WHERE kind = 'finding') AS findings,
  count(*) FILTER (WHERE kind = 'vulnerability') AS vulnerabilities,
  count(*) FILTER (WHERE kind = 'anomaly') AS anomalies
FROM evidence_weights
GROUP BY asset;

-- likelihood, impact and risk in percent, exact decimals of two digits; bands as in Gerbec et al., where the
-- borders of high belong to it.
CREATE MATERIALIZED VIEW asset_risk AS
WITH factors AS (
  SELECT a.asset, a.name, a.category,
    CAST(100 * (1 - exp(coalesce(l.log_well, 0))) AS DECIMAL(5, 2)) AS likelihood,
    CAST(least(greatest(coalesce(a.impact, 100), 0), 100) AS DECIMAL(5, 2)) AS impact,
    coalesce(l.findings, 0) AS findings,
    coalesce(l.vulnerabilities, 0) AS vulnerabilities,
    coalesce(l.anomalies, 0) AS anomalies
  FROM asset_impacts a
  LEFT JOIN asset_likelihoods l ON l.asset = a.asset
),
risks AS (SELECT *, CAST(likelihood * impact / 100 AS DECIMAL(5, 2)) AS risk FROM factors)
SELECT asset, name, category, risk,
  CASE WHEN risk < 25 THEN 'low' WHEN risk < 50 THEN 'medium' WHEN risk <= 75 THEN 'high' ELSE 'critical' END AS band,
  likelihood, impact, findings, vulnerabilities, anomalies
FROM risks;

-- Why: each piece of evidence, and the risk that would be left without it. What to patch or settle first.
CREATE MATERIALIZED VIEW risk_contributions AS
WITH remaining AS (
  SELECT r.asset, w.kind, w.item, w.likelihood, r.risk, r.impact,
    CAST(100 * (1 - exp(l.log_well - w.log_well)) AS DECIMAL(5, 2)) AS residual_likelihood
  FROM evidence_weights w
  JOIN asset_likelihoods l ON l.asset = w.asset
  JOIN asset_risk r ON r.asset = w.asset
)
SELECT asset, kind, item, likelihood, risk, CAST(residual_likelihood * impact / 100 AS DECIMAL(5, 2)) AS residual_risk
FROM remaining;

-- A category's risk is that of its asset most at risk; the whole's, their mean by weight. A category without a
-- valid weight has 3.
CREATE MATERIALIZED VIEW category_risk AS
SELECT r.category, coalesce(c.weight, 3) AS weight, count(*) AS assets, max(r.risk) AS risk
FROM asset_risk r
LEFT JOIN risk_categories c ON c.category = r.category AND c.weight IN (1, 2, 3)
GROUP BY r.category, coalesce(c.weight, 3);

CREATE MATERIALIZED VIEW overall_risk AS
SELECT CAST(sum(weight * risk) / sum(weight) AS DECIMAL(5, 2)) AS risk FROM category_risk;

-- What counts as the worst because it is not known, and what counts nowhere.
CREATE MATERIALIZED VIEW risk_errors AS
SELECT 'asset_impacts' AS relation, asset AS item, 'its impact is not known' AS reason FROM asset_impacts WHERE impact IS NULL
UNION ALL
SELECT 'asset_impacts', asset, 'its impact is not between 0 and 100' FROM asset_impacts WHERE impact < 0 OR impact > 100
UNION ALL
SELECT 'risk_categories', a.category, 'it has no weight'
FROM (SELECT DISTINCT category FROM asset_impacts) a
WHERE NOT EXISTS (SELECT 1 FROM risk_categories c WHERE c.category = a.category AND c.weight IS NOT NULL)
UNION ALL
SELECT 'risk_categories', category, 'its weight is none of 1, 2 and 3' FROM risk_categories WHERE weight NOT IN (1, 2, 3)
UNION ALL
SELECT 'evidence_likelihoods', kind || ' ' || level, 'its likelihood is not between 0 and 1'
FROM evidence_likelihoods WHERE likelihood IS NULL OR likelihood < 0 OR likelihood > 1
UNION ALL
SELECT DISTINCT e.kind, e.item,
  CASE WHEN e.level IS NULL THEN 'how severe it is, is not known' ELSE 'evidence_likelihoods has no level "' || e.level || '"' END
FROM evidence_levels e
WHERE NOT EXISTS (SELECT 1 FROM evidence_likelihoods l WHERE l.kind = e.kind AND l.level = e.level)
UNION ALL
SELECT e.kind, e.item, 'its asset "' || coalesce(e.asset, 'NULL') || '" is not in asset_impacts, so it counts nowhere'
FROM risk_evidence e
LEFT JOIN asset_impacts a ON a.asset = e.asset
WHERE a.asset IS NULL;
