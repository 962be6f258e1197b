//! The task that keeps the archive: looks how far each log is, archives what is due, then versions of
//! markets, then makes small parts of past days into large ones. One thing at a time, so that memory
//! holds the rows of one part.
//!
//! Whatever fails is begun anew after a while: every step can be repeated.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::manifest::{self, Archive, Beginning};
use super::metrics::Metrics;
use super::span::{LogState, Work};
use super::store::Store;
use super::table::{self, Table};
use super::{Config, compact, part, versions};
use crate::model::Micros;
use crate::ops::backoff::Backoff;
use crate::ops::exit::{Exit, HeldError, UsageError, chain};
use crate::ops::health::Status;
use crate::pg::Target;
use crate::pg::advisory::{self, Lock};
use crate::pg::migrate::{self, Schema, VersionError};

/// Between two looks at production.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the versions of markets, and at days to make larger parts of.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(3600);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// What the lag may be beside the age at which a part is written, before health says so.
const LAG_GRACE: Duration = Duration::from_secs(600);

/// The task.
#[derive(Debug)]
pub struct Archiver {
    pub config: Config,
    pub metrics: Metrics,
    pub health: watch::Sender<(Status, Value)>,
    /// Nothing else runs in this process: what waiting does not cure ends it.
    pub is_alone: bool,
}

/// What `/health` says before the first round.
pub fn at_first() -> (Status, Value) {
    (Status::Healthy, json!({"status": "starting"}))
}

impl Archiver {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.work() => ended,
            };
            let Err(error) = ended;
            self.metrics.working(false);
            if self.is_alone && matches!(Exit::of(&error), Exit::Held | Exit::Usage) {
                return Err(error);
            }
            self.metrics.errors.inc();
            let text = chain(&error);
            tracing::warn!(error = text, "the archive is begun anew after a while");
            self.health.send_replace((
                Status::Degraded,
                json!({"status": "failed", "error": text, "url": self.config.place_name()}),
            ));
            if began.elapsed() > BACKOFF_MAX {
                backoff.reset();
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = backoff.wait() => {}
            }
        }
    }

    /// Rounds until one fails.
    async fn work(&self) -> anyhow::Result<std::convert::Infallible> {
        let session = self.config.database.connect().await?;
        migrate::check(&session, Schema::Production).await.map_err(VersionError::ending)?;
        lock(&session, &self.config.database).await?;
        Store::prepare(&self.config.place)?;
        let store = Store::open(&self.config.place)?;
        let archive = begin(&store, &session).await?;
        register(&session).await?;
        tracing::info!(url = store.root(), "archive opened");
        let work = Work {
            store: &store,
            database: &self.config.database,
            session: &session,
            memory: self.config.memory,
            level: self.config.compression_level,
        };
        let mut upkeep: Option<Instant> = None;
        loop {
            let mut is_behind = false;
            let logs = look(&session, &archive).await?;
            for log in &logs {
                self.metrics.lag(log);
                if !self.is_due(log, &work) {
                    continue;
                }
                let archived = work.next(log).await?;
                self.metrics.archived(log.table.name, &archived);
                tracing::info!(
                    table = log.table.name,
                    through = archived.through,
                    rows = archived.rows,
                    bytes = archived.bytes,
                    parts = archived.parts,
                    missing = archived.missing,
                    "archived"
                );
                is_behind |= archived.through < log.head;
            }
            if !is_behind && upkeep.is_none_or(|last| last.elapsed() > UPKEEP_INTERVAL) {
                for table in table::ALL {
                    versions::archive(&work, table).await?;
                    if self.config.compact {
                        let today = Micros::now();
                        let made = compact::past_days(&work, table, today).await?;
                        self.metrics.compacted(table.name, made);
                    }
                }
                upkeep = Some(Instant::now());
            }
            self.report(&look(&session, &archive).await?);
            if !is_behind {
                sleep(INTERVAL.min(self.config.max_age / 4)).await;
            }
        }
    }

    /// Whether there are rows enough for a part, or old enough.
    fn is_due(&self, log: &LogState, work: &Work<'_>) -> bool {
        log.pending() >= work.rows_max(log.table)
            || log.pending() > 0 && log.resting >= self.config.max_age
    }

    fn report(&self, logs: &[LogState]) {
        self.metrics.working(true);
        let lag = logs.iter().map(LogState::lag).max().unwrap_or_default();
        let pending: i64 = logs.iter().map(LogState::pending).sum();
        for log in logs {
            self.metrics.lag(log);
        }
        let is_late = lag > self.config.max_age.saturating_mul(2) + LAG_GRACE;
        let status = if is_late { Status::Degraded } else { Status::Healthy };
        self.health.send_replace((
            status,
            json!({
                "status": if is_late { "late" } else { "working" },
                "max_lag_seconds": lag.as_secs(),
                "lag_rows": pending,
                "url": self.config.place_name(),
            }),
        ));
    }
}

