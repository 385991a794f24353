-- Vulnerabilities of assets: how severe, and whether known to be exploited.

-- score, severity: NULL where there is no valid vector; cvss_errors says why.
CREATE MATERIALIZED VIEW open_vulnerabilities AS
SELECT v.asset, v.cve, s.score, s.severity,
  k.cve IS NOT NULL AS exploited, coalesce(k.ransomware, false) AS ransomware, k.due_date
FROM (SELECT DISTINCT asset, upper(cve) AS cve FROM asset_vulnerabilities) v
LEFT JOIN (
  SELECT DISTINCT ON (upper(cve)) upper(cve) AS cve, score, severity FROM cvss_scores ORDER BY upper(cve), score DESC
) s ON s.cve = v.cve
LEFT JOIN (
  SELECT cve, bool_or(ransomware) AS ransomware, min(due_date) AS due_date FROM known_exploited GROUP BY cve
) k ON k.cve = v.cve;

-- Exploited, and not patched by the end of the day on which it was due.
CREATE MATERIALIZED VIEW overdue_vulnerabilities AS
SELECT DISTINCT v.asset, v.cve, v.score, v.due_date, k.required_action
FROM open_vulnerabilities v
JOIN known_exploited k ON k.cve = v.cve
WHERE CAST(v.due_date AS TIMESTAMP) + INTERVAL '1 day' <= now();

-- A product that runs somewhere is in the catalogue, and no scanner found the vulnerability there: patched,
-- never there, or not looked for. The catalogue names no versions, so this is a question and no evidence.
CREATE MATERIALIZED VIEW exploited_products AS
SELECT DISTINCT p.asset, p.vendor, p.product, k.cve, k.name, k.due_date
FROM asset_products p
JOIN known_exploited k ON lower(k.vendor) = lower(p.vendor) AND lower(k.product) = lower(p.product)
WHERE NOT EXISTS (SELECT 1 FROM asset_vulnerabilities v WHERE v.asset = p.asset AND upper(v.cve) = k.cve);
