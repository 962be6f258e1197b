//! The transaction: rows, cursors and head of one log, in production, at once or not at all.
//!
//! A [`Session`] is one connection and what it knows of production. Nothing that it knows outlives
//! an error: whoever uses it drops it and opens another, which reads head and cursors anew. The
//! outcome of a commit whose answer was lost is settled in this way too.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use postgres_types::ToSql;
use tokio_postgres::{Client, Statement, Transaction};
use uuid::Uuid;

use super::contributions::{self, Alone, Decided};
use super::merge::{Batch, Move, Picked};
use super::partitions;
use super::production::Tenure;
use super::recent::Floor;
use super::span::NO_TIME;
use super::table::Table;
use crate::model::Micros;
use crate::ops::crash;
use crate::pg::migrate::{self, Schema};
use crate::pg::partitions::Ranges;
use crate::pg::{Options, Target};

/// A batch that takes longer is cancelled and tried again with fewer rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The server ends a session of ours that was suspended in a transaction.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes handed to the connection at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// The plan of the insert must not follow from statistics that production may not have yet: rows
/// of the stage are always looked up in the unique key. It is made for the batch's own times, so that
/// it names (and locks) a few partitions and not all of them.
const SETTINGS: &str = "SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET max_parallel_workers_per_gather = 0; SET jit = off; \
     SET plan_cache_mode = force_custom_plan";

/// A cursor, head or partition of production was not where this process left it.
#[derive(Debug)]
pub struct Moved(pub(super) String);

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Moved {}

/// What a committed transaction did.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows added to production.
    pub rows: u64,
    /// Rows that the unique key had to decide.
    pub staged: u64,
    /// Of the staged, per gatherer, how many production had.
    pub staged_duplicates: Vec<u64>,
    /// Microseconds from the gatherer's clock to the commit, of the rows added.
    pub received_latencies: Vec<i64>,
    /// The same from the exchange's clock, where the table has it.
    pub exchange_latencies: Vec<i64>,
}

/// A row as the latencies need it.
#[derive(Debug, Clone, Copy)]
struct Times {
    clock: i64,
    exchange_ts: i64,
}

/// One connection to production for one log.
#[derive(Debug)]
pub struct Session {
    client: Client,
    known: Known,
}

/// What the session knows of production.
#[derive(Debug)]
struct Known {
    table: &'static Table,
    tenure: Tenure,
    gatherers: Arc<[String]>,
    statements: Statements,
    head: i64,
    time_max: i64,
    kept_from: i64,
    partitions: Ranges,
    alone: Alone,
    identity_seed: u64,
}

#[derive(Debug)]
struct Statements {
    copy: Statement,
    stage: Statement,
    known: Statement,
    insert: Statement,
    cursors: Statement,
    head: Statement,
    contributions: contributions::Statements,
}

const CURSORS_SQL: &str = "UPDATE sync_cursors c SET position = m.through, head = m.head, \
     lag_seconds = m.lag_micros / 1e6, past_retention = c.past_retention + m.past_retention, \
     synced_at = now() \
     FROM unnest($2::text[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
        $8::bigint[]) AS m (gatherer, log_id, after, through, head, lag_micros, past_retention) \
     WHERE c.gatherer = m.gatherer AND c.table_name = $1 AND c.log_id = m.log_id \
        AND c.position = m.after";

/// Moves only while no row of the batch, of which `$5` is the earliest time, is before what the
/// retention keeps. Whoever drops holds this row until it is decided, so that neither can overtake
/// the other.
const HEAD_SQL: &str = "UPDATE logs SET head = $3, time_max = greatest(time_max, $4) \
     WHERE name = $1 AND head = $2 AND (kept_from IS NULL OR kept_from <= $5)";

