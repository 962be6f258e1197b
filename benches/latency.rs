//! How long a change takes from the exchange to production, with everything on this machine: the
//! simulated exchange, three gatherers with a PostgreSQL each, the deduplicator and production.
//!
//! `make bench-latency`; options `--rate N`, `--markets N`, `--duration TIME`.

#[path = "support/mod.rs"]
mod figures;

use std::process::{Command, Stdio};

/// What the design asks for, in milliseconds.
const P99_MAX: f64 = 500.0;

fn main() {
    let rate: String = figures::option("--rate", "5000".to_owned());
    let markets: String = figures::option("--markets", "500".to_owned());
    let duration: String = figures::option("--duration", "60s".to_owned());
    let output = Command::new(env!("CARGO_BIN_EXE_kalshi"))
        .args(["sandbox", "--rate", &rate, "--markets", &markets, "--duration", &duration])
        .args(["--seed", "1", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("run the sandbox");
    let verdict: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("a verdict as JSON");
    let field = |name: &str| verdict.get(name).cloned().unwrap_or_default();
    let latency = field("latency_ms");
    let p99 = latency.get("p99").and_then(serde_json::Value::as_f64).unwrap_or(f64::INFINITY);
    println!(
        "{}",
        serde_json::json!({
            "bench": "latency",
            "rate": rate,
            "verdict": field("verdict"),
            "from": field("latency_from"),
            "latency_ms": latency,
            "p99_max_ms": P99_MAX,
        })
    );
    if !output.status.success() || p99 > P99_MAX {
        eprintln!("p99 {p99:.0} ms, or an incomplete run");
        std::process::exit(1);
    }
}
