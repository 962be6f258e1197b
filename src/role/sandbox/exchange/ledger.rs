//! Everything that the exchange published, in order: the one oracle that production is compared
//! with. Rows are compact (a market is a number) because a run may publish millions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::keys::Keys;
use super::market::MarketId;
use crate::model::{Book, Micros, Price, Side, Size, Ticker, TickerUpdate};

/// Records published so far, by table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    pub orderbook_deltas: u64,
    pub trades: u64,
    pub tickers: u64,
    pub market_lifecycle: u64,
}

/// A published change of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerDelta {
    pub ticker: Ticker,
    pub exchange_ts: Micros,
    pub side: Side,
    /// In yes-leg terms.
    pub price: Price,
    pub size_delta: Size,
    /// Ordinal, from 1, among identical changes in the order of publication.
    pub occurrence: i32,
    /// Not in the source: it corrects the book where the source's recorder missed frames.
    pub synthetic: bool,
    /// Accounts that it was sent to; what nobody was sent no recorder can have.
    pub receivers: Keys,
}

/// A published trade, as the stream showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerTrade {
    pub trade_id: Uuid,
    pub ticker: Ticker,
    /// Milliseconds: all that the stream shows.
    pub exchange_ts: Micros,
    /// Microseconds, as REST shows it.
    pub created: Micros,
    pub price: Price,
    pub no_price: Price,
    pub size: Size,
    pub taker_side: Side,
    pub is_block_trade: bool,
    pub receivers: Keys,
}

/// A published message of the ticker channel, by its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerTicker {
    pub ticker: Ticker,
    pub exchange_ts: Micros,
    pub content_hash: i64,
    pub receivers: Keys,
}

/// A published lifecycle message, by its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLifecycle {
    pub subject: Ticker,
    pub event_type: String,
    pub content_hash: i64,
    /// On the channel of multivariate markets, which not everybody takes.
    pub multivariate: bool,
    pub receivers: Keys,
}

/// A market's book before the first change and after the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketBooks {
    pub ticker: Ticker,
    pub initial: Book,
    /// `initial` with every published change folded in; a close empties the served book, not this.
    pub folded: Book,
    pub deltas: u64,
    /// Changes that took a level below zero.
    pub below_zero: u64,
}

/// Why the source had a snapshot at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// The source's recorder had subscribed again.
    Resubscribed,
    /// The market closed: the snapshot is empty. While everybody is thrown out nobody hears of it.
    Closed { heard: bool },
}

/// A place of the source where a snapshot stood after the first change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPlace {
    pub ticker: Ticker,
    pub kind: PlaceKind,
    /// Time of the market's last change before the place; later ones came after it.
    pub last_exchange_ts: Option<Micros>,
    /// The market's changes before the place.
    pub deltas_before: u64,
    /// The initial book with those folded in.
    pub folded: Book,
    /// What the snapshot said: equal to `folded`, or empty at a close.
    pub stated: Book,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaRow {
    pub at: Micros,
    pub size: Size,
    pub market: MarketId,
    /// Micro-dollars: a price is at most one dollar or so, and there are millions of rows.
    price_micros: i32,
    occurrence: u16,
    pub receivers: Keys,
    pub side: Side,
    pub synthetic: bool,
}

impl DeltaRow {
    pub fn price(&self) -> Price {
        Price::from_micros(i64::from(self.price_micros))
    }
}

#[derive(Debug)]
pub(super) struct TradeRow {
    pub market: MarketId,
    pub fact: super::frames::TradeFact,
    pub receivers: Keys,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct TickerRow {
    pub market: MarketId,
    pub at: Micros,
    pub content_hash: i64,
    pub receivers: Keys,
}

/// What a market's newest microsecond holds: all that an ordinal needs, because a market's times do
/// not go back.
#[derive(Debug, Default)]
struct Newest {
    at: Micros,
    seen: Vec<(Side, Price, Size, i32)>,
    /// The updates of its newest millisecond, by content.
    tickers_at: Micros,
    tickers: Vec<i64>,
}

#[derive(Debug)]
struct PlaceRow {
    market: MarketId,
    kind: PlaceKind,
    rows_before: usize,
    stated: Book,
}

/// A book by level.
type Listed = Box<[(Side, Price, Size)]>;

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub names: Vec<Ticker>,
    newest: Vec<Newest>,
    /// Books that were not empty when their market was listed, by level: a book is many times as
    /// large.
    initial: HashMap<MarketId, Listed>,
    pub deltas: Vec<DeltaRow>,
    pub trades: Vec<TradeRow>,
    pub tickers: Vec<TickerRow>,
    pub lifecycle: Vec<LedgerLifecycle>,
    places: Vec<PlaceRow>,
}

