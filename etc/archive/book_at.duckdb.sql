-- Books of any time from the archive alone, in DuckDB. First the views:
--
--   kalshi archive ddl --engine duckdb > archive.sql
--   duckdb kalshi.duckdb -c '.read archive.sql' -c '.read etc/archive/book_at.duckdb.sql'
--
--   SELECT * FROM book_at('KXGOLD15M-26AUG050800-00', TIMESTAMPTZ '2026-08-05 11:50+00');
--
-- The newest snapshot that is anchored at or before the time, and the changes after its anchor up to
-- and with that microsecond: what production's book_at does. No rows: the book is empty, or no snapshot
-- is anchored before; book_anchor tells which. Whether anything is missing since the anchor is said
-- by coverage alone, as in production.
SET TimeZone = 'UTC';

CREATE OR REPLACE MACRO book_anchor(wanted, moment) AS TABLE
    SELECT *
    FROM orderbook_snapshots
    WHERE ticker = wanted AND anchor_ts <= moment AND dt <= CAST(moment AS DATE)
    ORDER BY anchor_ts DESC, log_seq DESC
    LIMIT 1;

CREATE OR REPLACE MACRO book_at(wanted, moment) AS TABLE
    WITH anchor AS MATERIALIZED (
        SELECT * FROM book_anchor(wanted, moment)
    ), levels AS (
        SELECT true AS side, unnest(yes_prices) AS price, unnest(yes_sizes) AS size FROM anchor
        UNION ALL
        SELECT false, unnest(no_prices), unnest(no_sizes) FROM anchor
        UNION ALL
        SELECT d.side, d.price, d.size_delta
        FROM orderbook_deltas AS d, anchor AS a
        WHERE d.ticker = wanted
          AND d.exchange_ts > a.anchor_ts AND d.exchange_ts <= moment
          AND d.dt >= CAST(a.anchor_ts AS DATE) AND d.dt <= CAST(moment AS DATE)
    )
    SELECT side, price, CAST(sum(size) AS DECIMAL(18, 2)) AS size
    FROM levels
    GROUP BY side, price
    HAVING sum(size) <> 0
    -- The best of each side first: yes levels bid for yes, no levels ask for it.
    ORDER BY side DESC, CASE WHEN side THEN -price ELSE price END;
