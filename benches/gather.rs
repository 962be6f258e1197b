//! How many changes a second a gatherer takes from the socket to the commit, beside PostgreSQL's own
//! binary COPY of the same rows into the same table in the same run.
//!
//! The simulated exchange publishes as fast as the gatherer reads, on the same machine: its work is
//! part of the figure. `make bench-gather`; options `--changes N`, `--markets N`, `--sessions N`.

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a benchmark")]

#[path = "support/mod.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Cluster, Exchange, Process, gatherer_file, migrate, wait_for};

/// What the design asks for at least, as a share of COPY.
const RATIO_MIN: f64 = 0.5;

fn main() {
    let changes: u64 = figures::option("--changes", 3_000_000);
    let markets: usize = figures::option("--markets", 500);
    let sessions: u16 = figures::option("--sessions", 8);
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_with(
        root.path(),
        &format!(
            "-c shared_buffers=512MB -c max_wal_size=16GB -c checkpoint_timeout=30min {}",
            figures::option("--postgres", String::new())
        ),
    );
    cluster.sql("postgres", "CREATE DATABASE g1");
    let markets = markets.to_string();
    // One change a second by itself: what is measured is the blast.
    let exchange = Exchange::start(&["--markets", &markets, "--rate", "1", "--seed", "1"]);
    let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    let text = fs::read_to_string(&file.path).expect("the configuration");
    let text = text.replace("orderbook: 2,", &format!("orderbook: {sessions},"));
    fs::write(&file.path, text).expect("write the configuration");
    migrate(&file.path);
    let path = file.path.to_str().expect("UTF-8");
    let mut gatherer = Process::start(&["gather", "--config", path], root.path().join("g1.log"));
    let wanted: u64 = markets.parse().expect("a number");
    wait_for("every market's book", || {
        (exchange.status()["subscribed_markets"].as_u64() >= Some(wanted)).then_some(())
    });

    let head = || cluster.number("g1", "SELECT head FROM logs WHERE name = 'orderbook_deltas'");
    let before = head();
    let threads_before = figures::cpu_by_thread(gatherer.id());
    let (gatherer_before, exchange_before) =
        (figures::cpu(gatherer.id()), figures::cpu(exchange.id()));
    let postgres_before = cluster.cpu_seconds();
    let began = Instant::now();
    exchange.control(&format!("/blast?changes={changes}"), "");
    let target = before + i64::try_from(changes).expect("fits");
    let mut published = None;
    wait_for("every change committed", || {
        // Each look starts a psql: rarely enough that it does not show.
        std::thread::park_timeout(Duration::from_millis(200));
        if published.is_none() && exchange.status()["blast"]["running"].as_bool() == Some(false) {
            published = Some(began.elapsed().as_secs_f64());
        }
        (head() >= target).then_some(())
    });
    let took = began.elapsed().as_secs_f64();
    let rate = changes as f64 / took;
    let per_change = |seconds: f64| seconds * 1e6 / changes as f64;
    let threads = difference(&threads_before, &figures::cpu_by_thread(gatherer.id()));
    let gatherer_cpu = figures::cpu(gatherer.id()) - gatherer_before;
    let exchange_cpu = figures::cpu(exchange.id()) - exchange_before;
    let postgres_cpu = cluster.cpu_seconds() - postgres_before;
    assert!(gatherer.stop().success(), "{}", gatherer.log());
    drop(exchange);

    let rows = cluster.number("g1", "SELECT count(*) FROM orderbook_deltas");
    let copy_rate = copy(&cluster, root.path(), rows);
    let ratio = rate / copy_rate;

    let mut text = String::new();
    let stages = threads.iter().map(|(name, seconds)| (name.as_str(), *seconds));
    let others = [("exchange (not the gatherer)", exchange_cpu), ("PostgreSQL", postgres_cpu)];
    writeln!(text, "CPU time a change, by thread of the gatherer, in microseconds:")
        .expect("write");
    for (name, seconds) in stages.chain(others) {
        writeln!(text, "  {name:<28} {:>6.2}", per_change(seconds)).expect("write");
    }
    print!("{text}");
    let published = published.unwrap_or(took);
    println!(
        "{changes} changes: published in {published:.1} s, committed in {took:.1} s; \
         COPY of {rows} rows at {copy_rate:.0} rows/s"
    );
    let stages: BTreeMap<&str, f64> =
        threads.iter().map(|(name, seconds)| (name.as_str(), per_change(*seconds))).collect();
    println!(
        "{}",
        serde_json::json!({
            "bench": "gather",
            "changes": changes,
            "rows_per_second": rate,
            "limit_rows_per_second": copy_rate,
            "ratio": ratio,
            "ratio_min": RATIO_MIN,
            "gatherer_cpu_us_per_change": per_change(gatherer_cpu),
            "exchange_cpu_us_per_change": per_change(exchange_cpu),
            "postgres_cpu_us_per_change": per_change(postgres_cpu),
            "thread_cpu_us_per_change": stages,
        })
    );
    if ratio < RATIO_MIN {
        eprintln!("{ratio:.2} of COPY is less than {RATIO_MIN}");
        std::process::exit(1);
    }
}

/// psql's binary COPY of the rows that the gatherer wrote into an empty table of the same shape;
/// rows a second.
fn copy(cluster: &Cluster, root: &Path, rows: i64) -> f64 {
    let file = root.join("rows.bin");
    let file = file.display();
    cluster.sql("g1", "CREATE TABLE copied (LIKE orderbook_deltas INCLUDING ALL)");
    cluster.sql("g1", &format!("\\copy orderbook_deltas TO '{file}' WITH (FORMAT binary)"));
    cluster.sql("g1", "CHECKPOINT");
    let began = Instant::now();
    cluster.sql("g1", &format!("\\copy copied FROM '{file}' WITH (FORMAT binary)"));
    let took = began.elapsed().as_secs_f64();
    assert_eq!(cluster.number("g1", "SELECT count(*) FROM copied"), rows);
    rows as f64 / took
}

fn difference(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let spent = |name: &String, seconds: &f64| seconds - before.get(name).unwrap_or(&0.0);
    let all = after.iter().map(|(name, seconds)| (name.clone(), spent(name, seconds)));
    all.filter(|(_, seconds)| *seconds > 0.0).collect()
}
