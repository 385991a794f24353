-- P5, falsified pack: one serial at two sites that cannot both have it, or seen
-- anywhere without a credential of authenticity that was issued before.
--
-- Two sites cannot both have a pack where one of them had it between two times
-- (or at the time) that the other had it, or had it when the other had already
-- dispensed it: what moves on is gone, and what is dispensed is a patient's.
--
-- A missing credential is found at once, and withdrawn when the credential
-- comes late. Does not fire: a pack received here, then there, and dispensed
-- there, or at a pharmacy that never told of its receipt; one brought back and
-- dispensed again where it was; the same step told twice.

-- When which site had a pack.
CREATE MATERIALIZED VIEW pack_stays AS
SELECT serial, site, min(ts) AS first_ts, max(ts) AS last_ts, min(ts) FILTER (WHERE step = 'dispensed') AS dispensed_ts
FROM packs
GROUP BY serial, site;

CREATE DETECTION falsified_pack WITH (severity = 'critical', entity = 'serial', attack = 'T1195.003') AS
SELECT a.serial, 'at ' || min(least(a.site, b.site)) || ' and at ' || max(greatest(a.site, b.site)) AS reason
FROM pack_stays a
JOIN pack_stays b ON b.serial = a.serial AND b.site <> a.site
WHERE b.first_ts BETWEEN a.first_ts AND a.last_ts
   OR b.last_ts >= a.dispensed_ts
GROUP BY a.serial
UNION ALL
SELECT DISTINCT p.serial, 'no credential of authenticity' AS reason
FROM packs p
WHERE NOT EXISTS (
  SELECT 1 FROM authenticity a WHERE a.serial = p.serial AND a.ts <= p.ts);
