//! `verify counts`: rows by hour against what the gatherers brought, logs without holes, and positions
//! that are not ahead of what they count.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio_postgres::{Client, Transaction};

use super::books::first_since;
use super::ranges::Progress;
use super::report::{Figures, Finding, Findings, Section};
use super::scene::{Plans, Scene, Standing, Watched, connect};
use crate::model::{Log, Micros};
use crate::pg::migrate::Schema;

const HOUR_MICROS: i64 = 3_600_000_000;
/// Holes of one log that are listed.
const HOLES_MAX: i64 = 100;

/// The time by which production's rows are counted: that of their identity, else their gatherer's clock.
const fn time_column(log: Log) -> &'static str {
    match log {
        Log::Trades | Log::OrderbookDeltas | Log::Tickers => "exchange_ts",
        Log::OrderbookSnapshots => "received_at",
        Log::MarketLifecycle => "coalesce(exchange_ts, received_at)",
        Log::Coverage => "covered_from",
    }
}

/// What gatherers brought of a log in an hour, beside production's rows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Hour {
    in_production: i64,
    /// By gatherer: offered, duplicates, alone.
    brought: BTreeMap<String, (i64, i64, i64)>,
}

/// Runs the check.
///
/// # Errors
/// When production does not answer, or a gatherer that did a moment ago does not any more.
pub async fn check(scene: Arc<Scene>) -> anyhow::Result<Section> {
    let mut section = Section::new("counts");
    section.errors = scene.away();
    let mut findings = Findings::default();
    let answering = scene.gatherers.iter().filter(|gatherer| gatherer.standing.is_ok()).count();
    let steps = Log::ALL.len() * (2 + answering);
    let progress = Progress::new("logs", u64::try_from(steps).unwrap_or(1));

    let mut client = scene.session(Plans::Free).await?;
    let mut table = Figures {
        title: "rows by hour".to_owned(),
        header: ["table", "hour", "production", "gatherer", "offered", "alone"]
            .map(str::to_owned)
            .to_vec(),
        rows: Vec::new(),
    };
    let mut figures = Vec::new();
    for log in Log::ALL {
        // Rows and what is counted of them move in one transaction, so that one moment sees both.
        let tx = moment(&mut client).await?;
        for (at, hour) in hours(&tx, &scene, log).await? {
            figures.push(told(log, at, &hour, &mut table));
            findings_of(log, at, &hour, &mut findings);
        }
        tx.rollback().await.context("end the moment")?;
        progress.rows(1);
        dense_production(&mut client, &scene, log, &mut findings).await?;
        progress.rows(1);
    }
    consumers(&client, &mut findings).await?;
    let mut logs = Vec::new();
    for watched in &scene.gatherers {
        let Ok(standing) = &watched.standing else { continue };
        let own = connect(&watched.target, Schema::Gatherer, Plans::Free).await?;
        for log in Log::ALL {
            logs.push(
                gatherer_log(&own, &client, &scene, watched, standing, log, &mut findings).await?,
            );
            progress.rows(1);
        }
        noted(watched, standing, &mut findings);
    }
    progress.end();
    section.tables.push(table);
    section.figures = json!({"hours": figures, "gatherers": logs});
    section.found(findings);
    Ok(section)
}

/// A transaction that sees one state of the database throughout.
async fn moment(client: &mut Client) -> anyhow::Result<Transaction<'_>> {
    let builder = client.build_transaction().read_only(true);
    let level = tokio_postgres::IsolationLevel::RepeatableRead;
    builder.isolation_level(level).start().await.context("begin")
}

