-- B5, insider: one clerk edits an account's IBAN and, within 24 hours, issues
-- a refund to that account.
--
-- Does not fire: the refund was another clerk's (four eyes were there), went to
-- another account, or came before the edit or more than 24 hours after it.
-- The two may arrive in any order, and twice; at one time, as stamps are in
-- seconds, the edit may have come first.

CREATE DETECTION insider_refund WITH (severity = 'high', entity = 'clerk', attack = 'T1565.001') AS
SELECT DISTINCT r.clerk, r.account, r.ts AS refund_ts
FROM back_office e
JOIN back_office r
  ON r.clerk = e.clerk AND r.account = e.account
 AND r.ts >= e.ts AND r.ts <= e.ts + INTERVAL '24 hours'
WHERE e.action = 'iban_edit'
  AND r.action = 'refund';
