//! What each gatherer contributed: how many rows it brought, and how many of them nobody else had.
//!
//! A row counts as brought by one gatherer alone from its commit until another brings it too, however
//! late. So that the figures are exact once all cursors have passed, the rows that one gatherer alone
//! has brought are known by their identity ([`Alone`]), and what changes of them is committed with the
//! batch, in table `contributions_open`: a restart loses none. While all gatherers are well these are
//! the rows of the last moment and those that were really lost elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use postgres_types::ToSql;
use tokio_postgres::{Client, Error, GenericClient, Statement, Transaction};

use super::recent::BuildHashed;
use super::span::{NO_TIME, Row};
use super::table::Table;

const HOUR_MICROS: i64 = 3_600_000_000;
/// A row that stood alone this long stays so: gatherers keep 14 days by default.
const SETTLED_AFTER_MICROS: i64 = 15 * 24 * HOUR_MICROS;
/// Changes are put together into one whole when there are this many of them.
const PARTS_MAX: usize = 256;
/// And when they have more bytes than this and than the whole.
const PARTS_BYTES_MIN: usize = 1 << 20;
/// Identity, gatherer (-1: no longer alone), hour.
const RECORD_BYTES: usize = 16 + 2 + 8;
const NOBODY: i16 = -1;

/// What a gatherer did in an hour of the rows' own time. All are changes, to be added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub offered: i64,
    /// Production had the row, or got it from another copy.
    pub duplicates: i64,
    pub alone: i64,
    /// Of `alone`, rows whose later copies can no longer be recognised.
    pub alone_unwatched: i64,
}

/// Figures by the gatherer's number and the first microsecond of the hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(i16, i64), Figures>);

impl Tally {
    fn at(&mut self, gatherer: i16, hour: i64) -> &mut Figures {
        self.0.entry((gatherer, hour)).or_default()
    }

    /// A gatherer's row was read.
    pub fn offered(&mut self, gatherer: i16, row: &Row) {
        self.at(gatherer, hour_of(row)).offered += 1;
    }

    /// It is not written, for one that is.
    pub fn duplicate(&mut self, gatherer: i16, row: &Row) {
        self.at(gatherer, hour_of(row)).duplicates += 1;
    }
}

/// The row's own time, or the gatherer's clock where it has none.
fn hour_of(row: &Row) -> i64 {
    let time = if row.time == NO_TIME { row.clock } else { row.time };
    time.div_euclid(HOUR_MICROS).saturating_mul(HOUR_MICROS)
}

/// Who brought a row that nobody else has brought so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bringer {
    gatherer: i16,
    hour: i64,
}

/// The rows of one log that one gatherer alone has brought so far. Shared by the merge, which finds
/// copies of what is committed, and the transaction, which adds what it writes; thrown away with the
/// session.
#[derive(Debug, Clone)]
pub struct Alone(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    rows: HashMap<u128, Bringer, BuildHashed>,
    rows_max: usize,
    /// Whether others could bring a row at all: not when the gatherer is part of the identity, nor
    /// when there is one gatherer.
    is_shared: bool,
    newest_hour: i64,
    /// Changes since the last part.
    changes: Vec<u8>,
    /// Number of the last part, how many there are, and their bytes after the first.
    part: i64,
    parts: usize,
    parts_bytes: usize,
}

/// What is to be written of the rows watched.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    number: i64,
    rows: Vec<u8>,
    /// It holds everything: those before it go.
    is_whole: bool,
}

/// A row of a batch, to be accounted when it is known whether it was new.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    pub gatherer: i16,
    pub row: &'a Row,
    /// More than one gatherer brought it within the batch.
    pub is_shared: bool,
    /// Written; else production had it.
    pub is_new: bool,
}

impl Alone {
    /// Nobody is watched yet.
    pub fn new(table: &Table, gatherers: usize) -> Self {
        Self(Arc::new(Mutex::new(Watched {
            rows: HashMap::default(),
            rows_max: table.recent_cost_max / 4,
            is_shared: gatherers > 1 && !table.per_gatherer,
            newest_hour: i64::MIN,
            changes: Vec::new(),
            part: 0,
            parts: 0,
            parts_bytes: 0,
        })))
    }

