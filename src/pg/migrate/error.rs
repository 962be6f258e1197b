//! Why a database's schema is not this program's, or could not be made so, and what to do about it.

use std::fmt;

use tokio_postgres::Error;

use super::{LOCK_TIMEOUT, Schema};
use crate::ops::exit::UsageError;
use crate::pg::engine::EngineError;
use crate::pg::error::{Class, ConnectError, classify, describe};

/// How the database's schema differs from the program's. `Display` is the whole reason and what to
/// do.
#[derive(Debug)]
pub enum VersionError {
    Behind {
        database: String,
        schema: Schema,
        version: i32,
        needed: i32,
    },
    /// The same, and a migration is running.
    Migrating {
        database: String,
    },
    Newer {
        database: String,
        version: i32,
        needed: i32,
        /// The program that made it so, when it left its name.
        by: Option<String>,
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
    /// The user may not look into the schema, so its version cannot be told.
    Hidden {
        database: String,
        user: String,
    },
    Pg(Error),
}

impl VersionError {
    /// A wrong schema needs a person; a failed question may be asked again.
    pub fn class(&self) -> Class {
        match self {
            Self::Pg(error) => classify(error),
            Self::Hidden { .. } => Class::Auth,
            Self::Migrating { .. } => Class::Retry,
            _ => Class::Fatal,
        }
    }

    /// Whether only another program, or another configuration, can cure it. A database that is behind
    /// comes right when somebody migrates it, and a program that is started again sees that.
    pub fn is_for_good(&self) -> bool {
        !matches!(
            self,
            Self::Behind { .. } | Self::Migrating { .. } | Self::Hidden { .. } | Self::Pg(_)
        )
    }

    /// The error with which a process ends for it: with the exit code of bad configuration when it is
    /// for good.
    pub fn ending(self) -> anyhow::Error {
        let usage = self.is_for_good().then(|| UsageError(self.to_string()));
        let error = anyhow::Error::new(self);
        match usage {
            Some(usage) => error.context(usage),
            None => error,
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
            Self::Behind { database, schema, version, needed } => {
                // Whoever meets it may have another file in hand: the deduplicator reads gatherers'.
                let whose = match schema {
                    Schema::Gatherer => "its gatherer's configuration file",
                    Schema::Production => "the deduplicator's configuration file",
                };
                write!(
                    f,
                    "database {database} is at version {version}, this program needs {needed}: \
                     run `kalshi migrate --config FILE` with {whose}"
                )
            }
            Self::Migrating { database } => {
                write!(f, "database {database} is being migrated to this program's version")
            }
            Self::Newer { database, version, needed, by: Some(by) } => write!(
                f,
                "database {database} is at version {version}, this program knows only {needed}: \
                 install {by}, which made it so, or a later one"
            ),
            Self::Newer { database, version, needed, by: None } => write!(
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
            Self::Hidden { database, user } => write!(
                f,
                "user {user} may not look into database {database}: use one of the roles that \
                 `kalshi migrate` makes, or grant it one of them"
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
    /// Not UTF-8: names of markets would be refused, or stored as something else.
    Encoding {
        database: String,
        encoding: String,
    },
    /// A right is missing. `what` failed for `reason`; `cure` is SQL for a superuser.
    Rights {
        what: String,
        reason: String,
        user: String,
        cure: String,
    },
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
            Self::Encoding { database, encoding } => write!(
                f,
                "database {database} is encoded in {encoding}, and only UTF8 holds every name that \
                 the exchange may send: make it anew with ENCODING 'UTF8' TEMPLATE template0"
            ),
            Self::Rights { what, reason, user, cure } => write!(
                f,
                "{what}: {reason}\nuser {user} lacks this right: give an administrator's access as \
                 `admin:` in the configuration file, or let a superuser run: {cure}"
            ),
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
