//! `kalshi verify` over what was recorded from the simulated exchange: its list of trades, which the
//! official client reads as well, and a subscription that falls silent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::node::{output, typescript};
use super::support::{
    Cluster, Exchange, Process, deduplicator_file, gatherer_file, get, health_address, migrate,
    wait_for, with_key, with_markets,
};
use super::told::{findings, report, section, shown, text_of, verify};
use super::wait_merged;
use super::world::SECOND;

/// Microseconds of a time in a report or of the exchange.
fn micros(time: &Value) -> i64 {
    let time: jiff::Timestamp = text_of(time).parse().expect("RFC 3339");
    time.as_microsecond()
}

/// The trades of the range that was compared are those that the official client lists, and production
/// has them by the same ids.
fn as_the_official_client(cluster: &Cluster, exchange: &Exchange, cutoff: i64, told: &Value) {
    let compared = &section(told, "trades")["figures"]["exchange"];
    let (from, to) = (micros(&compared["from"]), micros(&compared["to"]));
    let folder = typescript();
    let (key_id, key_file) = exchange.keys.first().expect("a key");
    let (first, last) = ((from / SECOND).to_string(), (to / SECOND + 1).to_string());
    let text = output(
        Command::new("node")
            .arg("trades.mjs")
            .args([&first, &last, &exchange.rest_url, key_id, key_file])
            .current_dir(folder.path()),
    );
    let client: Value = serde_json::from_str(&text).expect("a JSON object");
    assert_eq!(client["problems"], json!([]));
    let mut ids = BTreeSet::new();
    for (list, is_historical) in [("recent", false), ("historical", true)] {
        for trade in client[list].as_array().expect("trades") {
            let at = micros(&trade["at"]);
            assert_eq!(at < cutoff * SECOND, is_historical, "{trade} {cutoff}");
            if (from..to).contains(&at) {
                ids.insert(text_of(&trade["id"]).to_owned());
            }
        }
    }
    assert_eq!(compared["listed"].as_u64(), Some(ids.len() as u64), "{compared}");
    assert!(ids.len() > 60, "{compared}");
    // The stream's times are those of the list in whole milliseconds, so that edges are left out.
    let sql = format!(
        "SELECT string_agg(trade_id::text, ' ') FROM trades \
         WHERE exchange_ts BETWEEN {} AND {}",
        from - SECOND,
        to + SECOND
    );
    let recorded = cluster.sql("production", &sql);
    let recorded: BTreeSet<&str> = recorded.split_whitespace().collect();
    let lacking: Vec<&String> = ids.iter().filter(|id| !recorded.contains(id.as_str())).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn trades_agree_with_the_exchange_and_what_is_missing_is_repaired() {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    let exchange =
        Exchange::start(&["--markets", "30", "--rate", "400", "--duration", "20s", "--seed", "5"]);
    // On a slow machine all would have been traded before anybody listened.
    exchange.control("/trading?active=false", "");
    let gatherer = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    let gatherers = [("gatherer-1", "g1")];
    let dedup = deduplicator_file(root.path(), "dedup", &cluster, &gatherers, "production");
    with_markets(&dedup, &exchange, "refresh_interval: 2s");
    let config = fs::read_to_string(&gatherer.path).expect("the configuration");
    fs::write(&gatherer.path, config + "audit: { period: 10s }\n").expect("write it");
    migrate(&gatherer.path);
    migrate(&dedup);
    let run = |role: &str, path: &Path| {
        let log = root.path().join(format!("{role}.log"));
        Process::start(&[role, "--config", path.to_str().expect("UTF-8")], log)
    };
    let mut gather = run("gather", &gatherer.path);
    let mut merging = run("dedup", &dedup);
    wait_for("the books", || {
        (exchange.status()["subscribed_markets"].as_u64() >= Some(30)).then_some(())
    });
    exchange.control("/trading?active=true", "");
    wait_for("the end of the flow", || (exchange.status()["finished"] == true).then_some(()));
    // What the exchange lists and nobody waited for is missing in truth.
    let last = exchange.rest("/markets/trades?limit=1")["trades"][0]["trade_id"].clone();
    let last = format!("SELECT count(*) FROM trades WHERE trade_id = '{}'", text_of(&last));
    wait_for("the last trade", || (cluster.number("g1", &last) > 0).then_some(()));
    assert!(gather.stop().success(), "{}", gather.log());
    let behind = "SELECT count(*) FROM sync_cursors WHERE lag_rows > 0";
    let heads = "SELECT sum(head) FROM logs WHERE name <> 'market_lifecycle'";
    wait_merged(&cluster, "production", &["g1"]);
    wait_for("no lag", || (cluster.number("production", behind) == 0).then_some(()));
    // Trades of the last second are not compared: nobody says that they are all there.
    let (code, told) = report(&dedup, &["all", "--since", "1h", "--against-exchange"]);
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
    let conservation = &section(&told, "trades")["figures"]["conservation"];
    assert!(conservation["exact_share"].as_f64() >= Some(0.99), "{conservation}");
    assert!(conservation["groups"].as_u64() > Some(50), "{conservation}");
    let before = cluster.number("production", heads);

    // Wherever the exchange puts its historical cut-off, in the midst and then behind all of them.
    let against = ["trades", "--since", "1h", "--against-exchange"];
    for cutoff in ["(min(exchange_ts) + max(exchange_ts)) / 2", "max(exchange_ts) + 2000000"] {
        let sql = format!("SELECT {cutoff} FROM trades");
        let cutoff = cluster.number("production", &sql) / SECOND;
        exchange.control(&format!("/cutoff?trades_ts={cutoff}"), "");
        let (code, told) = report(&dedup, &against);
        assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
        as_the_official_client(&cluster, &exchange, cutoff, &told);
    }

    let gone = "SELECT log_seq FROM trades ORDER BY log_seq OFFSET 60 LIMIT 3";
    cluster.sql("production", &format!("DELETE FROM trades WHERE log_seq IN ({gone})"));
    let (code, told) = report(&dedup, &against);
    assert_eq!((code, findings(&told).len()), (2, 3), "{}", shown(&told));
    assert!(
        findings(&told).iter().all(|f| f.starts_with("trades missing_trade ")),
        "{}",
        shown(&told)
    );

    let repair = [&against[..], &["--repair"]].concat();
    let held = verify(&dedup, &repair);
    assert_eq!(held.status.code(), Some(75), "{}", String::from_utf8_lossy(&held.stderr));
    assert!(merging.stop().success(), "{}", merging.log());
    let (_, told) = report(&dedup, &repair);
    assert_eq!(section(&told, "trades")["figures"]["exchange"]["repaired"], 3, "{told:#}");
    let (code, told) = report(&dedup, &repair);
    assert_eq!((code, findings(&told)), (0, vec![]), "{}", shown(&told));
    assert_eq!(cluster.number("production", heads), before + 3);
    let source = "SELECT count(*) FROM trades_readable WHERE gatherer = 'repair'";
    assert_eq!(cluster.number("production", source), 3);
    // The deduplicator goes on from there, and the copies that gatherers have are known.
    let mut merging = run("dedup", &dedup);
    wait_for("the deduplicator", || {
        get(&health_address(&dedup), "/health").contains("healthy").then_some(())
    });
    assert!(merging.stop().success(), "{}", merging.log());
}

#[test]
fn a_subscription_that_falls_silent_at_all_gatherers_is_uncovered() {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    // Of so few markets none ends.
    let exchange = Exchange::start(&["--markets", "3", "--rate", "100", "--seed", "5"]);
    let mut processes = Vec::new();
    for (key, database) in ["g1", "g2"].into_iter().enumerate() {
        let id = format!("gatherer-{}", key + 1);
        let file = gatherer_file(root.path(), database, &id, &exchange, &cluster, database);
        with_key(&file.path, &exchange, key);
        let config = fs::read_to_string(&file.path).expect("the configuration");
        fs::write(&file.path, config + "audit: { period: 10s }\n").expect("write it");
        migrate(&file.path);
        let log = root.path().join(format!("{database}.log"));
        let path = file.path.to_str().expect("UTF-8");
        processes.push(Process::start(&["gather", "--config", path], log));
    }
    let gatherers = [("gatherer-1", "g1"), ("gatherer-2", "g2")];
    let dedup = deduplicator_file(root.path(), "dedup", &cluster, &gatherers, "production");
    with_markets(&dedup, &exchange, "refresh_interval: 2s");
    migrate(&dedup);
    let log = root.path().join("dedup.log");
    let mut merging = Process::start(&["dedup", "--config", dedup.to_str().expect("UTF-8")], log);
    let open = "SELECT count(DISTINCT ticker) FROM coverage_open WHERE channel = 'orderbook_delta'";
    for database in ["g1", "g2"] {
        wait_for("every book", || (cluster.number(database, open) >= 3).then_some(()));
    }
    let silent = cluster.sql("g1", &open.replace("count(DISTINCT ticker)", "DISTINCT ticker"));
    let silent: BTreeSet<&str> = silent.lines().collect();
    // The sockets live on and answer pings; the exchange just says nothing of these books any more.
    for key in 0..2 {
        exchange.control(&format!("/dead?key={key}&channel=orderbook_delta&known=true"), "");
    }
    // An exchange that is slow to say that it has the subscription loses the connection instead.
    let ended = "SELECT count(DISTINCT ticker) FROM coverage \
                 WHERE channel = 'orderbook_delta' AND ended_by IN ('terminal_error', 'disconnect')";
    let again = "SELECT count(DISTINCT ticker) FROM coverage_open o \
                 WHERE channel = 'orderbook_delta' AND EXISTS (SELECT FROM coverage c \
                   WHERE c.ticker = o.ticker AND c.channel = o.channel \
                     AND c.ended_by IN ('terminal_error', 'disconnect'))";
    let count = i64::try_from(silent.len()).expect("a count");
    for database in ["g1", "g2"] {
        wait_for("every book's end", || (cluster.number(database, ended) >= count).then_some(()));
    }
    for database in ["g1", "g2"] {
        wait_for("every book again", || (cluster.number(database, again) >= count).then_some(()));
    }
    for process in &mut processes {
        assert!(process.stop().success(), "{}", process.log());
    }
    wait_merged(&cluster, "production", &["g1", "g2"]);
    assert!(merging.stop().success(), "{}", merging.log());
    let (code, told) = report(&dedup, &["gaps", "--since", "1h"]);
    assert_eq!(code, 2, "{}", shown(&told));
    let found = section(&told, "gaps")["findings"].as_array().expect("findings");
    let markets: BTreeSet<&str> = found.iter().map(|finding| text_of(&finding["market"])).collect();
    assert_eq!(markets, silent, "{}", shown(&told));
    for finding in found {
        assert_eq!(text_of(&finding["kind"]), "gap", "{finding}");
        let cause = text_of(&finding["cause"]);
        assert!(["terminal error", "disconnect"].contains(&cause), "{finding}");
        assert!((1.0..60.0).contains(&finding["seconds"].as_f64().expect("seconds")), "{finding}");
    }
}
