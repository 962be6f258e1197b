//! The deduplicator's copy of series, events and markets, as a process against the simulated exchange
//! and a real PostgreSQL: what lists bring, what is odd, what goes wrong, and where it may die.

#![allow(clippy::indexing_slicing, reason = "tests say what must hold")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{
    Cluster, Exchange, KALSHI, Process, deduplicator_file, gatherer_file, get, health_address,
    migrate, wait_for, with_markets,
};

/// A deduplicator over an empty gatherer, and its exchange. Dropped in this order.
struct Copying {
    exchange: Exchange,
    file: PathBuf,
    cluster: Cluster,
    root: tempfile::TempDir,
}

impl Copying {
    fn new(markets: &str, settings: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        for database in ["g1", "production"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
        }
        let exchange = Exchange::start(&["--markets", markets, "--rate", "1", "--seed", "4"]);
        let gatherer = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
        let gatherers = [("gatherer-1", "g1")];
        let file = deduplicator_file(root.path(), "dedup", &cluster, &gatherers, "production");
        with_markets(&file, &exchange, settings);
        migrate(&gatherer.path);
        migrate(&file);
        Self { exchange, file, cluster, root }
    }

    fn start(&self, way: &[&str]) -> Process {
        let path = path(&self.file);
        Process::start_in(way, &["dedup", "--config", path], self.root.path().join("dedup.log"))
    }

    fn number(&self, query: &str) -> i64 {
        self.cluster.number("production", query)
    }

    fn wait_true(&self, query: &str) {
        wait_for(query, || (self.cluster.sql("production", query) == "t").then_some(()));
    }

    fn wait_confirmed(&self) {
        self.wait_true(
            "SELECT bool_and(full_ended IS NOT NULL AND NOT to_confirm) FROM market_sync",
        );
    }

    fn edit(&self, ticker: &str, arguments: &str, fields: &str) {
        let answer = self.exchange.control(&format!("/market?ticker={ticker}{arguments}"), fields);
        assert!(!answer.contains("error"), "{ticker}: {answer}");
    }

    fn assert_history(&self) {
        let broken = "SELECT count(*) FROM (SELECT valid_from, valid_to, lead(valid_from) OVER \
                      (PARTITION BY ticker ORDER BY valid_from) AS next FROM markets_history) v \
                      WHERE valid_to IS DISTINCT FROM next OR valid_to <= valid_from";
        assert_eq!(self.number(broken), 0);
    }
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path of ours is UTF-8")
}

