//! What the gatherer knows of every subscription while it reads the journal: the sequence, the
//! books, and the stretches in which nothing was missed.

use super::anchors::Ticket;
use super::exchange_time::Offset;
use super::hashing::FastMap;
use crate::kalshi::sequence::Sequence;
use crate::model::{Book, Channel, Coverage, CoverageEnd, Micros, Ticker};

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

/// A market of an order-book subscription. It goes when the market or the subscription does.
#[derive(Debug)]
pub struct MarketState {
    pub ticker: Ticker,
    /// Never given twice in this process: tells occurrence ordinals of different streams and markets
    /// apart.
    pub number: u64,
    /// None until a snapshot came, and after a hole.
    pub book: Option<Book>,
    pub stretch: Option<Stretch>,
    /// The exchange's clock by the changes of this subscription.
    pub offset: Option<Offset>,
    /// The highest exchange time of a change in this subscription.
    pub last_change: Option<Micros>,
    /// Snapshots that wait for the next change.
    pub waiting: Vec<Ticket>,
    /// Changes since the last snapshot, or since another was asked for.
    pub changes: u32,
}

impl MarketState {
    fn new(ticker: Ticker, number: u64) -> Self {
        Self {
            ticker,
            number,
            book: None,
            stretch: None,
            offset: None,
            last_change: None,
            waiting: Vec::new(),
            changes: 0,
        }
    }
}

/// A subscription.
#[derive(Debug)]
pub struct Stream {
    pub channel: Channel,
    /// Our time up to which its frames prove that all came.
    pub last_frame: Micros,
    /// The stretch of a channel that covers all markets.
    pub all_markets: Option<Stretch>,
    pub markets: FastMap<Ticker, MarketState>,
}

impl Stream {
    pub fn new(channel: Channel, at: Micros) -> Self {
        Self { channel, last_frame: at, all_markets: None, markets: FastMap::default() }
    }

    /// The market's state, and whether it was made just now. None when the text is no ticker.
    pub fn market(&mut self, ticker: &str, made: &mut u64) -> Option<(&mut MarketState, bool)> {
        let is_new = !self.markets.contains_key(ticker);
        if is_new {
            let ticker = Ticker::parse(ticker).ok()?;
            *made += 1;
            self.markets.insert(ticker.clone(), MarketState::new(ticker, *made));
        }
        Some((self.markets.get_mut(ticker)?, is_new))
    }
}

/// How long after a pause what comes may be older than it looks, in microseconds. Buffers of sockets
/// empty far faster; the exchange's own queue for us is read within seconds.
const CATCH_UP_MICROS: i64 = 30_000_000;

/// A connection.
#[derive(Debug)]
pub struct Session {
    /// The slot's name, when its beginning was read.
    pub slot: Option<String>,
    pub sequence: Sequence,
    /// Our time up to which frames and pongs prove that all came. What is read soon after a pause proves
    /// nothing: it may have waited in the socket since the pause began, and the exchange may have
    /// given up then.
    pub last_seen: Micros,
    pub streams: FastMap<i64, Stream>,
    /// The socket was not read from one time of our clock to another.
    pause: Option<(Micros, Micros)>,
}

impl Session {
    pub fn new(at: Micros) -> Self {
        Self {
            slot: None,
            sequence: Sequence::default(),
            last_seen: at,
            streams: FastMap::default(),
            pause: None,
        }
    }

    /// Something was read from the connection at `at`, which proves that all came up to `proved`.
    pub fn seen(&mut self, at: Micros, proved: Micros) {
        if let Some((from, until)) = self.pause {
            if at > from && at.since(until) < CATCH_UP_MICROS {
                return;
            }
            if at > from {
                self.pause = None;
            }
        }
        self.last_seen = self.last_seen.max(proved);
    }

    /// The connection was not read for `waited` microseconds until `until`.
    pub fn paused(&mut self, until: Micros, waited: i64) {
        let from = Micros(until.0.saturating_sub(waited.max(0)));
        let from = self.pause.map_or(from, |(before, _)| before.min(from));
        self.pause = Some((from, until));
    }

    /// The latest time, `at` at most, up to which the connection is known to have brought all.
    pub fn proved(&self, at: Micros) -> Micros {
        at.min(self.last_seen)
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
    /// Our time up to which a frame or a pong proves the stretch.
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
