//! The whole platform as `kalshi sandbox` runs it: real input at many times its pace, with each
//! gatherer blinded in turn, with processes and databases dying, and with a database away.
//!
//! The verdict is the sandbox's own: the exchange's ledger against production, row for row, the books
//! folded from production alone, each gatherer's coverage against what it really has.

#![allow(clippy::indexing_slicing, reason = "a verdict without one of its keys fails the test")]

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "support/capture.rs"]
mod capture;

/// The executable under test.
const KALSHI: &str = env!("CARGO_BIN_EXE_kalshi");

/// Changes and trades in the capture's four windows.
const CAPTURED_DELTAS: u64 = 315_532;
const CAPTURED_TRADES: u64 = 5468;
/// What the exchange publishes besides: the difference where the capture's recorder had missed
/// frames before a snapshot in the middle of a window.
const REPAIRED_DELTAS: u64 = 44;

/// Runs the sandbox and gives its verdict.
fn sandbox(arguments: &[&str]) -> Value {
    let postgres = std::env::var_os("KALSHI_POSTGRES").filter(|dir| !dir.is_empty());
    let output = Command::new(KALSHI)
        .arg("sandbox")
        .args(postgres.iter().flat_map(|dir| [OsStr::new("--postgres"), dir]))
        .args(arguments)
        .args(["--format", "json"])
        .stdin(Stdio::null())
        .output()
        .expect("run the sandbox");
    let progress = String::from_utf8_lossy(&output.stderr);
    let verdict: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: no verdict, but\n{progress}"));
    println!("{verdict}");
    assert_eq!(verdict["verdict"], "complete", "{progress}");
    assert_eq!(output.status.code(), Some(0), "{progress}");
    assert_eq!(verdict["lost"], 0);
    assert_eq!(verdict["duplicated"], 0);
    assert_eq!(verdict["published"], verdict["production"]);
    assert_eq!(verdict["books_different"], 0);
    assert_eq!(verdict["logs_not_dense"], serde_json::json!([]));
    for gatherer in verdict["gatherers"].as_array().expect("gatherers") {
        assert_eq!(gatherer["coverage_violations"], 0, "{gatherer}");
    }
    verdict
}

/// Replays the capture at 20 times its pace with these faults.
fn replay(chaos: &[&str]) -> Value {
    let files = capture::windows();
    let mut arguments = vec!["--replay"];
    arguments.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    arguments.extend(["--speed", "20"]);
    arguments.extend(chaos);
    let verdict = sandbox(&arguments);
    assert_eq!(verdict["published"]["orderbook_deltas"], CAPTURED_DELTAS + REPAIRED_DELTAS);
    assert_eq!(verdict["published"]["trades"], CAPTURED_TRADES);
    // Four windows at their ends, and the places of the snapshots inside them.
    assert!(verdict["books_compared"].as_u64() >= Some(8), "{verdict}");
    verdict
}

/// How many changes a gatherer missed.
fn missed(verdict: &Value) -> Vec<u64> {
    let gatherers = verdict["gatherers"].as_array().expect("gatherers").iter();
    gatherers.map(|gatherer| gatherer["missed"].as_u64().expect("a number")).collect()
}

/// How often a fault struck.
fn struck(verdict: &Value, kind: &str) -> usize {
    let events = verdict["chaos"].as_array().expect("events").iter();
    events.filter(|event| event["kind"] == kind).count()
}

#[test]
fn real_input_arrives_whole_at_twenty_times_its_pace() {
    let verdict = replay(&[]);
    assert_eq!(missed(&verdict), [0, 0, 0]);
}

#[test]
fn production_is_complete_though_every_gatherer_misses_another_third() {
    let verdict = replay(&["--chaos", "cut", "--seed", "11"]);
    assert_eq!(struck(&verdict, "cut"), 3);
    for missed in missed(&verdict) {
        assert!(missed > CAPTURED_DELTAS / 20, "{verdict}");
    }
}

