-- What the shipper does about its findings. Each action is undone when its
-- finding is withdrawn.

CREATE ACTION quarantine_lot FROM temperature_excursion WITH (
  connector = 'webhook', url = '${PARTNER}/quarantine', undo_url = '${PARTNER}/requalify',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION inspect_probe FROM sudden_change WITH (
  connector = 'webhook', url = '${PARTNER}/inspect', undo_url = '${PARTNER}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION dispatch_driver FROM silent_sensor WITH (
  connector = 'webhook', url = '${PARTNER}/dispatch', undo_url = '${PARTNER}/recall',
  approval = 'auto', limit = '600/minute', mode = 'armed');
