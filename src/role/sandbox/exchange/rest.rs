//! The REST calls of market data, paged and limited as the exchange does.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::hub::Hub;
use super::market::{Catalog, Market, MarketId};
use super::server::{Body, not_found, reply, reply_json, unauthorised};
use super::venue::Venue;
use super::views::{
    cutoff_json, event_json, market_json, markets_of, orderbook_json, series_json, trade_json,
};
use crate::model::Micros;

/// What a call costs.
const CALL_TOKENS: u32 = 10;
/// The most markets, and trades, of one page.
const PAGE_MAX: usize = 1000;
/// The page when none is asked for.
const PAGE_DEFAULT: usize = 100;
/// The most events of one page.
const EVENTS_PAGE_MAX: usize = 200;
/// The most books of one batched call.
const BOOKS_MAX: usize = 100;

/// An account's budget of reads: refilled by the second, holding at most one second's worth.
#[derive(Debug, Default)]
pub struct TokenBucket {
    tokens: f64,
    filled: Option<Instant>,
}

impl TokenBucket {
    /// Takes the tokens of one call, if they are there.
    pub fn take(&mut self, per_second: u32) -> bool {
        let now = Instant::now();
        let capacity = f64::from(per_second);
        let earned = self.filled.map_or(capacity, |at| (now - at).as_secs_f64() * capacity);
        self.tokens = (self.tokens + earned).min(capacity);
        self.filled = Some(now);
        let enough = self.tokens >= f64::from(CALL_TOKENS);
        if enough {
            self.tokens -= f64::from(CALL_TOKENS);
        }
        enough
    }
}

/// The parameters of a query, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        });
        Self(pairs.collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A list given as `a,b` or by repetition.
    fn list(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values.flat_map(|(_, value)| value.split(',')).filter(|item| !item.is_empty()).collect()
    }

    fn number(&self, name: &'static str) -> Result<Option<i64>, Bad> {
        self.get(name).map(|text| text.parse().map_err(|_| Bad(name))).transpose()
    }

    fn limit(&self, max: usize) -> Result<usize, Bad> {
        let limit = self.number("limit")?.map(usize::try_from).transpose();
        let limit = limit.map_err(|_| Bad("limit"))?.unwrap_or(PAGE_DEFAULT);
        if limit > max { Err(Bad("limit")) } else { Ok(limit.max(1)) }
    }

    /// Where the page begins: cursors are opaque to clients, and bound to their list.
    fn offset(&self, list: &str) -> Result<usize, Bad> {
        let Some(cursor) = self.get("cursor") else { return Ok(0) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| Bad("cursor"))?;
        let text = String::from_utf8(bytes).map_err(|_| Bad("cursor"))?;
        let offset = text.strip_prefix(list).and_then(|rest| rest.strip_prefix(':'));
        offset.and_then(|offset| offset.parse().ok()).ok_or(Bad("cursor"))
    }
}

fn cursor(list: &str, offset: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{offset}"))
}

/// Decodes `%41` and `+`; what is not decodable stays as it is.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => {
                out.push(b' ');
                rest = tail;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A parameter that cannot be used.
