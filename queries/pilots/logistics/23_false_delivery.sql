-- L3, false delivery: a parcel scanned as delivered, and no proof of purchase
-- read for it from 15 minutes before to five minutes after.
--
-- Does not fire: the proof uploaded long after the scan (missing only once the
-- proofs' watermark has passed the five minutes or, with proofs silent, scans go
-- on an hour after it, so no finding is raised in passing); the scan uploaded after its proof; anything told twice. A proof
-- shown at an earlier attempt does not help.

CREATE DETECTION false_delivery WITH (severity = 'medium', entity = 'parcel', attack = 'T1565') AS
SELECT DISTINCT d.parcel, d.device
FROM (
  SELECT * FROM scans WHERE ts < watermark('proofs') - INTERVAL '5 minutes'
  UNION ALL
  SELECT * FROM scans WHERE ts < watermark('scans') - INTERVAL '1 hour'
) d
WHERE d.step = 'delivered'
  AND NOT EXISTS (
    SELECT 1 FROM proofs p
    WHERE p.parcel = d.parcel
      AND p.ts >= d.ts - INTERVAL '15 minutes' AND p.ts <= d.ts + INTERVAL '5 minutes');