/// Takes the archiver's lock for the life of the session.
async fn lock(session: &Client, target: &Target) -> anyhow::Result<()> {
    if advisory::take_within(session, Lock::Archive, advisory::LINGER)
        .await
        .context("take the archiver's lock")?
    {
        return Ok(());
    }
    let holder = advisory::holder(session, Lock::Archive).await.context("ask who archives")?;
    let who = holder
        .map_or_else(|| "somebody who has just ended".to_owned(), |holder| holder.to_string());
    Err(HeldError(format!("{target} is being archived by {who}")).into())
}

/// Makes the archive this production's, or finds that it is.
pub async fn begin(store: &Store, session: &Client) -> anyhow::Result<Archive> {
    let sql = "SELECT name, log_id, head, kept_from FROM logs";
    let mut logs = std::collections::BTreeMap::new();
    for row in session.query(sql, &[]).await.context("read logs")? {
        let beginning = Beginning {
            log_id: row.try_get(1)?,
            head: row.try_get(2)?,
            kept_from: row.try_get(3)?,
        };
        logs.insert(row.try_get(0)?, beginning);
    }
    let (made_at, made_by) = manifest::made();
    let mine = Archive { format: manifest::FORMAT, made_at, made_by, logs };
    if manifest::read::<Archive>(store, manifest::ARCHIVE).await?.is_none() {
        store.create(manifest::ARCHIVE, manifest::bytes(&mine)?).await?;
    }
    let found = manifest::read::<Archive>(store, manifest::ARCHIVE).await?;
    let found = found.with_context(|| format!("{} was removed", manifest::ARCHIVE))?;
    for (name, log) in &mine.logs {
        if found.logs.get(name).is_none_or(|known| known.log_id != log.log_id) {
            let url = store.root();
            return Err(UsageError(format!(
                "{url} is the archive of another production ({name} has another identity there): \
                 give this one a place of its own (archive.url)"
            ))
            .into());
        }
    }
    for table in table::ALL {
        store.create(&manifest::empty_path(table), part::empty(table)?).await?;
    }
    Ok(found)
}

/// From here on the retention waits for the archive.
pub async fn register(session: &Client) -> anyhow::Result<()> {
    let sql = "SELECT name, move_consumer(name, 0, 0) FROM logs WHERE name NOT IN \
               (SELECT table_name FROM consumers WHERE name = session_user)";
    for row in session.query(sql, &[]).await.context("register as a consumer")? {
        let (log, is_registered): (&str, bool) = (row.try_get(0)?, row.try_get(1)?);
        anyhow::ensure!(is_registered, "{log} has no row in consumers and takes none");
    }
    Ok(())
}

/// How far each log is archived.
pub async fn look(session: &Client, archive: &Archive) -> anyhow::Result<Vec<LogState>> {
    let sql = "SELECT l.name, l.log_id, l.head, c.position, \
                      extract(epoch FROM clock_timestamp() - c.moved_at)::float8 \
               FROM logs l JOIN consumers c ON c.table_name = l.name AND c.name = session_user \
               ORDER BY l.name";
    let mut logs = Vec::new();
    for row in session.query(sql, &[]).await.context("read cursors")? {
        let name: &str = row.try_get(0)?;
        let Some(table) = Table::named(name) else { continue };
        let seconds: f64 = row.try_get(4)?;
        logs.push(LogState {
            table,
            log_id: row.try_get(1)?,
            head: row.try_get(2)?,
            position: row.try_get(3)?,
            resting: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            beginning: archive.logs.get(name).cloned().context("a log that is new")?,
        });
    }
    Ok(logs)
}
