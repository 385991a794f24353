-- CVSS: base scores of vectors of version 3.1, and of 3.0, whose base scores are the same for each of the 2,592
-- vectors there are. Temporal and environmental metrics may stand in a vector, and do not count.
-- Source: FIRST, "Common Vulnerability Scoring System v3.1: Specification Document", sections 5 to 7 and appendix A.

-- weight_changed: where the scope is changed. Only base metrics have one.
CREATE TABLE cvss_metrics (metric TEXT, value TEXT, weight DOUBLE, weight_changed DOUBLE, PRIMARY KEY (metric, value));
INSERT INTO cvss_metrics VALUES
  ('AV', 'N', 0.85, 0.85), ('AV', 'A', 0.62, 0.62), ('AV', 'L', 0.55, 0.55), ('AV', 'P', 0.2, 0.2),
  ('AC', 'L', 0.77, 0.77), ('AC', 'H', 0.44, 0.44),
  ('PR', 'N', 0.85, 0.85), ('PR', 'L', 0.62, 0.68), ('PR', 'H', 0.27, 0.5),
  ('UI', 'N', 0.85, 0.85), ('UI', 'R', 0.62, 0.62),
  ('S',  'U', 0, 0),       ('S',  'C', 1, 1),
  ('C',  'H', 0.56, 0.56), ('C',  'L', 0.22, 0.22), ('C',  'N', 0, 0),
  ('I',  'H', 0.56, 0.56), ('I',  'L', 0.22, 0.22), ('I',  'N', 0, 0),
  ('A',  'H', 0.56, 0.56), ('A',  'L', 0.22, 0.22), ('A',  'N', 0, 0);
INSERT INTO cvss_metrics (metric, value)
SELECT metric, unnest(string_to_array(allowed, ' '))
FROM (VALUES
  ('E', 'X H F P U'), ('RL', 'X U W T O'), ('RC', 'X C R U'), ('CR', 'X H M L'), ('IR', 'X H M L'), ('AR', 'X H M L'),
  ('MAV', 'X N A L P'), ('MAC', 'X L H'), ('MPR', 'X N L H'), ('MUI', 'X N R'), ('MS', 'X U C'),
  ('MC', 'X N L H'), ('MI', 'X N L H'), ('MA', 'X N L H')) AS optional (metric, allowed);

CREATE VIEW cvss_elements AS
SELECT cve, unnest(string_to_array(substr(vector, 10), '/')) AS element
FROM cvss_vectors
WHERE substr(vector, 1, 9) IN ('CVSS:3.1/', 'CVSS:3.0/');

-- Why a vector has no score.
CREATE MATERIALIZED VIEW cvss_errors AS
SELECT cve,
  CASE WHEN vector IS NULL THEN 'it has no vector'
    ELSE '"' || vector || '" is no vector of CVSS 3.1 or 3.0: it begins with neither CVSS:3.1/ nor CVSS:3.0/' END AS reason
FROM cvss_vectors
WHERE vector IS NULL OR substr(vector, 1, 9) NOT IN ('CVSS:3.1/', 'CVSS:3.0/')
UNION ALL
SELECT DISTINCT e.cve, 'CVSS 3.1 knows no "' || e.element || '"' AS reason
FROM cvss_elements e
WHERE NOT EXISTS (SELECT 1 FROM cvss_metrics m WHERE m.metric || ':' || m.value = e.element)
UNION ALL
SELECT cve, split_part(element, ':', 1) || ' is said more than once' AS reason
FROM cvss_elements
GROUP BY cve, split_part(element, ':', 1)
HAVING count(*) > 1
UNION ALL
SELECT v.cve, b.metric || ' is missing' AS reason
FROM (SELECT DISTINCT cve FROM cvss_elements) v
CROSS JOIN (SELECT DISTINCT metric FROM cvss_metrics WHERE weight IS NOT NULL) b
WHERE NOT EXISTS (SELECT 1 FROM cvss_elements e WHERE e.cve = v.cve AND split_part(e.element, ':', 1) = b.metric);

CREATE VIEW cvss_subscores AS
WITH weights AS (
  SELECT e.cve, max(m.weight) FILTER (WHERE m.metric = 'S') = 1 AS is_changed,
    max(m.weight) FILTER (WHERE m.metric = 'AV') * max(m.weight) FILTER (WHERE m.metric = 'AC')
      * max(m.weight) FILTER (WHERE m.metric = 'UI') AS reach,
    max(m.weight) FILTER (WHERE m.metric = 'PR') AS pr, max(m.weight_changed) FILTER (WHERE m.metric = 'PR') AS pr_changed,
    1 - (1 - max(m.weight) FILTER (WHERE m.metric = 'C')) * (1 - max(m.weight) FILTER (WHERE m.metric = 'I'))
      * (1 - max(m.weight) FILTER (WHERE m.metric = 'A')) AS iss
  FROM cvss_elements e
  JOIN cvss_metrics m ON m.metric || ':' || m.value = e.element
  WHERE NOT EXISTS (SELECT 1 FROM cvss_errors x WHERE x.cve = e.cve)
  GROUP BY e.cve
)
SELECT cve, is_changed,
  8.22 * reach * CASE WHEN is_changed THEN pr_changed ELSE pr END AS exploitability,
  CASE WHEN is_changed THEN 7.52 * (iss - 0.029) - 3.25 * power(iss - 0.02, 15) ELSE 6.42 * iss END AS impact
FROM weights;

-- Roundup, as appendix A has it: to a hundred-thousandth, and from there up to a tenth. So what floating point
-- leaves at the end of a sum does not count, and the score is the one that exact arithmetic gives.
CREATE MATERIALIZED VIEW cvss_scores AS
WITH sums AS (
  SELECT cve,
    CASE WHEN impact <= 0 THEN 0
      ELSE CAST(round(100000 * least(10, (impact + exploitability) * CASE WHEN is_changed THEN 1.08 ELSE 1 END)) AS BIGINT)
    END AS hundred_thousandths
  FROM cvss_subscores
),
scores AS (SELECT cve, CAST((hundred_thousandths + 9999) / 10000 / 10.0 AS DECIMAL(3, 1)) AS score FROM sums)
SELECT cve, score,
  CASE WHEN score = 0 THEN 'none' WHEN score < 4 THEN 'low' WHEN score < 7 THEN 'medium' WHEN score < 9 THEN 'high'
    ELSE 'critical' END AS severity
FROM scores;
