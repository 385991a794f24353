-- What the shipper does about its findings. Each action is undone when its
-- finding is withdrawn.

CREATE ACTION quarantine_lot FROM temperature_excursion WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/quarantine', undo_url = '${PARTNER:-http://127.0.0.1:7788}/requalify',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION inspect_probe FROM sudden_change WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/inspect', undo_url = '${PARTNER:-http://127.0.0.1:7788}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION dispatch_driver FROM silent_sensor WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/dispatch', undo_url = '${PARTNER:-http://127.0.0.1:7788}/recall',
  approval = 'auto', limit = '600/minute', mode = 'armed');
