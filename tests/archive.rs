//! The archive as a user has it: written by the executable, killed at every step of it, over a server of
//! S3 on its worst day, and read by engines that others wrote.
//!
//! What is Python's lives where `.ci/install test` puts it. KALSHI_ARCHIVE_ENGINES names the engines
//! that read (duckdb,pyarrow by default; `make check-archive` has spark, clickhouse and iceberg too),
//! and KALSHI_ARCHIVE_ROWS how many changes a generated day has (there 10 million).

#![expect(clippy::indexing_slicing, reason = "a test says what must hold")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::{Value, json};
use support::{
    Cluster, Exchange, KALSHI, Process, capture, deduplicator_file, free_port, gatherer_file, get,
    migrate, wait_for,
};

const LOGS: [&str; 6] = [
    "trades",
    "orderbook_deltas",
    "orderbook_snapshots",
    "tickers",
    "market_lifecycle",
    "coverage",
];

/// Columns whose sums are compared, by table.
const SUMS: [(&str, &[&str]); 6] = [
    ("trades", &["exchange_ts", "received_at", "price", "no_price", "size", "log_seq"]),
    (
        "orderbook_deltas",
        &[
            "exchange_ts",
            "received_at",
            "price",
            "size_delta",
            "occurrence",
            "gatherer_id",
            "log_seq",
        ],
    ),
    ("orderbook_snapshots", &["anchor_ts", "received_at", "seq", "log_seq"]),
    ("tickers", &["exchange_ts", "last_price", "yes_bid", "volume", "dollar_volume", "log_seq"]),
    ("market_lifecycle", &["received_at", "log_seq"]),
    ("coverage", &["covered_from", "first_exchange_ts", "records", "log_seq"]),
];

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is UTF-8")
}

/// Python with what the tests need.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    let python = cache.unwrap_or_else(home).join("kalshi-archive/venv/bin/python");
    assert!(python.exists(), "{} is missing: run .ci/install test", python.display());
    python
}

