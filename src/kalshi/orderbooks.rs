//! The reply of `GET /markets/orderbooks`: full books as REST shows them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::kalshi::decode::DecodeError;
use crate::model::{Price, Size, Ticker};

const KIND: &str = "orderbooks";

/// A book of a REST reply. REST shows bids only, each side in the prices of its own leg: unlike the
/// stream's, `no` is not in yes-leg prices here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestBook {
    pub ticker: Ticker,
    /// Ascending.
    pub yes: Vec<(Price, Size)>,
    /// Ascending, in no-leg prices.
    pub no_leg: Vec<(Price, Size)>,
}

impl RestBook {
    /// The no side in yes-leg prices, ascending, of a market whose contract pays `notional` at most.
    ///
    /// # Errors
    /// When a price is higher than that.
    pub fn no_in_yes_leg(&self, notional: Price) -> Result<Vec<(Price, Size)>, DecodeError> {
        let turned = self.no_leg.iter().rev().map(|(price, size)| {
            if *price > notional {
                let reason = format!("{price} is more than {notional}, which a contract pays");
                return Err(error("no_dollars", reason));
            }
            Ok((Price::from_micros(notional.micros() - price.micros()), *size))
        });
        turned.collect()
    }
}

/// Reads a reply: one result a book, so that one bad book costs itself.
///
/// # Errors
/// When the whole is not what the call promises.
pub fn books(body: &[u8]) -> Result<Vec<Result<RestBook, DecodeError>>, DecodeError> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        orderbooks: Vec<Wire<'a>>,
    }
    let reply: Reply<'_> =
        serde_json::from_slice(body).map_err(|e| error("orderbooks", e.to_string()))?;
    Ok(reply.orderbooks.into_iter().map(Wire::check).collect())
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default, borrow)]
    ticker: Cow<'a, str>,
    #[serde(default)]
    orderbook_fp: Option<Sides>,
}

#[derive(Deserialize)]
struct Sides {
    #[serde(default)]
    yes_dollars: Option<Vec<Value>>,
    #[serde(default)]
    no_dollars: Option<Vec<Value>>,
}

impl Wire<'_> {
    fn check(self) -> Result<RestBook, DecodeError> {
        let ticker = Ticker::parse(&self.ticker).map_err(|e| error("ticker", e.to_string()))?;
        let Some(sides) = self.orderbook_fp else {
            return Err(error("orderbook_fp", format!("missing for {ticker}")));
        };
        let yes = levels("yes_dollars", sides.yes_dollars.unwrap_or_default())?;
        Ok(RestBook {
            ticker,
            yes,
            no_leg: levels("no_dollars", sides.no_dollars.unwrap_or_default())?,
        })
    }
}

fn levels(field: &'static str, side: Vec<Value>) -> Result<Vec<(Price, Size)>, DecodeError> {
    let level = |level: Value| {
        let text = |at: usize| level.get(at).and_then(Value::as_str);
        let (Some(price), Some(size)) = (text(0), text(1)) else {
            return Err(error(field, format!("no pair of texts: {level}")));
        };
        let price = Price::parse(price).map_err(|e| error(field, e.to_string()))?;
        Ok((price, Size::parse(size).map_err(|e| error(field, e.to_string()))?))
    };
    let mut levels: Vec<_> = side.into_iter().map(level).collect::<Result<_, _>>()?;
    levels.sort_unstable_by_key(|(price, _)| *price);
    Ok(levels)
}

fn error(field: &'static str, reason: String) -> DecodeError {
    DecodeError { kind: KIND, field, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_book_costs_itself() {
        let body = br#"{"orderbooks":[
            {"ticker":"A","orderbook_fp":{"yes_dollars":[["0.0100","3.00"],["0.4","1.50"]],
             "no_dollars":[["0.3000","2.00"],["0.5600","7.25"]],"new":1}},
            {"ticker":"B","orderbook_fp":{"yes_dollars":[[1,2]]}},
            {"ticker":"C D","orderbook_fp":{}},
            {"ticker":"E","orderbook_fp":{"no_dollars":null}},
            {"ticker":"F"}]}"#;
        let read = books(body).unwrap();
        assert_eq!(read.len(), 5);
        let first = read[0].as_ref().unwrap();
        assert_eq!(first.yes[1].0.micros(), 400_000);
        let no = first.no_in_yes_leg(Price::from_micros(1_000_000)).unwrap();
        let micros: Vec<_> = no.iter().map(|(p, s)| (p.micros(), s.hundredths())).collect();
        assert_eq!(
            micros,
            [(440_000, 725), (700_000, 200)],
            "a no bid at 0.56 is a yes ask at 0.44"
        );
        let error = first.no_in_yes_leg(Price::from_micros(500_000)).unwrap_err();
        assert!(error.reason.contains("0.5600"), "{error}");
        assert!(read[3].as_ref().is_ok_and(|book| book.yes.is_empty() && book.no_leg.is_empty()));
        for (index, field) in [(1, "yes_dollars"), (2, "ticker"), (4, "orderbook_fp")] {
            assert_eq!(read[index].as_ref().unwrap_err().field, field);
        }
        for body in ["", "{}", "[]", r#"{"orderbooks":{}}"#] {
            assert!(books(body.as_bytes()).is_err(), "{body}");
        }
    }
}
