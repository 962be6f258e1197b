//! Retention in production: whole partitions are dropped, the oldest first, when all their rows are
//! past what is kept and every consumer has passed them.
//!
//! Three steps, each of which may be the last of this process:
//!
//! 1. *Decided*, under the writer's fence: `logs.kept_from` rises to the partition's end. The row is
//!    held while consumers are asked, and every batch that writes compares itself with it, so that no
//!    row can slip into the partition between the question and the decision.
//! 2. *Detached*, which waits for the queries that know the partition and blocks none: neither them
//!    nor those that come meanwhile. Interrupted, it is finished in the next round.
//! 3. *Dropped*, when it is a table of its own that nobody can reach through the log any more.
//!
//! The second and third only do what the first has decided, whoever did: they need no fence.

use std::time::Duration;

use anyhow::Context as _;
use tokio_postgres::Client;

use super::partitions;
use super::table::Table;
use crate::model::{Log, Micros};
use crate::pg;
use crate::pg::partitions::Partition;
use crate::pg::writer::Fence;

const DAY: Duration = Duration::from_secs(86_400);

/// How long rows of each table are kept, by the time in their identity; none is for ever.
/// `market_lifecycle` is always kept: it is small, and its identity holds no time to drop it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub trades: Option<Duration>,
    pub orderbook_deltas: Option<Duration>,
    pub orderbook_snapshots: Option<Duration>,
    pub tickers: Option<Duration>,
    pub coverage: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            trades: None,
            orderbook_deltas: Some(90 * DAY),
            orderbook_snapshots: None,
            tickers: Some(30 * DAY),
            coverage: None,
        }
    }
}

impl Retention {
    /// How long rows of a log are kept.
    pub fn of(&self, log: Log) -> Option<Duration> {
        match log {
            Log::Trades => self.trades,
            Log::OrderbookDeltas => self.orderbook_deltas,
            Log::OrderbookSnapshots => self.orderbook_snapshots,
            Log::Tickers => self.tickers,
            Log::Coverage => self.coverage,
            Log::MarketLifecycle => None,
        }
    }
}

/// What became of the oldest partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// None is past the retention.
    Nothing,
    Dropped(String),
    /// A consumer has not read all of it.
    Waits(String),
}

/// Drops at most one partition, the oldest, if it is past `kept`.
///
/// # Errors
/// A query that goes on for longer than the session's `lock_timeout` is one: the partition stays
/// until another round.
pub async fn drop_oldest(
    client: &mut Client,
    fence: Fence,
    table: &Table,
    kept: Duration,
) -> anyhow::Result<Outcome> {
    if let Some(name) = finish(client, table).await? {
        return Ok(Outcome::Dropped(name));
    }
    let oldest = partitions::list(client, table).await?.into_iter().next();
    let Some(partition) = oldest else { return Ok(Outcome::Nothing) };
    match decide(client, fence, table, kept, &partition).await? {
        None => {
            let name = finish(client, table).await?;
            Ok(name.map_or(Outcome::Nothing, Outcome::Dropped))
        }
        Some(outcome) => Ok(outcome),
    }
}

/// Raises `kept_from` to the end of the partition; the outcome when that may not be.
async fn decide(
    client: &mut Client,
    fence: Fence,
    table: &Table,
    kept: Duration,
    partition: &Partition,
) -> anyhow::Result<Option<Outcome>> {
    let (log, name) = (table.name(), &partition.name);
    let kept_micros = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    let is_young = |now: i64| partition.to > now.saturating_sub(kept_micros);
    if is_young(Micros::now().0) {
        return Ok(Some(Outcome::Nothing));
    }
    let tx = client.transaction().await.context("begin")?;
    fence.check(&tx).await?;
    // Before the row of the log is held, because this may have to wait for a vacuum.
    pg::partitions::mark(&tx, log, name).await.context("mark partition")?;
    let sql = "SELECT least(time_max, (extract(epoch FROM clock_timestamp()) * 1e6)::bigint) \
               FROM logs WHERE name = $1 FOR UPDATE";
    let row = tx.query_one(sql, &[&log]).await.context("hold log")?;
    // A clock that is wrong must not drop what is young: all of them have to say that it is old.
    if is_young(row.try_get(0)?) {
        return Ok(Some(Outcome::Nothing));
    }
    let sql = format!("SELECT max(log_seq) FROM \"{name}\"");
    let last: Option<i64> = tx.query_one(&sql, &[]).await.context("read last row")?.try_get(0)?;
    let sql = "SELECT name, position FROM consumers WHERE table_name = $1 AND position < $2 \
               ORDER BY position LIMIT 1";
    let last = last.unwrap_or(0);
    if let Some(row) = tx.query_opt(sql, &[&log, &last]).await.context("read consumers")? {
        let (consumer, position): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
        return Ok(Some(Outcome::Waits(format!(
            "{name} ends with row {last} and consumer {consumer} is at {position}"
        ))));
    }
    let sql = "UPDATE logs SET kept_from = greatest(kept_from, $2) WHERE name = $1";
    tx.execute(sql, &[&log, &partition.to]).await.context("raise kept_from")?;
    tx.commit().await.context("commit")?;
    Ok(None)
}

/// Detaches and drops one partition about which a decision was made; its name.
async fn finish(client: &Client, table: &Table) -> anyhow::Result<Option<String>> {
    let kept_from = partitions::kept_from(client, table).await?;
    let dropped = pg::partitions::drop_one_below(client, table.name(), kept_from).await;
    dropped.with_context(|| format!("drop a partition of {}", table.name()))
}
