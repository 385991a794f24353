-- X2, log tampering: the hash that an auditor computed of a log is not the one
-- it was first anchored with.
--
-- Found also when the anchor arrives last, and when the log was anchored anew
-- to cover the change. Does not fire: hexadecimal in capitals; a log audited
-- while it was still being written; anything told twice.

CREATE MATERIALIZED VIEW first_anchors AS
SELECT log, sha256, ts
FROM (
  SELECT log, lower(sha256) AS sha256, ts,
         row_number() OVER (PARTITION BY log ORDER BY ts, lower(sha256)) AS number
  FROM log_anchors
) a
WHERE number = 1;

CREATE DETECTION log_tampering WITH (severity = 'critical', entity = 'log', attack = 'T1070') AS
SELECT DISTINCT u.log, a.sha256 AS anchored, lower(u.sha256) AS computed
FROM log_audits u
JOIN first_anchors a ON a.log = u.log
WHERE u.ts > a.ts
  AND lower(u.sha256) <> a.sha256;
