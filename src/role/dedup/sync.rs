//! The task of one log: takes spans from the readers of all gatherers, merges, commits, repeats.
//!
//! While one batch is being committed the next is merged; there is never more than one in either
//! state. A session with production lives until its first error. Then everything it knew is thrown
//! away, also what was merged and not committed, and the next session reads head and cursors anew.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::merge::Batch;
use super::metrics::{Metrics, OfLog, OfTable};
use super::production::Tenure;
use super::progress::Progress;
use super::reader::{Event, Resume, What};
use super::recent::Recent;
use super::table::Table;
use super::write::{Moved, Session, Written};
use crate::model::Micros;
use crate::ops::backoff::Backoff;
use crate::ops::exit::{HeldError, UsageError, chain};
use crate::pg::migrate::VersionError;
use crate::pg::writer::FenceError;
use crate::pg::{Class, Target, error};

/// A batch takes no further span from here on: its transaction should take well under a second.
const BATCH_ROWS_MAX: usize = 60_000;
/// The same for the memory of its spans.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Rows of a batch that is tried again after it took too long, at least.
const ROWS_MIN: i64 = 500;
/// Transactions of one log begin at least this far apart: gatherers commit one after the other, and
/// each of a handful of rows would cost as much as one of all of them.
const COMMIT_INTERVAL: Duration = Duration::from_millis(40);
/// The same after a transaction of fewer rows than [`ROWS_FEW`].
const COMMIT_INTERVAL_FEW: Duration = Duration::from_millis(80);
const ROWS_FEW: usize = 100;
/// Rows that are worth a transaction at once.
const ROWS_MANY: usize = 5_000;
/// How long cursors wait for rows to move with. Duplicates are most of what is read, and a
/// transaction for each handful would cost more than theirs.
const CURSORS_LINGER: Duration = Duration::from_millis(100);
/// How long a transaction may go on after the request to stop; then it is rolled back.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Refusals by the unique key in a row, after which something writes that should not.
const CONFLICTS_MAX: u32 = 5;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(5);

/// The task of one log.
#[derive(Debug)]
pub struct Sync {
    pub table: &'static Table,
    pub target: Target,
    /// What this process calls itself in the writer's lock.
    pub holder: String,
    pub gatherers: Arc<[String]>,
    pub tenure: watch::Receiver<Option<Tenure>>,
    /// One for each gatherer's reader.
    pub resumes: Vec<watch::Sender<Resume>>,
    pub events: mpsc::Receiver<Event>,
    pub progress: Arc<Progress>,
    pub metrics: Metrics,
    /// Dropped when the task ends: the lock is kept until then.
    #[expect(dead_code, reason = "only its end means something")]
    pub alive: mpsc::Sender<()>,
}

/// What outlives a session.
#[derive(Debug)]
struct State {
    epoch: u64,
    /// That of the session.
    identity_seed: u64,
    serial: u64,
    /// Rows of a span, at most; fewer after a transaction that took too long.
    rows_max: i64,
    /// Refusals by the unique key since the last commit. While there are any, nothing counts as
    /// proven new.
    conflicts: u32,
    started: bool,
    backoff: Backoff,
}

/// What an error of a session with production asks for.
pub(super) enum Verdict {
    Retry,
    /// The server cancelled a statement.
    TooSlow,
    /// The unique key refused a row.
    Conflict,
    Ends(anyhow::Error),
}

type Writing = Pin<Box<dyn Future<Output = (Session, anyhow::Result<Written>)> + Send>>;

/// A batch on its way.
struct Committing {
    batch: Arc<Batch>,
    since: Instant,
    writing: Writing,
}

/// When a batch of which the first span came at `since` is to be written, where another may not before
/// `next`.
fn due_at(ready: &Batch, since: Instant, next: Instant) -> Instant {
    match ready.rows() {
        0 => since + CURSORS_LINGER,
        rows if rows < ROWS_MANY => next,
        _ => since,
    }
}