/// A program of tests/archive, or of Python's, that serves until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// The S3 server, with a bucket.
    fn s3() -> Self {
        let port = free_port();
        let child = Command::new(python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start moto");
        let server = Self { child, port };
        wait_for("moto", || (!get(&server.address(), "/moto-api/").is_empty()).then_some(()));
        support::request(&server.address(), "PUT", "/bucket", "");
        server
    }

    /// A proxy before it that does what a bad day does.
    fn storm(upstream: u16, faults: &[&str], log: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/storm.py");
        let mut child = Command::new(python())
            .arg(script)
            .args([&upstream.to_string(), "7"])
            .args(faults)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the proxy");
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("its first line");
        let port = line.trim().parse().expect("a port");
        let mut log = fs::File::create(log).expect("a log");
        std::thread::spawn(move || std::io::copy(&mut lines, &mut log));
        Self { child, port }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A production with rows, and a file that says where to archive it.
struct Production {
    root: tempfile::TempDir,
    cluster: Cluster,
    file: PathBuf,
}

impl Production {
    fn empty() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        for database in ["g1", "production"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
        }
        let file = deduplicator_file(
            root.path(),
            "dedup",
            &cluster,
            &[("gatherer-1", "g1")],
            "production",
        );
        migrate(&file);
        Self { root, cluster, file }
    }

    /// With so many generated changes over some days and markets.
    fn generated(rows: i64) -> Self {
        let it = Self::empty();
        it.cluster.sql("production", "CREATE TABLE orderbook_deltas_all PARTITION OF orderbook_deltas FOR VALUES FROM (MINVALUE) TO (MAXVALUE)");
        it.append(rows);
        it
    }

    fn append(&self, rows: i64) {
        let head = self.number("SELECT head FROM logs WHERE name = 'orderbook_deltas'");
        self.cluster.sql(
            "production",
            &format!(
                "INSERT INTO orderbook_deltas SELECT n, t, t + 4000 + n % 997, 'KX-' || n % 40, n % 3 = 0, \
                   10000 * (n % 97), 100 * (n % 19 - 9), 1, 1 + n % 3 \
                 FROM generate_series({head} + 1, {head} + {rows}) n, \
                   LATERAL (SELECT 1786000000000000 + n::bigint * 20000000 AS t) t; \
                 UPDATE logs SET head = {head} + {rows} WHERE name = 'orderbook_deltas'"
            ),
        );
    }

    fn number(&self, query: &str) -> i64 {
        self.cluster.number("production", query)
    }

    /// A configuration with an archive at a place.
    fn at(&self, name: &str, url: &str, more: &str) -> PathBuf {
        let database = self.cluster.target("production", "exporter");
        let mut config = fs::read_to_string(&self.file).expect("the configuration");
        config.push_str(&format!(
            "archive: {{ url: '{url}', max_age: 200ms, memory: 1MiB, compression_level: 3, {more} \
             database: {database} }}\n"
        ));
        let path = self.root.path().join(format!("{name}.yaml"));
        fs::write(&path, config).expect("write a configuration");
        path
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("archive")
    }

    fn archiver(&self, file: &Path) -> Process {
        let log = self.root.path().join("archiver.log");
        Process::start(&["dedup", "--only", "archive", "--config", text(file)], log)
    }

    /// Waits until everything is archived.
    fn is_archived(&self) {
        let sql = "SELECT count(*) FROM logs l JOIN consumers c ON c.table_name = l.name \
                   AND c.name = 'exporter' WHERE c.position = l.head";
        wait_for("the archive", || (self.number(sql) == 6).then_some(()));
    }

    /// What verification says, and its exit code.
    fn verify(&self, file: &Path) -> (Value, Option<i32>) {
        let output = Command::new(KALSHI)
            .args(["archive", "verify", "--format", "json", "--config", text(file)])
            .output()
            .expect("run verify");
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
        (report, output.status.code())
    }

    fn holds(&self, file: &Path) -> Value {
        let (report, code) = self.verify(file);
        assert_eq!((&report["ok"], code), (&json!(true), Some(0)), "{report:#}");
        report
    }
}

/// Every row's place in the log, of all parts that a reader of the folder sees.
fn listed(archive: &Path, table: &str) -> Vec<i64> {
    let mut seqs = Vec::new();
    let Ok(days) = fs::read_dir(archive.join("v1").join(table)) else { return seqs };
    for day in days.flatten().filter(|day| day.file_name().to_string_lossy().starts_with("dt=")) {
        for part in fs::read_dir(day.path()).expect("a day").flatten() {
            if part.path().extension().is_none_or(|extension| extension != "parquet") {
                continue;
            }
            let file = fs::File::open(part.path()).expect("a part");
            let reader = SerializedFileReader::new(file).expect("Parquet");
            let schema = reader.metadata().file_metadata().schema_descr();
            let at = (0..schema.num_columns()).find(|at| schema.column(*at).name() == "log_seq");
            let at = at.expect("a place in the log");
            for row in reader.get_row_iter(None).expect("rows") {
                seqs.push(row.expect("a row").get_long(at).expect("a number"));
            }
        }
    }
    seqs.sort_unstable();
    seqs
}

#[test]
fn killed_at_each_step_it_neither_loses_nor_doubles_a_row() {
    let production = Production::generated(40_000);
    let archive = production.directory();
    let url = format!("file://{}", archive.display());
    let file = production.at("d", &url, "compact: false,");
    let mut rows = 40_000;
    for (point, times) in [
        ("archive.planned", "return"),
        ("archive.uploaded", "return"),
        ("archive.uploaded", "2*off->return"),
        ("archive.done", "return"),
        ("archive.manifested", "return"),
        ("archive.manifested", "1*off->return"),
        ("archive.listed", "1*off->return"),
        ("archive.moved", "return"),
    ] {
        let log = production.root.path().join("killed.log");
        let arguments = ["dedup", "--only", "archive", "--config", text(&file)];
        let failpoints = format!("FAILPOINTS={point}={times}");
        let mut killed = Process::start_in(&["env", &failpoints], &arguments, log);
        let status = killed.ended();
        assert!(
            !status.success() && status.code().is_none(),
            "{point}: {status}: {}",
            killed.log()
        );
        // What a reader of folders sees at any moment is each row once, at most.
        let seen = listed(&archive, "orderbook_deltas");
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{point}: a row is there twice");
        // Rows come on while nobody archives, so that a repetition could choose another span.
        production.append(1_000);
        rows += 1_000;
    }
    let mut archiver = production.archiver(&file);
    production.is_archived();
    assert!(archiver.stop().success(), "{}", archiver.log());
    let report = production.holds(&file);
    assert_eq!(report["tables"][1]["rows"], rows, "{report:#}");
    let seen = listed(&archive, "orderbook_deltas");
    assert_eq!(seen, (1..=rows).collect::<Vec<i64>>());

    // Days into larger parts: killed before the manifest, and then for good.
    let compact = ["archive", "compact", "--config", text(&file)];
    for point in ["archive.compacted", "archive.multipart"] {
        let log = production.root.path().join("killed.log");
        let failpoints = format!("FAILPOINTS={point}=return");
        let status = Process::start_in(&["env", &failpoints], &compact, log).ended();
        assert!(!status.success(), "{point}: {status}");
        production.holds(&file);
    }
    let status = Command::new(KALSHI).args(compact).stdout(Stdio::null()).status();
    assert!(status.expect("run compact").success());
    let compacted = production.holds(&file);
    let parts = |report: &Value| report["tables"][1]["parts"].as_u64().expect("a number");
    assert!(parts(&compacted) < parts(&report), "{compacted:#}");
    assert_eq!(compacted["tables"][1]["rows"], rows);
    assert_eq!(listed(&archive, "orderbook_deltas").len(), seen.len());
}

#[test]
fn the_second_archiver_stops_and_says_who_is_the_first() {
    let production = Production::generated(1_000);
    let file = production.at("d", &format!("file://{}", production.directory().display()), "");
    let mut first = production.archiver(&file);
    production.is_archived();
    let log = production.root.path().join("second.log");
    let second = fs::read_to_string(&file).expect("the configuration");
    // The pages of the first are taken.
    let (health, metrics) = (free_port(), free_port());
    let lines = second.lines().map(|line| match line.starts_with("server:") {
        true => {
            format!("server: {{ health: '127.0.0.1:{health}', metrics: '127.0.0.1:{metrics}' }}\n")
        }
        false => format!("{line}\n"),
    });
    let other = production.root.path().join("second.yaml");
    fs::write(&other, lines.collect::<String>()).expect("write a configuration");
    let mut second = Process::start(&["dedup", "--only", "archive", "--config", text(&other)], log);
    assert_eq!(second.ended().code(), Some(75), "{}", second.log());
    assert!(second.log().contains("is being archived by kalshi archive"), "{}", second.log());
    assert!(first.stop().success());
    // Without a section there is nothing to run.
    let status = Command::new(KALSHI)
        .args(["dedup", "--only", "archive", "--config", text(&production.file)])
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.expect("run dedup").code(), Some(64));
}

