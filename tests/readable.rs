//! The databases as people see them: every column explained, books of any time that tell the truth,
//! candles, and the operators' queries; and that they find what they read by index.

#![expect(clippy::indexing_slicing, reason = "tests say what must hold")]

mod support;

use std::fs;
use std::path::Path;

use support::Cluster;

/// A database of production over a few days, with a busy market among others.
const FIXTURE: &str = "
    CREATE TEMP TABLE days AS
    SELECT n, micros(date_trunc('day', now())) - n * 86400000000 AS day
    FROM generate_series(0::bigint, 13) AS n;
    DO $$
    DECLARE
        d record;
        t text;
    BEGIN
        FOR d IN SELECT * FROM days LOOP
            FOREACH t IN ARRAY ARRAY['trades', 'orderbook_deltas', 'orderbook_snapshots', 'tickers', 'coverage'] LOOP
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                               t || '_d' || d.n, t, d.day, d.day + 86400000000);
            END LOOP;
        END LOOP;
    END $$;
    INSERT INTO gatherers (name) VALUES ('gatherer-1'), ('gatherer-2');
    INSERT INTO orderbook_deltas
    SELECT row_number() OVER (), day + k * 21600000 + 3600000000, 0,
           CASE WHEN k % 10 = 0 THEN 'KXBUSY' ELSE 'KX' || k % 97 END, k % 20 = 0,
           CASE WHEN k % 20 = 0 THEN 400000 ELSE 600000 END + 10000 * (k / 20 % 10), 100, 1, 1
    FROM days, generate_series(0::bigint, 2999) AS k;
    INSERT INTO orderbook_snapshots
    SELECT row_number() OVER (), day + k * 43200000 + 50000, day + k * 43200000,
           CASE WHEN k % 250 = 0 THEN 'KXBUSY' ELSE 'KX' || k END, 'ws',
           '{100000,200000}', '{100,200}', '{700000,800000}', '{300,400}', day + k, 1, k, 1
    FROM days, generate_series(0::bigint, 1999) AS k;
    INSERT INTO trades
    SELECT row_number() OVER (), gen_random_uuid(), day + k * 43200000, 0,
           CASE WHEN k % 10 = 0 THEN 'KXBUSY' ELSE 'KX' || k % 97 END, 500000, 500000, 100, true, false, 1
    FROM days, generate_series(0::bigint, 1999) AS k;
    INSERT INTO tickers (log_seq, exchange_ts, received_at, ticker, content_hash, gatherer_id)
    SELECT row_number() OVER (), day + k * 86400000, 0, 'KX' || k % 97, k, 1
    FROM days, generate_series(0::bigint, 999) AS k;
    INSERT INTO market_lifecycle
    SELECT k, 'KX' || k, 'created', NULL, 0, '{}', k, 1 FROM generate_series(1::bigint, 5000) AS k;
    INSERT INTO coverage
    SELECT row_number() OVER (), CASE WHEN k % 10 = 0 THEN 'trade' ELSE 'orderbook_delta' END,
           CASE k % 10 WHEN 0 THEN '' WHEN 1 THEN 'KXBUSY' ELSE 'KX' || k END,
           day + k * 86400000, day + (k + 10) * 86400000, NULL, NULL, 1, 'continues', '', 1, 1, 1
    FROM days, generate_series(0::bigint, 999) AS k;
    INSERT INTO contributions
    SELECT 'gatherer-1', t, day + h * 3600000000, 10, 0, 0, 0
    FROM days, generate_series(0::bigint, 23) AS h, unnest(ARRAY['trades', 'orderbook_deltas']) AS t;
    UPDATE logs SET head = 3000 * 14, time_max = micros(now()) WHERE name = 'orderbook_deltas';
    UPDATE logs SET head = 2000 * 14, time_max = micros(now()) WHERE name = 'trades';
    UPDATE logs SET head = 1000 * 14 WHERE name IN ('tickers', 'coverage');
    ANALYZE";

/// Tables whose rows are too many to be read one by one.
const LOGS: [&str; 6] = [
    "trades",
    "orderbook_deltas",
    "orderbook_snapshots",
    "tickers",
    "market_lifecycle",
    "coverage",
];

