-- Highest bid per ten seconds, with who placed it.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT max(price) AS price_max, window_end
  FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
  GROUP BY window_start, window_end
) m ON b.price = m.price_max
WHERE b.date_time BETWEEN m.window_end - INTERVAL '10 seconds' AND m.window_end
