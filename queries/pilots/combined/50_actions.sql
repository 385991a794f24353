-- An administrator is locked out only with a person's consent.

CREATE ACTION lock_administrator FROM reefer_sabotage WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/lock', undo_url = '${PARTNER:-http://127.0.0.1:7788}/unlock',
  approval = 'manual', limit = '10/minute', mode = 'armed');