/// The whole hours that touch the range and were not dropped, with production's rows and those brought.
async fn hours(
    tx: &Transaction<'_>,
    scene: &Scene,
    log: Log,
) -> anyhow::Result<BTreeMap<i64, Hour>> {
    let name = log.name();
    let kept = scene.kept_from.get(name).copied().unwrap_or(i64::MIN);
    // The hour in which was dropped has lost a part of its rows.
    let kept = if kept == i64::MIN { kept } else { kept.div_euclid(HOUR_MICROS) + 1 };
    let from = scene.since.div_euclid(HOUR_MICROS).max(kept).saturating_mul(HOUR_MICROS);
    let to = (scene.until.div_euclid(HOUR_MICROS) + 1).saturating_mul(HOUR_MICROS);
    let mut hours: BTreeMap<i64, Hour> = BTreeMap::new();
    let time = time_column(log);
    let sql = format!(
        "SELECT {time} / {HOUR_MICROS} * {HOUR_MICROS}, count(*) FROM {name} \
         WHERE {time} >= $1 AND {time} < $2 GROUP BY 1"
    );
    for row in tx.query(&sql, &[&from, &to]).await.with_context(|| format!("count {name}"))? {
        hours.entry(row.try_get(0)?).or_default().in_production = row.try_get(1)?;
    }
    let sql = "SELECT hour, gatherer, offered, duplicates, alone FROM contributions \
               WHERE table_name = $1 AND hour >= $2 AND hour < $3";
    let rows = tx.query(sql, &[&name, &from, &to]).await.context("read contributions")?;
    for row in rows {
        let hour = hours.entry(row.try_get(0)?).or_default();
        let figures = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        hour.brought.insert(row.try_get(1)?, figures);
    }
    Ok(hours)
}

fn told(log: Log, at: i64, hour: &Hour, table: &mut Figures) -> serde_json::Value {
    let time: String = Micros(at).to_string().chars().take(13).collect();
    let mut gatherers = Vec::new();
    for (gatherer, (offered, duplicates, alone)) in &hour.brought {
        let numbers = [
            hour.in_production.to_string(),
            gatherer.clone(),
            offered.to_string(),
            alone.to_string(),
        ];
        table.rows.push([log.name().to_owned(), time.clone()].into_iter().chain(numbers).collect());
        gatherers.push(json!({
            "gatherer": gatherer, "offered": offered, "duplicates": duplicates, "alone": alone,
        }));
    }
    json!({
        "table": log.name(),
        "hour": Micros(at).to_string(),
        "production": hour.in_production,
        "gatherers": gatherers,
    })
}

fn findings_of(log: Log, at: i64, hour: &Hour, findings: &mut Findings) {
    let brought: i64 =
        hour.brought.values().map(|(offered, duplicates, _)| offered - duplicates).sum();
    if brought == hour.in_production {
        return;
    }
    let kind = if hour.in_production < brought { "rows_missing" } else { "rows_surplus" };
    let detail = format!(
        "production has {} rows of this hour, of which its gatherers brought {brought}",
        hour.in_production
    );
    findings.push(
        Finding::new(kind, detail)
            .table(log.name())
            .from(at)
            .to(at + HOUR_MICROS)
            .rows(Some(brought - hour.in_production)),
    );
}

/// The statement that finds what is not dense in a log from `$1` on: each row whose number is not one
/// more than that before, with both. An index has the numbers in order.
fn holes_sql(log: Log) -> String {
    format!(
        "SELECT before, log_seq FROM (SELECT log_seq, lag(log_seq, 1, $1::bigint - 1) OVER (ORDER BY log_seq) \
           AS before FROM {log} WHERE log_seq >= $1 AND log_seq <= $2) AS rows \
         WHERE log_seq <> before + 1 ORDER BY log_seq LIMIT {HOLES_MAX}"
    )
}

fn hole(log: Log, gatherer: Option<&str>, before: i64, after: i64) -> Finding {
    let finding = if after == before {
        let detail = format!("two rows have the number {after}");
        Finding::new("log_seq_twice", detail).rows(Some(-1))
    } else {
        let (first, last) = (before + 1, after - 1);
        let detail =
            format!("rows {first} to {last} are not there: numbers are given without a hole");
        Finding::new("log_seq_hole", detail).rows(Some(last - before))
    };
    let finding = finding.table(log.name());
    match gatherer {
        Some(gatherer) => finding.gatherer(gatherer),
        None => finding,
    }
}

