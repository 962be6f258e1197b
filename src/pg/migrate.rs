//! Migrations: numbered SQL files, embedded, checksummed, forward only, each in its own transaction.
//!
//! refinery applies them. It has no lock, so two runs at once are kept apart by an advisory lock on
//! the session that migrates; and it panics on a history that it did not write, so the history is
//! read and compared here first, which also gives errors that name database and migration.

mod access;
mod error;
mod history;

use std::fmt;
use std::time::Duration;

use refinery::{Migration, Runner};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tracing::debug;

use super::advisory::{self, Lock};
use super::engine::{self, Choice, Engine};
use super::error::describe;
use super::{Options, Target};
use crate::ops::crash;
pub use access::{create_database, create_database_sql, exists, expect_server};
pub use error::{MigrateError, VersionError};
pub use history::Entry;
use history::History;

/// Longest wait for another migration, and for any table that a migration changes: a statement that
/// queues for a table blocks everybody who comes after it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// This program, as a database remembers who migrated it.
const PROGRAM: &str =
    concat!("kalshi ", env!("CARGO_PKG_VERSION"), " (", env!("KALSHI_COMMIT"), ")");

mod gatherer {
    refinery::embed_migrations!("sql/gatherer");
}

mod production {
    refinery::embed_migrations!("sql/production");
}

/// Which of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schema {
    /// The logs of one gatherer.
    Gatherer,
    /// What the deduplicator writes.
    Production,
}

impl Schema {
    fn migrations(self) -> Vec<Migration> {
        let runner = match self {
            Self::Gatherer => gatherer::migrations::runner(),
            Self::Production => production::migrations::runner(),
        };
        let mut migrations = runner.get_migrations().clone();
        migrations.sort();
        migrations
    }

    /// The version that this program needs.
    pub fn version(self) -> i32 {
        newest(&self.migrations())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gatherer => "gatherer",
            Self::Production => "production",
        })
    }
}

fn newest(migrations: &[Migration]) -> i32 {
    migrations.iter().map(Migration::version).max().unwrap_or(0)
}

/// One migration that is, or would be, applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub version: i32,
    pub name: String,
    pub sql: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{}__{}", self.version, self.name)
    }
}

