-- What is done about findings that join the pilots. Each action is undone when
-- its finding is withdrawn; an administrator is locked out only with a person's
-- consent.

CREATE ACTION lock_administrator FROM reefer_sabotage WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/lock', undo_url = '${PARTNER:-http://127.0.0.1:7788}/unlock',
  approval = 'manual', limit = '10/minute', mode = 'armed');

CREATE ACTION preserve_evidence FROM log_tampering WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/preserve', undo_url = '${PARTNER:-http://127.0.0.1:7788}/free',
  approval = 'auto', limit = '600/minute', mode = 'armed');
