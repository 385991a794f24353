-- All open findings of all pilots, one row each.

CREATE MATERIALIZED VIEW findings AS
SELECT scenario, detection, severity, entity, summary FROM bank_findings
UNION ALL
SELECT scenario, detection, severity, entity, summary FROM pharma_findings
UNION ALL
SELECT scenario, detection, severity, entity, summary FROM logistics_findings
UNION ALL
SELECT 'X1', 'reefer_sabotage', 'critical', shipment, 'reefer set by ' || usr || ' from listed address ' || ip
FROM reefer_sabotage
UNION ALL
SELECT 'X2', 'log_tampering', 'critical', log, 'hashes to ' || computed || ', anchored was ' || anchored
FROM log_tampering;
