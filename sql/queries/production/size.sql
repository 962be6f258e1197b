-- Room on the disk, and who keeps the database busy.
--   psql -d kalshi_prod -f sql/queries/production/size.sql
SELECT p.log, count(*) FILTER (WHERE p.isleaf) AS partitions,
       pg_size_pretty(sum(pg_table_size(p.relid))) AS rows,
       pg_size_pretty(sum(pg_indexes_size(p.relid))) AS indexes
FROM (
    SELECT l.name AS log, t.relid, t.isleaf FROM logs l CROSS JOIN pg_partition_tree(l.name::regclass) t
    UNION
    SELECT l.name, l.name::regclass, false FROM logs l
) AS p
GROUP BY p.log
ORDER BY sum(pg_total_relation_size(p.relid)) DESC;

SELECT pg_size_pretty(pg_database_size(current_database())) AS database;

SELECT pid, usename, application_name, state, now() - query_start AS running, wait_event,
       left(query, 80) AS query
FROM pg_stat_activity
WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()
ORDER BY query_start LIMIT 10;