/// The directory goes after the server that lives in it.
fn production() -> (tempfile::TempDir, Cluster) {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    cluster.create_migrated(root.path(), "production", "production");
    (root, cluster)
}

/// What these psql arguments print, and the plans of every statement on the way, those inside of
/// functions too.
fn planned(
    cluster: &Cluster,
    database: &str,
    settings: &str,
    arguments: &[&str],
) -> (String, String) {
    let explain = format!(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; \
         SET auto_explain.log_nested_statements = on; SET client_min_messages = log; {settings}"
    );
    let mut all = vec!["-c", &explain];
    all.extend(arguments);
    let output = cluster.psql(database, &all);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), told)
}

/// The lines of plans that read a log from end to end.
fn full_scans(plans: &str) -> Vec<&str> {
    let scan = |line: &&str| {
        line.split_once("Seq Scan on ").is_some_and(|(_, table)| {
            LOGS.iter().any(|log| table.starts_with(log)) && !table.starts_with("coverage_open")
        })
    };
    plans.lines().filter(scan).collect()
}

/// The partitions of a table that plans read.
fn partitions<'a>(plans: &'a str, table: &str) -> Vec<&'a str> {
    let prefix = format!(" on {table}_d");
    let mut found: Vec<&str> = plans
        .lines()
        .filter(|line| line.contains("Scan"))
        .filter_map(|line| line.split_once(&prefix)?.1.split(' ').next())
        // Not the indexes that are named after them.
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn every_table_column_view_and_function_is_explained_with_its_unit() {
    let (root, cluster) = production();
    cluster.create_migrated(root.path(), "gatherer", "gatherer");
    for database in ["gatherer", "production"] {
        let ours = "c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') \
                    AND NOT c.relispartition";
        let columns = format!(
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
             AND NOT a.attisdropped CROSS JOIN LATERAL col_description(c.oid, a.attnum) AS words \
             WHERE {ours}"
        );
        let count = cluster.number(database, &format!("SELECT count(*) {columns}"));
        assert!(count > 100, "{count} columns of {database}");
        for (what, query) in [
            (
                "no comment",
                format!("SELECT relname FROM pg_class c WHERE {ours} AND obj_description(oid, 'pg_class') IS NULL"),
            ),
            (
                "no comment",
                "SELECT oid::regprocedure FROM pg_proc p WHERE pronamespace = 'public'::regnamespace \
                 AND obj_description(oid, 'pg_proc') IS NULL \
                 AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')"
                    .to_owned(),
            ),
            ("no comment", format!("SELECT relname, attname {columns} AND words IS NULL")),
            (
                "a time without its unit",
                format!(
                    "SELECT relname, attname, words {columns} AND atttypid = 'bigint'::regtype \
                     AND attname ~ '(_ts|_at|_from|_to|_until|hour|session_id)$' \
                     AND words !~* 'microsecond|log_seq'"
                ),
            ),
            (
                "a price without its unit",
                format!(
                    "SELECT relname, attname, words {columns} AND attname ~ 'price|dollars|yes_(bid|ask)$' \
                     AND attname !~ 'structure' AND words !~* 'dollar'"
                ),
            ),
            (
                "a size without its unit",
                format!(
                    "SELECT relname, attname, words {columns} \
                     AND attname ~ '^(.*_size|size.*|.*_sizes|volume|open_interest|.*contracts.*)$' \
                     AND words !~* 'contract'"
                ),
            ),
        ] {
            assert_eq!(cluster.sql(database, &query), "", "{what} in {database}: {query}");
        }
    }
}

