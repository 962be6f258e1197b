//! One writer a database: a session advisory lock says who it is, and an epoch in table `writer`
//! fences off whoever it was before.
//!
//! The lock alone is not enough: a process can be suspended, lose its lock session, be replaced, and
//! wake up in the middle of a batch on another session. So every batch takes the fence shared and
//! compares the epoch, and whoever takes the lock raises the epoch while holding the fence alone.
//! A batch is therefore either committed before the takeover, or sees the new epoch.

use std::fmt;
use std::time::Duration;

use tokio_postgres::{Client, Error, SimpleQueryMessage, Transaction};
use tracing::{debug, warn};

use super::advisory::{self, Lock, SESSIONS};
use super::error::{Class, ConnectError, classify, describe};
use super::{Options, Target};

/// How long a takeover waits for the batches of the writer before, and then once more after their
/// sessions were ended. A healthy batch takes well under a second.
const FENCE_PATIENCE: Duration = Duration::from_secs(10);
/// Bound on the questions asked over the lock's session.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to end the former session of this very writer.
const END_PATIENCE_MS: i64 = 5_000;
/// What the application name of each of our sessions begins with.
const OUR_NAME: &str = "kalshi";
/// The lock must not fall to a server that ends idle sessions, and must fall within half a minute
/// when this machine vanishes without a word. A session over a unix socket ignores the latter.
const SESSION_SETTINGS: &str = "
    SET idle_session_timeout = 0;
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 20000";

/// The right to append to one database, held for as long as this lives and its session does.
pub struct WriterLock {
    client: Client,
    fence: Fence,
    pid: i32,
    target: String,
}

/// What tells a writer its own former session from that of a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Former {
    epoch: i64,
    pid: i32,
}

impl Former {
    /// Whether the lock is still held by that very session. A session that got it after ours has
    /// another server process; a successor that has it raised the epoch.
    fn is_holder(self, found: &Holder) -> bool {
        found.epoch == self.epoch && found.pid == Some(self.pid)
    }
}

impl WriterLock {
    /// Takes the lock or says who holds it. `holder` names this process for people: role, id, host,
    /// process id. The schema must be in place.
    ///
    /// Sessions of a writer that lost its lock and is stuck in a batch are ended after
    /// [`FENCE_PATIENCE`]; their transactions roll back.
    pub async fn acquire(target: &Target, holder: &str) -> Result<Self, AcquireError> {
        Self::acquire_within(target, holder, None, FENCE_PATIENCE).await
    }

    /// As [`WriterLock::acquire`], after this process lost the session of its lock. After a partition
    /// the server may not know yet that the session is gone; when nobody took over meanwhile, it is
    /// ended.
    pub async fn acquire_again(
        target: &Target,
        holder: &str,
        former: Former,
    ) -> Result<Self, AcquireError> {
        Self::acquire_within(target, holder, Some(former), FENCE_PATIENCE).await
    }

    pub(super) async fn acquire_within(
        target: &Target,
        holder: &str,
        former: Option<Former>,
        patience: Duration,
    ) -> Result<Self, AcquireError> {
        let options = Options { lock_timeout: Some(patience), ..Options::default() };
        let mut client = target.connect_with(options).await.map_err(AcquireError::Connect)?;
        client.batch_execute(SESSION_SETTINGS).await?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        let mut taken = advisory::take(&client, Lock::Writer).await?;
        if !taken {
            let found = find_holder(&client, target).await?;
            let Some(former) = former.filter(|former| former.is_holder(&found)) else {
                return Err(AcquireError::Held(Box::new(found)));
            };
            warn!(%target, pid = former.pid, "ending this process's former session, which holds the lock");
            let sql = "SELECT pg_terminate_backend($1, $2)";
            client.execute(sql, &[&former.pid, &END_PATIENCE_MS]).await?;
            taken = advisory::take(&client, Lock::Writer).await?;
            if !taken {
                let found = find_holder(&client, target).await?;
                return Err(if former.is_holder(&found) {
                    AcquireError::Lingering { target: target.to_string(), pid: former.pid }
                } else {
                    AcquireError::Held(Box::new(found))
                });
            }
        }
        let epoch = match raise_epoch(&mut client, holder).await {
            Err(error) if is_lock_timeout(&error) => {
                end_stuck_batches(&client, target).await?;
                raise_epoch(&mut client, holder).await?
            }
            other => other?,
        };
        debug!(%target, epoch, "writer lock taken");
        Ok(Self { client, fence: Fence { epoch }, pid, target: target.to_string() })
    }

