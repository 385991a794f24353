-- Pass through: what reading and decoding costs.
SELECT auction, bidder, price, date_time, extra
FROM bid
