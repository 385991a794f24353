-- The same files for DuckDB, one view per source.
CREATE VIEW person AS
SELECT * REPLACE (epoch_ms(date_time) AS date_time)
FROM read_json('${DATA}/person.jsonl', format = 'newline_delimited', columns = {
  id: 'BIGINT', name: 'VARCHAR', email_address: 'VARCHAR', credit_card: 'VARCHAR', city: 'VARCHAR', state: 'VARCHAR',
  date_time: 'BIGINT', extra: 'VARCHAR'});

CREATE VIEW auction AS
SELECT * REPLACE (epoch_ms(date_time) AS date_time, epoch_ms(expires) AS expires)
FROM read_json('${DATA}/auction.jsonl', format = 'newline_delimited', columns = {
  id: 'BIGINT', item_name: 'VARCHAR', description: 'VARCHAR', initial_bid: 'BIGINT', reserve: 'BIGINT',
  date_time: 'BIGINT', expires: 'BIGINT', seller: 'BIGINT', category: 'BIGINT', extra: 'VARCHAR'});

CREATE VIEW bid AS
SELECT * REPLACE (epoch_ms(date_time) AS date_time)
FROM read_json('${DATA}/bid.jsonl', format = 'newline_delimited', columns = {
  auction: 'BIGINT', bidder: 'BIGINT', price: 'BIGINT', channel: 'VARCHAR', url: 'VARCHAR', date_time: 'BIGINT',
  extra: 'VARCHAR'});
