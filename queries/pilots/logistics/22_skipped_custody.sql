-- L4, skipped custody: a parcel out for delivery that no hub took in before.
--
-- Does not fire: the hub's scan uploaded after the parcel had left (judged
-- only once the scans' watermark has passed, so no finding is raised in
-- passing); a parcel back at the hub and sent out again; the same scan twice.

CREATE DETECTION skipped_custody WITH (severity = 'medium', entity = 'parcel', attack = 'T1195') AS
SELECT DISTINCT d.parcel, d.device
FROM scans d
WHERE d.step = 'out_for_delivery'
  AND d.ts < watermark('scans')
  AND NOT EXISTS (
    SELECT 1 FROM scans h
    WHERE h.parcel = d.parcel AND h.step = 'hub_in' AND h.ts < d.ts);
