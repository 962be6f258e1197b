-- How many rows each log holds, ever and of the last 24 hours.
--   psql -d kalshi_prod -f sql/queries/production/counts.sql
--
-- Nothing is counted row by row: a log's numbers are dense, so its head is the number of rows ever
-- written, and `contributions` counts each hour while it is written. What the retention has dropped
-- is still in rows_ever; rows_now is the planner's estimate of what is there.
SELECT l.name AS log,
       l.head AS rows_ever,
       (SELECT sum(greatest(c.reltuples, 0))::bigint
        FROM pg_class c
        WHERE c.oid = l.name::regclass AND c.relkind = 'r'
           OR c.oid IN (SELECT t.relid FROM pg_partition_tree(l.name::regclass) t WHERE t.isleaf))
           AS rows_now_about,
       coalesce((SELECT sum(k.offered - k.duplicates)::bigint
                 FROM contributions k
                 WHERE k.table_name = l.name AND k.hour > micros(now() - interval '25 hours')), 0)
           AS rows_24h,
       moment(l.kept_from) AS kept_from
FROM logs l
ORDER BY l.name;

-- Series, events and markets, with what is being traded.
SELECT (SELECT rows_listed FROM market_sync WHERE table_name = 'series') AS series,
       (SELECT rows_listed FROM market_sync WHERE table_name = 'events') AS events,
       (SELECT rows_listed FROM market_sync WHERE table_name = 'markets') AS markets,
       (SELECT count(*) FROM markets WHERE status = 'open') AS open_markets;
