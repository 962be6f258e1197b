//! How many changes a second come out of production into the archive, and in how many bytes each,
//! beside DuckDB's own `COPY ... TO parquet` of the same rows in the same run.
//!
//! By default the rows are those of the recorded windows, brought into production by replaying them, each
//! once: copies would be found by zstd and make every change look smaller than it is. They are few, so
//! the rate is that of `--rows N`, generated ones over some hundred markets. `make bench-archive`.

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a benchmark")]

#[path = "support/mod.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::{
    Cluster, Exchange, Process, capture, deduplicator_file, gatherer_file, migrate, wait_for,
};

/// DuckDB reads production's rows into itself, so that its figure is the writing alone.
const DUCKDB: &str = "
import duckdb, os, sys, time
source, folder = sys.argv[1:]
db = duckdb.connect()
db.execute('SET threads = 1')
db.execute('SET enable_progress_bar = false')
db.execute(f'''CREATE TABLE d AS SELECT column0 AS ticker, make_timestamptz(column1) AS exchange_ts,
  make_timestamptz(column2) AS received_at, column3 = 't' AS side, (column4::DECIMAL(18,0) / 1000000)::DECIMAL(18,6) AS price,
  (column5::DECIMAL(18,0) / 100)::DECIMAL(18,2) AS size_delta, column6::INTEGER AS occurrence, column7::INTEGER AS gatherer_id,
  column8 AS log_seq FROM read_csv('{source}', header = false, delim = ',',
  columns = {{'column0': 'VARCHAR', 'column1': 'BIGINT', 'column2': 'BIGINT', 'column3': 'VARCHAR', 'column4': 'BIGINT',
  'column5': 'BIGINT', 'column6': 'BIGINT', 'column7': 'BIGINT', 'column8': 'BIGINT'}})''')
for name, order, version in (('v1', '', 'V1'), ('v2', '', 'V2'), ('sorted', 'ORDER BY ticker, exchange_ts, log_seq', 'V2')):
    path = f'{folder}/{name}.parquet'
    began = time.monotonic()
    db.execute(f\"COPY (SELECT * FROM d {order}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, PARQUET_VERSION {version})\")
    print(name, time.monotonic() - began, os.path.getsize(path))
";

fn main() {
    let rows: i64 = figures::option("--rows", 0);
    let level: u32 = figures::option("--level", 3);
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_with(
        root.path(),
        "-c shared_buffers=512MB -c max_wal_size=16GB -c checkpoint_timeout=30min",
    );
    for database in ["g1", "production"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    let file =
        deduplicator_file(root.path(), "d1", &cluster, &[("gatherer-1", "g1")], "production");
    migrate(&file);
    let source = if rows > 0 {
        generate(&cluster, rows);
        "generated"
    } else {
        replay(&cluster, root.path(), &file);
        "recorded windows"
    };
    let count = |query: &str| cluster.number("production", query);
    let rows = count("SELECT head FROM logs WHERE name = 'orderbook_deltas'");
    // Nothing but the changes is measured.
    cluster.sql("production", "UPDATE logs SET head = 0 WHERE name <> 'orderbook_deltas'");
    cluster.sql("production", "VACUUM ANALYZE orderbook_deltas");
    cluster.sql("postgres", "CHECKPOINT");

    let archive = root.path().join("archive");
    let mut config = fs::read_to_string(&file).expect("the configuration");
    config.push_str(&format!(
        "archive: {{ url: 'file://{}', max_age: 100ms, compact: false, compression_level: {level}, \
         database: {} }}\n",
        archive.display(),
        cluster.target("production", "exporter")
    ));
    fs::write(&file, config).expect("write the configuration");
    let path = file.to_str().expect("UTF-8");
    let postgres_before = cluster.cpu_seconds();
    let began = Instant::now();
    let log = root.path().join("archive.log");
    let mut archiver = Process::start(&["dedup", "--only", "archive", "--config", path], log);
    let sql =
        "SELECT coalesce(max(position), 0) FROM consumers WHERE table_name = 'orderbook_deltas'";
    wait_for("the archive", || (count(sql) == rows).then_some(()));
    let seconds = began.elapsed().as_secs_f64();
    let cpu = figures::cpu(archiver.id());
    let postgres = cluster.cpu_seconds() - postgres_before;
    let memory = support::memory(archiver.id(), "VmHWM");
    assert!(archiver.stop().success(), "{}", archiver.log());
    let bytes = size(&archive.join("v1/orderbook_deltas"));

    let theirs = duckdb(&cluster, root.path());
    let rate = rows as f64 / seconds;
    println!("{rows} changes ({source}), zstd level {level}");
    println!(
        "kalshi: {rate:.0} rows/s, {:.0} a core, {:.2} bytes a change, PostgreSQL {:.2} cores, {} MiB",
        rows as f64 / cpu,
        bytes as f64 / rows as f64,
        postgres / seconds,
        memory >> 20
    );
    let mut duckdb = serde_json::Map::new();
    for (name, (took, size)) in &theirs {
        let (rate, each) = (rows as f64 / took, *size as f64 / rows as f64);
        println!("DuckDB {name}: {rate:.0} rows/s from its own memory, {each:.2} bytes a change");
        let found = serde_json::json!({"rows_per_second": rate.round(), "bytes_per_row": each});
        duckdb.insert(name.clone(), found);
    }
    println!(
        "{}",
        serde_json::json!({
            "bench": "archive", "source": source, "rows": rows, "level": level,
            "rows_per_second": rate.round(),
            "rows_per_second_a_core": (rows as f64 / cpu).round(),
            "bytes_per_row": bytes as f64 / rows as f64,
            "memory_bytes": memory,
            "duckdb": duckdb,
        })
    );
}

fn size(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sum += size(&path);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            sum += entry.metadata().expect("a part").len();
        }
    }
    sum
}

