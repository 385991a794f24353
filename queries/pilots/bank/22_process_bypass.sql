-- B3, process bypass: a payment approved without an order, over another amount
-- than its order's, or for an order that another was approved for before.
--
-- Does not fire: an order told after its payment (an order named is missing
-- only once the orders' watermark has passed the payment or, with orders silent,
-- payments go on an hour after it); a declined payment,
-- also before or after the one approved; half a cent. Duplicates add no rows.

CREATE DETECTION process_bypass WITH (severity = 'high', entity = 'payment_id', attack = 'T1565') AS
SELECT DISTINCT p.payment_id, p.order_id, p.usr, p.amount, 'no order' AS reason
FROM (
  SELECT * FROM payments WHERE order_id IS NULL
  UNION ALL
  SELECT * FROM payments WHERE ts < watermark('orders')
  UNION ALL
  SELECT * FROM payments WHERE ts < watermark('payments') - INTERVAL '1 hour'
) p
WHERE p.status = 'approved'
  AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.order_id = p.order_id)
UNION ALL
SELECT DISTINCT p.payment_id, p.order_id, p.usr, p.amount,
       CASE WHEN p.amount IS NULL OR o.amount IS NULL THEN 'no amount' ELSE 'another amount' END AS reason
FROM payments p
JOIN orders o ON o.order_id = p.order_id
WHERE p.status = 'approved'
  AND coalesce(abs(p.amount - o.amount) > 0.005, true)
UNION ALL
SELECT DISTINCT p.payment_id, p.order_id, p.usr, p.amount, 'paid before' AS reason
FROM payments p
JOIN payments b ON b.order_id = p.order_id AND (b.ts < p.ts OR b.ts = p.ts AND b.payment_id < p.payment_id)
WHERE p.status = 'approved'
  AND b.status = 'approved'
  AND b.payment_id <> p.payment_id;
