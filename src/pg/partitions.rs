//! Declarative range partitions over one integer: which there are, how one is made, how one goes.
//!
//! There is never a default partition: with one, each attach locks and searches it, rows that it took in
//! would have to be moved before their own partition can exist, and none could be detached without
//! blocking everybody. So whoever writes makes the partition of a row that finds none, before the batch
//! that holds it. To attach an empty table takes no lock that a reader or an insert would notice.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error, GenericClient, Transaction};

use super::advisory::Lock;

/// Whoever makes one waits no longer for a person's statement on the table, then tries again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";
/// Marks what a decision was made about; only tables that carry it are ever dropped, so that a
/// partition which a person has detached to keep it is left alone.
const MARK: &str = "Dropped by the retention";

/// One partition. A bound of `i64::MIN` or `i64::MAX` has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// The first value in it.
    pub from: i64,
    /// The first value after it.
    pub to: i64,
    /// Its detaching has begun: it takes no rows any more.
    pub is_detaching: bool,
}

/// Which values have a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The width of new ones; none when the table is a plain one, which takes every value.
    width: Option<i64>,
    /// First value to first value after it.
    ranges: BTreeMap<i64, i64>,
}

impl Ranges {
    /// Reads what is there. New partitions are to be `width` wide.
    pub async fn read(
        client: &impl GenericClient,
        table: &str,
        width: Option<i64>,
    ) -> Result<Self, Error> {
        let sql = "SELECT relkind = 'p' FROM pg_class WHERE oid = $1::text::regclass";
        if !client.query_one(sql, &[&table]).await?.try_get::<_, bool>(0)? {
            return Ok(Self::default());
        }
        let ranges = list(client, table)
            .await?
            .into_iter()
            .filter(|partition| !partition.is_detaching)
            .map(|partition| (partition.from, partition.to))
            .collect();
        Ok(Self { width, ranges })
    }

    /// The width of new ones; none for a table that takes every value.
    pub const fn width(&self) -> Option<i64> {
        self.width
    }

    /// The values, one for each partition that is missing, in order.
    pub fn missing(&self, values: impl Iterator<Item = i64>) -> Vec<i64> {
        let Some(width) = self.width else { return Vec::new() };
        let mut missing = BTreeMap::new();
        // Rows come nearly in order, so the last answer is mostly the next one too.
        let mut last = None;
        for value in values {
            if last.is_some_and(|range| holds(range, value)) {
                continue;
            }
            last = match self.find(value) {
                Some(range) => Some(range),
                None => {
                    let range = self.lacking(value, width);
                    missing.entry(range.0).or_insert(value);
                    Some(range)
                }
            };
        }
        missing.into_values().collect()
    }

    /// The first value at or above this one that has no partition; none when each has.
    pub fn first_missing(&self, value: i64) -> Option<i64> {
        self.width?;
        let mut value = value;
        while let Some((_, to)) = self.find(value) {
            if to == i64::MAX {
                return None;
            }
            value = to;
        }
        Some(value)
    }

    fn find(&self, value: i64) -> Option<(i64, i64)> {
        let (from, to) = self.ranges.range(..=value).next_back()?;
        holds((*from, *to), value).then_some((*from, *to))
    }

    /// The range to be made for a value that has none: whole widths from 0, cut where a partition of
    /// another width begins or ends.
    pub fn lacking(&self, value: i64, width: i64) -> (i64, i64) {
        let from = value.div_euclid(width).checked_mul(width).unwrap_or(i64::MIN);
        let to = from.checked_add(width).filter(|_| from > i64::MIN).unwrap_or_else(|| {
            if value < 0 { (value.div_euclid(width) + 1).saturating_mul(width) } else { i64::MAX }
        });
        let before = self.ranges.range(..=value).next_back().map_or(from, |(_, end)| *end);
        let after = self.ranges.range(value..).next().map_or(to, |(begin, _)| *begin);
        (from.max(before), to.min(after))
    }

    /// Notes one that was made.
    pub fn add(&mut self, (from, to): (i64, i64)) {
        self.ranges.insert(from, to);
    }
}

const fn holds((from, to): (i64, i64), value: i64) -> bool {
    from <= value && (value < to || to == i64::MAX)
}

/// The partitions of a table, lowest first.
pub async fn list(client: &impl GenericClient, table: &str) -> Result<Vec<Partition>, Error> {
    let sql = "SELECT c.relname::text, i.inhdetachpending, \
                 (regexp_match(b.bound, 'FROM \\(''?(-?\\d+|MINVALUE)''?\\)'))[1], \
                 (regexp_match(b.bound, 'TO \\(''?(-?\\d+|MAXVALUE)''?\\)'))[1] \
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
               CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound) \
               WHERE i.inhparent = $1::text::regclass";
    let rows = client.query(sql, &[&table]).await?;
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

/// Waits for whoever makes partitions; from here to the transaction's end nobody else does.
pub async fn lock(tx: &Transaction<'_>) -> Result<(), Error> {
    let key = Lock::Partitions.key();
    tx.batch_execute(&format!("{LOCK_TIMEOUT}; SELECT pg_advisory_xact_lock({key})")).await
}