impl Inner {
    pub fn name(&self, market: MarketId) -> Option<&Ticker> {
        self.names.get(market.index())
    }

    /// A market's book when it was listed.
    fn first_book(&self, market: MarketId) -> Book {
        let mut book = Book::default();
        for (side, price, size) in self.initial.get(&market).map_or(&[][..], |levels| levels) {
            // A level that was there is above zero.
            let _below_zero = book.apply(*side, *price, *size).is_err();
        }
        book
    }

    fn newest(&mut self, market: MarketId) -> Option<&mut Newest> {
        if self.newest.len() <= market.index() {
            self.newest.resize_with(market.index() + 1, Newest::default);
        }
        self.newest.get_mut(market.index())
    }

    /// The ordinal of a change among identical ones.
    fn occurrence(&mut self, market: MarketId, change: &super::frames::Change) -> i32 {
        let key = (change.side, change.price, change.size_delta);
        let Some(newest) = self.newest(market) else { return 1 };
        if change.at > newest.at {
            newest.at = change.at;
            newest.seen.clear();
        }
        if change.at == newest.at {
            for (side, price, size, count) in &mut newest.seen {
                if (*side, *price, *size) == key {
                    *count += 1;
                    return *count;
                }
            }
            newest.seen.push((key.0, key.1, key.2, 1));
            return 1;
        }
        // A source whose clock went back: rare enough to count from the beginning.
        let same = self.deltas.iter().filter(|row| {
            (row.market, row.at, row.side, row.price(), row.size)
                == (market, change.at, key.0, key.1, key.2)
        });
        i32::try_from(same.count()).unwrap_or(i32::MAX).saturating_add(1)
    }

    fn delta(&self, row: &DeltaRow) -> Option<LedgerDelta> {
        Some(LedgerDelta {
            ticker: self.name(row.market)?.clone(),
            exchange_ts: row.at,
            side: row.side,
            price: row.price(),
            size_delta: row.size,
            occurrence: i32::from(row.occurrence),
            synthetic: row.synthetic,
            receivers: row.receivers,
        })
    }
}

/// The record of one exchange's publications. Shared between the exchange, which appends, and
/// whoever compares.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

impl Ledger {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Rows are appended whole, so a panic elsewhere does not spoil the ledger.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a market's book at its listing.
    pub(super) fn list(&self, market: MarketId, ticker: &Ticker, book: &Book) {
        let mut inner = self.lock();
        if inner.names.len() == market.index() {
            inner.names.push(ticker.clone());
        }
        if !book.is_empty() {
            let sides = [Side::Yes, Side::No].into_iter();
            let levels = sides.flat_map(|side| book.levels(side).map(move |(p, s)| (side, p, s)));
            inner.initial.insert(market, levels.collect());
        }
    }

    pub(super) fn add_delta(
        &self,
        market: MarketId,
        change: &super::frames::Change,
        synthetic: bool,
        receivers: Keys,
    ) {
        let mut inner = self.lock();
        let occurrence = inner.occurrence(market, change);
        inner.deltas.push(DeltaRow {
            market,
            // More identical changes in a microsecond than that there are none.
            occurrence: u16::try_from(occurrence).unwrap_or(u16::MAX),
            at: change.at,
            price_micros: i32::try_from(change.price.micros()).unwrap_or(i32::MAX),
            size: change.size_delta,
            side: change.side,
            synthetic,
            receivers,
        });
    }

    pub(super) fn add_trade(
        &self,
        market: MarketId,
        fact: super::frames::TradeFact,
        receivers: Keys,
    ) {
        self.lock().trades.push(TradeRow { market, fact, receivers });
    }

    /// Whether this very update was published already: sent again it would be no other row.
    pub(super) fn has_ticker(&self, market: MarketId, update: &TickerUpdate) -> bool {
        self.lock().newest(market).is_some_and(|newest| {
            newest.tickers_at == update.exchange_ts && newest.tickers.contains(&update.content_hash)
        })
    }

    pub(super) fn add_ticker(&self, market: MarketId, update: &TickerUpdate, receivers: Keys) {
        let mut inner = self.lock();
        let (at, content_hash) = (update.exchange_ts, update.content_hash);
        if let Some(newest) = inner.newest(market) {
            if newest.tickers_at != at {
                newest.tickers_at = at;
                newest.tickers.clear();
            }
            newest.tickers.push(content_hash);
        }
        inner.tickers.push(TickerRow { market, at, content_hash, receivers });
    }