impl Sync {
    /// Ends with `Ok` when asked to stop, after the running transaction; with an error that waiting
    /// does not cure.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut state = State {
            epoch: 0,
            identity_seed: 0,
            serial: 0,
            rows_max: self.table.span_rows_max,
            conflicts: 0,
            started: false,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
        };
        loop {
            let tenure = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                tenure = next_tenure(&mut self.tenure) => tenure,
            };
            let Some(tenure) = tenure else { return Ok(()) };
            let ended = self.session(tenure, &mut state, &stop).await;
            self.progress.set_syncing(self.table.index(), false);
            let Err(error) = ended else { return Ok(()) };
            match self.judge(error, &mut state) {
                Some(fatal) => return Err(fatal),
                None => tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = state.backoff.wait() => {}
                },
            }
        }
    }

    /// One session with production, until it fails or the request to stop.
    async fn session(
        &mut self,
        tenure: Tenure,
        state: &mut State,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let session = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = Session::open(self.table, &self.target, tenure, self.gatherers.clone()) => opened?,
        };
        state.identity_seed = session.identity_seed();
        self.began(state);
        let empty = session.batch();
        let mut recent = Recent::new(
            if state.conflicts > 0 { i64::MAX } else { session.time_max() },
            self.table.recent_cost_max,
        );
        let mut idle = Some(session);
        let mut committing: Option<Committing> = None;
        let mut ready = empty.clone();
        let mut ready_since = Instant::now();
        let mut next_at = ready_since;
        let mut new_logs: Vec<(usize, Uuid)> = Vec::new();
        loop {
            if let Some(mut session) = idle.take() {
                for (gatherer, log_id) in new_logs.drain(..) {
                    self.begin_log(&mut session, gatherer, log_id, state).await?;
                }
                if !ready.is_empty() && due_at(&ready, ready_since, next_at) <= Instant::now() {
                    let few = ready.rows() < ROWS_FEW;
                    next_at =
                        Instant::now() + if few { COMMIT_INTERVAL_FEW } else { COMMIT_INTERVAL };
                    let batch = Arc::new(std::mem::replace(&mut ready, empty.clone()));
                    committing = Some(Committing::start(session, batch, &recent));
                } else {
                    idle = Some(session);
                }
            }
            let room = ready.rows() < self.rows_max(state) && ready.bytes() < BATCH_BYTES_MAX;
            let lingering = idle.is_some() && !ready.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                (session, result) = finish(&mut committing) => {
                    let Some(done) = committing.take() else { continue };
                    let written = result?;
                    recent.remember(done.batch.identities());
                    self.committed(&done, &written, state);
                    if state.conflicts > 0 {
                        // What was refused is settled; from here on proofs count again.
                        state.conflicts = 0;
                        recent = Recent::new(session.time_max(), self.table.recent_cost_max);
                    }
                    idle = Some(session);
                }
                event = self.events.recv(), if room => {
                    let Some(event) = event else { break };
                    if event.epoch != state.epoch {
                        continue;
                    }
                    match event.what {
                        What::Log(log_id) => new_logs.push((event.gatherer, log_id)),
                        What::Span(span) => {
                            if ready.is_empty() {
                                ready_since = Instant::now();
                            }
                            let before = committing.as_ref().map(|committing| &*committing.batch);
                            ready.absorb(self.table, &recent, before, span);
                        }
                    }
                }
                () = sleep_until(due_at(&ready, ready_since, next_at)), if lingering => {}
            }
        }
        if let Some(Committing { batch, since, writing }) = committing
            && let Ok((_, result)) = timeout(STOP_PATIENCE, writing).await
        {
            // A failure only means that the batch is read again by whoever comes next.
            if let Ok(written) = result {
                let writing: Writing = Box::pin(std::future::pending());
                self.committed(&Committing { batch, since, writing }, &written, state);
            }
        }
        Ok(())
    }

    /// Rows from which on a batch takes no further span.
    fn rows_max(&self, state: &State) -> usize {
        let of_each = usize::try_from(state.rows_max).unwrap_or(BATCH_ROWS_MAX);
        of_each.saturating_mul(self.gatherers.len()).min(BATCH_ROWS_MAX)
    }

    /// Lets spans grow again after one that was committed in time.
    fn take_more(&self, state: &mut State) {
        if state.rows_max == self.table.span_rows_max {
            return;
        }
        state.rows_max = state.rows_max.saturating_mul(2).min(self.table.span_rows_max);
        for resume in &self.resumes {
            // Seen at the next read; nobody has to wake up for it.
            resume.send_if_modified(|resume| {
                resume.rows_max = state.rows_max;
                false
            });
        }
    }

    fn began(&self, state: &mut State) {
        let table = self.table.name();
        if state.started {
            tracing::info!(table, "sync resumed for {table}");
        } else {
            tracing::info!(table, "sync started for {table}");
            state.started = true;
        }
        state.epoch += 1;
        for resume in &self.resumes {
            state.serial += 1;
            let (epoch, serial, seed) = (state.epoch, state.serial, state.identity_seed);
            let rows_max = state.rows_max;
            resume.send_replace(Resume { epoch, serial, seed, cursor: None, rows_max });
        }
        self.progress.set_syncing(self.table.index(), true);
    }

    /// Gives a reader the cursor of the log that it found.
    async fn begin_log(
        &self,
        session: &mut Session,
        gatherer: usize,
        log_id: Uuid,
        state: &mut State,
    ) -> anyhow::Result<()> {
        let position = session.position(gatherer, log_id).await?;
        self.progress.found(self.table.index(), gatherer, log_id, position, Micros::now());
        state.serial += 1;
        if let Some(resume) = self.resumes.get(gatherer) {
            resume.send_replace(Resume {
                epoch: state.epoch,
                serial: state.serial,
                seed: state.identity_seed,
                cursor: Some((log_id, position)),
                rows_max: state.rows_max,
            });
        }
        Ok(())
    }

    fn committed(&self, done: &Committing, written: &Written, state: &mut State) {
        state.backoff.reset();
        self.take_more(state);
        let (table, now) = (OfTable { table: self.table.name() }, Micros::now());
        let metrics = &self.metrics;
        for moved in done.batch.moves() {
            self.progress.moved(self.table.index(), moved, now);
        }
        let staged_duplicates = written.staged_duplicates.iter().copied();
        let staged_duplicates = staged_duplicates.chain(std::iter::repeat(0));
        let counts = done.batch.counts().iter().zip(staged_duplicates);
        for (gatherer, (counts, staged_duplicates)) in self.gatherers.iter().zip(counts) {
            let log = OfLog { gatherer: gatherer.clone(), table: self.table.name() };
            metrics.records_read.get_or_create_owned(&log).inc_by(counts.read);
            let skipped = counts.skipped + staged_duplicates;
            metrics.duplicates_skipped.get_or_create_owned(&log).inc_by(skipped);
            let past = metrics.past_retention.get_or_create_owned(&log);
            if past.inc_by(counts.past_retention) == 0 && counts.past_retention > 0 {
                let (table, rows) = (self.table.name(), counts.past_retention);
                tracing::warn!(
                    table, %gatherer, rows,
                    "rows came after the retention had dropped their time: counting, not writing them"
                );
            }
        }
        self.say_dropped(done);
        metrics.records_written.get_or_create_owned(&table).inc_by(written.rows);
        metrics.staged_rows.get_or_create_owned(&table).inc_by(written.staged);
        metrics.batches.get_or_create_owned(&table).inc();
        let seconds = done.since.elapsed().as_secs_f64();
        metrics.batch_seconds.get_or_create_owned(&table).observe(seconds);
        let received = written.received_latencies.iter().copied();
        metrics.received_to_production.get_or_create_owned(&table).observe(received);
        if self.table.exchange_ts.is_some() {
            let exchange = written.exchange_latencies.iter().copied();
            metrics.exchange_to_production.get_or_create_owned(&table).observe(exchange);
        }
    }

    /// Rows that a gatherer's retention dropped before anybody read them are nowhere but with other
    /// gatherers: that is said each time.
    fn say_dropped(&self, done: &Committing) {
        let table = self.table.name();
        for (gatherer, counts) in self.gatherers.iter().zip(done.batch.counts()) {
            let (log, rows) = (OfLog { gatherer: gatherer.clone(), table }, counts.dropped);
            self.metrics.dropped_unread.get_or_create_owned(&log).inc_by(rows);
            if rows > 0 {
                tracing::warn!(
                    table, %gatherer, rows,
                    "{gatherer} dropped {rows} rows of {table} before they were read: going on behind \
                     them"
                );
            }
        }
    }

    /// Logs what ended a session; the error when the role has to end with it.
    fn judge(&self, error: anyhow::Error, state: &mut State) -> Option<anyhow::Error> {
        let table = self.table.name();
        let label = OfTable { table };
        self.metrics.retries.get_or_create_owned(&label).inc();
        let text = chain(&error);
        match verdict(error, &self.holder) {
            Verdict::Ends(error) => return Some(error),
            Verdict::Retry => {
                tracing::warn!(table, error = text, "sync of {table} interrupted, retrying");
            }
            Verdict::TooSlow => {
                state.rows_max = (state.rows_max / 2).max(ROWS_MIN);
                let rows_max = state.rows_max;
                tracing::warn!(table, error = text, rows_max, "batch took too long, taking less");
            }
            Verdict::Conflict => {
                state.conflicts += 1;
                self.metrics.conflicts.get_or_create_owned(&label).inc();
                if state.conflicts > CONFLICTS_MAX {
                    let error = anyhow::anyhow!(text);
                    return Some(error.context(format!("write {table}: refused again and again")));
                }
                tracing::warn!(
                    table,
                    error = text,
                    "batch refused, repeating it through the stage"
                );
            }
        }
        None
    }
}

