-- Card testing by amounts: three or more transactions of a card below 2, directly
-- followed by one above 100, all within an hour.
--
-- The pattern S{3,} L WITHIN 1 HOUR, where S is an amount < 2 and L one > 100:
-- it matches before L where the last three before it are such and the earliest
-- of them is at most an hour before. An hour exactly is within.
--
-- Does not fire: two small ones; another amount in between; 2 and 100 exactly; a
-- small one told twice. At one moment the lower tx_id comes first.

CREATE DETECTION card_probing WITH (severity = 'high', entity = 'card', attack = 'T1110.004') AS
SELECT card, tx_id, ts, amount
FROM (
  SELECT tx_id, card, ts, amount,
         lag(amount, 1) OVER (PARTITION BY card ORDER BY ts, tx_id) AS amount_1,
         lag(amount, 2) OVER (PARTITION BY card ORDER BY ts, tx_id) AS amount_2,
         lag(amount, 3) OVER (PARTITION BY card ORDER BY ts, tx_id) AS amount_3,
         lag(ts, 3) OVER (PARTITION BY card ORDER BY ts, tx_id) AS ts_3
  FROM recent_transactions
  WHERE card IS NOT NULL
) steps
WHERE amount > 100 AND amount_1 < 2 AND amount_2 < 2 AND amount_3 < 2
  AND ts <= ts_3 + INTERVAL '1 hour';
