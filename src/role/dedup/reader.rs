//! Reads one log of one gatherer, ahead of what is committed, and hands spans to the log's task.
//!
//! A reader holds at most one span; it waits until the log's task takes it. It is told where to begin
//! by a [`Resume`]; a newer one makes it throw away what it holds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::gatherer::{Heads, LogHead};
use super::metrics::{Metrics, OfLog};
use super::progress::Progress;
use super::span::{self, Request, Span, SpanError, identity_seed};
use super::table::Table;
use crate::ops::backoff::Backoff;
use crate::ops::crash;
use crate::pg::{ConnectError, Options, Target, describe};

/// The server cancels a read that takes longer; the next one asks for fewer rows.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that does not even cancel is given up on after this.
const SILENT_TIMEOUT: Duration = Duration::from_secs(7);
/// Memory that a span should take; rows are asked for accordingly.
const SPAN_BYTES_AIM: usize = 8 * 1024 * 1024;
/// Memory at which a span is ended whatever was asked for.
const SPAN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A read never asks for fewer rows (unless there are fewer).
const SPAN_ROWS_MIN: i64 = 50;
/// Pause before a log that broke a law is looked at again.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Pause for the poll of heads to show what a read has found.
const HEADS_PAUSE: Duration = Duration::from_millis(200);
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(5);

/// A read is a walk along the primary key, whatever the statistics say: a log that has just grown
/// from nothing would be sorted instead. Compiling a plan takes longer than such a read.
const SETTINGS: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; \
     SET enable_sort = off; SET max_parallel_workers_per_gather = 0; SET jit = off";

/// Where to read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resume {
    /// The session with production that asks; 0 while there is none.
    pub epoch: u64,
    /// Grows with each resume.
    pub serial: u64,
    /// Of the identities of rows; see [`identity_seed`].
    pub seed: u64,
    /// The log, and the last `log_seq` of it that is in production; none until the log is known.
    pub cursor: Option<(Uuid, i64)>,
    /// Rows of one span, at most.
    pub rows_max: i64,
}

/// What a reader tells the log's task.
#[derive(Debug)]
pub struct Event {
    /// That of the resume it follows.
    pub epoch: u64,
    pub gatherer: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// The gatherer shows a log to which no cursor was given yet.
    Log(Uuid),
    Span(Span),
}

/// The task of one log of one gatherer.
#[derive(Debug)]
pub struct Reader {
    pub table: &'static Table,
    /// The gatherer's place in the configuration.
    pub gatherer: usize,
    pub name: String,
    pub target: Target,
    pub heads: watch::Receiver<Heads>,
    pub resume: watch::Receiver<Resume>,
    pub events: mpsc::Sender<Event>,
    pub progress: Arc<Progress>,
    pub metrics: Metrics,
}

/// What to do next.
enum Step {
    Wait,
    Announce(Uuid),
    Read(Request),
    /// These rows are gone.
    Skip(Request),
    Refuse(String),
}

/// Why a span was not read.
#[derive(Debug)]
enum ReadError {
    Connect(ConnectError),
    Pg(tokio_postgres::Error),
    Silent,
    Span(SpanError),
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Pg(error)
    }
}

