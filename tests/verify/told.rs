//! Runs `kalshi verify` and reads what it tells.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::support::KALSHI;

/// Runs `kalshi verify`; the output as it is.
pub fn verify(file: &Path, arguments: &[&str]) -> Output {
    let (check, more) = arguments.split_first().expect("a check");
    Command::new(KALSHI)
        .args(["verify", check, "--config"])
        .arg(file)
        .args(more)
        .output()
        .expect("run kalshi verify")
}

/// The same as JSON, with the exit code.
pub fn report(file: &Path, arguments: &[&str]) -> (i32, Value) {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
    let output = verify(file, &arguments);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report =
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}{errors}"));
    (output.status.code().expect("an exit code"), report)
}

/// Check, kind, and the market, channel or table of each finding, in order.
pub fn findings(report: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for check in report["checks"].as_array().expect("checks") {
        let listed = check["findings"].as_array().expect("findings");
        assert_eq!(check["findings_total"].as_u64(), Some(listed.len() as u64), "{check}");
        for finding in listed {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            let place = [text("market"), text("table"), text("gatherer")].join(" ");
            let line = format!("{} {} {place}", text_of(&check["check"]), text("kind"));
            all.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    all.sort();
    all
}

/// What was found and what could not be told, one a line: a whole report hides it.
pub fn shown(report: &Value) -> String {
    let mut lines = String::new();
    for check in report["checks"].as_array().expect("checks") {
        for line in ["findings", "errors"].iter().filter_map(|key| check[key].as_array()).flatten()
        {
            lines.push_str(&format!("\n{}: {line}", text_of(&check["check"])));
        }
    }
    lines
}

pub fn text_of(value: &Value) -> &str {
    value.as_str().expect("a text")
}

pub fn section<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name}"))
}
