-- Trades beside the changes of the book that they made: trades of one millisecond, side and price
-- against what was taken off that level in the same millisecond. `kalshi verify trades` asks the same.
--   psql -d kalshi_prod -v hours=1 -f sql/verify/trades.sql
--
-- More than 99 of 100 groups are exact; partial ones share their millisecond with other changes of the
-- level; an unexplained one means that changes are missing, or that a row is wrong: some are named.
\if :{?hours}
\else
\set hours 1
\endif
SELECT class, count(*) AS groups, sum(trades) AS trades,
       round(100.0 * count(*) / sum(count(*)) OVER (), 3) AS percent,
       (array_agg(concat_ws(' ', ticker, moment(millis * 1000), yes_no(maker_yes), dollars(price),
                            contracts(size::bigint)) ORDER BY millis)
        FILTER (WHERE class = 'unexplained'))[1:20] AS for_instance
FROM (
    SELECT g.*, CASE WHEN taken = size THEN 'exact' WHEN taken = 0 THEN 'unexplained' ELSE 'partial' END
                AS class
    FROM (
        SELECT t.ticker, t.exchange_ts / 1000 AS millis, NOT t.taker_side AS maker_yes, t.price,
               sum(t.size) AS size, count(*) AS trades
        FROM trades t
        WHERE t.exchange_ts >= micros(now() - :hours * interval '1 hour')
          AND NOT t.is_block_trade AND t.taker_side IS NOT NULL
        GROUP BY 1, 2, 3, 4
    ) AS g CROSS JOIN LATERAL (
        SELECT coalesce(-sum(d.size_delta), 0) AS taken FROM orderbook_deltas d
        WHERE d.ticker = g.ticker AND d.exchange_ts >= g.millis * 1000
          AND d.exchange_ts < g.millis * 1000 + 1000
          AND d.side = g.maker_yes AND d.price = g.price AND d.size_delta < 0
    ) AS d
) AS groups
GROUP BY 1 ORDER BY 2 DESC;
