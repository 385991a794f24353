-- The parcel carrier: scans of parcels, and the credentials of the devices
-- that scan them. Handhelds upload their scans when docked.

-- step: pickup, hub_in, hub_out, out_for_delivery, delivered.
CREATE SOURCE scans (
  parcel TEXT, device TEXT, step TEXT, lat DOUBLE, lon DOUBLE, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '20 minutes'
) WITH (connector = 'generator', stream = 'scans');

-- Issued, and told again with revoked_at when revoked. ts is the registry's
-- time; what counts is valid_from and revoked_at.
CREATE SOURCE credentials (
  did TEXT, role TEXT, valid_from TIMESTAMP, revoked_at TIMESTAMP, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'credentials');
