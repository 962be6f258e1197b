//! The task that keeps the parts of the logs: the next one ahead of time, none past the retention that
//! every consumer has read.
//!
//! What it does not get done is no harm, only said: an appender makes the part that it needs itself, and
//! what should have been dropped stays a while longer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::health::Vitals;
use super::metrics::Metrics;
use crate::log::parts;
use crate::log::retention::{Outcome, Wait, drop_oldest};
use crate::model::Log;
use crate::ops::exit::chain;
use crate::pg::engine::{self, Choice, Engine};
use crate::pg::writer::{Fence, FenceError};
use crate::pg::{Class, Target, error};

/// Pause between rounds; a round without work is a few small queries.
const INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a round that failed: a query in the way may end at any moment.
const INTERVAL_FAILED: Duration = Duration::from_secs(5);
/// A consumer that keeps rows for longer than this past their retention is a person's business: it was
/// given up, or does not get on.
const WAIT_DEGRADED: Duration = Duration::from_secs(86_400);

/// How rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    pub engine: Choice,
    /// How long rows stay, by our clock at their receipt; none is for ever.
    pub retention: Option<Duration>,
}

/// The task.
pub struct Upkeep {
    pub target: Target,
    pub retention: Option<Duration>,
    pub fences: watch::Receiver<Option<Fence>>,
    pub metrics: Arc<Metrics>,
    pub vitals: Arc<watch::Sender<Vitals>>,
}

/// What was said last of each log, so that it is said once.
#[derive(Default)]
struct Said {
    failures: [Option<String>; Log::ALL.len()],
    /// The consumer that a log waits for.
    waits: [Option<String>; Log::ALL.len()],
    connect: Option<String>,
    engine: Option<Engine>,
}

impl Upkeep {
    /// Ends when asked to, at any point: what it leaves half done the next round finishes.
    pub async fn run(mut self, drained: CancellationToken) -> Result<()> {
        tokio::select! {
            () = drained.cancelled() => {}
            () = self.keep() => {}
        }
        Ok(())
    }

