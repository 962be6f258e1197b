//! Retention of a gatherer's logs: whole parts go, the oldest first, when all their rows are past what is
//! kept and every registered consumer has passed them.
//!
//! Two steps, each of which may be the last of this process: *decided*, under the writer's fence, by
//! raising `logs.kept_from` to the part's end; then *dropped*. The second only does what the first has
//! decided, whoever did. Rows of a part that the log has left behind never change, so nothing has to be
//! held while the question is asked.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_postgres::Client;

use super::parts;
use crate::model::{Log, Micros};
use crate::ops::crash;
use crate::pg::engine::Engine;
use crate::pg::partitions::Partition;
use crate::pg::writer::Fence;

/// Rows at the end of a part whose latest time is the part's: rows leave in the journal's order, in which
/// what was waited for stands a little late.
const LAST_ROWS: i64 = 1000;

/// What became of the oldest part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// None is past the retention.
    Nothing,
    /// These are gone.
    Dropped(Vec<String>),
    Waits(Wait),
}

/// A part that is past the retention, and is kept for a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub consumer: String,
    /// Where the consumer is.
    pub position: i64,
    /// The part's last row.
    pub last: i64,
    /// How long it could have been gone.
    pub overdue: Duration,
}

/// The column that says when a row came, by our clock.
const fn clock(log: Log) -> &'static str {
    match log {
        Log::Coverage => "covered_to",
        _ => "received_at",
    }
}

/// Drops what was decided before; if there is nothing, the oldest part, when it is past `kept`.
///
/// # Errors
/// When another writer took over; when somebody reads the part for longer than the session waits for a
/// lock: then it stays until another round.
pub async fn drop_oldest(
    client: &mut Client,
    engine: Engine,
    fence: Fence,
    log: Log,
    kept: Duration,
) -> Result<Outcome> {
    let dropped = finish(client, engine, log).await?;
    if !dropped.is_empty() {
        return Ok(Outcome::Dropped(dropped));
    }
    let oldest = parts::list(client, engine, log).await?.into_iter().next();
    let Some(part) = oldest else { return Ok(Outcome::Nothing) };
    match decide(client, fence, log, kept, &part).await? {
        Some(outcome) => Ok(outcome),
        None => Ok(Outcome::Dropped(finish(client, engine, log).await?)),
    }
}

async fn finish(client: &Client, engine: Engine, log: Log) -> Result<Vec<String>> {
    let sql = "SELECT kept_from FROM logs WHERE name = $1";
    let row = client.query_one(sql, &[&log.name()]).await.context("read kept_from")?;
    parts::drop_below(client, engine, log, row.try_get(0)?).await
}

/// Raises `kept_from` to the end of the part; the outcome when that may not be.
async fn decide(
    client: &mut Client,
    fence: Fence,
    log: Log,
    kept: Duration,
    part: &Partition,
) -> Result<Option<Outcome>> {
    let (name, last) = (log.name(), part.to.saturating_sub(1));
    let (from, to, clock) = (part.from, part.to, clock(log));
    // The part that is being written, and those made ahead, end after the head.
    let sql = format!(
        "SELECT head >= $1, \
           (SELECT max(c) FROM (SELECT {clock} AS c FROM {name} \
              WHERE log_seq >= {from} AND log_seq < {to} ORDER BY log_seq DESC LIMIT {LAST_ROWS}) l), \
           (extract(epoch FROM clock_timestamp()) * 1e6)::bigint \
         FROM logs WHERE name = $2"
    );
    let row = client.query_one(&sql, &[&last, &name]).await.context("read the age of a part")?;
    let (is_complete, newest): (bool, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    if !is_complete {
        return Ok(Some(Outcome::Nothing));
    }
    // A clock that is wrong must not drop what is young: both have to say that it is old.
    let now = Micros::now().0.min(row.try_get(2)?);
    let kept_micros = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    let overdue = now.saturating_sub(newest.unwrap_or(i64::MIN)).saturating_sub(kept_micros);
    let Ok(overdue) = u64::try_from(overdue) else { return Ok(Some(Outcome::Nothing)) };

    let tx = client.transaction().await.context("begin")?;
    fence.check(&tx).await?;
    let sql = "SELECT name, position FROM consumers WHERE table_name = $1 AND position < $2 \
               ORDER BY position LIMIT 1";
    if let Some(row) = tx.query_opt(sql, &[&name, &last]).await.context("read consumers")? {
        return Ok(Some(Outcome::Waits(Wait {
            consumer: row.try_get(0)?,
            position: row.try_get(1)?,
            last,
            overdue: Duration::from_micros(overdue),
        })));
    }
    let sql = "UPDATE logs SET kept_from = greatest(kept_from, $2) WHERE name = $1";
    tx.execute(sql, &[&name, &to]).await.context("raise kept_from")?;
    tx.commit().await.context("commit")?;
    crash::point("retention-after-decision");
    Ok(None)
}
