-- How far each log of each gatherer is merged: run it twice, or with \watch 5, to see them advance.
--   psql -d kalshi_prod -f sql/queries/production/cursors.sql
--
-- lag_rows and lag_seconds are those of the moment at which the cursor moved last.
SELECT gatherer, table_name, position, head, lag_rows, round(lag_seconds::numeric, 3) AS lag_seconds,
       synced_at, now() - synced_at AS moved_ago, past_retention, log_id
FROM sync_cursors
ORDER BY gatherer, table_name, synced_at DESC;

-- Who else reads production's logs, and how far.
SELECT c.name AS consumer, c.table_name, c.position, l.head - c.position AS lag_rows, c.moved_at
FROM consumers c JOIN logs l ON l.name = c.table_name
ORDER BY 1, 2;

-- How far series, events and markets are copied.
SELECT table_name, moment(synced_until) AS synced_until, moment(synced_at) AS synced_at,
       rows_listed, to_confirm
FROM market_sync
ORDER BY table_name;
