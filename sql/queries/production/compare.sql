-- What each gatherer brought in the last 24 hours, beside what production has.
--   psql -d kalshi_prod -f sql/queries/production/compare.sql
--
-- Production is the union: it has at least as many rows as the gatherer with the most, and more where
-- each missed something else. `alone` are rows that nobody else had: what redundancy saved.
SELECT k.table_name AS log,
       k.gatherer,
       sum(k.offered)::bigint AS offered,
       sum(k.alone)::bigint AS alone,
       sum(sum(k.offered - k.duplicates)) OVER (PARTITION BY k.table_name)::bigint AS in_production
FROM contributions k
WHERE k.table_name IN ('trades', 'orderbook_deltas', 'tickers', 'market_lifecycle')
  AND k.hour > micros(now() - interval '25 hours')
GROUP BY k.table_name, k.gatherer
ORDER BY 1, 2;
