-- The newest row of each log of this gatherer, and who writes.
--   psql -d kalshi_ts -f sql/queries/gatherer/latest.sql
SELECT gatherer_id, epoch, holder, acquired_at FROM writer;

SELECT 'trades' AS log, moment(exchange_ts) AS exchange_time, moment(received_at) AS received_time,
       now() - moment(received_at) AS age
FROM trades WHERE log_seq = (SELECT head FROM logs WHERE name = 'trades')
UNION ALL
SELECT 'orderbook_deltas', moment(exchange_ts), moment(received_at), now() - moment(received_at)
FROM orderbook_deltas WHERE log_seq = (SELECT head FROM logs WHERE name = 'orderbook_deltas')
UNION ALL
SELECT 'orderbook_snapshots', moment(anchor_ts), moment(received_at), now() - moment(received_at)
FROM orderbook_snapshots WHERE log_seq = (SELECT head FROM logs WHERE name = 'orderbook_snapshots')
UNION ALL
SELECT 'tickers', moment(exchange_ts), moment(received_at), now() - moment(received_at)
FROM tickers WHERE log_seq = (SELECT head FROM logs WHERE name = 'tickers')
UNION ALL
SELECT 'market_lifecycle', moment(exchange_ts), moment(received_at), now() - moment(received_at)
FROM market_lifecycle WHERE log_seq = (SELECT head FROM logs WHERE name = 'market_lifecycle');
