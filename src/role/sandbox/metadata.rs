//! Compares production's `markets` with what the exchange lists at the end of a run. The production
//! status is derived here anew, from the exchange's own words.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::cluster::Cluster;
use super::exchange::ListedMarket;
use crate::model::Micros;

/// Between two looks at how far the copy is.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What came of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarketDiff {
    pub compared: u64,
    pub different: u64,
    pub examples: Vec<String>,
}

/// A market as production has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    status: Option<String>,
    exchange_status: Option<String>,
    result: Option<String>,
    settlement_micros: Option<i64>,
    presence: String,
}

impl Stored {
    /// What production must have of a listed market.
    fn of(listed: &ListedMarket) -> Self {
        let status = match listed.status {
            "initialized" => "unopened",
            "active" => "open",
            "finalized" => "settled",
            _ => "closed",
        };
        Self {
            status: Some(status.to_owned()),
            exchange_status: Some(listed.status.to_owned()),
            result: Some(listed.result.to_owned()),
            settlement_micros: listed.settlement_micros,
            presence: "listed".to_owned(),
        }
    }
}

/// Waits until everything that the exchange changed before a time is in production's tables, or until
/// the patience is at its end; whether it is.
pub async fn wait_current(production: &Cluster, until: Micros, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Ok(true) = is_current(production, until).await {
            return true;
        }
        sleep(LOOK_INTERVAL).await;
    }
    false
}

async fn is_current(production: &Cluster, until: Micros) -> Result<bool> {
    let client = production.connect().await?;
    let sql = "SELECT coalesce(min(synced_until), 0) >= $1 AND count(synced_until) = 3 \
               FROM market_sync";
    Ok(client.query_one(sql, &[&until.0]).await?.try_get(0)?)
}

/// Compares the table with the list.
///
/// # Errors
/// When the query fails.
pub async fn compare(
    client: &Client,
    listed: &[ListedMarket],
    examples_max: usize,
) -> Result<MarketDiff> {
    let sql = "SELECT ticker, status, exchange_status, result, settlement_value, presence \
               FROM markets";
    let mut stored = HashMap::new();
    for row in client.query(sql, &[]).await.context("read markets")? {
        let market = Stored {
            status: row.try_get(1)?,
            exchange_status: row.try_get(2)?,
            result: row.try_get(3)?,
            settlement_micros: row.try_get(4)?,
            presence: row.try_get(5)?,
        };
        stored.insert(row.try_get::<_, String>(0)?, market);
    }
    Ok(difference(stored, listed, examples_max))
}

fn difference(
    mut stored: HashMap<String, Stored>,
    listed: &[ListedMarket],
    examples_max: usize,
) -> MarketDiff {
    let mut diff = MarketDiff::default();
    let note = |diff: &mut MarketDiff, text: String| {
        diff.different += 1;
        if diff.examples.len() < examples_max {
            diff.examples.push(text);
        }
    };
    for market in listed {
        diff.compared += 1;
        let (ticker, wanted) = (&market.ticker, Stored::of(market));
        match stored.remove(ticker) {
            Some(there) if there == wanted => {}
            Some(there) => {
                note(
                    &mut diff,
                    format!("market {ticker} is {there:?}, the exchange has {wanted:?}"),
                );
            }
            None => note(&mut diff, format!("market {ticker} is missing in production")),
        }
    }
    for ticker in stored.keys() {
        note(&mut diff, format!("market {ticker} is not of the exchange"));
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(ticker: &str, status: &'static str) -> ListedMarket {
        let settlement_micros = (status == "finalized").then_some(370_000);
        let result = if status == "active" { "" } else { "scalar" };
        ListedMarket { ticker: ticker.to_owned(), status, result, settlement_micros }
    }

    #[test]
    fn every_difference_counts() {
        let markets = ["initialized", "active", "disputed", "finalized"].map(|s| listed(s, s));
        let stored: HashMap<String, Stored> =
            markets.iter().map(|market| (market.ticker.clone(), Stored::of(market))).collect();
        assert_eq!(stored["disputed"].status.as_deref(), Some("closed"));
        let none = difference(stored.clone(), &markets, 10);
        assert_eq!((none.compared, none.different), (4, 0), "{none:?}");
        let mut late = stored.clone();
        late.get_mut("finalized").unwrap().settlement_micros = None;
        late.get_mut("active").unwrap().presence = "missing".to_owned();
        late.remove("disputed");
        late.insert("unknown".to_owned(), stored["active"].clone());
        let diff = difference(late, &markets, 2);
        assert_eq!((diff.different, diff.examples.len()), (4, 2), "{diff:?}");
    }
}
