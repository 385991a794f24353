WITH counted AS (
  SELECT auction, count(*) AS num, window_start, window_start + INTERVAL '10 seconds' AS window_end
  FROM (
    SELECT auction, time_bucket(INTERVAL '2 seconds', date_time) - k * INTERVAL '2 seconds' AS window_start
    FROM bid, range(5) AS slides(k)
  )
  GROUP BY auction, window_start
)
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counted c
JOIN (
  SELECT max(num) AS num_max, window_start, window_end
  FROM counted
  GROUP BY window_start, window_end
) m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.num_max