impl From<&Migration> for Step {
    fn from(migration: &Migration) -> Self {
        Self {
            version: migration.version(),
            name: migration.name().to_owned(),
            sql: migration.sql().unwrap_or_default().to_owned(),
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The database's own name.
    pub database: String,
    /// What was applied, in order; empty when the database was at this version already.
    pub applied: Vec<Step>,
    /// The database's version now.
    pub version: i32,
    /// What divides a gatherer's logs.
    pub engine: Option<Engine>,
}

/// What a run tells while it goes.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Another migration of this database is running.
    Waiting,
    Applying(&'a Step),
    /// The step that was being applied is committed.
    Applied,
}

/// A database's history beside the program's list.
#[derive(Debug)]
pub struct Status {
    /// What was applied and what this program would add, in order.
    pub entries: Vec<Entry>,
    /// Why the one is no beginning of the other, when it is not.
    pub refusal: Option<VersionError>,
}

/// [`run_with`], telling nobody, with the engine that the tests are about.
#[cfg(test)]
pub async fn run(target: &Target, schema: Schema) -> Result<Report, MigrateError> {
    run_with(target, schema, super::testing::choice(), |_| {}).await
}

/// As far as one migration: a database as an older program left it.
#[cfg(test)]
pub async fn run_to(target: &Target, schema: Schema, version: i32) -> Result<Report, MigrateError> {
    let mut migrations = schema.migrations();
    migrations.retain(|migration| migration.version() <= version);
    run_list(target, &migrations, None, &mut |_| {}).await
}

/// Brings the database to this program's version, telling of each step. Waits up to 30 s for another
/// run. `choice` is what is to divide the logs of a gatherer's database.
pub async fn run_with(
    target: &Target,
    schema: Schema,
    choice: Choice,
    mut progress: impl FnMut(Progress<'_>) + Send,
) -> Result<Report, MigrateError> {
    let choice = (schema == Schema::Gatherer).then_some(choice);
    run_list(target, &schema.migrations(), choice, &mut progress).await
}

async fn run_list(
    target: &Target,
    migrations: &[Migration],
    choice: Option<Choice>,
    progress: &mut (impl FnMut(Progress<'_>) + Send),
) -> Result<Report, MigrateError> {
    let options = Options { lock_timeout: Some(LOCK_TIMEOUT), ..Options::default() };
    let mut client = target.connect_with(options).await.map_err(MigrateError::Connect)?;
    access::expect_utf8(&client).await?;
    lock(&client, target, progress).await?;
    let history = access::history(&client, target).await?;
    let pending = history.pending(migrations)?;
    let mut engine = None;
    if let Some(choice) = choice {
        let settled = engine::settle(&client, choice).await?;
        let sql = "SELECT set_config('kalshi.engine', $1, false)";
        client.query_one(sql, &[&settled.name()]).await?;
        engine = Some(settled);
    }
    let mut applied = Vec::new();
    for migration in pending {
        let step = Step::from(&migration);
        access::become_owner(&client, target).await?;
        progress(Progress::Applying(&step));
        crash::point("migrate-before-step");
        // One at a time, so that each is told of and an error names the one that failed.
        Runner::new(migrations)
            .set_target(refinery::Target::Version(step.version))
            .run_async(&mut client)
            .await
            .map_err(|error| failure(&error, target, &history.database, &step))?;
        crash::point("migrate-after-step");
        progress(Progress::Applied);
        applied.push(step);
    }
    // Also when the run before was killed in between; what it is good for is a better message, so a
    // user who has nothing else to do needs no right for it.
    if !applied.is_empty() || history.by.is_none() {
        match access::sign(&client, target, PROGRAM).await {
            Err(error) if applied.is_empty() => debug!(%target, %error, "history is not signed"),
            signed => signed?,
        }
    }
    let version = applied.last().map_or(history.version(), |step| step.version);
    debug!(%target, version, applied = applied.len(), "migrated");
    // The lock ends with the session.
    Ok(Report { database: history.database, applied, version, engine })
}

async fn lock(
    client: &Client,
    target: &Target,
    progress: &mut (impl FnMut(Progress<'_>) + Send),
) -> Result<(), MigrateError> {
    if advisory::take(client, Lock::Migrate).await? {
        return Ok(());
    }
    progress(Progress::Waiting);
    match client.execute("SELECT pg_advisory_lock($1)", &[&Lock::Migrate.key()]).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(MigrateError::Held { target: target.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// The SQL that [`run_with`] would execute, in order; changes nothing.
pub async fn plan(
    target: &Target,
    schema: Schema,
    choice: Choice,
) -> Result<Vec<Step>, MigrateError> {
    let client = read_only(target).await?;
    access::expect_utf8(&client).await?;
    let history = access::history(&client, target).await?;
    if schema == Schema::Gatherer {
        engine::settle(&client, choice).await?;
    }
    Ok(history.pending(&schema.migrations())?.iter().map(Step::from).collect())
}

/// The SQL of every migration, as a database that does not exist yet would get it.
pub fn whole_plan(schema: Schema) -> Vec<Step> {
    schema.migrations().iter().map(Step::from).collect()
}

/// The list of migrations, none of them applied.
pub fn whole_list(schema: Schema) -> Vec<Entry> {
    schema.migrations().iter().map(Entry::pending).collect()
}

/// The database's history and what this program would add; changes nothing. A history that differs
/// from the program's is shown, with the reason why it is refused.
pub async fn status(target: &Target, schema: Schema) -> Result<Status, MigrateError> {
    let client = read_only(target).await?;
    let history = access::history(&client, target).await?;
    let refusal = history.pending(&schema.migrations()).err();
    let mut entries = history.applied;
    for migration in schema.migrations() {
        if !entries.iter().any(|entry| entry.version == migration.version()) {
            entries.push(Entry::pending(&migration));
        }
    }
    entries.sort_by_key(|entry| entry.version);
    Ok(Status { entries, refusal })
}

async fn read_only(target: &Target) -> Result<Client, MigrateError> {
    let options = Options { read_only: true, ..Options::default() };
    target.connect_with(options).await.map_err(MigrateError::Connect)
}

/// Whether the database has exactly the migrations of this program; what a daemon asks before it
/// touches anything. One query.
pub async fn check(client: &Client, schema: Schema) -> Result<(), VersionError> {
    let migrations = schema.migrations();
    let history = History::read(client).await?;
    match history.pending(&migrations)?.first() {
        None => Ok(()),
        Some(_) if advisory::is_held(client, Lock::Migrate).await? => {
            Err(VersionError::Migrating { database: history.database.clone() })
        }
        Some(_) => Err(VersionError::Behind {
            database: history.database.clone(),
            schema,
            version: history.version(),
            needed: newest(&migrations),
        }),
    }
}

/// A step that failed, in the server's own words: refinery's error quotes only "db error".
fn failure(error: &refinery::Error, target: &Target, database: &str, step: &Step) -> MigrateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error.kind());
    let mut reason = error.to_string();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<Error>() {
            reason = describe(error);
            if access::is_missing_right(error) {
                let (user, name) = (super::quoted(&target.user), super::quoted(database));
                return MigrateError::Rights {
                    what: format!(
                        "migration {step} of database {database} failed and was rolled back"
                    ),
                    reason,
                    user: target.user.clone(),
                    cure: format!(
                        "ALTER ROLE {user} CREATEROLE; ALTER DATABASE {name} OWNER TO {user}; (and \
                         take both back afterwards)"
                    ),
                };
            }
            break;
        }
        source = cause.source();
    }
    MigrateError::Step { database: database.to_owned(), step: step.to_string(), reason }
}
