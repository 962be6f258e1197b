//! The facts that are compared, each as identity and content in one ordered value, and how they
//! are read from a database.

use std::collections::HashSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use postgres_types::ToSql;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::model::{Log, Micros, Price, Size};

use super::books::{Levels, Snapshot};

/// A change of a level. All of it is identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaRow {
    pub ticker: Arc<str>,
    /// Microseconds.
    pub exchange_ts: i64,
    pub is_yes: bool,
    /// Micro-dollars, yes leg.
    pub price: i64,
    /// Signed hundredths.
    pub size_delta: i64,
    pub occurrence: i32,
}

/// A trade: its id, and what it must say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TradeRow {
    pub trade_id: Uuid,
    pub exchange_ts: i64,
    pub ticker: Arc<str>,
    pub price: i64,
    pub size: i64,
    pub taker_is_yes: Option<bool>,
}

/// A message of the ticker channel, its content by its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TickerRow {
    pub ticker: Arc<str>,
    pub exchange_ts: i64,
    pub content_hash: i64,
}

/// A lifecycle message, its content by its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LifecycleRow {
    pub subject: Arc<str>,
    pub event_type: String,
    pub content_hash: i64,
}

fn side(is_yes: bool) -> &'static str {
    if is_yes { "yes" } else { "no" }
}

impl fmt::Display for DeltaRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ticker, occurrence, .. } = self;
        let (at, side) = (Micros(self.exchange_ts), side(self.is_yes));
        let (price, size) =
            (Price::from_micros(self.price), Size::from_hundredths(self.size_delta));
        write!(f, "{ticker} {at} {side} {price} {size} occurrence {occurrence}")
    }
}

impl fmt::Display for TradeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, taker) = (Micros(self.exchange_ts), self.taker_is_yes.map_or("?", side));
        let (price, size) = (Price::from_micros(self.price), Size::from_hundredths(self.size));
        write!(f, "{} {} {at} {price} {size} taker {taker}", self.trade_id, self.ticker)
    }
}

impl fmt::Display for TickerRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:016x}", self.ticker, Micros(self.exchange_ts), self.content_hash)
    }
}

impl fmt::Display for LifecycleRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:016x}", self.subject, self.event_type, self.content_hash)
    }
}

/// A change of a level as a database holds it, with the receipt of its first copy.
#[derive(Debug, Clone)]
pub struct ReceivedDelta {
    pub row: DeltaRow,
    pub received_at: i64,
}

/// A stretch of coverage of one market's book, on the exchange's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub ticker: Arc<str>,
    pub first_exchange_ts: i64,
    pub last_exchange_ts: i64,
}

/// How a log's numbers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Density {
    pub log: Log,
    pub head: i64,
    pub rows: i64,
    pub min: i64,
    pub max: i64,
}

impl Density {
    /// Whether the numbers are exactly 1 to the head.
    pub const fn is_dense(&self) -> bool {
        // Numbers are unique by the table's key, so these three leave no room for a hole.
        self.rows == self.head && (self.rows == 0 || (self.min == 1 && self.max == self.head))
    }
}

