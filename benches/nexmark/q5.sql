-- Hot items: the auctions with most bids in the last ten seconds, every two.
WITH counted AS (
  SELECT auction, count(*) AS num, window_start, window_end
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start, window_end
)
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counted c
JOIN (
  SELECT max(num) AS num_max, window_start, window_end
  FROM counted
  GROUP BY window_start, window_end
) m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.num_max
