//! Frames to facts: one step from a frame's text to typed records, exact and total.
//!
//! Nothing here panics or guesses: text that is not what the protocol promises becomes a
//! [`DecodeError`] that names the field and the value, and a frame of an unknown type becomes
//! [`Message::Unknown`]. Unknown fields are reported, never refused.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::wire::{Envelope, ErrorMessage, Subscribed, Whole};
use crate::model::decimal::excerpt;
use crate::model::{Channel, Micros, NumberError, Price, Side, Size, Ticker, TimeError, identity};

/// Why a frame is no fact: the kind of frame, the field and what was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The frame's type, or `json` when it has none that we could read.
    pub kind: &'static str,
    pub field: &'static str,
    pub reason: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: field {}: {}", self.kind, self.field, self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// A frame's place and message.
#[derive(Debug)]
pub struct Frame {
    /// Whether it answers a command of ours.
    pub is_reply: bool,
    pub sid: Option<i64>,
    pub seq: Option<i64>,
    pub message: Result<Message, DecodeError>,
    /// The market that the frame is about, also when its message could not be decoded.
    pub ticker: Option<String>,
    /// The first field that we do not know, with its value, for the log.
    pub unknown_field: Option<(&'static str, String)>,
}

impl Frame {
    /// When the exchange sent it, as far as it says: a lifecycle message tells of other times.
    pub fn exchange_ts(&self) -> Option<Micros> {
        match self.message.as_ref().ok()? {
            Message::Delta(delta) => Some(delta.exchange_ts),
            Message::Trade(trade) => Some(trade.exchange_ts),
            Message::Ticker(ticker) => Some(ticker.exchange_ts),
            _ => None,
        }
    }
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Delta(DeltaMessage),
    Snapshot(SnapshotMessage),
    Trade(TradeMessage),
    Ticker(TickerMessage),
    Lifecycle(LifecycleMessage),
    /// A subscription began; the sid stands in the message.
    Subscribed {
        sid: i64,
        channel: Option<Channel>,
    },
    /// A command was carried out.
    Ok,
    /// A subscription ended on our command.
    Unsubscribed,
    /// The exchange refused a command (`id` given) or ended a subscription (none).
    Error {
        id: Option<u64>,
        code: i64,
        text: String,
    },
    /// A type that this version does not know.
    Unknown {
        kind: String,
    },
}

/// A change of one level.
#[derive(Debug, PartialEq, Eq)]
pub struct DeltaMessage {
    pub ticker: String,
    pub exchange_ts: Micros,
    pub side: Side,
    pub price: Price,
    pub size_delta: Size,
}

/// A full book.
#[derive(Debug, PartialEq, Eq)]
pub struct SnapshotMessage {
    pub ticker: String,
    pub yes: Vec<(Price, Size)>,
    pub no: Vec<(Price, Size)>,
}

/// A trade.
#[derive(Debug, PartialEq, Eq)]
pub struct TradeMessage {
    pub trade_id: Uuid,
    pub ticker: String,
    pub exchange_ts: Micros,
    pub price: Price,
    pub no_price: Option<Price>,
    pub size: Size,
    pub taker_side: Option<Side>,
    pub is_block_trade: bool,
}

/// A quote.
#[derive(Debug, PartialEq, Eq)]
pub struct TickerMessage {
    pub ticker: String,
    pub exchange_ts: Micros,
    pub last_price: Option<Price>,
    pub yes_bid: Option<Price>,
    pub yes_ask: Option<Price>,
    pub yes_bid_size: Option<Size>,
    pub yes_ask_size: Option<Size>,
    pub last_trade_size: Option<Size>,
    pub volume: Option<Size>,
    pub open_interest: Option<Size>,
    pub dollar_volume: Option<i64>,
    pub dollar_open_interest: Option<i64>,
}

/// A change of a market's or event's state.
#[derive(Debug, PartialEq, Eq)]
pub struct LifecycleMessage {
    pub subject: String,
    pub event_type: String,
    pub exchange_ts: Option<Micros>,
    /// Canonical JSON of the whole message.
    pub payload: String,
    pub content_hash: i64,
}

/// Decodes a frame that left the socket at `received_at`.
pub fn decode(bytes: &[u8], received_at: Micros) -> Frame {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let reason = format!("not UTF-8: {error}");
            return bare(Err(DecodeError { kind: "json", field: "frame", reason }));
        }
    };
    // Nearly all frames are deltas, and the exchange writes `type` first: one parse for those.
    if text.starts_with("{\"type\":\"orderbook_delta\"")
        && let Ok(frame) = serde_json::from_str::<Sequenced<RawDelta<'_>>>(text)
    {
        return delta(frame, received_at);
    }
    let envelope = match Envelope::parse(text) {
        Ok(envelope) => envelope,
        Err(error) => {
            let reason = format!("{error}: {:?}", excerpt(text));
            return bare(Err(DecodeError { kind: "json", field: "frame", reason }));
        }
    };
    let (sid, seq) = (envelope.sid, envelope.seq);
    let is_reply = envelope.id.is_some_and(|id| id != 0);
    let with = |message| Frame { is_reply, sid, seq, message, ticker: None, unknown_field: None };
    match envelope.kind.as_ref() {
        "orderbook_delta" => match serde_json::from_str::<Sequenced<RawDelta<'_>>>(text) {
            Ok(frame) => delta(frame, received_at),
            Err(error) => failed(&envelope, "orderbook_delta", text, &error),
        },
        "orderbook_snapshot" => match serde_json::from_str::<Whole<RawSnapshot<'_>>>(text) {
            Ok(frame) => {
                let ticker = Some(frame.msg.market_ticker.clone().into_owned());
                Frame { ticker, ..with(snapshot(frame.msg)) }
            }
            Err(error) => failed(&envelope, "orderbook_snapshot", text, &error),
        },
        "trade" => match serde_json::from_str::<Whole<RawTrade<'_>>>(text) {
            Ok(frame) => {
                let ticker = Some(frame.msg.market_ticker.clone().into_owned());
                let unknown_field = unknown_field("trade", &frame.msg.rest);
                Frame { ticker, unknown_field, ..with(trade(frame.msg, received_at)) }
            }
            Err(error) => failed(&envelope, "trade", text, &error),
        },
        "ticker" => match serde_json::from_str::<Whole<RawTicker<'_>>>(text) {
            Ok(frame) => {
                let ticker = Some(frame.msg.market_ticker.clone().into_owned());
                let unknown_field = unknown_field("ticker", &frame.msg.rest);
                Frame { ticker, unknown_field, ..with(quote(frame.msg, received_at)) }
            }
            Err(error) => failed(&envelope, "ticker", text, &error),
        },
        kind @ ("market_lifecycle_v2"
        | "event_lifecycle"
        | "event_fee_update"
        | "multivariate_market_lifecycle") => match serde_json::from_str::<Whole<Value>>(text) {
            Ok(frame) => with(lifecycle(kind, &frame.msg, received_at)),
            Err(error) => failed(&envelope, "market_lifecycle_v2", text, &error),
        },
        "subscribed" => match serde_json::from_str::<Whole<Subscribed<'_>>>(text) {
            Ok(Whole { msg }) => {
                let channel = Channel::from_name(&msg.channel);
                with(Ok(Message::Subscribed { sid: msg.sid, channel }))
            }
            Err(error) => failed(&envelope, "subscribed", text, &error),
        },
        "ok" => with(Ok(Message::Ok)),
        "unsubscribed" => with(Ok(Message::Unsubscribed)),
        "error" => match serde_json::from_str::<Whole<ErrorMessage<'_>>>(text) {
            Ok(Whole { msg }) => {
                let id = envelope.id.filter(|id| *id != 0);
                with(Ok(Message::Error { id, code: msg.code, text: excerpt(&msg.msg) }))
            }
            Err(error) => failed(&envelope, "error", text, &error),
        },
        kind => with(Ok(Message::Unknown { kind: excerpt(kind) })),
    }
}