    /// Reads what was committed.
    pub async fn read(
        client: &impl GenericClient,
        table: &Table,
        gatherers: usize,
    ) -> anyhow::Result<Self> {
        let alone = Self::new(table, gatherers);
        let sql = "SELECT part, rows FROM contributions_open WHERE table_name = $1 ORDER BY part";
        let parts = client.query(sql, &[&table.name()]).await.context("read open rows")?;
        for row in parts {
            alone.watched().load(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(alone)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies of committed rows, as (identity, the copy's gatherer).
    pub fn copies(&self, copies: impl Iterator<Item = (u128, i16)>, tally: &mut Tally) {
        let mut watched = self.watched();
        for (identity, gatherer) in copies {
            watched.copy(identity, gatherer, false, tally);
        }
    }

    /// Accounts the rows of a batch and gives what is to be written in its transaction.
    fn account<'a>(
        &self,
        rows: impl Iterator<Item = Decided<'a>>,
        tally: &mut Tally,
    ) -> Option<Part> {
        let mut watched = self.watched();
        for Decided { gatherer, row, is_shared, is_new } in rows {
            if !is_new {
                tally.duplicate(gatherer, row);
                watched.copy(row.identity, gatherer, is_shared, tally);
            } else if !is_shared {
                watched.add(row.identity, Bringer { gatherer, hour: hour_of(row) }, tally);
            }
        }
        watched.take_part()
    }
}

impl Watched {
    fn add(&mut self, identity: u128, bringer: Bringer, tally: &mut Tally) {
        let figures = tally.at(bringer.gatherer, bringer.hour);
        figures.alone += 1;
        if !self.is_shared {
            return;
        }
        if self.rows.len() >= self.rows_max {
            figures.alone_unwatched += 1;
            return;
        }
        self.newest_hour = self.newest_hour.max(bringer.hour);
        self.rows.insert(identity, bringer);
        push(&mut self.changes, identity, bringer);
    }

    /// Somebody brought a row that is in production.
    fn copy(&mut self, identity: u128, gatherer: i16, by_others_too: bool, tally: &mut Tally) {
        let Some(bringer) = self.rows.get(&identity).copied() else { return };
        if bringer.gatherer == gatherer && !by_others_too {
            return;
        }
        self.rows.remove(&identity);
        tally.at(bringer.gatherer, bringer.hour).alone -= 1;
        push(&mut self.changes, identity, Bringer { gatherer: NOBODY, hour: 0 });
    }

    fn load(&mut self, part: i64, rows: &[u8]) {
        for record in rows.chunks_exact(RECORD_BYTES) {
            let Some((identity, bringer)) = parse(record) else { continue };
            if bringer.gatherer == NOBODY {
                self.rows.remove(&identity);
            } else {
                self.newest_hour = self.newest_hour.max(bringer.hour);
                self.rows.insert(identity, bringer);
            }
        }
        self.part = part;
        self.parts += 1;
        self.parts_bytes += rows.len();
    }

    fn take_part(&mut self) -> Option<Part> {
        if self.changes.is_empty() {
            return None;
        }
        self.part += 1;
        let whole_bytes = self.rows.len() * RECORD_BYTES;
        let bytes = self.parts_bytes + self.changes.len();
        if self.parts < PARTS_MAX && bytes <= whole_bytes.max(PARTS_BYTES_MIN) {
            self.parts += 1;
            self.parts_bytes = bytes;
            let rows = std::mem::take(&mut self.changes);
            return Some(Part { number: self.part, rows, is_whole: false });
        }
        let settled = self.newest_hour.saturating_sub(SETTLED_AFTER_MICROS);
        self.rows.retain(|_, bringer| bringer.hour >= settled);
        self.changes.clear();
        let mut rows = Vec::with_capacity(self.rows.len() * RECORD_BYTES);
        for (identity, bringer) in &self.rows {
            push(&mut rows, *identity, *bringer);
        }
        (self.parts, self.parts_bytes) = (1, 0);
        Some(Part { number: self.part, rows, is_whole: true })
    }
}

fn push(records: &mut Vec<u8>, identity: u128, bringer: Bringer) {
    records.extend_from_slice(&identity.to_be_bytes());
    records.extend_from_slice(&bringer.gatherer.to_be_bytes());
    records.extend_from_slice(&bringer.hour.to_be_bytes());
}

fn parse(record: &[u8]) -> Option<(u128, Bringer)> {
    let (identity, rest) = record.split_first_chunk::<16>()?;
    let (gatherer, rest) = rest.split_first_chunk::<2>()?;
    let bringer = Bringer {
        gatherer: i16::from_be_bytes(*gatherer),
        hour: i64::from_be_bytes(rest.try_into().ok()?),
    };
    Some((u128::from_be_bytes(*identity), bringer))
}

const OPEN_SQL: &str =
    "INSERT INTO contributions_open (table_name, part, rows) VALUES ($1, $2, $3)";

const TALLY_SQL: &str = "INSERT INTO contributions AS c \
       (gatherer, table_name, hour, offered, duplicates, alone, alone_unwatched) \
     SELECT g.name, $1, t.hour, t.offered, t.duplicates, t.alone, t.unwatched \
     FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) \
       AS t (gatherer_id, hour, offered, duplicates, alone, unwatched) \
     JOIN gatherers g USING (gatherer_id) \
     ON CONFLICT (table_name, hour, gatherer) DO UPDATE SET \
       offered = c.offered + excluded.offered, duplicates = c.duplicates + excluded.duplicates, \
       alone = c.alone + excluded.alone, \
       alone_unwatched = c.alone_unwatched + excluded.alone_unwatched";

/// What [`write`] executes, prepared: it does so with every batch.
#[derive(Debug)]
pub struct Statements {
    tally: Statement,
    open: Statement,
}

impl Statements {
    pub async fn prepare(client: &Client) -> Result<Self, Error> {
        let (tally, open) = tokio::try_join!(client.prepare(TALLY_SQL), client.prepare(OPEN_SQL))?;
        Ok(Self { tally, open })
    }
}

/// Writes the figures of a batch in its transaction.
pub async fn write<'a>(
    tx: &Transaction<'_>,
    statements: &Statements,
    table: &Table,
    alone: &Alone,
    mut tally: Tally,
    rows: impl Iterator<Item = Decided<'a>>,
) -> anyhow::Result<()> {
    let name = table.name();
    let part = alone.account(rows, &mut tally);
    let hours: Vec<_> = tally.0.into_iter().filter(|(_, f)| *f != Figures::default()).collect();
    if !hours.is_empty() {
        let ids: Vec<i16> = hours.iter().map(|((gatherer, _), _)| *gatherer).collect();
        let column = |of: fn(&((i16, i64), Figures)) -> i64| hours.iter().map(of).collect();
        let columns: [Vec<i64>; 5] = [
            column(|((_, hour), _)| *hour),
            column(|(_, figures)| figures.offered),
            column(|(_, figures)| figures.duplicates),
            column(|(_, figures)| figures.alone),
            column(|(_, figures)| figures.alone_unwatched),
        ];
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&name, &ids];
        parameters.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
        tx.execute(&statements.tally, &parameters).await.context("write contributions")?;
    }
    let Some(part) = part else { return Ok(()) };
    if part.is_whole {
        let sql = "DELETE FROM contributions_open WHERE table_name = $1 AND part < $2";
        tx.execute(sql, &[&name, &part.number]).await.context("replace open rows")?;
    }
    tx.execute(&statements.open, &[&name, &part.number, &part.rows])
        .await
        .context("write open rows")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::table::{COVERAGE, ORDERBOOK_DELTAS};
    use super::*;

    fn row(identity: u128) -> Row {
        Row::for_test(5, 5, identity)
    }

    fn decided(gatherer: i16, row: &Row, is_new: bool) -> Decided<'_> {
        Decided { gatherer, row, is_shared: false, is_new }
    }