    /// What every batch of this writer checks.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// What [`WriterLock::acquire_again`] needs once this is lost.
    pub fn former(&self) -> Former {
        Former { epoch: self.fence.epoch, pid: self.pid }
    }

    #[cfg(test)]
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// False once the session that holds the lock is known to be gone; then another writer may have
    /// taken over and this one has to stop.
    pub fn is_held(&self) -> bool {
        !self.client.is_closed()
    }

    /// Asks over the lock's own session whether this writer is still the one. An idle session whose
    /// server vanished is noticed here, within 5 s.
    pub async fn check(&self) -> Result<(), FenceError> {
        let question = self.client.simple_query(EPOCH_QUERY);
        match tokio::time::timeout(ANSWER_TIMEOUT, question).await {
            Ok(answer) => self.fence.compare(&answer.map_err(FenceError::Pg)?),
            Err(_) => Err(FenceError::Silent { target: self.target.clone() }),
        }
    }
}

impl fmt::Debug for WriterLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterLock")
            .field("target", &self.target)
            .field("epoch", &self.fence.epoch)
            .field("is_held", &self.is_held())
            .finish()
    }
}

/// Raises the epoch once no batch is running, and says who did.
async fn raise_epoch(client: &mut Client, holder: &str) -> Result<i64, Error> {
    let tx = client.transaction().await?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&Lock::Fence.key()]).await?;
    let row = tx
        .query_one(
            "UPDATE writer SET epoch = epoch + 1, holder = $1, acquired_at = now() RETURNING epoch",
            &[&holder],
        )
        .await?;
    tx.commit().await?;
    row.try_get(0)
}

fn is_lock_timeout(error: &Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE)
}

/// Ends the sessions that hold the fence. They belong to a writer whose lock this session now has.
async fn end_stuck_batches(client: &Client, target: &Target) -> Result<(), Error> {
    let sql = format!("SELECT l.pid, pg_terminate_backend(l.pid) {SESSIONS}");
    for row in client.query(&sql, &[&Lock::Fence.key()]).await? {
        let (pid, ended): (i32, bool) = (row.try_get(0)?, row.try_get(1)?);
        warn!(%target, pid, ended, "ended the stuck batch of a writer that lost its lock");
    }
    Ok(())
}

/// Who took a database's lock last, and, in `pid`, whether a session holds it now.
pub async fn find_holder(client: &Client, target: &Target) -> Result<Holder, Error> {
    let sql = format!(
        "SELECT w.holder, w.epoch, to_char(w.acquired_at AT TIME ZONE 'UTC', $2), s.pid,
                s.application_name, s.usename, s.address
         FROM writer w LEFT JOIN
             (SELECT l.pid, a.application_name, a.usename::text, host(a.client_addr) AS address {SESSIONS} LIMIT 1) s
             ON true"
    );
    let row =
        client.query_one(&sql, &[&Lock::Writer.key(), &"YYYY-MM-DD\"T\"HH24:MI:SS\"Z\""]).await?;
    Ok(Holder {
        target: target.to_string(),
        name: row.try_get(0)?,
        epoch: row.try_get(1)?,
        since: row.try_get(2)?,
        pid: row.try_get(3)?,
        application_name: row.try_get(4)?,
        user: row.try_get(5)?,
        address: row.try_get(6)?,
    })
}

/// Who holds the lock, as far as the database knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The database, as `user@host:port/database`.
    pub target: String,
    /// What the holder called itself.
    pub name: String,
    pub epoch: i64,
    /// RFC 3339, UTC.
    pub since: Option<String>,
    /// The server's process that serves the lock's session; none when it just ended.
    pub pid: Option<i32>,
    pub application_name: Option<String>,
    pub user: Option<String>,
    /// None over a unix socket.
    pub address: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pid) = self.pid
            && !self.application_name.as_deref().is_some_and(|name| name.starts_with(OUR_NAME))
        {
            // Any session of the database may take an advisory lock.
            return write!(
                f,
                "the writer lock of {} is held by a session that is no program of ours: server process \
                 {pid}, user {}, application {:?}, connected from {}; end it there with SELECT \
                 pg_terminate_backend({pid}). The last writer was {}",
                self.target,
                self.user.as_deref().unwrap_or("unknown"),
                self.application_name.as_deref().unwrap_or_default(),
                self.address.as_deref().unwrap_or("the same machine"),
                self.name
            );
        }
        write!(f, "{} is being written by {}", self.target, self.name)?;
        if let Some(since) = &self.since {
            write!(f, " since {since}")?;
        }
        if let Some(address) = &self.address {
            write!(f, ", connected from {address}")?;
        }
        if let Some(pid) = self.pid {
            write!(f, ", server process {pid}")?;
        }
        Ok(())
    }
}

