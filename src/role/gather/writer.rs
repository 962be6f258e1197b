//! The right to write to the gatherer's database: asked for at the start, held, and taken again
//! after the database was away.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Config;
use crate::ops::exit::{HeldError, UsageError};
use crate::pg::engine::{self, EngineError};
use crate::pg::migrate::{Schema, VersionError, check};
use crate::pg::writer::{AcquireError, Fence, Former, WriterLock};
use crate::pg::{Class, Target, error};

/// How often the lock's session is asked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a database that is away is tried.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the lock of a process that just died may linger in its server's session.
const LINGER: Duration = Duration::from_secs(3);

/// How long the first attempt may take before recording begins without the database: a server that
/// takes connections may yet not answer.
const FIRST_ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// The same of later attempts, in which a stuck batch of a predecessor may have to be waited for.
const ATTEMPT_MAX: Duration = Duration::from_secs(40);

/// Whether waiting can heal it.
pub fn is_passing(failure: &anyhow::Error) -> bool {
    matches!(error::classify_chain(failure), Class::Retry | Class::Auth)
}

/// Takes the lock if the database answers. None when it is away.
///
/// # Errors
/// When another process holds it, when the database is another gatherer's or of another version.
pub async fn first_attempt(config: &Config) -> Result<Option<WriterLock>> {
    match tokio::time::timeout(FIRST_ATTEMPT_MAX, acquire(config, None)).await {
        Ok(Ok(lock)) => Ok(Some(lock)),
        Ok(Err(failure)) if is_passing(&failure) => {
            warn!(error = format!("{failure:#}"), "database is away: recording begins without it");
            Ok(None)
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            let seconds = FIRST_ATTEMPT_MAX.as_secs();
            warn!(seconds, "database does not answer: recording begins without it");
            Ok(None)
        }
    }
}

/// The database is another gatherer's.
pub fn foreign(database: &Target, owner: &str, gatherer_id: &str) -> UsageError {
    UsageError(format!(
        "database {database} belongs to gatherer {owner:?}, not to {gatherer_id:?}: correct \
         gatherer_id or database in the configuration"
    ))
}

/// Checks that the database is divided as the configuration asks.
///
/// # Errors
/// [`UsageError`] when it is not.
pub async fn expect_engine(client: &tokio_postgres::Client, config: &Config) -> Result<()> {
    match engine::expect(client, config.storage.engine).await {
        Ok(_) => Ok(()),
        Err(EngineError::Pg(error)) => Err(error).context("find out what divides the logs"),
        Err(other) => Err(UsageError(other.to_string()).into()),
    }
}

/// Takes the lock. `former` is what this process had before.
async fn acquire(config: &Config, former: Option<Former>) -> Result<WriterLock> {
    let client = config.database.connect().await?;
    check(&client, Schema::Gatherer).await.map_err(VersionError::ending)?;
    expect_engine(&client, config).await?;
    let sql = "UPDATE writer SET gatherer_id = $1 WHERE gatherer_id IS NULL";
    client.execute(sql, &[&config.gatherer_id]).await.context("claim database")?;
    let row = client.query_one("SELECT gatherer_id FROM writer", &[]).await;
    let owner: String = row.context("read whose database it is")?.try_get(0)?;
    if owner != config.gatherer_id {
        return Err(foreign(&config.database, &owner, &config.gatherer_id).into());
    }
    let holder = format!("gatherer {} (process {})", config.gatherer_id, std::process::id());
    let deadline = Instant::now() + LINGER;
    loop {
        let attempt = match former {
            Some(former) => WriterLock::acquire_again(&config.database, &holder, former).await,
            None => WriterLock::acquire(&config.database, &holder).await,
        };
        match attempt {
            Ok(lock) => return Ok(lock),
            Err(AcquireError::Held(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Err(AcquireError::Held(holder)) => return Err(HeldError(holder.to_string()).into()),
            Err(failure) => return Err(failure.into()),
        }
    }
}

/// Keeps the lock until `drained`, takes it again when its session is lost, and says what it got.
///
/// # Errors
/// When another process took it over.
pub async fn hold(
    config: Config,
    mut lock: Option<WriterLock>,
    fence: watch::Sender<Option<Fence>>,
    drained: CancellationToken,
) -> Result<()> {
    let (mut former, mut said) = (None, None);
    loop {
        let held = match lock.take() {
            Some(held) => held,
            None => {
                let attempt = tokio::select! {
                    attempt = tokio::time::timeout(ATTEMPT_MAX, acquire(&config, former)) => attempt,
                    () = drained.cancelled() => return Ok(()),
                };
                match attempt {
                    // The server does not answer; it may do so to another session.
                    Err(_) => continue,
                    Ok(Ok(held)) => held,
                    Ok(Err(failure)) if is_passing(&failure) => {
                        let error = format!("{failure:#}");
                        if said.as_ref() != Some(&error) {
                            warn!(error, "database is away, waiting for it");
                            said = Some(error);
                        }
                        tokio::select! {
                            () = tokio::time::sleep(RETRY_INTERVAL) => continue,
                            () = drained.cancelled() => return Ok(()),
                        }
                    }
                    Ok(Err(failure)) => return Err(failure).context("take writer lock again"),
                }
            }
        };
        info!(database = %config.database, "connected to the database");
        said = None;
        former = Some(held.former());
        fence.send_replace(Some(held.fence()));
        let failure = loop {
            match held.check().await {
                Ok(()) => {}
                Err(failure) => break failure,
            }
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = drained.cancelled() => return Ok(()),
            }
        };
        fence.send_replace(None);
        if failure.class() == Class::Held {
            return Err(HeldError(failure.to_string()).into());
        }
        warn!(error = %failure, "lost the writer lock's session");
    }
}
