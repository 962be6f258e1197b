-- Rows by hour beside what the gatherers brought, logs without holes, positions that are not ahead;
-- `kalshi verify counts` asks the same, and the gatherers.
--   psql -d kalshi_prod -v hours=24 -f sql/verify/counts.sql
\if :{?hours}
\else
\set hours 24
\endif
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- Hours in which production has another number of rows than its gatherers brought; no rows is good.
WITH asked AS (
    SELECT micros(now() - :hours * interval '1 hour') / 3600000000 * 3600000000 AS from_ts
), there AS (
    SELECT 'trades' AS table_name, exchange_ts / 3600000000 * 3600000000 AS hour, count(*) AS rows
    FROM trades, asked WHERE exchange_ts >= from_ts GROUP BY 1, 2
    UNION ALL
    SELECT 'orderbook_deltas', exchange_ts / 3600000000 * 3600000000, count(*)
    FROM orderbook_deltas, asked WHERE exchange_ts >= from_ts GROUP BY 1, 2
    UNION ALL
    SELECT 'orderbook_snapshots', received_at / 3600000000 * 3600000000, count(*)
    FROM orderbook_snapshots, asked WHERE received_at >= from_ts GROUP BY 1, 2
    UNION ALL
    SELECT 'tickers', exchange_ts / 3600000000 * 3600000000, count(*)
    FROM tickers, asked WHERE exchange_ts >= from_ts GROUP BY 1, 2
    UNION ALL
    SELECT 'coverage', covered_from / 3600000000 * 3600000000, count(*)
    FROM coverage, asked WHERE covered_from >= from_ts GROUP BY 1, 2
), brought AS (
    SELECT table_name, hour, sum(offered - duplicates) AS rows
    FROM contributions, asked
    WHERE hour >= from_ts AND table_name <> 'market_lifecycle' GROUP BY 1, 2
)
SELECT table_name, moment(hour) AS hour, coalesce(t.rows, 0) AS in_production,
       coalesce(b.rows, 0) AS brought
FROM there t FULL JOIN brought b USING (table_name, hour)
WHERE coalesce(t.rows, 0) <> coalesce(b.rows, 0)
ORDER BY 1, 2;

-- Numbers of the last 100,000 rows of each log that are missing or given twice; no rows is good.
SELECT 'trades' AS log, before, log_seq AS after FROM (
    SELECT log_seq, lag(log_seq) OVER (ORDER BY log_seq) AS before FROM trades
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'trades')) AS r
WHERE log_seq <> before + 1
UNION ALL
SELECT 'orderbook_deltas', before, log_seq FROM (
    SELECT log_seq, lag(log_seq) OVER (ORDER BY log_seq) AS before FROM orderbook_deltas
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'orderbook_deltas')) AS r
WHERE log_seq <> before + 1
UNION ALL
SELECT 'orderbook_snapshots', before, log_seq FROM (
    SELECT log_seq, lag(log_seq) OVER (ORDER BY log_seq) AS before FROM orderbook_snapshots
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'orderbook_snapshots')) AS r
WHERE log_seq <> before + 1
UNION ALL
SELECT 'tickers', before, log_seq FROM (
    SELECT log_seq, lag(log_seq) OVER (ORDER BY log_seq) AS before FROM tickers
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'tickers')) AS r
WHERE log_seq <> before + 1
UNION ALL
SELECT 'coverage', before, log_seq FROM (
    SELECT log_seq, lag(log_seq) OVER (ORDER BY log_seq) AS before FROM coverage
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'coverage')) AS r
WHERE log_seq <> before + 1
UNION ALL
SELECT 'market_lifecycle', before, log_seq FROM (
    SELECT log_seq, lag(log_seq) OVER (ORDER BY log_seq) AS before FROM market_lifecycle
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'market_lifecycle')) AS r
WHERE log_seq <> before + 1;

-- Consumers, the archive for one, that are said to be ahead of their log; no rows is good.
SELECT c.name, c.table_name, c.position, l.head
FROM consumers c JOIN logs l ON l.name = c.table_name
WHERE c.position > l.head;

-- What is known to be lost for good.
SELECT ticker, moment(from_ts) AS lost_from, moment(to_ts) AS lost_to, detail, moment(recorded_at) AS found
FROM lost ORDER BY lost_id DESC LIMIT 100;
COMMIT;
