//! The commands and their arguments. Knows what a person may type, not what it does.

mod archive;
mod verify;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub use archive::{Archive, ArchiveCommand, ArchiveVerify};

use crate::ops::exit::Exit;
use crate::role::sandbox::ChaosKind;
pub use verify::{Against, All, Books, Counts, Gaps, Markets, Scope, Trades};
pub use verify::{Moment, Verify, VerifyCheck};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("KALSHI_COMMIT"), ")");

const GATHERER_FILE: &str = "/etc/kalshi/gatherer.yaml";
const DEDUPLICATOR_FILE: &str = "/etc/kalshi/deduplicator.yaml";

/// Records every order-book change, trade and quote of the Kalshi exchange, and proves that the
/// record is complete.
#[derive(Debug, Parser)]
#[command(
    name = "kalshi",
    version = VERSION,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes:
  0   stopped as asked, or what was checked holds
  1   failed; a restart may cure it
  2   something was lost, doubled or different
  64  bad usage or configuration; a restart cannot cure it
  75  another process holds what this one needs

First look, on any machine with PostgreSQL installed:
  kalshi sandbox"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a gatherer: record the exchange into its own database
    #[command(after_help = "\
Examples:
  kalshi gather
  kalshi gather --config ./gatherer.yaml --check
  kalshi gather --check --format json
  kalshi gather --plan
  kalshi gather --plan --gatherers 3 --format json
  KALSHI_KEY_ID=... TIMESCALEDB_PASSWORD=... kalshi gather --config ./gatherer.yaml")]
    Gather(Gather),

    /// Run the deduplicator: merge what the gatherers recorded into production
    #[command(after_help = "\
Examples:
  kalshi dedup
  kalshi dedup --config ./deduplicator.yaml --check
  kalshi dedup --check --format json
  kalshi dedup --status
  kalshi dedup --status --format json
  kalshi dedup --only archive")]
    Dedup(Dedup),

    /// Declare, check and tend the archive: production as Parquet in a bucket or a directory
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        after_help = "\
`kalshi dedup` writes the archive; these read it, whether that runs or not.

Examples:
  kalshi archive ddl --engine duckdb > archive.sql
  kalshi archive verify --since 2d
  kalshi archive compact"
    )]
    Archive(Archive),

    /// Bring a configuration's database to the schema of this version
    #[command(after_help = "\
The file decides what is migrated: a gatherer's file its database, a deduplicator's file production.
The first time takes an administrator's access, `admin` in the file: it makes the database when it is
missing, the roles, and everything in it. Later the service's own user suffices.

Examples:
  kalshi migrate --config /etc/kalshi/gatherer.yaml
  kalshi migrate --config /etc/kalshi/deduplicator.yaml --status
  kalshi migrate --dry-run > pending.sql")]
    Migrate(Migrate),

    /// Give a database role another password, without an outage
    #[command(after_help = "\
Where the password is kept: aws:NAME or aws:NAME#key in AWS Secrets Manager, file:/PATH on a host without
it. The services read it from there, by `password_secret`, and again when the database refuses them.

Four steps: the new password is kept as pending, set in the database as a verifier, tried by a login, and
made current; the one before is kept. A run that died anywhere is completed by the next one, or undone by
--rollback. Two at once: the second is refused (75).

Examples:
  kalshi rotate-password --role deduplicator
  kalshi rotate-password --config /etc/kalshi/gatherer.yaml --role gatherer
  kalshi rotate-password --role exporter --secret aws:kalshi/exporter#password --strategy alternating
  kalshi rotate-password --all --dry-run
  kalshi rotate-password --all --check-age 90d --format json
  kalshi rotate-password --role deduplicator --rollback")]
    RotatePassword(RotatePassword),

    /// Prove that the record is complete, or say exactly where it is not
    #[command(after_help = "\
Reads production and the gatherers that answer, beside whatever runs, and changes nothing unless told to.
Exits with 0 when the record holds, with 2 when something was found, and with 1 when that could not be
told. Coverage is written within an hour: what is younger is known from gatherers that answer.

Examples:
  kalshi verify all --since 2h --textfile /var/lib/node_exporter/kalshi_verify.prom
  kalshi verify gaps --since 7d --series KXGOLD15M
  kalshi verify gaps --since 2026-08-05T03:00:00Z --until 2026-08-05T04:00:00Z --channel trade
  kalshi verify books --market KXGOLD15M-26AUG050000-00 --format json
  kalshi verify trades --since 1h --against-exchange
  kalshi verify trades --since 1d --against-exchange --repair
  kalshi verify counts --config ./deduplicator.yaml")]
    Verify(Verify),

    /// Run the whole platform on this machine against a simulated exchange, and compare
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "\
Starts throw-away PostgreSQL clusters, a simulated exchange, gatherers and a deduplicator, and at the
end compares production with everything that the exchange published. Exits with 0 when nothing was
lost or doubled, and with 2 when something was.

