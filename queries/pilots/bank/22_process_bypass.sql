-- B3, process bypass: a payment approved without an order, or over another
-- amount than its order's.
--
-- Does not fire: an order told after its payment (a missing order is missing
-- only once the orders' watermark has passed the payment); a declined payment.
-- Duplicates add no rows.

CREATE DETECTION process_bypass WITH (severity = 'high', entity = 'payment_id', attack = 'T1565') AS
SELECT DISTINCT p.payment_id, p.order_id, p.usr, p.amount, 'no order' AS reason
FROM payments p
WHERE p.status = 'approved'
  AND p.ts < watermark('orders')
  AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.order_id = p.order_id)
UNION ALL
SELECT DISTINCT p.payment_id, p.order_id, p.usr, p.amount, 'another amount' AS reason
FROM payments p
JOIN orders o ON o.order_id = p.order_id
WHERE p.status = 'approved'
  AND abs(p.amount - o.amount) > 0.005;
