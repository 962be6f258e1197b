//! Books folded from the parts alone, beside production's `book_at`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use arrow_array::{Array as _, BooleanArray, Decimal64Array, ListArray, RecordBatch};
use tokio_postgres::Client;

use super::super::manifest::{self, Manifest};
use super::super::read;
use super::super::store::Store;
use super::super::table::Table;
use super::BATCH_ROWS;

/// Size by side (true is yes) and price, in hundredths and micro-dollars.
type Book = BTreeMap<(bool, i64), i64>;

/// Changes of one market that are held at a time: 24 bytes each.
const CHANGES_MAX: usize = 20_000_000;

/// A snapshot with an anchor.
struct Anchor {
    at: i64,
    log_seq: i64,
    book: Book,
}

/// What one day of the archive says about some markets.
#[derive(Default)]
struct Market {
    anchors: Vec<Anchor>,
    /// Time, level, signed size.
    changes: Vec<(i64, (bool, i64), i64)>,
}

impl Market {
    /// The book at a time that is not before the first anchor.
    fn book_at(&self, at: i64) -> Option<Book> {
        let anchor = self.anchors.iter().filter(|anchor| anchor.at <= at);
        let anchor = anchor.max_by_key(|anchor| (anchor.at, anchor.log_seq))?;
        let mut book = anchor.book.clone();
        for (ts, level, size) in &self.changes {
            if *ts > anchor.at && *ts <= at {
                *book.entry(*level).or_default() += size;
            }
        }
        book.retain(|_, size| *size != 0);
        Some(book)
    }
}

/// Compares some books of random markets at random moments; how many, and what differs.
pub async fn compare(
    store: &Store,
    session: &Client,
    through: &BTreeMap<&'static str, i64>,
    since: Option<&str>,
    wanted: usize,
) -> anyhow::Result<(usize, Vec<String>)> {
    let snapshots = Table::named("orderbook_snapshots").context("no table of snapshots")?;
    let deltas = Table::named("orderbook_deltas").context("no table of changes")?;
    let archived = through.get(deltas.name).copied().unwrap_or_default();
    let days = manifest::latest_paths(store, snapshots).await?;
    let mut days: Vec<String> =
        days.into_keys().filter(|day| since.is_none_or(|since| day.as_str() >= since)).collect();
    fastrand::shuffle(&mut days);
    let (mut compared, mut problems) = (0, Vec::new());
    for day in days {
        if compared >= wanted {
            break;
        }
        let (Some(books), Some(changes)) = (
            manifest::latest(store, snapshots, &day).await?,
            manifest::latest(store, deltas, &day).await?,
        ) else {
            continue;
        };
        let mut tickers: Vec<String> =
            anchored(store, snapshots, &books).await?.into_iter().collect();
        fastrand::shuffle(&mut tickers);
        tickers.truncate((wanted - compared).div_ceil(4).max(1));
        let chosen: BTreeSet<String> = tickers.into_iter().collect();
        let markets = load(store, (snapshots, &books), (deltas, &changes), &chosen).await?;
        for (ticker, market) in &markets {
            for at in moments(market) {
                if compared >= wanted {
                    break;
                }
                let Some(mine) = market.book_at(at) else { continue };
                let Some(theirs) = production(session, ticker, at, archived).await? else {
                    continue;
                };
                compared += 1;
                if mine != theirs {
                    problems.push(format!(
                        "the book of {ticker} at {} has {} levels in the archive and {} in \
                         production, or others",
                        crate::model::Micros(at),
                        mine.len(),
                        theirs.len()
                    ));
                }
            }
        }
    }
    Ok((compared, problems))
}

/// Four moments between the first anchor and the last change.
fn moments(market: &Market) -> Vec<i64> {
    let Some(first) = market.anchors.iter().map(|anchor| anchor.at).min() else {
        return Vec::new();
    };
    let last = market.changes.iter().map(|(ts, ..)| *ts).max().unwrap_or(first).max(first);
    (0..4).map(|_| fastrand::i64(first..=last)).collect()
}

/// The markets that have an anchor on a day.
async fn anchored(
    store: &Store,
    table: &'static Table,
    day: &Manifest,
) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for part in &day.parts {
        // What is damaged is told already.
        let Ok(file) = read::fetch(store, part).await? else { continue };
        for batch in read::batches(table, file, BATCH_ROWS)? {
            let batch = batch.context("read Parquet")?;
            let anchors = read::longs(&batch, "anchor_ts")?;
            let tickers = read::texts(&batch, "ticker")?;
            for (ticker, anchor) in tickers.iter().zip(anchors) {
                if let (Some(ticker), Some(_)) = (ticker, anchor) {
                    found.insert(ticker.to_owned());
                }
            }
        }
    }
    Ok(found)
}

