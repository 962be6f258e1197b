//! How many unique changes a second the deduplicator brings into production from three gatherers that
//! hold the same rows, beside PostgreSQL's own binary COPY of those rows into the same table in the
//! same run.
//!
//! Every row is there three times, so two thirds of what is read are copies: that is part of the
//! figure. `make bench-dedup`; options `--rows N`, `--markets N`.

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a benchmark")]

#[path = "support/mod.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Cluster, Process, deduplicator_file, memory, migrate};

/// What the design asks for at least, as a share of COPY.
const RATIO_MIN: f64 = 0.5;
/// Changes of a busy day.
const DAY: f64 = 250e6;
/// Nothing has moved for this long: something is wrong.
const STANDSTILL: Duration = Duration::from_secs(60);

fn main() {
    let rows: i64 = figures::option("--rows", 5_000_000);
    let markets: i64 = figures::option("--markets", 2_000);
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_with(
        root.path(),
        "-c shared_buffers=512MB -c max_wal_size=16GB -c checkpoint_timeout=30min",
    );
    let gatherers =
        [("gatherer-1", "g1"), ("gatherer-2", "g2"), ("gatherer-3", "g3")].map(|(id, database)| {
            cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
            (id, database)
        });
    cluster.sql("postgres", "CREATE DATABASE production");
    let file = deduplicator_file(root.path(), "d1", &cluster, &gatherers, "production");
    migrate(&file);
    for (number, (_, database)) in (1..).zip(gatherers) {
        fill(&cluster, root.path(), database, number, rows, markets);
    }
    cluster.sql("postgres", "CHECKPOINT");

    let path = file.to_str().expect("UTF-8");
    let head =
        || cluster.number("production", "SELECT head FROM logs WHERE name = 'orderbook_deltas'");
    let postgres_before = cluster.cpu_seconds();
    let began = Instant::now();
    let mut dedup = Process::start(&["dedup", "--config", path], root.path().join("dedup.log"));
    let (mut before, mut moved) = (0, Instant::now());
    loop {
        let now = head();
        if now >= rows {
            break;
        }
        if now > before {
            (before, moved) = (now, Instant::now());
        }
        assert!(moved.elapsed() < STANDSTILL, "stands still at {now}: {}", dedup.log());
        // Each look starts a psql: rarely enough that it does not show.
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let took = began.elapsed().as_secs_f64();
    // Every copy has been passed too, or the work is not done.
    let behind = "SELECT count(*) FROM sync_cursors \
                  WHERE table_name = 'orderbook_deltas' AND lag_rows > 0";
    while cluster.number("production", behind) > 0 {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let all = began.elapsed().as_secs_f64();
    let cpu = figures::cpu(dedup.id());
    let threads = figures::cpu_by_thread(dedup.id());
    let postgres_cpu = cluster.cpu_seconds() - postgres_before;
    let resident = memory(dedup.id(), "VmHWM");
    assert!(dedup.stop().success(), "{}", dedup.log());
    let distinct = cluster.number("production", "SELECT count(*) FROM orderbook_deltas");
    assert_eq!(distinct, rows, "each change once");

    let copy_rate = copy(&cluster, root.path(), rows);
    let rate = rows as f64 / all;
    let ratio = rate / copy_rate;
    println!(
        "{rows} unique changes out of {} in {took:.1} s, all copies passed after {all:.1} s; \
              COPY at {copy_rate:.0} rows/s",
        rows * 3
    );
    println!(
        "a day of {:.0} million changes is caught up in {:.0} minutes",
        DAY / 1e6,
        DAY / rate / 60.0
    );
    println!(
        "CPU time of a unique change in us: deduplicator {:.2}, PostgreSQL {:.2}; resident {} MiB at most",
        cpu * 1e6 / rows as f64,
        postgres_cpu * 1e6 / rows as f64,
        resident >> 20
    );
    println!(
        "{}",
        serde_json::json!({
            "bench": "dedup",
            "rows": rows,
            "rows_per_second": rate,
            "limit_rows_per_second": copy_rate,
            "ratio": ratio,
            "ratio_min": RATIO_MIN,
            "day_minutes": DAY / rate / 60.0,
            "resident_max_bytes": resident,
            "dedup_cpu_us_per_change": cpu * 1e6 / rows as f64,
            "postgres_cpu_us_per_change": postgres_cpu * 1e6 / rows as f64,
            "thread_cpu_seconds": threads,
        })
    );
    if ratio < RATIO_MIN {
        eprintln!("{ratio:.2} of COPY is less than {RATIO_MIN}");
        std::process::exit(1);
    }
}

/// Makes a gatherer's database with these rows, as the gatherer would have left it: the same changes
/// in each, received a little apart.
fn fill(cluster: &Cluster, root: &Path, database: &str, number: i64, rows: i64, markets: i64) {
    let file = root.join(format!("{database}.yaml"));
    // Only its database is looked at.
    let text = format!(
        "gatherer_id: gatherer-{number}\napi: {{ rest_url: 'http://127.0.0.1:1', ws_url: \
         'ws://127.0.0.1:1', key_id: x, private_key_file: x }}\ndatabase: {}\nadmin: {{ user: postgres }}\n",
        cluster.target(database, "gatherer")
    );
    fs::write(&file, text).expect("write a configuration");
    migrate(&file);
    cluster.sql(
        database,
        &format!(
            "INSERT INTO orderbook_deltas \
             SELECT n, b.base + n * 50, b.base + n * 50 + 40000 + {number} * 3000, \
                    'KXBENCH-26DEC31E' || lpad((n * 7919 % {markets})::text, 5, '0') || '-T50', \
                    n % 2 = 0, (n * 37 % 99 + 1) * 10000, (n * 13 % 400 - 200) * 100 + 50, 1, \
                    1, 1, n \
             FROM generate_series(1::bigint, {rows}) n, \
                  (SELECT (extract(epoch FROM date_trunc('hour', now())) * 1e6)::bigint \
                          - 3600000000 AS base) b"
        ),
    );
    cluster
        .sql(database, &format!("UPDATE logs SET head = {rows} WHERE name = 'orderbook_deltas'"));
    cluster.sql(database, "ANALYZE orderbook_deltas");
}

/// psql's binary COPY of the rows that production holds into the same table, emptied; rows a second.
fn copy(cluster: &Cluster, root: &Path, rows: i64) -> f64 {
    let file = root.join("rows.bin");
    let file = file.display();
    let all = "SELECT * FROM orderbook_deltas ORDER BY log_seq";
    cluster.sql("production", &format!("\\copy ({all}) TO '{file}' WITH (FORMAT binary)"));
    cluster.sql("production", "TRUNCATE orderbook_deltas");
    cluster.sql("production", "CHECKPOINT");
    let began = Instant::now();
    cluster
        .sql("production", &format!("\\copy orderbook_deltas FROM '{file}' WITH (FORMAT binary)"));
    let took = began.elapsed().as_secs_f64();
    assert_eq!(cluster.number("production", "SELECT count(*) FROM orderbook_deltas"), rows);
    rows as f64 / took
}
