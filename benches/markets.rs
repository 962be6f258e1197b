//! Every series, event and market of an exchange into production, from the start of the deduplicator
//! to the last row, at the requests a second that the exchange's smallest tier allows; then the second
//! complete list, which changes nothing.
//!
//! `make bench-markets`; options `--markets N`, `--requests N` (a second).

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a benchmark")]

#[path = "support/mod.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{
    Cluster, Exchange, Process, deduplicator_file, gatherer_file, get, health_address, memory,
    migrate, with_markets,
};

/// What the first load may take.
const LOAD_SECONDS_MAX: f64 = 180.0;
/// What the deduplicator may have in memory meanwhile. Its logs are idle.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Read tokens that a request costs.
const TOKENS_PER_REQUEST: u32 = 10;
/// When this is over, the benchmark has failed.
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    let markets: u64 = figures::option("--markets", 425_000);
    let requests_per_second: u32 = figures::option("--requests", 20);
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_with(root.path(), "-c shared_buffers=256MB -c max_wal_size=8GB");
    for database in ["g1", "production"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    let began = Instant::now();
    let exchange =
        Exchange::start(&["--markets", &markets.to_string(), "--rate", "1", "--seed", "1"]);
    println!("exchange with {markets} markets ready after {:.1} s", began.elapsed().as_secs_f64());
    let tokens = requests_per_second * TOKENS_PER_REQUEST;
    exchange.control(&format!("/limits?read_tokens={tokens}"), "");
    let gatherer = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    let file =
        deduplicator_file(root.path(), "dedup", &cluster, &[("gatherer-1", "g1")], "production");
    with_markets(&file, &exchange, "refresh_interval: 1h");
    migrate(&gatherer.path);
    migrate(&file);
    let health = health_address(&file);
    let path = file.to_str().expect("UTF-8");

    let began = Instant::now();
    let mut dedup = Process::start(&["dedup", "--config", path], root.path().join("dedup.log"));
    let number = |query: &str| cluster.number("production", query);
    let wait = |what: &str, query: &str| {
        let mut said = Instant::now();
        while number(query) == 0 {
            assert!(began.elapsed() < PATIENCE, "not {what} after {PATIENCE:?}");
            std::thread::park_timeout(Duration::from_millis(200));
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                println!(
                    "{:>5.1} s: {} MiB, {}",
                    began.elapsed().as_secs_f64(),
                    memory(dedup.id(), "VmRSS") >> 20,
                    get(&health, "/health")
                );
            }
        }
        began.elapsed().as_secs_f64()
    };
    let seconds = wait(
        "loaded",
        "SELECT CASE WHEN bool_and(full_ended IS NOT NULL) THEN 1 ELSE 0 END FROM market_sync",
    );
    let at_load = memory(dedup.id(), "VmHWM");
    let confirmed = wait(
        "confirmed",
        "SELECT CASE WHEN bool_and(NOT to_confirm) THEN 1 ELSE 0 END FROM market_sync",
    );
    let rows = number(
        "SELECT (SELECT count(*) FROM markets) + (SELECT count(*) FROM events) \
         + (SELECT count(*) FROM series)",
    );
    let past = number("SELECT count(*) FROM markets_past");
    // Both passes asked for the same pages.
    let pages = number(
        "SELECT sum(CASE table_name WHEN 'markets' THEN (rows_listed + 999) / 1000 \
         WHEN 'events' THEN (rows_listed + 199) / 200 ELSE 1 END)::bigint FROM market_sync",
    );
    let (peak, cpu) = (memory(dedup.id(), "VmHWM"), figures::cpu(dedup.id()));
    assert!(dedup.stop().success(), "{}", dedup.log());
    println!(
        "{rows} rows after {seconds:.1} s ({:.0} a second, {pages} requests, {:.1} a second); \
         confirmed {:.1} s later, {past} versions written by it; {} MiB at most",
        rows as f64 / seconds,
        pages as f64 / seconds,
        confirmed - seconds,
        peak >> 20
    );
    println!(
        "{}",
        serde_json::json!({
            "bench": "markets",
            "markets": markets,
            "rows": rows,
            "seconds": seconds,
            "limit_seconds": LOAD_SECONDS_MAX,
            "ratio": seconds / LOAD_SECONDS_MAX,
            "requests": pages,
            "requests_per_second": pages as f64 / seconds,
            "limit_requests_per_second": requests_per_second,
            "rows_per_second": rows as f64 / seconds,
            "confirm_seconds": confirmed - seconds,
            "versions_of_confirmation": past,
            "cpu_seconds": cpu,
            "resident_bytes_max_loading": at_load,
            "resident_bytes_max": peak,
            "limit_bytes": MEMORY_BYTES_MAX,
        })
    );
    if seconds > LOAD_SECONDS_MAX || peak > MEMORY_BYTES_MAX {
        eprintln!("more than is allowed");
        std::process::exit(1);
    }
}
