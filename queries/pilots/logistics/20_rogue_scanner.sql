-- L1, rogue scanner: a parcel scanned by a device that held no carrier
-- credential at the time of the scan.
--
-- Found at once, and withdrawn when a credential arrives late that was valid
-- then; found afterwards when a revocation arrives late. Does not fire: a
-- credential renewed between two scans; a scan made before a revocation that
-- arrives after it; the same scan or credential told twice.

-- One row per credential: the registry's last telling counts, of two at one time
-- the one with the earlier revocation.
CREATE MATERIALIZED VIEW carrier_credentials AS
SELECT did, valid_from, revoked_at
FROM (
  SELECT did, valid_from, revoked_at,
    row_number() OVER (PARTITION BY did, valid_from ORDER BY ts DESC NULLS LAST, revoked_at NULLS LAST) AS place
  FROM credentials
  WHERE role = 'carrier'
) tellings
WHERE place = 1;

CREATE DETECTION rogue_scanner WITH (severity = 'high', entity = 'device', attack = 'T1078') AS
SELECT DISTINCT s.device, s.parcel
FROM scans s
WHERE NOT EXISTS (
  SELECT 1 FROM carrier_credentials c
  WHERE c.did = s.device
    AND c.valid_from <= s.ts
    AND (c.revoked_at IS NULL OR c.revoked_at > s.ts));
