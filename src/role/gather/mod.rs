//! The gatherer: records everything that the exchange publishes into a local database.
//!
//! Sessions write frames into the journal; the decoder reads the journal and hands rows to six
//! appenders. Recording does not wait for the database: it begins when the journal is open and goes
//! on while the database is away.

mod anchors;
mod decoder;
mod health;
mod interpret;
mod listing;
mod metrics;
mod occurrence;
pub mod plan;
pub mod registry;
mod rows;
mod sessions;
mod streams;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::kalshi::Api;
use crate::log::appender::Appender;
use crate::log::journal::{self, Journal, Position};
use crate::model::Log;
use crate::ops::health::Source;
use crate::ops::shutdown::Shutdown;
use crate::ops::tasks::Tasks;
use crate::ops::{http, systemd};
use crate::pg::writer::Fence;
use crate::pg::{self, Target};
use decoder::{Decoder, Places, ResyncSenders};
use metrics::Metrics;

/// How often health asks the database.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Everything a gatherer is told.
#[derive(Debug, Clone)]
pub struct Config {
    pub gatherer_id: String,
    pub api: Api,
    pub database: Target,
    pub journal: journal::Config,
    pub sessions: Sessions,
    pub markets: Markets,
    pub server: http::Config,
}

/// Sessions by channel. The global channels are doubled by default; both copies become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    pub ticker: u16,
    pub trade: u16,
    pub lifecycle: u16,
    pub orderbook: u16,
    /// The longest wait between two attempts to connect.
    pub reconnect_max: Duration,
}

/// Which markets' order books are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markets {
    pub multivariate: Multivariate,
    /// Patterns of series to record, with `*`; empty means all.
    pub series: Vec<String>,
    /// Patterns of series to leave out.
    pub exclude_series: Vec<String>,
}

/// Whether multivariate (combo) markets are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multivariate {
    Exclude,
    Include,
}

/// Runs a gatherer until `shutdown`.
///
/// # Errors
/// When another process holds the journal or the database, when the configuration does not fit what
/// is there, or when something fails that a restart may heal.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let (journal, opened) = Journal::open(config.journal.clone())?;
    if opened.torn_bytes > 0 {
        warn!(bytes = opened.torn_bytes, "the journal's last record was torn: cut");
    }
    let mut registry = crate::ops::metrics::registry();
    let metrics = Metrics::new(&mut registry, journal.clone());
    let server = http::Server::bind(&config.server).await?;
    let vitals = Arc::new(watch::Sender::new(health::Vitals::default()));
    let seen = vitals.subscribe();
    let source = Source::from_fn(move || {
        let report = health::report(&seen.borrow());
        async move { report }
    });

    // The right to write is asked for before anything is recorded, so that a second gatherer on the
    // same database ends at once; a database that is away does not hold recording up.
    let lock = writer::first_attempt(&config).await?;

    // Ends what must outlive the stop: the lock, the pages, the watcher.
    let drained = CancellationToken::new();
    let fence = watch::Sender::new(None);
    let fences = fence.subscribe();
    let (end_sender, end) = watch::channel(None);
    let resync = ResyncSenders::default();
    let mut tasks = Tasks::new();
    let stop = drained.clone();
    let pages = Arc::new(registry);
    tasks.spawn("serve health", async move {
        server.serve(source, pages, stop).await;
        Ok(())
    });
    tasks.spawn("hold writer lock", writer::hold(config.clone(), lock, fence, drained.clone()));
    tasks.spawn(
        "sessions",
        sessions::run(
            config.clone(),
            journal.clone(),
            Arc::clone(&resync),
            Arc::clone(&metrics),
            Arc::clone(&vitals),
            end_sender,
            shutdown.token(),
        ),
    );
    tasks.spawn(
        "ping database",
        ping_database(pg::pool(config.database.clone(), 1), Arc::clone(&vitals), drained.clone()),
    );
    tasks.spawn(
        "watch journal",
        watch_journal(journal.clone(), Arc::clone(&metrics), vitals, drained.clone()),
    );
    let pipeline = Pipeline {
        config,
        journal,
        live_from: opened.begin,
        fences,
        resync,
        metrics,
        end,
        stopping: shutdown.token(),
    };
    tasks.spawn("record", async move {
        let result = pipeline.run().await;
        drained.cancel();
        result
    });
    systemd::ready();
    tasks.wait(&shutdown).await
}