fn bare(message: Result<Message, DecodeError>) -> Frame {
    Frame { is_reply: false, sid: None, seq: None, message, ticker: None, unknown_field: None }
}

/// A frame whose message has the wrong form: its place and market still count.
fn failed(
    envelope: &Envelope<'_>,
    kind: &'static str,
    text: &str,
    error: &serde_json::Error,
) -> Frame {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        market_ticker: Option<String>,
    }
    let ticker = serde_json::from_str::<Whole<Named>>(text).ok().and_then(|n| n.msg.market_ticker);
    let reason = excerpt_long(&error.to_string());
    let message = Err(DecodeError { kind, field: "msg", reason });
    let (sid, seq) = (envelope.sid, envelope.seq);
    Frame { is_reply: false, sid, seq, message, ticker, unknown_field: None }
}

fn excerpt_long(text: &str) -> String {
    text.chars().take(160).collect()
}

/// A frame with its place, in one step.
#[derive(Deserialize)]
struct Sequenced<M> {
    #[serde(default)]
    sid: Option<i64>,
    #[serde(default)]
    seq: Option<i64>,
    msg: M,
}

/// Fields that this version does not know, kept only to be named.
type Rest = std::collections::BTreeMap<String, Value>;

fn unknown_field(kind: &'static str, rest: &Rest) -> Option<(&'static str, String)> {
    let (name, value) = rest.iter().next()?;
    Some((kind, format!("{} = {}", excerpt(name), excerpt(&value.to_string()))))
}

