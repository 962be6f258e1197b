//! `verify trades --against-exchange`: the ids of production's trades beside those that the exchange
//! lists, a few minutes at a time, within the budget of requests; and with `--repair` what is missing
//! goes into production.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::ranges::{Progress, Range};
use super::repair::Repair;
use super::report::{Finding, Findings, Section};
use super::scene::{Plans, Scene};
use crate::kalshi::rest::Rest;
use crate::kalshi::trades::ListedTrade;
use crate::model::{Log, Micros};
use crate::ops::exit::UsageError;
use crate::pg::copy_out::CopyOut;

/// Trades are compared in pieces of this length: some pages of a busy hour.
const PIECE_MICROS: i64 = 300_000_000;
/// The stream counts milliseconds where the list has microseconds: of two copies of one trade the times
/// lie less than this apart.
pub const TOLERANCE_MICROS: i64 = 1_000_000;

/// What was compared.
#[derive(Debug, Default)]
struct Sums {
    listed: u64,
    recorded: u64,
    missing: u64,
    surplus: u64,
    inserted: u64,
    too_old: u64,
}

/// Compares the range, tells in `section`, and repairs when that is asked for.
///
/// # Errors
/// When the exchange or production does not answer; when there is no exchange in the configuration.
pub async fn check(scene: &Arc<Scene>, section: &mut Section) -> anyhow::Result<()> {
    let Some(rest) = scene.config.rest() else {
        let text = "--against-exchange and --repair need `api.rest_url` in the configuration";
        return Err(UsageError(text.to_owned()).into());
    };
    let rest = Arc::new(rest?);
    if let Err(error) = rest.learn_limits().await {
        section.notes.push(format!("keeping to the smallest budget of requests: {error}"));
    }
    let cutoff = rest.trades_cutoff().await.context("ask for the exchange's historical cut-off")?.0;
    let client = scene.session(Plans::Free).await?;
    let mut since = scene.since.max(scene.kept_from.get("trades").copied().unwrap_or(i64::MIN));
    // What was traded before there was a recorder is no loss of one; clocks differ.
    let from = recording_from(&client).await?.map(|from| from + TOLERANCE_MICROS);
    if let Some(from) = from.filter(|from| *from < scene.until) {
        since = since.max(from);
    }
    let until = scene.until.min(scene.merged_until(Log::Trades).saturating_sub(TOLERANCE_MICROS));
    let mut repair = match scene.options.repair {
        true => Some(Repair::begin(scene).await?),
        false => None,
    };
    let pieces = until.saturating_sub(since).max(0) / PIECE_MICROS + 1;
    let progress = Progress::new("trades of the exchange", u64::try_from(pieces).unwrap_or(1));
    let (mut sums, mut findings) = (Sums::default(), Findings::default());
    let mut from = since;
    while from < until {
        let to = from.saturating_add(PIECE_MICROS).min(until);
        let listed = list(&rest, scene, cutoff, from, to).await?;
        let recorded = recorded(&client, scene, from, to).await?;
        let missing = compare(&listed, &recorded, (from, to), &mut sums, &mut findings);
        if let Some(repair) = repair.as_mut().filter(|_| !missing.is_empty()) {
            let done = repair.insert(&missing).await.context("insert missing trades")?;
            sums.inserted += done.inserted;
            sums.too_old += done.too_old;
        }
        progress.rows(1);
        from = to;
    }
    progress.end();
    if let Some(repair) = repair {
        section.notes.push(format!(
            "repaired: {} of {} missing trades are in production now, with source `repair`",
            sums.inserted, sums.missing
        ));
        if sums.too_old > 0 {
            let note = "trades are older than what the retention keeps, and were not inserted";
            section.notes.push(format!("{} {note}", sums.too_old));
        }
        repair.end();
    }
    if let Some(figures) = section.figures.as_object_mut() {
        let exchange = json!({
            "from": Micros(since).to_string(),
            "to": Micros(until.max(since)).to_string(),
            "listed": sums.listed,
            "recorded": sums.recorded,
            "missing": sums.missing,
            "surplus": sums.surplus,
            "repaired": sums.inserted,
        });
        figures.insert("exchange".to_owned(), exchange);
    }
    let (listed, recorded) = (sums.listed, sums.recorded);
    section.notes.push(format!(
        "the exchange lists {listed} trades of this time, production has {recorded}: {} missing, {} surplus",
        sums.missing, sums.surplus
    ));
    section.found(findings);
    Ok(())
}

