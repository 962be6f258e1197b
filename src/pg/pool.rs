//! The pool for short reads: a few sessions of one target, each tested before it is handed out.
//!
//! Writers do not come here; each owns its session, so that no batch waits for a reader.

use std::fmt;
use std::time::{Duration, Instant};

use bb8::{ManageConnection, PooledConnection};
use tokio::sync::watch;
use tokio_postgres::Client;
use tracing::debug;

use super::error::{Class, ConnectError, classify, describe};
use super::{Options, Target};

/// A session that does not answer the test in this time is replaced.
const TEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What bounds a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions, at least 1.
    pub size: u32,
    /// Longest wait for a session.
    pub wait: Duration,
    /// A session is renewed at this age, so that a changed address, authority or password is found
    /// while the old session still works.
    pub lifetime: Duration,
    /// A session that nobody used for so long is closed.
    pub idle: Duration,
}

impl Limits {
    /// Those of a pool of so many sessions. The wait has room for one whole connect, and one failed
    /// test of an old session before it.
    pub const fn of(size: u32) -> Self {
        Self {
            size,
            wait: Duration::from_secs(8),
            lifetime: Duration::from_secs(30 * 60),
            idle: Duration::from_secs(10 * 60),
        }
    }
}

/// A bounded set of sessions; clones share it.
#[derive(Debug, Clone)]
pub struct Pool {
    sessions: bb8::Pool<Connector>,
    /// The last failure to open a session. bb8 tells nobody who waits, so a waiter watches this and
    /// learns the reason at once instead of a timeout later.
    failures: watch::Receiver<Option<GetError>>,
    wait: Duration,
}

/// A pool of at most `max_size` sessions (at least 1) with the server's settings. Opens none before
/// the first is asked for; must be called within a tokio runtime.
pub fn pool(target: Target, max_size: u32) -> Pool {
    pool_with(target, Options::default(), Limits::of(max_size))
}

/// The same, with settings for every session and bounds of its own.
pub fn pool_with(target: Target, options: Options, limits: Limits) -> Pool {
    let (failed, failures) = watch::channel(None);
    let sink = Sink { target: target.to_string() };
    let sessions = bb8::Pool::builder()
        .max_size(limits.size.max(1))
        .min_idle(None)
        .test_on_check_out(true)
        .max_lifetime(Some(limits.lifetime))
        .idle_timeout(Some(limits.idle))
        .connection_timeout(limits.wait)
        // Whoever asks has a backoff of its own.
        .retry_connection(false)
        .error_sink(Box::new(sink))
        .build_unchecked(Connector { target, options, failed });
    Pool { sessions, failures, wait: limits.wait }
}

impl Pool {
    /// A session that answered just now, or within [`Limits::wait`] the reason why there is none.
    pub async fn get(&self) -> Result<PooledConnection<'_, Connector>, GetError> {
        let mut failures = self.failures.clone();
        failures.mark_unchanged();
        tokio::select! {
            biased;
            got = self.sessions.get() => got.map_err(|error| match error {
                bb8::RunError::User(error) => GetError::from(&error),
                bb8::RunError::TimedOut => GetError {
                    class: Class::Retry,
                    reason: format!("no free database session within {:?}", self.wait),
                },
            }),
            failure = next_failure(&mut failures) => Err(failure),
        }
    }

    /// One round trip to the server over a session of the pool; what health asks. The wait for a
    /// session is not part of it.
    pub async fn ping(&self) -> Result<Duration, GetError> {
        let session = self.get().await?;
        let asked = Instant::now();
        session.check_connection().await.map_err(|error| GetError {
            class: classify(&error),
            reason: format!("ping database: {}", describe(&error)),
        })?;
        Ok(asked.elapsed())
    }
}

async fn next_failure(failures: &mut watch::Receiver<Option<GetError>>) -> GetError {
    loop {
        if failures.changed().await.is_err() {
            // The sender lives in the pool that the caller borrows.
            std::future::pending::<()>().await;
        }
        if let Some(failure) = failures.borrow_and_update().clone() {
            return failure;
        }
    }
}

/// Why the pool gave no session. `Display` is the whole reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetError {
    pub class: Class,
    pub reason: String,
}

impl From<&ConnectError> for GetError {
    fn from(error: &ConnectError) -> Self {
        Self { class: error.class(), reason: error.to_string() }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for GetError {}

/// Opens and tests the sessions of a pool.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    options: Options,
    failed: watch::Sender<Option<GetError>>,
}

impl ManageConnection for Connector {
    type Connection = Client;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Client, ConnectError> {
        let result = self.target.connect_with(self.options).await;
        if let Err(error) = &result {
            self.failed.send_replace(Some(GetError::from(error)));
        }
        result
    }

    async fn is_valid(&self, client: &mut Client) -> Result<(), ConnectError> {
        let target = || self.target.to_string();
        match tokio::time::timeout(TEST_TIMEOUT, client.check_connection()).await {
            Ok(result) => result.map_err(|source| ConnectError::Pg { target: target(), source }),
            Err(_) => Err(ConnectError::Timeout { target: target(), after: TEST_TIMEOUT }),
        }
    }

    fn has_broken(&self, client: &mut Client) -> bool {
        client.is_closed()
    }
}

/// Receives the errors that no caller sees: of sessions opened in the background and of tests.
#[derive(Debug, Clone)]
struct Sink {
    target: String,
}

impl bb8::ErrorSink<ConnectError> for Sink {
    fn sink(&self, error: ConnectError) {
        // Whoever waits for a session gets an error of its own and logs that one.
        debug!(target_database = %self.target, %error, "pooled database session failed");
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ConnectError>> {
        Box::new(self.clone())
    }
}
