//! The appender of one log: takes chunks in order, commits them in batches, and never loses or
//! doubles one.
//!
//! A batch is one transaction: the fence, the head's compare-and-set together with the journal
//! position, and the rows. When the connection dies the batch is kept, and the head tells on the
//! next one whether it was committed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use postgres_types::ToSql;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::chunk::Chunk;
use super::journal::Position;
use super::parts;
use crate::model::{Log, Micros};
use crate::ops::backoff::Backoff;
use crate::ops::crash;
use crate::pg::writer::Fence;
use crate::pg::{self, Class, Options, Target};

/// Rows of one transaction. Two seconds of the busiest day's average.
const BATCH_ROWS_MAX: i64 = 65_536;
/// Bytes of one transaction, as far as its first chunk is not larger.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Commits of one log begin at least this far apart: what a commit costs hardly depends on its rows,
/// and on a machine that has no more time to give, many small ones would delay each other. It bounds
/// what batching adds to the latency.
const COMMIT_INTERVAL: Duration = Duration::from_millis(40);
/// The same after a batch of fewer than [`ROWS_FEW`], so that six logs at a low rate do not cost as much
/// as busy ones. A row that comes after a longer pause is still committed at once.
const COMMIT_INTERVAL_FEW: Duration = Duration::from_millis(80);
const ROWS_FEW: i64 = 100;
/// Chunks that wait already: with as many the decoder is about to wait too, and a batch of them is
/// worth a commit at once.
const CHUNKS_MANY: usize = 7;
/// A batch that takes longer than this is given up and tried again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a server that does not even refuse, with the time to connect.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);
/// How long a stopping process lets a batch that is under way go on. A database that hangs must not
/// keep it until its deadline: the journal has the rows.
const STOP_ATTEMPT_MAX: Duration = Duration::from_secs(8);

const MOVE_HEAD: &str = "UPDATE logs SET head = $2, journal_id = $3, journal_position = $4 \
     WHERE name = $1 AND head = $5";

/// What an appender tells others.
pub trait Observer: Send + Sync + 'static {
    /// A batch is durable.
    fn committed(&self, log: Log, rows: i64, position: Position, oldest: Option<Micros>);
    /// A batch took this long from BEGIN to the commit's acknowledgement.
    fn batch_seconds(&self, log: Log, seconds: f64);
    /// The database does not take batches, or does again.
    fn available(&self, log: Log, available: bool);
}

/// What an appender needs to know.
pub struct Appender {
    pub log: Log,
    pub target: Target,
    pub journal: Uuid,
    /// The statement that takes a chunk's rows.
    pub copy: String,
    /// The right to write; none while it is being taken again.
    pub fence: watch::Receiver<Option<Fence>>,
    pub observer: Arc<dyn Observer>,
    /// The right that the last attempt used.
    pub used: Option<Fence>,
    /// Stopping: a batch that fails is left to the journal instead of being tried again.
    pub stopping: CancellationToken,
}

/// A session and what it has prepared: a batch should not wait for its statements to be parsed.
struct Session {
    client: Client,
    move_head: Statement,
    copy: Statement,
    /// The first `log_seq` that has no part to go to; none where every one has.
    room: Option<i64>,
}

impl Session {
    /// `next` is the `log_seq` of the row to come.
    async fn open(target: &Target, log: Log, copy: &str, next: i64) -> Result<Self> {
        let options = Options { statement_timeout: Some(STATEMENT_TIMEOUT), ..Options::default() };
        let client = target.connect_with(options).await?;
        let (move_head, copy) = tokio::try_join!(client.prepare(MOVE_HEAD), client.prepare(copy))
            .context("prepare statements")?;
        let room = parts::room(&client, log, next).await?;
        Ok(Self { client, move_head, copy, room })
    }
}