impl Reader {
    /// Ends when asked to stop, at any point: a reader has nothing to finish.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
        Ok(())
    }

    /// Ends when the log's task has ended.
    async fn follow(mut self) {
        let mut resume = Resume::default();
        // The last row handed over, of the log in the resume.
        let mut position = 0;
        let mut announced = None;
        let mut said = None;
        let mut rows = self.table.span_rows_max;
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        let mut client = None;
        loop {
            let asked = *self.resume.borrow_and_update();
            if asked.serial != resume.serial {
                resume = asked;
                position = resume.cursor.map_or(0, |(_, position)| position);
                announced = None;
            }
            let head = self.heads.borrow_and_update().readable(self.table.index());
            if head.is_none() {
                client = None;
            }
            let rows_now = rows.min(asked.rows_max.max(SPAN_ROWS_MIN));
            match self.step(&resume, position, head, rows_now) {
                Step::Announce(log_id) if announced != Some(log_id) => {
                    let event = self.event(resume.epoch, What::Log(log_id));
                    if self.hand_over(event).await {
                        announced = Some(log_id);
                    }
                }
                Step::Wait | Step::Announce(_) => {
                    if head.is_some() && announced.is_none() {
                        self.accept();
                    }
                    if !self.changed().await {
                        return;
                    }
                }
                Step::Refuse(reason) => {
                    self.refuse(&reason);
                    if !self.changed().await {
                        return;
                    }
                }
                Step::Skip(request) => {
                    let (through, span) = (request.through, Span::dropped(request));
                    if self.hand_over(self.event(resume.epoch, What::Span(span))).await {
                        position = through;
                    }
                }
                Step::Read(request) => match self.read(&mut client, request).await {
                    Ok(span) => {
                        crash::point("dedup-after-read");
                        self.accept();
                        backoff.reset();
                        said = None;
                        rows = next_rows(rows, &span, self.table.span_rows_max);
                        let through = span.through;
                        if self.hand_over(self.event(resume.epoch, What::Span(span))).await {
                            position = through;
                        }
                    }
                    Err(ReadError::Span(error)) => {
                        let pause = self.judge(client.as_ref(), &request, &error).await;
                        self.pause(pause).await;
                    }
                    Err(error) => {
                        client = None;
                        rows = (rows / 2).max(SPAN_ROWS_MIN);
                        self.log_failure(&request, error, &mut said);
                        self.pause(backoff.next_delay()).await;
                    }
                },
            }
            if self.events.is_closed() {
                return;
            }
        }
    }

    fn step(&self, resume: &Resume, after: i64, head: Option<LogHead>, rows: i64) -> Step {
        let Some(LogHead { log_id, head, kept_from }) = head else { return Step::Wait };
        if resume.epoch == 0 {
            return Step::Wait;
        }
        match resume.cursor {
            Some((known, _)) if known == log_id => {
                if head < after {
                    return Step::Refuse(format!(
                        "the log ends at {head}, before our cursor at {after}: the database was put \
                         back to an earlier state. To have the log read from its beginning, give it \
                         a new log_id in the gatherer's table logs"
                    ));
                }
                if head == after {
                    return Step::Wait;
                }
                let request = Request {
                    gatherer: self.gatherer,
                    log_id,
                    after,
                    through: head.min(after.saturating_add(rows)),
                    head,
                    seed: identity_seed(self.table, resume.seed, self.gatherer),
                };
                let dropped = head.min(kept_from.saturating_sub(1));
                if dropped > after {
                    return Step::Skip(Request { through: dropped, ..request });
                }
                Step::Read(request)
            }
            _ => Step::Announce(log_id),
        }
    }

    fn event(&self, epoch: u64, what: What) -> Event {
        Event { epoch, gatherer: self.gatherer, what }
    }

    /// Waits for the log's task to take it; false when a newer resume made it void.
    async fn hand_over(&mut self, event: Event) -> bool {
        tokio::select! {
            sent = self.events.send(event) => sent.is_ok(),
            _ = self.resume.changed() => false,
        }
    }

    /// Waits for another head or resume; false when one of their tasks has ended.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            polled = self.heads.changed() => polled.is_ok(),
            resumed = self.resume.changed() => resumed.is_ok(),
        }
    }

    /// Waits, but not past a new resume.
    async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.resume.changed() => {}
        }
    }

    async fn read(&self, client: &mut Option<Client>, request: Request) -> Result<Span, ReadError> {
        crash::point("dedup-before-read");
        let reading = async {
            let client = match client {
                Some(client) => client,
                None => client.insert(self.connect().await?),
            };
            read(self.table, client, request).await
        };
        timeout(SILENT_TIMEOUT, reading).await.unwrap_or(Err(ReadError::Silent))
    }

    async fn connect(&self) -> Result<Client, ReadError> {
        let options = Options {
            statement_timeout: Some(READ_TIMEOUT),
            read_only: true,
            ..Options::default()
        };
        let client = self.target.connect_with(options).await.map_err(ReadError::Connect)?;
        client.batch_execute(SETTINGS).await?;
        Ok(client)
    }

    /// Rows that are not what they should be: was the log replaced or put back since its head was
    /// polled, or is a law broken? Gives the pause before the next look.
    async fn judge(
        &self,
        client: Option<&Client>,
        request: &Request,
        error: &SpanError,
    ) -> Duration {
        let Some(client) = client else { return HEADS_PAUSE };
        let sql = "SELECT log_id, head, kept_from FROM logs WHERE name = $1";
        let now = timeout(READ_TIMEOUT, client.query_opt(sql, &[&self.table.name()])).await;
        let Ok(Ok(Some(row))) = now else { return HEADS_PAUSE };
        let (Ok(log_id), Ok(head)) = (row.try_get::<_, Uuid>(0), row.try_get::<_, i64>(1)) else {
            return HEADS_PAUSE;
        };
        // Replaced, put back, or dropped meanwhile: the next poll of heads says so too.
        let kept_from: i64 = row.try_get(2).unwrap_or_default();
        if log_id != request.log_id || head < request.through || kept_from > request.after + 1 {
            return HEADS_PAUSE;
        }
        self.refuse(&format!(
            "rows ({}, {}] of log {log_id} cannot be used: {error}",
            request.after, request.through
        ));
        REFUSED_PAUSE
    }

    /// The log is not read further until this is no longer true. Said once.
    fn refuse(&self, reason: &str) {
        if self.progress.set_refused(self.table.index(), self.gatherer, Some(reason)) {
            let label = OfLog { gatherer: self.name.clone(), table: self.table.name() };
            self.metrics.refusals.get_or_create_owned(&label).inc();
            let (table, gatherer) = (self.table.name(), &self.name);
            tracing::error!(table, %gatherer, reason, "refusing to read {table} of {gatherer}");
        }
    }

    fn accept(&self) {
        if self.progress.set_refused(self.table.index(), self.gatherer, None) {
            let (table, gatherer) = (self.table.name(), &self.name);
            tracing::info!(table, %gatherer, "reading {table} of {gatherer} again");
        }
    }

    /// A lost connection is a debug line, because the task that polls the heads says that a gatherer
    /// is away; anything else is said once.
    fn log_failure(&self, request: &Request, error: ReadError, said: &mut Option<String>) {
        let (table, gatherer) = (self.table.name(), &self.name);
        let (after, through) = (request.after, request.through);
        let (text, is_known) = match error {
            ReadError::Connect(error) => (error.to_string(), true),
            ReadError::Pg(error) => (describe(&error), error.as_db_error().is_none()),
            ReadError::Silent => (format!("no answer in {} s", SILENT_TIMEOUT.as_secs()), false),
            ReadError::Span(error) => (error.to_string(), false),
        };
        if is_known || said.as_ref() == Some(&text) {
            tracing::debug!(table, %gatherer, after, through, error = text, "read failed, retrying");
        } else {
            tracing::warn!(table, %gatherer, after, through, error = text, "read failed, retrying");
            *said = Some(text);
        }
    }
}

