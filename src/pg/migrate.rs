//! Migrations: numbered SQL files, embedded, checksummed, forward only, each in its own transaction.
//!
//! refinery applies them. It has no lock, so two runs at once are kept apart by an advisory lock on
//! the session that migrates; and it panics on a history that it did not write, so the history is
//! read and compared here first, which also gives errors that name database and migration.

use std::fmt;
use std::time::Duration;

use refinery::{Migration, Runner};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tracing::debug;

use super::engine::{self, Choice, Engine, EngineError};
use super::error::{Class, ConnectError, classify, describe};
use super::{Options, Target};

/// Session lock of a running migration, numbered after those of [`super::writer`].
pub const MIGRATE_KEY: i64 = 0x6b61_6c73_6869_0003;

/// Longest wait for another migration, and for any table that a migration changes: a statement that
/// queues for a table blocks everybody who comes after it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

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

impl Schema {
    /// The kind that has exactly this migration.
    fn of(entry: &Entry) -> Option<Self> {
        [Self::Gatherer, Self::Production].into_iter().find(|schema| {
            schema.migrations().iter().any(|migration| {
                migration.version() == entry.version
                    && migration.name() == entry.name
                    && migration.checksum().to_string() == entry.checksum
            })
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

/// A line of the database's history, or of the program's list when it is not applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub version: i32,
    pub name: String,
    /// RFC 3339, UTC; none while pending.
    pub applied_at: Option<String>,
    pub checksum: String,
}

/// [`run_with`], telling nobody, with the engine that the tests are about.
#[cfg(test)]
pub async fn run(target: &Target, schema: Schema) -> Result<Report, MigrateError> {
    run_with(target, schema, super::testing::choice(), |_| {}).await
}

/// Brings a database to a version that an older program had.
#[cfg(test)]
pub async fn run_through(
    target: &Target,
    schema: Schema,
    version: i32,
) -> Result<Report, MigrateError> {
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
    lock(&client, target, progress).await?;
    let history = History::read(&client).await?;
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
        progress(Progress::Applying(&step));
        // One at a time, so that each is told of and an error names the one that failed.
        Runner::new(migrations)
            .set_target(refinery::Target::Version(step.version))
            .run_async(&mut client)
            .await
            .map_err(|error| MigrateError::Step {
                database: history.database.clone(),
                step: step.to_string(),
                reason: reason(&error),
            })?;
        progress(Progress::Applied);
        applied.push(step);
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
    let taken: bool =
        client.query_one("SELECT pg_try_advisory_lock($1)", &[&MIGRATE_KEY]).await?.try_get(0)?;
    if taken {
        return Ok(());
    }
    progress(Progress::Waiting);
    match client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATE_KEY]).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(MigrateError::Held { target: target.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// The SQL that [`run_with`] would execute, in order; changes nothing.
pub async fn plan(target: &Target, schema: Schema) -> Result<Vec<Step>, MigrateError> {
    let client = read_only(target).await?;
    let history = History::read(&client).await?;
    Ok(history.pending(&schema.migrations())?.iter().map(Step::from).collect())
}

/// The database's history and what this program would add, in order; changes nothing. A history that
/// differs from the program's is shown, not refused.
pub async fn status(target: &Target, schema: Schema) -> Result<Vec<Entry>, MigrateError> {
    let client = read_only(target).await?;
    let History { applied: mut entries, .. } = History::read(&client).await?;
    for migration in schema.migrations() {
        if !entries.iter().any(|entry| entry.version == migration.version()) {
            entries.push(Entry {
                version: migration.version(),
                name: migration.name().to_owned(),
                applied_at: None,
                checksum: migration.checksum().to_string(),
            });
        }
    }
    entries.sort_by_key(|entry| entry.version);
    Ok(entries)
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
        Some(_) => Err(VersionError::Behind {
            database: history.database.clone(),
            version: history.version(),
            needed: newest(&migrations),
        }),
    }
}

/// What `refinery_schema_history` says.
struct History {
    database: String,
    applied: Vec<Entry>,
}

impl History {
    async fn read(client: &Client) -> Result<Self, Error> {
        let sql = "SELECT current_database()::text, version::int4, name, applied_on, checksum
                   FROM refinery_schema_history ORDER BY version";
        let rows = match client.query(sql, &[]).await {
            Ok(rows) => rows,
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Vec::new(),
            Err(error) => return Err(error),
        };
        let database = match rows.first() {
            Some(row) => row.try_get(0)?,
            None => client.query_one("SELECT current_database()::text", &[]).await?.try_get(0)?,
        };
        let mut applied = Vec::with_capacity(rows.len());
        for row in rows {
            applied.push(Entry {
                version: row.try_get(1)?,
                name: row.try_get::<_, Option<String>>(2)?.unwrap_or_default(),
                applied_at: row.try_get(3)?,
                checksum: row.try_get::<_, Option<String>>(4)?.unwrap_or_default(),
            });
        }
        Ok(Self { database, applied })
    }

    fn version(&self) -> i32 {
        self.applied.last().map_or(0, |entry| entry.version)
    }

    /// The migrations that are still to be applied, when what was applied is a beginning of the list.
    fn pending(&self, migrations: &[Migration]) -> Result<Vec<Migration>, VersionError> {
        let (database, newest) = (self.database.clone(), newest(migrations));
        for entry in &self.applied {
            let found = migrations.iter().find(|known| known.version() == entry.version);
            let label = format!("V{}__{}", entry.version, entry.name);
            match found {
                None if entry.version > newest => {
                    let version = self.version();
                    return Err(VersionError::Newer { database, version, needed: newest });
                }
                None => return Err(VersionError::Unknown { database, migration: label }),
                Some(known) => {
                    if known.name() != entry.name || known.checksum().to_string() != entry.checksum
                    {
                        if let Some(kind) = Schema::of(entry) {
                            return Err(VersionError::OtherKind { database, kind });
                        }
                        let known = known.to_string();
                        return Err(VersionError::Changed { database, migration: label, known });
                    }
                }
            }
        }
        let mut pending = Vec::new();
        for migration in migrations {
            if self.applied.iter().any(|entry| entry.version == migration.version()) {
                continue;
            }
            if migration.version() < self.version() {
                let migration = migration.to_string();
                return Err(VersionError::Skipped { database, migration });
            }
            pending.push(migration.clone());
        }
        Ok(pending)
    }
}

/// The server's own words out of refinery's error, which quotes only "db error".
fn reason(error: &refinery::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error.kind());
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return describe(error);
        }
        source = cause.source();
    }
    error.to_string()
}

