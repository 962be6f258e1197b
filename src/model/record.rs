//! The typed facts that the six logs hold, as a gatherer records them.

use std::fmt;

use uuid::Uuid;

use super::{Channel, Log, Micros, Price, Size, Ticker};

/// Where in the exchange's streams a record stood. A `sid` is a small number that repeats across
/// connections, so only the three together name a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Our connection: the microsecond at which it was opened, unique within a gatherer.
    pub session: i64,
    /// The exchange's subscription on that connection.
    pub sid: i64,
    /// The exchange's counter on that subscription; 0 where the channel has none (`ticker`).
    pub seq: i64,
}

/// A side of a book, or of a trade's taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Yes,
    No,
}

impl Side {
    /// The side that the wire calls `yes` or `no`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "yes" => Some(Self::Yes),
            "no" => Some(Self::No),
            _ => None,
        }
    }

    /// How the tables store it: true is yes.
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_yes() { "yes" } else { "no" })
    }
}

/// A signed change of one level of a book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub ticker: Ticker,
    pub exchange_ts: Micros,
    pub received_at: Micros,
    pub side: Side,
    pub price: Price,
    pub size_delta: Size,
    /// Ordinal, from 1, among identical changes (all fields above but `received_at`) in one stream.
    pub occurrence: i32,
    pub place: Place,
}

/// A trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    pub trade_id: Uuid,
    pub ticker: Ticker,
    pub exchange_ts: Micros,
    pub received_at: Micros,
    /// The price of the yes leg.
    pub price: Price,
    /// The price of the no leg, kept because a market's notional value can differ from $1.
    pub no_price: Option<Price>,
    pub size: Size,
    /// The outcome that the taker is on; none when the exchange named one we do not know.
    pub taker_side: Option<Side>,
    /// Block trades never touch the book.
    pub is_block_trade: bool,
    pub place: Place,
}

/// A message of the ticker channel. Fields are absent before a market's first quote or trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickerUpdate {
    pub ticker: Ticker,
    pub exchange_ts: Micros,
    pub received_at: Micros,
    pub last_price: Option<Price>,
    pub yes_bid: Option<Price>,
    pub yes_ask: Option<Price>,
    pub yes_bid_size: Option<Size>,
    pub yes_ask_size: Option<Size>,
    pub last_trade_size: Option<Size>,
    pub volume: Option<Size>,
    pub open_interest: Option<Size>,
    /// Whole dollars, as sent.
    pub dollar_volume: Option<i64>,
    /// Whole dollars, as sent.
    pub dollar_open_interest: Option<i64>,
    /// [`super::identity::ticker_content`] of the fields above but `received_at`.
    pub content_hash: i64,
    pub place: Place,
}

/// A lifecycle message of a market or of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// The market's ticker, or the event's.
    pub subject: Ticker,
    /// `event_type` of the message, or its frame type where it has none (`event_lifecycle`).
    pub event_type: String,
    /// The stream's own time; most types have none.
    pub exchange_ts: Option<Micros>,
    pub received_at: Micros,
    /// The whole message as canonical JSON (keys sorted), so that no field is lost.
    pub payload: String,
    /// [`super::identity::text_content`] of the payload.
    pub content_hash: i64,
    pub place: Place,
}

/// Who sent a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotSource {
    /// A stream, in its place there.
    Ws,
    /// REST, without a place in a stream.
    Rest,
}

impl SnapshotSource {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Rest => "rest",
        }
    }
}

/// A full book at one place of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub ticker: Ticker,
    pub received_at: Micros,
    /// The book after all deltas with `exchange_ts <= anchor_ts` equals this one exactly; none when
    /// it stands between two deltas of one microsecond.
    pub anchor_ts: Option<Micros>,
    pub source: SnapshotSource,
    /// Ascending by price; the best is the last.
    pub yes: Vec<(Price, Size)>,
    /// Ascending by price, in yes-leg prices.
    pub no: Vec<(Price, Size)>,
    pub place: Place,
}

/// Why a stretch of coverage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CoverageEnd {
    /// A number of the sequence is missing.
    Gap,
    /// The sequence went back: the exchange reset the stream.
    Reset,
    /// The connection closed.
    Disconnect,
    /// A terminal error of the exchange (code 10).
    TerminalError,
    /// We read too slowly (code 25), or could not take frames off the socket.
    Overload,
    /// The gatherer stopped in order.
    Stop,
    /// The gatherer died and its journal ends here.
    Crash,
    /// We, or the market's settlement, ended the subscription.
    Unsubscribed,
    /// A frame of this market could not be decoded.
    DecodeError,
    /// The replayed book contradicted the exchange's.
    Integrity,
    /// The journal is damaged here: what it held is lost.
    JournalDamage,
    /// Nothing ended: a long stretch is cut so that what is covered becomes visible.
    Continues,
}

impl CoverageEnd {
    /// The name in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Reset => "reset",
            Self::Disconnect => "disconnect",
            Self::TerminalError => "terminal_error",
            Self::Overload => "overload",
            Self::Stop => "stop",
            Self::Crash => "crash",
            Self::Unsubscribed => "unsubscribed",
            Self::DecodeError => "decode_error",
            Self::Integrity => "integrity",
            Self::JournalDamage => "journal_damage",
            Self::Continues => "continues",
        }
    }
}

/// A stretch in which one subscription was seen without a hole, written when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    pub channel: Channel,
    /// The market, or none for a channel that covers all markets.
    pub ticker: Option<Ticker>,
    /// Our clock when the frame that opened the stretch (`subscribed`, a snapshot) left the socket.
    pub covered_from: Micros,
    /// Our clock when the last frame or pong that proves the stretch left the socket.
    pub covered_to: Micros,
    /// The exchange's clock at the first record of this market (or channel) in the stretch.
    pub first_exchange_ts: Option<Micros>,
    /// The exchange's clock at the last one: between the two, nothing of the market is missing.
    pub last_exchange_ts: Option<Micros>,
    /// Records of the market (or channel) in the stretch; none when a crash lost the count.
    pub records: Option<i64>,
    pub end: CoverageEnd,
    /// A sentence for people, for instance the numbers around a gap.
    pub detail: String,
    pub session: i64,
    pub sid: i64,
}

/// One row of one of the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Delta(Delta),
    Trade(Trade),
    Ticker(TickerUpdate),
    Lifecycle(Lifecycle),
    Snapshot(Snapshot),
    Coverage(Coverage),
}

impl Record {
    /// The log that it belongs to.
    pub const fn log(&self) -> Log {
        match self {
            Self::Delta(_) => Log::OrderbookDeltas,
            Self::Trade(_) => Log::Trades,
            Self::Ticker(_) => Log::Tickers,
            Self::Lifecycle(_) => Log::MarketLifecycle,
            Self::Snapshot(_) => Log::OrderbookSnapshots,
            Self::Coverage(_) => Log::Coverage,
        }
    }
}
