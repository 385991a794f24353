-- B2, account takeover: new device, password reset, new payee, transfer; one
-- user, in this order, within thirty minutes.
--
-- Does not fire: a new phone from which nothing is transferred; a transfer to
-- a payee known before, or made before the payee was added; all four steps
-- over an hour. Steps may arrive in any order, and twice; those of
-- one time, as stamps are in seconds, may have come in this order.

CREATE DETECTION account_takeover WITH (severity = 'critical', entity = 'usr', attack = 'T1078') AS
SELECT DISTINCT t.usr, t.device, t.ts AS transfer_ts
FROM web_events d
JOIN web_events r ON r.usr = d.usr AND r.ts >= d.ts
JOIN web_events p ON p.usr = d.usr AND p.ts >= r.ts
JOIN web_events t ON t.usr = d.usr AND t.ts >= p.ts AND t.ts <= d.ts + INTERVAL '30 minutes'
WHERE d.action = 'new_device'
  AND r.action = 'password_reset'
  AND p.action = 'new_payee'
  AND t.action = 'transfer';
