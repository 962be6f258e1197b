//! `kalshi verify`: proves from the record itself that it is complete, says exactly where it is not, and
//! repairs what can be repaired.
//!
//! ```text
//!            ┌ gaps    coverage beside the markets' hours: what nobody saw
//!   Scene ──>┤ books   changes replayed from snapshot to snapshot
//!            ├ trades  trades beside changes, and beside the exchange's own list
//!            └ counts  rows beside what was brought, logs without holes, cursors
//! ```
//!
//! It only reads, in sessions that can do nothing else, from production and from the gatherers that
//! answer; so it runs beside them. Whatever is large is read along an index in ranges of markets
//! ([`ranges`]), as many at a time as there are cores, and of a range one market is held at a time: the
//! memory does not grow with markets or rows.

mod against;
mod books;
mod counts;
mod coverage;
mod gaps;
mod intervals;
mod judge;
mod ranges;
mod repair;
mod replay;
mod report;
mod scene;
mod text;
mod textfile;
mod trades;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::ranges::Range;
use self::report::{Report, Section};
use self::scene::Scene;
use crate::kalshi::Api;
use crate::kalshi::rest::{Rest, RestError, Settings};
use crate::model::Micros;
use crate::ops::exit::{DiscrepancyError, Exit, chain};
use crate::pg::Target;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Config {
    pub gatherers: Vec<Gatherer>,
    /// Production as it is read from, in sessions that can change nothing.
    pub production: Target,
    /// Production as `--repair` writes to it.
    pub writer: Target,
    /// None: the exchange cannot be asked.
    pub api: Option<Api>,
}

/// A gatherer and its database.
#[derive(Debug, Clone)]
pub struct Gatherer {
    pub id: String,
    pub database: Target,
}

impl Config {
    /// A client of the exchange's REST; none where the configuration names no exchange.
    fn rest(&self) -> Option<Result<Rest, RestError>> {
        self.api.as_ref().map(|api| Rest::new(api, Settings::default()))
    }
}

/// What is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Gaps,
    Books,
    Trades,
    Counts,
    All,
}

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Options {
    pub check: Check,
    /// Microseconds; `until` is now when it is not given.
    pub since: i64,
    pub until: Option<i64>,
    /// One market, or the markets of these series; all when neither is given.
    pub market: Option<String>,
    pub series: Vec<String>,
    pub channel: Option<String>,
    /// Shorter holes are counted and not listed, microseconds.
    pub min_duration: i64,
    pub against_exchange: bool,
    pub repair: bool,
    pub json: bool,
    pub textfile: Option<PathBuf>,
    /// Ranges of markets that are read at the same time.
    pub jobs: usize,
}

impl Options {
    fn ranges(&self) -> Vec<Range> {
        match &self.market {
            Some(market) => vec![Range::of_market(market)],
            None => self.series.iter().map(|series| Range::of_series(series)).collect(),
        }
    }
}

/// Verifies, prints what was found on stdout, and writes the file of metrics.
///
/// # Errors
/// `DiscrepancyError` when something was found. Any other when something could not be told, after
/// what could be was printed; `HeldError` when `--repair` finds a deduplicator at work.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    use std::io::Write as _;
    let scene = Arc::new(Box::pin(Scene::look(config, options)).await?);
    let (report, problem) = Box::pin(verify(&scene)).await;
    if let Some(path) = &scene.options.textfile {
        textfile::write(path, &report)?;
    }
    let text = match (scene.options.json, scene.options.check) {
        (true, _) => serde_json::to_string(&report).context("write the report as JSON")? + "\n",
        (false, Check::All) => text::summary(&report),
        (false, _) => text::text(&report),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("write to stdout")?,
    }
    // Another exit code than that of a finding belongs to what a person has to change first.
    if let Some(problem) = problem.filter(|problem| Exit::of(problem) != Exit::Failed) {
        return Err(problem);
    }
    match report.status {
        "holds" => Ok(()),
        "discrepancy" => {
            Err(DiscrepancyError(format!("{} findings", report.findings_total)).into())
        }
        _ => {
            let errors = report.checks.iter().flat_map(|section| &section.errors);
            let mut errors: Vec<&str> = errors.map(String::as_str).collect();
            errors.dedup();
            anyhow::bail!("not everything could be told: {}", errors.join("; "))
        }
    }
}

/// Runs what is asked for, one check after the other; also gives the error of the last that failed.
async fn verify(scene: &Arc<Scene>) -> (Report, Option<anyhow::Error>) {
    let asked = scene.options.check;
    let mut checks = Vec::new();
    let mut problem = None;
    for check in [Check::Gaps, Check::Books, Check::Trades, Check::Counts] {
        if asked != check && asked != Check::All {
            continue;
        }
        let began = Instant::now();
        let (name, result) = match check {
            Check::Gaps | Check::All => ("gaps", Box::pin(gaps::check(scene.clone())).await),
            Check::Books => ("books", Box::pin(books::check(scene.clone())).await),
            Check::Trades => ("trades", Box::pin(trades::check(scene.clone())).await),
            Check::Counts => ("counts", Box::pin(counts::check(scene.clone())).await),
        };
        let mut section = result.unwrap_or_else(|error| {
            let mut section = Section::new(name);
            section.errors.push(chain(&error));
            problem = Some(error);
            section
        });
        section.elapsed_seconds = began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        checks.push(section.settled());
    }
    let has = |status: &str| checks.iter().any(|section| section.status == status);
    let status = if has("discrepancy") {
        "discrepancy"
    } else if has("unknown") {
        "unknown"
    } else {
        "holds"
    };
    let report = Report {
        at: Micros::now().to_string(),
        since: Micros(scene.since).to_string(),
        until: Micros(scene.until).to_string(),
        status,
        findings_total: checks.iter().map(|section| section.findings_total).sum(),
        checks,
    };
    (report, problem)
}
