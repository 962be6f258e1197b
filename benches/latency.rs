//! How long a change takes from the exchange to production, with everything on this machine: the
//! simulated exchange, three gatherers with a PostgreSQL each, the deduplicator and production.
//!
//! A steady flow is held against the design's limit. The same mean in bursts of four times the rate
//! asks for four times the machine, so it is printed beside it: there a tail is work that waits for a
//! processor. What the host took away meanwhile is printed with both, for it is part of either.
//!
//! `make bench-latency`; options `--rate N`, `--markets N`, `--duration TIME`.

#[path = "support/mod.rs"]
mod figures;

use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What the design asks for, in milliseconds.
const P99_MAX: f64 = 500.0;

fn main() {
    let steady = run("1");
    let bursts = run("4");
    let p99 = |run: &Value| run.pointer("/latency_ms/p99").and_then(Value::as_f64);
    let complete = [&steady, &bursts]
        .iter()
        .all(|run| run.get("verdict").is_some_and(|verdict| verdict == "complete"));
    let steady_p99 = p99(&steady).unwrap_or(f64::INFINITY);
    println!(
        "{}",
        json!({ "bench": "latency", "p99_max_ms": P99_MAX, "steady": steady, "bursts": bursts })
    );
    if !complete || steady_p99 > P99_MAX {
        eprintln!("p99 {steady_p99:.0} ms of a steady flow, or an incomplete run");
        std::process::exit(1);
    }
}

/// A run of the sandbox, with bursts of `burst` times the rate.
fn run(burst: &str) -> Value {
    let rate: String = figures::option("--rate", "5000".to_owned());
    let markets: String = figures::option("--markets", "500".to_owned());
    let duration: String = figures::option("--duration", "60s".to_owned());
    let before = figures::machine_ticks();
    let output = Command::new(env!("CARGO_BIN_EXE_kalshi"))
        .args(["sandbox", "--rate", &rate, "--burst", burst])
        .args(["--markets", &markets, "--duration", &duration])
        .args(["--seed", "1", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("run the sandbox");
    let after = figures::machine_ticks();
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("a verdict as JSON");
    let field = |name: &str| verdict.get(name).cloned().unwrap_or_default();
    json!({
        "rate": rate,
        "burst": burst,
        "verdict": field("verdict"),
        "from": field("latency_from"),
        "latency_ms": field("latency_ms"),
        "cpu_busy_percent": figures::percent(after.busy - before.busy, after.all - before.all),
        "cpu_stolen_percent": figures::percent(after.stolen - before.stolen, after.all - before.all),
    })
}
