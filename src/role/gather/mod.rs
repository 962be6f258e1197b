//! The gatherer: records everything that the exchange publishes into a local database.
//!
//! Sessions write frames into the journal; the decoder reads the journal and hands rows to six
//! appenders. Recording does not wait for the database: it begins when the journal is open and goes
//! on while the database is away.

mod anchors;
mod beside;
pub mod check;
mod clocks;
mod decoder;
mod exchange;
mod exchange_time;
pub mod forecast;
mod hashing;
mod health;
mod interpret;
mod listing;
mod metrics;
mod occurrence;
pub mod plan;
mod poll_queue;
mod polled;
pub mod poller;
pub mod registry;
pub mod reload;
mod rows;
mod sessions;
mod streams;
pub mod upkeep;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::kalshi::{Api, rest};
use crate::log::appender::Appender;
use crate::log::journal::{self, Journal, Position};
use crate::model::Log;
use crate::ops::hangup::Hangup;
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

/// How long a process that is ended at once tries to bring its last records to disk.
const FLUSH_PATIENCE: Duration = Duration::from_millis(1500);
/// How long systemd is kept waiting for the first session; it gives up after 90 s.
const READY_WAIT: Duration = Duration::from_secs(45);

/// Everything a gatherer is told.
#[derive(Debug, Clone)]
pub struct Config {
    pub gatherer_id: String,
    pub api: Api,
    pub database: Target,
    pub journal: journal::Config,
    pub sessions: Sessions,
    pub markets: Markets,
    /// How often each order book is compared with a snapshot in its place; none for never.
    pub audit_period: Option<Duration>,
    /// None when books are not polled.
    pub poller: Option<poller::Config>,
    pub storage: upkeep::Storage,
    pub server: http::Config,
}

impl Config {
    /// The REST client's settings.
    fn rest_settings(&self) -> rest::Settings {
        let share = 1.0 / f64::from(self.sessions.user_gatherers.max(1));
        rest::Settings { share, ..rest::Settings::default() }
    }
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
    /// The most connections that the exchange allows one user.
    pub user_connections_max: u16,
    /// Gatherers that use the same user, this one included: they share its connections and, in equal
    /// parts, its REST tokens.
    pub user_gatherers: u16,
}

impl Sessions {
    /// All of them.
    pub fn count(&self) -> usize {
        [self.ticker, self.trade, self.lifecycle, self.orderbook].map(usize::from).iter().sum()
    }
}

/// Which markets' order books are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markets {
    pub multivariate: Multivariate,
    /// Patterns of series to record, with `*`; all are when this and `tickers` are empty.
    pub series: Vec<String>,
    /// Patterns of series to leave out.
    pub exclude_series: Vec<String>,
    /// Patterns of single markets to record, beside `series`.
    pub tickers: Vec<String>,
    /// Patterns of single markets to leave out.
    pub exclude_tickers: Vec<String>,
}