/// When a gatherer first heard of all trades; none before anything is said of it.
async fn recording_from(client: &Client) -> anyhow::Result<Option<i64>> {
    let sql = "SELECT min(covered_from) FROM coverage WHERE channel = 'trade' AND ticker = ''";
    let row = client.query_one(sql, &[]).await.context("read first coverage of trades")?;
    Ok(row.try_get(0)?)
}

/// A trade as production has it.
#[derive(Debug, Clone)]
struct Recorded {
    trade_id: Uuid,
    at: i64,
    ticker: String,
    price: i64,
    size: i64,
    taker_yes: Option<bool>,
}

/// The exchange's trades from a time up to another, and some on both sides.
async fn list(
    rest: &Arc<Rest>,
    scene: &Scene,
    cutoff: i64,
    from: i64,
    to: i64,
) -> anyhow::Result<Vec<ListedTrade>> {
    let seconds = (from.div_euclid(1_000_000) - 2, to.div_euclid(1_000_000) + 2);
    let ticker = scene.options.market.as_deref();
    let mut trades = Vec::new();
    for (is_historical, is_wanted) in [(true, from < cutoff), (false, to >= cutoff)] {
        if !is_wanted {
            continue;
        }
        let mut pages = rest.trades(is_historical, seconds.0, seconds.1, ticker);
        while let Some(page) = pages.next().await.context("list the exchange's trades")? {
            trades.extend(page.into_iter().filter(|trade| is_asked_for(scene, trade)));
        }
    }
    Ok(trades)
}

fn is_asked_for(scene: &Scene, trade: &ListedTrade) -> bool {
    let ticker = trade.ticker.as_str();
    let has = |range: &Range| {
        range.from.as_ref().is_none_or(|from| from.as_str() <= ticker)
            && range.to.as_ref().is_none_or(|to| ticker < to.as_str())
    };
    scene.markets.is_empty() || scene.markets.iter().any(has)
}

/// Production's trades of the same time, and as many beside it.
async fn recorded(
    client: &Client,
    scene: &Scene,
    from: i64,
    to: i64,
) -> anyhow::Result<Vec<Recorded>> {
    let here: Vec<String> = scene.markets.iter().map(|range| range.sql("ticker")).collect();
    let here = if here.is_empty() { "true".to_owned() } else { format!("({})", here.join(" OR ")) };
    let sql = format!(
        "SELECT trade_id, exchange_ts, ticker, price, size, \
           CASE WHEN taker_side THEN 1 WHEN NOT taker_side THEN 0 END::bigint \
         FROM trades WHERE exchange_ts >= {} AND exchange_ts < {} AND {here}",
        from - TOLERANCE_MICROS,
        to + TOLERANCE_MICROS
    );
    let mut rows = CopyOut::open(client, &sql).await.context("read trades")?;
    let mut trades = Vec::new();
    while rows.advance().await.context("read trades")? {
        let mut row = rows.row();
        trades.push(Recorded {
            trade_id: row.uuid()?,
            at: row.i64()?,
            ticker: row.text()?.to_owned(),
            price: row.i64()?,
            size: row.i64()?,
            taker_yes: row.opt_i64()?.map(|yes| yes == 1),
        });
    }
    Ok(trades)
}

