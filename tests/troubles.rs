//! A gatherer alone, over a real PostgreSQL, when something is wrong: REST in a storm from the first
//! call on, an exchange that ignores what was asked for, a database that hangs, far more than the
//! usual flow while it does.

#![allow(clippy::indexing_slicing, reason = "tests say what must hold")]

mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::{Cluster, Exchange, GathererFile, Process, gatherer_file, get, migrate, wait_for};

/// A gatherer with its own exchange and database. Dropped in this order.
struct Alone {
    gatherer: Process,
    exchange: Exchange,
    file: GathererFile,
    cluster: Cluster,
    root: tempfile::TempDir,
}

impl Alone {
    /// Starts it after `before` was done to the exchange.
    fn start(markets: &str, rate: &str, before: impl Fn(&Exchange)) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        cluster.sql("postgres", "CREATE DATABASE g1");
        let exchange = Exchange::start(&["--markets", markets, "--rate", rate, "--seed", "6"]);
        before(&exchange);
        let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
        migrate(&file.path);
        let log = root.path().join("g1.log");
        let gatherer = Process::start(&["gather", "--config", config(&file)], log);
        Self { gatherer, exchange, file, cluster, root }
    }

    fn number(&self, query: &str) -> i64 {
        self.cluster.number("g1", query)
    }

    fn deltas(&self) -> i64 {
        self.number("SELECT head FROM logs WHERE name = 'orderbook_deltas'")
    }

    fn health(&self) -> Value {
        serde_json::from_str(&get(&self.file.health, "/health")).unwrap_or_default()
    }

    fn wait_healthy(&self) {
        wait_for("health", || (self.health()["status"] == "healthy").then_some(()));
    }
}

fn config(file: &GathererFile) -> &str {
    file.path.to_str().expect("a path of ours is UTF-8")
}

#[test]
fn a_storm_over_rest_delays_the_list_and_loses_no_market() {
    // Each fault for its number of calls, one after another: the first lists meet all of them.
    let storm = |exchange: &Exchange| {
        for fault in [
            "fault=status&status=503&n=2",
            "fault=status&status=429&n=2",
            "fault=slow&delay_ms=300&n=2",
            "fault=repeat-cursor&n=2",
            "fault=empty-page&n=1",
            "fault=shift-back&items=7&n=2",
            "fault=shift-on&items=7&n=2",
        ] {
            let answer = exchange.control(&format!("/rest?{fault}&key=0&path=/markets"), "");
            assert!(!answer.contains("error"), "{fault}: {answer}");
        }
    };
    let alone = Alone::start("2500", "200", storm);
    wait_for("every market's book", || {
        let books = alone.health()["components"]["books"].clone();
        (books["with_snapshot"].as_u64() >= Some(2500)).then_some(())
    });
    alone.wait_healthy();
    let with_snapshot =
        "SELECT count(DISTINCT ticker) FROM orderbook_snapshots WHERE source = 'ws'";
    wait_for("every snapshot's row", || (alone.number(with_snapshot) >= 2500).then_some(()));
}

#[test]
fn an_exchange_that_ignores_use_yes_price_is_said_aloud() {
    let alone = Alone::start("60", "300", |exchange| {
        exchange.control("/yes-price?key=0&ignore=true", "");
    });
    wait_for("the warning", || {
        alone.gatherer.log().contains("the exchange seems to ignore use_yes_price").then_some(())
    });
}

#[test]
fn a_market_is_recorded_within_two_seconds_of_its_creation() {
    let alone = Alone::start("60", "300", |_| {});
    alone.wait_healthy();
    alone.exchange.control("/churn?per_minute=1000&ms=15000", "");
    let born = "SELECT count(DISTINCT l.subject) FROM market_lifecycle l \
                JOIN orderbook_snapshots s ON s.ticker = l.subject \
                WHERE l.event_type = 'created'";
    wait_for("two hundred markets born", || (alone.number(born) >= 200).then_some(()));
    let slowest = "SELECT max(first - created) FROM ( \
                     SELECT l.subject, min(l.received_at) AS created, min(s.received_at) AS first \
                     FROM market_lifecycle l JOIN orderbook_snapshots s ON s.ticker = l.subject \
                     WHERE l.event_type = 'created' AND s.source = 'ws' GROUP BY l.subject) m";
    let slowest = alone.number(slowest);
    assert!(slowest < 2_000_000, "{slowest} microseconds from its creation to its first snapshot");
    // What settled is dropped: their stretches end because we left, not because something broke.
    let others =
        "SELECT count(*) FROM coverage WHERE ended_by NOT IN ('unsubscribed', 'continues')";
    assert_eq!(alone.number(others), 0, "{}", alone.gatherer.log());
}