/// Holes in a log of production, from the first row that is of the range on, and its head.
async fn dense_production(
    client: &mut Client,
    scene: &Scene,
    log: Log,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let (name, time) = (log.name(), time_column(log));
    let tx = moment(client).await?;
    let sql = "SELECT head FROM logs WHERE name = $1";
    let head: i64 = tx.query_one(sql, &[&name]).await.context("read head")?.try_get(0)?;
    let sql = format!("SELECT max(log_seq) FROM {name}");
    let last: Option<i64> = tx.query_one(&sql, &[]).await.context("read last row")?.try_get(0)?;
    let is_whole = !scene.kept_from.contains_key(name);
    let sql = format!("SELECT min(log_seq) FROM {name} WHERE {time} >= $1");
    // Where nothing was dropped, numbers begin at 1; a range begins with its first row.
    let first: Option<i64> = tx.query_one(&sql, &[&scene.since]).await?.try_get(0)?;
    let from = if is_whole && scene.recorded_from.is_none_or(|at| at >= scene.since) {
        Some(1)
    } else {
        first
    };
    if last.is_none_or(|last| last != head) && (head > 0 && is_whole || last.is_some()) {
        let there = last.unwrap_or(0);
        let detail = format!("the head is {head}, the last row that is there {there}");
        findings.push(Finding::new("head", detail).table(name).rows(Some(head - there)));
    }
    if let Some(from) = from.filter(|from| *from <= head) {
        tx.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off").await?;
        let rows = tx.query(&holes_sql(log), &[&from, &head]).await;
        for row in rows.with_context(|| format!("look for holes in {name}"))? {
            findings.push(hole(log, None, row.try_get(0)?, row.try_get(1)?));
        }
    }
    tx.rollback().await.context("end the moment")
}

