//! The archive: production's logs, and the versions of what REST lists, as Parquet in a bucket or a
//! directory, each row exactly once, for whoever reads Parquet.
//!
//! ```text
//!  production ──rows (after, through]──> part, one a day ──> done ──> manifest ──> cursor
//! ```
//!
//! A role of its own, since it knows nothing of gatherers or of merging: a reader of production's logs
//! under the role `exporter`, whose cursor is its row of `consumers`. The deduplicator's process runs it
//! beside the deduplicator as a [`Companion`], because there is one of both and one configuration;
//! `kalshi dedup --only archive` runs it alone, wherever production can be reached.
//!
//! Memory: the rows of one part ([`Config::memory`]), as much again while they are put in order, and
//! that part's Parquet.

mod archiver;
mod check;
mod column;
mod compact;
pub mod ddl;
mod http;
mod manifest;
mod metrics;
mod part;
mod read;
mod rows;
mod span;
mod store;
mod table;
#[cfg(test)]
mod tests;
pub mod verify;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

pub use check::check;
pub use compact::run as compact;
pub use store::{Bucket, Place};

use crate::ops;
use crate::ops::companion::Companion;
use crate::ops::health::{Report, Source};
use crate::ops::shutdown::Shutdown;
use crate::ops::tasks::Tasks;
use crate::pg::Target;

/// All that the role needs.
#[derive(Debug, Clone)]
pub struct Config {
    pub place: Place,
    /// Production, as `exporter`.
    pub database: Target,
    /// A part is written at the latest when its first row has waited so long.
    pub max_age: Duration,
    /// Bytes of rows in memory, about; decides how many rows a part has at most.
    pub memory: u64,
    /// Of zstd, 1 to 22.
    pub compression_level: i32,
    /// Whether small parts of past days are made into large ones.
    pub compact: bool,
    pub server: ops::http::Config,
}

impl Config {
    /// Where the archive lies, for people.
    pub fn place_name(&self) -> String {
        match &self.place {
            Place::Directory(directory) => format!("file://{}", directory.display()),
            Place::Bucket(bucket) if bucket.prefix.is_empty() => format!("s3://{}", bucket.name),
            Place::Bucket(bucket) => format!("s3://{}/{}", bucket.name, bucket.prefix),
        }
    }
}

/// The archiver as a task of another role's process.
pub fn companion(config: Config) -> Companion {
    let (health, reports) = watch::channel(archiver::at_first());
    let metrics = metrics::Metrics::default();
    let registered = metrics.clone();
    let archiver = archiver::Archiver { config, metrics, health, is_alone: false };
    Companion {
        name: "archive",
        health: reports,
        register: Box::new(move |registry| registered.register(registry)),
        work: Box::new(move |stop| Box::pin(archiver.run(stop))),
    }
}

/// Runs the archiver alone until the request to stop.
///
/// # Errors
/// `HeldError` when another archiver holds this production, `UsageError` when the place is unusable or
/// another production's.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let stop = shutdown.token();
    let mut registry = ops::metrics::registry();
    let metrics = metrics::Metrics::default();
    metrics.register(&mut registry);
    let server = ops::http::Server::bind(&config.server).await?;
    let (health, reports) = watch::channel(archiver::at_first());
    let mut tasks = Tasks::new();
    tasks.spawn("watchdog", ops::systemd::watchdog(stop.clone()));
    let archiver = archiver::Archiver { config, metrics, health, is_alone: true };
    tasks.spawn("archive", archiver.run(stop.clone()));
    let source = Source::from_fn(move || {
        let (status, component) = reports.borrow().clone();
        async move { Report::new(status, json!({"archive": component})) }
    });
    let registry = Arc::new(registry);
    tasks.spawn("http", async move {
        server.serve(source, registry, stop).await;
        Ok(())
    });
    ops::systemd::ready();
    tasks.wait(&shutdown).await
}