#[test]
fn a_storm_at_the_server_of_s3_costs_time_and_nothing_else() {
    let production = Production::generated(30_000);
    let s3 = Server::s3();
    let log = production.root.path().join("storm.log");
    let faults = ["slowdown", "error", "corrupt", "forget", "cut"];
    let storm = Server::storm(s3.port, &faults, &log);
    let keys = "compact: false, access_key_id: test, secret_access_key: test,";
    let place = |name: &str, port: u16| {
        let more = format!("endpoint: 'http://127.0.0.1:{port}', {keys}");
        production.at(name, "s3://bucket/some/where", &more)
    };
    let mut archiver = production.archiver(&place("storm", storm.port));
    for _ in 0..3 {
        production.is_archived();
        production.append(2_000);
    }
    production.is_archived();
    assert!(archiver.stop().success(), "{}", archiver.log());
    let happened = fs::read_to_string(&log).expect("what happened");
    for fault in faults {
        let found = happened.lines().any(|line| line.starts_with(fault));
        assert!(found, "no {fault} happened:\n{happened}");
    }
    let calm = place("calm", s3.port);
    let report = production.holds(&calm);
    assert_eq!(report["tables"][1]["rows"], 36_000);
    // A large upload that is cut in its middle shows nothing, and can be done again.
    let compact = ["archive", "compact", "--config", text(&calm)];
    let killed = production.root.path().join("killed.log");
    let way = ["env", "FAILPOINTS=archive.multipart=return"];
    assert!(!Process::start_in(&way, &compact, killed).ended().success());
    production.holds(&calm);
    let stormy = place("storm", storm.port);
    let compact = ["archive", "compact", "--config", text(&stormy)];
    // An answer that was lost at the end of an upload is an error to this command; the next succeeds.
    wait_for("a compaction in the storm", || {
        let output = Command::new(KALSHI).args(compact).output().expect("run compact");
        output.status.success().then_some(())
    });
    assert_eq!(production.holds(&calm)["tables"][1]["rows"], 36_000);
    read_by(&production, &calm, "s3://bucket/some/where", "pyarrow", Some(s3.port), 5);
}