/// Why the lock was not taken. `Display` is the whole reason.
#[derive(Debug)]
pub enum AcquireError {
    /// Another process has it.
    Held(Box<Holder>),
    /// This writer's own former session has it, and its server process does not end: it is stopped,
    /// or hangs in the server's disk.
    Lingering {
        target: String,
        pid: i32,
    },
    Connect(ConnectError),
    Pg(Error),
}

impl AcquireError {
    pub fn class(&self) -> Class {
        match self {
            Self::Held(_) => Class::Held,
            Self::Lingering { .. } => Class::Retry,
            Self::Connect(error) => error.class(),
            Self::Pg(error) => classify(error),
        }
    }
}

impl From<Error> for AcquireError {
    fn from(error: Error) -> Self {
        Self::Pg(error)
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(holder) => holder.fmt(f),
            Self::Lingering { target, pid } => write!(
                f,
                "{target}: server process {pid} holds the writer lock for this process's former \
                 session and does not end: look why on the server (a stopped process, a hanging disk)"
            ),
            Self::Connect(error) => error.fmt(f),
            Self::Pg(error) => write!(f, "take writer lock: {}", describe(error)),
        }
    }
}

impl std::error::Error for AcquireError {}

/// The epoch a writer got with its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    epoch: i64,
}

const EPOCH_QUERY: &str = "SELECT epoch, holder FROM writer";

impl Fence {
    #[cfg(test)]
    pub fn epoch(self) -> i64 {
        self.epoch
    }

    /// To be called first in each transaction that writes, at isolation READ COMMITTED: from here to
    /// the end of the transaction nobody can take over, and if somebody did before, this says so.
    ///
    /// One round trip, two statements: the second gets a snapshot of its own, taken after the first
    /// one's wait was over.
    pub async fn check(&self, tx: &Transaction<'_>) -> Result<(), FenceError> {
        let key = Lock::Fence.key();
        let sql = format!("SELECT pg_advisory_xact_lock_shared({key}); {EPOCH_QUERY}");
        self.compare(&tx.simple_query(&sql).await.map_err(FenceError::Pg)?)
    }

    fn compare(&self, answer: &[SimpleQueryMessage]) -> Result<(), FenceError> {
        let row = answer
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .next_back();
        let now = row
            .and_then(|row| row.try_get("epoch").ok().flatten())
            .and_then(|epoch| epoch.parse().ok());
        if now == Some(self.epoch) {
            return Ok(());
        }
        let holder = row.and_then(|row| row.try_get("holder").ok().flatten()).unwrap_or_default();
        Err(FenceError::Lost { epoch: self.epoch, now, holder: holder.to_owned() })
    }
}

/// Why a writer may not go on. `Display` is the whole reason.
#[derive(Debug)]
pub enum FenceError {
    /// Somebody took over: this process must not write any more. `now` is none when the table says
    /// nothing, for instance because the database was made anew.
    Lost {
        epoch: i64,
        now: Option<i64>,
        holder: String,
    },
    /// The server did not answer within 5 s.
    Silent {
        target: String,
    },
    Pg(Error),
}

impl FenceError {
    pub fn class(&self) -> Class {
        match self {
            Self::Lost { .. } => Class::Held,
            Self::Silent { .. } => Class::Retry,
            Self::Pg(error) => classify(error),
        }
    }
}

impl fmt::Display for FenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { epoch, now: Some(now), holder } => write!(
                f,
                "the writer lock was taken over by {holder}: this process has epoch {epoch}, the database {now}"
            ),
            Self::Lost { epoch, now: None, .. } => {
                write!(f, "the database knows no writer any more; this process has epoch {epoch}")
            }
            Self::Silent { target } => write!(
                f,
                "{target} did not answer over the writer lock's session within {} s",
                ANSWER_TIMEOUT.as_secs()
            ),
            Self::Pg(error) => write!(f, "check writer lock: {}", describe(error)),
        }
    }
}

impl std::error::Error for FenceError {}
