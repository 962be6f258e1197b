//! Clients that others wrote, as they are published, against the simulated exchange: what holds for
//! them holds for the exchange that they were written for. A simulator that only our own adapter
//! agrees with proves nothing.
//!
//! `tests/clients/typescript` reads REST with the official client, `tests/clients/rust` streams with
//! a crate. Both print one JSON object; what they found wrong is in its `problems`.

#![allow(clippy::indexing_slicing, reason = "a report without one of its keys fails the test")]

mod support;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::Exchange;

const MARKETS: u64 = 60;

fn exchange() -> Exchange {
    Exchange::start(&["--markets", &MARKETS.to_string(), "--rate", "600", "--seed", "11"])
}

fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a command to its end and gives its output.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(out).expect("text")
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

/// Where what the package manager installs is kept between runs, outside of the repository.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    set.map_or_else(home, PathBuf::from).join("kalshi-tests")
}

/// The packages of the lock file, installed once for each content of it.
fn node_modules(source: &Path) -> PathBuf {
    for program in ["node", "npm"] {
        let found = Command::new(program).arg("--version").output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "{program} is missing: .ci/install test installs it (Debian: nodejs, npm)"
        );
    }
    let files = ["package.json", "package-lock.json", ".npmrc"];
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(source.join(file)).expect("read what is to be installed").hash(&mut hasher);
    }
    let kept = cache().join(format!("typescript-{:016x}", hasher.finish()));
    if !kept.is_dir() {
        // Made beside and renamed, so that what is there is complete.
        fs::create_dir_all(cache()).expect("make the cache");
        let fresh = tempfile::tempdir_in(cache()).expect("make a directory");
        for file in files {
            fs::copy(source.join(file), fresh.path().join(file)).expect("copy");
        }
        output(Command::new("npm").arg("ci").current_dir(fresh.path()));
        // Somebody else may have been faster.
        let renamed = fs::rename(fresh.path(), &kept);
        assert!(renamed.is_ok() || kept.is_dir(), "{renamed:?}");
    }
    kept.join("node_modules")
}

#[test]
fn the_official_typescript_client_reads_everything() {
    let source = client("typescript");
    // A directory of this run's own: scripts find packages beside themselves.
    let folder = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(node_modules(&source), folder.path().join("node_modules"))
        .expect("link the packages");
    for file in ["package.json", "check.mjs", "declared.mjs"] {
        fs::copy(source.join(file), folder.path().join(file)).expect("copy");
    }
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
