-- P6, restricted sale: a product sold to a buyer who, at that time, had no
-- valid credential of the kind that the product needs.
--
-- Found at once, and withdrawn when a credential arrives late that was valid
-- then; found afterwards when a revocation arrives late. Does not fire: a
-- product that needs none; a credential renewed between two sales; a sale made
-- before a revocation that arrives after it; anything told twice.

-- One row per credential: the registry's last telling counts, of two at one time
-- the one with the earlier revocation.
CREATE MATERIALIZED VIEW buyer_rights AS
SELECT buyer, kind, valid_from, revoked_at
FROM (
  SELECT buyer, kind, valid_from, revoked_at,
    row_number() OVER (PARTITION BY buyer, kind, valid_from ORDER BY ts DESC NULLS LAST, revoked_at NULLS LAST) AS place
  FROM buyer_credentials
) tellings
WHERE place = 1;

CREATE DETECTION restricted_sale WITH (severity = 'high', entity = 'sale_id') AS
SELECT DISTINCT s.sale_id, s.buyer, s.product, p.needs
FROM sales s
JOIN restricted_products p ON p.product = s.product
WHERE NOT EXISTS (
  SELECT 1 FROM buyer_rights r
  WHERE r.buyer = s.buyer
    AND r.kind = p.needs
    AND r.valid_from <= s.ts
    AND (r.revoked_at IS NULL OR r.revoked_at > s.ts));
