-- The bank: orders, payments, what customers do on its site, what its pages
-- serve, what its clerks do, and its cash machines. Each stream may deliver an
-- event minutes late, and any event twice. What was told stays told: an order or
-- a payment is not corrected, as a contradiction between two is what B3 looks for.

CREATE SOURCE orders (
  order_id TEXT, usr TEXT, amount DOUBLE, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'orders');

-- status: approved or declined.
CREATE SOURCE payments (
  payment_id TEXT, order_id TEXT, usr TEXT, ip TEXT, card TEXT, amount DOUBLE, status TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'payments');

-- action: login, browse, new_device (a login from a device this user never
-- used), password_reset, new_payee, transfer.
CREATE SOURCE web_events (
  usr TEXT, ip TEXT, device TEXT, action TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'web_events');

-- What a crawler finds that checkout pages serve: a merchant's page, one of its
-- scripts, and the hash of its bytes.
CREATE SOURCE page_hashes (
  page TEXT, script TEXT, sha256 TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'page_hashes');

-- The release manifest: from ts on, a script may have these bytes. The build
-- that writes it may report hours later.
CREATE SOURCE releases (
  script TEXT, sha256 TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'releases');

-- What clerks do to accounts. action: view, iban_edit, refund.
CREATE SOURCE back_office (
  clerk TEXT, account TEXT, action TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'back_office');

-- What cash machines do. kind: vibration, door_open, door_closed, dispense;
-- only a dispense has a txn.
CREATE SOURCE atm_events (
  atm TEXT, kind TEXT, txn TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 minutes'
) WITH (connector = 'generator', stream = 'atm_events');

-- What the host lets them pay out.
CREATE SOURCE host_authorisations (
  atm TEXT, txn TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 minutes'
) WITH (connector = 'generator', stream = 'host_authorisations');
