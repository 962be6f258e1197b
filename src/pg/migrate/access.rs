//! Whose rights a migration uses: making a database that is missing, and becoming its objects' owner.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::error::{MigrateError, VersionError};
use super::history::{History, MADE_BY};
use crate::pg::engine::{self, Choice};
use crate::pg::error::{ConnectError, describe};
use crate::pg::{OWNER, Target, quoted};

/// Where a session can be had while the database does not exist.
const MAINTENANCE: &str = "postgres";

/// Refuses a server that cannot divide the logs as asked, before a database is made there.
pub async fn expect_server(target: &Target, choice: Choice) -> Result<(), MigrateError> {
    let maintenance = Target { database: MAINTENANCE.to_owned(), ..target.clone() };
    let client = maintenance.connect().await.map_err(MigrateError::Connect)?;
    engine::settle(&client, choice).await.map_err(|error| error.of(&target.database))?;
    Ok(())
}

/// Makes the target's database if there is none of its name; whether it did. A migration that makes it
/// at the same moment is no error.
pub async fn create_database(target: &Target) -> Result<bool, MigrateError> {
    if exists(target).await? {
        return Ok(false);
    }
    let maintenance = Target { database: MAINTENANCE.to_owned(), ..target.clone() };
    let client = maintenance.connect().await.map_err(MigrateError::Connect)?;
    match client.batch_execute(&create_database_sql(&target.database)).await {
        Ok(()) => Ok(true),
        Err(error)
            if [Some(&SqlState::DUPLICATE_DATABASE), Some(&SqlState::UNIQUE_VIOLATION)]
                .contains(&error.code()) =>
        {
            Ok(false)
        }
        Err(error) if is_missing_right(&error) => Err(MigrateError::Rights {
            what: format!("make database {}", target.database),
            reason: describe(&error),
            user: target.user.clone(),
            cure: create_database_sql(&target.database),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Whether the target's database is there.
pub async fn exists(target: &Target) -> Result<bool, MigrateError> {
    match target.connect().await {
        Ok(_) => Ok(true),
        Err(ConnectError::Pg { source, .. })
            if source.code() == Some(&SqlState::INVALID_CATALOG_NAME) =>
        {
            Ok(false)
        }
        Err(error) => Err(MigrateError::Connect(error)),
    }
}

/// From `template0`, since another template may have another encoding, and sorted byte by byte: the
/// rules of a language have no meaning for tickers, and an index that follows them breaks when the
/// system's library changes them.
pub fn create_database_sql(name: &str) -> String {
    format!("CREATE DATABASE {} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0", quoted(name))
}

/// Refuses a database that cannot hold every text.
pub(super) async fn expect_utf8(client: &Client) -> Result<(), MigrateError> {
    let sql = "SELECT current_database()::text, current_setting('server_encoding')";
    let row = client.query_one(sql, &[]).await?;
    let (database, encoding): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if encoding == "UTF8" { Ok(()) } else { Err(MigrateError::Encoding { database, encoding }) }
}

/// Once the history belongs to [`OWNER`], every migration runs as it, so that what it makes does too.
pub(super) async fn become_owner(client: &Client, target: &Target) -> Result<(), MigrateError> {
    let sql = "SELECT pg_get_userbyid(relowner) = $1 AND current_user <> $1 FROM pg_class \
               WHERE oid = to_regclass('refinery_schema_history')";
    let row = client.query_opt(sql, &[&OWNER]).await?;
    if !row.map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        return Ok(());
    }
    client.batch_execute(&format!("SET ROLE {OWNER}")).await.map_err(|error| {
        if !is_missing_right(&error) {
            return error.into();
        }
        MigrateError::Rights {
            what: format!("migrate database {} as {OWNER}", target.database),
            reason: describe(&error),
            user: target.user.clone(),
            cure: format!("GRANT {OWNER} TO {};", quoted(&target.user)),
        }
    })
}

/// The database's history, for whoever is going to add to it.
pub(super) async fn history(client: &Client, target: &Target) -> Result<History, MigrateError> {
    let error = match History::read(client).await {
        Err(VersionError::Pg(error)) if is_missing_right(&error) => error,
        other => return Ok(other?),
    };
    let sql = "SELECT pg_get_userbyid(relowner)::text FROM pg_class \
               WHERE oid = to_regclass('refinery_schema_history')";
    let owner: String = client.query_one(sql, &[]).await?.try_get(0)?;
    Err(MigrateError::Rights {
        what: format!("read the history of database {}", target.database),
        reason: describe(&error),
        user: target.user.clone(),
        cure: format!("GRANT {} TO {};", quoted(&owner), quoted(&target.user)),
    })
}

/// Leaves the name of the program that made the schema what it is.
pub(super) async fn sign(
    client: &Client,
    target: &Target,
    program: &str,
) -> Result<(), MigrateError> {
    become_owner(client, target).await?;
    let sql = format!("COMMENT ON TABLE refinery_schema_history IS '{MADE_BY}{program}'");
    Ok(client.batch_execute(&sql).await?)
}

pub(super) fn is_missing_right(error: &Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}
