//! `kalshi verify`: each planted fault is found exactly and nothing else is reported, a right record has
//! no finding, and what can be repaired is.

#![expect(clippy::indexing_slicing, reason = "a report without one of its keys fails the test")]

#[path = "verify/exchange.rs"]
mod exchange;
mod support;
#[path = "verify/told.rs"]
mod told;
#[path = "verify/world.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::{
    Cluster, Exchange, Process, capture, deduplicator_file, gatherer_file, migrate, wait_for,
    with_markets,
};
use told::{findings, report, section, shown, text_of, verify};
use world::{AUDIT, LENGTH, MARKETS, SECOND, World};

const HOUR: i64 = 3_600 * SECOND;
const GATHERERS: [&str; 3] = ["g1", "g2", "g3"];

fn micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("a time")
}

/// Runs the deduplicator until nothing is left to merge.
fn merge(cluster: &Cluster, root: &Path, file: &Path, production: &str, gatherers: &[&str]) {
    let log = root.join(format!("{production}.log"));
    let mut dedup = Process::start(&["dedup", "--config", file.to_str().expect("UTF-8")], log);
    wait_merged(cluster, production, gatherers);
    assert!(dedup.stop().success(), "{}", dedup.log());
}

/// Waits until production has passed all that the gatherers have now.
fn wait_merged(cluster: &Cluster, production: &str, gatherers: &[&str]) {
    for gatherer in gatherers {
        let heads = "SELECT coalesce(sum(head), 0) FROM logs";
        let all = cluster.number(gatherer, heads);
        let query = format!(
            "SELECT coalesce(sum(position), 0) FROM sync_cursors \
             WHERE log_id IN ({})",
            ids(cluster, gatherer)
        );
        wait_for(&format!("what {gatherer} has in {production}"), || {
            (cluster.number(production, &query) >= all).then_some(())
        });
    }
}

fn ids(cluster: &Cluster, database: &str) -> String {
    cluster.sql(database, "SELECT string_agg(quote_literal(log_id), ', ') FROM logs")
}

/// Three gatherers that recorded the same, merged; and a way to have the whole anew for each fault.
struct Platform {
    root: tempfile::TempDir,
    cluster: Cluster,
    begin: i64,
}

impl Platform {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        // The whole record lies in one hour, which is over.
        let begin = (micros() / HOUR - 3) * HOUR + 60 * SECOND;
        for (number, database) in (1..).zip(GATHERERS) {
            cluster.create_migrated(root.path(), database, "gatherer");
            World::of(number, begin, None).fill(&cluster, root.path(), database);
        }
        cluster.create_migrated(root.path(), "production", "production");
        let platform = Self { root, cluster, begin };
        let file = platform.file("production", &GATHERERS);
        merge(&platform.cluster, platform.root.path(), &file, "production", &GATHERERS);
        for market in MARKETS {
            platform.list(market, -3_600, LENGTH);
        }
        platform
    }

    /// A configuration over these databases.
    fn file(&self, production: &str, gatherers: &[&str]) -> PathBuf {
        let gatherers: Vec<(String, &str)> = gatherers
            .iter()
            .map(|database| (format!("gatherer-{}", &database[1..2]), *database))
            .collect();
        let gatherers: Vec<(&str, &str)> =
            gatherers.iter().map(|(id, database)| (id.as_str(), *database)).collect();
        deduplicator_file(self.root.path(), production, &self.cluster, &gatherers, production)
    }

    /// Lists a market with its hours, in seconds after the beginning.
    fn list(&self, ticker: &str, open: i64, close: i64) {
        let (open, close) = (self.begin + open * SECOND, self.begin + close * SECOND);
        self.cluster.sql(
            "production",
            &format!(
                "INSERT INTO markets (ticker, status, open_ts, close_ts, raw, content_hash, presence, \
                 valid_from) VALUES ('{ticker}', 'open', {open}, {close}, '{{}}', 1, 'listed', {open})"
            ),
        );
    }

    /// Production, and the gatherer that a fault is in, with a fault planted, as a report of everything.
    fn with(&self, name: &str, database: &str, fault: &str) -> (i32, Value) {
        let copy = |database: &str| {
            let copy = format!("{database}_{name}");
            let sql = format!("CREATE DATABASE {copy} TEMPLATE {database}");
            self.cluster.sql("postgres", &sql);
            self.cluster.sql(
                "postgres",
                &format!("GRANT CONNECT ON DATABASE {copy} TO deduplicator, dedup_reader"),
            );
            copy
        };
        let production = copy("production");
        let mut gatherers: Vec<String> = GATHERERS.map(str::to_owned).to_vec();
        let faulty = if database == "production" {
            production.clone()
        } else {
            let own = copy(database);
            let place = GATHERERS.iter().position(|known| *known == database).expect("a gatherer");
            gatherers[place].clone_from(&own);
            own
        };
        let fault = fault.replace("{t}", &self.begin.to_string());
        self.cluster.sql(&faulty, &fault);
        let gatherers: Vec<&str> = gatherers.iter().map(String::as_str).collect();
        report(&self.file(&production, &gatherers), &self.whole(&["all"]).each())
    }

    /// The arguments of a check with the time of the record.
    fn whole(&self, arguments: &[&str]) -> Arguments {
        let time = |seconds: i64| {
            let at = (self.begin + seconds * SECOND) / SECOND;
            self.cluster.sql(
                "postgres",
                &format!("SELECT to_char(to_timestamp({at}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"),
            )
        };
        let mut all: Vec<String> =
            arguments.iter().map(|argument| (*argument).to_owned()).collect();
        all.extend(["--since".to_owned(), time(-60), "--until".to_owned(), time(LENGTH + 1)]);
        Arguments(all)
    }
}

