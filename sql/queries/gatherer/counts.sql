-- How many rows each log of this gatherer holds, and how much came in the last five minutes.
--   psql -d kalshi_ts -f sql/queries/gatherer/counts.sql
--
-- A log's numbers are dense, so its head is the number of rows ever written. The last minutes are
-- counted by the index on log_seq, over the last 100,000 rows at most: 100000 means as many or more.
SELECT name AS log, head AS rows_ever, journal_position, log_id FROM logs ORDER BY name;

SELECT 'trades' AS log, count(*) AS rows_5min FROM trades
WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'trades')
  AND received_at > micros(now() - interval '5 minutes')
UNION ALL
SELECT 'orderbook_deltas', count(*) FROM orderbook_deltas
WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'orderbook_deltas')
  AND received_at > micros(now() - interval '5 minutes')
UNION ALL
SELECT 'orderbook_snapshots', count(*) FROM orderbook_snapshots
WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'orderbook_snapshots')
  AND received_at > micros(now() - interval '5 minutes')
UNION ALL
SELECT 'tickers', count(*) FROM tickers
WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'tickers')
  AND received_at > micros(now() - interval '5 minutes')
UNION ALL
SELECT 'market_lifecycle', count(*) FROM market_lifecycle
WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'market_lifecycle')
  AND received_at > micros(now() - interval '5 minutes');
