-- What the carrier does about its findings. Each action is undone when its
-- finding is withdrawn: a parcel is released when its scanner's credential
-- arrives.

CREATE ACTION hold_parcel FROM rogue_scanner WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/hold', undo_url = '${PARTNER:-http://127.0.0.1:7788}/release',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION alert_carrier FROM diversion WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/alert', undo_url = '${PARTNER:-http://127.0.0.1:7788}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');

-- On trial: what would have been done is recorded.
CREATE ACTION trace_parcel FROM skipped_custody WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/trace', undo_url = '${PARTNER:-http://127.0.0.1:7788}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'dry_run');

CREATE ACTION open_dispute FROM false_delivery WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/dispute', undo_url = '${PARTNER:-http://127.0.0.1:7788}/settle',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION review_returns FROM returns_fraud WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/review', undo_url = '${PARTNER:-http://127.0.0.1:7788}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');