struct Arguments(Vec<String>);

impl Arguments {
    fn each(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

#[test]
fn each_planted_fault_is_found_exactly_and_nothing_else_is_reported() {
    let platform = Platform::new();
    let right = platform.file("production", &GATHERERS);
    let (code, told) = report(&right, &platform.whole(&["all"]).each());
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
    let books = &section(&told, "books")["figures"];
    assert_eq!(books["production"]["equal"], books["production"]["compared"]);
    assert_eq!(books["production"]["compared"], 3 * 4 * (LENGTH / AUDIT + 1) - 4, "{books}");
    assert_eq!(books["gatherers"][2]["replayed"]["compared"], 4 * LENGTH / AUDIT, "{books}");
    let conservation = &section(&told, "trades")["figures"]["conservation"];
    assert_eq!((&conservation["groups"], &conservation["exact"]), (&240.into(), &240.into()));
    let completeness = &section(&told, "gaps")["figures"]["completeness"];
    let total = |channel: &str| {
        let rows = completeness.as_array().expect("rows").iter();
        let mut rows = rows.filter(|row| row["channel"] == channel && row["day"] == "total");
        rows.next().unwrap_or_else(|| panic!("no {channel}: {completeness}")).clone()
    };
    assert_eq!(
        total("orderbook_delta")["seconds_by_gatherers"][3],
        4 * LENGTH - 1,
        "{completeness}"
    );

    // A change that no snapshot could miss: the 100th second of the first market, far from trades.
    let change = "ticker = 'KXA-1' AND exchange_ts = {t} + 100000000";
    let two = |text: &str| vec![text.to_owned()];
    let book = || two("books book_differs KXA-1");
    let cases: Vec<(&str, &str, String, Vec<String>)> = vec![
        ("deleted", "production", format!("DELETE FROM orderbook_deltas WHERE {change}"), vec![
            "books book_differs KXA-1".to_owned(),
            "counts log_seq_hole orderbook_deltas".to_owned(),
            "counts rows_missing orderbook_deltas".to_owned(),
        ]),
        ("doubled", "production", format!(
            "INSERT INTO orderbook_deltas SELECT (SELECT head + 1 FROM logs WHERE name = 'orderbook_deltas'), \
             exchange_ts, received_at, ticker, side, price, size_delta, 2, gatherer_id \
             FROM orderbook_deltas WHERE {change}; \
             UPDATE logs SET head = head + 1 WHERE name = 'orderbook_deltas'"
        ), vec![
            "books book_differs KXA-1".to_owned(),
            "counts rows_surplus orderbook_deltas".to_owned(),
        ]),
        ("size", "production", format!("UPDATE orderbook_deltas SET size_delta = size_delta + 1 WHERE {change}"), book()),
        ("time", "production", format!(
            "UPDATE orderbook_deltas SET exchange_ts = exchange_ts + 50000000 WHERE {change}"
        ), book()),
        ("side", "production", format!("UPDATE orderbook_deltas SET side = NOT side WHERE {change}"), book()),
        ("taker", "production",
            "UPDATE trades SET taker_side = NOT taker_side WHERE ticker = 'KXB-1' AND exchange_ts = {t} + 9502000".to_owned(),
            two("trades unexplained_trade KXB-1")),
        ("trade", "production",
            "DELETE FROM trades WHERE ticker = 'KXB-1' AND exchange_ts = {t} + 9502000".to_owned(), vec![
            "counts log_seq_hole trades".to_owned(),
            "counts rows_missing trades".to_owned(),
        ]),
        ("hole", "production",
            "UPDATE coverage SET covered_to = {t} + 297000000, ended_by = 'disconnect' \
             WHERE ticker = 'KXA-2' AND ended_by = 'continues'".to_owned(),
            two("gaps gap KXA-2")),
        ("sid", "production",
            "UPDATE coverage SET covered_to = {t} + 200000000, ended_by = 'terminal_error' \
             WHERE channel = 'trade' AND ended_by = 'continues'".to_owned(),
            two("gaps gap")),
        ("one", "production",
            "UPDATE coverage SET covered_to = {t} + 200000000, ended_by = 'terminal_error' \
             WHERE ticker = 'KXA-2' AND ended_by = 'continues' AND gatherer_id = 1".to_owned(),
            vec![]),
        ("never", "production",
            "INSERT INTO markets (ticker, status, open_ts, close_ts, raw, content_hash, presence, valid_from) \
             VALUES ('KXNEVER-1', 'open', {t} + 100000000, {t} + 400000000, '{}', 1, 'listed', {t})".to_owned(),
            two("gaps never_covered KXNEVER-1")),
        ("cursor", "production",
            "UPDATE sync_cursors SET position = position + 5 \
             WHERE gatherer = 'gatherer-2' AND table_name = 'trades'".to_owned(),
            two("counts cursor_ahead trades gatherer-2")),
        ("back", "production",
            "UPDATE sync_cursors SET position = position - 5 \
             WHERE gatherer = 'gatherer-2' AND table_name = 'trades'".to_owned(),
            two("counts cursor_moved trades gatherer-2")),
        ("archive", "production",
            "INSERT INTO consumers VALUES ('archive', 'trades', (SELECT head + 3 FROM logs WHERE name = 'trades'))".to_owned(),
            two("counts consumer_ahead trades")),
        ("seq", "production",
            "UPDATE trades SET log_seq = log_seq + 1 WHERE log_seq = (SELECT head FROM logs WHERE name = 'trades'); \
             UPDATE logs SET head = head + 1 WHERE name = 'trades'".to_owned(),
            two("counts log_seq_hole trades")),
        ("gseq", "g2", "DELETE FROM trades WHERE log_seq = 17".to_owned(),
            two("counts log_seq_hole trades gatherer-2")),
    ];
    for (name, database, fault, expected) in cases {
        let (code, told) = platform.with(name, database, &fault);
        assert_eq!(findings(&told), expected, "{name}: {told:#}");
        assert_eq!(code, if expected.is_empty() { 0 } else { 2 }, "{name}");
        let first = told["checks"].as_array().expect("checks").iter();
        let first = first.flat_map(|check| check["findings"].as_array().expect("list")).next();
        let at =
            |key: &str| first.map(|finding| finding[key].as_i64().unwrap_or(0) - platform.begin);
        match name {
            "hole" => {
                let finding = first.expect("a finding");
                // From the last end to the first beginning.
                assert_eq!(at("from_ts"), Some(297 * SECOND));
                assert_eq!(at("to_ts"), Some(300 * SECOND + 1));
                assert_eq!(finding["cause"], "disconnect");
                assert_eq!(finding["rows"], 6, "700 records in some 300 s, for 3 s");
            }
            "sid" => assert_eq!(first.expect("a finding")["cause"], "terminal error"),
            // Between the snapshots around it, and no wider.
            "deleted" | "doubled" | "size" | "side" => {
                assert_eq!(at("from_ts"), Some(-1));
                assert_eq!(at("to_ts"), Some(AUDIT * SECOND - 1));
            }
            "time" => assert_eq!(at("to_ts"), Some(2 * AUDIT * SECOND - 1)),
            "one" => {
                let own = section(&told, "gaps")["figures"]["gatherers"].to_string();
                assert!(own.contains("terminal error"), "{own}");
            }
            _ => {}
        }
    }
}

#[test]
fn what_one_gatherer_missed_is_healed_by_the_others() {
    let platform = Platform::new();
    let (cluster, root) = (&platform.cluster, platform.root.path());
    cluster.create_migrated(root, "g1b", "gatherer");
    World::of(1, platform.begin, Some(100)).fill(cluster, root, "g1b");
    cluster.create_migrated(root, "healed", "production");
    let gatherers = ["g1b", "g2", "g3"];
    let file = platform.file("healed", &gatherers);
    merge(cluster, root, &file, "healed", &gatherers);
    let (code, told) = report(&file, &platform.whole(&["all"]).each());
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
    let healed = &section(&told, "books")["figures"]["healed"];
    assert_eq!(healed.as_array().map(Vec::len), Some(1), "{healed}");
    assert_eq!(healed[0]["gatherer"], "gatherer-1");
    assert_eq!(healed[0]["market"], "KXA-1");
    // Nobody listed the markets there: they are judged by what was seen of them.
    let table = String::from_utf8_lossy(&verify(&file, &platform.whole(&["books"]).each()).stdout)
        .into_owned();
    assert!(table.contains("the others have it, and production is right"), "{table}");
}

#[test]
fn a_wrong_book_is_recorded_as_lost_and_book_at_says_so() {
    let platform = Platform::new();
    let (cluster, begin) = (&platform.cluster, platform.begin);
    let known = |second: i64| {
        let at = begin + second * SECOND;
        cluster.sql(
            "production",
            &format!(
                "SELECT covered, coalesce(reason, '') FROM book_known_at('KXA-1', moment({at}))"
            ),
        )
    };
    assert_eq!(known(110), "t|");
    let fault = format!(
        "DELETE FROM orderbook_deltas WHERE ticker = 'KXA-1' AND exchange_ts = {}",
        begin + 100 * SECOND
    );
    cluster.sql("production", &fault);
    let file = platform.file("production", &GATHERERS);
    let arguments = platform.whole(&["books", "--repair"]);
    let (code, told) = report(&file, &arguments.each());
    assert_eq!(
        (code, findings(&told)),
        (2, vec!["books book_differs KXA-1".to_owned()]),
        "{told:#}"
    );
    assert!(known(110).starts_with("f|changes between "), "{}", known(110));
    assert_eq!(known(AUDIT + 5), "t|", "the snapshot behind it puts the book right");
    let book =
        format!("SELECT DISTINCT covered FROM book_at('KXA-1', moment({}))", begin + 110 * SECOND);
    assert_eq!(cluster.sql("production", &book), "f");
    let (code, told) = report(&file, &arguments.each());
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
    assert_eq!(section(&told, "books")["figures"]["known_lost"], 1);
    assert_eq!(cluster.number("production", "SELECT count(*) FROM lost"), 1);
}

#[test]
fn a_database_that_does_not_answer_is_no_proof() {
    let platform = Platform::new();
    let file = platform.file("production", &GATHERERS);
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, text.replace("database: g2,", "database: nowhere,")).expect("write it");
    let textfile = platform.root.path().join("verify.prom");
    let mut arguments = platform.whole(&["all", "--textfile"]);
    arguments.0.insert(2, textfile.to_str().expect("UTF-8").to_owned());
    let (code, told) = report(&file, &arguments.each());
    assert_eq!((code, text_of(&told["status"])), (1, "unknown"), "{told:#}");
    let errors = section(&told, "gaps")["errors"].to_string();
    assert!(errors.contains("gatherer-2") && errors.contains("nowhere"), "{errors}");
    let metrics = fs::read_to_string(textfile).expect("the metrics");
    assert!(metrics.contains("kalshi_verify_holds{check=\"books\"} 0"), "{metrics}");
    let wrong = verify(&file, &["gaps", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(64));
}

#[test]
fn verify_reads_with_a_login_that_can_only_read() {
    let platform = Platform::new();
    let file = platform.file("production", &GATHERERS);
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, text + "verify: { user: exporter }\n").expect("write it");
    let (code, told) = report(&file, &platform.whole(&["all"]).each());
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
}

#[test]
fn a_run_over_the_recorded_windows_has_no_false_alarm() {
    // Two are enough for the regular run; KALSHI_WINDOWS=4 replays all of them.
    let count = std::env::var("KALSHI_WINDOWS").ok();
    let count = count.map_or(2, |count| count.parse().expect("KALSHI_WINDOWS is a number"));
    let files: Vec<PathBuf> = capture::windows().into_iter().take(count).collect();
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    let mut arguments = vec!["--replay"];
    arguments.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    arguments.extend(["--speed", "30"]);
    let exchange = Exchange::start(&arguments);
    let mut processes = Vec::new();
    for database in ["g1", "g2"] {
        let id = format!("gatherer-{}", &database[1..]);
        let file = gatherer_file(root.path(), database, &id, &exchange, &cluster, database);
        let config = fs::read_to_string(&file.path).expect("the configuration");
        fs::write(&file.path, config + "audit: { period: 10s }\n").expect("write it");
        migrate(&file.path);
        let path = file.path.to_str().expect("UTF-8").to_owned();
        let log = root.path().join(format!("{database}.log"));
        processes.push(Process::start(&["gather", "--config", &path], log));
    }
    let gatherers = [("gatherer-1", "g1"), ("gatherer-2", "g2")];
    let dedup = deduplicator_file(root.path(), "dedup", &cluster, &gatherers, "production");
    with_markets(&dedup, &exchange, "refresh_interval: 2s");
    migrate(&dedup);
    let log = root.path().join("dedup.log");
    let mut merging = Process::start(&["dedup", "--config", dedup.to_str().expect("UTF-8")], log);
    wait_for("the end of the replay", || (exchange.status()["finished"] == true).then_some(()));
    // Everything that was received is in the databases before they stop.
    let published = exchange.status()["published"]["orderbook_deltas"].as_i64().expect("a count");
    for database in ["g1", "g2"] {
        let mut before = -1;
        wait_for("what was received", || {
            let now =
                cluster.number(database, "SELECT head FROM logs WHERE name = 'orderbook_deltas'");
            let is_still = std::mem::replace(&mut before, now) == now;
            (is_still && now * 10 > published * 5).then_some(())
        });
    }
    for process in &mut processes {
        assert!(process.stop().success(), "{}", process.log());
    }
    wait_merged(&cluster, "production", &["g1", "g2"]);
    assert!(merging.stop().success(), "{}", merging.log());
    // The frames' own times are those of the recording.
    let (code, told) = report(&dedup, &["all", "--since", "2026-08-01T00:00:00Z"]);
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
    let books = &section(&told, "books")["figures"]["production"];
    assert!(books["deltas"].as_u64() > Some(10_000), "{books}");
    // How often an audit asked depends on the machine; between its first and its last book each was.
    assert!(books["compared"].as_u64() >= Some(4), "{books}");
    assert_eq!(books["compared"], books["equal"], "{books}");
    let conservation = &section(&told, "trades")["figures"]["conservation"];
    assert!(conservation["exact_share"].as_f64() >= Some(0.99), "{conservation}");
    println!("{books}\n{conservation}");
}

#[test]
fn the_same_questions_run_in_psql() {
    let platform = Platform::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/verify");
    let run = |name: &str| {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).expect("a query");
        assert!(text.starts_with("-- ") && text.contains("psql -d "), "{name} says how to run it");
        let arguments =
            ["-v", "ticker=KXA-1", "-v", "hours=5", "-f", path.to_str().expect("UTF-8")];
        let output = platform.cluster.psql("production", &arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("queries")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["books.sql", "counts.sql", "gaps.sql", "trades.sql"]);
    assert_eq!(run("books.sql"), "");
    assert_eq!(run("counts.sql"), "");
    assert!(run("trades.sql").starts_with("exact|240|240|100.000|"));

    let begin = platform.begin;
    platform.cluster.sql(
        "production",
        &format!(
            "DELETE FROM orderbook_deltas WHERE ticker = 'KXA-1' AND exchange_ts = {}; \
             UPDATE coverage SET covered_to = {}, ended_by = 'gap' \
             WHERE ticker = 'KXA-2' AND ended_by = 'continues'",
            begin + 100 * SECOND,
            begin + 297 * SECOND
        ),
    );
    assert_eq!(run("books.sql").lines().count(), 1, "{}", run("books.sql"));
    let counts = run("counts.sql");
    assert!(counts.contains("orderbook_deltas|"), "{counts}");
    let gaps = run("gaps.sql");
    assert!(gaps.contains("orderbook_delta|KXA-2|") && gaps.contains("|3.000001|gap|"), "{gaps}");
}
