-- What the shipper does about its findings. Each action is undone when its
-- finding is withdrawn.

CREATE ACTION quarantine_lot FROM temperature_excursion WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/quarantine', undo_url = '${PARTNER:-http://127.0.0.1:7788}/requalify',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION investigate_shipment FROM reading_outside WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/investigate', undo_url = '${PARTNER:-http://127.0.0.1:7788}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION inspect_probe FROM sudden_change WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/inspect', undo_url = '${PARTNER:-http://127.0.0.1:7788}/dismiss',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION dispatch_driver FROM silent_sensor WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/dispatch', undo_url = '${PARTNER:-http://127.0.0.1:7788}/recall',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION distrust_logger FROM tampered_logger WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/distrust', undo_url = '${PARTNER:-http://127.0.0.1:7788}/trust',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION stop_sale FROM falsified_pack WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/stop', undo_url = '${PARTNER:-http://127.0.0.1:7788}/resume',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION refuse_sale FROM restricted_sale WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/refuse', undo_url = '${PARTNER:-http://127.0.0.1:7788}/allow',
  approval = 'auto', limit = '600/minute', mode = 'armed');