    #[test]
    fn where_nobody_else_can_bring_a_row_none_is_watched() {
        for (table, gatherers) in [(&COVERAGE, 3), (&ORDERBOOK_DELTAS, 1)] {
            let (alone, mut tally) = (Alone::new(table, gatherers), Tally::default());
            assert_eq!(alone.account([decided(1, &row(7), true)].into_iter(), &mut tally), None);
            assert_eq!(tally.at(1, 0).alone, 1);
            assert_eq!(tally.at(1, 0).alone_unwatched, 0);
        }
    }

    #[test]
    fn what_is_above_the_bound_is_said() {
        let (alone, mut tally) = (Alone::new(&ORDERBOOK_DELTAS, 2), Tally::default());
        alone.watched().rows_max = 2;
        let rows: Vec<Row> = (0..3).map(row).collect();
        alone.account(rows.iter().map(|row| decided(1, row, true)), &mut tally);
        assert_eq!((tally.at(1, 0).alone, tally.at(1, 0).alone_unwatched), (3, 1));
        alone.copies((0..3).map(|identity| (identity, 2)), &mut tally);
        assert_eq!((tally.at(1, 0).alone, tally.at(1, 0).alone_unwatched), (1, 1));
    }

    proptest! {
        /// Whoever brings what when, and however often all is read back from the parts: in the end
        /// each gatherer's figure is the number of rows that it brought and nobody else.
        #[test]
        fn the_figures_are_exact(
            brought in prop::collection::vec((0_u128..40, 1_i16..4, any::<bool>()), 0..200),
            parts_max in 1_usize..6,
        ) {
            let mut alone = Alone::new(&ORDERBOOK_DELTAS, 3);
            let mut tally = Tally::default();
            let mut parts: Vec<Part> = Vec::new();
            let mut by: BTreeMap<u128, BTreeSet<i16>> = BTreeMap::new();
            for (identity, gatherer, restart) in brought {
                let is_new = !by.contains_key(&identity);
                by.entry(identity).or_default().insert(gatherer);
                let row = row(identity);
                let part = alone.account([decided(gatherer, &row, is_new)].into_iter(), &mut tally);
                if let Some(part) = part {
                    if part.is_whole {
                        parts.clear();
                    }
                    parts.push(part);
                }
                if alone.watched().parts >= parts_max {
                    alone.watched().parts = PARTS_MAX;
                }
                if restart {
                    alone = Alone::new(&ORDERBOOK_DELTAS, 3);
                    for part in &parts {
                        alone.watched().load(part.number, &part.rows);
                    }
                }
            }
            for gatherer in 1..4 {
                let expected = by.values().filter(|by| by.len() == 1 && by.contains(&gatherer));
                prop_assert_eq!(usize::try_from(tally.at(gatherer, 0).alone), Ok(expected.count()));
            }
        }
    }
}