/// What the one has and the other has not, and what both have differently; gives what is missing.
fn compare(
    listed: &[ListedTrade],
    recorded: &[Recorded],
    (from, to): (i64, i64),
    sums: &mut Sums,
    findings: &mut Findings,
) -> Vec<ListedTrade> {
    let within = |at: i64| from <= at && at < to;
    let known: std::collections::HashMap<Uuid, &Recorded> =
        recorded.iter().map(|trade| (trade.trade_id, trade)).collect();
    let there: HashSet<Uuid> = listed.iter().map(|trade| trade.trade_id).collect();
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    for trade in listed.iter().filter(|trade| within(trade.created.0)) {
        if !seen.insert(trade.trade_id) {
            // A page that shifted while the list was read.
            continue;
        }
        sums.listed += 1;
        let told = |kind, detail: String| {
            let mut finding = Finding::new(kind, detail)
                .market(trade.ticker.as_str())
                .from(trade.created.0)
                .to(trade.created.0);
            finding.trade_id = Some(trade.trade_id.to_string());
            finding
        };
        let (price, size) = (trade.price, trade.size);
        match known.get(&trade.trade_id) {
            None => {
                sums.missing += 1;
                let text = format!("the exchange lists it, production lacks it: {size} at {price}");
                findings.push(told("missing_trade", text));
                missing.push(trade.clone());
            }
            Some(known) => {
                let ours = (known.ticker.as_str(), known.price, known.size, known.taker_yes);
                let side = trade.taker_side.map(|side| side.is_yes());
                let theirs = (trade.ticker.as_str(), price.micros(), size.hundredths(), side);
                if ours != theirs {
                    let text = format!(
                        "market, price in micro-dollars, hundredths of contracts and whether the \
                         taker is on yes: the exchange lists {theirs:?}, production has {ours:?}"
                    );
                    findings.push(told("different_trade", text));
                }
            }
        }
    }
    let mut seen = HashSet::new();
    for trade in recorded.iter().filter(|trade| within(trade.at)) {
        sums.recorded += 1;
        let is_twice = !seen.insert(trade.trade_id);
        if there.contains(&trade.trade_id) && !is_twice {
            continue;
        }
        sums.surplus += 1;
        let text = if is_twice {
            "production has it twice"
        } else {
            "production has it, the exchange does not list it"
        };
        let mut finding =
            Finding::new("surplus_trade", text).market(&trade.ticker).from(trade.at).to(trade.at);
        finding.trade_id = Some(trade.trade_id.to_string());
        findings.push(finding);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Price, Side, Size, Ticker};

    fn listed(id: u128, at: i64) -> ListedTrade {
        ListedTrade {
            trade_id: Uuid::from_u128(id),
            ticker: Ticker::parse("T").unwrap(),
            created: Micros(at),
            price: Price::from_micros(400_000),
            no_price: None,
            size: Size::from_hundredths(100),
            taker_side: Some(Side::Yes),
            is_block_trade: false,
        }
    }

    fn recorded(id: u128, at: i64) -> Recorded {
        let (ticker, price, size) = ("T".to_owned(), 400_000, 100);
        Recorded { trade_id: Uuid::from_u128(id), at, ticker, price, size, taker_yes: Some(true) }
    }

    #[test]
    fn missing_surplus_doubled_and_different_trades_are_told_and_finer_times_are_not() {
        let exchange =
            [listed(1, 1_000_500), listed(2, 1_999_999), listed(3, 1_500_000), listed(5, 9)];
        let wrong = Recorded { size: 101, ..recorded(3, 1_500_000) };
        let ours = [
            recorded(1, 1_000_000),
            // Its own time lies in the next piece: it is no surplus of that one either.
            recorded(2, 2_000_000),
            wrong,
            recorded(4, 1_200_000),
            recorded(1, 1_000_001),
        ];
        let (mut sums, mut findings) = (Sums::default(), Findings::default());
        let piece = (1_000_000, 2_000_000);
        assert_eq!(compare(&exchange, &ours, piece, &mut sums, &mut findings), []);
        let kinds: Vec<_> = findings.listed.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, ["different_trade", "surplus_trade", "surplus_trade"]);
        assert_eq!((sums.listed, sums.recorded, sums.surplus), (3, 4, 2));
        let (mut sums, mut findings) = (Sums::default(), Findings::default());
        let missing = compare(&exchange, &[], piece, &mut sums, &mut findings);
        assert_eq!((missing.len(), sums.missing), (3, 3));
    }
}