#[test]
fn a_stop_with_a_database_that_hangs_is_orderly_and_a_second_signal_is_at_once() {
    let mut alone = Alone::start("60", "1000", |_| {});
    wait_for("changes", || (alone.deltas() > 1000).then_some(()));
    alone.cluster.freeze();
    wait_for("health to say so", || {
        (alone.health()["components"]["timescaledb"] == "disconnected").then_some(())
    });
    alone.gatherer.signal(Signal::TERM);
    let status = alone.gatherer.ended();
    assert_eq!(status.code(), Some(0), "{}", alone.gatherer.log());

    // Again, and this time somebody is in a hurry.
    let log = alone.root.path().join("again.log");
    alone.cluster.thaw();
    let mut again = Process::start(&["gather", "--config", config(&alone.file)], log);
    let before = alone.deltas();
    wait_for("changes", || (alone.deltas() > before + 1000).then_some(()));
    alone.cluster.freeze();
    again.signal(Signal::TERM);
    wait_for("the stop to begin", || again.log().contains("stopping").then_some(()));
    again.signal(Signal::TERM);
    assert_eq!(again.ended().code(), Some(143), "{}", again.log());
    alone.cluster.thaw();

    // Nothing of what either recorded is lost: the next one brings it.
    let log = alone.root.path().join("third.log");
    let mut third = Process::start(&["gather", "--config", config(&alone.file)], log);
    alone.wait_healthy();
    assert!(third.stop().success(), "{}", third.log());
    let counted = "SELECT count(*) FROM orderbook_deltas d WHERE NOT EXISTS ( \
                     SELECT 1 FROM coverage c WHERE c.ticker = d.ticker \
                     AND c.session_id = d.session_id AND c.sid = d.sid \
                     AND d.received_at >= c.covered_from \
                     AND least(d.received_at, d.exchange_ts) <= c.covered_to)";
    // The last that came proves no more than the moment at which the exchange sent it.
    assert_eq!(alone.number(counted), 0, "each change lies in a stretch of its session");
    assert_eq!(alone.number("SELECT count(*) - max(log_seq) FROM orderbook_deltas"), 0);
}

#[test]
fn a_flood_without_a_database_goes_into_the_journal_and_not_into_memory() {
    /// At more than fifty times the rate of the flow before.
    const CHANGES: u64 = 1_200_000;
    let mut alone = Alone::start("60", "300", |_| {});
    alone.wait_healthy();
    alone.cluster.freeze();
    alone.exchange.control(&format!("/blast?changes={CHANGES}"), "");
    let mut most = 0;
    wait_for("everything to be sent", || {
        most = most.max(support::memory(alone.gatherer.id(), "VmRSS"));
        (alone.exchange.status()["blast"]["running"] == false).then_some(())
    });
    wait_for("health to say that the database is away", || {
        (alone.health()["components"]["timescaledb"] == "disconnected").then_some(())
    });
    assert_eq!(alone.health()["status"], "unhealthy");

    alone.cluster.thaw();
    let all = i64::try_from(CHANGES).expect("fits");
    wait_for("every change in the database", || {
        most = most.max(support::memory(alone.gatherer.id(), "VmRSS"));
        (alone.deltas() >= all).then_some(())
    });
    alone.wait_healthy();
    assert!(alone.gatherer.stop().success(), "{}", alone.gatherer.log());
    assert_eq!(alone.number("SELECT count(*) - max(log_seq) FROM orderbook_deltas"), 0);
    let missed = "SELECT count(*) FROM coverage \
                  WHERE ended_by NOT IN ('stop', 'unsubscribed', 'continues')";
    assert_eq!(alone.number(missed), 0, "{}", alone.gatherer.log());
    // Chunks on their way and the journal's buffer: ARCHITECTURE.md has the sum.
    assert!(most < 400 << 20, "{} MiB", most >> 20);
}

/// Connections that the gatherer made so far.
fn connects(alone: &Alone) -> u64 {
    let page = get(&alone.file.metrics, "/metrics");
    let value = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        name.contains("websocket_connects").then(|| count.parse().ok()).flatten()
    };
    page.lines().find_map(value).expect("a count")
}

