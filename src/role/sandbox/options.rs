//! What a run is asked to be, and whether that is possible.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use crate::ops::exit::UsageError;

use super::chaos::Kind;
use super::exchange::Pace;

/// How the verdict is printed on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// A run of the sandbox. The default is the first look: a minute of a small exchange.
#[derive(Debug, Clone)]
pub struct Options {
    /// Markets of a generated run, 1 to 1,000,000.
    pub markets: usize,
    /// Multivariate markets beside them, which gatherers leave out unless told otherwise.
    pub multivariate: usize,
    /// Changes of levels a second of a generated run, on average.
    pub rate: f64,
    /// The pace of its bursts, as a multiple of the rate: 1 to [`Pace::BURST_MAX`].
    pub burst: f64,
    /// 1 to [`GATHERERS_MAX`].
    pub gatherers: usize,
    /// Order-book connections of each gatherer.
    pub connections: u16,
    /// Of a generated run.
    pub duration: Duration,
    /// Of a replay, as a multiple of the recorded pace.
    pub speed: f64,
    /// From it follow what is generated and what is broken when. None: a new one, printed.
    pub seed: Option<u64>,
    /// Recorded frames to publish instead of generated ones.
    pub replay: Vec<PathBuf>,
    pub chaos: Vec<Kind>,
    /// How long `stop-postgres` keeps a database away.
    pub outage: Duration,
    pub format: Format,
    /// Production is archived into the run's directory too.
    pub archive: bool,
    /// Leaves the run's directory.
    pub keep: bool,
    /// The directory of PostgreSQL's programs; none: the machine's own are found.
    pub postgres: Option<PathBuf>,
    /// Where to make it; none: the system's place for temporary files.
    pub dir: Option<PathBuf>,
}

/// Each is two processes and a PostgreSQL cluster: more do not fit on one machine.
pub const GATHERERS_MAX: usize = 8;
const CONNECTIONS_MAX: u16 = 200;
const MARKETS_MAX: usize = 1_000_000;
const RATE_MAX: f64 = 1_000_000.0;
const DURATION_SECONDS_MAX: u64 = 7 * 24 * 3600;

impl Default for Options {
    fn default() -> Self {
        Self {
            markets: 300,
            multivariate: 0,
            rate: 2000.0,
            burst: Pace::BURST,
            gatherers: 3,
            connections: 6,
            duration: Duration::from_secs(60),
            speed: 20.0,
            seed: None,
            replay: Vec::new(),
            chaos: Vec::new(),
            outage: Duration::from_secs(60),
            format: Format::default(),
            archive: false,
            keep: false,
            postgres: None,
            dir: None,
        }
    }
}

/// How many of the kinds such a run can have.
fn usable(chaos: &[Kind], is_replay: bool) -> usize {
    chaos.iter().filter(|kind| !is_replay || !kind.needs_generated()).count()
}

impl Options {
    /// # Errors
    /// When the run is impossible, in a sentence for the person who asked for it.
    pub fn check(&self) -> Result<(), UsageError> {
        let limit = Duration::from_secs(DURATION_SECONDS_MAX);
        let checks = [
            ((1..=MARKETS_MAX).contains(&self.markets), "--markets must be 1 to 1000000"),
            (self.multivariate <= MARKETS_MAX, "--multivariate must be at most 1000000"),
            (self.rate > 0.0 && self.rate <= RATE_MAX, "--rate must be above 0, up to 1000000"),
            ((1.0..=Pace::BURST_MAX).contains(&self.burst), "--burst must be 1 to 10"),
            ((1..=GATHERERS_MAX).contains(&self.gatherers), "--gatherers must be 1 to 8"),
            ((1..=CONNECTIONS_MAX).contains(&self.connections), "--connections must be 1 to 200"),
            (
                self.duration >= Duration::from_secs(1) && self.duration <= limit,
                "--duration must be 1s to 7d",
            ),
            (self.outage <= limit, "--outage must be at most 7d"),
            (self.speed.is_finite() && self.speed > 0.0, "--speed must be above 0"),
            (
                self.gatherers > 1 || !self.chaos.iter().any(|kind| kind.blinds()),
                "--chaos: what a gatherer misses needs two gatherers at least: what nobody receives is lost",
            ),
            (
                self.chaos.len() == usable(&self.chaos, !self.replay.is_empty()),
                "--chaos churn and burst do not go with --replay",
            ),
            (
                self.chaos.iter().all(|kind| kind.is_built_in()),
                "--chaos crash-gatherer and crash-dedup need a build with --features failpoints",
            ),
        ];
        if let Some((_, text)) = checks.into_iter().find(|(holds, _)| !holds) {
            return Err(UsageError(text.to_owned()));
        }
        if let Some(missing) = self.replay.iter().find(|path| !path.is_file()) {
            return Err(UsageError(format!("--replay: {} is no file", missing.display())));
        }
        Ok(())
    }