impl Markets {
    fn filter(&self) -> registry::Filter {
        registry::Filter {
            multivariate: self.multivariate == Multivariate::Include,
            series: self.series.clone(),
            exclude_series: self.exclude_series.clone(),
            tickers: self.tickers.clone(),
            exclude_tickers: self.exclude_tickers.clone(),
        }
    }
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
pub async fn run(config: Config, load: reload::Load, shutdown: Shutdown) -> Result<()> {
    let hangup = Hangup::listen().context("listen to SIGHUP")?;
    // Locked first, so that a second process on this machine ends before it asks for anything else;
    // made last, so that one that may not record leaves no journal behind.
    let claim = journal::claim(config.journal.clone())?;
    let server = http::Server::bind(&config.server).await?;
    // The right to write is asked for before anything is recorded, so that a second gatherer on the
    // same database ends at once; a database that is away does not hold recording up.
    let lock = writer::first_attempt(&config).await?;
    let (journal, opened) = claim.open()?;
    if opened.torn_bytes > 0 {
        warn!(bytes = opened.torn_bytes, "the journal's last record was torn: cut");
    }
    // A second signal, or the deadline, ends the process without a drain: what was taken is flushed.
    let last = journal.clone();
    shutdown.before_forced_end(move || last.close_blocking(FLUSH_PATIENCE));
    let mut registry = crate::ops::metrics::registry();
    let metrics = Metrics::new(&mut registry, journal.clone());
    let vitals = Arc::new(watch::Sender::new(health::Vitals::default()));
    let seen = vitals.subscribe();
    let source = Source::from_fn(move || {
        let report = health::report(&seen.borrow());
        async move { report }
    });

    // Ends what must outlive the stop: the lock, the pages, the watcher.
    let drained = CancellationToken::new();
    let fence = watch::Sender::new(None);
    let fences = fence.subscribe();
    let (end_sender, end) = watch::channel(None);
    let resync = ResyncSenders::default();
    let resume = Arc::new(watch::Sender::new(0));
    let (filter, filters) = watch::channel(config.markets.filter());
    let mut tasks = Tasks::new();
    let stop = drained.clone();
    let pages = Arc::new(registry);
    tasks.spawn("announce readiness", announce(vitals.subscribe(), drained.clone()));
    tasks.spawn("watchdog", systemd::watchdog(drained.clone()));
    tasks.spawn("serve health", async move {
        server.serve(source, pages, stop).await;
        Ok(())
    });
    tasks.spawn("hold writer lock", writer::hold(config.clone(), lock, fence, drained.clone()));
    let reload = reload::Reload {
        load,
        config: config.clone(),
        hangup,
        vitals: vitals.subscribe(),
        filter,
        resume: Arc::clone(&resume),
    };
    tasks.spawn("reload configuration", reload.run(shutdown.token()));
    tasks.spawn(
        "sessions",
        sessions::run(
            sessions::Run {
                config: config.clone(),
                filters,
                resume,
                journal: journal.clone(),
                resync: Arc::clone(&resync),
                metrics: Arc::clone(&metrics),
                vitals: Arc::clone(&vitals),
                end: end_sender,
            },
            shutdown.token(),
        ),
    );
    tasks.spawn(
        "ping database",
        ping_database(pg::pool(config.database.clone(), 1), Arc::clone(&vitals), drained.clone()),
    );
    let upkeep = upkeep::Upkeep {
        target: config.database.clone(),
        retention: config.storage.retention,
        fences: fences.clone(),
        metrics: Arc::clone(&metrics),
        vitals: Arc::clone(&vitals),
    };
    tasks.spawn("parts of the logs", upkeep.run(drained.clone()));
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
    tasks.wait(&shutdown).await
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
        let decoding = decoder.spawn(places)?;
        // An appender that fails drops its receiver; the decoder then ends, and so do the others.
        let mut result = Ok(());
        while let Some(ended) = appenders.join_next().await {
            result = ended.context("appender panicked").and_then(|ended| ended);
            if result.is_err() {
                break;
            }
        }
        drop(appenders);
        let decoded = decoding.await.context("decoder panicked");
        result.and(decoded.and_then(|decoded| decoded))?;
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
            let loaded = tokio::select! {
                loaded = load => loaded,
                () = self.stopping.cancelled() => return Ok(None),
            };
            match loaded {
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

/// Tells systemd that recording has begun. After a while it is told in any case: a process whose
/// exchange is away is no process that a restart would help, and health says what is missing.
async fn announce(
    mut vitals: watch::Receiver<health::Vitals>,
    drained: CancellationToken,
) -> Result<()> {
    tokio::select! {
        recording = vitals.wait_for(health::Vitals::is_recording) => drop(recording),
        () = tokio::time::sleep(READY_WAIT) => {}
        () = drained.cancelled() => return Ok(()),
    }
    systemd::ready();
    Ok(())
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
            ping = pool.ping() => vitals.send_modify(|vitals| match ping {
                Ok(ping) => (vitals.database_ping, vitals.database_error) = (Some(ping), None),
                Err(error) => (vitals.database_ping, vitals.database_error) = (None, Some(error)),
            }),
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
            vitals.journal = journal.usage();
            vitals.database_up = metrics.is_database_up();
        });
        if let Some(failure) = journal.failure() {
            anyhow::bail!("journal {} cannot be written: {failure}", journal.dir().display());
        }
    }
}
