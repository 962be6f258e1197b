//! The partitions of production's logs: ranges of the time in a row's identity, in whole microseconds.
//!
//! They are made ahead, and by the writer for a row that finds none, in a transaction of their own
//! before the batch.

use anyhow::Context as _;
use tokio_postgres::{Client, GenericClient};

use super::table::Table;
use super::write::Moved;
use crate::model::Micros;
use crate::pg::partitions::{Partition, Ranges, create_sql};
use crate::pg::writer::Fence;
use crate::pg::{self, OWNER};

pub const DAY_MICROS: i64 = 86_400_000_000;

/// Reads which times of a table have a partition.
pub async fn read(client: &impl GenericClient, table: &Table) -> anyhow::Result<Ranges> {
    let read = Ranges::read(client, table.name(), table.partition_micros);
    read.await.context("read partitions")
}

/// The partitions of a table, oldest first.
pub async fn list(client: &impl GenericClient, table: &Table) -> anyhow::Result<Vec<Partition>> {
    pg::partitions::list(client, table.name()).await.context("list partitions")
}

/// Makes the partitions that these times need, and gives what is there then.
///
/// # Errors
/// [`Moved`] when the retention has passed one of the times: what was dropped does not come back.
pub async fn make(
    client: &mut Client,
    fence: Fence,
    table: &Table,
    times: &[i64],
) -> anyhow::Result<Ranges> {
    let tx = client.transaction().await.context("begin")?;
    fence.check(&tx).await?;
    // Only the owner of the tables makes others; the session that appends is it for this transaction.
    tx.batch_execute(&format!("SET LOCAL ROLE {OWNER}")).await.context("become the owner")?;
    pg::partitions::lock(&tx).await.context("wait for whoever makes partitions")?;
    let mut partitions = read(&tx, table).await?;
    let kept_from = kept_from(&tx, table).await?;
    if let Some(time) = times.iter().find(|time| **time < kept_from) {
        return Err(Moved(format!(
            "{} of {} is before {}, which the retention has dropped meanwhile",
            Micros(*time),
            table.name(),
            Micros(kept_from)
        ))
        .into());
    }
    let missing = partitions.missing(times.iter().copied());
    for time in &missing {
        let Some(width) = partitions.width() else { break };
        let (from, to) = partitions.lacking(*time, width);
        let parent = table.name();
        let comment = format!(
            "Rows of {parent} from {} to {}, which is not in it.",
            Micros(from),
            Micros(to)
        );
        let sql = create_sql(parent, &name(table, from), &comment, (from, to));
        tx.batch_execute(&sql).await.with_context(|| format!("make partition: {sql}"))?;
        partitions.add((from, to));
    }
    tx.commit().await.context("commit")?;
    Ok(partitions)
}

/// Rows before this time were dropped; `i64::MIN` when none were.
pub async fn kept_from(client: &impl GenericClient, table: &Table) -> anyhow::Result<i64> {
    let sql = "SELECT kept_from FROM logs WHERE name = $1";
    let row = client.query_one(sql, &[&table.name()]).await.context("read kept_from")?;
    let kept_from: Option<i64> = row.try_get(0)?;
    Ok(kept_from.unwrap_or(i64::MIN))
}

/// The day for people where the partition begins with one, else the microsecond.
fn name(table: &Table, from: i64) -> String {
    let day = Micros(from).to_string();
    let part = match day.split_once('T') {
        Some((day, _)) if from.rem_euclid(DAY_MICROS) == 0 => day.replace('-', "_"),
        _ => from.to_string().replace('-', "m"),
    };
    format!("{}_{part}", table.name())
}

#[cfg(test)]
mod tests {
    use super::super::table::ORDERBOOK_DELTAS;
    use super::*;

    #[test]
    fn names_are_readable() {
        let day = 1_785_888_000_000_000;
        assert_eq!(name(&ORDERBOOK_DELTAS, day), "orderbook_deltas_2026_08_05");
        assert_eq!(name(&ORDERBOOK_DELTAS, day + 1), "orderbook_deltas_1785888000000001");
        assert_eq!(name(&ORDERBOOK_DELTAS, -1), "orderbook_deltas_m1");
    }
}
