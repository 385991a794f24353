-- What is done to orders: POST JSON lines to the source's address, such as
--   {"order_id":"o1","step":"place order","done_by":"customer","ts":"2026-03-02T09:00:00Z"}

CREATE SOURCE steps (
  order_id TEXT, step TEXT, done_by TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '1 day'
) WITH (connector = 'http');

CREATE VIEW events AS
SELECT 'order' AS process, order_id AS case_id, step AS activity, done_by AS role, ts FROM steps;
