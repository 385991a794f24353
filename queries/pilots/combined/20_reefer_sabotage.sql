-- X1, reefer sabotage: an address listed for phishing enters the portal as an
-- administrator; within the hour that administrator sets a reefer outside 2 to
-- 8 °C; within three more the shipment is in excursion (P1).
--
-- Found also when the indicator is published last. Does not fire: the listed
-- address was refused; the set point stayed within what the product bears; the
-- administrator mistyped it with no listed address about. Duplicates add no
-- rows.

CREATE DETECTION reefer_sabotage WITH (severity = 'critical', entity = 'shipment', attack = 'T1566') AS
SELECT DISTINCT p.shipment, a.usr, a.ip, p.ts AS edited_ts
FROM ioc i
JOIN auth_log a ON a.ip = i.indicator
JOIN setpoints p ON p.usr = a.usr AND p.ts > a.ts AND p.ts <= a.ts + INTERVAL '1 hour'
JOIN excursion_readings e
  ON e.shipment = p.shipment AND e.prev_ts > p.ts AND e.ts <= p.ts + INTERVAL '3 hours'
WHERE i.kind = 'ip'
  AND a.outcome = 'success'
  AND (p.celsius < 2 OR p.celsius > 8);
