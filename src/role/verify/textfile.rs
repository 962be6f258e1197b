//! The last run as metrics, in a file that node_exporter's textfile collector reads.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::report::{Report, real};
use crate::model::Micros;
use crate::ops::duration;

/// Writes the file so that a reader sees the old or the new one, never a part.
///
/// # Errors
/// When its directory cannot be written.
pub fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    let beside = path.with_extension(format!("prom.{}", std::process::id()));
    fs::write(&beside, text(report)).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("write {}", path.display()))
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, values: Vec<(String, f64)>| {
        let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            let _infallible = writeln!(text, "{name}{labels} {value}");
        }
    };
    let label = |check: &str| format!("{{check=\"{check}\"}}");
    let checks = || report.checks.iter();
    family(
        "kalshi_verify_last_run_timestamp_seconds",
        "When the last verification ended, Unix time.",
        vec![(String::new(), duration::seconds(Micros::now().0))],
    );
    family(
        "kalshi_verify_holds",
        "1 when the check found nothing and could tell everything.",
        checks().map(|c| (label(c.check), f64::from(u8::from(c.status == "holds")))).collect(),
    );
    family(
        "kalshi_verify_findings",
        "Findings of the check.",
        checks().map(|c| (label(c.check), real(c.findings_total))).collect(),
    );
    family(
        "kalshi_verify_errors",
        "Things that the check could not tell.",
        checks()
            .map(|c| (label(c.check), real(u64::try_from(c.errors.len()).unwrap_or_default())))
            .collect(),
    );
    family(
        "kalshi_verify_duration_seconds",
        "How long the check took.",
        checks().map(|c| (label(c.check), c.elapsed_seconds)).collect(),
    );
    let covered = checks().flat_map(|c| {
        c.figures.get("completeness").and_then(|v| v.as_array()).into_iter().flatten()
    });
    let covered = covered.filter(|row| row.get("day").is_some_and(|day| day == "total"));
    family(
        "kalshi_verify_covered_ratio",
        "Share of the seconds of a channel's markets that at least one gatherer covered.",
        covered
            .filter_map(|row| {
                let channel = row.get("channel")?.as_str()?;
                Some((format!("{{channel=\"{channel}\"}}"), row.get("covered")?.as_f64()?))
            })
            .collect(),
    );
    let exact =
        checks().filter_map(|c| c.figures.get("conservation")?.get("exact_share")?.as_f64());
    family(
        "kalshi_verify_trades_exact_ratio",
        "Share of the groups of trades that the book's changes equal exactly.",
        exact.map(|share| (String::new(), share)).collect(),
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::Section;
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_names_every_check() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kalshi_verify.prom");
        let mut gaps = Section::new("gaps");
        gaps.findings_total = 3;
        gaps.figures = json!({"completeness": [
            {"channel": "trade", "day": "2026-08-05", "covered": 0.1},
            {"channel": "trade", "day": "total", "covered": 0.5},
        ]});
        let checks = vec![gaps.settled(), Section::new("books").settled()];
        let (at, since, until) = (String::new(), String::new(), String::new());
        let report = Report { at, since, until, status: "discrepancy", findings_total: 3, checks };
        write(&path, &report).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for line in [
            "kalshi_verify_holds{check=\"gaps\"} 0",
            "kalshi_verify_holds{check=\"books\"} 1",
            "kalshi_verify_findings{check=\"gaps\"} 3",
            "kalshi_verify_covered_ratio{channel=\"trade\"} 0.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
