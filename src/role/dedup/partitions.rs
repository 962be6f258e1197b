//! The partitions of production's logs: ranges of the time in a row's identity, in whole microseconds.
//!
//! They are made ahead, and by the writer for a row that finds none, in a transaction of their own
//! before the batch. To attach an empty table takes no lock that a reader or an insert would notice.
//! There is no default partition: with one, each attach locks and searches it, rows that it took in
//! would have to be moved before their own partition can exist, and none could be detached without
//! blocking everybody.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tokio_postgres::{Client, GenericClient};

use super::table::Table;
use super::write::Moved;
use crate::model::Micros;
use crate::pg::OWNER;
use crate::pg::writer::Fence;

pub const DAY_MICROS: i64 = 86_400_000_000;

/// Transaction lock of whoever makes partitions, so that two tasks never make the same one. The key
/// stands beside those of [`crate::pg::writer`] and [`crate::pg::migrate`].
const MAKE_KEY: i64 = 0x6b61_6c73_6869_0004;
/// Whoever makes one waits no longer for a person's statement on the table, then tries again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// What is kept of a table's partitions. A bound of `i64::MIN` or `i64::MAX` has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// The first time in it.
    pub from: i64,
    /// The first time after it.
    pub to: i64,
    /// Its detaching has begun: it takes no rows any more.
    pub is_detaching: bool,
}

/// Which times have a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partitions {
    /// The width of new ones; none when the table is a plain one, which takes every time.
    width: Option<i64>,
    /// First time to first time after it.
    ranges: BTreeMap<i64, i64>,
}

impl Partitions {
    /// Reads what is there.
    pub async fn read(client: &impl GenericClient, table: &Table) -> anyhow::Result<Self> {
        let sql = "SELECT relkind = 'p' FROM pg_class WHERE oid = $1::text::regclass";
        let row = client.query_one(sql, &[&table.name()]).await.context("read kind of table")?;
        let is_partitioned: bool = row.try_get(0)?;
        if !is_partitioned {
            return Ok(Self::default());
        }
        let ranges = list(client, table)
            .await?
            .into_iter()
            .filter(|partition| !partition.is_detaching)
            .map(|partition| (partition.from, partition.to))
            .collect();
        Ok(Self { width: table.partition_micros, ranges })
    }

    /// The times, one for each partition that is missing, in order.
    pub fn missing(&self, times: impl Iterator<Item = i64>) -> Vec<i64> {
        let Some(width) = self.width else { return Vec::new() };
        let mut missing = BTreeMap::new();
        // Rows come nearly in order of time, so the last answer is mostly the next one too.
        let mut last = None;
        for time in times {
            if last.is_some_and(|range| holds(range, time)) {
                continue;
            }
            last = match self.find(time) {
                Some(range) => Some(range),
                None => {
                    let range = self.lacking(time, width);
                    missing.entry(range.0).or_insert(time);
                    Some(range)
                }
            };
        }
        missing.into_values().collect()
    }

    fn find(&self, time: i64) -> Option<(i64, i64)> {
        let (from, to) = self.ranges.range(..=time).next_back()?;
        holds((*from, *to), time).then_some((*from, *to))
    }

    /// The range to be made for a time that has none: whole widths since 1970, cut where a partition
    /// of another width begins or ends.
    fn lacking(&self, time: i64, width: i64) -> (i64, i64) {
        let from = time.div_euclid(width).checked_mul(width).unwrap_or(i64::MIN);
        let to = from.checked_add(width).filter(|_| from > i64::MIN).unwrap_or_else(|| {
            if time < 0 { (time.div_euclid(width) + 1).saturating_mul(width) } else { i64::MAX }
        });
        let before = self.ranges.range(..=time).next_back().map_or(from, |(_, end)| *end);
        let after = self.ranges.range(time..).next().map_or(to, |(begin, _)| *begin);
        (from.max(before), to.min(after))
    }

    fn add(&mut self, (from, to): (i64, i64)) {
        self.ranges.insert(from, to);
    }
}

const fn holds((from, to): (i64, i64), time: i64) -> bool {
    from <= time && (time < to || to == i64::MAX)
}