/// One copy of each text: a market's ticker is in all its rows.
#[derive(Debug, Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// Runs a query and turns each row as it arrives, so that only the result is in memory.
async fn read<T>(
    client: &Client,
    sql: &str,
    mut row: impl FnMut(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<Vec<T>> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let mut rows = pin!(client.query_raw(sql, none).await?);
    let mut all = Vec::new();
    while let Some(next) = rows.try_next().await? {
        all.push(row(&next)?);
    }
    Ok(all)
}

/// All deltas of a database.
///
/// # Errors
/// When the query fails.
pub async fn deltas(client: &Client) -> Result<Vec<ReceivedDelta>> {
    let mut names = Names::default();
    let sql = "SELECT ticker, exchange_ts, side, price, size_delta, occurrence, received_at \
               FROM orderbook_deltas";
    read(client, sql, |row| {
        Ok(ReceivedDelta {
            row: DeltaRow {
                ticker: names.get(row.try_get(0)?),
                exchange_ts: row.try_get(1)?,
                is_yes: row.try_get(2)?,
                price: row.try_get(3)?,
                size_delta: row.try_get(4)?,
                occurrence: row.try_get(5)?,
            },
            received_at: row.try_get(6)?,
        })
    })
    .await
    .context("read orderbook_deltas")
}

/// All trades of a database.
///
/// # Errors
/// When the query fails.
pub async fn trades(client: &Client) -> Result<Vec<TradeRow>> {
    let mut names = Names::default();
    let sql = "SELECT trade_id, exchange_ts, ticker, price, size, taker_side FROM trades";
    read(client, sql, |row| {
        Ok(TradeRow {
            trade_id: row.try_get(0)?,
            exchange_ts: row.try_get(1)?,
            ticker: names.get(row.try_get(2)?),
            price: row.try_get(3)?,
            size: row.try_get(4)?,
            taker_is_yes: row.try_get(5)?,
        })
    })
    .await
    .context("read trades")
}

/// All ticker messages of a database.
///
/// # Errors
/// When the query fails.
pub async fn tickers(client: &Client) -> Result<Vec<TickerRow>> {
    let mut names = Names::default();
    read(client, "SELECT ticker, exchange_ts, content_hash FROM tickers", |row| {
        Ok(TickerRow {
            ticker: names.get(row.try_get(0)?),
            exchange_ts: row.try_get(1)?,
            content_hash: row.try_get(2)?,
        })
    })
    .await
    .context("read tickers")
}

/// All lifecycle messages of a database.
///
/// # Errors
/// When the query fails.
pub async fn lifecycle(client: &Client) -> Result<Vec<LifecycleRow>> {
    let mut names = Names::default();
    read(client, "SELECT subject, event_type, content_hash FROM market_lifecycle", |row| {
        Ok(LifecycleRow {
            subject: names.get(row.try_get(0)?),
            event_type: row.try_get(1)?,
            content_hash: row.try_get(2)?,
        })
    })
    .await
    .context("read market_lifecycle")
}

/// The streams' snapshots of a database, by market: polled ones have no place in a stream.
///
/// # Errors
/// When the query fails.
pub async fn snapshots(client: &Client) -> Result<Vec<(Arc<str>, Snapshot)>> {
    let mut names = Names::default();
    let sql = "SELECT ticker, anchor_ts, received_at, yes_prices, yes_sizes, no_prices, no_sizes \
               FROM orderbook_snapshots WHERE source = 'ws' ORDER BY log_seq";
    read(client, sql, |row| {
        let mut levels = Levels::default();
        for (is_yes, prices, sizes) in [(true, 3, 4), (false, 5, 6)] {
            let prices: Vec<i64> = row.try_get(prices)?;
            let sizes: Vec<i64> = row.try_get(sizes)?;
            for (price, size) in prices.into_iter().zip(sizes) {
                levels.add(is_yes, price, size);
            }
        }
        Ok((
            names.get(row.try_get(0)?),
            Snapshot { anchor_ts: row.try_get(1)?, received_at: row.try_get(2)?, levels },
        ))
    })
    .await
    .context("read orderbook_snapshots")
}

/// The stretches of a gatherer's order-book coverage that have bounds on the exchange's clock.
///
/// # Errors
/// When the query fails.
pub async fn stretches(client: &Client) -> Result<Vec<Stretch>> {
    let mut names = Names::default();
    let sql = "SELECT ticker, first_exchange_ts, last_exchange_ts FROM coverage \
               WHERE channel = 'orderbook_delta' AND ticker <> '' \
               AND first_exchange_ts IS NOT NULL AND last_exchange_ts IS NOT NULL";
    read(client, sql, |row| {
        Ok(Stretch {
            ticker: names.get(row.try_get(0)?),
            first_exchange_ts: row.try_get(1)?,
            last_exchange_ts: row.try_get(2)?,
        })
    })
    .await
    .context("read coverage")
}

/// How the numbers of each log lie.
///
/// # Errors
/// When a query fails.
pub async fn densities(client: &Client) -> Result<Vec<Density>> {
    let mut all = Vec::new();
    for log in Log::ALL {
        let sql = format!(
            "SELECT l.head, t.rows, t.min, t.max FROM logs l, (SELECT count(*) AS rows, \
             coalesce(min(log_seq), 0) AS min, coalesce(max(log_seq), 0) AS max FROM {log}) t \
             WHERE l.name = '{log}'"
        );
        let row = client
            .query_one(&sql, &[])
            .await
            .with_context(|| format!("look at the numbers of {log}"))?;
        all.push(Density {
            log,
            head: row.try_get(0)?,
            rows: row.try_get(1)?,
            min: row.try_get(2)?,
            max: row.try_get(3)?,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_dense_when_its_numbers_are_one_to_head() {
        let dense = Density { log: Log::Trades, head: 3, rows: 3, min: 1, max: 3 };
        assert!(dense.is_dense());
        assert!(Density { head: 0, rows: 0, min: 0, max: 0, ..dense }.is_dense());
        assert!(!Density { rows: 2, ..dense }.is_dense());
        assert!(!Density { min: 2, max: 4, ..dense }.is_dense());
        assert!(!Density { head: 4, ..dense }.is_dense());
    }

    #[test]
    fn rows_are_printed_for_people() {
        let row = DeltaRow {
            ticker: Arc::from("KXA"),
            exchange_ts: 1_785_901_540_722_003,
            is_yes: false,
            price: 960_000,
            size_delta: -5400,
            occurrence: 2,
        };
        let text = "KXA 2026-08-05T03:45:40.722003Z no 0.9600 -54.00 occurrence 2";
        assert_eq!(row.to_string(), text);
    }
}