impl Appender {
    /// Appends until the chunks end. Every error that time can heal is retried with the same
    /// batch; any other ends the process.
    ///
    /// # Errors
    /// When the database refuses a batch for good, or another writer took over.
    pub async fn run(mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<()> {
        let log = self.log;
        let mut session = None;
        let mut next_at = Instant::now();
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(chunk) => chunk,
                None => match chunks.recv().await {
                    Some(chunk) => chunk,
                    None => return Ok(()),
                },
            };
            if chunks.len() < CHUNKS_MANY {
                tokio::time::sleep_until(next_at).await;
            }
            let begun_at = Instant::now();
            let mut batch = vec![first];
            let mut rows: i64 = batch.iter().map(|chunk| chunk.rows).sum();
            let mut bytes = batch.iter().map(|chunk| chunk.copy.len()).sum::<usize>();
            while let Ok(chunk) = chunks.try_recv() {
                bytes += chunk.copy.len();
                if rows + chunk.rows > BATCH_ROWS_MAX || bytes > BATCH_BYTES_MAX {
                    carried = Some(chunk);
                    break;
                }
                rows += chunk.rows;
                batch.push(chunk);
            }
            let few = rows < ROWS_FEW;
            next_at = begun_at + if few { COMMIT_INTERVAL_FEW } else { COMMIT_INTERVAL };
            if !self.commit_retrying(&mut session, &batch).await? {
                info!(%log, "database is away: the rest stays in the journal");
                return Ok(());
            }
        }
    }

    /// Commits a batch, however long the database is away. False when stopping cut that short.
    async fn commit_retrying(
        &mut self,
        session: &mut Option<Session>,
        batch: &[Chunk],
    ) -> Result<bool> {
        let log = self.log;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut down_since = None;
        loop {
            if self.fence.borrow().is_none() && down_since.is_none() {
                // The lock's task noticed first that the database is away.
                down_since = Some(Instant::now());
                self.observer.available(log, false);
            }
            let stopping = self.stopping.clone();
            let fence = self.fence.clone();
            let (attempt, silent) = tokio::select! {
                // A batch under way may finish while the process stops.
                biased;
                result = self.commit_once(session, batch) => (result, false),
                why = silence(fence) => (Err(anyhow!(why)), true),
                () = stopping_too_long(&stopping, down_since.is_some()) => return Ok(false),
            };
            let Err(error) = attempt else {
                if let Some(since) = down_since {
                    let seconds = Instant::now().duration_since(since).as_secs_f64();
                    info!(%log, seconds, "database takes batches again");
                    self.observer.available(log, true);
                }
                return Ok(true);
            };
            *session = None;
            match pg::error::classify_chain(&error) {
                _ if silent => {}
                Class::Retry | Class::Auth => {}
                // Our own task took the lock again meanwhile: that is no successor.
                Class::Held if *self.fence.borrow() != self.used => {}
                Class::Held => {
                    let message = format!("{error:#}");
                    return Err(crate::ops::exit::HeldError(message).into());
                }
                Class::Duplicate | Class::Fatal => {
                    return Err(error).with_context(|| format!("append to {log}"));
                }
            }
            if down_since.is_none() {
                warn!(%log, error = format!("{error:#}"), "batch waits for the database");
                down_since = Some(Instant::now());
                self.observer.available(log, false);
            }
            if self.stopping.is_cancelled() {
                return Ok(false);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    async fn commit_once(&mut self, session: &mut Option<Session>, batch: &[Chunk]) -> Result<()> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let fence =
            *self.fence.wait_for(Option::is_some).await.context("wait for the writer lock")?;
        let Some(fence) = fence else { bail!("the writer lock's task ended") };
        self.used = Some(fence);
        let fresh = session.is_none();
        let (head, last_seq) = (first.first_seq - 1, last.last_seq());
        let session = match session {
            Some(session) => session,
            None => {
                let opened = Session::open(&self.target, self.log, &self.copy, head + 1).await?;
                session.insert(opened)
            }
        };
        if fresh && last_seq > head {
            // The outcome of the commit before may be unknown: the head tells.
            // Locked, so that a commit still under way on the old session is waited for.
            let sql = "SELECT head FROM logs WHERE name = $1 FOR UPDATE";
            let now: i64 = session.client.query_one(sql, &[&self.log.name()]).await?.try_get(0)?;
            if now == last_seq {
                self.report(batch, last);
                return Ok(());
            }
        }
        if session.room.is_some_and(|missing| missing <= last_seq) {
            // Made ahead in time, as a rule: so for this once over a session of its own.
            let mut owner = parts::owner_session(&self.target).await?;
            let made = parts::make(&mut owner, fence, self.log, head + 1, last_seq).await;
            session.room = made.with_context(|| format!("make room in {}", self.log))?;
        }
        let Session { client, move_head, copy, .. } = session;
        let began = Instant::now();
        let tx = client.transaction().await.context("begin batch")?;
        let (name, position) = (self.log.name(), last.position.as_i64());
        // Sent together; the commit waits for both answers.
        let params: [&(dyn ToSql + Sync); 5] = [&name, &last_seq, &self.journal, &position, &head];
        let (checked, moved) = tokio::join!(fence.check(&tx), tx.execute(&*move_head, &params));
        checked.context("check fence")?;
        let moved = moved.context("move head")?;
        if moved != 1 {
            bail!(
                "the head of {} is not {head}, where this process left it: the log was changed by \
                 somebody else or restored; start again to continue from the database",
                self.log
            );
        }
        for chunk in batch.iter().filter(|chunk| chunk.rows > 0) {
            let taken = pg::copy::copy_in(&tx, &*copy, chunk.copy.clone());
            let taken = taken.await.with_context(|| format!("copy rows of {}", self.log))?;
            assert!(i64::try_from(taken) == Ok(chunk.rows), "the server took every row");
        }
        for effect in batch.iter().flat_map(|chunk| &chunk.effects) {
            let params: Vec<&(dyn ToSql + Sync)> =
                effect.params.iter().map(|param| param.as_ref() as _).collect();
            tx.execute(effect.sql, &params).await.context("keep open stretches")?;
        }
        tx.commit().await.context("commit batch")?;
        crash::point("append-after-commit");
        self.observer.batch_seconds(self.log, began.elapsed().as_secs_f64());
        self.report(batch, last);
        Ok(())
    }

    fn report(&self, batch: &[Chunk], last: &Chunk) {
        let rows = batch.iter().map(|chunk| chunk.rows).sum();
        let oldest = batch.iter().filter_map(|chunk| chunk.oldest).min();
        self.observer.committed(self.log, rows, last.position, oldest);
    }
}

/// Ends when an attempt is hopeless although its session says nothing: the lock's session, which is
/// asked every second, does not answer either, or the time is up. Says which.
async fn silence(mut fence: watch::Receiver<Option<Fence>>) -> &'static str {
    let lost = async {
        // An attempt waits for the right itself; what counts is that it goes away again. A sender
        // that is gone is told by the attempt.
        let had = fence.wait_for(Option::is_some).await.is_ok();
        if !had || fence.wait_for(Option::is_none).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = lost => "the writer lock's session was lost",
        () = tokio::time::sleep(ATTEMPT_MAX) => "the database does not answer",
    }
}

/// Ends when the process stops: at once if the database was away already, else when a batch under
/// way had its time.
async fn stopping_too_long(stopping: &CancellationToken, was_away: bool) {
    stopping.cancelled().await;
    if !was_away {
        tokio::time::sleep(STOP_ATTEMPT_MAX).await;
    }
}
