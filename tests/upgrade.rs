//! Databases that older versions made come to the present with all their rows, and look like new ones.
//!
//! `tests/schemas` has a dump of each version that was released, with some rows in every table. To add
//! the next one, before a migration is added on top of a release: migrate two empty databases with that
//! release, fill every table (the rows of the newest dump are a start: load it and migrate), and write,
//! with owners and rights, which are part of a schema since there are roles, for instance,
//!
//! ```sh
//! pg_dump --inserts --rows-per-insert=100 kalshi_prod |
//!     sed -E '/^\\(un)?restrict/d; /^-- (Name|Data for Name|Dumped|PostgreSQL)/d; /^--$/d' |
//!     cat -s > tests/schemas/production-v5.sql
//! ```
//!
//! The name says the kind of database and the version; nothing else has to be told. A dump is never
//! changed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::Cluster;

/// Everything that makes a schema, one line each, but for partitions, which rows bring about.
const SCHEMA: &str = "
    WITH ours AS (
        SELECT c.* FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S', 'm')
          AND NOT c.relispartition
    )
    SELECT concat_ws(' ', 'relation', relname, relkind, reloptions, pg_get_partkeydef(oid), 'rights', relacl,
                     obj_description(oid, 'pg_class')) FROM ours
    UNION ALL
    SELECT concat_ws(' ', 'column', relname, attname, attnum, format_type(atttypid, atttypmod), attnotnull,
                     attidentity, attgenerated, attstorage, collname, pg_get_expr(adbin, adrelid),
                     col_description(ours.oid, attnum))
    FROM ours JOIN pg_attribute a ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_collation k ON k.oid = attcollation
    LEFT JOIN pg_attrdef ON adrelid = ours.oid AND adnum = attnum
    UNION ALL
    SELECT concat_ws(' ', 'constraint', relname, conname, pg_get_constraintdef(k.oid))
    FROM ours JOIN pg_constraint k ON conrelid = ours.oid
    UNION ALL
    SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid)) FROM ours JOIN pg_index ON indrelid = ours.oid
    UNION ALL
    SELECT concat_ws(' ', 'view', relname, pg_get_viewdef(oid)) FROM ours WHERE relkind = 'v'
    UNION ALL
    SELECT concat_ws(' ', 'trigger', relname, pg_get_triggerdef(t.oid))
    FROM ours JOIN pg_trigger t ON tgrelid = ours.oid AND NOT tgisinternal
    UNION ALL
    SELECT concat_ws(' ', 'function', pg_get_functiondef(p.oid), 'rights', p.proacl,
                     obj_description(p.oid, 'pg_proc'))
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')";

/// The tables that rows are read from, with the columns that they have now.
const TABLES: &str = "
    SELECT c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    GROUP BY 1 ORDER BY 1";

/// The dumps: kind of database, version, file.
fn dumps() -> Vec<(String, u32, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let mut dumps = Vec::new();
    for entry in fs::read_dir(&dir).expect("tests/schemas").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        let (kind, version) = name
            .strip_suffix(".sql")
            .and_then(|name| name.split_once("-v"))
            .unwrap_or_else(|| panic!("{name} is not kind-vN.sql"));
        let version = version.parse().unwrap_or_else(|_| panic!("{name}: no version"));
        dumps.push((kind.to_owned(), version, entry.path()));
    }
    dumps.sort();
    dumps
}

fn lines(cluster: &Cluster, database: &str, query: &str) -> BTreeSet<String> {
    // A view's or function's text has line ends of its own.
    let query = format!("SELECT replace(line, E'\\n', ' ') FROM ({query}) AS q (line)");
    cluster.sql(database, &query).lines().map(str::to_owned).collect()
}

/// The rows of a table as text, in order.
fn rows(cluster: &Cluster, database: &str, table: &str, columns: &str) -> Vec<String> {
    let query = format!("COPY (SELECT {columns} FROM {table}) TO STDOUT");
    let mut rows: Vec<String> = cluster.sql(database, &query).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

#[test]
fn every_released_version_comes_to_the_present_with_all_its_rows() {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    let dumps = dumps();
    for kind in ["gatherer", "production"] {
        cluster.create_migrated(root.path(), &format!("new_{kind}"), kind);
        assert!(dumps.iter().any(|(of, _, _)| of == kind), "no dump of a {kind} database");
    }
    for (kind, version, file) in dumps {
        let database = format!("{kind}_v{version}");
        cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
        let path = file.to_str().expect("UTF-8");
        let output = cluster.psql(&database, &["-o", "/dev/null", "-f", path]);
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        let newest = "SELECT max(version) FROM refinery_schema_history";
        assert_eq!(cluster.sql(&database, newest), version.to_string());

        let tables = cluster.sql(&database, TABLES);
        let mut before = BTreeMap::new();
        for line in tables.lines() {
            let (table, columns) = line.split_once('|').expect("two columns");
            let rows = rows(&cluster, &database, table, columns);
            assert!(!rows.is_empty(), "{path} has no row of {table}");
            before.insert((table, columns), rows);
        }
        assert!(before.len() > 5, "{tables}");

        cluster.migrate(root.path(), &database, &kind);
        for ((table, columns), before) in before {
            let mut after = rows(&cluster, &database, table, columns);
            // A migration may add rows of its own.
            after.retain(|row| before.contains(row));
            assert_eq!(after, before, "{table} of {path} after the migration");
        }
        let upgraded = lines(&cluster, &database, SCHEMA);
        let made_new = lines(&cluster, &format!("new_{kind}"), SCHEMA);
        assert!(made_new.len() > 100, "{made_new:?}");
        let only: Vec<_> = upgraded.symmetric_difference(&made_new).collect();
        assert!(only.is_empty(), "{path}: a new database differs in {only:#?}");
    }
}