/// A market of which everything is known: two changes of one microsecond, a level that goes, a hole,
/// and the empty book at its close. Times are in seconds after `t0`.
const MARKET: &str = "
    CREATE TABLE d PARTITION OF orderbook_deltas DEFAULT;
    CREATE TABLE s PARTITION OF orderbook_snapshots DEFAULT;
    CREATE TABLE c PARTITION OF coverage DEFAULT;
    CREATE TABLE t PARTITION OF trades DEFAULT;
    INSERT INTO gatherers (name) VALUES ('gatherer-1');
    INSERT INTO orderbook_snapshots VALUES
        (1, at(0.05), at(0), 'T', 'ws', '{400000,450000}', '{1000,500}', '{500000,560000}', '{700,100}', 1, 1, 1, 1),
        (2, at(0.9), NULL, 'T', 'rest', '{1}', '{1}', '{}', '{}', 2, 0, 1, 1),
        (3, at(6.05), at(6), 'T', 'ws', '{}', '{}', '{}', '{}', 1, 1, 9, 1);
    INSERT INTO orderbook_deltas VALUES
        (1, at(1), 0, 'T', true, 450000, -500, 1, 1),
        (2, at(1), 0, 'T', false, 480000, 125, 1, 1),
        (3, at(1), 0, 'T', false, 480000, 125, 2, 1),
        (4, at(2), 0, 'T', true, 410000, 10, 1, 1),
        (5, at(2.5), 0, 'OTHER', true, 410000, 10, 1, 1),
        (6, at(3), 0, 'T', false, 480000, -250, 1, 1),
        (7, at(5), 0, 'T', false, 480000, 25, 1, 1);
    INSERT INTO coverage VALUES
        (1, 'orderbook_delta', 'T', at(0.05), at(3.1), at(1), at(3), 4, 'gap', '', 1, 1, 1);
    INSERT INTO trades VALUES
        (1, gen_random_uuid(), at(1), 0, 'T', 480000, 520000, 100, true, false, 1),
        (2, gen_random_uuid(), at(2), 0, 'T', 500000, 500000, 150, false, true, 1),
        (3, gen_random_uuid(), at(3), 0, 'T', 490000, 510000, 1, true, false, 1),
        (4, gen_random_uuid(), at(61), 0, 'T', 470000, 530000, 200, NULL, false, 1);
    INSERT INTO markets (ticker, event_ticker, title, raw, content_hash, presence, valid_from)
    VALUES ('T', 'E', 'Will it?', '{}', 1, 'listed', 0)";

/// The time so many seconds after the beginning, in microseconds and as a timestamp.
const CLOCK: &str = "
    CREATE FUNCTION at(seconds numeric) RETURNS bigint LANGUAGE sql IMMUTABLE
        RETURN 1785900000000000 + (seconds * 1000000)::bigint;
    CREATE FUNCTION tm(seconds numeric) RETURNS timestamptz LANGUAGE sql IMMUTABLE
        RETURN moment(at(seconds))";

