-- B1, card testing: five or more distinct cards declined for one address
-- within five minutes (any burst of up to four minutes lies in one window).
--
-- Does not fire: four cards behind an office's address, however often told
-- (cards are counted distinct); one card tried again and again; many cards
-- over half an hour.
--
-- A finding, and so the block of its address, lasts a day.

CREATE DETECTION card_testing WITH (severity = 'high', entity = 'ip', attack = 'T1110.004') AS
SELECT ip, min(window_start) AS since
FROM (
  SELECT ip, window_start, window_end
  FROM HOP(payments, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
  WHERE status = 'declined'
  GROUP BY ip, window_start, window_end
  HAVING count(DISTINCT card) >= 5
) bursts
WHERE window_end > watermark('payments') - INTERVAL '24 hours'
GROUP BY ip;
