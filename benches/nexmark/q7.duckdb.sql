SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT max(price) AS price_max, time_bucket(INTERVAL '10 seconds', date_time) + INTERVAL '10 seconds' AS window_end
  FROM bid
  GROUP BY window_end
) m ON b.price = m.price_max
WHERE b.date_time BETWEEN m.window_end - INTERVAL '10 seconds' AND m.window_end