/// A text that borrows from the frame also inside of options and lists, where serde would copy a
/// `Cow`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow)]
    market_ticker: Cow<'a, str>,
    #[serde(borrow)]
    price_dollars: Cow<'a, str>,
    #[serde(borrow)]
    delta_fp: Cow<'a, str>,
    #[serde(borrow)]
    side: Cow<'a, str>,
    #[serde(default, borrow)]
    ts: Option<Text<'a>>,
    #[serde(default)]
    ts_ms: Option<i64>,
}

#[derive(Deserialize)]
struct RawSnapshot<'a> {
    #[serde(borrow)]
    market_ticker: Cow<'a, str>,
    #[serde(default, borrow)]
    yes_dollars_fp: Vec<(Text<'a>, Text<'a>)>,
    #[serde(default, borrow)]
    no_dollars_fp: Vec<(Text<'a>, Text<'a>)>,
}

#[derive(Deserialize)]
struct RawTrade<'a> {
    #[serde(borrow)]
    trade_id: Cow<'a, str>,
    #[serde(borrow)]
    market_ticker: Cow<'a, str>,
    #[serde(borrow)]
    yes_price_dollars: Cow<'a, str>,
    #[serde(default, borrow)]
    no_price_dollars: Option<Text<'a>>,
    #[serde(borrow)]
    count_fp: Cow<'a, str>,
    #[serde(default, borrow)]
    taker_outcome_side: Option<Text<'a>>,
    #[serde(default, borrow)]
    taker_side: Option<Text<'a>>,
    #[serde(default)]
    is_block_trade: bool,
    #[serde(default)]
    ts: Option<i64>,
    #[serde(default)]
    ts_ms: Option<i64>,
    #[serde(default, rename = "market_id")]
    _market_id: serde::de::IgnoredAny,
    #[serde(default, rename = "taker_book_side")]
    _taker_book_side: serde::de::IgnoredAny,
    // Our own account's; never stored, and not unknown.
    #[serde(default, rename = "client_order_id")]
    _client_order_id: serde::de::IgnoredAny,
    #[serde(default, rename = "subaccount")]
    _subaccount: serde::de::IgnoredAny,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawTicker<'a> {
    #[serde(borrow)]
    market_ticker: Cow<'a, str>,
    #[serde(default, borrow)]
    price_dollars: Option<Text<'a>>,
    #[serde(default, borrow)]
    yes_bid_dollars: Option<Text<'a>>,
    #[serde(default, borrow)]
    yes_ask_dollars: Option<Text<'a>>,
    #[serde(default, borrow)]
    volume_fp: Option<Text<'a>>,
    #[serde(default, borrow)]
    open_interest_fp: Option<Text<'a>>,
    #[serde(default, borrow)]
    yes_bid_size_fp: Option<Text<'a>>,
    #[serde(default, borrow)]
    yes_ask_size_fp: Option<Text<'a>>,
    #[serde(default, borrow)]
    last_trade_size_fp: Option<Text<'a>>,
    #[serde(default)]
    dollar_volume: Option<i64>,
    #[serde(default)]
    dollar_open_interest: Option<i64>,
    #[serde(default)]
    ts: Option<i64>,
    #[serde(default)]
    ts_ms: Option<i64>,
    #[serde(default, rename = "market_id")]
    _market_id: serde::de::IgnoredAny,
    #[serde(default, rename = "time")]
    _time: serde::de::IgnoredAny,
    #[serde(flatten)]
    rest: Rest,
}