/// How the database's schema differs from the program's. `Display` is the whole reason and what to
/// do.
#[derive(Debug)]
pub enum VersionError {
    Behind {
        database: String,
        version: i32,
        needed: i32,
    },
    Newer {
        database: String,
        version: i32,
        needed: i32,
    },
    /// A migration was edited after it was applied.
    Changed {
        database: String,
        migration: String,
        known: String,
    },
    /// It is a database of the other kind.
    OtherKind {
        database: String,
        kind: Schema,
    },
    /// The database has a migration that the program does not know, older than its newest.
    Unknown {
        database: String,
        migration: String,
    },
    /// The database never got a migration older than its newest.
    Skipped {
        database: String,
        migration: String,
    },
    Pg(Error),
}

impl VersionError {
    /// A wrong schema needs a person; a failed question may be asked again.
    pub fn class(&self) -> Class {
        match self {
            Self::Pg(error) => classify(error),
            _ => Class::Fatal,
        }
    }
}

impl From<Error> for VersionError {
    fn from(error: Error) -> Self {
        Self::Pg(error)
    }
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { database, version, needed } => write!(
                f,
                "database {database} is at version {version}, this program needs {needed}: \
                 run `kalshi migrate --config FILE` with this configuration file"
            ),
            Self::Newer { database, version, needed } => write!(
                f,
                "database {database} is at version {version}, this program knows only {needed}: \
                 install the newer program"
            ),
            Self::Changed { database, migration, known } => write!(
                f,
                "migration {migration} in database {database} differs from {known} in this program: \
                 an applied migration was edited; restore the file and put the change into a new one"
            ),
            Self::OtherKind { database, kind } => write!(
                f,
                "database {database} is a {kind} database, which this is not the place for: correct \
                 the configuration"
            ),
            Self::Unknown { database, migration } => write!(
                f,
                "database {database} has migration {migration}, which this program does not have: \
                 it was made by another line of development"
            ),
            Self::Skipped { database, migration } => write!(
                f,
                "database {database} never got migration {migration}, and has newer ones: \
                 a migration must get a number above all applied ones"
            ),
            Self::Pg(error) => write!(f, "read schema version: {}", describe(error)),
        }
    }
}

impl std::error::Error for VersionError {}

/// Why the database was not migrated. `Display` is the whole reason.
#[derive(Debug)]
pub enum MigrateError {
    Connect(ConnectError),
    /// Another migration of this database did not end within 30 s.
    Held {
        target: String,
    },
    Version(VersionError),
    /// Its logs cannot be divided as the configuration asks.
    Engine(EngineError),
    /// One migration failed and was rolled back; those before it stay applied.
    Step {
        database: String,
        step: String,
        reason: String,
    },
}

impl From<VersionError> for MigrateError {
    fn from(error: VersionError) -> Self {
        Self::Version(error)
    }
}

impl From<EngineError> for MigrateError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<Error> for MigrateError {
    fn from(error: Error) -> Self {
        Self::Version(VersionError::Pg(error))
    }
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Held { target } => {
                write!(
                    f,
                    "another migration of {target} has been running for {} s",
                    LOCK_TIMEOUT.as_secs()
                )
            }
            Self::Version(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::Step { database, step, reason } => {
                write!(
                    f,
                    "migration {step} of database {database} failed and was rolled back: {reason}"
                )
            }
        }
    }
}

impl std::error::Error for MigrateError {}