    /// Ends when the task that keeps the lock has ended.
    async fn keep(&mut self) {
        let mut said = Said::default();
        loop {
            let fence = match self.fences.wait_for(Option::is_some).await {
                Ok(fence) => *fence,
                Err(_) => return,
            };
            let Some(fence) = fence else { continue };
            let pause = match self.open(&mut said).await {
                Ok((mut client, engine)) => {
                    said.connect = None;
                    self.round(&mut client, engine, fence, &mut said).await
                }
                Err(error) => {
                    let text = chain(&error);
                    if said.connect.as_ref() != Some(&text) {
                        debug!(error = text, "cannot look after the parts of the logs, retrying");
                        said.connect = Some(text);
                    }
                    INTERVAL_FAILED
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.fences.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn open(&self, said: &mut Said) -> Result<(Client, Engine)> {
        let client = parts::owner_session(&self.target).await?;
        let engine = engine::find(&client).await.context("find out what divides the logs")?;
        let engine = engine.context("the logs are not divided into parts")?;
        if said.engine.replace(engine) != Some(engine) {
            info!(engine = engine.name(), "logs are divided by {engine}");
            if engine == Engine::Timescaledb
                && let Err(error) = compress(&client).await
            {
                let error = chain(&error);
                warn!(error, "old chunks are not compressed: rows stay as they are");
            }
            self.vitals.send_modify(|vitals| vitals.engine = Some(engine.name()));
        }
        Ok((client, engine))
    }

    /// Looks after every log; gives the pause until the next round.
    async fn round(
        &self,
        client: &mut Client,
        engine: Engine,
        fence: Fence,
        said: &mut Said,
    ) -> Duration {
        let mut pause = INTERVAL;
        let mut overdue = None;
        for (index, log) in Log::ALL.into_iter().enumerate() {
            let (failed, waits) = match self.log(client, engine, fence, log).await {
                Ok(waits) => (None, waits),
                Err(error) => {
                    pause = INTERVAL_FAILED;
                    // Somebody else has the lock: the task that keeps it says so.
                    if error.downcast_ref::<FenceError>().is_some() {
                        return pause;
                    }
                    let text = chain(&error);
                    if error::classify_chain(&error) == Class::Retry {
                        debug!(%log, error = text, "parts of {log}: retrying");
                        continue;
                    }
                    (Some(text), None)
                }
            };
            if let Some(said) = said.failures.get_mut(index)
                && *said != failed
            {
                if let Some(error) = &failed {
                    warn!(%log, error, "parts of {log} are not as they should be");
                }
                *said = failed;
            }
            self.metrics.retention_overdue(log, waits.as_ref().map(|wait| wait.overdue));
            let waits = waits.filter(|wait| wait.overdue > WAIT_DEGRADED);
            if let Some(said) = said.waits.get_mut(index) {
                say_once(log, waits.as_ref(), said);
            }
            if let Some(wait) = waits {
                overdue.get_or_insert_with(|| reason(log, &wait));
            }
        }
        self.vitals.send_modify(|vitals| vitals.retention_waits = overdue);
        pause
    }

    /// Makes what is missing ahead and drops what is past the retention; what a consumer still needs.
    async fn log(
        &self,
        client: &mut Client,
        engine: Engine,
        fence: Fence,
        log: Log,
    ) -> Result<Option<Wait>> {
        parts::make_ahead(client, engine, fence, log).await.context("make ahead")?;
        let Some(kept) = self.retention else { return Ok(None) };
        loop {
            match drop_oldest(client, engine, fence, log, kept).await? {
                Outcome::Nothing => return Ok(None),
                Outcome::Waits(wait) => return Ok(Some(wait)),
                Outcome::Dropped(parts) => {
                    self.metrics.parts_dropped(log, parts.len());
                    info!(%log, parts = parts.join(", "), "dropped rows past the retention");
                }
            }
        }
    }
}

fn reason(log: Log, wait: &Wait) -> String {
    let Wait { consumer, position, last, overdue } = wait;
    let hours = overdue.as_secs() / 3600;
    format!(
        "{log} keeps rows to {last} for {hours} h past their retention, because consumer {consumer} is \
         at {position}; if it was given up, delete it from table consumers"
    )
}

fn say_once(log: Log, wait: Option<&Wait>, said: &mut Option<String>) {
    let consumer = wait.map(|wait| wait.consumer.clone());
    if *said != consumer {
        match wait {
            Some(wait) => warn!(%log, reason = reason(log, wait), "retention of {log} waits"),
            None => info!(%log, "retention of {log} goes on"),
        }
        *said = consumer;
    }
}

/// Has TimescaleDB compress chunks that the log has left behind, where its licence allows that.
async fn compress(client: &Client) -> Result<()> {
    let sql = "SELECT current_setting('timescaledb.license', true)";
    let license: Option<String> = client.query_one(sql, &[]).await?.try_get(0)?;
    if license.as_deref() != Some("timescale") {
        let license = license.unwrap_or_default();
        info!(license, "this build of TimescaleDB has no compression: rows stay as they are");
        return Ok(());
    }
    for log in Log::ALL {
        let name = log.name();
        let segment = if log == Log::MarketLifecycle { "subject" } else { "ticker" };
        // The age of a chunk is counted in rows, from the head.
        let sql = format!(
            "CREATE OR REPLACE FUNCTION {name}_head() RETURNS bigint LANGUAGE sql STABLE \
               SET search_path = public, pg_temp \
               AS 'SELECT head FROM public.logs WHERE name = ''{name}'''; \
             SELECT set_integer_now_func('{name}', '{name}_head', replace_if_exists => true); \
             ALTER TABLE {name} SET (timescaledb.compress, \
               timescaledb.compress_segmentby = '{segment}', \
               timescaledb.compress_orderby = 'log_seq'); \
             SELECT add_compression_policy('{name}', (SELECT chunk_rows FROM logs \
               WHERE name = '{name}'), if_not_exists => true)"
        );
        client.batch_execute(&sql).await.with_context(|| format!("compress {log}"))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;
