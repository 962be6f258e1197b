//! What somebody changes about a market by hand: fields of what REST says, whatever they are, and
//! whether it is listed at all. And what is left of the listing for whoever compares it.

use serde_json::{Map, Value};

use super::market::{Market, Status};
use super::venue::Venue;
use crate::model::Micros;

/// What was changed about a market.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// Over what REST says otherwise.
    pub fields: Map<String, Value>,
    /// In no list and under no name.
    pub unlisted: bool,
}

/// A market as REST lists it at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMarket {
    pub ticker: String,
    /// As REST names it.
    pub status: &'static str,
    /// Empty while there is none.
    pub result: &'static str,
    /// Micro-dollars, once settled.
    pub settlement_micros: Option<i64>,
}

impl Market {
    /// Whether the lists of REST show it: what was settled before the cut-off is history.
    pub fn is_listed(&self, cutoff: Micros) -> bool {
        let unlisted = self.edits.as_ref().is_some_and(|edits| edits.unlisted);
        !unlisted && !self.is_historical(cutoff)
    }

    /// Whether it was settled before the cut-off.
    pub fn is_historical(&self, cutoff: Micros) -> bool {
        self.status == Status::Finalized && self.updated < cutoff
    }

    pub fn as_listed(&self) -> ListedMarket {
        let outcome = self.result;
        let settled = outcome.filter(|_| self.status == Status::Finalized);
        ListedMarket {
            ticker: self.ticker.as_str().to_owned(),
            status: self.status.name(),
            result: outcome.map_or("", |outcome| outcome.name()),
            settlement_micros: settled.map(|outcome| outcome.value().micros()),
        }
    }
}

impl Venue {
    /// Changes a market. Only a touched one counts as updated, as by a clock that says nothing.
    /// Returns whether there is such a market.
    pub fn edit(
        &mut self,
        ticker: &str,
        fields: Map<String, Value>,
        listed: Option<bool>,
        touched: bool,
    ) -> bool {
        let Some(id) = self.catalog.find(ticker) else { return false };
        let Some(market) = self.catalog.market_mut(id) else { return false };
        let edits = market.edits.get_or_insert_default();
        edits.fields.extend(fields);
        if let Some(listed) = listed {
            edits.unlisted = !listed;
        }
        if touched {
            market.updated = Micros::now();
        }
        true
    }
}