#[test]
fn production_follows_the_exchange_through_whatever_it_says() {
    let copying = Copying::new("2500", "refresh_interval: 1s");
    let mut dedup = copying.start(&[]);
    copying.wait_confirmed();
    assert_eq!(copying.number("SELECT count(*) FROM markets WHERE status = 'open'"), 2500);
    assert_eq!(copying.number("SELECT count(*) FROM events"), 250);
    assert_eq!(copying.number("SELECT count(*) FROM series"), 13);
    let orphans = "SELECT count(*) FROM markets m LEFT JOIN events e USING (event_ticker) \
                   LEFT JOIN series s ON s.ticker = e.series_ticker WHERE s.ticker IS NULL";
    assert_eq!(copying.number(orphans), 0);
    assert_eq!(copying.number("SELECT count(*) FROM markets_past"), 0);

    let ticker = copying.cluster.sql("production", "SELECT min(ticker) FROM markets");
    for (fields, seen) in [
        (r#"{"status":"determined","result":"yes"}"#, "status = 'closed' AND result = 'yes'"),
        (r#"{"status":"disputed"}"#, "status = 'closed' AND exchange_status = 'disputed'"),
        (r#"{"status":"amended","result":"scalar"}"#, "exchange_status = 'amended'"),
        (
            r#"{"status":"finalized","settlement_value_dollars":"0.3700"}"#,
            "status = 'settled' AND settlement_value = 370000 AND result = 'scalar'",
        ),
        (
            r#"{"status":"never_seen","last_price_dollars":"free","more":[1]}"#,
            "status IS NULL AND exchange_status = 'never_seen' AND last_price IS NULL \
             AND raw->>'last_price_dollars' = 'free' AND raw->'more' = '[1]'",
        ),
    ] {
        copying.edit(&ticker, "", fields);
        copying.wait_true(&format!("SELECT {seen} FROM markets WHERE ticker = '{ticker}'"));
    }
    let versions = "SELECT count(*) FROM markets_history WHERE ticker = ";
    assert_eq!(copying.number(&format!("{versions} '{ticker}'")), 6);
    copying.assert_history();
    let log = dedup.log();
    for line in [
        "Kalshi API answers",
        "loaded 2500 markets from REST API",
        "a market has a status that this version does not know",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
    assert_eq!(log.matches("this version does not know").count(), 1, "said once: {log}");
    let health = get(&health_address(&copying.file), "/health");
    assert!(health.contains(r#""state":"current""#), "{health}");
    assert!(dedup.stop().success(), "{}", dedup.log());
}

#[test]
fn a_storm_over_the_first_load_delays_it_and_loses_nothing() {
    let copying = Copying::new("4500", "refresh_interval: 1s");
    for fault in [
        "fault=status&status=503&n=2",
        "fault=status&status=429&n=2",
        "fault=slow&delay_ms=200&n=1",
        "fault=repeat-cursor&n=1",
        "fault=empty-page&n=1",
        "fault=shift-on&items=7&n=1",
        "fault=shift-back&items=7&n=1",
    ] {
        let answer = copying.exchange.control(&format!("/rest?{fault}&path=/markets"), "");
        assert!(!answer.contains("error"), "{fault}: {answer}");
    }
    let mut dedup = copying.start(&[]);
    copying.wait_confirmed();
    assert_eq!(copying.number("SELECT count(*) FROM markets WHERE presence = 'listed'"), 4500);
    assert_eq!(copying.number("SELECT count(*) FROM markets_past"), 0);
    assert!(dedup.log().contains("the cursor repeats"), "{}", dedup.log());
    assert!(dedup.stop().success(), "{}", dedup.log());
}

#[test]
fn it_may_die_at_any_step_of_a_batch() {
    if !cfg!(feature = "failpoints") {
        panic!("build with --features failpoints, as make test does");
    }
    let copying = Copying::new("6500", "refresh_interval: 1s");
    for (place, batches) in [
        ("markets-before-merge", 1),
        ("markets-before-commit", 2),
        ("markets-after-commit", 3),
        ("markets-before-merge", 3),
        ("markets-after-commit", 1),
    ] {
        let crash = format!("FAILPOINTS={place}={batches}*off->return");
        let mut dedup = copying.start(&["env", &crash]);
        assert!(!dedup.ended().success(), "{crash}");
        copying.assert_history();
    }
    let mut dedup = copying.start(&[]);
    copying.wait_confirmed();
    assert!(dedup.stop().success(), "{}", dedup.log());
    assert!(dedup.log().contains("going on to load markets"), "{}", dedup.log());
    assert_eq!(copying.number("SELECT count(*) FROM markets"), 6500);
    assert_eq!(copying.number("SELECT count(*) FROM events"), 650);
    assert_eq!(copying.number("SELECT count(*) FROM markets_past"), 0);
}

#[test]
fn what_leaves_the_lists_is_marked_and_never_removed() {
    let copying = Copying::new("60", "refresh_interval: 1s, full_interval: 1m");
    let mut dedup = copying.start(&[]);
    copying.wait_confirmed();
    let tickers =
        copying.cluster.sql("production", "SELECT ticker FROM markets ORDER BY ticker LIMIT 2");
    let (hidden, _) = tickers.split_once('\n').expect("two tickers");
    copying.edit(hidden, "&listed=false", "");
    assert!(dedup.stop().success(), "{}", dedup.log());
    // As if the last complete list were long ago.
    let long_ago = "UPDATE market_sync SET full_from = full_from - 3600000000";
    copying.cluster.sql("production", long_ago);
    let mut dedup = copying.start(&[]);
    let marked = format!("SELECT presence = 'missing' FROM markets WHERE ticker = '{hidden}'");
    copying.wait_true(&marked);
    assert_eq!(copying.number("SELECT count(*) FROM markets"), 60);
    copying.assert_history();
    assert!(dedup.stop().success(), "{}", dedup.log());
}

#[test]
fn the_check_asks_the_exchange_too() {
    let copying = Copying::new("20", "refresh_interval: 1s");
    let check = |file: &Path| {
        let output = Command::new(KALSHI)
            .args(["dedup", "--check", "--config", path(file)])
            .output()
            .expect("run the check");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = check(&copying.file);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Kalshi API: http://127.0.0.1"), "{text}");
    let config = std::fs::read_to_string(&copying.file).expect("the configuration");
    let nowhere = copying.root.path().join("nowhere.yaml");
    let port = support::free_port();
    let config = config.replace(&copying.exchange.rest_url, &format!("http://127.0.0.1:{port}/v2"));
    std::fs::write(&nowhere, config).expect("write a configuration");
    let (code, text) = check(&nowhere);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("production: ") && text.contains("api.rest_url"), "{text}");
}
