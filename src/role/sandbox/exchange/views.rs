//! Markets, events, series, books and trades as REST shows them.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::frames::{TradeFact, cut_time, put_levels, quote};
use super::market::{Catalog, Event, Market, Series, Status, shown_levels};
use crate::model::{Book, Micros, Price, Side, Size, Ticker};

/// The part of a market that lives; it overlays what the recorded metadata say.
#[derive(Serialize)]
struct Live {
    status: &'static str,
    result: &'static str,
    created_time: String,
    updated_time: String,
    open_time: String,
    close_time: String,
    expected_expiration_time: String,
    expiration_time: String,
    latest_expiration_time: String,
    yes_bid_dollars: String,
    yes_ask_dollars: String,
    no_bid_dollars: String,
    no_ask_dollars: String,
    yes_bid_size_fp: String,
    yes_ask_size_fp: String,
    last_price_dollars: String,
    volume_fp: String,
    volume_24h_fp: String,
    open_interest_fp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    settlement_value_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settlement_ts: Option<String>,
}

/// A market without recorded metadata.
#[derive(Serialize)]
struct Plain<'a> {
    ticker: &'a str,
    event_ticker: &'a str,
    market_type: &'a str,
    title: String,
    yes_sub_title: String,
    no_sub_title: String,
    can_close_early: bool,
    exchange_index: u8,
    notional_value_dollars: &'a str,
    /// A day ago the market was not there; the exchange says zeros then, too.
    previous_yes_bid_dollars: &'a str,
    previous_yes_ask_dollars: &'a str,
    previous_price_dollars: &'a str,
    expiration_value: &'a str,
    settlement_timer_seconds: u32,
    rules_primary: String,
    rules_secondary: &'a str,
    price_level_structure: &'a str,
    price_ranges: [PriceRange; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    mve_collection_ticker: Option<&'static str>,
    #[serde(flatten)]
    live: Live,
}

#[derive(Serialize)]
struct PriceRange {
    start: &'static str,
    end: &'static str,
    step: String,
}

/// The name of a market's price steps.
pub fn price_level_structure(market: &Market) -> &'static str {
    match market.tick_micros {
        100 => "centi_cent",
        1_000 => "deci_cent",
        _ => "linear_cent",
    }
}

fn later(at: Micros, secs: i64) -> Micros {
    Micros(at.0.saturating_add(secs.saturating_mul(1_000_000)))
}

fn live(market: &Market) -> Live {
    let now = quote(market, market.updated);
    let zero = Price::from_micros(0);
    let (bid, ask) = (now.yes_bid.unwrap_or(zero), now.yes_ask.unwrap_or(zero));
    let flip = |price: Price| super::market::other_leg(price).to_string();
    let settled = market.status == Status::Finalized;
    Live {
        status: market.status.name(),
        result: market.result.map_or("", |outcome| outcome.name()),
        created_time: cut_time(market.created),
        updated_time: cut_time(market.updated),
        open_time: cut_time(market.open),
        close_time: cut_time(market.close),
        expected_expiration_time: cut_time(later(market.close, 300)),
        expiration_time: cut_time(later(market.close, 7 * 86_400)),
        latest_expiration_time: cut_time(later(market.close, 7 * 86_400)),
        yes_bid_dollars: bid.to_string(),
        yes_ask_dollars: ask.to_string(),
        no_bid_dollars: flip(ask),
        no_ask_dollars: flip(bid),
        yes_bid_size_fp: now.yes_bid_size.unwrap_or_default().to_string(),
        yes_ask_size_fp: now.yes_ask_size.unwrap_or_default().to_string(),
        last_price_dollars: market.figures.last_price.unwrap_or(zero).to_string(),
        volume_fp: market.figures.volume.to_string(),
        volume_24h_fp: market.figures.volume.to_string(),
        open_interest_fp: market.figures.open_interest.to_string(),
        settlement_value_dollars: market
            .result
            .filter(|_| settled)
            .map(|outcome| outcome.value().to_string()),
        settlement_ts: settled.then(|| cut_time(market.updated)),
    }
}

/// A market as JSON text.
pub fn market_json(catalog: &Catalog, market: &Market) -> String {
    let live = live(market);
    let text = match &market.template {
        Some(template) => overlay(template, &live),
        None => {
            let event = catalog.events.get(market.event);
            let title = event.map_or("", |event| event.title.as_str());
            serde_json::to_string(&Plain {
                ticker: market.ticker.as_str(),
                event_ticker: event.map_or("", |event| event.ticker.as_str()),
                market_type: "binary",
                title: title.to_owned(),
                yes_sub_title: format!("{title}: yes"),
                no_sub_title: format!("{title}: no"),
                can_close_early: true,
                exchange_index: 0,
                notional_value_dollars: "1.0000",
                previous_yes_bid_dollars: "0.0000",
                previous_yes_ask_dollars: "0.0000",
                previous_price_dollars: "0.0000",
                expiration_value: "",
                settlement_timer_seconds: 1,
                rules_primary: format!("If {title}, then the market resolves to Yes."),
                rules_secondary: "",
                price_level_structure: price_level_structure(market),
                price_ranges: [PriceRange {
                    start: "0.0000",
                    end: "1.0000",
                    step: Price::from_micros(market.tick_micros).to_string(),
                }],
                mve_collection_ticker: market.collection,
                live,
            })
        }
    };
    let text = text.unwrap_or_else(|_| "{}".to_owned());
    let Some(edits) = market.edits.as_ref().filter(|edits| !edits.fields.is_empty()) else {
        return text;
    };
    let mut all: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    all.extend(edits.fields.clone());
    Value::Object(all).to_string()
}

