//! The whole platform on one machine: throw-away databases, a simulated exchange, the real roles as
//! processes of this executable, and a verdict from the exchange's ledger against production.
//!
//! It knows the roles only as an operator does: by their command line, configuration files, HTTP
//! endpoints and tables.

mod books;
mod chaos;
mod children;
mod cluster;
mod configs;
mod database_faults;
mod display;
mod exchange;
mod expected;
mod metadata;
mod observe;
mod options;
mod platform;
mod ports;
mod postgres;
mod report;
mod rows;
mod rundir;
mod scrape;
mod strikes;
mod upset;
mod verdict;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::time::Instant;

use crate::ops::exit::DiscrepancyError;
use crate::ops::shutdown::Shutdown;

pub use chaos::Kind as ChaosKind;
pub use exchange::{Pace, Source};
pub use options::{Format, Options};

use display::Screen;
use report::Report;
use rundir::RunDir;

/// Accounts of an exchange that runs alone: as many as the usual gatherers.
const KEYS_ALONE: usize = 3;
/// How often the simulated exchange pings.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the platform and prints the verdict on stdout.
///
/// # Errors
/// [`DiscrepancyError`] when production differs from the ledger, a usage error when the run is
/// impossible, anything else when the run could not come to a verdict.
pub async fn run(options: Options, shutdown: Shutdown) -> Result<()> {
    options.check()?;
    let started = Instant::now();
    let seed = options.seed.unwrap_or_else(new_seed);
    let postgres = postgres::find(options.postgres.as_deref()).await?;
    let mut dir = RunDir::create(options.dir.as_deref())?;
    if options.keep {
        dir.keep().context("keep the directory of the run")?;
    }
    let screen = Arc::new(Screen::new());
    let extension = if postgres.has_timescaledb { " with TimescaleDB" } else { "" };
    screen.note(&format!("seed {seed}, PostgreSQL {}{extension}", postgres.major));
    let place = dir.path().display().to_string();
    screen.note(&format!("directory {place}, logs in {place}/logs"));
    let outcome = tokio::select! {
        outcome = platform::run(&options, seed, started, Arc::new(postgres), &dir, &screen) => outcome,
        () = shutdown.requested() => Err(anyhow!("asked to stop before there was a verdict")),
    };
    screen.step(if options.keep { "ending the servers" } else { "removing everything" });
    // The end of the processes takes a moment, which must not hold up the runtime.
    tokio::task::spawn_blocking(move || drop(dir)).await.context("remove the run")?;
    screen.end();
    if options.keep {
        screen.note(&format!("kept in {place}; remove it when you are done"));
    }
    let report = outcome?;
    print(&report, options.format).context("print the verdict")?;
    if report.is_complete() {
        return Ok(());
    }
    Err(DiscrepancyError(report.sentence).into())
}

fn print(report: &Report, format: Format) -> Result<()> {
    let text = match format {
        Format::Table => report.table(),
        Format::Json => report.json()?,
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Runs the simulated exchange alone until asked to stop, for any client. Its first line on stdout
/// is a JSON object with its URLs and keys.
///
/// # Errors
/// When it cannot listen, or a file of a replay cannot be read.
pub async fn exchange_only(
    listen: SocketAddr,
    source: Source,
    seed: Option<u64>,
    shutdown: Shutdown,
) -> Result<()> {
    let config = exchange::Config {
        listen,
        seed: seed.unwrap_or_else(new_seed),
        keys: KEYS_ALONE,
        source,
        ping_interval: PING_INTERVAL,
    };
    exchange::run_standalone(config, shutdown.token()).await
}

/// Short enough to be exact wherever JSON numbers are floats.
fn new_seed() -> u64 {
    fastrand::u64(..1 << 53)
}