    /// How long the flow will last.
    ///
    /// # Errors
    /// When a recorded file cannot be read.
    pub fn length(&self) -> Result<Duration> {
        if self.replay.is_empty() {
            return Ok(self.duration);
        }
        let mut longest = Duration::ZERO;
        for path in &self.replay {
            let length = recorded(path).with_context(|| format!("read {}", path.display()))?;
            longest = longest.max(length);
        }
        Ok(longest.div_f64(self.speed))
    }
}

#[derive(Deserialize)]
struct Recorded {
    recv_ms: u64,
}

/// The time from the first to the last frame of a recording.
fn recorded(path: &Path) -> Result<Duration> {
    let file = std::fs::File::open(path)?;
    let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
    let mut lines: Box<dyn std::io::BufRead> = if is_gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    };
    let mut first = None;
    let (mut line, mut last) = (String::new(), String::new());
    while lines.read_line(&mut line)? > 0 {
        if !line.trim().is_empty() {
            first.get_or_insert_with(|| line.clone());
            std::mem::swap(&mut line, &mut last);
        }
        line.clear();
    }
    let Some(first) = first else { return Ok(Duration::ZERO) };
    let begin: Recorded = serde_json::from_str(&first).context("parse the first line")?;
    let end: Recorded = serde_json::from_str(&last).context("parse the last line")?;
    Ok(Duration::from_millis(end.recv_ms.saturating_sub(begin.recv_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_runs_are_refused() {
        assert_eq!(Options::default().check(), Ok(()));
        let lonely = Options { gatherers: 1, chaos: vec![Kind::Cut], ..Options::default() };
        assert!(lonely.check().unwrap_err().0.contains("two gatherers"));
        let one = Options { gatherers: 1, chaos: vec![Kind::KillDedup], ..Options::default() };
        assert_eq!(one.check(), Ok(()));
        for bad in [
            Options { markets: 0, ..Options::default() },
            Options { rate: 0.0, ..Options::default() },
            Options { rate: f64::NAN, ..Options::default() },
            Options { gatherers: 9, ..Options::default() },
            Options { connections: 0, ..Options::default() },
            Options { speed: 0.0, ..Options::default() },
            Options { duration: Duration::ZERO, ..Options::default() },
            Options { replay: vec![PathBuf::from("/nowhere")], ..Options::default() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_replay_lasts_as_long_as_its_longest_file() {
        let dir = tempfile::tempdir().unwrap();
        let (short, long) = (dir.path().join("a.ndjson"), dir.path().join("b.ndjson"));
        std::fs::write(&short, "{\"recv_ms\":1000,\"event\":{}}\n").unwrap();
        std::fs::write(&long, "{\"recv_ms\":5000}\n{\"recv_ms\":6000}\n{\"recv_ms\":45000}\n\n")
            .unwrap();
        let options = Options { replay: vec![short, long], speed: 20.0, ..Options::default() };
        assert_eq!(options.length().unwrap(), Duration::from_secs(2));
    }
}
