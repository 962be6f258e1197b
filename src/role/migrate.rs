//! `kalshi migrate`: brings one database to this program's schema, or shows what that would do.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};

use crate::ops::exit::{HeldError, UsageError};
use crate::pg::Target;
use crate::pg::engine::{Choice, EngineError};
use crate::pg::migrate::{self, Entry, MigrateError, Progress, Schema, VersionError};

/// What to do; by default, migrate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Print the history and what is pending, change nothing.
    pub status: bool,
    /// Print the SQL that would run, change nothing.
    pub dry_run: bool,
    /// What is to divide the logs of a gatherer's database.
    pub engine: Choice,
}

/// Runs the command; what people want to know goes to stdout.
pub async fn run(target: Target, schema: Schema, options: Options) -> Result<()> {
    if options.status {
        let entries = migrate::status(&target, schema).await.map_err(explain)?;
        return print(&status_text(&entries));
    }
    if options.dry_run {
        let steps = migrate::plan(&target, schema).await.map_err(explain)?;
        let mut text = String::new();
        if schema == Schema::Gatherer {
            text = format!("SET kalshi.engine = '{}';\n", options.engine.name());
        }
        for step in &steps {
            text.push_str(&format!("-- {step}\n{}\n", step.sql));
        }
        if steps.is_empty() {
            text = format!("-- {target} is at version {}: nothing to do\n", schema.version());
        }
        return print(&text);
    }
    let report = migrate::run_with(&target, schema, options.engine, |progress| {
        // A closed stdout is no reason to leave a database half way.
        let _printed = match progress {
            Progress::Waiting => print("waiting for another migration of this database\n"),
            Progress::Applying(step) => print(&format!("applying {step} ... ")),
            Progress::Applied => print("done\n"),
        };
    })
    .await
    .map_err(explain)?;
    let what = match report.applied.len() {
        0 => "nothing to do".to_owned(),
        1 => "1 migration applied".to_owned(),
        n => format!("{n} migrations applied"),
    };
    let engine = report.engine.map(|engine| format!("its logs are divided by {engine}\n"));
    print(&format!(
        "{schema} database {target} is at version {}: {what}\n{}",
        report.version,
        engine.unwrap_or_default()
    ))
}

fn status_text(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["version", "name", "applied at", "checksum"]);
    for entry in entries {
        table.add_row([
            entry.version.to_string(),
            entry.name.clone(),
            entry.applied_at.clone().unwrap_or_else(|| "pending".to_owned()),
            entry.checksum.clone(),
        ]);
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if entries.is_empty() {
        text.push_str("no migrations\n");
    }
    text
}

/// Gives errors that a restart cannot cure their exit code.
fn explain(error: MigrateError) -> anyhow::Error {
    let text = error.to_string();
    match error {
        MigrateError::Held { .. } => HeldError(text).into(),
        MigrateError::Version(VersionError::Pg(_)) => error.into(),
        MigrateError::Engine(EngineError::Pg(_)) => error.into(),
        MigrateError::Version(_) | MigrateError::Engine(_) => UsageError(text).into(),
        _ => error.into(),
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}