#[test]
fn books_of_a_time_are_right_or_say_that_they_are_not_known() {
    let (_root, cluster) = production();
    cluster.sql("production", CLOCK);
    cluster.sql("production", MARKET);
    let sql = |query: &str| cluster.sql("production", query).replace('\n', " ");
    let book = |at: &str| {
        sql(&format!("SELECT side_name, price_dollars, contracts FROM book_at('T', tm({at}))"))
    };
    let known = |at: &str| {
        sql(&format!("SELECT known, covered, anchor_log_seq FROM book_known_at('T', tm({at}))"))
    };

    assert_eq!(book("-0.000001"), "");
    assert_eq!(known("-0.000001"), "f|f|");
    let first = "yes|0.450000|5.00 yes|0.400000|10.00 no|0.500000|7.00 no|0.560000|1.00";
    assert_eq!(book("0"), first);
    assert_eq!(book("0.999999"), first, "a book of REST is in no stream");
    assert_eq!(known("0.999999"), "t|t|1");
    let second = "yes|0.400000|10.00 no|0.480000|2.50 no|0.500000|7.00 no|0.560000|1.00";
    assert_eq!(book("1"), second);
    assert_eq!(
        sql("SELECT side, price, size, covered FROM book_at('T', tm(1)) LIMIT 2"),
        "t|400000|1000|t f|480000|250|t"
    );
    assert_eq!(book("3"), "yes|0.410000|0.10 yes|0.400000|10.00 no|0.500000|7.00 no|0.560000|1.00");
    assert_eq!(known("3"), "t|t|1", "to the last change that coverage names");
    assert_eq!(known("3.1"), "t|f|1", "the bound of a stretch is another clock's");
    assert_eq!(sql("SELECT DISTINCT covered FROM book_at('T', tm(5))"), "f", "behind the gap");
    assert_eq!(book("6"), "", "empty, which is known");
    assert_eq!(known("6"), "t|t|3");
    assert_eq!(known("7"), "t|f|3");
    let covered =
        "SELECT covered('T', tm(2)), covered('T', tm(1), tm(3)), covered('T', tm(2), tm(5))";
    assert_eq!(sql(covered), "t|t|f");
    assert_eq!(sql("SELECT moment(micros(x)) = x FROM (SELECT now() AS x) AS t"), "t");

    let states = |arguments: &str| {
        sql(&format!(
            "SELECT at - tm(0), yes_prices, yes_sizes, no_prices, no_sizes, covered \
             FROM books_between('T', {arguments})"
        ))
    };
    assert_eq!(
        states("tm(-1), tm(7)"),
        "00:00:00|{400000,450000}|{1000,500}|{500000,560000}|{700,100}|t \
         00:00:01|{400000}|{1000}|{480000,500000,560000}|{250,700,100}|t \
         00:00:02|{400000,410000}|{1000,10}|{480000,500000,560000}|{250,700,100}|t \
         00:00:03|{400000,410000}|{1000,10}|{500000,560000}|{700,100}|t \
         00:00:05|{400000,410000}|{1000,10}|{480000,500000,560000}|{25,700,100}|f \
         00:00:06|{}|{}|{}|{}|t"
    );
    assert_eq!(
        states("tm(0.5), tm(6.5), '3 seconds'"),
        "00:00:00.5|{400000,450000}|{1000,500}|{500000,560000}|{700,100}|t \
         00:00:03.5|{400000,410000}|{1000,10}|{500000,560000}|{700,100}|f \
         00:00:06.5|{}|{}|{}|{}|f"
    );
    assert_eq!(states("tm(-2), tm(-1)"), "");
    assert_eq!(
        sql("SELECT at - tm(0), bid_dollars, bid_contracts, ask_dollars, ask_size \
             FROM top_of_book('T', tm(0.5), tm(6))"),
        "00:00:00.5|0.450000|5.00|0.500000|700 00:00:01|0.400000|10.00|0.480000|250 \
         00:00:02|0.410000|0.10|0.480000|250 00:00:03|0.410000|0.10|0.500000|700 \
         00:00:05|0.410000|0.10|0.480000|25 00:00:06||||"
    );

    // The retention has dropped the first two seconds.
    sql("UPDATE logs SET kept_from = at(2) WHERE name = 'orderbook_deltas'");
    assert_eq!(book("0"), first, "a snapshot is a book of its own");
    assert_eq!(known("3"), "f|f|1");
    for query in [
        "SELECT * FROM book_at('T', tm(3))",
        "SELECT * FROM books_between('T', tm(1), tm(7))",
        "SELECT * FROM top_of_book('T', tm(1), tm(7))",
    ] {
        let refused = cluster.psql("production", &["-c", query]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("were dropped"), "{query}: {told}");
    }
    assert_eq!(states("tm(2), tm(7)"), "00:00:06|{}|{}|{}|{}|t");
}

