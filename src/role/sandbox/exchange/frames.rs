//! The messages that the exchange sends, as JSON text. A message is built once per fact; only the
//! envelope around it differs between subscribers.

use std::fmt::Write;

use serde_json::{Value, json};

use super::market::{Market, shown_levels, shown_price};
use crate::model::identity::ticker_content;
use crate::model::record::Place;
use crate::model::{Micros, Price, Side, Size, TickerUpdate};

/// Appends formatted text; writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let written = write!($out, $($arg)*);
        debug_assert!(written.is_ok(), "writing to a string");
    }};
}

/// A time as the exchange writes it on deltas: trailing zeros of the fraction cut, and the point
/// with them when nothing is left.
pub fn cut_time(at: Micros) -> String {
    let full = at.to_string();
    let digits = full.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

/// A JSON string with quotes. Tickers are printable ASCII, so only two characters need care.
fn put_text(out: &mut String, text: &str) {
    if text.bytes().any(|b| b == b'"' || b == b'\\') {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn put_market(out: &mut String, market: &Market) {
    out.push_str("{\"market_ticker\":");
    put_text(out, market.ticker.as_str());
    put!(out, ",\"market_id\":\"{}\"", market.uuid);
}

/// One signed change of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub at: Micros,
    pub side: Side,
    /// In yes-leg terms.
    pub price: Price,
    pub size_delta: Size,
}

/// The message of an `orderbook_delta`.
pub fn put_delta(out: &mut String, market: &Market, change: &Change, yes_leg: bool) {
    put_market(out, market);
    put!(
        out,
        ",\"price_dollars\":\"{}\",\"delta_fp\":\"{}\",\"side\":\"{}\",\"ts\":\"{}\",\"ts_ms\":{}}}",
        shown_price(change.side, change.price, yes_leg),
        change.size_delta,
        change.side,
        cut_time(change.at),
        change.at.0.div_euclid(1000),
    );
}

/// The message of an `orderbook_snapshot`: a side without levels has no key at all.
pub fn put_snapshot(out: &mut String, market: &Market, yes_leg: bool) {
    put_market(out, market);
    for (key, side) in [("yes_dollars_fp", Side::Yes), ("no_dollars_fp", Side::No)] {
        let levels = shown_levels(&market.book, side, yes_leg);
        if levels.is_empty() {
            continue;
        }
        put!(out, ",\"{key}\":");
        put_levels(out, &levels);
    }
    out.push('}');
}

/// Levels as pairs of decimal text.
pub fn put_levels(out: &mut String, levels: &[(Price, Size)]) {
    out.push('[');
    for (at, (price, size)) in levels.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        put!(out, "{comma}[\"{price}\",\"{size}\"]");
    }
    out.push(']');
}

/// A trade as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeFact {
    pub trade_id: uuid::Uuid,
    /// To the microsecond; the stream shows milliseconds, REST all of it.
    pub at: Micros,
    pub yes_price: Price,
    pub no_price: Price,
    pub size: Size,
    pub taker: Side,
    pub is_block_trade: bool,
}

/// The message of a `trade`. `taker_book_side` is `bid` when the taker is on yes.
pub fn put_trade(out: &mut String, market: &Market, trade: &TradeFact) {
    let millis = trade.at.0.div_euclid(1000);
    put!(out, "{{\"trade_id\":\"{}\",\"market_ticker\":", trade.trade_id);
    put_text(out, market.ticker.as_str());
    put!(
        out,
        ",\"yes_price_dollars\":\"{}\",\"no_price_dollars\":\"{}\",\"count_fp\":\"{}\",\
         \"taker_side\":\"{side}\",\"taker_outcome_side\":\"{side}\",\"taker_book_side\":\"{}\",\
         \"is_block_trade\":{},\"ts\":{},\"ts_ms\":{millis}}}",
        trade.yes_price,
        trade.no_price,
        trade.size,
        if trade.taker.is_yes() { "bid" } else { "ask" },
        trade.is_block_trade,
        millis.div_euclid(1000),
        side = trade.taker,
    );
}

