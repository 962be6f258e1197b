//! What the exchange's REST is asked: its state and schedule, our limits, lists of markets, books.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::kalshi::lists::Walk;
use crate::kalshi::market::{MarketWire, Page};
use crate::kalshi::rest::{Rest, RestError, encode, share_of};
use crate::model::{Micros, Ticker};

/// Read tokens that one request costs unless the exchange says otherwise.
const TOKENS_PER_REQUEST: u32 = 10;
/// Tokens at once after a pause.
const BURST_TOKENS: u32 = 5 * TOKENS_PER_REQUEST;
/// More than any tier has, and more than any request costs.
const TOKENS_MAX: f64 = 1e6;
/// Books of one call.
pub const BOOKS_MAX: usize = 100;
/// The path of [`Rest::orderbooks`].
pub const ORDERBOOKS: &str = "/markets/orderbooks";
/// The path of [`Rest::markets`].
pub const MARKETS: &str = "/markets";

/// `GET /exchange/status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExchangeStatus {
    pub exchange_active: bool,
    pub trading_active: bool,
    #[serde(default)]
    pub exchange_estimated_resume_time: Option<String>,
}

/// A time in which the exchange says that it may be away: from the first, up to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: Micros,
    pub to: Micros,
}

/// Our account's budget of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Read tokens a second of the whole account.
    pub account_tokens: u32,
    /// The part of them that we keep to.
    pub our_tokens: u32,
}

/// Which markets to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MarketsQuery {
    /// `unopened`, `open`, `paused`, `closed` or `settled`; one only, or all without.
    pub status: Option<&'static str>,
    /// `exclude` or `only`; both kinds without.
    pub mve_filter: Option<&'static str>,
    pub series_ticker: Option<String>,
    /// Metadata changed since, Unix seconds; combines only with `mve_filter=exclude` and
    /// `series_ticker`.
    pub min_updated_ts: Option<i64>,
}

/// What requests cost, by path below the base.
#[derive(Debug, Default)]
pub struct Costs {
    default: Option<u32>,
    paths: HashMap<String, u32>,
}

impl Costs {
    /// What a request of a path costs, in read tokens.
    pub fn of(&self, path: &str) -> u32 {
        let usual = self.default.unwrap_or(TOKENS_PER_REQUEST);
        self.paths.get(path).copied().unwrap_or(usual)
    }
}

