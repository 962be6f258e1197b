//! How many changes a second `kalshi verify books` replays out of PostgreSQL's COPY, for each core that it
//! takes itself, and its memory with as many markets as the exchange has.
//!
//! `make bench-verify`; options `--rows N`, `--markets N` (of the run for memory).

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a benchmark")]

#[path = "support/mod.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Cluster, KALSHI, deduplicator_file, memory};

/// Changes a second and core.
const RATE_MIN: f64 = 1e6;
/// Resident memory at most, in bytes, whatever the number of markets.
const MEMORY_MAX: u64 = 128 << 20;
/// Markets of the run that measures the rate.
const BUSY: i64 = 2_000;

/// What a run took.
struct Run {
    deltas: u64,
    markets: u64,
    seconds: f64,
    cpu: f64,
    resident: u64,
}

fn main() {
    let rows: i64 = figures::option("--rows", 5_000_000);
    let markets: i64 = figures::option("--markets", 425_000);
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_with(
        root.path(),
        "-c shared_buffers=1GB -c max_wal_size=16GB -c checkpoint_timeout=30min",
    );
    let rate = measure(&cluster, root.path(), "busy", rows, BUSY);
    let wide = measure(&cluster, root.path(), "wide", markets * 6, markets);
    let per_core = rate.deltas as f64 / rate.cpu;
    let wall = rate.deltas as f64 / rate.seconds;
    println!(
        "{} changes of {} markets in {:.1} s: {per_core:.0} a second and core of ours, {wall:.0} a second \
         beside PostgreSQL on this machine",
        rate.deltas, rate.markets, rate.seconds
    );
    println!(
        "{} markets with {} changes in {:.1} s; resident {} MiB at most, with {} markets {} MiB",
        wide.markets,
        wide.deltas,
        wide.seconds,
        wide.resident >> 20,
        rate.markets,
        rate.resident >> 20
    );
    let (ratio, memory_ratio) = (per_core / RATE_MIN, wide.resident as f64 / MEMORY_MAX as f64);
    println!(
        "{}",
        serde_json::json!({
            "bench": "verify",
            "deltas": rate.deltas,
            "deltas_per_second_and_core": per_core,
            "deltas_per_second": wall,
            "limit_deltas_per_second_and_core": RATE_MIN,
            "ratio": ratio,
            "markets": wide.markets,
            "markets_seconds": wide.seconds,
            "resident_max_bytes": wide.resident,
            "limit_resident_bytes": MEMORY_MAX,
            "memory_ratio": memory_ratio,
        })
    );
    if ratio < 1.0 || memory_ratio > 1.0 {
        eprintln!("{ratio:.2} of the rate, {memory_ratio:.2} of the memory: one is over its limit");
        std::process::exit(1);
    }
}

/// Makes a production with so many changes, and replays it.
fn measure(cluster: &Cluster, root: &Path, name: &str, rows: i64, markets: i64) -> Run {
    cluster.create_migrated(root, name, "production");
    fill(cluster, name, rows, markets);
    // Its gatherer is not there; only production is replayed.
    let file = deduplicator_file(root, name, cluster, &[("gatherer-1", "nowhere")], name);
    let before = children_seconds();
    let began = Instant::now();
    let out = root.join(format!("{name}.json"));
    let mut child = Command::new(KALSHI)
        .args(["verify", "books", "--since", "1d", "--format", "json", "--config"])
        .arg(file)
        .stdout(fs::File::create(&out).expect("make a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("run kalshi verify");
    let resident = watch(&mut child);
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), children_seconds() - before);
    let text = fs::read_to_string(&out).expect("its report");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let check = &report["checks"][0];
    assert_eq!(check["findings_total"], 0, "{check}");
    let replayed = &check["figures"]["production"];
    let number = |key: &str| replayed[key].as_u64().expect("a number");
    assert_eq!(number("deltas"), u64::try_from(rows).expect("rows"), "{replayed}");
    assert_eq!(number("equal"), number("markets"), "{replayed}");
    Run { deltas: number("deltas"), markets: number("markets"), seconds, cpu, resident }
}

/// Waits for the end, and gives the most memory that it had.
fn watch(child: &mut Child) -> u64 {
    let mut most = 0;
    loop {
        most = most.max(memory(child.id(), "VmHWM"));
        // That its gatherer was not asked is an error, and no finding.
        if let Some(status) = child.try_wait().expect("wait for a child") {
            assert_eq!(status.code(), Some(1));
            return most;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// CPU time of the children that this process waited for.
fn children_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("our own figures");
    let (_, behind) = stat.rsplit_once(')').expect("a name");
    let ticks = behind.split_whitespace().skip(13).take(2);
    ticks.map(|text| text.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}

/// Changes that place and take away again at nine levels, between two snapshots of each market.
fn fill(cluster: &Cluster, name: &str, rows: i64, markets: i64) {
    cluster.sql(
        name,
        &format!(
            "CREATE TABLE d PARTITION OF orderbook_deltas DEFAULT; \
             CREATE TABLE s PARTITION OF orderbook_snapshots DEFAULT; \
             INSERT INTO gatherers (name) VALUES ('gatherer-1'); \
             CREATE TEMP TABLE b AS SELECT (extract(epoch FROM now() - interval '2 hours') * 1e6)::bigint AS t; \
             INSERT INTO orderbook_deltas \
             SELECT n, b.t + 1 + n * 700, b.t + n * 700 + 40000, \
                    'KXBENCH-26DEC31E' || lpad((n % {markets})::text, 6, '0') || '-T50', \
                    n / {markets} % 4 < 2, (n / {markets} / 2 % 9 + 1) * 50000 + CASE WHEN n / {markets} % 4 < 2 THEN 0 ELSE 500000 END, \
                    CASE WHEN n / {markets} % 2 = 0 THEN 150 ELSE -150 END, 1, 1 \
             FROM generate_series(0::bigint, {rows} - 1) AS n, b; \
             INSERT INTO orderbook_snapshots \
             SELECT k * {markets} + m + 1, b.t + k * 5000000000 + m, b.t + k * 5000000000, \
                    'KXBENCH-26DEC31E' || lpad(m::text, 6, '0') || '-T50', 'ws', \
                    '{{100000,150000,200000}}', '{{500,600,700}}', '{{800000,900000}}', '{{100,200}}', \
                    1, 1, k * {markets} + m, 1 \
             FROM generate_series(0, 1) AS k, generate_series(0::bigint, {markets} - 1) AS m, b; \
             UPDATE logs SET head = {rows} WHERE name = 'orderbook_deltas'"
        ),
    );
    // Readers along the key need not look into the table once it is known to be visible.
    cluster.sql(name, "VACUUM (ANALYZE) orderbook_deltas");
    cluster.sql(name, "VACUUM (ANALYZE) orderbook_snapshots");
}
