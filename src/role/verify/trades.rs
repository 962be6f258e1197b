//! `verify trades`: a trade takes resting contracts off the book, so the trades of one millisecond at
//! one level must be there as changes too. Trades and changes thus prove each other complete.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;

use super::coverage::{Roster, around, has_known_hole, of_book};
use super::ranges::{Part, Progress, divide, each};
use super::report::{Figures, Finding, Findings, Section, real};
use super::scene::{Plans, Scene};
use crate::model::{Log, Micros, Price, Size};
use crate::pg::copy_out::CopyOut;

/// Groups of a part that no change explains and that are looked into; more are counted.
const UNEXPLAINED_MAX: usize = 1000;

/// The trades of one millisecond at one level.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    ticker: String,
    millis: i64,
    /// The side of the book that it took from: true is yes.
    maker_yes: bool,
    price: i64,
    size: i64,
    trades: i64,
    /// What changes of that millisecond took off the level.
    taken: i64,
    received_at: i64,
}

#[derive(Debug, Default)]
struct Found {
    findings: Findings,
    exact: u64,
    partial: u64,
    unexplained: u64,
    known_holes: u64,
}

impl Found {
    fn count(&mut self, group: &Group) -> bool {
        match group.taken {
            taken if taken == group.size => self.exact += 1,
            0 => {
                self.unexplained += 1;
                return true;
            }
            _ => self.partial += 1,
        }
        false
    }

    fn groups(&self) -> u64 {
        self.exact + self.partial + self.unexplained
    }
}

struct Common {
    scene: Arc<Scene>,
    roster: Roster,
    progress: Progress,
    since: i64,
    until: i64,
}

async fn work(common: Arc<Common>, part: Part) -> anyhow::Result<Found> {
    let Common { scene, roster, progress, since, until } = common.as_ref();
    // The taker on yes takes the no level at the trade's yes-leg price, and the other way round. The
    // changes of a trade are a few neighbours in the primary key, of one partition.
    let sql = format!(
        "SELECT g.ticker, g.millis, g.maker_yes, g.price, g.size, g.trades, g.received_at, \
           coalesce((SELECT -sum(d.size_delta) FROM orderbook_deltas d \
             WHERE d.ticker = g.ticker AND d.exchange_ts >= g.millis * 1000 \
               AND d.exchange_ts < g.millis * 1000 + 1000 AND d.side = g.maker_yes \
               AND d.price = g.price AND d.size_delta < 0), 0)::bigint \
         FROM (SELECT ticker, exchange_ts / 1000 AS millis, NOT taker_side AS maker_yes, price, \
                 sum(size)::bigint AS size, count(*) AS trades, min(received_at) AS received_at \
               FROM trades \
               WHERE {} AND exchange_ts >= {since} AND exchange_ts < {until} AND received_at < {until_clock} \
                 AND NOT is_block_trade AND taker_side IS NOT NULL \
               GROUP BY 1, 2, 3, 4) AS g",
        part.range.sql("ticker"),
        until_clock = scene.merged_until(Log::OrderbookDeltas),
    );
    let client = scene.session(Plans::Free).await?;
    client.batch_execute("SET enable_hashjoin = off; SET enable_mergejoin = off").await?;
    let mut rows = CopyOut::open(&client, &sql).await.context("read trades")?;
    let mut found = Found::default();
    let mut unexplained = Vec::new();
    let (mut read, mut told) = (0, 0);
    while rows.advance().await.context("read trades")? {
        let mut row = rows.row();
        let group = Group {
            ticker: row.text()?.to_owned(),
            millis: row.i64()?,
            maker_yes: row.bool()?,
            price: row.i64()?,
            size: row.i64()?,
            trades: row.i64()?,
            received_at: row.i64()?,
            taken: row.i64()?,
        };
        read += u64::try_from(group.trades).unwrap_or_default();
        if found.count(&group) && unexplained.len() < UNEXPLAINED_MAX {
            unexplained.push(group);
        }
        if read >= told + 1000 {
            progress.rows(read - told);
            told = read;
        }
    }
    drop(rows);
    progress.rows(read - told);
    progress.part(part.rows, read);
    let over = found.unexplained - u64::try_from(unexplained.len()).unwrap_or_default();
    for group in unexplained {
        let span = around(group.millis.saturating_mul(1000), group.received_at);
        let seen = of_book(scene, &client, roster, &group.ticker, span).await?;
        if has_known_hole(&seen, span) {
            found.unexplained -= 1;
            found.known_holes += 1;
        } else {
            found.findings.push(finding(&group));
        }
    }
    found.findings.total += over;
    Ok(found)
}

