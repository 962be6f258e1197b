//! The status as people read it on a terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::status::{Cursor, Gatherer, Log, Status};

/// Tables with what is wrong below them; no trailing space on any line.
pub fn text(status: &Status) -> String {
    let mut text =
        format!("production {}: {}\n", status.production.database, status.production.state);
    if let Some(error) = &status.production.error {
        text.push_str(&format!("  {error}\n"));
    }
    if let Some(writer) = &status.writer {
        let since = writer.since.as_deref().unwrap_or("never");
        let state = if writer.is_running { "running" } else { "not running" };
        let holder = if writer.holder.is_empty() { "nobody yet" } else { &writer.holder };
        let epoch = writer.epoch;
        text.push_str(&format!("writer: {holder} ({state}), epoch {epoch}, since {since}\n"));
    }
    for gatherer in &status.gatherers {
        text.push_str(&gatherer_text(gatherer));
    }
    if !status.tables.is_empty() {
        text.push('\n');
        text.push_str(&lines(&tables(&status.tables)));
    }
    text.trim_end().to_owned()
}

fn gatherer_text(gatherer: &Gatherer) -> String {
    let place = &gatherer.place;
    let mut text = format!("\n{} {}: {}\n", gatherer.gatherer, place.database, place.state);
    if let Some(error) = &place.error {
        text.push_str(&format!("  {error}\n"));
    }
    let mut table =
        new(["table", "position", "head", "lag rows", "lag", "last sync", "state"], 1..6);
    for log in &gatherer.logs {
        table.add_row(cursor(log));
    }
    text.push_str(&lines(&table));
    text
}

fn cursor(log: &Cursor) -> Vec<Cell> {
    let number = |value: Option<i64>| right(value.map_or("?".to_owned(), |n| n.to_string()));
    let ago = match (log.synced_seconds_ago, log.position) {
        (Some(ago), _) => format!("{} ago", span(ago)),
        (None, Some(_)) => "never".to_owned(),
        // Production knows, and does not answer.
        (None, None) => "?".to_owned(),
    };
    let mut state = log.state.to_owned();
    if log.past_retention > 0 {
        state.push_str(&format!(", {} past retention", log.past_retention));
    }
    vec![
        Cell::new(log.table),
        number(log.position),
        number(log.head),
        number(log.lag_rows),
        right(log.lag_seconds.map_or("?".to_owned(), span)),
        right(ago),
        Cell::new(state),
    ]
}

fn tables(logs: &[Log]) -> Table {
    let mut table = new(
        ["production", "head", "partitions", "from", "to", "kept", "dropped before", "consumers"],
        1..3,
    );
    let day = |time: &Option<String>| {
        time.as_deref().map_or("-", |t| t.get(..10).unwrap_or(t)).to_owned()
    };
    for log in logs {
        let kept =
            log.retention_seconds.map_or("forever".to_owned(), |seconds| {
                match u32::try_from(seconds) {
                    Ok(seconds) => span(f64::from(seconds)),
                    Err(_) => format!("{seconds} s"),
                }
            });
        let consumers: Vec<String> = log
            .consumers
            .iter()
            .map(|c| format!("{} at {} ({} behind)", c.name, c.position, c.lag_rows))
            .collect();
        table.add_row([
            Cell::new(log.table),
            right(log.head.to_string()),
            right(log.partitions.map_or("-".to_owned(), |count| count.to_string())),
            Cell::new(day(&log.partitions_from)),
            Cell::new(day(&log.partitions_to)),
            Cell::new(kept),
            Cell::new(day(&log.kept_from)),
            Cell::new(if consumers.is_empty() { "-".to_owned() } else { consumers.join(", ") }),
        ]);
    }
    table
}

fn new<const N: usize>(header: [&str; N], right_aligned: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().enumerate().map(|(at, name)| {
        if right_aligned.contains(&at) { right((*name).to_owned()) } else { Cell::new(name) }
    }));
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `0.4 s`, `12 s`, `3 min`, `5 h`, `90 d`.
fn span(seconds: f64) -> String {
    const UNITS: [(f64, f64, &str); 4] =
        [(10.0, 1.0, "s"), (120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172_800.0, 3600.0, "h")];
    match UNITS.iter().position(|(below, ..)| seconds < *below) {
        Some(0) => format!("{seconds:.1} s"),
        Some(at) => {
            let (_, unit, name) = UNITS.get(at).copied().unwrap_or((0.0, 1.0, "s"));
            format!("{:.0} {name}", seconds / unit)
        }
        None => format!("{:.0} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_unit_that_fits() {
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (9.9, "9.9 s"),
            (12.0, "12 s"),
            (600.0, "10 min"),
            (36_000.0, "10 h"),
            (7_776_000.0, "90 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