    pub(super) fn add_lifecycle(&self, row: LedgerLifecycle) {
        self.lock().lifecycle.push(row);
    }

    pub(super) fn add_place(&self, market: MarketId, kind: PlaceKind, stated: Book) {
        let mut inner = self.lock();
        let rows_before = inner.deltas.len();
        inner.places.push(PlaceRow { market, kind, rows_before, stated });
    }

    /// What was published so far.
    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts {
            orderbook_deltas: inner.deltas.len() as u64,
            trades: inner.trades.len() as u64,
            tickers: inner.tickers.len() as u64,
            market_lifecycle: inner.lifecycle.len() as u64,
        }
    }

    /// Up to `limit` changes from the `from`-th on, in the order of publication.
    pub fn deltas(&self, from: usize, limit: usize) -> Vec<LedgerDelta> {
        let inner = self.lock();
        inner.deltas.iter().skip(from).take(limit).filter_map(|row| inner.delta(row)).collect()
    }

    /// All trades, in the order of publication.
    pub fn trades(&self) -> Vec<LedgerTrade> {
        let inner = self.lock();
        let view = |row: &TradeRow| {
            let fact = &row.fact;
            Some(LedgerTrade {
                trade_id: fact.trade_id,
                ticker: inner.name(row.market)?.clone(),
                exchange_ts: Micros::from_millis(fact.at.0.div_euclid(1000)),
                created: fact.at,
                price: fact.yes_price,
                no_price: fact.no_price,
                size: fact.size,
                taker_side: fact.taker,
                is_block_trade: fact.is_block_trade,
                receivers: row.receivers,
            })
        };
        inner.trades.iter().filter_map(view).collect()
    }

    /// All ticker updates, in the order of publication.
    pub fn tickers(&self) -> Vec<LedgerTicker> {
        let inner = self.lock();
        let view = |row: &TickerRow| {
            Some(LedgerTicker {
                ticker: inner.name(row.market)?.clone(),
                exchange_ts: row.at,
                content_hash: row.content_hash,
                receivers: row.receivers,
            })
        };
        inner.tickers.iter().filter_map(view).collect()
    }

    /// All lifecycle messages, in the order of publication.
    pub fn lifecycle(&self) -> Vec<LedgerLifecycle> {
        self.lock().lifecycle.clone()
    }

    /// The books of every market that had a level or a change, by ticker.
    pub fn books(&self) -> Vec<MarketBooks> {
        let inner = self.lock();
        let mut books: HashMap<MarketId, (Book, u64, u64)> =
            inner.initial.keys().map(|id| (*id, (inner.first_book(*id), 0, 0))).collect();
        for row in &inner.deltas {
            let (book, deltas, below_zero) = books.entry(row.market).or_default();
            *deltas += 1;
            *below_zero += u64::from(book.apply(row.side, row.price(), row.size).is_err());
        }
        let mut all: Vec<_> = books
            .into_iter()
            .filter_map(|(id, (folded, deltas, below_zero))| {
                let initial = inner.first_book(id);
                Some(MarketBooks {
                    ticker: inner.name(id)?.clone(),
                    initial,
                    folded,
                    deltas,
                    below_zero,
                })
            })
            .collect();
        all.sort_by(|a, b| a.ticker.cmp(&b.ticker));
        all
    }

    /// The snapshots of the source after the first one of each market, in order.
    pub fn places(&self) -> Vec<SnapshotPlace> {
        let inner = self.lock();
        let mut books: HashMap<MarketId, (Book, u64, Option<Micros>)> = HashMap::new();
        for place in &inner.places {
            let initial = inner.first_book(place.market);
            books.entry(place.market).or_insert((initial, 0, None));
        }
        let mut rows = inner.deltas.iter().enumerate().peekable();
        let mut all = Vec::with_capacity(inner.places.len());
        for place in &inner.places {
            while let Some((_, row)) = rows.next_if(|(at, _)| *at < place.rows_before) {
                if let Some((book, deltas, last)) = books.get_mut(&row.market) {
                    // A level below zero is kept, as it is in production.
                    let _below_zero = book.apply(row.side, row.price(), row.size).is_err();
                    *deltas += 1;
                    *last = (*last).max(Some(row.at));
                }
            }
            let (Some(ticker), Some((folded, deltas, last))) =
                (inner.name(place.market), books.get(&place.market))
            else {
                continue;
            };
            all.push(SnapshotPlace {
                ticker: ticker.clone(),
                kind: place.kind,
                last_exchange_ts: *last,
                deltas_before: *deltas,
                folded: folded.clone(),
                stated: place.stated.clone(),
            });
        }
        all
    }
}