/// What production says: counts, sums and some books.
fn facts(production: &Production, books: i64) -> Value {
    let mut tables = BTreeMap::new();
    for (table, columns) in SUMS {
        let sums = columns.iter().map(|column| {
            let is_time = ["_ts", "_at", "_from"].iter().any(|end| column.ends_with(end));
            let of = if is_time { format!("{column} % 1000000") } else { (*column).to_owned() };
            format!("'{column}', coalesce(sum({of}), 0)")
        });
        let sums = sums.collect::<Vec<_>>().join(", ");
        let query = format!(
            "SELECT json_build_object('count', count(*), 'sums', json_build_object({sums})) FROM {table}"
        );
        let found = production.cluster.sql("production", &query);
        let found: Value = serde_json::from_str(&found).expect("JSON");
        // What has no row has no folder either.
        if found["count"] != 0 {
            tables.insert(table, found);
        }
    }
    let query = format!(
        "SELECT coalesce(json_agg(json_build_object('ticker', ticker, 'at', at, 'levels', levels)), '[]') \
         FROM (SELECT ticker, ts + (last - ts) * n / {books} AS at FROM ( \
                 SELECT s.ticker, min(s.anchor_ts) AS ts, \
                        (SELECT max(exchange_ts) FROM orderbook_deltas d WHERE d.ticker = s.ticker) AS last \
                 FROM orderbook_snapshots s WHERE anchor_ts IS NOT NULL GROUP BY 1) m, \
               generate_series(0, {books}) n) q, \
             LATERAL (SELECT coalesce(json_agg(json_build_array(side, price, size)), '[]') AS levels \
                      FROM book_at(ticker, moment(at))) b"
    );
    let books = production.cluster.sql("production", &query);
    json!({"tables": tables, "books": serde_json::from_str::<Value>(&books).expect("JSON")})
}

/// Who reads.
fn engines() -> Vec<String> {
    let named = std::env::var("KALSHI_ARCHIVE_ENGINES").unwrap_or_default();
    let named = if named.is_empty() { "duckdb,pyarrow" } else { &named };
    named.split(',').map(str::to_owned).collect()
}

