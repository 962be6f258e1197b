//! One span of a log into the archive, exactly once.
//!
//! 1. The rows behind the cursor are read, as many as there is memory for.
//! 2. The span is *planned*: an object that is written once says where it ends. Whoever finds a plan
//!    follows it, so that every repetition writes the same rows under the same names.
//! 3. The parts are written, one a day, each read back and hashed.
//! 4. The span is *done*: an object that is written once names the parts. From here on it is archived.
//! 5. The manifests of the days get the parts, each a new version that is written once.
//! 6. The cursor moves, by compare-and-set.
//!
//! A process may end between any two of these, and another go on: with what is planned by reading it
//! again, with what is done by looking at the manifests alone. Two at once write the same objects;
//! the slower one finds the cursor moved and stops.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio_postgres::Client;
use uuid::Uuid;

use super::manifest::{self, Beginning, Done, FORMAT, Manifest, Part, Piece, Plan};
use super::part;
use super::rows::{Rows, Sorted, day_name};
use super::store::{Store, Written, sha256};
use super::table::Table;
use crate::ops::crash;
use crate::ops::exit::HeldError;
use crate::pg::{Options, Target};

/// A row that does not come in this time never does.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A log of production and how far it is archived.
#[derive(Debug, Clone)]
pub struct LogState {
    pub table: &'static Table,
    pub log_id: Uuid,
    pub head: i64,
    pub position: i64,
    /// Since the cursor moved last.
    pub resting: Duration,
    pub beginning: Beginning,
}

impl LogState {
    /// Rows that are not archived yet.
    pub const fn pending(&self) -> i64 {
        self.head - self.position
    }

    /// How long the oldest of them has been waiting, at most.
    pub fn lag(&self) -> Duration {
        if self.pending() > 0 { self.resting } else { Duration::ZERO }
    }
}

/// What archiving takes.
#[derive(Debug)]
pub struct Work<'a> {
    pub store: &'a Store,
    /// Reads production.
    pub database: &'a Target,
    /// Holds the archiver's lock, and moves the cursor over it.
    pub session: &'a Client,
    /// Bytes of rows in memory, about.
    pub memory: u64,
    pub level: i32,
}

/// What came into the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Archived {
    pub through: i64,
    pub rows: u64,
    pub bytes: u64,
    pub parts: u64,
    /// Rows that production had no more.
    pub missing: u64,
}

