-- What `tidegate import-bpmn order.bpmn` prints.

CREATE TABLE states (
  process TEXT, state TEXT, is_initial BOOLEAN, is_final BOOLEAN,
  min_dwell_ms BIGINT, max_dwell_ms BIGINT, on_unexpected TEXT,
  PRIMARY KEY (process, state)
);
CREATE TABLE transitions (process TEXT, from_state TEXT, activity TEXT, to_state TEXT, role TEXT, is_timeout BOOLEAN);

INSERT INTO states VALUES
  ('order', 'place order', true, false, NULL, NULL, 'stay'),
  ('order', 'approve | reject', false, false, NULL, NULL, 'stay'),
  ('order', 'send invoice', false, false, NULL, NULL, 'stay'),
  ('order', 'end', false, true, NULL, NULL, 'stay'),
  ('order', 'cancel | pay', false, false, NULL, 1209600000, 'stay'),
  ('order', 'pack | send receipt', false, false, NULL, NULL, 'stay'),
  ('order', 'send receipt', false, false, NULL, NULL, 'stay'),
  ('order', 'pack', false, false, NULL, NULL, 'stay'),
  ('order', 'ship', false, false, NULL, NULL, 'stay');

INSERT INTO transitions VALUES
  ('order', 'place order', 'place order', 'approve | reject', 'customer', false),
  ('order', 'approve | reject', 'approve', 'send invoice', 'clerk', false),
  ('order', 'approve | reject', 'reject', 'end', 'clerk', false),
  ('order', 'send invoice', 'send invoice', 'cancel | pay', 'billing', false),
  ('order', 'cancel | pay', 'cancel', 'end', NULL, true),
  ('order', 'cancel | pay', 'pay', 'pack | send receipt', 'customer', false),
  ('order', 'pack | send receipt', 'pack', 'send receipt', 'warehouse', false),
  ('order', 'pack | send receipt', 'send receipt', 'pack', NULL, false),
  ('order', 'send receipt', 'send receipt', 'ship', NULL, false),
  ('order', 'pack', 'pack', 'ship', 'warehouse', false),
  ('order', 'ship', 'ship', 'end', 'warehouse', false);