Examples:
  kalshi sandbox
  kalshi sandbox --markets 2000 --rate 20000 --duration 2m
  kalshi sandbox --chaos kill-gatherer,stop-postgres --seed 7 --format json
  kalshi sandbox --chaos --duration 10m --seed 7
  kalshi sandbox --replay window-*.jsonl --speed 20
  kalshi sandbox exchange --listen 127.0.0.1:7000 --markets 50"
    )]
    Sandbox(Box<Sandbox>),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("shows").args(["check", "plan"])))]
pub struct Gather {
    /// The gatherer's configuration
    #[arg(long, value_name = "FILE", default_value = GATHERER_FILE)]
    pub config: PathBuf,

    /// Check the configuration and its connections, change nothing
    #[arg(long)]
    pub check: bool,

    /// Print what it would do at the exchange, connect to no stream
    ///
    /// Lists the markets, asks for the account's limits, and prints sessions, markets a session, the
    /// REST requests a second that lists and poller take, the time until every market is covered,
    /// and what does not fit.
    #[arg(long, conflicts_with = "check")]
    pub plan: bool,

    /// For --plan: gatherers like this one under one user of the exchange, who share its connections
    /// and its REST budget; by default sessions.user_gatherers
    #[arg(long, value_name = "N", requires = "plan", conflicts_with = "check", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub gatherers: Option<u16>,

    /// For --plan: the most markets of one subscription, which the exchange does not publish
    #[arg(long, value_name = "N", requires = "plan", conflicts_with = "check", value_parser = clap::value_parser!(u32).range(1..))]
    pub markets_max: Option<u32>,

    /// For --check and --plan: how to print it
    #[arg(long, value_enum, default_value_t = Format::Table, requires = "shows")]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("shows").args(["check", "status"])))]
pub struct Dedup {
    /// The deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,

    /// Check the configuration and its connections, change nothing
    #[arg(long)]
    pub check: bool,

    /// Print how far each log of each gatherer is merged, who writes, and what production keeps
    ///
    /// Asks the databases alone: it works whether the deduplicator runs or not, and while a gatherer
    /// is away.
    #[arg(long, conflicts_with = "check")]
    pub status: bool,

    /// Run one part alone, where production can be reached; the others are somebody else's
    #[arg(long, value_name = "PART", value_enum, conflicts_with_all = ["check", "status"])]
    pub only: Option<Part>,

    /// For --check and --status: how to print it
    #[arg(long, value_enum, default_value_t = Format::Table, requires = "shows")]
    pub format: Format,
}

/// A part of `dedup` that can run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Merge, and leave the archive to another process
    Merge,
    /// Archive production, and merge nothing
    Archive,
}

#[derive(Debug, Args)]
pub struct Migrate {
    /// A gatherer's or a deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,

    /// Print the SQL that would run, change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print what has run and what is pending, change nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub status: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whose").args(["role", "all"]).required(true)))]
#[command(group(ArgGroup::new("action").args(["dry_run", "rollback", "check_age"])))]
pub struct RotatePassword {
    /// A gatherer's or a deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,

    /// The role, in every database that the file logs in to as it; else in the file's own
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,

    /// Every role of the list `rotation` in the file, one after the other, up to the first that fails
    #[arg(long)]
    pub all: bool,

    /// Where the password is kept; by default the role's `password_secret` in the file
    #[arg(long, value_name = "PLACE", conflicts_with = "all")]
    pub secret: Option<String>,

    /// One login, or two that take turns (NAME_a, NAME_b) for programs that cannot read the secret again
    #[arg(long, value_enum, default_value_t = Strategy::Single, conflicts_with = "all")]
    pub strategy: Strategy,

    /// Run by the shell once the new password is current, for programs that are not ours
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["all", "action"])]
    pub reload: Option<String>,

    /// Connect, check and rehearse everything, change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Go back to the previous password, or undo a rotation that is half way
    #[arg(long)]
    pub rollback: bool,

    /// Exit with 2 when a password is older, like 90d; change nothing
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub check_age: Option<Duration>,

    /// Go on although the secret does not hold the password that the database has now
    #[arg(long, conflicts_with_all = ["rollback", "check_age"])]
    pub force: bool,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    Single,
    Alternating,
}

#[derive(Debug, Args)]
pub struct Sandbox {
    #[command(subcommand)]
    pub command: Option<SandboxCommand>,

    #[command(flatten)]
    pub flow: Flow,

    /// Gatherers, each with a database of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub gatherers: u16,

    /// Order-book connections of each gatherer
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub connections: u16,

    /// What to break, on a schedule made from the seed; without a value all that fits the run
    #[arg(long, value_name = "KIND", value_parser = chaos(), value_delimiter = ',', num_args = 0..=1, default_missing_value = "all")]
    pub chaos: Vec<Chaos>,

