//! The deduplicator: merges the logs of all gatherers into production, each fact once.
//!
//! ```text
//!  gatherer ──heads──> Watcher ──watch──┐
//!     └─────spans────> Reader (one a log and gatherer) ──> Sync (one a log) ──> production
//!                        ^───────resume───────────────────────┘     ^ tenure
//!                                                                Keeper (the writer's lock)
//! ```
//!
//! A [`sync::Sync`] merges what the readers bring and commits rows, head and cursors in one
//! transaction. A gatherer that is away or slow only stops its own readers. Production being away
//! stops everything where it is: each reader holds one span and waits. Partitions of production are
//! made ahead and dropped by [`upkeep::Upkeep`], beside all this.
//!
//! The market sync ([`markets`]) keeps series, events and markets beside the logs, from the exchange's
//! REST, under the same lock.
//!
//! Memory, a log: two spans a gatherer (of about 8 MiB, 16 at most), two batches (32 MiB and a span
//! each), and the recent identities (about 40 bytes a unit of
//! [`recent_cost_max`](table::Table::recent_cost_max); 155 MB for all six logs), and while gatherers are
//! away the rows that one alone has brought (66 bytes for each fourth unit of the same; 64 MB).

mod check;
mod contributions;
mod gatherer;
mod health;
pub mod markets;
mod merge;
mod metrics;
mod partitions;
mod production;
mod progress;
mod reader;
mod recent;
mod retention;
mod span;
mod status;
mod status_text;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub use check::check;
pub use retention::Retention;
pub use status::status;

use crate::model::Micros;
use crate::ops;
use crate::ops::companion::Companion;
use crate::ops::health::Source;
use crate::ops::shutdown::Shutdown;
use crate::ops::tasks::Tasks;
use crate::pg::Target;

/// All that the role needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names this deduplicator in the writer's lock.
    pub deduplicator_id: String,
    /// In the order in which copies of one microsecond are preferred. Their ids are unique.
    pub gatherers: Vec<GathererTarget>,
    pub production: Target,
    /// None: series, events and markets are not copied.
    pub markets: Option<markets::Config>,
    pub retention: Retention,
    pub server: ops::http::Config,
}

/// A gatherer and its database.
#[derive(Debug, Clone)]
pub struct GathererTarget {
    /// What production knows it by: a new id is a new gatherer.
    pub id: String,
    pub database: Target,
}

/// Runs until the request to stop, or until something that waiting does not cure, with another task in
/// the process that shares its pages where one is given.
///
/// # Errors
/// What that task ends with; `HeldError` when another deduplicator holds or has taken this production,
/// `UsageError` when production's schema is another than this program's and no migration cures that.
pub async fn run(
    config: Config,
    companion: Option<Companion>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let stop = shutdown.token();
    let mut registry = ops::metrics::registry();
    let metrics = metrics::Metrics::register(&mut registry);
    let market_metrics = markets::Metrics::register(&mut registry);
    let server = ops::http::Server::bind(&config.server).await?;

    let gatherers: Arc<[String]> = config.gatherers.iter().map(|g| g.id.clone()).collect();
    metrics.begin(&gatherers);
    let holder = holder(&config.deduplicator_id);
    let progress = Arc::new(progress::Progress::new(gatherers.len(), Micros::now()));
    let (tenure, tenures) = watch::channel(None);
    let (ping, pings) = watch::channel(None);
    let (market_report, market_reports) = watch::channel(None);
    let (reports, last_report) = watch::channel(health::report(&health::Facts::default()));
    // Nothing is ever sent: the end of the last sender is the message.
    let (alive, logs_ended) = mpsc::channel(1);
    let mut tasks = Tasks::new();
    tasks.spawn("watchdog", ops::systemd::watchdog(stop.clone()));
    let beside = companion.map(|companion| {
        (companion.register)(&mut registry);
        tasks.spawn(companion.name, (companion.work)(stop.clone()));
        (companion.name, companion.health)
    });

    let mut heads = Vec::new();
    for (index, GathererTarget { id, database }) in config.gatherers.iter().enumerate() {
        let (send, receive) = watch::channel(gatherer::Heads::default());
        heads.push(receive);
        let watcher = gatherer::Watcher {
            name: id.clone(),
            gatherer: index,
            target: database.clone(),
            consumer: config.deduplicator_id.clone(),
            progress: progress.clone(),
            heads: send,
            metrics: metrics.clone(),
        };
        tasks.spawn(format!("watch {id}"), watcher.run(stop.clone()));
    }

    for table in table::ALL {
        // A place for each reader, so that none waits for another one's turn; memory is bounded by
        // a span in each place, one in each reader, and two batches.
        let (events, from_readers) = mpsc::channel(gatherers.len().max(1));
        let mut resumes = Vec::new();
        for (index, (gatherer, heads)) in config.gatherers.iter().zip(&heads).enumerate() {
            let (resume, resumed) = watch::channel(reader::Resume::default());
            resumes.push(resume);
            let reader = reader::Reader {
                table,
                gatherer: index,
                name: gatherer.id.clone(),
                target: gatherer.database.clone(),
                heads: heads.clone(),
                resume: resumed,
                events: events.clone(),
                progress: progress.clone(),
                metrics: metrics.clone(),
            };
            let name = format!("read {} of {}", table.name(), gatherer.id);
            tasks.spawn(name, reader.run(stop.clone()));
        }
        let sync = sync::Sync {
            table,
            target: config.production.clone(),
            holder: holder.clone(),
            gatherers: gatherers.clone(),
            tenure: tenures.clone(),
            resumes,
            events: from_readers,
            progress: progress.clone(),
            metrics: metrics.clone(),
            alive: alive.clone(),
        };
        tasks.spawn(format!("sync {}", table.name()), sync.run(stop.clone()));
    }
    if let Some(markets) = config.markets {
        let sync = markets::MarketSync::new(
            markets,
            config.production.clone(),
            holder.clone(),
            tenures.clone(),
            market_report,
            market_metrics,
            alive.clone(),
        );
        tasks.spawn("sync markets", sync.run(stop.clone()));
    }
    drop(alive);

    let upkeep = upkeep::Upkeep {
        target: config.production.clone(),
        tenure: tenures,
        retention: config.retention,
        metrics: metrics.clone(),
    };
    tasks.spawn("partitions", upkeep.run(stop.clone()));

    let keeper = production::Keeper {
        target: config.production,
        holder,
        gatherers: gatherers.clone(),
        tenure,
        ping,
        logs_ended,
        metrics: metrics.clone(),
    };
    tasks.spawn("production", keeper.run(stop.clone()));

    let monitor = health::Monitor {
        gatherers: gatherers.iter().cloned().zip(heads).collect(),
        ping: pings,
        progress,
        markets: market_reports,
        beside,
        metrics,
        reports,
    };
    tasks.spawn("monitor", monitor.run(stop.clone()));

    let registry = Arc::new(registry);
    let source = Source::watch(last_report);
    tasks.spawn("http", async move {
        server.serve(source, registry, stop).await;
        Ok(())
    });
    ops::systemd::ready();
    tasks.wait(&shutdown).await
}

/// What this process calls itself in the writer's lock: enough for a person to find it, and never
/// the same for two processes.
fn holder(id: &str) -> String {
    let host = rustix::system::uname();
    format!(
        "deduplicator {id} on {}, process {} started {}",
        host.nodename().to_string_lossy(),
        std::process::id(),
        Micros::now()
    )
}
