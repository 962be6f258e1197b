//! The markets of the simulated exchange: what is listed, in which event and series, each with its
//! book, its trading figures and those who watch it.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::edits::Edits;
use crate::model::{Book, Micros, Price, Side, Size, Ticker};

/// One dollar: the notional of every market here, against which a no-leg price is turned.
pub const NOTIONAL_MICROS: i64 = 1_000_000;

/// A market by its place in the catalog; markets are never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarketId(pub u32);

impl MarketId {
    pub fn index(self) -> usize {
        // Lossless where usize has at least 32 bits, which the program needs anyway.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A live connection by its slot; slots are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A market's state, as REST names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Initialized,
    Active,
    Closed,
    Determined,
    /// The result is contested.
    Disputed,
    /// The result was looked at again.
    Amended,
    Finalized,
}

impl Status {
    /// The `status` of a market.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialized => "initialized",
            Self::Active => "active",
            Self::Closed => "closed",
            Self::Determined => "determined",
            Self::Disputed => "disputed",
            Self::Amended => "amended",
            Self::Finalized => "finalized",
        }
    }

    /// The value of the `status` filter that finds it.
    pub const fn filter(self) -> &'static str {
        match self {
            Self::Initialized => "unopened",
            Self::Active => "open",
            Self::Closed | Self::Determined | Self::Disputed | Self::Amended => "closed",
            Self::Finalized => "settled",
        }
    }
}

/// How a market was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Side(Side),
    /// Somewhere in between: what a yes contract pays.
    Scalar(Price),
}

impl Outcome {
    /// The `result` of a market.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Side(Side::Yes) => "yes",
            Self::Side(Side::No) => "no",
            Self::Scalar(_) => "scalar",
        }
    }

    /// What a yes contract pays.
    pub const fn value(self) -> Price {
        match self {
            Self::Side(Side::Yes) => Price::from_micros(NOTIONAL_MICROS),
            Self::Side(Side::No) => Price::from_micros(0),
            Self::Scalar(price) => price,
        }
    }
}

/// The running figures of a market.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub last_price: Option<Price>,
    pub last_size: Size,
    pub volume: Size,
    pub open_interest: Size,
    /// Dollars traded, in micro-dollars.
    pub turnover_micros: i64,
}

impl Figures {
    /// Counts a trade in.
    pub fn trade(&mut self, price: Price, size: Size, opens: bool) {
        let add = |a: Size, b: i64| Size::from_hundredths(a.hundredths().saturating_add(b));
        self.last_price = Some(price);
        self.last_size = size;
        self.volume = add(self.volume, size.hundredths());
        let signed = if opens { size.hundredths() } else { -size.hundredths() };
        self.open_interest = add(self.open_interest, signed).max(Size::default());
        let micros = price.micros().saturating_mul(size.hundredths()) / 100;
        self.turnover_micros = self.turnover_micros.saturating_add(micros);
    }
}

/// Connections that asked for this market by name, by channel.
#[derive(Debug, Default)]
pub struct Watchers {
    pub book: Vec<ConnectionId>,
    pub trade: Vec<ConnectionId>,
    pub ticker: Vec<ConnectionId>,
}

/// A listed market.
#[derive(Debug)]
pub struct Market {
    pub ticker: Ticker,
    /// `market_id` on the wire.
    pub uuid: Uuid,
    /// Its event, by place in the catalog.
    pub event: usize,
    /// In yes-leg prices on both sides.
    pub book: Book,
    /// The step between two prices, in micro-dollars.
    pub tick_micros: i64,
    /// Changed by [`Catalog::set_status`] alone.
    pub status: Status,
    pub created: Micros,
    pub updated: Micros,
    pub open: Micros,
    pub close: Micros,
    pub figures: Figures,
    /// Once determined.
    pub result: Option<Outcome>,
    /// The market as REST returned it to whoever recorded it; what is live is overlaid.
    pub template: Option<Box<Map<String, Value>>>,
    /// The message of the last `ticker` frame.
    pub last_ticker: Option<Box<str>>,
    /// What somebody changed about it by hand.
    pub edits: Option<Box<Edits>>,
    pub watchers: Watchers,
    /// A combo of other markets, with a lifecycle channel of its own.
    pub collection: Option<&'static str>,
}

impl Market {
    pub fn is_multivariate(&self) -> bool {
        self.collection.is_some()
    }
}

/// What is needed to list a market.
#[derive(Debug)]
pub struct Listing {
    pub ticker: Ticker,
    pub uuid: Uuid,
    pub event: usize,
    pub book: Book,
    pub tick_micros: i64,
    pub status: Status,
    /// Created and opened then.
    pub since: Micros,
    pub close: Micros,
    pub template: Option<Box<Map<String, Value>>>,
    /// The collection of a multivariate market.
    pub collection: Option<&'static str>,
}

/// An event: a group of markets.
#[derive(Debug)]
pub struct Event {
    pub ticker: Ticker,
    pub series: usize,
    pub title: String,
    pub updated: Micros,
    pub markets: Vec<MarketId>,
    pub template: Option<Box<Map<String, Value>>>,
}