/// Who reads production, the archive for one, is never ahead of it.
async fn consumers(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let sql = "SELECT c.name, c.table_name, c.position, l.head FROM consumers c \
               JOIN logs l ON l.name = c.table_name WHERE c.position > l.head";
    for row in client.query(sql, &[]).await.context("read consumers")? {
        let (name, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (position, head): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let detail = format!(
            "consumer {name} is said to have passed row {position}, the log ends at {head}"
        );
        let finding = Finding::new("consumer_ahead", detail).table(&table);
        findings.push(finding.rows(Some(position - head)));
    }
    Ok(())
}

/// One log of a gatherer: dense, its head right, and production's cursor in it.
async fn gatherer_log(
    own: &Client,
    production: &Client,
    scene: &Scene,
    watched: &Watched,
    standing: &Standing,
    log: Log,
    findings: &mut Findings,
) -> anyhow::Result<serde_json::Value> {
    let name = log.name();
    let state =
        standing.logs.get(&log).with_context(|| format!("find {name} of {}", watched.id))?;
    let (kept_from, head) = (state.kept_from, state.head);
    let from = if kept_from == 1 && scene.recorded_from.is_none_or(|at| at >= scene.since) {
        kept_from
    } else {
        first_since(own, log, kept_from, head, scene.since).await?
    };
    if from <= head {
        let rows = own.query(&holes_sql(log), &[&from, &head]).await;
        for row in rows.with_context(|| format!("look for holes in {name} of {}", watched.id))? {
            findings.push(hole(log, Some(&watched.id), row.try_get(0)?, row.try_get(1)?));
        }
        let sql = format!("SELECT max(log_seq) FROM {name} WHERE log_seq <= $1");
        let last: Option<i64> = own.query_one(&sql, &[&head]).await?.try_get(0)?;
        let last = last.unwrap_or(kept_from - 1);
        if last < head {
            let detail = format!("the head is {head}, the last row that is there {last}");
            let finding = Finding::new("head", detail).table(name).gatherer(&watched.id);
            findings.push(finding.rows(Some(head - last)));
        }
    }
    // The cursor first, the head after it: the log may have grown meanwhile, and only that.
    let sql = "SELECT position, past_retention FROM sync_cursors \
               WHERE gatherer = $1 AND table_name = $2 AND log_id = $3";
    let cursor = production.query_opt(sql, &[&watched.id, &name, &state.log_id]).await;
    let cursor = cursor.context("read cursor")?;
    let row = own.query_one("SELECT head FROM logs WHERE name = $1", &[&name]).await;
    let head_now: i64 = row.context("read head")?.try_get(0)?;
    let position: Option<i64> = cursor.map(|row| row.try_get(0)).transpose()?;
    if let Some(position) = position {
        if position > head_now {
            let detail = format!(
                "production's cursor is at {position}, the gatherer's log ends at {head_now}"
            );
            let finding = Finding::new("cursor_ahead", detail).table(name).gatherer(&watched.id);
            findings.push(finding.rows(Some(position - head_now)));
        } else {
            skipped(production, watched, log, kept_from, findings).await?;
        }
    }
    Ok(json!({
        "gatherer": watched.id,
        "table": name,
        "head": head_now,
        "kept_from": kept_from,
        "position": position,
        "lag_rows": (head_now - position.unwrap_or(0)).max(0),
    }))
}

/// A cursor counts rows, and so does what was brought of them: a cursor that was set ahead, or back,
/// has passed another number. Rows that the gatherer had dropped unread are passed too.
async fn skipped(
    production: &Client,
    watched: &Watched,
    log: Log,
    kept_from: i64,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let name = log.name();
    let sql = "SELECT coalesce(sum(position), 0)::bigint, coalesce(sum(past_retention), 0)::bigint, \
                 (SELECT coalesce(sum(offered), 0)::bigint FROM contributions \
                  WHERE gatherer = $1 AND table_name = $2) \
               FROM sync_cursors WHERE gatherer = $1 AND table_name = $2";
    let row = production.query_one(sql, &[&watched.id, &name]).await.context("add up cursors")?;
    let (passed, old, offered): (i64, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let unread = passed - old - offered;
    let dropped = if kept_from > 1 { kept_from - 1 } else { 0 };
    if unread > dropped || unread < 0 {
        let detail = format!(
            "production's cursors have passed {passed} rows, of which {offered} were read and {old} were \
             too old: a cursor was moved by hand, or rows were passed over"
        );
        let finding = Finding::new("cursor_moved", detail).table(name).gatherer(&watched.id);
        findings.push(finding.rows(Some(unread)));
    }
    Ok(())
}

/// What the gatherer was told of its reader's progress lets it drop rows: never more than were merged.
fn noted(watched: &Watched, standing: &Standing, findings: &mut Findings) {
    for (consumer, table, position) in &standing.consumers {
        let Some(state) = Log::from_name(table).and_then(|log| standing.logs.get(&log)) else {
            continue;
        };
        if *position > state.head {
            let head = state.head;
            let detail = format!(
                "consumer {consumer} is said to have passed row {position}, the log ends at {head}"
            );
            let finding = Finding::new("consumer_ahead", detail).table(table).gatherer(&watched.id);
            findings.push(finding.rows(Some(position - head)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_right_when_what_was_brought_is_there() {
        let brought = |offered, duplicates| (offered, duplicates, 0);
        let hour = |in_production| Hour {
            in_production,
            brought: [("g1".to_owned(), brought(10, 0)), ("g2".to_owned(), brought(12, 9))].into(),
        };
        let found = |in_production| {
            let mut findings = Findings::default();
            findings_of(Log::Trades, 0, &hour(in_production), &mut findings);
            findings.listed.first().map(|finding| (finding.kind, finding.rows))
        };
        assert_eq!(found(13), None);
        assert_eq!(found(12), Some(("rows_missing", Some(1))));
        assert_eq!(found(14), Some(("rows_surplus", Some(-1))));
    }

    #[test]
    fn a_hole_and_a_number_given_twice_are_told_apart() {
        assert_eq!(hole(Log::Trades, None, 4, 8).rows, Some(3));
        assert_eq!(hole(Log::Trades, Some("g"), 4, 4).kind, "log_seq_twice");
    }
}