fn overlay(template: &Map<String, Value>, live: &Live) -> serde_json::Result<String> {
    let mut all = template.clone();
    // What the recorded market became later is not known yet. `expiration_value` is there all the
    // same, and empty: the description of REST requires it.
    for key in ["settlement_ts", "settlement_value_dollars"] {
        all.remove(key);
    }
    if live.settlement_ts.is_none() {
        all.insert("expiration_value".to_owned(), "".into());
    }
    if let Value::Object(live) = serde_json::to_value(live)? {
        all.extend(live);
    }
    serde_json::to_string(&all)
}

/// An event, with its markets when asked for.
pub fn event_json(catalog: &Catalog, event: &Event, nested: bool) -> Value {
    let series = catalog.series.get(event.series);
    let mut all = match &event.template {
        Some(template) => template.as_ref().clone(),
        None => Map::new(),
    };
    let mut put = |key: &str, value: Value| {
        all.entry(key.to_owned()).or_insert(value);
    };
    put("event_ticker", event.ticker.as_str().into());
    put("series_ticker", series.map_or("", |series| series.ticker.as_str()).into());
    put("title", event.title.as_str().into());
    put("sub_title", "".into());
    put("category", series.map_or("", |series| series.category.as_str()).into());
    put("mutually_exclusive", false.into());
    put("collateral_return_type", "".into());
    put("strike_period", "".into());
    // Required by the description (3.30.0), and null or a list.
    put("settlement_sources", json!([]));
    // Not in the description, but in the answers that production gave in August 2026, and the crate
    // kalshi-trade-rs requires it.
    put("available_on_brokers", false.into());
    put("exchange_index", 0.into());
    all.insert("last_updated_ts".to_owned(), cut_time(event.updated).into());
    if nested {
        all.insert("markets".to_owned(), markets_of(catalog, event));
    }
    Value::Object(all)
}

/// The markets of an event.
pub fn markets_of(catalog: &Catalog, event: &Event) -> Value {
    let markets = event.markets.iter().filter_map(|id| catalog.market(*id));
    let parse = |market| serde_json::from_str::<Value>(&market_json(catalog, market)).ok();
    markets.filter_map(parse).collect()
}

/// A series.
pub fn series_json(series: &Series) -> Value {
    json!({
        "ticker": series.ticker.as_str(),
        "title": series.title,
        "category": series.category,
        "categories": [series.category],
        "tags": [],
        "frequency": "custom",
        "settlement_sources": [],
        "contract_url": "",
        "contract_terms_url": "",
        "fee_type": "quadratic",
        "fee_multiplier": 1,
        "additional_prohibitions": [],
        "last_updated_ts": cut_time(series.updated),
    })
}

/// When the exchange trades: always. A day's session that closes at its opening hour lasts until the
/// next day's. `windows` are the maintenances that were announced.
pub fn schedule_json(windows: &[Value]) -> Value {
    const DAYS: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let mut week = Map::new();
    week.insert("start_time".to_owned(), "2021-01-01T00:00:00Z".into());
    week.insert("end_time".to_owned(), "2100-01-01T00:00:00Z".into());
    for day in DAYS {
        week.insert(day.to_owned(), json!([{"open_time": "00:00", "close_time": "00:00"}]));
    }
    json!({"schedule": {"standard_hours": [week], "maintenance_windows": windows}})
}

/// Midnight a quarter ago: the usual cut-off of history.
pub fn usual_cutoff(now: Micros) -> Micros {
    let quarter = later(now, -90 * 86_400);
    Micros(quarter.0 - quarter.0.rem_euclid(86_400_000_000))
}

/// What is older than these times is served by the historical calls.
pub fn cutoff_json(now: Micros, markets_settled: Micros, trades_created: Micros) -> Value {
    json!({
        "market_settled_ts": cut_time(markets_settled),
        "trades_created_ts": cut_time(trades_created),
        "orders_updated_ts": cut_time(usual_cutoff(now)),
    })
}

/// A book as REST shows it: bids only on both sides, the no side in no-leg prices, ascending.
pub fn orderbook_json(book: &Book, depth: Option<usize>) -> String {
    let mut out = String::from("{");
    for (key, side) in [("yes_dollars", Side::Yes), ("no_dollars", Side::No)] {
        let levels: Vec<(Price, Size)> = shown_levels(book, side, false);
        let skip = depth.map_or(0, |depth| levels.len().saturating_sub(depth));
        let comma = if side.is_yes() { "" } else { "," };
        let written = write!(out, "{comma}\"{key}\":");
        debug_assert!(written.is_ok(), "writing to a string");
        put_levels(&mut out, levels.get(skip..).unwrap_or_default());
    }
    out.push('}');
    out
}

/// A trade as REST shows it: its time is finer than the stream's.
pub fn trade_json(ticker: &Ticker, trade: &TradeFact) -> String {
    json!({
        "trade_id": trade.trade_id,
        "ticker": ticker.as_str(),
        "count_fp": trade.size.to_string(),
        "yes_price_dollars": trade.yes_price.to_string(),
        "no_price_dollars": trade.no_price.to_string(),
        "taker_side": trade.taker.to_string(),
        "taker_outcome_side": trade.taker.to_string(),
        "taker_book_side": if trade.taker.is_yes() { "bid" } else { "ask" },
        "created_time": cut_time(trade.at),
        "is_block_trade": trade.is_block_trade,
    })
    .to_string()
}
