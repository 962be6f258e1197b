-- A market's changes replayed from each snapshot to the next and compared, level by level;
-- `kalshi verify books` does so for all markets.
--   psql -d kalshi_prod -v ticker=KXGOLD15M-26AUG050800-00 -f sql/verify/books.sql
--
-- No rows is good. A row says that a level of the replayed book is not that of the snapshot at the end
-- of the interval: changes of the interval are missing or wrong, unless coverage names a hole there, or
-- the snapshot is the empty book that ends a market's trading.
WITH stands AS (
    SELECT s.anchor_ts AS to_ts, lag(s.anchor_ts) OVER w AS from_ts, s.gatherer_id,
           s.yes_prices, s.yes_sizes, s.no_prices, s.no_sizes,
           lag(s.yes_prices) OVER w AS from_yes_prices, lag(s.yes_sizes) OVER w AS from_yes_sizes,
           lag(s.no_prices) OVER w AS from_no_prices, lag(s.no_sizes) OVER w AS from_no_sizes
    FROM orderbook_snapshots s
    WHERE s.ticker = :'ticker' AND s.anchor_ts IS NOT NULL
    WINDOW w AS (ORDER BY s.anchor_ts, s.log_seq)
), levels AS (
    SELECT s.from_ts, s.to_ts, s.gatherer_id, l.side, l.price, l.size, l.is_stated
    FROM stands s CROSS JOIN LATERAL (
        SELECT true AS side, u.price, u.size, false AS is_stated
        FROM unnest(s.from_yes_prices, s.from_yes_sizes) AS u (price, size)
        UNION ALL
        SELECT false, u.price, u.size, false
        FROM unnest(s.from_no_prices, s.from_no_sizes) AS u (price, size)
        UNION ALL
        SELECT d.side, d.price, d.size_delta, false FROM orderbook_deltas d
        WHERE d.ticker = :'ticker' AND d.exchange_ts > s.from_ts AND d.exchange_ts <= s.to_ts
        UNION ALL
        SELECT true, u.price, u.size, true FROM unnest(s.yes_prices, s.yes_sizes) AS u (price, size)
        UNION ALL
        SELECT false, u.price, u.size, true FROM unnest(s.no_prices, s.no_sizes) AS u (price, size)
    ) AS l
    WHERE s.from_ts IS NOT NULL
)
SELECT moment(from_ts) AS after, moment(to_ts) AS until, g.name AS snapshot_of, yes_no(side) AS side,
       dollars(price) AS price_dollars,
       contracts(sum(size) FILTER (WHERE NOT is_stated)::bigint) AS replayed,
       contracts(coalesce(sum(size) FILTER (WHERE is_stated), 0)::bigint) AS stated,
       covered(:'ticker', moment(from_ts), moment(to_ts)) AS covered
FROM levels LEFT JOIN gatherers g USING (gatherer_id)
GROUP BY from_ts, to_ts, g.name, side, price
HAVING coalesce(sum(size) FILTER (WHERE NOT is_stated), 0) <> coalesce(sum(size) FILTER (WHERE is_stated), 0)
ORDER BY from_ts, side DESC, price
LIMIT 200;
