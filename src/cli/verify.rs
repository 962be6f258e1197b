//! `kalshi verify`: its checks and their arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::archive::ArchiveVerify;
use super::{DEDUPLICATOR_FILE, Format, duration};
use crate::model::{Channel, Micros, Ticker};

#[derive(Debug, Args)]
pub struct Verify {
    #[command(subcommand)]
    pub check: VerifyCheck,
}

#[derive(Debug, Subcommand)]
pub enum VerifyCheck {
    /// What no gatherer saw while it could be seen, why, and how many saw the rest
    Gaps(Gaps),
    /// Replay every market's changes from snapshot to snapshot and compare exactly
    Books(Books),
    /// Trades beside the changes that they make in books, and beside the exchange's own list
    Trades(Trades),
    /// Rows beside what the gatherers brought, logs without holes, cursors not ahead
    Counts(Counts),
    /// Everything, with a short summary; for a timer
    All(All),
    /// The archive's parts beside their manifests, production and books; as `kalshi archive verify`
    Archive(ArchiveVerify),
}

/// What every check takes.
#[derive(Debug, Clone, Args)]
pub struct Checked {
    /// The deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,

    /// From when on: so long ago (90m, 24h, 7d), or a time (2026-08-05T03:00:00Z)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = moment)]
    pub since: Moment,

    /// Up to when; by default now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Moment>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Also write the result as metrics, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,

    /// Parts that are read at the same time; by default as many as this machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
}

/// Which markets.
#[derive(Debug, Clone, Default, Args)]
pub struct Markets {
    /// Only this market
    #[arg(long, value_name = "TICKER", value_parser = ticker, conflicts_with = "series")]
    pub market: Option<String>,

    /// Only the markets of these series
    #[arg(long, value_name = "SERIES", value_parser = ticker, value_delimiter = ',')]
    pub series: Vec<String>,
}

/// What a check of markets takes.
#[derive(Debug, Clone, Args)]
pub struct Scope {
    #[command(flatten)]
    pub checked: Checked,

    #[command(flatten)]
    pub markets: Markets,
}

/// Whether the exchange is asked.
#[derive(Debug, Clone, Args)]
pub struct Against {
    /// Also compare with the trades that the exchange lists, within its budget of requests
    #[arg(long)]
    pub against_exchange: bool,
}

#[derive(Debug, Args)]
pub struct Gaps {
    #[command(flatten)]
    pub scope: Scope,

    /// Only this channel
    #[arg(long, value_name = "NAME", value_parser = channels())]
    pub channel: Option<String>,

    /// Do not list shorter holes; they are counted all the same
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub min_duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Books {
    #[command(flatten)]
    pub scope: Scope,

    /// Record what is wrong as lost, so that book_at says so of every book in it
    #[arg(long)]
    pub repair: bool,
}

#[derive(Debug, Args)]
pub struct Trades {
    #[command(flatten)]
    pub scope: Scope,

    #[command(flatten)]
    pub against: Against,

    /// Insert what is missing, with source `repair`; not while a deduplicator runs
    #[arg(long, requires = "against_exchange")]
    pub repair: bool,
}

#[derive(Debug, Args)]
pub struct Counts {
    #[command(flatten)]
    pub checked: Checked,
}

#[derive(Debug, Args)]
pub struct All {
    #[command(flatten)]
    pub scope: Scope,

    #[command(flatten)]
    pub against: Against,
}

/// A point in time as a person gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(Duration),
    At(Micros),
}

impl Moment {
    /// Microseconds since 1970.
    pub fn micros(self) -> i64 {
        match self {
            Self::At(at) => at.0,
            Self::Ago(ago) => {
                Micros::now().0.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))
            }
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = crate::ops::duration::parse(text) {
        return Ok(Moment::Ago(ago));
    }
    let error = "it is neither a duration like 90m, 24h or 7d nor a time like 2026-08-05T03:00:00Z";
    Micros::parse_rfc3339(text).map(Moment::At).map_err(|_| error.to_owned())
}

fn ticker(text: &str) -> Result<String, String> {
    Ticker::check(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// The channels whose coverage is recorded.
fn channels() -> PossibleValuesParser {
    PossibleValuesParser::new(Channel::ALL.map(Channel::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_so_long_ago_or_exact() {
        assert_eq!(moment("90m"), Ok(Moment::Ago(Duration::from_secs(5400))));
        let at = moment("2026-08-05T03:45:40Z").unwrap();
        assert_eq!(at.micros(), 1_785_901_540_000_000);
        let ago = Micros::now().0 - moment("1h").unwrap().micros();
        assert!((3_599_000_000..3_700_000_000).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "2026-08-05", "-1h"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_what_the_exchange_could_have_given() {
        assert!(ticker("KXGOLD15M-26AUG050000-00").is_ok());
        assert!(ticker("KX GOLD").is_err() && ticker("").is_err());
    }
}
