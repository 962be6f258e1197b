//! What the gatherer knows of every subscription while it reads the journal: the sequence, the
//! books, and the stretches in which nothing was missed.

use std::collections::HashMap;

use super::anchors::Ticket;
use crate::kalshi::sequence::Sequence;
use crate::model::{Book, Channel, Coverage, CoverageEnd, Micros, Ticker};

/// A market by a small number, so that rows and keys need not carry its name.
pub type MarketId = u32;

/// The markets seen so far and what their clocks said last.
#[derive(Debug, Default)]
pub struct Markets {
    ids: HashMap<Ticker, MarketId>,
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    ticker: Ticker,
    clock: Option<ClockReading>,
}

/// The exchange's time of a record, and ours at its receipt.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    pub exchange_ts: Micros,
    pub received_at: Micros,
}

impl ClockReading {
    /// The exchange's time at a moment of ours, at or after the reading.
    pub fn at(self, received_at: Micros) -> Micros {
        Micros(self.exchange_ts.0.saturating_add(received_at.since(self.received_at).max(0)))
    }
}

impl Markets {
    /// The number of a ticker that was checked before.
    pub fn id(&mut self, ticker: &str) -> Option<MarketId> {
        if let Some(id) = self.ids.get(ticker) {
            return Some(*id);
        }
        let parsed = Ticker::parse(ticker).ok()?;
        let id = MarketId::try_from(self.known.len()).ok()?;
        self.known.push(Known { ticker: parsed.clone(), clock: None });
        self.ids.insert(parsed, id);
        Some(id)
    }

    /// The ticker of a number that [`Markets::id`] gave.
    pub fn ticker(&self, id: MarketId) -> Option<Ticker> {
        Some(self.known.get(usize::try_from(id).ok()?)?.ticker.clone())
    }

    /// Notes the clocks at a record of the market.
    pub fn read_clock(&mut self, id: MarketId, reading: ClockReading) {
        let known = usize::try_from(id).ok().and_then(|id| self.known.get_mut(id));
        if let Some(known) = known {
            known.clock = Some(reading);
        }
    }

    /// The clocks at the market's last record.
    pub fn clock(&self, id: MarketId) -> Option<ClockReading> {
        self.known.get(usize::try_from(id).ok()?)?.clock
    }
}

/// A stretch that is still open.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub from: Micros,
    pub first_exchange_ts: Option<Micros>,
    pub last_exchange_ts: Option<Micros>,
    /// None when a crash lost the count.
    pub records: Option<i64>,
}

impl Stretch {
    pub fn new(from: Micros) -> Self {
        Self { from, first_exchange_ts: None, last_exchange_ts: None, records: Some(0) }
    }

    /// Counts a record. Returns whether it was the first with an exchange time.
    pub fn count(&mut self, exchange_ts: Option<Micros>) -> bool {
        self.records = self.records.map(|records| records.saturating_add(1));
        let first = self.first_exchange_ts.is_none() && exchange_ts.is_some();
        self.first_exchange_ts = self.first_exchange_ts.or(exchange_ts);
        self.last_exchange_ts = self.last_exchange_ts.max(exchange_ts);
        first
    }
}

/// A market of an order-book subscription.
#[derive(Debug, Default)]
pub struct MarketState {
    /// None until a snapshot came, and after a hole.
    pub book: Option<Book>,
    pub stretch: Option<Stretch>,
    /// Exchange time of the newest change in this subscription.
    pub last_change: Option<Micros>,
    /// Snapshots that wait for the next change.
    pub waiting: Vec<Ticket>,
}

/// A subscription.
#[derive(Debug)]
pub struct Stream {
    /// Unique in this process; tells occurrence ordinals of different streams apart.
    pub id: u32,
    pub channel: Channel,
    /// Our clock at its last frame.
    pub last_frame: Micros,
    /// The stretch of a channel that covers all markets.
    pub all_markets: Option<Stretch>,
    pub markets: HashMap<MarketId, MarketState>,
}

impl Stream {
    pub fn new(id: u32, channel: Channel, at: Micros) -> Self {
        Self { id, channel, last_frame: at, all_markets: None, markets: HashMap::new() }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    /// The slot's name, when its beginning was read.
    pub slot: Option<String>,
    pub sequence: Sequence,
    /// Our clock at the last frame or pong.
    pub last_seen: Micros,
    pub streams: HashMap<i64, Stream>,
}

impl Session {
    pub fn new(at: Micros) -> Self {
        Self { slot: None, sequence: Sequence::default(), last_seen: at, streams: HashMap::new() }
    }
}

/// A change of the set of open stretches, to be kept for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenChange {
    pub session: i64,
    pub sid: i64,
    /// Empty for a channel that covers all markets.
    pub ticker: String,
    /// What is open there now: channel, beginning and first exchange time; none when closed.
    pub open: Option<OpenStretch>,
}

/// An open stretch as the table `coverage_open` keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenStretch {
    pub channel: Channel,
    pub from: Micros,
    pub first_exchange_ts: Option<Micros>,
}

/// Why and when a stretch ends.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    pub end: CoverageEnd,
    /// Our clock at the last frame or pong that proves the stretch.
    pub at: Micros,
    pub detail: &'a str,
}

/// The coverage row of a stretch that ended.
pub fn ended(
    stretch: &Stretch,
    ending: Ending<'_>,
    channel: Channel,
    ticker: Option<Ticker>,
    (session, sid): (i64, i64),
) -> Coverage {
    Coverage {
        channel,
        ticker,
        covered_from: stretch.from,
        // A stretch never ends before it began, whatever our clock did.
        covered_to: ending.at.max(stretch.from),
        first_exchange_ts: stretch.first_exchange_ts,
        last_exchange_ts: stretch.last_exchange_ts,
        records: stretch.records,
        end: ending.end,
        detail: ending.detail.to_owned(),
        session,
        sid,
    }
}
