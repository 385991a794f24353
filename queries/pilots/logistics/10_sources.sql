-- The parcel carrier: scans of parcels, the credentials of the devices that scan
-- them, hand-overs and returns. Handhelds upload what they read when docked.

-- step: pickup, hub_in, hub_out, out_for_delivery, delivered.
CREATE SOURCE scans (
  parcel TEXT, device TEXT, step TEXT, lat DOUBLE, lon DOUBLE, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '20 minutes'
) WITH (connector = 'generator', stream = 'scans');

-- Issued, and told again with revoked_at when revoked, without when that is
-- taken back. ts is the registry's time: of one credential the last telling counts.
CREATE SOURCE credentials (
  did TEXT, role TEXT, valid_from TIMESTAMP, revoked_at TIMESTAMP, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'credentials');

-- The code that a recipient shows at the door, read by the handheld there.
CREATE SOURCE proofs (
  parcel TEXT, device TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '20 minutes'
) WITH (connector = 'generator', stream = 'proofs');

-- Refunds for what was sent back, with what it weighed there and back; for what
-- was lost, without. One told again is corrected: the last telling counts, with
-- the time of the first. One told again without a customer is taken back.
CREATE SOURCE refunds (
  refund_id TEXT, usr TEXT, parcel TEXT, sent_grams BIGINT, returned_grams BIGINT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'refunds');