impl Session {
    /// Connects, prepares, and reads where the log stands.
    pub async fn open(
        table: &'static Table,
        target: &Target,
        tenure: Tenure,
        gatherers: Arc<[String]>,
    ) -> anyhow::Result<Self> {
        let options = Options {
            statement_timeout: Some(STATEMENT_TIMEOUT),
            idle_in_transaction_timeout: Some(IDLE_IN_TRANSACTION_TIMEOUT),
            ..Options::default()
        };
        let mut client = target.connect_with(options).await?;
        migrate::check(&client, Schema::Production).await?;
        client.batch_execute(SETTINGS).await.context("set up session")?;
        client.batch_execute(&table.create_stage_sql()).await.context("create stage")?;
        let prepare = |sql: String| {
            let client = &client;
            async move { client.prepare(&sql).await }
        };
        let (copy, stage, known, insert, cursors, head, contributions) = tokio::try_join!(
            prepare(table.copy_sql()),
            prepare(table.stage_sql()),
            prepare(table.known_sql()),
            prepare(table.insert_sql()),
            prepare(CURSORS_SQL.to_owned()),
            prepare(HEAD_SQL.to_owned()),
            contributions::Statements::prepare(&client),
        )
        .context("prepare statements")?;
        let statements = Statements { copy, stage, known, insert, cursors, head, contributions };

        let tx = client.transaction().await?;
        tenure.fence.check(&tx).await?;
        let sql = "SELECT head, time_max, log_id FROM logs WHERE name = $1";
        let row = tx.query_one(sql, &[&table.name()]).await.context("read head")?;
        let (head, time_max) = (row.try_get(0)?, row.try_get(1)?);
        let (high, low) = row.try_get::<_, Uuid>(2)?.as_u64_pair();
        let kept_from = partitions::kept_from(&tx, table).await?;
        let partitions = partitions::read(&tx, table).await?;
        let alone = Alone::read(&tx, table, gatherers.len()).await?;
        tx.commit().await?;
        let known = Known {
            table,
            tenure,
            gatherers,
            statements,
            head,
            time_max,
            kept_from,
            partitions,
            alone,
            identity_seed: high ^ low,
        };
        Ok(Self { client, known })
    }

    /// No row of the log in production has a later time.
    pub fn time_max(&self) -> i64 {
        self.known.time_max
    }

    /// Makes identities the same in every session with this production, and unforeseeable.
    pub fn identity_seed(&self) -> u64 {
        self.known.identity_seed
    }

    /// A batch for this session, empty.
    pub fn batch(&self) -> Batch {
        let Known { tenure, alone, kept_from, gatherers, .. } = &self.known;
        Batch::new(gatherers.len())
            .keeping(*kept_from)
            .counting(tenure.gatherer_ids.clone(), alone.clone())
    }

    /// Where to go on reading a gatherer's log; makes its cursor when the log is new.
    pub async fn position(&mut self, gatherer: usize, log_id: Uuid) -> anyhow::Result<i64> {
        let gatherer = self.known.gatherers.get(gatherer).context("find gatherer")?.clone();
        let table = self.known.table.name();
        let tx = self.client.transaction().await?;
        self.known.tenure.fence.check(&tx).await?;
        let sql = "SELECT log_id, position FROM sync_cursors \
                   WHERE gatherer = $1 AND table_name = $2";
        let mut others = 0_u32;
        let mut known = None;
        for row in tx.query(sql, &[&gatherer, &table]).await.context("read cursors")? {
            if row.try_get::<_, Uuid>(0)? == log_id {
                known = Some(row.try_get(1)?);
            } else {
                others += 1;
            }
        }
        if known.is_none() {
            let sql = "INSERT INTO sync_cursors (gatherer, table_name, log_id) VALUES ($1, $2, $3)";
            tx.execute(sql, &[&gatherer, &table, &log_id]).await.context("create cursor")?;
            if others > 0 {
                tracing::warn!(
                    table, %gatherer, %log_id,
                    "the gatherer has a new log: reading it from its beginning"
                );
            }
        }
        tx.commit().await?;
        Ok(known.unwrap_or_default())
    }

