//! Advisory locks of sessions: which there are, taking one, and who has it.
//!
//! A session has its lock until it ends, however it ends; the server gives it to nobody else meanwhile.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Error};

/// The locks, in each database on its own. The keys spell "kalshi" and number the locks, so that they
/// are recognised in `pg_locks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Lock {
    /// Of the one writer.
    Writer = 0x6b61_6c73_6869_0001,
    /// Of a transaction: between batches, which share it, and a takeover, which does not.
    Fence = 0x6b61_6c73_6869_0002,
    Migrate = 0x6b61_6c73_6869_0003,
    /// Of a transaction: who makes parts of tables.
    Partitions = 0x6b61_6c73_6869_0004,
    Rotate = 0x6b61_6c73_6869_0005,
    Archive = 0x6b61_6c73_6869_0041,
}

impl Lock {
    /// The key, as the functions of the server take it.
    pub const fn key(self) -> i64 {
        self as i64
    }
}

/// The sessions other than this one that hold the lock with key `$1`, as `l`, with what the server tells
/// of them as `a`. A 64-bit key stands in `pg_locks` as two halves, with `objsubid` 1.
pub const SESSIONS: &str = "
    FROM pg_locks l
    LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = $1
      AND l.pid <> pg_backend_pid()";

/// Takes the lock, if nobody has it.
pub async fn take(client: &Client, lock: Lock) -> Result<bool, Error> {
    client.query_one("SELECT pg_try_advisory_lock($1)", &[&lock.key()]).await?.try_get(0)
}

/// How long a server may take to see that a session has ended, when its program was killed.
pub const LINGER: Duration = Duration::from_secs(2);

/// As [`take`], tried again for a while.
pub async fn take_within(client: &Client, lock: Lock, linger: Duration) -> Result<bool, Error> {
    let deadline = Instant::now() + linger;
    loop {
        if take(client, lock).await? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(linger / 20).await;
    }
}

/// Whether another session holds the lock.
pub async fn is_held(client: &Client, lock: Lock) -> Result<bool, Error> {
    let sql = format!("SELECT EXISTS (SELECT 1 {SESSIONS})");
    client.query_one(&sql, &[&lock.key()]).await?.try_get(0)
}

/// Who holds the lock; none when nobody does any more.
pub async fn holder(client: &Client, lock: Lock) -> Result<Option<Holder>, Error> {
    let sql = format!(
        "SELECT l.pid, a.application_name, a.usename::text, host(a.client_addr) {SESSIONS} LIMIT 1"
    );
    let Some(row) = client.query_opt(&sql, &[&lock.key()]).await? else { return Ok(None) };
    Ok(Some(Holder {
        pid: row.try_get(0)?,
        application_name: row.try_get(1)?,
        user: row.try_get(2)?,
        address: row.try_get(3)?,
    }))
}

/// A session that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The server's process that serves it.
    pub pid: i32,
    /// What the program called itself; none when the session has just ended.
    pub application_name: Option<String>,
    pub user: Option<String>,
    /// None over a unix socket, and where the server does not tell this login of other users' sessions.
    pub address: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (user {}) from {}, server process {}",
            self.application_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("a session"),
            self.user.as_deref().unwrap_or("unknown"),
            self.address.as_deref().unwrap_or("the same machine"),
            self.pid
        )
    }
}
