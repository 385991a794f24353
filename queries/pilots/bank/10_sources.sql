-- The bank: orders, payments, and what customers do on its site. Each stream
-- may deliver an event minutes late, and any event twice.

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