async fn read(table: &Table, client: &Client, request: Request) -> Result<Span, ReadError> {
    let sql = table.read_sql(request.log_id, request.after, request.through);
    let rows = client.copy_out(sql.as_str()).await?;
    let mut rows = std::pin::pin!(rows);
    let mut data = Vec::with_capacity(64 * 1024);
    let mut whole = true;
    while let Some(chunk) = rows.try_next().await? {
        data.extend_from_slice(&chunk);
        if data.len() > SPAN_BYTES_MAX {
            // Dropping the stream makes the connection swallow the rest.
            whole = false;
            break;
        }
    }
    span::parse(table, request, data, whole).map_err(ReadError::Span)
}

/// How many rows to ask for next: twice as many as before at most, and so many that a span has about
/// the memory it should.
fn next_rows(rows: i64, span: &Span, rows_max: i64) -> i64 {
    let count = span.rows.len().max(1);
    let fitting = SPAN_BYTES_AIM / (span.bytes() / count).max(1);
    let fitting = i64::try_from(fitting).unwrap_or(rows_max);
    rows.saturating_mul(2).min(fitting).clamp(SPAN_ROWS_MIN, rows_max)
}

#[cfg(test)]
mod tests {
    use super::super::span::testing::{TestDelta, delta_span};
    use super::*;

    #[test]
    fn reads_grow_back_and_shrink_with_large_rows() {
        let delta = |ticker: String| TestDelta {
            received_at: 1,
            exchange_ts: 1,
            ticker,
            price: 1,
            occurrence: 1,
        };
        let small = delta_span(0, 0, &[delta("T".into())]);
        assert_eq!(next_rows(100, &small, 20_000), 200);
        assert_eq!(next_rows(20_000, &small, 20_000), 20_000);
        let large = delta_span(0, 0, &[delta("T".repeat(1 << 20))]);
        assert_eq!(next_rows(20_000, &large, 20_000), SPAN_ROWS_MIN);
    }
}
