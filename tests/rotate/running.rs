//! Rotations under a platform that records: nothing lost, nothing late, no password in any log.
//!
//! How late a row was is said by the server itself: the time at which the transaction that brought it
//! was committed in production, less the time that the exchange put on it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::moto::Moto;
use super::support::{Process, wait_for};
use super::{Bench, NOWHERE, environment, fine, first_passwords, in_file};

/// No row may come later while passwords are rotated. When all sessions end at the same time besides, the
/// delay is that of any outage; it is printed.
const DELAY_MAX: Duration = Duration::from_secs(2);
const MARKETS: i64 = 50;
/// Whether all sessions are ended before the rotation, so that each has to log in anew.
const ROUNDS: [bool; 6] = [false, false, false, false, true, true];
const ROLES: [&str; 3] = ["gatherer", "dedup_reader", "deduplicator"];

/// A number from the environment: `make check-rotate` asks for the pace of the whole exchange.
fn asked(name: &str, otherwise: usize) -> usize {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

fn bench(place: impl Fn(&Path, &str) -> String) -> Bench {
    let rate = asked("KALSHI_ROTATE_RATE", 1000).to_string();
    let markets = MARKETS.to_string();
    let flow = ["--markets", &markets, "--rate", &rate, "--seed", "5"];
    let bench = Bench::with_gatherers(asked("KALSHI_ROTATE_GATHERERS", 1), &flow, place);
    // Whatever was published before everybody listens would count as late.
    bench.exchange.control("/trading?active=false", "");
    bench
}

/// Starts a role, which finds the secrets at `endpoint`.
fn start(bench: &Bench, role: &str, file: &Path, endpoint: &str) -> Process {
    let environment = environment(endpoint).map(|(name, value)| format!("{name}={value}"));
    let way: Vec<&str> =
        ["env"].into_iter().chain(environment.iter().map(String::as_str)).collect();
    let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
    let log = bench.root.path().join(format!("{name}.log"));
    Process::start_in(&way, &[role, "--config", file.to_str().expect("UTF-8")], log)
}

/// Every role twice while sessions stay open, then twice while all of them have to log in anew.
/// `passwords` are those that the secret of a role holds.
fn rotate_under_load(bench: &Bench, endpoint: &str, passwords: impl Fn(&str) -> Vec<String>) {
    let files = || [&bench.gatherer].into_iter().chain(&bench.others);
    let mut gatherers: Vec<Process> =
        files().map(|file| start(bench, "gather", file, endpoint)).collect();
    let mut dedup = start(bench, "dedup", &bench.dedup, endpoint);
    let books =
        "SELECT count(DISTINCT ticker) FROM coverage_open WHERE channel = 'orderbook_delta'";
    for number in 1..=gatherers.len() {
        wait_for("the books", || {
            (bench.cluster.number(&format!("g{number}"), books) >= MARKETS).then_some(())
        });
    }
    let rows = |sql: &str| bench.cluster.number("production", sql);
    let head = || rows("SELECT head FROM logs WHERE name = 'orderbook_deltas'");
    bench.exchange.control("/trading?active=true", "");
    wait_for("rows in production", || (head() > 1000).then_some(()));
    let now = || {
        bench
            .cluster
            .number("postgres", "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    };
    let (mut planted, mut rounds) = (Vec::new(), Vec::new());
    for ends_sessions in ROUNDS {
        rounds.push(now());
        if ends_sessions {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE usename IN ('gatherer', 'dedup_reader', 'deduplicator')";
            assert!(bench.cluster.number("postgres", sql) > 5);
        }
        let grown = head() + 2000;
        wait_for("production to go on", || (head() > grown).then_some(()));
        fine(&["rotate-password", "--role", "gatherer"], &bench.gatherer, endpoint);
        fine(&["rotate-password", "--all"], &bench.dedup, endpoint);
        planted.extend(ROLES.iter().flat_map(|role| passwords(role)));
    }
    bench.exchange.control("/trading?active=false", "");
    // Neither fewer nor other changes than the exchange sent.
    let identity = |row: &Value| {
        let side = if row["side"] == true { 't' } else { 'f' };
        let [at, price, size, occurrence] =
            ["exchange_ts", "price", "size_delta", "occurrence"].map(|name| &row[name]);
        let ticker = row["ticker"].as_str().expect("a ticker");
        format!("{ticker}|{at}|{side}|{price}|{size}|{occurrence}")
    };
    let mut sent: Vec<String> = bench.exchange.sent().iter().map(identity).collect();
    let count = i64::try_from(sent.len()).expect("a count");
    wait_for("every change in production", || {
        (rows("SELECT count(*) FROM orderbook_deltas") >= count).then_some(())
    });
    let sql =
        "SELECT ticker, exchange_ts, side, price, size_delta, occurrence FROM orderbook_deltas";
    let recorded = bench.cluster.sql("production", sql);
    let mut recorded: Vec<&str> = recorded.lines().collect();
    sent.sort_unstable();
    recorded.sort_unstable();
    let lost = sent.iter().zip(&recorded).find(|(sent, recorded)| sent != *recorded);
    assert_eq!((lost, recorded.len()), (None, sent.len()));
    // And the trades that any gatherer has.
    let ids = |database: &str| bench.cluster.sql(database, "SELECT trade_id FROM trades");
    let of_gatherers: String =
        (1..=gatherers.len()).map(|number| ids(&format!("g{number}")) + "\n").collect();
    let trades: BTreeSet<&str> = of_gatherers.lines().filter(|line| !line.is_empty()).collect();
    wait_for("every trade in production", || {
        (usize::try_from(rows("SELECT count(*) FROM trades")).ok()? >= trades.len()).then_some(())
    });
    assert_eq!(ids("production").lines().collect::<BTreeSet<_>>(), trades);

    let delay =
        "(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint - exchange_ts";
    let late = |share: &str, of: &str| {
        let sql = format!(
            "SELECT ({share} / 1000)::bigint FROM (SELECT {delay} AS delay FROM \
                           (SELECT xmin, exchange_ts FROM orderbook_deltas UNION ALL \
                            SELECT xmin, exchange_ts FROM trades) rows WHERE {of}) delays"
        );
        rows(&sql)
    };
    let percentile =
        |p: &str| late(&format!("percentile_disc({p}) WITHIN GROUP (ORDER BY delay)"), "true");
    rounds.push(now());
    let of_round = |ends: &[i64]| {
        late("max(delay)", &format!("exchange_ts BETWEEN {} AND {}", ends[0], ends[1]))
    };
    let of_rounds: Vec<i64> = rounds.windows(2).map(of_round).collect();
    let longest = |ends_sessions: bool| {
        let rounds = ROUNDS.iter().zip(&of_rounds).filter(|(ends, _)| **ends == ends_sessions);
        rounds.map(|(_, delay)| *delay).max().expect("rounds of both kinds")
    };
    let figures = json!({
        "rows": late("count(delay) * 1000", "true"),
        "delay_p50_ms": percentile("0.5"),
        "delay_p99_ms": percentile("0.99"),
        "delay_max_ms_before": late("max(delay)", &format!("exchange_ts < {}", rounds[0])),
        "delay_max_ms_rotating": longest(false),
        "delay_max_ms_rotating_while_all_log_in": longest(true),
        "rounds": of_rounds,
        "passwords": planted.len(),
    });
    println!("{figures}");
    assert_eq!(figures["rows"].as_u64(), u64::try_from(sent.len() + trades.len()).ok());
    let longest = Duration::from_millis(u64::try_from(longest(false)).expect("a delay"));
    assert!(longest < DELAY_MAX, "a row came after {longest:?}");

    for process in gatherers.iter_mut().chain([&mut dedup]) {
        assert!(process.stop().success(), "{}", process.log());
        let log = process.log();
        assert!(log.contains("the password was rotated"), "nobody needed a new one");
        let refused = log.lines().find(|line| line.contains("password authentication failed"));
        assert_eq!(refused, None);
        for password in &planted {
            assert!(!log.contains(password), "a log shows a password");
        }
    }
    let server = bench.cluster.log();
    assert!(server.contains("ALTER ROLE"), "the server logs statements");
    for password in &planted {
        assert!(!server.contains(password), "the server saw a password");
    }
}

/// What a JSON text has under these names.
fn held(text: &str, at: &[&str]) -> String {
    let mut held: &Value = &serde_json::from_str(text).expect("JSON");
    for name in at {
        held = &held[name];
    }
    held.as_str().expect("a password").to_owned()
}

#[test]
fn a_running_platform_loses_nothing_and_waits_for_nothing_with_secrets_in_files() {
    let bench = bench(in_file);
    first_passwords(&bench, NOWHERE);
    let root = bench.root.path().to_owned();
    rotate_under_load(&bench, NOWHERE, |role| {
        let text = std::fs::read_to_string(root.join(format!("{role}.secret"))).expect("a secret");
        ["current", "previous"].map(|version| held(&text, &[version, "value"])).into()
    });
}

#[test]
fn a_running_platform_loses_nothing_and_waits_for_nothing_with_secrets_in_aws() {
    let moto = Moto::start();
    let bench = bench(|_, role| format!("aws:kalshi/{role}#password"));
    for role in ROLES {
        moto.call("CreateSecret", &json!({ "Name": format!("kalshi/{role}") }));
    }
    let endpoint = moto.url();
    first_passwords(&bench, &endpoint);
    rotate_under_load(&bench, &endpoint, |role| {
        let version = |label: &str| moto.labelled(&format!("kalshi/{role}"), label);
        let current = version("AWSCURRENT").expect("a current version");
        let previous = version("AWSPREVIOUS").expect("a previous version");
        [current, previous].map(|text| held(&text, &["password"])).into()
    });
}
