//! A market as REST lists it: the few fields that decide whether and where it is recorded.

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Micros, Price, Ticker};

/// What a contract pays at most unless the list says otherwise, in micro-dollars.
pub const ONE_DOLLAR: i64 = 1_000_000;

/// One market of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Market {
    pub ticker: Ticker,
    pub event_ticker: String,
    /// As sent: `initialized`, `active`, `inactive`, `closed`, `determined`, `disputed`, `amended`,
    /// `finalized`, or one that is new.
    pub status: String,
    pub open_time: Option<Micros>,
    pub close_time: Option<Micros>,
    /// Present on multivariate (combo) markets.
    pub mve_collection_ticker: Option<String>,
    /// What a contract pays at most, where that is not one dollar: a price of the no leg is this
    /// minus the price of the yes leg.
    pub notional: Option<Price>,
}

impl Market {
    /// The series: the event's ticker up to its first hyphen. The list itself does not name it.
    pub fn series(&self) -> &str {
        series_of(&self.event_ticker)
    }
}

/// The series of an event or market: its ticker up to the first hyphen.
pub fn series_of(ticker: &str) -> &str {
    ticker.split('-').next().unwrap_or(ticker)
}

/// One page of a list: one bad market costs itself, not the page.
#[derive(Debug, Default)]
pub struct Page {
    pub markets: Vec<Market>,
    /// What was wrong with the others, naming the market and the field.
    pub refused: Vec<String>,
}

/// A market before its fields are checked; unknown fields are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct MarketWire {
    #[serde(default)]
    ticker: Value,
    #[serde(default)]
    event_ticker: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    open_time: Value,
    #[serde(default)]
    close_time: Value,
    #[serde(default)]
    mve_collection_ticker: Value,
    #[serde(default)]
    notional_value_dollars: Value,
}

impl Page {
    pub(super) fn from_wire(wire: Vec<MarketWire>) -> Self {
        let mut page = Self::default();
        for market in wire {
            match market.check() {
                Ok(market) => page.markets.push(market),
                Err(why) => page.refused.push(why),
            }
        }
        page
    }
}

impl MarketWire {
    fn check(self) -> Result<Market, String> {
        let name = self.ticker.as_str().unwrap_or("?").chars().take(60).collect::<String>();
        let required = |field: &str, value: Value| match value {
            Value::String(text) => Ok(text),
            Value::Null => Err(format!("market {name:?}: missing field `{field}`")),
            other => Err(format!("market {name:?}: field `{field}` is no text: {other}")),
        };
        let ticker = required("ticker", self.ticker)?;
        let ticker =
            Ticker::parse(&ticker).map_err(|error| format!("market: field `ticker`: {error}"))?;
        Ok(Market {
            ticker,
            event_ticker: required("event_ticker", self.event_ticker)?,
            status: required("status", self.status)?,
            open_time: time(&self.open_time),
            close_time: time(&self.close_time),
            mve_collection_ticker: self
                .mve_collection_ticker
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
            notional: self
                .notional_value_dollars
                .as_str()
                .and_then(|text| Price::parse(text).ok())
                .filter(|notional| notional.micros() != ONE_DOLLAR),
        })
    }
}

/// Times only schedule: one that cannot be read is as good as none.
fn time(value: &Value) -> Option<Micros> {
    Micros::parse_rfc3339(value.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(json: &str) -> Page {
        Page::from_wire(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn unknown_fields_are_skipped_and_missing_ones_named() {
        let page = page(
            r#"[{"ticker":"KXA-1-T2","event_ticker":"KXA-1","status":"brand_new","new":{"a":[1]},
                 "open_time":"2026-08-05T03:45:00Z","close_time":"soon"},
                {"ticker":"KXB-1","status":"active"},
                {"ticker":7,"event_ticker":"KXB","status":"active"},
                {"ticker":"A B","event_ticker":"KXB","status":"active"},
                {"ticker":"KXM-1","event_ticker":"KXM-1","status":"active",
                 "mve_collection_ticker":"KXMVE","notional_value_dollars":"100.0000"}]"#,
        );
        let tickers: Vec<_> = page.markets.iter().map(|m| m.ticker.as_str()).collect();
        assert_eq!(tickers, ["KXA-1-T2", "KXM-1"]);
        let [first, second] = page.markets.as_slice() else { panic!("two markets") };
        assert_eq!(first.series(), "KXA");
        assert_eq!(first.status, "brand_new");
        assert!(first.open_time.is_some() && first.close_time.is_none());
        assert_eq!(second.mve_collection_ticker.as_deref(), Some("KXMVE"));
        assert_eq!((first.notional, second.notional.unwrap().micros()), (None, 100_000_000));
        assert_eq!(page.refused.len(), 3);
        assert!(
            page.refused[0].contains("\"KXB-1\"") && page.refused[0].contains("`event_ticker`")
        );
        assert!(page.refused[1].contains("`ticker` is no text: 7"));
    }
}
