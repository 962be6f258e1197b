//! What divides a gatherer's logs into parts that can be dropped: TimescaleDB's hypertables, or
//! PostgreSQL's own partitions. Chosen when a database is migrated to the version that divides them; from
//! then on the database is what it is, and its catalogue says so.

use std::fmt;

use tokio_postgres::{Error, GenericClient};

use super::describe;

/// What a configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// TimescaleDB where the server offers it.
    #[default]
    Auto,
    Timescaledb,
    Native,
}

/// What a database is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Timescaledb,
    Native,
}

impl Choice {
    /// As in a configuration, and in the session's setting that the migration reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Timescaledb => "timescaledb",
            Self::Native => "native",
        }
    }

    const fn allows(self, engine: Engine) -> bool {
        match self {
            Self::Auto => true,
            Self::Timescaledb => matches!(engine, Engine::Timescaledb),
            Self::Native => matches!(engine, Engine::Native),
        }
    }
}

impl Engine {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timescaledb => "timescaledb",
            Self::Native => "native",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timescaledb => "TimescaleDB",
            Self::Native => "PostgreSQL's own partitions",
        })
    }
}

/// All logs are divided by one step, so any of them tells.
const ANY: &str = "coverage";

/// What divides the logs of a database; none where nothing does yet.
pub async fn find(client: &impl GenericClient) -> Result<Option<Engine>, Error> {
    let sql = "SELECT relkind = 'p', EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') \
               FROM pg_class WHERE oid = to_regclass($1)";
    let Some(row) = client.query_opt(sql, &[&ANY]).await? else { return Ok(None) };
    let (is_partitioned, has_extension): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    if is_partitioned {
        return Ok(Some(Engine::Native));
    }
    if !has_extension {
        return Ok(None);
    }
    let sql = "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables \
               WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass($1))";
    let is_hypertable: bool = client.query_one(sql, &[&ANY]).await?.try_get(0)?;
    Ok(is_hypertable.then_some(Engine::Timescaledb))
}

/// What divides the logs, if that is what is asked for.
///
/// # Errors
/// [`EngineError::Other`] when it is not.
pub async fn expect(
    client: &impl GenericClient,
    choice: Choice,
) -> Result<Option<Engine>, EngineError> {
    match find(client).await? {
        Some(engine) if !choice.allows(engine) => {
            let database = database(client).await?;
            Err(EngineError::Other { database, engine, choice })
        }
        found => Ok(found),
    }
}

/// What is to divide the logs: what does, else what is asked for, if the server has it.
///
/// # Errors
/// When another engine is asked for than there is, or one that the server does not have.
pub async fn settle(client: &impl GenericClient, choice: Choice) -> Result<Engine, EngineError> {
    if let Some(engine) = expect(client, choice).await? {
        return Ok(engine);
    }
    if choice == Choice::Native {
        return Ok(Engine::Native);
    }
    // The server's loader of the extension defines the setting.
    let sql = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb'), \
                 current_setting('timescaledb.max_background_workers', true) IS NOT NULL";
    let row = client.query_one(sql, &[]).await?;
    match (row.try_get(0)?, row.try_get(1)?, choice) {
        (true, true, _) => Ok(Engine::Timescaledb),
        (true, false, _) => Err(EngineError::NotLoaded { database: database(client).await? }),
        (false, _, Choice::Timescaledb) => {
            Err(EngineError::Missing { database: database(client).await? })
        }
        (false, ..) => Ok(Engine::Native),
    }
}

async fn database(client: &impl GenericClient) -> Result<String, Error> {
    client.query_one("SELECT current_database()::text", &[]).await?.try_get(0)
}

/// Why a database cannot be what is asked for. `Display` is the whole reason and what to do.
#[derive(Debug)]
pub enum EngineError {
    Other {
        database: String,
        engine: Engine,
        choice: Choice,
    },
    Missing {
        database: String,
    },
    /// The extension's files are there, and the server was started without it.
    NotLoaded {
        database: String,
    },
    Pg(Error),
}

impl EngineError {
    /// The same of another database of the server.
    pub fn of(self, name: &str) -> Self {
        let database = name.to_owned();
        match self {
            Self::Other { engine, choice, .. } => Self::Other { database, engine, choice },
            Self::Missing { .. } => Self::Missing { database },
            Self::NotLoaded { .. } => Self::NotLoaded { database },
            Self::Pg(error) => Self::Pg(error),
        }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        Self::Pg(error)
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { database, engine, choice } => write!(
                f,
                "the logs of database {database} are divided by {engine}, and storage.engine asks for \
                 {}: set it to {} or auto; another engine needs a new database, which is filled from \
                 the journal",
                choice.name(),
                engine.name()
            ),
            Self::Missing { database } => write!(
                f,
                "storage.engine asks for timescaledb, and the server of database {database} does not \
                 have it: install the extension there (Debian: postgresql-17-timescaledb), or set \
                 storage.engine to native"
            ),
            Self::NotLoaded { database } => write!(
                f,
                "the server of database {database} has TimescaleDB and was started without it: add \
                 timescaledb to its shared_preload_libraries and restart it, or set storage.engine to \
                 native"
            ),
            Self::Pg(error) => write!(f, "find out what divides the logs: {}", describe(error)),
        }
    }
}

impl std::error::Error for EngineError {}
