-- An administrator is locked out only with a person's consent.

CREATE ACTION lock_administrator FROM reefer_sabotage WITH (
  connector = 'webhook', url = '${PARTNER}/lock', undo_url = '${PARTNER}/unlock',
  approval = 'manual', limit = '10/minute', mode = 'armed');