    /// Commits a batch. Rows at or above `floor` are known to be new and are written straight into
    /// the table; the unique key decides about the others.
    pub async fn write(&mut self, batch: &Batch, floor: Floor) -> anyhow::Result<Written> {
        let (direct, staged) = batch.split(self.known.table, floor);
        let mut known = HashSet::new();
        let mut written = Written {
            staged: length(staged.len()),
            staged_duplicates: vec![0; self.known.gatherers.len()],
            ..Written::default()
        };

        let rows_times = || batch.identities().map(|(time, _)| time);
        let missing = self.known.partitions.missing(rows_times());
        if !missing.is_empty() {
            let (fence, table) = (self.known.tenure.fence, self.known.table);
            self.known.partitions =
                partitions::make(&mut self.client, fence, table, &missing).await?;
        }
        let earliest = rows_times().min().unwrap_or(i64::MAX);
        let time_max = rows_times().max().unwrap_or(NO_TIME);

        let tx = self.client.transaction().await.context("begin")?;
        self.known.tenure.fence.check(&tx).await?;
        let mut head = self.known.head;
        if !direct.is_empty() {
            let encoder = Encoder::new(self.known.table, &self.known.tenure, &direct, head);
            let copied =
                send(&tx, &self.known.statements.copy, encoder).await.context("copy rows")?;
            ensure!(copied == length(direct.len()), "production took {copied} of the rows copied");
            head = head.saturating_add_unsigned(copied);
        }
        if !staged.is_empty() {
            let encoder = Encoder::new(self.known.table, &self.known.tenure, &staged, 0);
            send(&tx, &self.known.statements.stage, encoder).await.context("stage rows")?;
            let among = self.known.times_looked_at(earliest, time_max);
            let places = tx
                .query_raw(&self.known.statements.known, among)
                .await
                .context("find known rows")?;
            let mut places = std::pin::pin!(places);
            while let Some(row) = places.try_next().await.context("find known rows")? {
                let place = usize::try_from(row.try_get::<_, i64>(0)? - 1)?;
                let picked = staged.get(place).context("find row of the stage")?;
                known.insert(place);
                if let Some(count) = written.staged_duplicates.get_mut(picked.span.gatherer) {
                    *count += 1;
                }
            }
            let insert = &self.known.statements.insert;
            let inserted = tx.execute(insert, &[&head]).await.context("insert rows")?;
            let expected = length(staged.len() - known.len());
            ensure!(inserted == expected, "production took {inserted} of {expected} rows");
            head = head.saturating_add_unsigned(inserted);
        }
        let staged_rows = staged.iter().enumerate();
        let staged_rows = staged_rows.map(|(place, picked)| (picked, !known.contains(&place)));
        let rows: Vec<(&Picked<'_>, bool)> =
            direct.iter().map(|picked| (picked, true)).chain(staged_rows).collect();
        let ids = &self.known.tenure.gatherer_ids;
        let decided = rows.iter().map(|(picked, is_new)| Decided {
            gatherer: ids.get(picked.span.gatherer).copied().unwrap_or_default(),
            row: picked.row,
            is_shared: picked.is_shared,
            is_new: *is_new,
        });
        let (table, alone) = (self.known.table, &self.known.alone);
        let statements = &self.known.statements.contributions;
        // Sent together: a batch waits for as few answers as can be.
        tokio::try_join!(
            contributions::write(&tx, statements, table, alone, batch.tally(), decided),
            self.known.move_cursors(&tx, batch),
            self.known.move_head(&tx, head, time_max, earliest)
        )?;
        crash::point("dedup-before-commit");
        tx.commit().await.context("commit")?;
        crash::point("dedup-after-commit");

        self.known.head = head;
        self.known.time_max = self.known.time_max.max(time_max);
        let times: Vec<Times> = rows
            .iter()
            .filter(|(_, is_new)| *is_new)
            .map(|(picked, _)| Times::of(picked))
            .collect();
        written.rows = length(times.len());
        let now = Micros::now();
        written.received_latencies = times.iter().map(|t| now.since(Micros(t.clock))).collect();
        let known = times.iter().filter(|t| t.exchange_ts != NO_TIME);
        written.exchange_latencies = known.map(|t| now.since(Micros(t.exchange_ts))).collect();
        Ok(written)
    }
}

impl Known {
    /// Of a partitioned table the times from and to which copies of a batch's rows can be.
    fn times_looked_at(&self, earliest: i64, latest: i64) -> Vec<i64> {
        let tolerance = self.table.tolerance_micros;
        match self.table.partition_micros {
            Some(_) => vec![earliest.saturating_sub(tolerance), latest.saturating_add(tolerance)],
            None => Vec::new(),
        }
    }

