//! Clients that others wrote, as they are published, against the simulated exchange: what holds for
//! them holds for the exchange that they were written for. A simulator that only our own adapter
//! agrees with proves nothing.
//!
//! `tests/clients/typescript` reads REST with the official client, `tests/clients/rust` streams with
//! a crate. Both print one JSON object; what they found wrong is in its `problems`.

#![allow(clippy::indexing_slicing, reason = "a report without one of its keys fails the test")]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::Exchange;
use support::node::{client, output, typescript};

const MARKETS: u64 = 60;

fn exchange() -> Exchange {
    Exchange::start(&["--markets", &MARKETS.to_string(), "--rate", "600", "--seed", "11"])
}

/// Runs a client against the exchange, under its first key, and gives what it reports.
fn report(command: &mut Command, exchange: &Exchange) -> Value {
    let (key_id, key_file) = exchange.keys.first().expect("a key");
    let text = output(command.args([&exchange.rest_url, key_id, key_file]));
    let report: Value = serde_json::from_str(&text).expect("a JSON object");
    println!("{report:#}");
    assert_eq!(report["problems"], json!([]), "{report:#}");
    report
}

fn count(report: &Value, pointer: &str) -> u64 {
    let number = report.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} in {report:#}"))
}

#[test]
fn the_official_typescript_client_reads_everything() {
    let folder = typescript();
    let exchange = exchange();
    let report =
        report(Command::new("node").arg("check.mjs").current_dir(folder.path()), &exchange);

    assert_eq!(report["client"], "kalshi-typescript 3.30.0");
    assert!(count(&report, "/markets") >= MARKETS);
    assert!(count(&report, "/trades") > 0 && count(&report, "/levels") > 0);
    assert_eq!(count(&report, "/books"), count(&report, "/open_markets").min(100));
    // All properties that the client requires were there, and more than one page was compared.
    for name in ["Market", "EventData", "Series", "Trade", "OrderbookCountFp"] {
        let of = |key: &str| count(&report, &format!("/interfaces/{name}/{key}"));
        assert!(of("properties_seen") >= of("required"), "{name}: {report:#}");
        assert!(of("values") > 0, "{name}: {report:#}");
    }
    // Production sent it in August 2026 as well, and another client requires it.
    assert_eq!(report["undeclared"], json!(["EventData.available_on_brokers"]));
}

#[test]
fn a_rust_client_streams_and_folds_the_books() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    output(
        Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(client("rust").join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    );
    let exchange = exchange();
    let report = report(&mut Command::new(target.join("debug/kalshi-client-check")), &exchange);

    let markets = count(&report, "/markets");
    assert_eq!(report["client"], "kalshi-trade-rs 0.6.0");
    assert_eq!(count(&report, "/subscriptions"), 4);
    assert!(count(&report, "/snapshots") >= markets);
    assert!(count(&report, "/deltas") > 0 && count(&report, "/trades") > 0);
    assert!(count(&report, "/tickers") > 0 && report["lifecycle"] != json!({}));
    assert_eq!(count(&report, "/books_equal_to_rest"), markets.min(40));
    assert!(count(&report, "/levels_equal_to_rest") > 0);
    assert!(count(&report, "/trades_equal_to_rest") > 0);
    // One reply stood between the messages of a subscription: the `ok` to the markets added.
    assert_eq!(report["numbers_of_replies"], json!({"orderbook_snapshot": 1}));
}