    /// How long stop-postgres and stop-production keep a database away; by default 60s
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "chaos")]
    pub outage: Option<Duration>,

    /// How to print the verdict
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Archive production as Parquet too, into the run's directory, where --keep leaves it
    #[arg(long)]
    pub archive: bool,

    /// Keep databases, journals, logs and configurations of the run
    #[arg(long)]
    pub keep: bool,

    /// PostgreSQL's programs, as /usr/lib/postgresql/17/bin; by default those of this machine are found
    ///
    /// With TimescaleDB beside them, gatherers' databases are divided by it.
    #[arg(long, value_name = "DIR")]
    pub postgres: Option<PathBuf>,

    /// Where the run lives; by default a temporary directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Run the simulated exchange alone, for any client
    #[command(after_help = "\
The first line on stdout is a JSON object with rest_url, ws_url, control_url, key_id and
private_key_file.

The control plane under control_url (loopback only; key = number of an account from 0, times in ms,
channel = orderbook_delta by default):
  GET  status, ledger/counts, ledger/deltas
  POST publish
  POST cut?key&ms  refuse?key&ms&status  close?key&code  stall?key&ms  half-open?key
       hold?key&ms&what=pongs|everything  pings?key&n
  POST drop?key&channel&n  repeat?key&channel&n  reset?key&channel
       terminate?key&channel&code=10|25  dead?key&channel&known=true|false
  POST fail?key&code&n  ignore?key&n  early?key&n  yes-price?key&ignore=true|false
       garbage?key&channel  mangle?key&how=torn|flipped|oversize  inject (NDJSON in the body)
  POST rest?fault=status&status|slow&delay_ms|repeat-cursor|empty-page|shift-back&items|
       shift-on&items|clear, with n or ms, and key or path where only some calls are meant
  POST maintenance?ms&in_ms  trading?active=true|false  limits?markets&commands&outbox_bytes&read_tokens
  POST market?ticker&listed=true|false&touched=true|false (fields in the body)
       cutoff?settled_ts|trades_ts
  POST churn?per_minute&ms  burst?rate|factor&ms  blast?changes

Examples:
  kalshi sandbox exchange --listen 127.0.0.1:7000
  kalshi sandbox exchange --listen 127.0.0.1:0 --idle
  curl -X POST 'http://127.0.0.1:7000/sandbox/refuse?key=0&ms=5000&status=429'")]
    Exchange(Exchange),
}

#[derive(Debug, Args)]
pub struct Exchange {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub flow: Flow,

    /// Publish only what is injected
    #[arg(long, conflicts_with_all = ["markets", "multivariate", "rate", "burst", "duration", "replay", "speed"])]
    pub idle: bool,
}

/// What the simulated exchange publishes.
#[derive(Debug, Clone, Args)]
pub struct Flow {
    /// Markets to generate
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub markets: u32,

    /// Multivariate (combo) markets to generate beside them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub multivariate: u32,

    /// Order-book changes a second over all markets
    #[arg(long, value_name = "R", default_value_t = 2000.0, value_parser = positive)]
    pub rate: f64,

    /// The pace of the bursts, as a multiple of the rate: one tenth of a second in ten, on average;
    /// 1 for a steady flow
    #[arg(long, value_name = "X", default_value_t = 4.0, value_parser = positive)]
    pub burst: f64,

    /// How long to publish, like 60s or 5m; by default 60s, and without end for `exchange`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Publish recorded frames instead of generated ones
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["markets", "multivariate", "rate", "burst", "duration"])]
    pub replay: Vec<PathBuf>,

    /// How many times faster than recorded; by default 20, and 1 for `exchange`
    #[arg(long, value_name = "X", value_parser = positive, requires = "replay")]
    pub speed: Option<f64>,

    /// Makes the run repeatable; random when it is not given
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// What to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chaos {
    /// Everything that fits the run.
    All,
    One(ChaosKind),
}

/// Reads a kind, and lists all of them in the help.
fn chaos() -> impl TypedValueParser<Value = Chaos> {
    let all = PossibleValue::new("all").help("Everything that fits the run");
    let kinds = ChaosKind::ALL.map(|kind| PossibleValue::new(kind.name()).help(kind.help()));
    PossibleValuesParser::new([all].into_iter().chain(kinds)).try_map(|name| match name.as_str() {
        "all" => Ok(Chaos::All),
        name => name.parse().map(Chaos::One),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// Parses a command line. `Err` means that it is dealt with: help or an explanation is printed, and
/// the code says which of the two.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| {
        // There is nobody left to tell when the terminal is gone.
        error.print().ok();
        ExitCode::from(exit(&error))
    })
}

/// clap's own code for bad usage is 2, which here means that something was lost.
fn exit(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Stopped,
        _ => Exit::Usage,
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("it is not a number above 0".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match crate::ops::duration::parse(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it is not a duration like 500ms, 60s or 5m".to_owned()),
    }
}

#[cfg(test)]
mod tests;
