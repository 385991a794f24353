-- B1, card testing: five or more distinct cards declined for one address
-- within five minutes, five minutes exactly included.
--
-- Does not fire: four cards behind an office's address, however often told
-- (cards are counted distinct); one card tried again and again; many cards
-- over half an hour; payments without an address.
--
-- A finding, and so the block of its address, lasts a day.

CREATE DETECTION card_testing WITH (severity = 'high', entity = 'ip', attack = 'T1110.004') AS
WITH cards AS (
  SELECT ip, window_start, card, min(ts) AS first_ts, max(ts) AS last_ts
  FROM TUMBLE(payments, ts, INTERVAL '5 minutes')
  WHERE status = 'declined' AND ip IS NOT NULL AND card IS NOT NULL
    AND window_end > watermark('payments') - INTERVAL '24 hours'
  GROUP BY ip, window_start, card
),
spans AS (
  SELECT ip, window_start, count(*) AS cards FROM cards GROUP BY ip, window_start
),
-- Five minutes that begin in one span end in the next. What of a card counts
-- there is the last time in the one and the first time in the other. A span with
-- five cards is found by itself; so these are few, however many the attacker
-- tries.
ends AS (
  SELECT c.ip, c.window_start, c.card, c.first_ts, c.last_ts
  FROM cards c
  JOIN spans s ON s.ip = c.ip AND s.window_start = c.window_start
  WHERE s.cards < 5
),
pairs AS (
  SELECT ip, window_start, card, last_ts AS ts FROM ends
  UNION ALL
  SELECT ip, window_start - INTERVAL '5 minutes', card, first_ts FROM ends
)
SELECT ip, min(window_start) AS since
FROM (
  SELECT ip, window_start, cards FROM spans
  UNION ALL
  SELECT ip, window_start,
         count(DISTINCT card) OVER (
           PARTITION BY ip, window_start ORDER BY ts RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW) AS cards
  FROM pairs
) bursts
WHERE cards >= 5
GROUP BY ip;