    async fn move_cursors(&self, tx: &Transaction<'_>, batch: &Batch) -> anyhow::Result<()> {
        let (moves, now) = (batch.moves(), Micros::now());
        let names: Vec<&str> = moves
            .iter()
            .map(|m| self.gatherers.get(m.gatherer).map_or("", String::as_str))
            .collect();
        let ids: Vec<Uuid> = moves.iter().map(|m| m.log_id).collect();
        let afters: Vec<i64> = moves.iter().map(|m| m.after).collect();
        let throughs: Vec<i64> = moves.iter().map(|m| m.through).collect();
        let heads: Vec<i64> = moves.iter().map(|m| m.head).collect();
        let lag = |m: &Move| if m.clock == NO_TIME { 0 } else { now.since(Micros(m.clock)).max(0) };
        let lags: Vec<i64> = moves.iter().map(lag).collect();
        let past: Vec<i64> = moves.iter().map(|m| m.past_retention).collect();
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&self.table.name(), &names, &ids, &afters, &throughs, &heads, &lags, &past];
        let moved =
            tx.execute(&self.statements.cursors, &parameters).await.context("move cursors")?;
        if moved == length(moves.len()) {
            return Ok(());
        }
        let expected: Vec<String> = names
            .iter()
            .zip(moves)
            .map(|(name, m)| format!("{name} log {} at {}", m.log_id, m.after))
            .collect();
        Err(Moved(format!(
            "{moved} of {} cursors of {} are where they were left ({})",
            moves.len(),
            self.table.name(),
            expected.join(", ")
        ))
        .into())
    }

    async fn move_head(
        &self,
        tx: &Transaction<'_>,
        head: i64,
        time_max: i64,
        earliest: i64,
    ) -> anyhow::Result<()> {
        if head == self.head {
            return Ok(());
        }
        let name = self.table.name();
        // Where no time says what is kept, nothing is ever dropped.
        let earliest = if self.table.partition_micros.is_some() { earliest } else { i64::MAX };
        let parameters: [&(dyn ToSql + Sync); 5] = [&name, &self.head, &head, &time_max, &earliest];
        match tx.execute(&self.statements.head, &parameters).await.context("move head")? {
            1 => Ok(()),
            _ => Err(Moved(format!(
                "head of {name} is not where it was left, {}, or the retention has passed a row",
                self.head
            ))
            .into()),
        }
    }
}

impl Times {
    fn of(picked: &Picked<'_>) -> Self {
        Self { clock: picked.row.clock, exchange_ts: picked.row.exchange_ts }
    }
}

/// Turns rows into chunks of binary COPY: each gets its `log_seq` in front and the gatherer behind,
/// the rest is what the gatherer sent.
struct Encoder<'a> {
    rows: std::slice::Iter<'a, Picked<'a>>,
    gatherer_ids: &'a [i16],
    fields: i16,
    log_seq: i64,
    begun: bool,
    ended: bool,
}

impl<'a> Encoder<'a> {
    fn new(table: &Table, tenure: &'a Tenure, rows: &'a [Picked<'a>], head: i64) -> Self {
        Self {
            rows: rows.iter(),
            gatherer_ids: &tenure.gatherer_ids,
            fields: i16::try_from(table.body.len() + 2).unwrap_or(i16::MAX),
            log_seq: head,
            begun: false,
            ended: false,
        }
    }

    fn next_chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + 1024);
        if !self.begun {
            chunk.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
            self.begun = true;
        }
        while chunk.len() < CHUNK_BYTES {
            let Some(picked) = self.rows.next() else {
                chunk.extend_from_slice(&(-1_i16).to_be_bytes());
                self.ended = true;
                break;
            };
            let id =
                self.gatherer_ids.get(picked.span.gatherer).context("find gatherer's number")?;
            self.log_seq += 1;
            chunk.extend_from_slice(&self.fields.to_be_bytes());
            chunk.extend_from_slice(&8_i32.to_be_bytes());
            chunk.extend_from_slice(&self.log_seq.to_be_bytes());
            chunk.extend_from_slice(picked.span.body(picked.row));
            chunk.extend_from_slice(&2_i32.to_be_bytes());
            chunk.extend_from_slice(&id.to_be_bytes());
        }
        Ok(Some(Bytes::from(chunk)))
    }
}

async fn send(
    tx: &Transaction<'_>,
    statement: &Statement,
    mut encoder: Encoder<'_>,
) -> anyhow::Result<u64> {
    let sink = tx.copy_in::<_, Bytes>(statement).await?;
    let mut sink = std::pin::pin!(sink);
    while let Some(chunk) = encoder.next_chunk()? {
        sink.feed(chunk).await?;
    }
    crash::point("dedup-within-insert");
    Ok(sink.as_mut().finish().await?)
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
