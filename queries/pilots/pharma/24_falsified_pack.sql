-- P5, falsified pack: one serial dispensed at two sites, or seen anywhere
-- without a credential of authenticity that was issued before.
--
-- A missing credential is found at once, and withdrawn when the credential
-- comes late. Does not fire: a pack received here and dispensed there; one
-- brought back and dispensed again where it was; the same step told twice.

CREATE DETECTION falsified_pack WITH (severity = 'critical', entity = 'serial', attack = 'T1195.003') AS
SELECT serial, 'dispensed at ' || min(site) || ' and at ' || max(site) AS reason
FROM packs
WHERE step = 'dispensed'
GROUP BY serial
HAVING count(DISTINCT site) >= 2
UNION ALL
SELECT DISTINCT p.serial, 'no credential of authenticity' AS reason
FROM packs p
WHERE NOT EXISTS (
  SELECT 1 FROM authenticity a WHERE a.serial = p.serial AND a.ts <= p.ts);