impl Committing {
    fn start(mut session: Session, batch: Arc<Batch>, recent: &Recent) -> Self {
        let floor = recent.floor();
        let rows = batch.clone();
        let writing = Box::pin(async move {
            let result = session.write(&rows, floor).await;
            (session, result)
        });
        Self { batch, since: Instant::now(), writing }
    }
}

/// The outcome of the batch on its way; waits for ever when there is none.
async fn finish(committing: &mut Option<Committing>) -> (Session, anyhow::Result<Written>) {
    match committing {
        Some(committing) => (&mut committing.writing).await,
        None => std::future::pending().await,
    }
}

/// The right to write, as soon as there is one; none when the task that keeps it has ended.
async fn next_tenure(tenure: &mut watch::Receiver<Option<Tenure>>) -> Option<Tenure> {
    let tenure = tenure.wait_for(Option::is_some).await.ok()?;
    tenure.clone()
}

pub(super) fn verdict(error: anyhow::Error, holder: &str) -> Verdict {
    if error.downcast_ref::<Moved>().is_some() || lacks_partition(&error) {
        return Verdict::Retry;
    }
    if let Some(FenceError::Lost { holder: now, .. }) = error.downcast_ref() {
        // Our own process has taken the lock anew, or the database was made anew and nobody has:
        // the next session is under another tenure.
        if now == holder || now.is_empty() {
            return Verdict::Retry;
        }
        let text = chain(&error);
        return Verdict::Ends(error.context(HeldError(text)));
    }
    if let Some(version) = error.downcast_ref::<VersionError>()
        && version.is_for_good()
    {
        let text = version.to_string();
        return Verdict::Ends(error.context(UsageError(text)));
    }
    let class = match error.downcast_ref::<VersionError>() {
        Some(version) => version.class(),
        None => error::classify_chain(&error),
    };
    match class {
        Class::Retry if is_cancelled(&error) => Verdict::TooSlow,
        Class::Retry | Class::Auth => Verdict::Retry,
        Class::Duplicate => Verdict::Conflict,
        // Whatever keeps us from connecting may pass.
        _ if error.downcast_ref::<crate::pg::ConnectError>().is_some() => Verdict::Retry,
        Class::Held | Class::Fatal => Verdict::Ends(error),
    }
}

/// The partition was dropped after the session had seen it; the next one sees what is there now.
fn lacks_partition(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::code)
        .is_some_and(|code| *code == tokio_postgres::error::SqlState::CHECK_VIOLATION)
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::code)
        .is_some_and(|code| *code == tokio_postgres::error::SqlState::QUERY_CANCELED)
}