fn generate(cluster: &Cluster, rows: i64) {
    cluster.sql("production", "CREATE TABLE orderbook_deltas_all PARTITION OF orderbook_deltas FOR VALUES FROM (MINVALUE) TO (MAXVALUE)");
    cluster.sql(
        "production",
        &format!(
            "INSERT INTO orderbook_deltas SELECT n, t, t + 4000 + (random() * 3000)::int, \
               'KXBENCH-26AUG05-' || (random() * 400)::int, random() < 0.5, 10000 * (1 + (random() * 98)::int), \
               100 * ((random() * 500)::int - 250), 1, 1 + n % 3 \
             FROM generate_series(1, {rows}) n, LATERAL (SELECT 1786000000000000 + n::bigint * 400 AS t) t; \
             UPDATE logs SET head = {rows} WHERE name = 'orderbook_deltas'"
        ),
    );
}

/// Records the windows as at any exchange.
fn replay(cluster: &Cluster, root: &Path, file: &Path) {
    let files: Vec<String> =
        capture::windows().iter().map(|file| file.display().to_string()).collect();
    let mut arguments = vec!["--replay"];
    arguments.extend(files.iter().map(String::as_str));
    arguments.extend(["--speed", "60"]);
    let exchange = Exchange::start(&arguments);
    let gatherer = gatherer_file(root, "g1", "gatherer-1", &exchange, cluster, "g1");
    migrate(&gatherer.path);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut gather =
        Process::start(&["gather", "--config", &path(&gatherer.path)], root.join("g1.log"));
    let mut merge = Process::start(&["dedup", "--config", &path(file)], root.join("merge.log"));
    wait_for("the end of the replay", || (exchange.status()["finished"] == true).then_some(()));
    assert!(gather.stop().success(), "{}", gather.log());
    let head = |database: &str| {
        cluster.number(database, "SELECT head FROM logs WHERE name = 'orderbook_deltas'")
    };
    let all = head("g1");
    wait_for("the windows in production", || (head("production") >= all).then_some(()));
    assert!(merge.stop().success(), "{}", merge.log());
}

/// Seconds and bytes of each way to write them.
fn duckdb(cluster: &Cluster, root: &Path) -> Vec<(String, (f64, u64))> {
    let source = root.join("deltas.csv");
    cluster.sql(
        "production",
        &format!(
            "\\copy (SELECT ticker, exchange_ts, received_at, side, price, size_delta, occurrence, gatherer_id, \
             log_seq FROM orderbook_deltas ORDER BY log_seq) TO '{}' (FORMAT csv)",
            source.display()
        ),
    );
    let home = std::env::var_os("HOME").map(PathBuf::from).expect("a home");
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let output = Command::new(cache.join("kalshi-archive/venv/bin/python"))
        .args(["-c", DUCKDB])
        .arg(&source)
        .arg(root)
        .output()
        .expect("run Python: .ci/install test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default().to_owned();
        let name = next();
        (name, (next().parse().expect("seconds"), next().parse().expect("bytes")))
    });
    lines.collect()
}