/// Names a field in the error of its value.
fn field<T, E: fmt::Display>(
    kind: &'static str,
    name: &'static str,
    value: Result<T, E>,
) -> Result<T, DecodeError> {
    value.map_err(|error| DecodeError { kind, field: name, reason: error.to_string() })
}

/// The exchange's time: `ts` when it has a fraction of a second, else `ts_ms`, else `ts`.
fn delta_time(
    ts: Option<&str>,
    ts_ms: Option<i64>,
    received_at: Micros,
) -> Result<Micros, TimeError> {
    let fine = ts.filter(|ts| ts.contains('.'));
    let at = match (fine, ts_ms, ts) {
        (Some(ts), _, _) | (None, None, Some(ts)) => Micros::parse_rfc3339(ts)?,
        (None, Some(ms), _) => Micros::from_millis(ms),
        (None, None, None) => return Err(TimeError::Missing),
    };
    at.believable(received_at)
}

/// The same for channels whose `ts` is whole seconds.
fn whole_time(
    ts: Option<i64>,
    ts_ms: Option<i64>,
    received_at: Micros,
) -> Result<Micros, TimeError> {
    let at = match (ts_ms, ts) {
        (Some(ms), _) => Micros::from_millis(ms),
        (None, Some(secs)) => Micros::from_secs(secs),
        (None, None) => return Err(TimeError::Missing),
    };
    at.believable(received_at)
}

/// A ticker is checked here and made once, by whoever keeps the record.
fn market(kind: &'static str, ticker: &str) -> Result<(), DecodeError> {
    field(kind, "market_ticker", Ticker::check(ticker))
}

fn delta(frame: Sequenced<RawDelta<'_>>, received_at: Micros) -> Frame {
    const KIND: &str = "orderbook_delta";
    let raw = frame.msg;
    let message = || {
        market(KIND, &raw.market_ticker)?;
        let side = Side::from_name(&raw.side);
        let side = side.ok_or_else(|| format!("{:?} is no side", excerpt(&raw.side)));
        let time = delta_time(raw.ts.as_deref(), raw.ts_ms, received_at);
        Ok(Message::Delta(DeltaMessage {
            ticker: raw.market_ticker.clone().into_owned(),
            exchange_ts: field(KIND, "ts", time)?,
            side: field(KIND, "side", side)?,
            price: field(KIND, "price_dollars", Price::parse(&raw.price_dollars))?,
            size_delta: field(KIND, "delta_fp", Size::parse_signed(&raw.delta_fp))?,
        }))
    };
    let message = message();
    let ticker = message.is_err().then(|| raw.market_ticker.clone().into_owned());
    let (sid, seq) = (frame.sid, frame.seq);
    Frame { is_reply: false, sid, seq, message, ticker, unknown_field: None }
}