/// Connects to everything that the configuration names and changes nothing.
///
/// # Errors
/// The first thing that a running gatherer could not work with.
pub async fn check(config: Config) -> Result<()> {
    let client = config.database.connect().await?;
    crate::pg::migrate::check(&client, crate::pg::migrate::Schema::Gatherer).await?;
    let settings = crate::kalshi::rest::Settings::default();
    let rest = crate::kalshi::rest::Rest::new(&config.api, settings)?;
    rest.status().await.with_context(|| {
        format!("ask {} for the exchange's status (api.rest_url, api.key_id)", config.api.rest_url)
    })?;
    let dir = &config.journal.dir;
    anyhow::ensure!(
        dir.is_dir() || !dir.exists(),
        "journal.dir {} is there and is no directory",
        dir.display()
    );
    // Taken and given back at once: a port that another process listens on is said here.
    http::Server::bind(&config.server).await?;
    Ok(())
}

/// Journal to database.
struct Pipeline {
    config: Config,
    journal: Journal,
    live_from: Position,
    fences: watch::Receiver<Option<Fence>>,
    resync: ResyncSenders,
    metrics: Arc<Metrics>,
    end: watch::Receiver<Option<Position>>,
    stopping: CancellationToken,
}

impl Pipeline {
    async fn run(mut self) -> Result<()> {
        let Some(places) = self.places().await? else {
            // Stopping, and the database never came: the journal has everything. It is complete
            // once the sessions have ended.
            self.end.wait_for(Option::is_some).await.context("wait for the journal's end")?;
            return Ok(());
        };
        let mut senders = BTreeMap::new();
        let mut appenders = tokio::task::JoinSet::new();
        for log in Log::ALL {
            let (sender, chunks) = mpsc::channel(decoder::CHUNKS_WAITING_MAX);
            senders.insert(log, sender);
            let appender = Appender {
                log,
                target: self.config.database.clone(),
                journal: self.journal.id(),
                copy: rows::copy_statement(log),
                fence: self.fences.clone(),
                used: None,
                observer: self.metrics.clone(),
                stopping: self.stopping.clone(),
            };
            appenders.spawn(appender.run(chunks));
        }
        let decoder = Decoder {
            journal: self.journal,
            live_from: self.live_from,
            senders,
            resync: self.resync,
            metrics: self.metrics,
            end: self.end.clone(),
        };
        let decoding = tokio::task::spawn_blocking(move || decoder.run(places));
        // An appender that fails drops its receiver; the decoder then ends, and so do the others.
        while let Some(ended) = appenders.join_next().await {
            ended.context("appender panicked")??;
        }
        decoding.await.context("decoder panicked")??;
        self.end.wait_for(Option::is_some).await.context("wait for the journal's end")?;
        Ok(())
    }

    /// Reads where each log stands, however long the database is away. None when stopping first.
    async fn places(&mut self) -> Result<Option<Places>> {
        loop {
            tokio::select! {
                fence = self.fences.wait_for(Option::is_some) => {
                    fence.context("the writer lock's task ended")?;
                }
                () = self.stopping.cancelled() => return Ok(None),
            }
            let load = async {
                let client = self.config.database.connect().await?;
                Places::load(&client, &self.journal).await
            };
            match load.await {
                Ok(places) => return Ok(Some(places)),
                Err(error) if writer::is_passing(&error) => {
                    warn!(error = format!("{error:#}"), "cannot read where the logs stand");
                    tokio::time::sleep(writer::RETRY_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks the database every second over a session of its own, for health.
async fn ping_database(
    pool: pg::Pool,
    vitals: Arc<watch::Sender<health::Vitals>>,
    drained: CancellationToken,
) -> Result<()> {
    let mut ticks = tokio::time::interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drained.cancelled() => return Ok(()),
        }
        tokio::select! {
            ping = pool.ping() => vitals.send_modify(|vitals| vitals.database_ping = ping.ok()),
            () = drained.cancelled() => return Ok(()),
        }
    }
}

/// Keeps the journal's figures current, and ends the process when it cannot be written.
async fn watch_journal(
    journal: Journal,
    metrics: Arc<Metrics>,
    vitals: Arc<watch::Sender<health::Vitals>>,
    drained: CancellationToken,
) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drained.cancelled() => return Ok(()),
        }
        metrics.read_journal();
        vitals.send_modify(|vitals| {
            vitals.journal_bytes = journal.disk_bytes();
            vitals.journal_full = journal.is_full();
            vitals.database_up = metrics.is_database_up();
        });
        if let Some(failure) = journal.failure() {
            anyhow::bail!("journal {} cannot be written: {failure}", journal.dir().display());
        }
    }
}