impl Work<'_> {
    /// Rows of a table that are read at once, at most.
    pub fn rows_max(&self, table: &Table) -> i64 {
        let rows = (self.memory / table.row_bytes.max(1)).clamp(1_000, 16_000_000);
        i64::try_from(rows).unwrap_or(i64::MAX)
    }

    /// Archives the next span behind the cursor.
    ///
    /// # Errors
    /// `HeldError` when another archiver was faster. After any other the same call may be made again.
    pub async fn next(&self, log: &LogState) -> anyhow::Result<Archived> {
        let LogState { table, log_id, position, head, .. } = log;
        let path = manifest::done_path(table, *log_id, *position);
        let done = match manifest::read::<Done>(self.store, &path).await? {
            Some(done) => done,
            None => self.archive(log).await?,
        };
        ensure!(
            done.log_id == *log_id && done.after == *position,
            "{path} is of another log or place"
        );
        ensure!(
            done.through <= *head,
            "the archive has {} up to {}, production up to {head}: was production restored from a \
             backup? Its archive goes on at another place (archive.url)",
            table.name,
            done.through,
        );
        for part in &done.parts {
            enter(self.store, table, part).await?;
        }
        self.move_cursor(table, *position, done.through).await?;
        crash::point("archive.moved");
        Ok(Archived {
            through: done.through,
            rows: done.parts.iter().map(|part| part.rows).sum(),
            bytes: done.parts.iter().map(|part| part.bytes).sum(),
            parts: u64::try_from(done.parts.len()).unwrap_or_default(),
            missing: done.missing,
        })
    }

    async fn archive(&self, log: &LogState) -> anyhow::Result<Done> {
        let table = log.table;
        let path = manifest::plan_path(table, log.log_id, log.position);
        let planned = manifest::read::<Plan>(self.store, &path).await?;
        let through = planned.as_ref().map_or_else(
            || log.head.min(log.position.saturating_add(self.rows_max(table))),
            |plan| plan.through,
        );
        let (mut rows, mut through) = self.read(log, through, planned.is_none()).await?;
        let plan = match planned {
            Some(plan) => plan,
            None => self.plan(log, &path, through).await?,
        };
        if plan.through != through {
            // Somebody planned it while we read.
            (rows, through) = self.read(log, plan.through, false).await?;
        }
        crash::point("archive.planned");
        let missing = missing(&rows, log, through)?;
        let mut parts = Vec::with_capacity(rows.days.len());
        let rows = std::sync::Arc::new(rows);
        for day in rows.days.clone() {
            let (sorted, level) = (std::sync::Arc::clone(&rows), self.level);
            let of_day = day.clone();
            let encoded =
                tokio::task::spawn_blocking(move || part::encode(&sorted, &of_day, level));
            let bytes = Bytes::from(encoded.await.context("encode a part")??);
            let dt = day_name(day.day);
            let path = manifest::part_path(&plan, &dt);
            self.write(log, &path, &bytes).await?;
            let rows = u64::try_from(day.order.len()).context("count rows")?;
            parts.push(Part {
                dt,
                path,
                rows,
                bytes: u64::try_from(bytes.len()).context("count bytes")?,
                sha256: sha256(&bytes),
                pieces: vec![Piece { after: plan.after, through: plan.through, rows }],
                fingerprint: None,
            });
            crash::point("archive.uploaded");
        }
        // Whoever lost the lock does not get further than here.
        self.session.simple_query("SELECT 1").await.context("ask the lock's session")?;
        let done = Done {
            format: FORMAT,
            table: table.name.to_owned(),
            log_id: log.log_id,
            after: plan.after,
            through: plan.through,
            missing,
            parts,
        };
        let path = manifest::done_path(table, log.log_id, log.position);
        if !self.store.create(&path, manifest::bytes(&done)?).await? {
            let theirs = manifest::read::<Done>(self.store, &path).await?;
            return theirs.with_context(|| format!("{path} was removed while it was written"));
        }
        crash::point("archive.done");
        Ok(done)
    }

    async fn plan(&self, log: &LogState, path: &str, through: i64) -> anyhow::Result<Plan> {
        let (planned_at, planned_by) = manifest::made();
        let plan = Plan {
            format: FORMAT,
            table: log.table.name.to_owned(),
            log_id: log.log_id,
            after: log.position,
            through,
            planned_at,
            planned_by,
        };
        if self.store.create(path, manifest::bytes(&plan)?).await? {
            return Ok(plan);
        }
        let theirs = manifest::read::<Plan>(self.store, path).await?;
        theirs.with_context(|| format!("{path} was removed while it was written"))
    }

    /// The rows behind the cursor up to `through`, or where `may_cut` allows it up to what memory
    /// takes; and where they end.
    async fn read(
        &self,
        log: &LogState,
        through: i64,
        may_cut: bool,
    ) -> anyhow::Result<(Sorted, i64)> {
        let (table, after) = (log.table, log.position);
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE log_seq > {after} AND log_seq <= {through} \
             ORDER BY log_seq) TO STDOUT (FORMAT binary)",
            table.select(),
            table.name
        );
        let mut rows = copy(self.database, table, &sql, may_cut.then_some(self.memory)).await?;
        let end = match rows.1 {
            true => rows.0.last("log_seq").unwrap_or(through),
            false => through,
        };
        if rows.1 {
            rows.0.cut();
        }
        let sorted = tokio::task::spawn_blocking(move || rows.0.finish());
        Ok((sorted.await.context("sort rows")??, end))
    }

    /// Writes a part under the name that its span gives it.
    async fn write(&self, log: &LogState, path: &str, bytes: &Bytes) -> anyhow::Result<()> {
        if self.store.write_once(path, bytes).await? == Written::Fresh {
            return Ok(());
        }
        // Of an attempt that was cut short, by another version of this program or damaged; unless
        // somebody else has finished it meanwhile, nobody refers to it.
        let done = manifest::done_path(log.table, log.log_id, log.position);
        if self.store.read(&done).await?.is_some() {
            return Err(replaced(log.table).into());
        }
        self.store.write_over(path, bytes).await
    }

    async fn move_cursor(&self, table: &Table, from: i64, to: i64) -> anyhow::Result<()> {
        let sql = "SELECT move_consumer($1, $2, $3)";
        let row = self.session.query_one(sql, &[&table.name, &from, &to]).await;
        let moved: bool = row.context("move cursor")?.try_get(0)?;
        if moved { Ok(()) } else { Err(replaced(table).into()) }
    }
}