/// A market's quote at a time, with every field as the `ticker` message shows it.
pub fn quote(market: &Market, at: Micros) -> TickerUpdate {
    let book = &market.book;
    let bid = book.levels(Side::Yes).last();
    let ask = book.levels(Side::No).next();
    let figures = &market.figures;
    let one = super::market::NOTIONAL_MICROS;
    let open_interest = figures.open_interest.hundredths();
    let price_micros = figures.last_price.map_or(0, Price::micros);
    let mut update = TickerUpdate {
        ticker: market.ticker.clone(),
        // `ts` on tickers is whole seconds, so milliseconds are the finest that a reader knows.
        exchange_ts: Micros::from_millis(at.0.div_euclid(1000)),
        received_at: at,
        last_price: figures.last_price,
        yes_bid: Some(bid.map_or(Price::from_micros(0), |(price, _)| price)),
        yes_ask: Some(ask.map_or(Price::from_micros(one), |(price, _)| price)),
        yes_bid_size: Some(bid.map_or(Size::default(), |(_, size)| size)),
        yes_ask_size: Some(ask.map_or(Size::default(), |(_, size)| size)),
        last_trade_size: Some(figures.last_size),
        volume: Some(figures.volume),
        open_interest: Some(figures.open_interest),
        dollar_volume: Some(figures.turnover_micros / 1_000_000),
        dollar_open_interest: Some(price_micros.saturating_mul(open_interest) / 100_000_000),
        content_hash: 0,
        place: Place { session: 0, sid: 0, seq: 0 },
    };
    update.content_hash = ticker_content(&update);
    update
}

/// The message of a `ticker`. `price_dollars` is empty before the first trade.
pub fn put_ticker(out: &mut String, market: &Market, update: &TickerUpdate) {
    let price = |price: Option<Price>| price.map_or_else(String::new, |price| price.to_string());
    let size = |size: Option<Size>| size.unwrap_or_default();
    put_market(out, market);
    let millis = update.exchange_ts.0.div_euclid(1000);
    put!(
        out,
        ",\"price_dollars\":\"{}\",\"yes_bid_dollars\":\"{}\",\"yes_ask_dollars\":\"{}\",\
         \"volume_fp\":\"{}\",\"open_interest_fp\":\"{}\",\"dollar_volume\":{},\
         \"dollar_open_interest\":{},\"yes_bid_size_fp\":\"{}\",\"yes_ask_size_fp\":\"{}\",\
         \"last_trade_size_fp\":\"{}\",\"ts\":{},\"ts_ms\":{millis},\"time\":\"{}\"}}",
        price(update.last_price),
        price(update.yes_bid),
        price(update.yes_ask),
        size(update.volume),
        size(update.open_interest),
        update.dollar_volume.unwrap_or_default(),
        update.dollar_open_interest.unwrap_or_default(),
        size(update.yes_bid_size),
        size(update.yes_ask_size),
        size(update.last_trade_size),
        millis.div_euclid(1000),
        cut_time(update.exchange_ts),
    );
}

/// What an error code says, as the published description words it.
pub const fn error_text(code: u8) -> &'static str {
    match code {
        2 => "Params required",
        3 => "Channels required",
        4 => "Subscription IDs required",
        5 => "Unknown command",
        7 => "Unknown subscription ID",
        8 => "Unknown channel name",
        10 => "Channel error",
        11 => "Invalid parameter",
        12 => "Exactly one subscription ID is required",
        13 => "Unsupported action",
        14 => "Market Ticker required",
        15 => "Action required",
        25 => "Subscription buffer overflow",
        26 => "Subscription market limit exceeded",
        27 => "Too many requests",
        _ => "Unable to process message",
    }
}

/// An `error` reply. `id` 0 counts as none; a place makes it a scoped one.
pub fn error_reply(code: u8, id: u64, place: Option<(i64, i64)>, ticker: Option<&str>) -> String {
    let mut msg = json!({"code": code, "msg": error_text(code)});
    if let (Some(ticker), Some(msg)) = (ticker, msg.as_object_mut()) {
        msg.insert("market_ticker".to_owned(), ticker.into());
    }
    envelope("error", id, place, Some(msg))
}

/// A reply with its envelope.
pub fn envelope(kind: &str, id: u64, place: Option<(i64, i64)>, msg: Option<Value>) -> String {
    let mut out = String::with_capacity(96);
    put!(out, "{{\"type\":\"{kind}\"");
    if id != 0 {
        put!(out, ",\"id\":{id}");
    }
    if let Some((sid, seq)) = place {
        put!(out, ",\"sid\":{sid},\"seq\":{seq}");
    }
    if let Some(msg) = msg {
        put!(out, ",\"msg\":{msg}");
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lose_their_trailing_zeros_and_nothing_else() {
        for (micros, text) in [
            (1_785_901_540_722_003, "2026-08-05T03:45:40.722003Z"),
            (1_785_901_540_900_240, "2026-08-05T03:45:40.90024Z"),
            (1_785_901_540_000_000, "2026-08-05T03:45:40Z"),
            (1_785_901_600_000_000, "2026-08-05T03:46:40Z"),
        ] {
            assert_eq!(cut_time(Micros(micros)), text);
            assert_eq!(Micros::parse_rfc3339(text), Ok(Micros(micros)));
        }
    }
}
