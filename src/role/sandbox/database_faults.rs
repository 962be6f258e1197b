//! What can go wrong with a database that stays up: done as superuser, undone afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use uuid::Uuid;

use super::chaos::Kind;
use super::cluster::Cluster;

/// How often sessions are cut while they are: often enough to meet a COPY and a commit.
const CUT_INTERVAL: Duration = Duration::from_millis(150);
/// What a slow database adds to each batch.
const SLOW: &str = "\
CREATE FUNCTION sandbox_slow() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$;
CREATE TRIGGER sandbox_slow BEFORE UPDATE ON logs FOR EACH ROW EXECUTE FUNCTION sandbox_slow()";
/// How long undoing something is tried.
const UNDO_MAX: Duration = Duration::from_secs(30);

/// Carries a fault out, waits until `over`, and undoes it.
///
/// # Errors
/// When the server does not take it, or does not take it back.
pub async fn strike(kind: Kind, cluster: &Cluster, over: impl Future<Output = ()>) -> Result<()> {
    match kind {
        Kind::HangDatabase => {
            cluster.signal_all(Signal::STOP).await;
            over.await;
            cluster.signal_all(Signal::CONT).await;
            Ok(())
        }
        Kind::CutSessions => {
            let client = cluster.connect().await?;
            let cutting = async {
                loop {
                    if let Err(error) = end_sessions(&client, cluster).await {
                        return error;
                    }
                    sleep(CUT_INTERVAL).await;
                }
            };
            tokio::select! {
                error = cutting => Err(error),
                () = over => Ok(()),
            }
        }
        Kind::LockDatabase => {
            let client = cluster.connect().await?;
            let sql = "BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE";
            client.batch_execute(sql).await.context("lock the logs")?;
            over.await;
            client.batch_execute("ROLLBACK").await.context("unlock the logs")
        }
        Kind::SlowDatabase => {
            change(cluster, SLOW, "make slow").await?;
            over.await;
            change(cluster, "DROP FUNCTION sandbox_slow CASCADE", "make fast again").await
        }
        // Sessions that began meanwhile stay read only: whoever meets that has to connect anew.
        Kind::ReadOnly => {
            let setting = "default_transaction_read_only";
            alter(cluster, &format!("SET {setting} = on")).await?;
            over.await;
            let sql = alter_sql(cluster, &format!("RESET {setting}"));
            change(cluster, &sql, "make writable").await
        }
        Kind::FewConnections => {
            alter(cluster, "CONNECTION LIMIT 1").await?;
            over.await;
            change(cluster, &alter_sql(cluster, "CONNECTION LIMIT -1"), "let in").await
        }
        Kind::WrongPassword => {
            alter(cluster, &format!("PASSWORD '{}'", Uuid::new_v4().simple())).await?;
            over.await;
            cluster.set_passwords().await
        }
        _ => Ok(()),
    }
}

/// Changes the logins of our roles, and ends their sessions, so that each meets the change.
async fn alter(cluster: &Cluster, what: &str) -> Result<()> {
    let client = cluster.connect().await?;
    // The statement may hold a password: it is not part of an error.
    client.batch_execute(&alter_sql(cluster, what)).await.context("alter the logins")?;
    end_sessions(&client, cluster).await
}

fn alter_sql(cluster: &Cluster, what: &str) -> String {
    let logins = cluster.kind.logins().iter();
    logins.map(|login| format!("ALTER ROLE {login} {what};")).collect()
}

async fn end_sessions(client: &Client, cluster: &Cluster) -> Result<()> {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE usename = ANY($1::text[])";
    client.query_one(sql, &[&cluster.kind.logins()]).await.map(drop).context("end sessions")
}

/// Runs a statement, again while the server is busy or away.
async fn change(cluster: &Cluster, sql: &str, what: &'static str) -> Result<()> {
    let deadline = Instant::now() + UNDO_MAX;
    loop {
        let attempt = async {
            let client = cluster.connect().await?;
            client.batch_execute(sql).await.context(what)
        };
        match attempt.await {
            Err(_) if Instant::now() < deadline => sleep(CUT_INTERVAL).await,
            ended => return ended,
        }
    }
}