fn replaced(table: &Table) -> HeldError {
    HeldError(format!("another archiver is at work: it moved on with {} first", table.name))
}

/// Puts a part into the manifest of its day, unless it is there.
pub async fn enter(store: &Store, table: &Table, part: &Part) -> anyhow::Result<()> {
    manifest::revise(store, table, &part.dt, |last: Option<&Manifest>| {
        if last.is_some_and(|last| last.has(part)) {
            return None;
        }
        let mut parts = last.map(|last| last.parts.clone()).unwrap_or_default();
        parts.push(part.clone());
        Some(parts)
    })
    .await
}

/// Rows of a query, and whether they were more than the limit in bytes and not read to their end.
pub async fn copy(
    database: &Target,
    table: &'static Table,
    sql: &str,
    limit: Option<u64>,
) -> anyhow::Result<(Rows, bool)> {
    let options = Options { read_only: true, ..Options::default() };
    let client = database.connect_with(options).await?;
    let name = table.name;
    let stream = client.copy_out(sql).await.with_context(|| format!("read {name}"))?;
    let mut stream = pin!(stream);
    let mut rows = Rows::new(table);
    loop {
        let chunk = tokio::time::timeout(SILENCE_MAX, stream.try_next()).await;
        let chunk = chunk.with_context(|| format!("read {name}: no row for {SILENCE_MAX:?}"))?;
        let Some(chunk) = chunk.with_context(|| format!("read {name}"))? else { break };
        rows.feed(&chunk).with_context(|| format!("read {name}"))?;
        if limit.is_some_and(|limit| rows.bytes() >= limit) {
            return Ok((rows, true));
        }
    }
    Ok((rows, false))
}

/// How many rows the retention had dropped before the archive began.
///
/// # Errors
/// When the log is not dense otherwise, or a row stands where it should not.
fn missing(rows: &Sorted, log: &LogState, through: i64) -> anyhow::Result<u64> {
    let (table, after) = (log.table, log.position);
    let seqs = rows.longs("log_seq").context("rows without a place in the log")?;
    // They were asked for in order.
    let mut before = after;
    for seq in seqs.values() {
        if *seq <= before || *seq > through {
            bail!("{} has row {seq} behind row {before}: its log is not in order", table.name);
        }
        before = *seq;
    }
    let rows_found = i64::try_from(seqs.values().len()).context("count rows")?;
    let missing = through - after - rows_found;
    let certain = log.beginning.head.max(after);
    let behind = seqs.values().iter().filter(|seq| **seq > certain).count();
    let may_miss = log.beginning.kept_from.is_some() && after < log.beginning.head;
    let is_dense = i64::try_from(behind).ok() == Some((through - certain).max(0));
    if missing > 0 && !(may_miss && is_dense) {
        bail!(
            "{missing} rows of {} between {after} and {through} are not in production: were they \
             dropped before they were archived?",
            table.name
        );
    }
    u64::try_from(missing).context("count missing rows")
}
