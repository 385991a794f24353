-- What the bank does about its findings. Each action is undone when its
-- finding is withdrawn.

CREATE ACTION block_ip FROM card_testing WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/block', undo_url = '${PARTNER:-http://127.0.0.1:7788}/unblock',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION hold_transfer FROM account_takeover WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/hold', undo_url = '${PARTNER:-http://127.0.0.1:7788}/release',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION freeze_order FROM process_bypass WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/freeze', undo_url = '${PARTNER:-http://127.0.0.1:7788}/unfreeze',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION roll_back_page FROM web_skimmer WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/roll-back', undo_url = '${PARTNER:-http://127.0.0.1:7788}/roll-forward',
  approval = 'auto', limit = '600/minute', mode = 'armed');

-- From then on a second person looks at what the clerk issues.
CREATE ACTION hold_for_four_eyes FROM insider_refund WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/hold', undo_url = '${PARTNER:-http://127.0.0.1:7788}/release',
  approval = 'auto', limit = '600/minute', mode = 'armed');

CREATE ACTION disable_atm FROM atm_jackpotting WITH (
  connector = 'webhook', url = '${PARTNER:-http://127.0.0.1:7788}/disable', undo_url = '${PARTNER:-http://127.0.0.1:7788}/enable',
  approval = 'auto', limit = '600/minute', mode = 'armed');