/// A series: a group of events.
#[derive(Debug)]
pub struct Series {
    pub ticker: Ticker,
    pub title: String,
    pub category: String,
    pub updated: Micros,
}

/// All that is listed, in the order of listing.
#[derive(Debug, Default)]
pub struct Catalog {
    pub markets: Vec<Market>,
    pub events: Vec<Event>,
    pub series: Vec<Series>,
    /// The places of generated events, in the order of their numbers.
    pub generated: Vec<usize>,
    by_ticker: HashMap<Ticker, MarketId>,
    /// Markets by the value of the `status` filter that finds them, so that a page of a rare status
    /// does not go through all of them.
    by_filter: HashMap<&'static str, BTreeSet<MarketId>>,
    /// Multivariate markets among the open ones.
    pub multivariate_open: usize,
}

impl Catalog {
    /// The market of that ticker.
    pub fn find(&self, ticker: &str) -> Option<MarketId> {
        self.by_ticker.get(ticker).copied()
    }

    pub fn market(&self, id: MarketId) -> Option<&Market> {
        self.markets.get(id.index())
    }

    /// The markets that a `status` filter finds, in the order of listing, from `from` on.
    pub fn with_filter(&self, filter: &str, from: MarketId) -> impl Iterator<Item = MarketId> {
        self.by_filter.get(filter).into_iter().flat_map(move |ids| ids.range(from..)).copied()
    }

    /// How many markets a `status` filter finds.
    pub fn count(&self, filter: &str) -> usize {
        self.by_filter.get(filter).map_or(0, BTreeSet::len)
    }

    /// Changes a market's state at a time.
    pub fn set_status(&mut self, id: MarketId, status: Status, at: Micros) {
        let Some(market) = self.markets.get_mut(id.index()) else { return };
        let before = std::mem::replace(&mut market.status, status);
        market.updated = at;
        if market.is_multivariate() {
            self.multivariate_open += usize::from(status == Status::Active);
            self.multivariate_open -= usize::from(before == Status::Active);
        }
        if before.filter() != status.filter() {
            if let Some(ids) = self.by_filter.get_mut(before.filter()) {
                ids.remove(&id);
            }
            self.by_filter.entry(status.filter()).or_default().insert(id);
        }
    }

    pub fn market_mut(&mut self, id: MarketId) -> Option<&mut Market> {
        self.markets.get_mut(id.index())
    }

    /// The series of a market.
    pub fn series_of(&self, market: &Market) -> Option<&Series> {
        self.series.get(self.events.get(market.event)?.series)
    }

    /// The place of the series of that ticker, added when it is new.
    pub fn series_index(&mut self, ticker: &Ticker, title: &str, category: &str) -> usize {
        if let Some(at) = self.series.iter().rposition(|series| series.ticker == *ticker) {
            return at;
        }
        self.series.push(Series {
            ticker: ticker.clone(),
            title: title.to_owned(),
            category: category.to_owned(),
            updated: Micros::now(),
        });
        self.series.len() - 1
    }

    /// Adds an event and returns its place.
    pub fn add_event(&mut self, event: Event) -> usize {
        self.events.push(event);
        self.events.len() - 1
    }

    /// Lists a market; a ticker that is listed already keeps its market.
    pub fn list(&mut self, listing: Listing) -> MarketId {
        if let Some(id) = self.find(listing.ticker.as_str()) {
            return id;
        }
        let id = MarketId(u32::try_from(self.markets.len()).unwrap_or(u32::MAX));
        assert!(id.0 < u32::MAX, "fewer than 2^32 markets are listed");
        self.by_ticker.insert(listing.ticker.clone(), id);
        if let Some(event) = self.events.get_mut(listing.event) {
            event.markets.push(id);
        }
        if listing.collection.is_some() && listing.status == Status::Active {
            self.multivariate_open += 1;
        }
        self.by_filter.entry(listing.status.filter()).or_default().insert(id);
        self.markets.push(Market {
            ticker: listing.ticker,
            uuid: listing.uuid,
            event: listing.event,
            book: listing.book,
            tick_micros: listing.tick_micros,
            status: listing.status,
            created: listing.since,
            updated: listing.since,
            open: listing.since,
            close: listing.close,
            figures: Figures::default(),
            result: None,
            template: listing.template,
            last_ticker: None,
            edits: None,
            watchers: Watchers::default(),
            collection: listing.collection,
        });
        id
    }
}

/// The price of the other leg: exact, because both are whole micro-dollars.
pub fn other_leg(price: Price) -> Price {
    Price::from_micros(NOTIONAL_MICROS - price.micros())
}

/// A price of a book's side as a client sees it: the no side in no-leg prices unless the client
/// asked for yes-leg prices.
pub fn shown_price(side: Side, price: Price, yes_leg: bool) -> Price {
    if side.is_yes() || yes_leg { price } else { other_leg(price) }
}

/// The levels of a side as a client sees them, ascending by the price that is shown.
pub fn shown_levels(book: &Book, side: Side, yes_leg: bool) -> Vec<(Price, Size)> {
    let mut levels: Vec<_> =
        book.levels(side).map(|(price, size)| (shown_price(side, price, yes_leg), size)).collect();
    if !side.is_yes() && !yes_leg {
        levels.reverse();
    }
    levels
}