/// The partitions of a table, oldest first.
pub async fn list(client: &impl GenericClient, table: &Table) -> anyhow::Result<Vec<Partition>> {
    let sql = "SELECT c.relname::text, i.inhdetachpending, \
                 (regexp_match(b.bound, 'FROM \\(''?(-?\\d+|MINVALUE)''?\\)'))[1], \
                 (regexp_match(b.bound, 'TO \\(''?(-?\\d+|MAXVALUE)''?\\)'))[1] \
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
               CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound) \
               WHERE i.inhparent = $1::text::regclass";
    let rows = client.query(sql, &[&table.name()]).await.context("list partitions")?;
    let mut partitions = Vec::with_capacity(rows.len());
    for row in rows {
        let bounds: (Option<&str>, Option<&str>) = (row.try_get(2)?, row.try_get(3)?);
        // A default partition, which only a person can have made, has no bounds.
        let (Some(from), Some(to)) = bounds else { continue };
        partitions.push(Partition {
            name: row.try_get(0)?,
            from: from.parse().unwrap_or(i64::MIN),
            to: to.parse().unwrap_or(i64::MAX),
            is_detaching: row.try_get(1)?,
        });
    }
    partitions.sort_by_key(|partition| partition.from);
    Ok(partitions)
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
) -> anyhow::Result<Partitions> {
    let tx = client.transaction().await.context("begin")?;
    fence.check(&tx).await?;
    // Only the owner of the tables makes others; the session that appends is it for this transaction.
    let sql =
        format!("{LOCK_TIMEOUT}; SET LOCAL ROLE {OWNER}; SELECT pg_advisory_xact_lock({MAKE_KEY})");
    tx.batch_execute(&sql).await.context("wait for whoever makes partitions")?;
    let mut partitions = Partitions::read(&tx, table).await?;
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
        let Some(width) = partitions.width else { break };
        let range = partitions.lacking(*time, width);
        let sql = create_sql(table, range);
        tx.batch_execute(&sql).await.with_context(|| format!("make partition: {sql}"))?;
        partitions.add(range);
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

/// One by one and not `CREATE ... PARTITION OF`, which would lock out readers and inserts.
fn create_sql(table: &Table, (from, to): (i64, i64)) -> String {
    let (parent, name) = (table.name(), name(table, from));
    let bound = |bound: i64, open: &str| match bound {
        i64::MIN | i64::MAX => open.to_owned(),
        micros => format!("'{micros}'"),
    };
    format!(
        "CREATE TABLE {name} (LIKE {parent}); \
         COMMENT ON TABLE {name} IS 'Rows of {parent} from {} to {}, which is not in it.'; \
         ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({}) TO ({})",
        Micros(from),
        Micros(to),
        bound(from, "MINVALUE"),
        bound(to, "MAXVALUE"),
    )
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
    use proptest::prelude::*;

    use super::super::table::ORDERBOOK_DELTAS;
    use super::*;

    fn partitions(ranges: &[(i64, i64)]) -> Partitions {
        Partitions { width: Some(100), ranges: ranges.iter().copied().collect() }
    }

    #[test]
    fn a_time_without_a_partition_is_found_once_a_range() {
        let there = partitions(&[(100, 200), (300, 400)]);
        assert_eq!(there.missing([150, 100, 199, 399].into_iter()), [0_i64; 0]);
        assert_eq!(there.missing([150, 200, 299, 250, 99, 400].into_iter()), [99, 200, 400]);
        assert_eq!(Partitions::default().missing([5].into_iter()), [0_i64; 0], "a plain table");
    }

    #[test]
    fn ranges_are_cut_at_those_of_another_width() {
        let there = partitions(&[(100, 130), (170, 500)]);
        assert_eq!(there.lacking(150, 100), (130, 170));
        assert_eq!(there.lacking(99, 100), (0, 100));
        assert_eq!(there.lacking(-1, 100), (-100, 0));
        assert_eq!(there.lacking(500, 1000), (500, 1000));
    }

    #[test]
    fn names_and_bounds_are_readable() {
        let day = 1_785_888_000_000_000;
        let sql = create_sql(&ORDERBOOK_DELTAS, (day, day + DAY_MICROS));
        assert!(sql.contains("CREATE TABLE orderbook_deltas_2026_08_05 (LIKE orderbook_deltas)"));
        assert!(
            sql.ends_with("FOR VALUES FROM ('1785888000000000') TO ('1785974400000000')"),
            "{sql}"
        );
        assert_eq!(name(&ORDERBOOK_DELTAS, day + 1), "orderbook_deltas_1785888000000001");
        assert!(create_sql(&ORDERBOOK_DELTAS, (i64::MIN, 5)).contains("FROM (MINVALUE) TO ('5')"));
    }

    proptest! {
        /// Whatever the times and their order, making what is missing leaves nothing missing and
        /// nothing that overlaps.
        #[test]
        fn what_is_made_suffices(
            times in prop::collection::vec(prop_oneof![
                any::<i64>(), -500_i64..500, Just(i64::MIN), Just(i64::MAX)
            ], 1..40),
            begun in prop::collection::btree_set(-20_i64..20, 0..5),
        ) {
            let mut there = partitions(&[]);
            for part in begun {
                there.add((part * 30, part * 30 + 30));
            }
            for time in there.missing(times.iter().copied()) {
                let range = there.lacking(time, 100);
                prop_assert!(holds(range, time), "{range:?} for {time}");
                there.add(range);
            }
            prop_assert!(there.missing(times.into_iter()).is_empty());
            let ranges: Vec<(i64, i64)> = there.ranges.iter().map(|(a, b)| (*a, *b)).collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
        }
    }
}