/// Has an engine compare the archive with production.
fn read_by(
    production: &Production,
    file: &Path,
    url: &str,
    engine: &str,
    endpoint: Option<u16>,
    books: i64,
) {
    let root = production.root.path();
    let (known, ddl) = (root.join("facts.json"), root.join("ddl.sql"));
    fs::write(&known, facts(production, books).to_string()).expect("write facts");
    // The others need none.
    let name = if ["spark", "clickhouse"].contains(&engine) { engine } else { "duckdb" };
    let script = Command::new(KALSHI)
        .args(["archive", "ddl", "--engine", name, "--config", text(file)])
        .output()
        .expect("run ddl");
    assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
    fs::write(&ddl, script.stdout).expect("write DDL");
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/check.py");
    let mut command = Command::new(python());
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(root);
    command.arg(check).args(["--url", url, "--facts", text(&known), "--engine", engine]);
    command.args(["--ddl", text(&ddl)]);
    if let Some(port) = endpoint {
        command.args(["--endpoint", &format!("http://127.0.0.1:{port}")]);
    }
    let output = command.output().expect("run Python");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_recorded_windows_are_the_same_in_every_engine() {
    let files = capture::windows();
    let production = Production::empty();
    let root = production.root.path();
    let url = format!("file://{}", production.directory().display());
    let file = production.at("with-archive", &url, "");
    let mut arguments = vec!["--replay"];
    arguments.extend(files.iter().map(|file| text(file)));
    arguments.extend(["--speed", "20"]);
    let exchange = Exchange::start(&arguments);
    let gatherer = gatherer_file(root, "g1", "gatherer-1", &exchange, &production.cluster, "g1");
    migrate(&gatherer.path);
    let log = root.join("g1.log");
    let mut gather = Process::start(&["gather", "--config", text(&gatherer.path)], log);
    let mut merge = Process::start(&["dedup", "--config", text(&file)], root.join("dedup.log"));
    wait_for("the end of the replay", || (exchange.status()["finished"] == true).then_some(()));
    let head = |database: &str, log: &str| {
        let query = format!("SELECT head FROM logs WHERE name = '{log}'");
        production.cluster.number(database, &query)
    };
    // Its end ends the stretches of coverage.
    assert!(gather.stop().success(), "{}", gather.log());
    for log in LOGS {
        let all = head("g1", log);
        wait_for(&format!("{log} in production"), || {
            (head("production", log) >= all).then_some(())
        });
    }
    production.is_archived();
    let health = get(&support::health_address(&file), "/health");
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!(health["components"]["archive"]["status"], "working", "{health:#}");
    assert!(merge.stop().success(), "{}", merge.log());
    let report = production.holds(&file);
    assert!(report["books_compared"].as_u64() > Some(10), "{report:#}");
    assert!(report["tables"][1]["rows"].as_u64() > Some(100_000), "{report:#}");

    for engine in engines() {
        read_by(&production, &file, &url, &engine, None, 6);
    }
    // The same from large parts.
    let compact = ["archive", "compact", "--config", text(&file)];
    let status = Command::new(KALSHI).args(compact).stdout(Stdio::null()).status();
    assert!(status.expect("run compact").success());
    production.holds(&file);
    for engine in engines() {
        read_by(&production, &file, &url, &engine, None, 3);
    }
}

/// Changes of four hundred markets between two midnights, each market's from an empty book on.
#[test]
fn a_generated_day_is_the_same_in_every_engine() {
    let rows = std::env::var("KALSHI_ARCHIVE_ROWS").unwrap_or_else(|_| "200000".to_owned());
    let rows: i64 = rows.parse().expect("KALSHI_ARCHIVE_ROWS is a number");
    let production = Production::empty();
    for log in ["orderbook_deltas", "orderbook_snapshots"] {
        let part = format!(
            "CREATE TABLE {log}_all PARTITION OF {log} FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
        );
        production.cluster.sql("production", &part);
    }
    production.cluster.sql(
        "production",
        &format!(
            "INSERT INTO orderbook_deltas SELECT n, t, t + 4000 + n * 7919 % 3001, \
               'KXDAY-26AUG06-' || n * 31 % 400, n % 3 = 0, 10000 * (1 + n * 13 % 97), 100 * (1 + n % 19), 1, 1 + n % 3 \
             FROM generate_series(1, {rows}::bigint) n, \
               LATERAL (SELECT 1785974400000000 + n::bigint * 86399000000 / {rows} AS t) t; \
             INSERT INTO orderbook_snapshots SELECT n, 1785974400000000, 1785974400000000, \
               'KXDAY-26AUG06-' || n - 1, 'ws', '{{}}', '{{}}', '{{}}', '{{}}', 1, 1, n, 1 FROM generate_series(1, 400) n; \
             UPDATE logs SET head = CASE name WHEN 'orderbook_deltas' THEN {rows} ELSE 400 END \
             WHERE name IN ('orderbook_deltas', 'orderbook_snapshots')"
        ),
    );
    let url = format!("file://{}", production.directory().display());
    let file = production.at("day", &url, "");
    // Parts as large as they usually are.
    let config = fs::read_to_string(&file).expect("a configuration");
    fs::write(&file, config.replace("memory: 1MiB", "memory: 256MiB")).expect("write it");
    let mut archiver = production.archiver(&file);
    let mut position = 0;
    while position < rows {
        position = wait_for("the archive to go on", || {
            let sql = "SELECT coalesce(max(position), 0) FROM consumers \
                       WHERE table_name = 'orderbook_deltas'";
            Some(production.number(sql)).filter(|now| *now > position)
        });
    }
    production.is_archived();
    assert!(archiver.stop().success(), "{}", archiver.log());
    production.holds(&file);
    for engine in engines() {
        read_by(&production, &file, &url, &engine, None, 1);
    }
}
