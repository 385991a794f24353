-- What the bank does about its findings. Each action is undone when its
-- finding is withdrawn.

CREATE ACTION block_ip FROM card_testing WITH (
  connector = 'webhook', url = '${PARTNER}/block', undo_url = '${PARTNER}/unblock',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION hold_transfer FROM account_takeover WITH (
  connector = 'webhook', url = '${PARTNER}/hold', undo_url = '${PARTNER}/release',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION freeze_order FROM process_bypass WITH (
  connector = 'webhook', url = '${PARTNER}/freeze', undo_url = '${PARTNER}/unfreeze',
  approval = 'auto', limit = '600/minute', mode = 'armed');
