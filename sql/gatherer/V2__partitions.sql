-- The six logs in parts by log_seq, so that old rows can go a part at a time, and who reads them, so that
-- none goes before it was read.
--
-- Two engines, one text. The session says which in kalshi.engine (timescaledb, native or auto, which is
-- also what nothing means: TimescaleDB where the server offers it):
--
--   timescaledb   hypertables whose dimension is log_seq, an integer that counts rows
--   native        range partitions by log_seq; the gatherer makes them ahead, and before a batch that
--                 would find none, so there is no default partition. With one, PostgreSQL would lock and
--                 search it at each attach, and could detach none without blocking readers.
--
-- Why not by time, as one would at first:
--
--   CREATE TABLE trades (trade_id uuid PRIMARY KEY, ..., received_at bigint NOT NULL);
--   SELECT create_hypertable('trades', 'received_at', chunk_time_interval => 86400000000);
--   ERROR:  cannot create a unique index without the column "received_at" (used in partitioning)
--
-- A unique index is one index a part, so the column by which rows are divided has to be in each unique
-- key, in PostgreSQL's own partitions as in TimescaleDB's. A key (trade_id, received_at) would load and
-- no longer keep a trade from coming twice. Here nothing has to be given up: the only key of a gatherer's
-- log is log_seq, its readers walk along it, and rows are older in one part than in the next. What a row
-- is identified by is decided in production.
--
-- Rows that are there stay: TimescaleDB moves them into chunks (which takes as long as copying them),
-- natively the old table becomes the first partition (which is read once, to see that its rows fit).

ALTER TABLE logs
    ADD COLUMN kept_from  bigint NOT NULL DEFAULT 1 CHECK (kept_from >= 1),
    ADD COLUMN chunk_rows bigint NOT NULL DEFAULT 1000000 CHECK (chunk_rows > 0);
COMMENT ON COLUMN logs.kept_from IS 'The first log_seq that is kept: rows before it were dropped by the retention. A consumer that stands before it has missed what lies between.';
COMMENT ON COLUMN logs.chunk_rows IS 'How many rows a chunk or partition made from now on holds: some hours of a busy log. Rows are dropped by whole chunks, never the one that is being written.';
UPDATE logs SET chunk_rows = 50000000 WHERE name = 'orderbook_deltas';
UPDATE logs SET chunk_rows = 20000000 WHERE name = 'tickers';
UPDATE logs SET chunk_rows = 10000000 WHERE name = 'coverage';
UPDATE logs SET chunk_rows = 2000000 WHERE name = 'trades';

CREATE TABLE consumers (
    name       text   NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    table_name text   NOT NULL REFERENCES logs (name),
    position   bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, table_name)
);
COMMENT ON TABLE consumers IS 'Who reads the logs, and how far each is. Retention drops no row of a log that one of these has not passed. Written by consumer_passed alone. Whoever gives a consumer up deletes its rows (DELETE FROM consumers WHERE name = ...), else its rows are kept for ever; without any row here, age alone decides.';
COMMENT ON COLUMN consumers.position IS 'Every row of the log up to this log_seq is durable with the consumer.';

-- For readers who may write nothing else: only ever raises a position, never past the head.
CREATE FUNCTION consumer_passed(name text, table_name text, "position" bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $body$
DECLARE
    log_head bigint := (SELECT l.head FROM logs l WHERE l.name = $2);
BEGIN
    IF log_head IS NULL THEN
        RAISE EXCEPTION 'there is no log %', $2;
    ELSIF $3 > log_head THEN
        RAISE EXCEPTION 'consumer % of % is said to have passed row %, and the log ends at %',
            $1, $2, $3, log_head;
    END IF;
    INSERT INTO consumers AS c VALUES ($1, $2, $3)
    ON CONFLICT ON CONSTRAINT consumers_pkey DO UPDATE
    SET position = excluded.position, moved_at = now() WHERE c.position < excluded.position;
END
$body$;
COMMENT ON FUNCTION consumer_passed(text, text, bigint) IS 'Notes that a consumer has every row of a log up to a position. A lower position than the one that is noted changes nothing.';
REVOKE ALL ON FUNCTION consumer_passed(text, text, bigint) FROM PUBLIC;

DO $$
DECLARE
    engine text := coalesce(nullif(current_setting('kalshi.engine', true), ''), 'auto');
    log    record;
    old    regclass;
    acl    record;
    first_end bigint;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dedup_reader') THEN
        GRANT EXECUTE ON FUNCTION consumer_passed(text, text, bigint) TO dedup_reader;
    END IF;

    IF engine = 'auto' THEN
        engine := CASE WHEN EXISTS (SELECT FROM pg_available_extensions e WHERE e.name = 'timescaledb')
                       THEN 'timescaledb' ELSE 'native' END;
    END IF;

    IF engine = 'timescaledb' THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
        FOR log IN SELECT name, chunk_rows FROM logs LOOP
            PERFORM create_hypertable(
                log.name::regclass, by_range('log_seq', log.chunk_rows),
                create_default_indexes => false, migrate_data => true);
        END LOOP;
        RETURN;
    ELSIF engine <> 'native' THEN
        RAISE EXCEPTION 'kalshi.engine is %, not one of auto, timescaledb, native', engine;
    END IF;

    FOR log IN SELECT name, head, chunk_rows FROM logs LOOP
        -- The name that the gatherer gives to the partition from row 0.
        EXECUTE format('ALTER TABLE %I RENAME TO %I', log.name, log.name || '_0');
        EXECUTE format('ALTER INDEX %I RENAME TO %I', log.name || '_pkey', log.name || '_0_pkey');
        old := (log.name || '_0')::regclass;
        EXECUTE format(
            'CREATE TABLE %I (LIKE %s INCLUDING DEFAULTS INCLUDING COMMENTS INCLUDING STORAGE, '
            'PRIMARY KEY (log_seq)) PARTITION BY RANGE (log_seq)', log.name, old);
        EXECUTE format('COMMENT ON TABLE %I IS %L', log.name, obj_description(old, 'pg_class'));
        FOR acl IN
            SELECT a.privilege_type, a.is_grantable,
                   CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
            FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
            WHERE c.oid = old AND a.grantee <> c.relowner
        LOOP
            EXECUTE format('GRANT %s ON %I TO %s %s', acl.privilege_type, log.name, acl.grantee,
                           CASE WHEN acl.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
        END LOOP;
        -- Whole parts, and always room for the next row.
        first_end := (log.head / log.chunk_rows + 1) * log.chunk_rows;
        EXECUTE format('COMMENT ON TABLE %s IS %L', old,
                       format('Rows of %s from 0 to %s, which is not in it.', log.name, first_end));
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %s FOR VALUES FROM (0) TO (%s)',
                       log.name, old, first_end);
    END LOOP;
END
$$;
