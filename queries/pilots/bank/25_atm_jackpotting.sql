-- B6, cash machine emptied: vibration, an opened door and a dispense that the
-- host did not authorise, all three within 60 seconds, in any order.
--
-- Does not fire: a technician's test, which the host authorised, also when word
-- of that comes after the dispense (an authorisation is missing only once the
-- host's watermark has passed the dispense or, with the host silent, the machines
-- go on ten minutes after it); a machine that pays by itself with
-- nobody at its door; a guard at the door with a lorry passing. One that is more
-- than two minutes old covers no dispense.

CREATE DETECTION atm_jackpotting WITH (severity = 'critical', entity = 'atm', attack = 'T1657') AS
SELECT DISTINCT d.atm, d.txn, d.ts
FROM (
  SELECT * FROM atm_events WHERE ts < watermark('host_authorisations')
  UNION ALL
  SELECT * FROM atm_events WHERE ts < watermark('atm_events') - INTERVAL '10 minutes'
) d
JOIN atm_events v
  ON v.atm = d.atm AND v.ts >= d.ts - INTERVAL '60 seconds' AND v.ts <= d.ts + INTERVAL '60 seconds'
JOIN atm_events o
  ON o.atm = d.atm AND o.ts >= d.ts - INTERVAL '60 seconds' AND o.ts <= d.ts + INTERVAL '60 seconds'
 AND o.ts >= v.ts - INTERVAL '60 seconds' AND o.ts <= v.ts + INTERVAL '60 seconds'
WHERE d.kind = 'dispense'
  AND v.kind = 'vibration'
  AND o.kind = 'door_open'
  AND NOT EXISTS (
    SELECT 1 FROM host_authorisations h
    WHERE h.atm = d.atm AND h.txn = d.txn
      AND h.ts <= d.ts AND h.ts >= d.ts - INTERVAL '2 minutes');