#[test]
fn killed_processes_and_databases_lose_and_double_nothing() {
    let kinds = "kill-gatherer,kill-dedup,kill-postgres";
    let verdict = replay(&["--chaos", kinds, "--seed", "11"]);
    for kind in kinds.split(',') {
        assert!(struck(&verdict, kind) >= 2, "{kind} in {verdict}");
    }
}

#[test]
fn a_database_away_for_a_minute_costs_time_and_no_frame() {
    let verdict = sandbox(&[
        "--markets",
        "100",
        "--rate",
        "800",
        "--duration",
        "100s",
        "--chaos",
        "stop-postgres",
        "--outage",
        "60s",
        "--seed",
        "5",
    ]);
    assert_eq!(missed(&verdict), [0, 0, 0]);
    let outages = verdict["chaos"].as_array().expect("events");
    assert!(!outages.is_empty());
    for outage in outages {
        assert!(outage["lasted_seconds"].as_f64() >= Some(60.0), "{outage}");
        assert!(outage["caught_up_seconds"].as_f64() < Some(30.0), "{outage}");
    }
}

/// A generated run with these faults, each of which must have struck.
fn trouble(kinds: &str, duration: &str, seed: &str) -> Value {
    let flow = ["--markets", "60", "--rate", "400", "--duration", duration];
    let verdict = sandbox(&[&flow[..], &["--chaos", kinds, "--seed", seed]].concat());
    for kind in kinds.split(',') {
        let events = verdict["chaos"].as_array().expect("events").iter();
        let really = events.filter(|event| event["kind"] == kind && event["skipped"].is_null());
        assert!(really.count() >= 1, "{kind} in {verdict}");
    }
    verdict
}

#[test]
fn streams_with_missing_doubled_and_senseless_frames_are_healed() {
    trouble("skip,repeat,reset,terminate,garbage,mangle,close-codes,ping-flood", "60s", "7");
}

#[test]
fn sockets_and_subscriptions_that_fall_silent_are_found_and_replaced() {
    trouble("stall,half-open,dead-sid,command-errors,command-timeouts", "100s", "7");
}

#[test]
fn refusals_storms_maintenance_and_churn_are_outlived() {
    trouble("refuse,rest,maintenance,churn,burst", "60s", "7");
}

#[test]
fn databases_that_misbehave_cost_time_and_no_row() {
    let kinds = "hang-database,cut-sessions,lock-database,slow-database,read-only,few-connections,\
                 wrong-password";
    let verdict = trouble(kinds, "75s", "7");
    assert_eq!(missed(&verdict), [0, 0, 0]);
    for kind in kinds.split(',') {
        assert_eq!(struck(&verdict, kind), 2, "{kind}: a gatherer's database and production");
    }
}

#[test]
fn production_and_the_deduplicator_may_die_at_any_stage_of_a_batch() {
    let verdict = trouble("kill-production,kill-dedup,crash-dedup", "75s", "7");
    assert_eq!(missed(&verdict), [0, 0, 0]);
    assert_eq!(struck(&verdict, "crash-dedup"), 5, "each of its stages");
}

#[test]
fn production_away_for_a_minute_delays_and_loses_nothing() {
    let verdict = trouble("stop-production", "30s", "7");
    assert_eq!(missed(&verdict), [0, 0, 0]);
}

#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let verdict = trouble("restart-gatherer", "45s", "7");
    assert_eq!(struck(&verdict, "restart-gatherer"), 3);
}

#[test]
fn a_gatherer_may_die_at_any_step_of_a_frame() {
    if !cfg!(feature = "failpoints") {
        panic!("build with --features failpoints, as make test does");
    }
    let verdict = trouble("crash-gatherer", "75s", "7");
    // Before the write, before the flush, before the decoding, in the batch, after the commit.
    assert_eq!(struck(&verdict, "crash-gatherer"), 5);
}

#[test]
fn a_wiped_database_is_filled_again_from_the_journal() {
    let verdict = sandbox(&[
        "--markets",
        "100",
        "--rate",
        "800",
        "--duration",
        "40s",
        "--chaos",
        "wipe-gatherer",
        "--seed",
        "5",
    ]);
    assert!(struck(&verdict, "wipe-gatherer") >= 1, "{verdict}");
}
