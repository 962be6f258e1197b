-- The newest row of each log, and how old it is.
--   psql -d kalshi_prod -f sql/queries/production/latest.sql
--
-- `logs.time_max` moves with the rows and no row is later: nothing is searched.
SELECT l.name AS log,
       l.head,
       nullif(l.time_max, 0) AS latest_ts_us,
       moment(nullif(l.time_max, 0)) AS latest,
       now() - moment(nullif(l.time_max, 0)) AS age
FROM logs l
ORDER BY l.name;

-- The last trades, by the index on log_seq of the newest partitions.
SELECT t.exchange_time, t.ticker, t.price_dollars, t.contracts, t.taker, t.gatherer, t.log_seq
FROM trades_readable t
WHERE t.log_seq > (SELECT head - 10 FROM logs WHERE name = 'trades')
  AND t.exchange_ts >= (SELECT time_max - 86400000000 FROM logs WHERE name = 'trades')
ORDER BY t.log_seq DESC;
