-- Who may do what in a gatherer's database.
--
--   kalshi_owner   owns every object; nobody logs in as it. Migrations run as it.
--   gatherer       records: adds rows to the logs and moves their heads. It cannot change, remove or
--                  empty a log, and makes no tables but by SET ROLE kalshi_owner, which its task for
--                  partitions does and no session that appends.
--   dedup_reader   reads.
--
-- No role gets a password here: it is set with psql's \password, which sends a verifier alone.
-- Running this needs the right to create roles, and the database. Who has a grant of their own on the
-- schema or on a table keeps it; what everybody had is gone.

DO $$
DECLARE
    -- From PostgreSQL 16 on a membership says itself whether it is inherited; before, the member does.
    is_16 CONSTANT boolean := current_setting('server_version_num')::integer >= 160000;
    terms CONSTANT text := CASE WHEN is_16 THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END;
    writer CONSTANT text := 'gatherer';
    readers CONSTANT text[] := ARRAY['dedup_reader'];
    role_name text;
    object record;
BEGIN
    -- Roles belong to the whole cluster, and another database of it may be migrated at this moment. The
    -- second of two who make the role waits for the end of the first; two who find it queue at the
    -- comment, which holds the role until the end of its transaction.
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kalshi_owner') THEN
            CREATE ROLE kalshi_owner NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    COMMENT ON ROLE kalshi_owner IS 'Owns every object of kalshi''s databases. Migrations, and the tasks that make and drop partitions, become it by SET ROLE.';
    FOREACH role_name IN ARRAY writer || readers LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role_name);
        END IF;
    END LOOP;
    IF NOT is_16 AND (SELECT rolinherit FROM pg_roles WHERE rolname = writer) THEN
        EXECUTE format('ALTER ROLE %I NOINHERIT', writer);
    END IF;
    EXECUTE format('GRANT kalshi_owner TO %I', writer) || terms;
    IF NOT pg_has_role('kalshi_owner', CASE WHEN is_16 THEN 'SET' ELSE 'MEMBER' END) THEN
        EXECUTE 'GRANT kalshi_owner TO CURRENT_USER' || terms;
    END IF;

    -- Everything that is there changes hands. Who owned a table until now is a service under another
    -- name, and goes on with the writer's rights.
    GRANT USAGE, CREATE ON SCHEMA public TO kalshi_owner;
    FOR object IN
        SELECT DISTINCT r.oid, r.rolname, r.rolsuper FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relnamespace = 'public'::regnamespace AND r.rolname NOT IN ('kalshi_owner', writer)
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
    LOOP
        IF NOT object.rolsuper AND NOT pg_has_role(object.oid, writer::name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO %I', writer, object.rolname);
        END IF;
    END LOOP;
    FOR object IN
        SELECT 'TABLE' AS kind, c.oid::regclass::text AS name FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          AND c.relowner <> 'kalshi_owner'::regrole
          -- Not an extension's, and no sequence that goes with its table.
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'kalshi_owner'::regrole
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                          AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO kalshi_owner', object.kind, object.name);
    END LOOP;

    -- Nobody is anybody: without this every role of the cluster could connect, look, and make temporary
    -- tables.
    FOR role_name IN
        SELECT DISTINCT r.rolname FROM pg_class c, aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.relnamespace = 'public'::regnamespace AND r.rolname <> 'kalshi_owner'
        UNION SELECT unnest(writer || readers)
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role_name);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
    END LOOP;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    -- A grant that one may not give, or take, is a mere warning to PostgreSQL.
    IF EXISTS (
        SELECT FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'public' AND a.grantee = 0
        UNION ALL
        SELECT FROM pg_database b, aclexplode(coalesce(b.datacl, acldefault('d', b.datdba))) a
        WHERE b.datname = current_database() AND a.grantee = 0
    ) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('permission denied to take the rights of everybody on database %I and its schema public', current_database()),
            HINT = 'Only the owner of the database, or a superuser, may.';
    END IF;
END $$;

-- From here on as the owner, so that what is granted is granted by it.
SET LOCAL ROLE kalshi_owner;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relowner = 'kalshi_owner'::regrole
          AND relkind IN ('r', 'p', 'v', 'm')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM gatherer, dedup_reader', name);
        EXECUTE format('GRANT SELECT ON %s TO gatherer, dedup_reader', name);
    END LOOP;
END $$;
GRANT INSERT ON trades, orderbook_deltas, orderbook_snapshots, tickers, market_lifecycle, coverage
    TO gatherer;
-- Not kept_from: the retention decides as the owner.
GRANT UPDATE (head, journal_id, journal_position) ON logs TO gatherer;
GRANT UPDATE (gatherer_id, epoch, holder, acquired_at) ON writer TO gatherer;
GRANT INSERT, UPDATE, DELETE ON coverage_open TO gatherer;
-- The one thing that a reader writes: how far it has read.
GRANT EXECUTE ON FUNCTION consumer_passed TO dedup_reader;

-- What later migrations make: the writer may add rows to it and read it, the reader read it. A table
-- whose rows change says so itself.
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO gatherer, dedup_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT INSERT ON TABLES TO gatherer;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO gatherer;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public
    GRANT EXECUTE ON ROUTINES TO gatherer, dedup_reader;
