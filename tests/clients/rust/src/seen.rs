//! What the client delivered: counted, checked, and folded into books.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kalshi_trade_rs::models::OrderbookCountFp;
use kalshi_trade_rs::ws::{Side, StreamMessage, StreamUpdate, TickerData, TradeData};
use tokio::sync::watch;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Levels by price in micro-dollars, with sizes in hundredths of a contract. The client's own
/// aggregator rounds to cents and whole contracts, so that its books cannot be compared exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    yes: BTreeMap<i64, i64>,
    no: BTreeMap<i64, i64>,
}

impl Book {
    /// A book as REST shows it.
    pub fn from_rest(book: &OrderbookCountFp) -> Result<Self> {
        let side = |levels: &Option<Vec<_>>| -> Result<BTreeMap<i64, i64>> {
            let levels = levels.as_ref().context("a side is missing")?;
            let levels: &Vec<kalshi_trade_rs::PriceLevelDollarsCountFp> = levels;
            levels.iter().map(|level| parse_level(&level.price, &level.quantity)).collect()
        };
        Ok(Self { yes: side(&book.yes_dollars)?, no: side(&book.no_dollars)? })
    }

    /// Levels of both sides.
    pub fn levels(&self) -> usize {
        self.yes.len() + self.no.len()
    }

    fn from_stream(yes: &Levels, no: &Levels) -> Result<Self> {
        let side = |levels: &Levels| -> Result<BTreeMap<i64, i64>> {
            let levels = levels.iter().flatten();
            levels.map(|(price, size)| parse_level(price, size)).collect()
        };
        Ok(Self { yes: side(yes)?, no: side(no)? })
    }

    fn apply(&mut self, side: Side, price: i64, delta: i64) -> Result<()> {
        let levels = match side {
            Side::Yes => &mut self.yes,
            Side::No => &mut self.no,
        };
        let size = levels.entry(price).or_default();
        *size += delta;
        match *size {
            0 => _ = levels.remove(&price),
            1.. => {}
            below => bail!("the level at {price} is {below}"),
        }
        Ok(())
    }
}

type Levels = Option<Vec<(String, String)>>;

fn parse_level(price: &str, size: &str) -> Result<(i64, i64)> {
    let (price, size) = (scaled(price, 6)?, scaled(size, 2)?);
    if !(1..1_000_000).contains(&price) || size <= 0 {
        bail!("a level of {size} at {price}");
    }
    Ok((price, size))
}

/// A decimal with up to `digits` decimals as a whole number of its last digit.
fn scaled(text: &str, digits: usize) -> Result<i64> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    if whole.is_empty() || fraction.len() > digits {
        bail!("{text:?} is no decimal with up to {digits} decimals");
    }
    let all: u64 = format!("{whole}{fraction:0<digits$}").parse().context(text.to_owned())?;
    Ok(sign * i64::try_from(all)?)
}

/// Everything up to now.
#[derive(Debug, Default)]
pub struct State {
    pub snapshots: u64,
    pub deltas: u64,
    pub tickers: u64,
    pub lifecycle: BTreeMap<String, u64>,
    pub events: u64,
    pub unsubscribed: u64,
    pub trades: Vec<TradeData>,
    pub books: HashMap<String, Book>,
    /// All books of these markets since they are watched, for the comparison with REST.
    pub watched: HashMap<String, Vec<Book>>,
    /// Numbers between two messages of a subscription: replies take them, which the client keeps to
    /// itself.
    pub skipped: BTreeMap<String, i64>,
    pub problems: Vec<String>,
    last_seq: HashMap<i64, i64>,
}

impl State {
    fn take(&mut self, update: &StreamUpdate) {
        if let Err(error) = self.try_take(update) {
            self.problems.push(format!("{}: {error:#}", update.channel));
        }
    }

