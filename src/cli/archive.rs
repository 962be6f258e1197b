//! The arguments of `kalshi archive`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::{DEDUPLICATOR_FILE, Format, duration};
use crate::role::archive::ddl::Engine;

#[derive(Debug, Args)]
pub struct Archive {
    #[command(subcommand)]
    pub command: ArchiveCommand,
}

#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Print what declares the archive's tables to an engine
    #[command(after_help = "\
Examples:
  kalshi archive ddl --engine athena --url s3://bucket/prefix
  kalshi archive ddl --engine duckdb --config ./deduplicator.yaml > archive.sql")]
    Ddl(Ddl),

    /// Prove that the archive holds what its manifests say and what production has
    #[command(after_help = "\
Reads every part again: hashes, rows, days, places in the log; counts days in production as far as it
has them; and folds some books from the parts alone.

Examples:
  kalshi archive verify
  kalshi archive verify --since 2d --books 100 --format json
  kalshi archive verify --offline")]
    Verify(ArchiveVerify),

    /// Make the small parts of past days into large ones, as the archiver does each day
    #[command(after_help = "\
Examples:
  kalshi archive compact --config ./deduplicator.yaml")]
    Compact(ArchiveCompact),
}

#[derive(Debug, Args)]
pub struct Ddl {
    /// Who reads the archive
    #[arg(long, value_name = "NAME", value_parser = engine())]
    pub engine: Engine,

    /// Where the archive is; by default as the configuration says
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// The deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct ArchiveVerify {
    /// The deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,

    /// Look at the days since so long ago only, like 2d; by default at all
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,

    /// How many books to fold and compare
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub books: usize,

    /// Compare nothing with production
    #[arg(long)]
    pub offline: bool,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ArchiveCompact {
    /// The deduplicator's configuration
    #[arg(long, value_name = "FILE", default_value = DEDUPLICATOR_FILE)]
    pub config: PathBuf,
}

/// Reads an engine, and lists all of them in the help.
fn engine() -> impl TypedValueParser<Value = Engine> {
    let names = Engine::ALL.map(|engine| PossibleValue::new(engine.name()));
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Engine>())
}