impl Rest {
    /// Whether the exchange and trading are on; answers throughout a maintenance, then also with
    /// HTTP 503 and the same body.
    ///
    /// # Errors
    /// As every request: see [`RestError`].
    pub async fn status(&self) -> Result<ExchangeStatus, RestError> {
        match self.get_once("/exchange/status", "").await {
            Ok(body) => decode("/exchange/status", &body),
            Err(RestError::Status { code, body, retry_after }) if code >= 500 => {
                serde_json::from_str(&body).map_err(|_| RestError::Status {
                    code,
                    body,
                    retry_after,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The maintenance windows that the exchange has announced. One that cannot be read costs the
    /// whole schedule: half of it would look complete.
    ///
    /// # Errors
    /// As every request; it is not tried again.
    pub async fn maintenance_windows(&self) -> Result<Vec<Window>, RestError> {
        #[derive(Deserialize)]
        struct Reply {
            schedule: Schedule,
        }
        #[derive(Deserialize)]
        struct Schedule {
            #[serde(default)]
            maintenance_windows: Option<Vec<Wire>>,
        }
        #[derive(Deserialize)]
        struct Wire {
            start_datetime: String,
            end_datetime: String,
        }
        let body = self.get_once("/exchange/schedule", "").await?;
        let reply: Reply = decode("/exchange/schedule", &body)?;
        let time = |field: &str, text: &str| {
            // With an offset, whichever it is: summer time is the exchange's to know.
            let at: jiff::Timestamp = text.parse().map_err(|_| {
                RestError::Decode(format!("maintenance window: `{field}` is no time: {text:?}"))
            })?;
            Ok(Micros(at.as_microsecond()))
        };
        let windows = reply.schedule.maintenance_windows.unwrap_or_default().into_iter();
        windows
            .map(|wire| {
                let from = time("start_datetime", &wire.start_datetime)?;
                Ok(Window { from, to: time("end_datetime", &wire.end_datetime)? })
            })
            .collect()
    }

    /// Full books of up to [`BOOKS_MAX`] markets, as the exchange sent them. Signed.
    ///
    /// # Errors
    /// As every request; it is not tried again, because the next round asks for newer ones.
    pub async fn orderbooks(&self, tickers: &[Ticker]) -> Result<Bytes, RestError> {
        assert!(tickers.len() <= BOOKS_MAX, "the exchange takes no more");
        let mut query = String::new();
        for ticker in tickers {
            let mark = if query.is_empty() { "" } else { "&" };
            // Writing to a String cannot fail.
            let _written = write!(query, "{mark}tickers={}", encode(ticker.as_str()));
        }
        self.get_once(ORDERBOOKS, &query).await
    }

    /// The pages of a list of markets, 1000 at a time.
    pub fn markets(self: &Arc<Self>, query: &MarketsQuery) -> MarketPages {
        let mut fixed = String::from("limit=1000");
        let mut pair = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _written = write!(fixed, "&{name}={}", encode(value));
        };
        if let Some(status) = query.status {
            pair("status", status);
        }
        if let Some(filter) = query.mve_filter {
            pair("mve_filter", filter);
        }
        if let Some(series) = &query.series_ticker {
            pair("series_ticker", series);
        }
        if let Some(since) = query.min_updated_ts {
            pair("min_updated_ts", &since.to_string());
        }
        MarketPages(Walk::new(Arc::clone(self), MARKETS, fixed))
    }

    /// Asks for our account's limits and keeps to our share of them from now on. Without credentials
    /// the default stays.
    ///
    /// # Errors
    /// As every request; the budget is then unchanged.
    pub async fn learn_limits(&self) -> Result<Option<Limits>, RestError> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            read: Option<Bucket>,
            /// The flat form that the exchange used before.
            #[serde(default)]
            read_limit: Option<f64>,
        }
        #[derive(Deserialize)]
        struct Bucket {
            refill_rate: f64,
        }
        if !self.is_signed() {
            return Ok(None);
        }
        let wire: Wire = self.get("/account/limits", "").await?;
        let Some(tokens) = wire.read.map(|bucket| bucket.refill_rate).or(wire.read_limit) else {
            return Err(RestError::Decode("no `read` limit in /account/limits".to_owned()));
        };
        let account_tokens = whole(tokens).max(1);
        let our_tokens = share_of(account_tokens, self.settings.share);
        self.budget.set(our_tokens, BURST_TOKENS.min(our_tokens));
        Ok(Some(Limits { account_tokens, our_tokens }))
    }

    /// Asks what requests cost and reckons with it from now on; how many paths have a cost of their
    /// own.
    ///
    /// # Errors
    /// As every request; the costs are then unchanged.
    pub async fn learn_costs(&self) -> Result<usize, RestError> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            default_cost: Option<f64>,
            #[serde(default)]
            endpoint_costs: Vec<Value>,
        }
        let wire: Wire = self.get("/account/endpoint_costs", "").await?;
        let mut costs = Costs { default: wire.default_cost.map(whole), paths: HashMap::new() };
        for entry in &wire.endpoint_costs {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            let Some(path) = text("path").or_else(|| text("endpoint")) else { continue };
            let is_get = text("method").is_none_or(|method| method.eq_ignore_ascii_case("GET"));
            let Some(cost) = entry.get("cost").and_then(Value::as_f64) else { continue };
            if is_get {
                let path = path.strip_prefix(self.prefix()).unwrap_or(path);
                costs.paths.insert(path.to_owned(), whole(cost));
            }
        }
        let paths = costs.paths.len();
        *self.costs.lock().unwrap_or_else(PoisonError::into_inner) = costs;
        Ok(paths)
    }
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(
    path: &str,
    body: &[u8],
) -> Result<T, RestError> {
    serde_json::from_slice(body).map_err(|error| RestError::Decode(format!("GET {path}: {error}")))
}

/// A list of markets, page by page. It can move between tasks; dropping it ends the list.
pub struct MarketPages(Walk);

#[derive(Deserialize)]
struct MarketsWire {
    markets: Vec<MarketWire>,
    #[serde(default)]
    cursor: Option<String>,
}

impl MarketPages {
    /// The next page, `None` after the last one. A page may be empty and have a next one.
    ///
    /// # Errors
    /// As every request, when a cursor repeats, or when there are more pages than the limit. The
    /// same page can be asked for again after an error of the connection.
    pub async fn next(&mut self) -> Result<Option<Page>, RestError> {
        let Some(body) = self.0.ask().await? else { return Ok(None) };
        let wire: MarketsWire = decode(MARKETS, &body)?;
        self.0.turn(wire.cursor)?;
        Ok(Some(Page::from_wire(wire.markets)))
    }
}

/// A count of tokens from the exchange's number, within what makes sense; at least 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a range that fits; what is no number becomes 0"
)]
fn whole(tokens: f64) -> u32 {
    tokens.clamp(0.0, TOKENS_MAX) as u32
}
