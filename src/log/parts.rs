//! The parts that a log is kept in: TimescaleDB's chunks or PostgreSQL's partitions, each a range of
//! `log_seq`.
//!
//! TimescaleDB makes its chunks itself. Partitions are made ahead, and by the appender before a batch that
//! would find none, in a transaction of their own: a process that ends in between leaves an empty one
//! behind, which the next one uses.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, GenericClient};

use crate::model::Log;
use crate::ops::crash;
use crate::pg::engine::Engine;
use crate::pg::partitions::{Partition, Ranges, create_sql};
use crate::pg::writer::Fence;
use crate::pg::{self, Options, Target};

/// Nothing that is done to parts is worth a longer wait behind anybody's lock: who comes later would
/// wait behind it too.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A session for what only the owner of the tables may do: to make parts and to drop them. Everything of
/// that kind goes through here.
///
/// # Errors
/// When the database is away.
pub async fn owner_session(target: &Target) -> Result<Client> {
    let options = Options {
        statement_timeout: Some(STATEMENT_TIMEOUT),
        lock_timeout: Some(LOCK_TIMEOUT),
        idle_in_transaction_timeout: Some(STATEMENT_TIMEOUT),
        role: Some(pg::OWNER),
        ..Options::default()
    };
    Ok(target.connect_with(options).await?)
}

/// The first `log_seq` from `next` on that has no part to go to; none where every one has.
///
/// # Errors
/// When the database does not answer.
pub async fn room(client: &impl GenericClient, log: Log, next: i64) -> Result<Option<i64>> {
    let (ranges, _) = read(client, log).await?;
    Ok(ranges.first_missing(next))
}

async fn read(client: &impl GenericClient, log: Log) -> Result<(Ranges, i64)> {
    let sql = "SELECT chunk_rows FROM logs WHERE name = $1";
    let row = client.query_one(sql, &[&log.name()]).await.context("read the width of parts")?;
    let width: i64 = row.try_get(0)?;
    let ranges = Ranges::read(client, log.name(), Some(width)).await.context("read partitions")?;
    Ok((ranges, width))
}

/// Makes the partitions that the rows `next ..= last` need and do not have. Gives the first `log_seq`
/// that has none then, as [`room`] does.
///
/// # Errors
/// When another writer took over, or the database refuses.
pub async fn make(
    client: &mut Client,
    fence: Fence,
    log: Log,
    next: i64,
    last: i64,
) -> Result<Option<i64>> {
    let tx = client.transaction().await.context("begin")?;
    fence.check(&tx).await?;
    pg::partitions::lock(&tx).await.context("wait for whoever makes partitions")?;
    let (mut ranges, width) = read(&tx, log).await?;
    let mut room = ranges.first_missing(next);
    while let Some(missing) = room.filter(|missing| *missing <= last) {
        let (from, to) = ranges.lacking(missing, width);
        let parent = log.name();
        let comment = format!("Rows of {parent} from {from} to {to}, which is not in it.");
        let sql = create_sql(parent, &format!("{parent}_{from}"), &comment, (from, to));
        tx.batch_execute(&sql).await.with_context(|| format!("make partition: {sql}"))?;
        ranges.add((from, to));
        room = ranges.first_missing(next);
    }
    tx.commit().await.context("commit")?;
    crash::point("append-after-partition");
    Ok(room)
}

/// Makes the part for what comes after the present one, and has new parts of TimescaleDB be as wide as
/// the log says.
///
/// # Errors
/// As [`make`].
pub async fn make_ahead(client: &mut Client, engine: Engine, fence: Fence, log: Log) -> Result<()> {
    let sql = "SELECT head, chunk_rows FROM logs WHERE name = $1";
    let row = client.query_one(sql, &[&log.name()]).await.context("read head")?;
    let (head, width): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let next = head.saturating_add(1);
    match engine {
        Engine::Native => {
            let last = next.saturating_add(width);
            // Without a transaction of its own while there is nothing to do.
            if room(client, log, next).await?.is_some_and(|missing| missing <= last) {
                make(client, fence, log, next, last).await?;
            }
        }
        Engine::Timescaledb => {
            let sql = "SELECT set_chunk_time_interval($1::text::regclass, $2::bigint) \
                       FROM timescaledb_information.dimensions \
                       WHERE hypertable_name = $1 AND integer_interval <> $2";
            client.query(sql, &[&log.name(), &width]).await.context("set the width of chunks")?;
        }
    }
    Ok(())
}

/// The parts of a log, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(client: &impl GenericClient, engine: Engine, log: Log) -> Result<Vec<Partition>> {
    if engine == Engine::Native {
        return pg::partitions::list(client, log.name()).await.context("list partitions");
    }
    let sql = "SELECT chunk_name::text, range_start_integer, range_end_integer \
               FROM timescaledb_information.chunks WHERE hypertable_name = $1 \
               ORDER BY range_start_integer";
    let rows = client.query(sql, &[&log.name()]).await.context("list chunks")?;
    let part = |row: &tokio_postgres::Row| -> Result<Partition> {
        let (name, from, to) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Partition { name, from, to, is_detaching: false })
    };
    rows.iter().map(part).collect()
}

/// Drops the parts that lie below `kept_from`; their names.
///
/// TimescaleDB drops a chunk while nobody reads it: its lock waits for readers, at most
/// [`LOCK_TIMEOUT`], and readers of that chunk for it.
///
/// # Errors
/// When somebody reads a part for longer than that: it stays until another round.
pub async fn drop_below(
    client: &Client,
    engine: Engine,
    log: Log,
    kept_from: i64,
) -> Result<Vec<String>> {
    let parent = log.name();
    let mut dropped = Vec::new();
    match engine {
        Engine::Native => {
            while let Some(name) = pg::partitions::drop_one_below(client, parent, kept_from)
                .await
                .with_context(|| format!("drop a partition of {parent}"))?
            {
                dropped.push(name);
            }
        }
        Engine::Timescaledb => {
            let sql = "SELECT drop_chunks($1::text::regclass, older_than => $2::bigint)::text";
            let rows = client.query(sql, &[&parent, &kept_from]).await;
            for row in rows.with_context(|| format!("drop chunks of {parent}"))? {
                dropped.push(row.try_get(0)?);
            }
        }
    }
    Ok(dropped)
}
