-- What the carrier does about its findings. Each action is undone when its
-- finding is withdrawn: a parcel is released when its scanner's credential
-- arrives.

CREATE ACTION hold_parcel FROM rogue_scanner WITH (
  connector = 'webhook', url = '${PARTNER}/hold', undo_url = '${PARTNER}/release',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION alert_carrier FROM diversion WITH (
  connector = 'webhook', url = '${PARTNER}/alert', undo_url = '${PARTNER}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');

-- On trial: what would have been done is recorded.
CREATE ACTION trace_parcel FROM skipped_custody WITH (
  connector = 'webhook', url = '${PARTNER}/trace', undo_url = '${PARTNER}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'dry_run');