/// Makes a partition. `comment` and `name` hold no quote.
///
/// One by one and not `CREATE ... PARTITION OF`, which would lock out readers and inserts.
pub fn create_sql(parent: &str, name: &str, comment: &str, (from, to): (i64, i64)) -> String {
    let bound = |bound: i64, open: &str| match bound {
        i64::MIN | i64::MAX => open.to_owned(),
        value => format!("'{value}'"),
    };
    format!(
        "CREATE TABLE {name} (LIKE {parent}); \
         COMMENT ON TABLE {name} IS '{comment}'; \
         ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({}) TO ({})",
        bound(from, "MINVALUE"),
        bound(to, "MAXVALUE"),
    )
}

/// Marks a partition as one that is to be dropped, which may have to wait for a vacuum.
pub async fn mark(client: &impl GenericClient, parent: &str, name: &str) -> Result<(), Error> {
    client.batch_execute(&format!("COMMENT ON TABLE \"{name}\" IS '{MARK} of {parent}.'")).await
}

/// Detaches and drops one partition that lies below `kept_from`, also one that another process has
/// begun to drop; its name, or none when there is none.
///
/// Detaching waits for the queries that know the partition and blocks none: neither them nor those that
/// come meanwhile. Interrupted, it is finished by the next call.
pub async fn drop_one_below(
    client: &Client,
    parent: &str,
    kept_from: i64,
) -> Result<Option<String>, Error> {
    let decided =
        list(client, parent).await?.into_iter().find(|partition| partition.to <= kept_from);
    if let Some(Partition { name, is_detaching, .. }) = decided {
        // One that was made too late, and is empty, has no mark yet.
        mark(client, parent, &name).await?;
        let how = if is_detaching { "FINALIZE" } else { "CONCURRENTLY" };
        let sql = format!("ALTER TABLE {parent} DETACH PARTITION \"{name}\" {how}");
        client.batch_execute(&sql).await?;
    }
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_class p ON p.relnamespace = c.relnamespace \
               WHERE p.oid = $1::text::regclass AND c.relkind = 'r' AND NOT c.relispartition \
                 AND obj_description(c.oid, 'pg_class') = $2 LIMIT 1";
    let mark = format!("{MARK} of {parent}.");
    let Some(row) = client.query_opt(sql, &[&parent, &mark]).await? else { return Ok(None) };
    let name: String = row.try_get(0)?;
    client.batch_execute(&format!("DROP TABLE \"{name}\"")).await?;
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(ranges: &[(i64, i64)]) -> Ranges {
        Ranges { width: Some(100), ranges: ranges.iter().copied().collect() }
    }

    #[test]
    fn a_value_without_a_partition_is_found_once_a_range() {
        let there = ranges(&[(100, 200), (300, 400)]);
        assert_eq!(there.missing([150, 100, 199, 399].into_iter()), [0_i64; 0]);
        assert_eq!(there.missing([150, 200, 299, 250, 99, 400].into_iter()), [99, 200, 400]);
        assert_eq!(Ranges::default().missing([5].into_iter()), [0_i64; 0], "a plain table");
    }

    #[test]
    fn partitions_are_followed_to_their_end() {
        let there = ranges(&[(0, 100), (100, 250), (300, 400)]);
        for (value, missing) in
            [(0, 250), (99, 250), (249, 250), (250, 250), (299, 299), (300, 400)]
        {
            assert_eq!(there.first_missing(value), Some(missing), "{value}");
        }
        assert_eq!(ranges(&[(0, i64::MAX)]).first_missing(5), None);
        assert_eq!(Ranges::default().first_missing(5), None, "a plain table");
    }

    #[test]
    fn ranges_are_cut_at_those_of_another_width() {
        let there = ranges(&[(100, 130), (170, 500)]);
        assert_eq!(there.lacking(150, 100), (130, 170));
        assert_eq!(there.lacking(99, 100), (0, 100));
        assert_eq!(there.lacking(-1, 100), (-100, 0));
        assert_eq!(there.lacking(500, 1000), (500, 1000));
    }

    #[test]
    fn bounds_are_readable() {
        let sql = create_sql("trades", "trades_5", "Rows.", (i64::MIN, 5));
        assert!(sql.starts_with("CREATE TABLE trades_5 (LIKE trades); "), "{sql}");
        assert!(sql.ends_with("FOR VALUES FROM (MINVALUE) TO ('5')"), "{sql}");
    }

    proptest! {
        /// Whatever the values and their order, making what is missing leaves nothing missing and
        /// nothing that overlaps.
        #[test]
        fn what_is_made_suffices(
            values in prop::collection::vec(prop_oneof![
                any::<i64>(), -500_i64..500, Just(i64::MIN), Just(i64::MAX)
            ], 1..40),
            begun in prop::collection::btree_set(-20_i64..20, 0..5),
        ) {
            let mut there = ranges(&[]);
            for part in begun {
                there.add((part * 30, part * 30 + 30));
            }
            for value in there.missing(values.iter().copied()) {
                let range = there.lacking(value, 100);
                prop_assert!(holds(range, value), "{range:?} for {value}");
                there.add(range);
            }
            prop_assert!(there.missing(values.into_iter()).is_empty());
            let ranges: Vec<(i64, i64)> = there.ranges.iter().map(|(a, b)| (*a, *b)).collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
        }
    }
}
