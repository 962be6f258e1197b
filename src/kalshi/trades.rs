//! The exchange's lists of trades: those of late, and behind the historical cut-off those before.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use crate::kalshi::calls::decode;
use crate::kalshi::lists::Walk;
use crate::kalshi::rest::{Rest, RestError, encode};
use crate::model::{Micros, Price, Side, Size, Ticker};

const RECENT: &str = "/markets/trades";
const HISTORICAL: &str = "/historical/trades";
const PAGE_TRADES: usize = 1000;

/// A trade as REST lists it. Its time is finer than that of the stream, which counts milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTrade {
    pub trade_id: Uuid,
    pub ticker: Ticker,
    pub created: Micros,
    /// The price of the yes leg.
    pub price: Price,
    pub no_price: Option<Price>,
    pub size: Size,
    /// The outcome that the taker is on; none when the exchange names one that we do not know.
    pub taker_side: Option<Side>,
    pub is_block_trade: bool,
}

#[derive(Deserialize)]
struct Page {
    trades: Option<Vec<Wire>>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    trade_id: String,
    ticker: String,
    created_time: String,
    yes_price_dollars: String,
    #[serde(default)]
    no_price_dollars: Option<String>,
    count_fp: String,
    #[serde(default)]
    taker_outcome_side: Option<String>,
    #[serde(default)]
    taker_side: Option<String>,
    #[serde(default)]
    is_block_trade: Option<bool>,
}

/// The pages of a list of trades, newest first. Dropping it ends the list.
pub struct TradePages {
    path: &'static str,
    walk: Walk,
}

impl Rest {
    /// Trades from one second to another (Unix time), both included, of one market or of all.
    pub fn trades(
        self: &Arc<Self>,
        is_historical: bool,
        from: i64,
        to: i64,
        ticker: Option<&str>,
    ) -> TradePages {
        let path = if is_historical { HISTORICAL } else { RECENT };
        let mut fixed = format!("limit={PAGE_TRADES}&min_ts={from}&max_ts={to}");
        if let Some(ticker) = ticker {
            // Writing to a String cannot fail.
            let _written = write!(fixed, "&ticker={}", encode(ticker));
        }
        TradePages { path, walk: Walk::new(Arc::clone(self), path, fixed) }
    }

    /// Trades before this are in the historical list alone.
    ///
    /// # Errors
    /// As every request.
    pub async fn trades_cutoff(&self) -> Result<Micros, RestError> {
        #[derive(Deserialize)]
        struct Wire {
            trades_created_ts: String,
        }
        let wire: Wire = self.get("/historical/cutoff", "").await?;
        Micros::parse_rfc3339(&wire.trades_created_ts)
            .map_err(|error| RestError::Decode(format!("`trades_created_ts`: {error}")))
    }
}

impl TradePages {
    /// The next page, `None` after the last one.
    ///
    /// # Errors
    /// As every request; when a trade lacks what makes it one, which names the field; when a cursor
    /// repeats.
    pub async fn next(&mut self) -> Result<Option<Vec<ListedTrade>>, RestError> {
        let Some(body) = self.walk.ask().await? else { return Ok(None) };
        let page: Page = decode(self.path, &body)?;
        let trades: Result<Vec<_>, _> =
            page.trades.unwrap_or_default().into_iter().map(listed).collect();
        let trades = trades?;
        self.walk.turn(page.cursor)?;
        Ok(Some(trades))
    }
}

fn listed(wire: Wire) -> Result<ListedTrade, RestError> {
    fn field<T, E: std::fmt::Display>(name: &str, value: Result<T, E>) -> Result<T, RestError> {
        value.map_err(|error| RestError::Decode(format!("trade: `{name}`: {error}")))
    }
    let taker = wire.taker_outcome_side.as_deref().or(wire.taker_side.as_deref());
    let no_price = wire.no_price_dollars.as_deref().map(Price::parse).transpose();
    Ok(ListedTrade {
        trade_id: field("trade_id", wire.trade_id.parse())?,
        ticker: field("ticker", Ticker::parse(&wire.ticker))?,
        created: field("created_time", Micros::parse_rfc3339(&wire.created_time))?,
        price: field("yes_price_dollars", Price::parse(&wire.yes_price_dollars))?,
        no_price: field("no_price_dollars", no_price)?,
        size: field("count_fp", Size::parse(&wire.count_fp))?,
        taker_side: taker.and_then(Side::from_name),
        is_block_trade: wire.is_block_trade.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::kalshi::rest::Settings;
    use crate::kalshi::testing::{serve_rest, soon};

    const TRADE: &str = r#"{"trade_id":"00000000-0000-0000-0000-00000000000a","ticker":"T-1",
        "count_fp":"136.00","yes_price_dollars":"0.3600","no_price_dollars":"0.6400",
        "taker_outcome_side":"no","taker_book_side":"ask","created_time":"2026-08-05T03:45:40.722003Z",
        "is_block_trade":false,"new":1}"#;

    #[tokio::test]
    async fn a_list_is_followed_to_its_end_and_every_field_is_read() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let api = serve_rest(move |asked| {
            seen.lock().unwrap().push(asked.target.clone());
            let body = match asked.param("cursor") {
                None => format!(r#"{{"trades":[{TRADE}],"cursor":"c"}}"#),
                Some(_) => r#"{"trades":[],"cursor":""}"#.to_owned(),
            };
            (200, body)
        })
        .await;
        let rest = Arc::new(Rest::new(&api, Settings::default()).unwrap());
        let mut pages = rest.trades(true, 5, 9, Some("T 1"));
        let page = soon("a page", pages.next()).await.unwrap().unwrap();
        let trade = &page[0];
        assert_eq!(trade.trade_id, Uuid::from_u128(10));
        assert_eq!((trade.ticker.as_str(), trade.created.0), ("T-1", 1_785_901_540_722_003));
        assert_eq!((trade.price.micros(), trade.size.hundredths()), (360_000, 13_600));
        assert_eq!((trade.taker_side, trade.is_block_trade), (Some(Side::No), false));
        assert_eq!(soon("a page", pages.next()).await.unwrap(), Some(vec![]));
        assert_eq!(soon("the end", pages.next()).await.unwrap(), None);
        let fixed = "/trade-api/v2/historical/trades?limit=1000&min_ts=5&max_ts=9&ticker=T%201";
        assert_eq!(*asked.lock().unwrap(), [fixed.to_owned(), format!("{fixed}&cursor=c")]);
    }

    #[tokio::test]
    async fn a_trade_that_cannot_be_read_is_an_error_that_names_the_field() {
        let api = serve_rest(|_| {
            (
                200,
                r#"{"trades":[{"trade_id":"x","ticker":"T","created_time":"",
            "yes_price_dollars":"","count_fp":""}]}"#
                    .to_owned(),
            )
        })
        .await;
        let rest = Arc::new(Rest::new(&api, Settings::default()).unwrap());
        let error = soon("a page", rest.trades(false, 0, 1, None).next()).await.unwrap_err();
        assert!(error.to_string().contains("`trade_id`"), "{error}");
    }
}
