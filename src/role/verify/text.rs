//! The report as people read it on a terminal.

use comfy_table::{Cell, Table, presets};

use super::report::{Figures, Finding, Report, Section};

/// Findings of a check that are shown; the JSON has more.
const SHOWN_MAX: usize = 50;
/// Rows of figures that are shown.
const ROWS_MAX: usize = 60;

/// The whole report; no trailing space on any line.
pub fn text(report: &Report) -> String {
    let mut text = format!("{} to {}\n", report.since, report.until);
    for section in &report.checks {
        text.push('\n');
        text.push_str(&of_section(section));
    }
    text.push_str(&format!("\n{}\n", verdict(report)));
    text
}

/// One line a check and the verdict, for `all`.
pub fn summary(report: &Report) -> String {
    let mut text = format!("{} to {}\n", report.since, report.until);
    for section in &report.checks {
        let Section { check, status, findings_total, elapsed_seconds, .. } = section;
        text.push_str(&format!(
            "{check}: {status}, {findings_total} findings, {elapsed_seconds:.1} s\n"
        ));
        for finding in section.findings.iter().take(3) {
            text.push_str(&format!("  {}\n", line(finding)));
        }
        for note in &section.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        for error in &section.errors {
            text.push_str(&format!("  could not tell: {error}\n"));
        }
    }
    text.push_str(&format!("{}\n", verdict(report)));
    text
}

fn verdict(report: &Report) -> String {
    match report.status {
        "holds" => "Nothing was found in all that was judged.".to_owned(),
        "unknown" => "Nothing was found, but not everything could be told.".to_owned(),
        _ => format!("{} findings.", report.findings_total),
    }
}

fn of_section(section: &Section) -> String {
    let Section { check, status, findings_total, .. } = section;
    let mut text = format!("{check}: {status}, {findings_total} findings\n");
    for figures in &section.tables {
        text.push_str(&of_figures(figures));
    }
    if !section.findings.is_empty() {
        text.push_str(&of_findings(&section.findings, *findings_total));
    }
    for note in &section.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for error in &section.errors {
        text.push_str(&format!("could not tell: {error}\n"));
    }
    text
}

fn new(header: &[String]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn of_figures(figures: &Figures) -> String {
    if figures.rows.is_empty() {
        return String::new();
    }
    let mut table = new(&figures.header);
    // The last ones are the latest, and the totals.
    let skipped = figures.rows.len().saturating_sub(ROWS_MAX);
    for row in figures.rows.iter().skip(skipped) {
        table.add_row(row.iter().map(Cell::new));
    }
    let mut text = format!("{}\n{}", figures.title, lines(&table));
    if skipped > 0 {
        text.push_str(&format!("  ({skipped} rows before these: --format json)\n"));
    }
    text
}

fn of_findings(findings: &[Finding], total: u64) -> String {
    let header = ["kind", "where", "from", "to", "seconds", "rows", "cause"].map(str::to_owned);
    let mut table = new(&header);
    let shown = findings.len().min(SHOWN_MAX);
    for finding in findings.iter().take(shown) {
        let from = finding.from.clone().unwrap_or_default();
        let to = finding.to.clone().unwrap_or_default();
        let seconds = finding.seconds.map(|seconds| format!("{seconds:.3}")).unwrap_or_default();
        let rows = finding.rows.map(|rows| rows.to_string()).unwrap_or_default();
        let cause = finding.cause.clone().unwrap_or_default();
        let cells = [finding.kind.to_owned(), place(finding), from, to, seconds, rows, cause];
        table.add_row(cells.iter().map(Cell::new));
    }
    let mut text = lines(&table);
    for finding in findings.iter().take(shown) {
        text.push_str(&format!("  {}: {}\n", place(finding), finding.detail));
    }
    let more = total.saturating_sub(u64::try_from(shown).unwrap_or_default());
    if more > 0 {
        text.push_str(&format!("  ({more} more: --format json)\n"));
    }
    text
}

fn place(finding: &Finding) -> String {
    let Finding { market, channel, table, gatherer, trade_id, .. } = finding;
    // A market's own name says more than the channel of its book.
    let channel = channel.as_ref().filter(|_| market.is_none());
    let parts = [market.as_ref(), channel, table.as_ref(), gatherer.as_ref(), trade_id.as_ref()];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn line(finding: &Finding) -> String {
    let from = finding.from.as_deref().unwrap_or_default();
    format!("{} {} {from}: {}", finding.kind, place(finding), finding.detail)
}

fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_their_place_and_detail() {
        let mut section = Section::new("gaps");
        section.findings = vec![
            Finding::new("gap", "g1: restart")
                .market("KXA-1")
                .channel("orderbook_delta")
                .from(1_785_901_540_000_000)
                .to(1_785_901_543_000_000)
                .rows(Some(7))
                .cause("restart"),
        ];
        section.findings_total = 60;
        section.notes.push("a note".to_owned());
        let report = Report {
            at: "now".to_owned(),
            since: "a".to_owned(),
            until: "b".to_owned(),
            status: "discrepancy",
            findings_total: 60,
            checks: vec![section],
        };
        let text = text(&report);
        for part in [
            "gaps: holds, 60 findings",
            "KXA-1",
            "2026-08-05T03:45:40",
            "3.000",
            "KXA-1: g1: restart",
            "(59 more",
            "note: a note",
            "60 findings.",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.lines().all(|line| line.trim_end() == line));
        assert!(summary(&report).contains("  gap KXA-1 2026-08-05T03:45:40"));
    }
}