#[test]
fn another_configuration_is_taken_over_without_a_new_connection() {
    let alone = Alone::start("60", "300", |_| {});
    alone.wait_healthy();
    let before = connects(&alone);
    let text = std::fs::read_to_string(&alone.file.path).expect("read the configuration");
    // A few, because a market may end at any moment.
    let few = "SELECT string_agg(ticker, ', ') \
               FROM (SELECT DISTINCT ticker FROM orderbook_snapshots LIMIT 5) s";
    let tickers = alone.cluster.sql("g1", few);
    let narrow = text.replace("level: info", "level: debug");
    let narrow = format!("{narrow}markets: {{ tickers: [{tickers}] }}\n");
    std::fs::write(&alone.file.path, &narrow).expect("write the configuration");
    alone.gatherer.signal(Signal::HUP);
    let markets = || alone.health()["components"]["market_registry"]["markets"].as_u64();
    wait_for("a few markets", || markets().filter(|markets| (1..=5).contains(markets)));
    wait_for("the new log level", || alone.gatherer.log().contains("DEBUG").then_some(()));

    // One that is wrong changes nothing, and what needs a restart is named.
    std::fs::write(&alone.file.path, narrow.replace("orderbook: 2", "orderbook: two")).unwrap();
    alone.gatherer.signal(Signal::HUP);
    wait_for("the refusal", || {
        alone.gatherer.log().contains("the configuration is not taken over").then_some(())
    });
    std::fs::write(&alone.file.path, text.replace("orderbook: 2", "orderbook: 3")).unwrap();
    alone.gatherer.signal(Signal::HUP);
    wait_for("all markets again", || markets().filter(|markets| *markets >= 60));
    let log = alone.gatherer.log();
    assert!(log.contains("are taken over at the next start") && log.contains("sessions"), "{log}");
    alone.wait_healthy();
    assert_eq!(connects(&alone), before, "{log}");
}

#[test]
fn a_key_that_was_refused_is_taken_up_when_its_file_has_the_right_one() {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    cluster.sql("postgres", "CREATE DATABASE g1");
    let exchange = Exchange::start(&["--markets", "60", "--rate", "300", "--seed", "6"]);
    let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    migrate(&file.path);
    let (key_id, _) = exchange.keys.first().expect("a key");
    let right = std::fs::read_to_string(&file.path).expect("read the configuration");
    let wrong = right.replace(key_id.as_str(), "00000000-0000-0000-0000-000000000000");
    std::fs::write(&file.path, wrong).expect("write the configuration");
    let log = root.path().join("g1.log");
    let gatherer = Process::start(&["gather", "--config", config(&file)], log);
    let alone = Alone { gatherer, exchange, file, cluster, root };
    let websocket = || alone.health()["components"]["websocket"].clone();
    wait_for("health to name the refusal", || {
        let websocket = websocket();
        let reason = websocket["reason"].as_str().unwrap_or_default().to_owned();
        (websocket["refused"].as_u64() > Some(0) && reason.contains("refused the key"))
            .then_some(())
    });
    assert_eq!(alone.health()["status"], "unhealthy");
    assert_eq!(alone.health()["components"]["exchange"]["reachable"], true);
    std::fs::write(&alone.file.path, right).expect("write the configuration");
    alone.wait_healthy();
    assert!(alone.gatherer.log().contains("the exchange's key was replaced"));
    assert_eq!(websocket()["refused"], 0);
}

#[test]
fn a_database_whose_disk_is_full_costs_time_and_no_change() {
    let disk = support::small_disk::SmallDisk::mount(24);
    disk.give("postgres");
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    let place = disk.path().display();
    cluster.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{place}'"));
    cluster.sql("postgres", "CREATE DATABASE g1 TABLESPACE small");
    let exchange = Exchange::start(&["--markets", "60", "--rate", "3000", "--seed", "6"]);
    let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    migrate(&file.path);
    let log = root.path().join("g1.log");
    let gatherer = Process::start(&["gather", "--config", config(&file)], log);
    let mut alone = Alone { gatherer, exchange, file, cluster, root };
    wait_for("health to say that no rows are taken", || {
        let database = alone.health()["components"]["database"]["reason"].clone();
        (database == "the database takes no rows: the journal keeps what comes").then_some(())
    });
    let published = |alone: &Alone| {
        alone.exchange.status()["published"]["orderbook_deltas"].as_i64().expect("a count")
    };
    let before = published(&alone);
    wait_for("more changes", || (published(&alone) > before + 5000).then_some(()));
    assert!(alone.deltas() < before + 5000);
    disk.resize(512);
    let all = published(&alone);
    wait_for("every change", || (alone.deltas() >= all).then_some(()));
    alone.wait_healthy();
    assert!(alone.gatherer.stop().success(), "{}", alone.gatherer.log());
    assert_eq!(alone.number("SELECT count(*) - max(log_seq) FROM orderbook_deltas"), 0);
    let broken = "SELECT count(*) FROM coverage WHERE ended_by NOT IN ('stop', 'continues')";
    assert_eq!(alone.number(broken), 0, "no stretch was broken");
    drop((alone, disk));
}