fn snapshot(raw: RawSnapshot<'_>) -> Result<Message, DecodeError> {
    const KIND: &str = "orderbook_snapshot";
    market(KIND, &raw.market_ticker)?;
    let levels = |name, side: &[(Text<'_>, Text<'_>)]| {
        let level = |(price, size): &(Text<'_>, Text<'_>)| -> Result<_, NumberError> {
            Ok((Price::parse(price)?, Size::parse(size)?))
        };
        let levels: Result<Vec<_>, _> = side.iter().map(level).collect();
        let mut levels = field(KIND, name, levels)?;
        levels.sort_unstable_by_key(|(price, _)| *price);
        Ok(levels)
    };
    Ok(Message::Snapshot(SnapshotMessage {
        yes: levels("yes_dollars_fp", &raw.yes_dollars_fp)?,
        no: levels("no_dollars_fp", &raw.no_dollars_fp)?,
        ticker: raw.market_ticker.into_owned(),
    }))
}

fn trade(raw: RawTrade<'_>, received_at: Micros) -> Result<Message, DecodeError> {
    const KIND: &str = "trade";
    market(KIND, &raw.market_ticker)?;
    let taker = raw.taker_outcome_side.as_deref().or(raw.taker_side.as_deref());
    let no_price = raw.no_price_dollars.as_deref().map(Price::parse).transpose();
    Ok(Message::Trade(TradeMessage {
        trade_id: field(KIND, "trade_id", raw.trade_id.parse::<Uuid>())?,
        exchange_ts: field(KIND, "ts_ms", whole_time(raw.ts, raw.ts_ms, received_at))?,
        price: field(KIND, "yes_price_dollars", Price::parse(&raw.yes_price_dollars))?,
        no_price: field(KIND, "no_price_dollars", no_price)?,
        size: field(KIND, "count_fp", Size::parse(&raw.count_fp))?,
        taker_side: taker.and_then(Side::from_name),
        is_block_trade: raw.is_block_trade,
        ticker: raw.market_ticker.into_owned(),
    }))
}

fn quote(raw: RawTicker<'_>, received_at: Micros) -> Result<Message, DecodeError> {
    const KIND: &str = "ticker";
    market(KIND, &raw.market_ticker)?;
    // Prices are "" before the first trade or quote.
    let price = |name, text: &Option<Text<'_>>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        field(KIND, name, text.map(Price::parse).transpose())
    };
    let size = |name, text: &Option<Text<'_>>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        field(KIND, name, text.map(Size::parse).transpose())
    };
    Ok(Message::Ticker(TickerMessage {
        exchange_ts: field(KIND, "ts_ms", whole_time(raw.ts, raw.ts_ms, received_at))?,
        last_price: price("price_dollars", &raw.price_dollars)?,
        yes_bid: price("yes_bid_dollars", &raw.yes_bid_dollars)?,
        yes_ask: price("yes_ask_dollars", &raw.yes_ask_dollars)?,
        yes_bid_size: size("yes_bid_size_fp", &raw.yes_bid_size_fp)?,
        yes_ask_size: size("yes_ask_size_fp", &raw.yes_ask_size_fp)?,
        last_trade_size: size("last_trade_size_fp", &raw.last_trade_size_fp)?,
        volume: size("volume_fp", &raw.volume_fp)?,
        open_interest: size("open_interest_fp", &raw.open_interest_fp)?,
        dollar_volume: raw.dollar_volume,
        dollar_open_interest: raw.dollar_open_interest,
        ticker: raw.market_ticker.into_owned(),
    }))
}

fn lifecycle(kind: &str, msg: &Value, received_at: Micros) -> Result<Message, DecodeError> {
    const KIND: &str = "market_lifecycle_v2";
    let text = |name: &str| msg.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let subject = text("market_ticker").or_else(|| text("event_ticker"));
    let subject = field(KIND, "market_ticker", subject.ok_or("neither a market nor an event"))?;
    market(KIND, subject)?;
    let event_type = text("event_type").unwrap_or(kind);
    let at = msg.get("ts_ms").and_then(Value::as_i64).map(Micros::from_millis);
    // Maps of serde_json are sorted by key, so the text is the same for every gatherer.
    let payload = msg.to_string();
    Ok(Message::Lifecycle(LifecycleMessage {
        subject: subject.to_owned(),
        event_type: event_type.chars().take(64).collect(),
        exchange_ts: at.and_then(|at| at.believable(received_at).ok()),
        content_hash: identity::text_content(&payload),
        payload,
    }))
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
