-- New device: the first transaction of a customer from a device, where the
-- customer was first seen more than thirty days before.
--
-- Does not fire: all devices of a new customer; a device seen before, however
-- long ago; the transaction told twice. Of two at the first moment the lower
-- tx_id is the first. A late transaction that came before takes its place.
--
-- What was ever seen is kept, a row per customer and device: else an old device
-- would be new again.

CREATE MATERIALIZED VIEW device_first_seen AS
SELECT customer, device, min(ts) AS first_ts
FROM transactions
WHERE device IS NOT NULL
GROUP BY customer, device;

CREATE MATERIALIZED VIEW customer_first_seen AS
SELECT customer, min(ts) AS first_ts
FROM transactions
GROUP BY customer;

CREATE DETECTION new_device WITH (severity = 'low', entity = 'tx_id') AS
SELECT min(t.tx_id) AS tx_id, t.customer, t.device, t.ts
FROM recent_transactions t
JOIN device_first_seen d ON d.customer = t.customer AND d.device = t.device AND d.first_ts = t.ts
JOIN customer_first_seen c ON c.customer = t.customer
WHERE t.ts > c.first_ts + INTERVAL '30 days'
GROUP BY t.customer, t.device, t.ts;
