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

/// Runs the command; what people want to know goes to stdout. An administrator's access, when there is
/// one, is used in place of the service's own and may make the database.
///
/// # Errors
/// `UsageError` where a restart cures nothing: another kind of database, a history that differs, an
/// encoding that cannot be used, a missing right. `HeldError` when another migration does not end.
pub async fn run(
    own: Target,
    admin: Option<Target>,
    schema: Schema,
    options: Options,
) -> Result<()> {
    let (target, may_create) = admin.map_or((own, false), |admin| (admin, true));
    if options.status {
        if may_create && !migrate::exists(&target).await.map_err(|error| explain(error, &target))? {
            let pending = migrate::whole_list(schema);
            return print(&format!(
                "database {} does not exist: `kalshi migrate` makes it\n{}",
                target.database,
                status_text(&pending)
            ));
        }
        let status =
            migrate::status(&target, schema).await.map_err(|error| explain(error, &target))?;
        print(&status_text(&status.entries))?;
        return status.refusal.map_or(Ok(()), |refusal| Err(explain(refusal.into(), &target)));
    }
    if options.dry_run {
        let text = dry_run(&target, may_create, schema, options.engine).await;
        return print(&text.map_err(|error| explain(error, &target))?);
    }
    if may_create {
        create(&target, schema, options.engine).await.map_err(|error| explain(error, &target))?;
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
    .map_err(|error| explain(error, &target))?;
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

/// Makes the database if it is missing and the server is fit for it.
async fn create(target: &Target, schema: Schema, engine: Choice) -> Result<(), MigrateError> {
    if migrate::exists(target).await? {
        return Ok(());
    }
    if schema == Schema::Gatherer {
        migrate::expect_server(target, engine).await?;
    }
    if migrate::create_database(target).await? {
        // A closed stdout is no reason to leave the database empty.
        let _printed = print(&format!("made database {}\n", target.database));
    }
    Ok(())
}

async fn dry_run(
    target: &Target,
    may_create: bool,
    schema: Schema,
    engine: Choice,
) -> Result<String, MigrateError> {
    let mut text = String::new();
    let steps = if may_create && !migrate::exists(target).await? {
        if schema == Schema::Gatherer {
            migrate::expect_server(target, engine).await?;
        }
        let name = &target.database;
        let make = migrate::create_database_sql(name);
        text.push_str(&format!("{make};\n\\connect \"{}\"\n", name.replace('"', "\"\"")));
        migrate::whole_plan(schema)
    } else {
        migrate::plan(target, schema, engine).await?
    };
    if schema == Schema::Gatherer {
        text.push_str(&format!("SET kalshi.engine = '{}';\n", engine.name()));
    }
    for step in &steps {
        text.push_str(&format!("-- {step}\n{}\n", step.sql));
    }
    if steps.is_empty() {
        text = format!("-- {target} is at version {}: nothing to do\n", schema.version());
    }
    Ok(text)
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

/// Gives errors that a restart cannot cure their exit code, and those of an administrator's access, which
/// as a rule is a user of the machine, what to do.
fn explain(error: MigrateError, target: &Target) -> anyhow::Error {
    let mut text = error.to_string();
    if text.contains("Peer authentication failed") {
        let user = &target.user;
        text.push_str(&format!(
            "\nthe server takes {user} over its socket only from the machine's user of that name: run \
             `sudo -u {user} kalshi migrate --config FILE`"
        ));
        return UsageError(text).into();
    }
    match error {
        MigrateError::Held { .. } => HeldError(text).into(),
        MigrateError::Version(VersionError::Pg(_)) => error.into(),
        MigrateError::Engine(EngineError::Pg(_)) => error.into(),
        MigrateError::Version(_)
        | MigrateError::Engine(_)
        | MigrateError::Encoding { .. }
        | MigrateError::Rights { .. } => UsageError(text).into(),
        MigrateError::Connect(_) | MigrateError::Step { .. } => error.into(),
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}
