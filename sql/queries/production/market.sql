-- One market now: what it is, its book, its last trades, and where its book was not seen.
--   psql -d kalshi_prod -v ticker=KXGOLD15M-26AUG050800-00 -f sql/queries/production/market.sql
SELECT * FROM markets_readable WHERE ticker = :'ticker';

-- What is known of its book, and the ten best levels of each side.
SELECT * FROM book_known_at(:'ticker', now());
SELECT side_name, price_dollars, contracts
FROM (
    SELECT *, row_number() OVER (PARTITION BY side ORDER BY price * CASE WHEN side THEN -1 ELSE 1 END)
               AS place
    FROM book_at(:'ticker', now())
) AS b
WHERE place <= 10
ORDER BY price DESC, side;

SELECT exchange_time, price_dollars, contracts, taker, is_block_trade
FROM trades_readable
WHERE ticker = :'ticker'
ORDER BY exchange_ts DESC LIMIT 10;

SELECT gatherer, seen_from, seen_to, ended_by, detail
FROM coverage_readable
WHERE ticker = :'ticker' AND channel = 'orderbook_delta' AND ended_by <> 'continues'
ORDER BY covered_from DESC LIMIT 10;