fn finding(group: &Group) -> Finding {
    let side = if group.maker_yes { "yes" } else { "no" };
    let (price, size) = (Price::from_micros(group.price), Size::from_hundredths(group.size));
    let detail = format!(
        "{} of {size} contracts took from the {side} level at {price}, of which no change of that \
         millisecond says anything",
        if group.trades == 1 { "a trade".to_owned() } else { format!("{} trades", group.trades) }
    );
    let from = group.millis.saturating_mul(1000);
    Finding::new("unexplained_trade", detail).market(&group.ticker).from(from).to(from + 1000)
}

/// Runs the check.
///
/// # Errors
/// When production does not answer.
pub async fn check(scene: Arc<Scene>) -> anyhow::Result<Section> {
    let mut section = Section::new("trades");
    section.errors = scene.away();
    let until = scene.until;
    let since = scene.since.max(kept(&scene, "orderbook_deltas")).max(kept(&scene, "trades"));
    if since > scene.since {
        section.notes.push(format!("what is older than {} was dropped", Micros(since)));
    }
    let condition = format!("exchange_ts >= {since} AND exchange_ts < {until}");
    let parts = divide(&scene, "trades", &condition).await?;
    let progress = Progress::new("trades", parts.iter().map(|part| part.rows).sum());
    let common = Arc::new(Common {
        scene: scene.clone(),
        roster: Roster::of(&scene),
        progress,
        since,
        until,
    });
    let mut found = Found::default();
    let run = |part| work(common.clone(), part);
    each(scene.jobs, parts, run, |part: Found| {
        found.exact += part.exact;
        found.partial += part.partial;
        found.unexplained += part.unexplained;
        found.known_holes += part.known_holes;
        found.findings.append(part.findings);
    })
    .await?;
    common.progress.end();
    let groups = found.groups();
    let exact = if groups == 0 { 1.0 } else { real(found.exact) / real(groups) };
    section.tables.push(Figures {
        title: "trades of one millisecond, side and price beside the changes of that instant"
            .to_owned(),
        header: ["groups", "exact", "partial", "unexplained", "in known holes", "exact share"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![vec![
            groups.to_string(),
            found.exact.to_string(),
            found.partial.to_string(),
            found.unexplained.to_string(),
            found.known_holes.to_string(),
            format!("{:.4} %", exact * 100.0),
        ]],
    });
    section.figures = json!({
        "conservation": {
            "groups": groups,
            "exact": found.exact,
            "partial": found.partial,
            "unexplained": found.unexplained,
            "in_known_holes": found.known_holes,
            "exact_share": exact,
        },
    });
    section.found(found.findings);
    if scene.options.against_exchange || scene.options.repair {
        super::against::check(&scene, &mut section).await?;
    }
    Ok(section)
}

/// Before which time a log's rows were dropped.
fn kept(scene: &Scene, table: &str) -> i64 {
    scene.kept_from.get(table).copied().unwrap_or(i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_exact_partial_or_unexplained() {
        let group = |taken| Group {
            ticker: "T".to_owned(),
            millis: 5,
            maker_yes: false,
            price: 400_000,
            size: 150,
            trades: 2,
            taken,
            received_at: 6_000,
        };
        let mut found = Found::default();
        let unexplained: Vec<bool> =
            [150, 100, 151, 0].map(|taken| found.count(&group(taken))).to_vec();
        assert_eq!(unexplained, [false, false, false, true]);
        assert_eq!((found.exact, found.partial, found.unexplained, found.groups()), (1, 2, 1, 4));
        let told = finding(&group(0));
        assert_eq!((told.from_ts, told.to_ts), (Some(5000), Some(6000)));
        assert!(
            told.detail.starts_with("2 trades of 1.50 contracts took from the no level at 0.4000")
        );
    }
}