struct Bad(&'static str);

/// Answers a call; `call` is the path behind the API's root, `signer` the account that signed it.
pub(super) fn answer(hub: &Hub, call: &str, query: &str, signer: Option<usize>) -> Response<Body> {
    let limit = hub.with(|venue| venue.limits.read_tokens_per_second);
    // Unsigned calls share the budget of the first account: a client behind one address.
    if let (Some(per_second), Some(account)) = (limit, hub.accounts.get(signer.unwrap_or(0))) {
        let taken = match account.reads.lock() {
            Ok(mut bucket) => bucket.take(per_second),
            Err(_) => true,
        };
        if !taken {
            let body = json!({"error": "too many requests"});
            return reply_json(StatusCode::TOO_MANY_REQUESTS, &body);
        }
    }
    let parsed = Query::parse(query);
    let segments: Vec<&str> = call.split('/').filter(|segment| !segment.is_empty()).collect();
    let result = match segments.as_slice() {
        ["exchange", "status"] => {
            Ok(reply_json(StatusCode::OK, &hub.with(|venue| venue.status_json())))
        }
        ["exchange", "schedule"] => {
            Ok(reply_json(StatusCode::OK, &hub.with(|venue| venue.schedule_json())))
        }
        ["historical", "cutoff"] => {
            let (settled, traded) =
                hub.with(|venue| (venue.settled_cutoff(), venue.trades_cutoff()));
            Ok(reply_json(StatusCode::OK, &cutoff_json(Micros::now(), settled, traded)))
        }
        ["historical", "trades"] => trades(hub, &parsed, true),
        ["historical", "markets"] => hub.with(|venue| historical_markets(venue, &parsed)),
        ["markets"] => hub.with(|venue| markets(venue, &parsed)),
        ["markets", "trades"] => trades(hub, &parsed, false),
        ["markets", "orderbooks"] if signer.is_none() => Ok(unauthorised()),
        ["markets", "orderbooks"] => hub.with(|venue| orderbooks(venue, &parsed)),
        ["markets", ticker] => Ok(hub.with(|venue| one_market(venue, &percent_decode(ticker)))),
        ["markets", ticker, "orderbook"] => {
            hub.with(|venue| one_orderbook(venue, &percent_decode(ticker), &parsed))
        }
        ["events"] => hub.with(|venue| events(venue, &parsed, false)),
        ["events", "multivariate"] => hub.with(|venue| events(venue, &parsed, true)),
        ["events", ticker] => {
            Ok(hub.with(|venue| one_event(venue, &percent_decode(ticker), &parsed)))
        }
        ["series"] => hub.with(|venue| series(venue, &parsed)),
        ["series", ticker] => Ok(hub.with(|venue| one_series(venue, &percent_decode(ticker)))),
        ["account", "limits" | "endpoint_costs"] if signer.is_none() => Ok(unauthorised()),
        ["account", "limits"] => Ok(account_limits(limit)),
        ["account", "endpoint_costs"] => {
            let body = json!({"default_cost": CALL_TOKENS, "endpoint_costs": []});
            Ok(reply_json(StatusCode::OK, &body))
        }
        _ => Ok(not_found()),
    };
    result.unwrap_or_else(|Bad(name)| {
        let message = format!("invalid parameter {name}");
        let body = json!({"error": {"code": "bad_request", "message": message}});
        reply_json(StatusCode::BAD_REQUEST, &body)
    })
}

fn account_limits(per_second: Option<u32>) -> Response<Body> {
    let rate = per_second.unwrap_or(6_000);
    let bucket = json!({"refill_rate": rate, "bucket_capacity": rate});
    let tier = match rate {
        0..=200 => "basic",
        201..=300 => "advanced",
        301..=600 => "expert",
        601..=1_000 => "premier",
        1_001..=2_000 => "paragon",
        2_001..=4_000 => "prime",
        _ => "prestige",
    };
    let body = json!({"usage_tier": tier, "read": bucket, "write": bucket, "grants": []});
    reply_json(StatusCode::OK, &body)
}

/// A page of rendered items with its cursor, as text: pages of 1,000 markets are worth the care.
fn page(list: &str, items: &[String], next: Option<usize>) -> Response<Body> {
    let cursor = next.map_or_else(String::new, |offset| cursor(list, offset));
    reply(StatusCode::OK, format!("{{\"{list}\":[{}],\"cursor\":\"{cursor}\"}}", items.join(",")))
}

/// Takes up to `limit` items that fit from the `offset`-th on, and where the next page begins.
fn take_page<T>(
    all: &[T],
    offset: usize,
    limit: usize,
    fits: impl Fn(&T) -> bool,
) -> (Vec<&T>, Option<usize>) {
    let mut found = all.iter().enumerate().skip(offset).filter(|(_, item)| fits(item));
    let taken: Vec<_> = found.by_ref().take(limit).map(|(_, item)| item).collect();
    (taken, found.next().map(|(at, _)| at))
}

fn markets(venue: &mut Venue, query: &Query) -> Result<Response<Body>, Bad> {
    let (limit, offset) = (query.limit(PAGE_MAX)?, query.offset("markets")?);
    let status = match query.get("status") {
        None => None,
        Some(name @ ("unopened" | "open" | "paused" | "closed" | "settled")) => Some(name),
        Some(_) => return Err(Bad("status")),
    };
    let (tickers, event) = (query.list("tickers"), query.get("event_ticker"));
    let series = query.get("series_ticker");
    let updated = query.number("min_updated_ts")?.map(Micros::from_secs);
    let created = query.number("min_created_ts")?.map(Micros::from_secs);
    let close = query.number("min_close_ts")?.map(Micros::from_secs);
    let multivariate = match query.get("mve_filter") {
        None => None,
        Some("exclude") => Some(false),
        Some("only") => Some(true),
        Some(_) => return Err(Bad("mve_filter")),
    };
    // It combines with nothing else, but for one series of ordinary markets.
    let others = status.is_some() || !tickers.is_empty() || event.is_some();
    if updated.is_some()
        && (others || created.is_some() || close.is_some() || multivariate == Some(true))
    {
        return Err(Bad("min_updated_ts"));
    }
    let cutoff = venue.settled_cutoff();
    let catalog = &venue.catalog;
    let event_of = |market: &Market| catalog.events.get(market.event).map(|e| e.ticker.as_str());
    let series_of = |market: &Market| catalog.series_of(market).map(|s| s.ticker.as_str());
    let fits = |market: &Market| {
        market.is_listed(cutoff)
            && multivariate.is_none_or(|wanted| market.is_multivariate() == wanted)
            && status.is_none_or(|status| market.status.filter() == status)
            && event.is_none_or(|event| event_of(market) == Some(event))
            && series.is_none_or(|series| series_of(market) == Some(series))
            && updated.is_none_or(|updated| market.updated >= updated)
            && created.is_none_or(|created| market.created >= created)
            && close.is_none_or(|close| market.close >= close)
    };
    let (found, next) = if tickers.is_empty()
        && let Some(status) = status
    {
        let from = MarketId(u32::try_from(offset).map_err(|_| Bad("cursor"))?);
        let ids = catalog.with_filter(status, from);
        let mut found =
            ids.filter_map(|id| Some((id, catalog.market(id)?))).filter(|(_, market)| fits(market));
        let taken: Vec<_> = found.by_ref().take(limit).map(|(_, market)| market).collect();
        (taken, found.next().map(|(id, _)| id.index()))
    } else if tickers.is_empty() {
        take_page(&catalog.markets, offset, limit, fits)
    } else {
        // A market that is named is looked up: going through all of them takes too long under lock.
        let named = tickers.iter().filter_map(|ticker| catalog.market(catalog.find(ticker)?));
        (named.filter(|market| fits(market)).take(limit).collect(), None)
    };
    let items: Vec<_> = found.into_iter().map(|market| market_json(catalog, market)).collect();
    Ok(page("markets", &items, next))
}

/// Markets that were settled before the cut-off.
fn historical_markets(venue: &mut Venue, query: &Query) -> Result<Response<Body>, Bad> {
    let (limit, offset) = (query.limit(PAGE_MAX)?, query.offset("markets")?);
    let cutoff = venue.settled_cutoff();
    let catalog = &venue.catalog;
    let fits = |market: &Market| market.is_historical(cutoff);
    let (found, next) = take_page(&catalog.markets, offset, limit, fits);
    let items: Vec<_> = found.into_iter().map(|market| market_json(catalog, market)).collect();
    Ok(page("markets", &items, next))
}

fn one_market(venue: &mut Venue, ticker: &str) -> Response<Body> {
    let catalog = &venue.catalog;
    let found = catalog.find(ticker).and_then(|id| catalog.market(id));
    match found.filter(|market| market.edits.as_ref().is_none_or(|edits| !edits.unlisted)) {
        Some(market) => {
            let body = format!("{{\"market\":{}}}", market_json(catalog, market));
            reply(StatusCode::OK, body)
        }
        None => not_found(),
    }
}

fn one_orderbook(venue: &mut Venue, ticker: &str, query: &Query) -> Result<Response<Body>, Bad> {
    let depth = query.number("depth")?.map(usize::try_from).transpose();
    let depth = depth.map_err(|_| Bad("depth"))?.filter(|depth| *depth > 0);
    let catalog = &venue.catalog;
    let Some(market) = catalog.find(ticker).and_then(|id| catalog.market(id)) else {
        return Ok(not_found());
    };
    let body = format!("{{\"orderbook_fp\":{}}}", orderbook_json(&market.book, depth));
    Ok(reply(StatusCode::OK, body))
}

fn orderbooks(venue: &mut Venue, query: &Query) -> Result<Response<Body>, Bad> {
    let tickers = query.list("tickers");
    if tickers.is_empty() || tickers.len() > BOOKS_MAX {
        return Err(Bad("tickers"));
    }
    let catalog = &venue.catalog;
    let books: Vec<String> = tickers
        .into_iter()
        .filter_map(|ticker| catalog.market(catalog.find(ticker)?))
        .map(|market| {
            let ticker = Value::from(market.ticker.as_str());
            format!(
                "{{\"ticker\":{ticker},\"orderbook_fp\":{}}}",
                orderbook_json(&market.book, None)
            )
        })
        .collect();
    Ok(reply(StatusCode::OK, format!("{{\"orderbooks\":[{}]}}", books.join(","))))
}

/// Trades before the historical cut-off or from it on, newest first. A cursor counts from the oldest, so
/// that new trades do not shift pages.
fn trades(hub: &Hub, query: &Query, is_historical: bool) -> Result<Response<Body>, Bad> {
    let limit = query.limit(PAGE_MAX)?;
    let ticker = query.get("ticker");
    let from = query.number("min_ts")?.map(Micros::from_secs);
    let to = query.number("max_ts")?.map(Micros::from_secs);
    let cutoff = hub.with(|venue| venue.trades_cutoff());
    let ledger = hub.ledger.lock();
    let end = match query.get("cursor") {
        Some(_) => query.offset("trades")?.min(ledger.trades.len()),
        None => ledger.trades.len(),
    };
    let mut found = ledger.trades.iter().enumerate().take(end).rev().filter(|(_, row)| {
        is_historical == (row.fact.at < cutoff)
            && ticker.is_none_or(|ticker| {
                ledger.name(row.market).is_some_and(|name| name.as_str() == ticker)
            })
            && from.is_none_or(|from| row.fact.at >= from)
            && to.is_none_or(|to| row.fact.at <= to)
    });
    let items: Vec<String> = found
        .by_ref()
        .take(limit)
        .filter_map(|(_, row)| Some(trade_json(ledger.name(row.market)?, &row.fact)))
        .collect();
    let next = found.next().map(|(at, _)| at + 1);
    Ok(page("trades", &items, next))
}

/// The events of ordinary markets, or those of multivariate ones: never both, and only the former
/// by when they were updated.
fn events(venue: &mut Venue, query: &Query, multivariate: bool) -> Result<Response<Body>, Bad> {
    let (limit, offset) = (query.limit(EVENTS_PAGE_MAX)?, query.offset("events")?);
    let series = query.get("series_ticker");
    let status = query.get("status");
    let updated = query.number("min_updated_ts")?.map(Micros::from_secs);
    let nested = query.get("with_nested_markets") == Some("true");
    let catalog: &Catalog = &venue.catalog;
    let (found, next) = take_page(&catalog.events, offset, limit, |event| {
        let series_ticker = catalog.series.get(event.series).map(|s| s.ticker.as_str());
        let first = event.markets.first().and_then(|id| catalog.market(*id));
        first.is_some_and(Market::is_multivariate) == multivariate
            && series.is_none_or(|series| series_ticker == Some(series))
            && updated.is_none_or(|updated| multivariate || event.updated >= updated)
            && status.is_none_or(|status| {
                let markets = event.markets.iter().filter_map(|id| catalog.market(*id));
                markets.into_iter().any(|market| market.status.filter() == status)
            })
    });
    let items: Vec<_> =
        found.into_iter().map(|event| event_json(catalog, event, nested).to_string()).collect();
    Ok(page("events", &items, next))
}

/// An event with its markets: inside when `with_nested_markets`, else beside it.
fn one_event(venue: &mut Venue, ticker: &str, query: &Query) -> Response<Body> {
    let nested = query.get("with_nested_markets") == Some("true");
    let catalog = &venue.catalog;
    let Some(event) = catalog.events.iter().find(|event| event.ticker.as_str() == ticker) else {
        return not_found();
    };
    let beside = if nested { json!([]) } else { markets_of(catalog, event) };
    let body = json!({"event": event_json(catalog, event, nested), "markets": beside});
    reply_json(StatusCode::OK, &body)
}

fn one_series(venue: &mut Venue, ticker: &str) -> Response<Body> {
    match venue.catalog.series.iter().find(|series| series.ticker.as_str() == ticker) {
        Some(series) => reply_json(StatusCode::OK, &json!({"series": series_json(series)})),
        None => not_found(),
    }
}

fn series(venue: &mut Venue, query: &Query) -> Result<Response<Body>, Bad> {
    let updated = query.number("min_updated_ts")?.map(Micros::from_secs);
    let all = venue.catalog.series.iter();
    let found: Vec<Value> = all
        .filter(|series| updated.is_none_or(|updated| series.updated >= updated))
        .map(series_json)
        .collect();
    Ok(reply_json(StatusCode::OK, &json!({"series": found})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("tickers=A%2CB&tickers=C&limit=5&x=a+b%zz&cursor=");
        assert_eq!(query.list("tickers"), ["A", "B", "C"]);
        assert_eq!(query.get("x"), Some("a b%zz"));
        assert!(matches!(query.limit(10), Ok(5)));
        assert!(query.limit(4).is_err());
        assert!(matches!(query.offset("markets"), Ok(0)));
        let next = format!("cursor={}", cursor("markets", 12));
        assert!(matches!(Query::parse(&next).offset("markets"), Ok(12)));
        assert!(Query::parse(&next).offset("events").is_err());
    }

    #[test]
    fn a_budget_is_spent_and_refilled() {
        let mut bucket = TokenBucket::default();
        let taken = (0..30).filter(|_| bucket.take(200)).count();
        assert!((20..=21).contains(&taken), "{taken}");
    }
}