#[test]
fn coverage_joins_what_belongs_together_and_nothing_else() {
    let (_root, cluster) = production();
    cluster.sql("production", CLOCK);
    let sql = |query: &str| cluster.sql("production", query);
    sql("CREATE TABLE c PARTITION OF coverage DEFAULT; CREATE TABLE s PARTITION OF orderbook_snapshots DEFAULT;
         CREATE TABLE d PARTITION OF orderbook_deltas DEFAULT;
         INSERT INTO orderbook_snapshots VALUES (1, at(0.05), at(0), 'T', 'ws', '{}', '{}', '{}', '{}', 1, 1, 1, 1)");
    let stretch = |gatherer: u8, from: &str, to: &str, ended_by: &str| {
        sql(&format!(
            "INSERT INTO coverage VALUES (1, 'orderbook_delta', 'T', at({from}), at({to}), NULL, NULL, 0, \
             '{ended_by}', '', {gatherer}, 1, {gatherer})"
        ));
    };
    let until = || {
        sql(
            "SELECT extract(epoch FROM covered_until - tm(0))::float FROM book_known_at('T', tm(50000))",
        )
    };
    assert_eq!(until(), "0");
    stretch(1, "0.05", "3600", "continues");
    assert_eq!(until(), "3599");
    stretch(1, "3600", "7200", "gap");
    assert_eq!(until(), "7199", "the hourly cut is no hole");
    stretch(2, "7199.5", "9000", "stop");
    assert_eq!(until(), "7199", "two clocks may be half a second apart");
    stretch(3, "7100", "9000", "integrity");
    assert_eq!(until(), "7199", "a book that was wrong proves nothing");
    stretch(3, "7195", "8000", "disconnect");
    assert_eq!(until(), "8999");
    assert_eq!(sql("SELECT covered FROM book_known_at('T', tm(8000))"), "t");
    assert_eq!(sql("SELECT covered FROM book_known_at('T', tm(9000))"), "f");
}

#[test]
fn candles_and_views_show_what_the_tables_hold() {
    let (_root, cluster) = production();
    cluster.sql("production", CLOCK);
    cluster.sql("production", MARKET);
    let sql = |query: &str| cluster.sql("production", query).replace('\n', " ");
    let candles = "00:00:00|0.480000|0.500000|0.480000|0.490000|2.51|3 \
                   00:01:00|0.470000|0.470000|0.470000|0.470000|2.00|1";
    let columns = "minute - tm(0), open, high, low, close, volume, count";
    assert_eq!(
        sql(&format!("SELECT {columns} FROM candles WHERE ticker = 'T' ORDER BY 1")),
        candles
    );
    for market in ["'T'", "NULL"] {
        let all = format!("SELECT {columns} FROM candles_between({market}, tm(30), tm(120))");
        assert_eq!(sql(&all), candles);
    }
    assert_eq!(
        sql(
            "SELECT exchange_time - tm(0), market_title, price_dollars, no_price_dollars, contracts, taker, \
             is_block_trade, gatherer FROM trades_readable WHERE log_seq IN (2, 4) ORDER BY log_seq"
        ),
        "00:00:02|Will it?|0.500000|0.500000|1.50|no|t|gatherer-1 \
         00:01:01|Will it?|0.470000|0.530000|2.00||f|gatherer-1"
    );
    assert_eq!(
        sql(
            "SELECT side, price_dollars, contracts_delta FROM orderbook_deltas_readable WHERE log_seq = 1"
        ),
        "yes|0.450000|-5.00"
    );
    assert_eq!(
        sql("SELECT anchor_time - tm(0), bid_dollars, ask_dollars, yes_dollars, no_contracts \
             FROM orderbook_snapshots_readable WHERE log_seq = 1"),
        "00:00:00|0.450000|0.500000|{0.400000,0.450000}|{7.00,1.00}"
    );
    assert_eq!(
        sql("SELECT seconds, ended_by, seen_to - tm(0) FROM coverage_readable"),
        "3.050000|gap|00:00:03.1"
    );
    assert_eq!(
        sql("SELECT dollars(9223372036854775807), contracts(-5)"),
        "9223372036854.775807|-0.05"
    );
}

#[test]
fn a_reader_needs_no_more_than_select_and_is_fooled_by_no_table_of_its_own() {
    let (_root, cluster) = production();
    cluster.sql("production", CLOCK);
    cluster.sql("production", MARKET);
    cluster.sql(
        "production",
        "DO $$ BEGIN IF to_regrole('exporter') IS NULL THEN CREATE ROLE exporter; END IF; END $$; \
         GRANT TEMPORARY ON DATABASE production TO exporter; \
         GRANT USAGE ON SCHEMA public TO exporter; GRANT SELECT ON ALL TABLES IN SCHEMA public TO exporter",
    );
    let as_reader = "SET ROLE exporter; SET search_path = pg_temp, public; \
                     CREATE TEMP TABLE orderbook_deltas (LIKE orderbook_deltas)";
    let output = cluster
        .psql("production", &["-c", as_reader, "-c", "SELECT count(*) FROM book_at('T', tm(1))"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "4", "{told}");
}

#[test]
fn books_candles_and_views_read_few_partitions_by_index() {
    let (_root, cluster) = production();
    cluster.sql("production", FIXTURE);
    // Two hours behind the last snapshot, one before the next.
    let at = "date_trunc('day', now()) - interval '10 hours'";
    let plans = |query: &str| planned(&cluster, "production", "", &["-c", query]);

    let (levels, plan) = plans(&format!("SELECT count(*) FROM book_at('KXBUSY', {at})"));
    assert_eq!(levels.trim(), "24", "both sides, anchored and changed");
    assert_eq!(full_scans(&plan), [""; 0], "{plan}");
    assert_eq!(partitions(&plan, "orderbook_deltas"), ["1"], "{plan}");
    assert_eq!(partitions(&plan, "orderbook_snapshots"), ["1"], "{plan}");
    assert!(partitions(&plan, "coverage").len() <= 3, "{plan}");
    assert!(plan.contains("using orderbook_snapshots_d1_ticker_anchor_ts_idx"), "{plan}");

    for function in ["books_between", "top_of_book"] {
        let query = format!(
            "SELECT count(*) > 1 FROM {function}('KXBUSY', {at}, {at} + interval '59 minutes')"
        );
        let (there, plan) = plans(&query);
        assert_eq!(there.trim(), "t");
        assert_eq!(full_scans(&plan), [""; 0], "{function}: {plan}");
        assert_eq!(partitions(&plan, "orderbook_deltas"), ["1"], "{function}: {plan}");
        assert_eq!(partitions(&plan, "orderbook_snapshots"), ["1"], "{function}: {plan}");
    }

    let (_, plan) = plans(&format!(
        "SELECT count(*) FROM candles_between('KXBUSY', {at}, {at} + interval '1 hour')"
    ));
    assert_eq!(full_scans(&plan), [""; 0], "{plan}");
    assert_eq!(partitions(&plan, "trades"), ["1"], "{plan}");
    let (count, plan) =
        plans(&format!("SELECT count(*) FROM candles WHERE ticker = 'KXBUSY' AND minute > {at}"));
    assert_ne!(count.trim(), "0");
    assert_eq!(full_scans(&plan), [""; 0], "{plan}");

    let (count, plan) = plans(
        "SELECT count(*) FROM orderbook_deltas_readable WHERE ticker = 'KXBUSY' \
         AND exchange_ts >= micros(date_trunc('day', now()) - interval '10 hours')",
    );
    assert_ne!(count.trim(), "0");
    assert_eq!(full_scans(&plan), [""; 0], "{plan}");
    assert!(partitions(&plan, "orderbook_deltas").len() <= 2, "{plan}");
}

#[test]
fn the_operators_queries_run_and_use_indexes() {
    let (root, cluster) = production();
    cluster.sql("production", FIXTURE);
    cluster.create_migrated(root.path(), "gatherer", "gatherer");
    cluster.sql(
        "gatherer",
        "INSERT INTO trades SELECT k, gen_random_uuid(), k, micros(now()), 'T', 500000, 500000, 100, true, \
             false, 1, 1, k FROM generate_series(1::bigint, 20000) AS k; \
         UPDATE logs SET head = 20000 WHERE name = 'trades'; ANALYZE",
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/queries");
    let mut files = 0;
    for database in ["gatherer", "production"] {
        for entry in fs::read_dir(folder.join(database)).expect("queries").flatten() {
            let path = entry.path();
            let path = path.to_str().expect("UTF-8");
            let text = fs::read_to_string(path).expect("a query");
            assert!(
                text.starts_with("-- ") && text.contains("psql -d "),
                "{path} says how to run it"
            );
            // The tables of a test are so small that reading them whole is cheap: what is left when
            // it is made dear has no index.
            let settings = "SET enable_seqscan = off";
            let arguments = ["-v", "ticker=KXBUSY", "-f", path];
            let (printed, plan) = planned(&cluster, database, settings, &arguments);
            println!("{path}:\n{printed}");
            assert_eq!(full_scans(&plan), [""; 0], "{path}: {plan}");
            files += 1;
        }
    }
    assert!(files >= 8, "{files} queries");
    let counts = folder.join("gatherer/counts.sql");
    let output = cluster.psql("gatherer", &["-f", counts.to_str().expect("UTF-8")]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("trades|20000"), "{printed}");
}
