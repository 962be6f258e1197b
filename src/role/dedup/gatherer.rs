//! One gatherer as the deduplicator sees it: whether it answers, and the heads of its logs. In return
//! the gatherer is told what is in production and need not be kept there any more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::metrics::{Metrics, OfGatherer};
use super::progress::Progress;
use super::table;
use crate::model::Log;
use crate::ops::backoff::Backoff;
use crate::ops::exit::{UsageError, chain};
use crate::pg::migrate::{self, Schema, VersionError};
use crate::pg::{Class, Options, Target, describe, error};

/// How often heads are asked for while they move. A poll is one small query.
const POLL_BUSY: Duration = Duration::from_millis(30);
/// The longest pause between polls of a gatherer whose logs stand still.
const POLL_IDLE_MAX: Duration = Duration::from_millis(100);
/// A gatherer that answers no poll in this time is skipped until it does.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a gatherer is told what was taken over, where that has moved: its retention counts days.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
const BACKOFF_BASE: Duration = Duration::from_millis(250);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Pause after a refusal that only a person can cure: a wrong password, another schema.
const BACKOFF_PERSON: Duration = Duration::from_secs(15);

/// A log as its gatherer shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    pub log_id: Uuid,
    pub head: i64,
    /// The first row that the gatherer still has.
    pub kept_from: i64,
}

/// What is known of a gatherer now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    pub connected: bool,
    /// Why it is not, once that is known.
    pub trouble: Option<String>,
    /// In the order of [`table::ALL`]; of the last answer while it is not connected.
    logs: [Option<LogHead>; table::ALL.len()],
}

impl Heads {
    /// The log to read, while the gatherer is connected.
    pub fn readable(&self, table: usize) -> Option<LogHead> {
        if self.connected { self.logs.get(table).copied().flatten() } else { None }
    }
}

/// The task that watches one gatherer.
#[derive(Debug)]
pub struct Watcher {
    pub name: String,
    /// The gatherer's place in the configuration.
    pub gatherer: usize,
    pub target: Target,
    /// What the gatherer knows this deduplicator by.
    pub consumer: String,
    pub progress: Arc<Progress>,
    pub heads: watch::Sender<Heads>,
    pub metrics: Metrics,
}

impl Watcher {
    /// Ends when asked to stop; a gatherer that is away is waited for.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let gauge = self
            .metrics
            .gatherer_connected
            .get_or_create_owned(&OfGatherer { gatherer: self.name.clone() });
        gauge.set(0);
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        let mut said = None;
        loop {
            let mut connected = false;
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.follow(|| {
                    tracing::info!(gatherer = %self.name, "connected to {}", self.name);
                    connected = true;
                    gauge.set(1);
                }) => ended,
            };
            let Err(error) = ended else { return Ok(()) };
            gauge.set(0);
            if connected {
                backoff.reset();
                said = None;
            }
            let text = chain(&error);
            self.heads.send_modify(|heads| {
                heads.connected = false;
                heads.trouble = Some(text.clone());
            });
            if said.as_ref() != Some(&text) {
                let gatherer = &self.name;
                if connected {
                    tracing::warn!(%gatherer, error = text, "lost {gatherer}, going on without it");
                } else {
                    tracing::warn!(%gatherer, error = text, "cannot reach {gatherer}, retrying");
                }
                said = Some(text);
            }
            let needs_person = match error.downcast_ref::<VersionError>() {
                Some(error) => error.class() == Class::Fatal,
                None => error.is::<UsageError>() || error::classify_chain(&error) == Class::Auth,
            };
            let pause = if needs_person { BACKOFF_PERSON } else { backoff.next_delay() };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
        }
    }

    /// Polls until something fails, or nobody listens any more.
    async fn follow(&self, mut on_connected: impl FnMut()) -> anyhow::Result<()> {
        let options = Options {
            statement_timeout: Some(POLL_TIMEOUT),
            read_only: true,
            ..Options::default()
        };
        let mut client = self.target.connect_with(options).await?;
        migrate::check(&client, Schema::Gatherer).await?;
        expect_owner(&client, &self.name).await?;
        let query = client
            .prepare("SELECT name, log_id, head, kept_from FROM logs")
            .await
            .context("prepare poll of heads")?;
        let mut pause = POLL_BUSY;
        let mut first = true;
        let mut told = Told::default();
        loop {
            let logs = timeout(POLL_TIMEOUT, read_heads(&client, &query))
                .await
                .context("poll heads: no answer")??;
            if first {
                on_connected();
                first = false;
            }
            let news = self.heads.send_if_modified(|heads| {
                let now = Heads { connected: true, trouble: None, logs };
                let news = *heads != now;
                *heads = now;
                news
            });
            if told.at.is_none_or(|at| at.elapsed() >= TELL_INTERVAL) {
                self.tell(&mut client, &logs, &mut told).await;
            }
            pause = if news { POLL_BUSY } else { (pause * 2).min(POLL_IDLE_MAX) };
            if self.heads.is_closed() {
                return Ok(());
            }
            sleep(pause).await;
        }
    }
}

