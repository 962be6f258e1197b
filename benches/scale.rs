//! The whole exchange on one gatherer: every market over all sessions, from the start of the process
//! to healthy and to the last book, and the memory that it takes.
//!
//! `make bench-scale`; options `--markets N`, `--sessions N`, `--watch SECONDS` (how long memory is
//! looked at once every book is there).

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a benchmark")]

#[path = "support/mod.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Cluster, Exchange, Process, gatherer_file, get, migrate};

/// What the design allows.
const START_SECONDS_MAX: f64 = 60.0;
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Sessions that are not for order books: 2 each for lifecycle, ticker and trade.
const GLOBAL_SESSIONS: u16 = 6;
/// When this is over, the benchmark has failed.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let markets: u64 = figures::option("--markets", 425_000);
    let sessions: u16 = figures::option("--sessions", 150);
    let rate: u32 = figures::option("--rate", 1_000);
    let watch: u64 = figures::option("--watch", 20);
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_with(root.path(), "-c shared_buffers=256MB -c max_wal_size=8GB");
    cluster.sql("postgres", "CREATE DATABASE g1");
    let began = Instant::now();
    let (markets_text, rate_text) = (markets.to_string(), rate.to_string());
    let exchange =
        Exchange::start(&["--markets", &markets_text, "--rate", &rate_text, "--seed", "1"]);
    println!("exchange with {markets} markets ready after {:.1} s", began.elapsed().as_secs_f64());
    let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    let text = fs::read_to_string(&file.path).expect("the configuration");
    let books = sessions.saturating_sub(GLOBAL_SESSIONS);
    let text = text.replace("orderbook: 2,", &format!("orderbook: {books},"));
    fs::write(&file.path, text).expect("write the configuration");
    migrate(&file.path);
    let path = file.path.to_str().expect("UTF-8");

    let began = Instant::now();
    let mut gatherer = Process::start(&["gather", "--config", path], root.path().join("g1.log"));
    let mut healthy_after = None;
    let mut covered_after = None;
    let mut said = Instant::now();
    let mut seen = Value::Null;
    while healthy_after.is_none() || covered_after.is_none() {
        assert!(began.elapsed() < PATIENCE, "not there after {PATIENCE:?}: {seen}");
        std::thread::park_timeout(Duration::from_millis(200));
        seen = serde_json::from_str(&get(&file.health, "/health")).unwrap_or_default();
        let components = &seen["components"];
        let (wanted, with) =
            (components["books"]["wanted"].as_u64(), components["books"]["with_snapshot"].as_u64());
        // An empty registry is not healthy, but one that is still loading may be.
        let loaded = components["market_registry"]["markets"].as_u64() >= Some(markets);
        let now = began.elapsed().as_secs_f64();
        if seen["status"] == "healthy" && loaded && healthy_after.is_none() {
            healthy_after = Some(now);
        }
        if loaded && wanted >= Some(markets) && with >= wanted && covered_after.is_none() {
            covered_after = Some(now);
        }
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            println!(
                "{now:>5.1} s: {} connections, {} markets, {with:?} of {wanted:?} books, {} MiB",
                components["websocket"]["connections"],
                components["market_registry"]["markets"],
                support::memory(gatherer.id(), "VmRSS") >> 20
            );
        }
    }
    let (healthy_after, covered_after) =
        (healthy_after.unwrap_or_default(), covered_after.unwrap_or_default());
    let at_cover = support::memory(gatherer.id(), "VmRSS");
    let until = Instant::now() + Duration::from_secs(watch);
    while Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(500));
    }
    let later = support::memory(gatherer.id(), "VmRSS");
    let peak = support::memory(gatherer.id(), "VmHWM");
    let exchange_memory = support::memory(exchange.id(), "VmRSS");
    let snapshots =
        cluster.number("g1", "SELECT head FROM logs WHERE name = 'orderbook_snapshots'");
    let (cpu, threads) = (figures::cpu(gatherer.id()), figures::cpu_by_thread(gatherer.id()));
    println!("CPU seconds of the gatherer by thread: {threads:.1?}");
    println!(
        "healthy after {healthy_after:.1} s, every book after {covered_after:.1} s; \
         resident {} MiB then, {} MiB {watch} s later, {} MiB at most; {snapshots} snapshots stored",
        at_cover >> 20,
        later >> 20,
        peak >> 20
    );
    let stopping = Instant::now();
    assert!(gatherer.stop().success(), "{}", gatherer.log());
    let stopped_after = stopping.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "bench": "scale",
            "markets": markets,
            "sessions": sessions,
            "healthy_seconds": healthy_after,
            "covered_seconds": covered_after,
            "limit_seconds": START_SECONDS_MAX,
            "ratio": healthy_after / START_SECONDS_MAX,
            "resident_bytes": later,
            "resident_bytes_max": peak,
            "limit_bytes": MEMORY_BYTES_MAX,
            "memory_ratio": peak as f64 / MEMORY_BYTES_MAX as f64,
            "gatherer_cpu_seconds": cpu,
            "exchange_resident_bytes": exchange_memory,
            "stop_seconds": stopped_after,
        })
    );
    if healthy_after > START_SECONDS_MAX || peak > MEMORY_BYTES_MAX {
        eprintln!("more than the design allows");
        std::process::exit(1);
    }
}