async fn load(
    store: &Store,
    (snapshots, books): (&'static Table, &Manifest),
    (deltas, changes): (&'static Table, &Manifest),
    chosen: &BTreeSet<String>,
) -> anyhow::Result<BTreeMap<String, Market>> {
    let mut markets: BTreeMap<String, Market> = BTreeMap::new();
    for part in &books.parts {
        let Ok(file) = read::fetch(store, part).await? else { continue };
        for batch in read::batches(snapshots, file, BATCH_ROWS / 16)? {
            take_anchors(&batch.context("read Parquet")?, chosen, &mut markets)?;
        }
    }
    let mut held = 0;
    for part in &changes.parts {
        let Ok(file) = read::fetch(store, part).await? else { continue };
        for batch in read::batches(deltas, file, BATCH_ROWS)? {
            held += take_changes(&batch.context("read Parquet")?, chosen, &mut markets)?;
            anyhow::ensure!(held < CHANGES_MAX, "more than {CHANGES_MAX} changes of a few markets");
        }
    }
    Ok(markets)
}

fn take_anchors(
    batch: &RecordBatch,
    chosen: &BTreeSet<String>,
    markets: &mut BTreeMap<String, Market>,
) -> anyhow::Result<()> {
    let lists = |name: &str| -> anyhow::Result<&ListArray> {
        let array = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref());
        array.with_context(|| format!("{name} is no list"))
    };
    let tickers = read::texts(batch, "ticker")?;
    let (anchors, seqs) = (read::longs(batch, "anchor_ts")?, read::longs(batch, "log_seq")?);
    let sides = [
        (true, lists("yes_prices")?, lists("yes_sizes")?),
        (false, lists("no_prices")?, lists("no_sizes")?),
    ];
    for (row, (at, seq)) in anchors.into_iter().zip(seqs).enumerate() {
        let (ticker, Some(at), Some(log_seq)) = (tickers.value(row), at, seq) else { continue };
        if !chosen.contains(ticker) {
            continue;
        }
        let mut book = Book::new();
        for (side, prices, sizes) in &sides {
            let (prices, sizes) = (prices.value(row), sizes.value(row));
            let numbers = |array: &dyn arrow_array::Array| {
                let array = array.as_any().downcast_ref::<Decimal64Array>();
                array.map(|array| array.values().to_vec()).context("levels are no decimals")
            };
            for (price, size) in numbers(&prices)?.into_iter().zip(numbers(&sizes)?) {
                book.insert((*side, price), size);
            }
        }
        markets.entry(ticker.to_owned()).or_default().anchors.push(Anchor { at, log_seq, book });
    }
    Ok(())
}

fn take_changes(
    batch: &RecordBatch,
    chosen: &BTreeSet<String>,
    markets: &mut BTreeMap<String, Market>,
) -> anyhow::Result<usize> {
    let tickers = read::texts(batch, "ticker")?;
    let sides =
        batch.column_by_name("side").and_then(|a| a.as_any().downcast_ref::<BooleanArray>());
    let sides = sides.context("side is no flag")?;
    let (times, prices) = (read::longs(batch, "exchange_ts")?, read::longs(batch, "price")?);
    let sizes = read::longs(batch, "size_delta")?;
    let mut taken = 0;
    for (row, ((time, price), size)) in times.into_iter().zip(prices).zip(sizes).enumerate() {
        let ticker = tickers.value(row);
        if !chosen.contains(ticker) {
            continue;
        }
        if let (Some(time), Some(price), Some(size)) = (time, price, size) {
            let market = markets.entry(ticker.to_owned()).or_default();
            market.changes.push((time, (sides.value(row), price), size));
            taken += 1;
        }
    }
    Ok(taken)
}

/// Production's book; none where it cannot be compared: rows of it were dropped, or are not archived.
async fn production(
    session: &Client,
    ticker: &str,
    at: i64,
    archived: i64,
) -> anyhow::Result<Option<Book>> {
    let sql = "SELECT known AND anchor_ts IS NOT NULL \
                 AND NOT EXISTS (SELECT FROM orderbook_deltas d WHERE d.ticker = $1 \
                     AND d.exchange_ts > anchor_ts AND d.exchange_ts <= $2 AND d.log_seq > $3) \
               FROM book_known_at($1, moment($2))";
    let row = session.query_opt(sql, &[&ticker, &at, &archived]).await.context("ask for a book")?;
    let is_comparable: Option<bool> = row.map_or(Ok(None), |row| row.try_get(0))?;
    if is_comparable != Some(true) {
        return Ok(None);
    }
    let sql = "SELECT side, price, size FROM book_at($1, moment($2))";
    let rows = session.query(sql, &[&ticker, &at]).await.context("ask for a book")?;
    let levels = rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?)));
    levels.collect::<anyhow::Result<Book>>().map(Some)
}