/// Notes positions, each in the log that it belongs to.
const TELL_SQL: &str = "SELECT consumer_passed($1, l.name, p.position) \
     FROM unnest($2::text[], $3::uuid[], $4::bigint[]) p (name, log_id, position) \
     JOIN logs l ON l.name = p.name AND l.log_id = p.log_id";

/// What a gatherer was told over one session.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    positions: Vec<(Uuid, i64)>,
    failed: Option<String>,
}

impl Watcher {
    /// Tells the gatherer up to where its rows are in production; from 0, as long as nothing is known,
    /// so that its retention waits for us from the first look on. A failure harms nothing now: the
    /// gatherer keeps its rows.
    async fn tell(
        &self,
        client: &mut Client,
        logs: &[Option<LogHead>; table::ALL.len()],
        told: &mut Told,
    ) {
        told.at = Some(Instant::now());
        let mut names = Vec::new();
        let mut positions = Vec::new();
        for ((index, table), log) in table::ALL.iter().enumerate().zip(logs) {
            let Some(LogHead { log_id, .. }) = *log else { continue };
            names.push(table.name());
            positions.push((log_id, self.progress.committed(index, self.gatherer, log_id)));
        }
        if positions == told.positions {
            return;
        }
        let telling = tell(client, &self.consumer, &names, &positions);
        let failed = match timeout(POLL_TIMEOUT, telling).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(describe(&error)),
            Err(_) => Some(format!("no answer in {} s", POLL_TIMEOUT.as_secs())),
        };
        match &failed {
            None => told.positions = positions,
            Some(error) => {
                let label = OfGatherer { gatherer: self.name.clone() };
                self.metrics.tell_failures.get_or_create_owned(&label).inc();
                if told.failed != failed {
                    let gatherer = &self.name;
                    tracing::warn!(
                        %gatherer, error,
                        "cannot tell {gatherer} what is in production: it keeps rows for longer"
                    );
                }
            }
        }
        told.failed = failed;
    }
}

/// The session is for reading; this one transaction is not.
async fn tell(
    client: &mut Client,
    consumer: &str,
    names: &[&str],
    positions: &[(Uuid, i64)],
) -> Result<(), tokio_postgres::Error> {
    let (log_ids, positions): (Vec<Uuid>, Vec<i64>) = positions.iter().copied().unzip();
    let tx = client.build_transaction().read_only(false).start().await?;
    tx.execute(TELL_SQL, &[&consumer, &names, &log_ids, &positions]).await?;
    tx.commit().await
}

/// Checks whose database it is; one that no gatherer has claimed yet may be anybody's. Rows of
/// another's would stand in production under a wrong name, beside those under the right one.
///
/// # Errors
/// `UsageError` when it is another gatherer's.
pub async fn expect_owner(client: &Client, name: &str) -> anyhow::Result<()> {
    let sql = "SELECT gatherer_id FROM writer";
    let row = client.query_opt(sql, &[]).await.context("read whose database it is")?;
    let owner: Option<String> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    match owner {
        Some(owner) if owner != name => Err(UsageError(format!(
            "its database belongs to gatherer {owner:?}, not to {name:?}: correct `gatherers` in the \
             configuration"
        ))
        .into()),
        _ => Ok(()),
    }
}

async fn read_heads(
    client: &Client,
    query: &tokio_postgres::Statement,
) -> anyhow::Result<[Option<LogHead>; table::ALL.len()]> {
    let mut logs = [None; table::ALL.len()];
    for row in client.query(query, &[]).await.context("poll heads")? {
        let name: &str = row.try_get(0)?;
        let place = Log::from_name(name)
            .and_then(|log| table::ALL.iter().position(|table| table.log == log))
            .and_then(|index| logs.get_mut(index));
        if let Some(place) = place {
            *place = Some(LogHead {
                log_id: row.try_get(1)?,
                head: row.try_get(2)?,
                kept_from: row.try_get(3)?,
            });
        }
    }
    Ok(logs)
}