    fn try_take(&mut self, update: &StreamUpdate) -> Result<()> {
        if let Some(seq) = update.seq {
            if let Some(last) = self.last_seq.insert(update.sid, seq)
                && seq != last + 1
            {
                *self.skipped.entry(update.channel.clone()).or_default() += seq - last - 1;
            }
        } else if update.channel != "ticker" && update.sid != 0 {
            bail!("without a number");
        }
        match &update.msg {
            StreamMessage::OrderbookSnapshot(snapshot) => {
                self.snapshots += 1;
                let book = Book::from_stream(&snapshot.yes_dollars_fp, &snapshot.no_dollars_fp)?;
                self.books.insert(snapshot.market_ticker.clone(), book);
                self.keep(&snapshot.market_ticker);
            }
            StreamMessage::OrderbookDelta(delta) => {
                self.deltas += 1;
                let (price, size) = (scaled(&delta.price_dollars, 6)?, scaled(&delta.delta_fp, 2)?);
                let book = self.books.get_mut(&delta.market_ticker);
                book.context("before its snapshot")?.apply(delta.side, price, size)?;
                delta.ts.as_ref().context("no time")?;
                self.keep(&delta.market_ticker);
            }
            StreamMessage::Trade(trade) => {
                let sum =
                    scaled(&trade.yes_price_dollars, 6)? + scaled(&trade.no_price_dollars, 6)?;
                if sum != 1_000_000 || scaled(&trade.count_fp, 2)? <= 0 {
                    bail!("{trade:?}");
                }
                self.trades.push(trade.clone());
            }
            StreamMessage::Ticker(ticker) => {
                self.tickers += 1;
                check_ticker(ticker)?;
            }
            StreamMessage::MarketLifecycle(lifecycle) => {
                let kind = serde_json::to_value(lifecycle.event_type)?;
                let kind = kind.as_str().unwrap_or_default().to_owned();
                *self.lifecycle.entry(kind).or_default() += 1;
            }
            StreamMessage::EventLifecycle(_) => self.events += 1,
            StreamMessage::Unsubscribed => self.unsubscribed += 1,
            // Our own, at the end: it may come before the report is made.
            StreamMessage::Closed { reason } if format!("{reason:?}") == "ClientClosed" => {}
            other => bail!("{other:?}"),
        }
        Ok(())
    }

    fn keep(&mut self, ticker: &str) {
        if let (Some(states), Some(book)) = (self.watched.get_mut(ticker), self.books.get(ticker)) {
            states.push(book.clone());
        }
    }
}

fn check_ticker(ticker: &TickerData) -> Result<()> {
    let (bid, ask) = (scaled(&ticker.yes_bid_dollars, 6)?, scaled(&ticker.yes_ask_dollars, 6)?);
    if !(0..=1_000_000).contains(&bid) || !(0..=1_000_000).contains(&ask) || bid >= ask {
        bail!("bid {bid}, ask {ask}");
    }
    // Empty before the first trade.
    if !ticker.price_dollars.is_empty() {
        scaled(&ticker.price_dollars, 6)?;
    }
    for size in [&ticker.yes_bid_size_fp, &ticker.yes_ask_size_fp, &ticker.last_trade_size_fp] {
        scaled(size.as_deref().context("a size is missing")?, 2)?;
    }
    scaled(&ticker.volume_fp, 2)?;
    scaled(&ticker.open_interest_fp, 2)?;
    if ticker.ts <= 0 || ticker.time.is_empty() {
        bail!("no time");
    }
    Ok(())
}

/// The state between the task that receives and those who wait for something in it.
pub struct Seen {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Seen {
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self, update: &StreamUpdate) {
        self.lock().take(update);
        self.changed.send_replace(());
    }

    pub fn note(&self, problem: String) {
        self.lock().problems.push(problem);
        self.changed.send_replace(());
    }

    /// Waits until `done` holds.
    pub async fn wait(&self, what: &str, done: impl Fn(&State) -> bool) -> Result<()> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !done(&self.lock()) {
                changed.changed().await?;
            }
            Ok(())
        };
        let over = tokio::time::timeout(PATIENCE, waiting).await;
        over.with_context(|| format!("waited {PATIENCE:?} in vain for {what}"))?
    }
}
