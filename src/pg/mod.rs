//! PostgreSQL: connections, TLS, the pool, error classes, migrations, the writer's lock, binary COPY.
//!
//! Knows no domain word and no configuration file; a [`Target`] says all that a connection needs.

pub mod advisory;
pub mod copy;
pub mod copy_out;
pub mod engine;
pub mod error;
pub mod migrate;
pub mod partitions;
pub mod pool;
pub mod rights;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod writer;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, info};

pub use error::{Class, ConnectError, describe};
pub use pool::{Pool, pool};
pub use tls::TlsMode;

use crate::ops::secret::{Password, Secret};

/// Bound on everything between the first packet and a session that takes queries: name lookup, TCP,
/// TLS and login.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sent data that stays unacknowledged this long ends the connection, so a peer that vanished
/// without a FIN is noticed while a batch is in flight.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// An idle connection is probed after 5 s, then every 3 s; the third unanswered probe ends it, which
/// makes 14 s, as long as a busy connection takes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;

/// The role that owns every object of our databases. Nobody logs in as it: who has to make or drop a
/// table becomes it by `SET ROLE`, in a transaction or for a session of its own ([`Options::role`]).
pub const OWNER: &str = "kalshi_owner";

/// A database and the way to reach it.
#[derive(Clone)]
pub struct Target {
    /// A host name, an address, or the directory of a unix socket (starts with `/`).
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<Password>,
    /// Ignored for a unix socket, over which PostgreSQL speaks no TLS.
    pub tls: TlsMode,
    /// PEM file of the authorities to trust; read anew at every connect.
    pub root_cert: Option<PathBuf>,
    /// What `pg_stat_activity` shows for our sessions.
    pub application_name: String,
}

/// Settings of a session. The default leaves every one as the server has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The server cancels a statement that runs longer (57014, which is retried).
    pub statement_timeout: Option<Duration>,
    /// The server gives up waiting for any lock after this long (55P03, which is retried).
    pub lock_timeout: Option<Duration>,
    /// The server ends a session that leaves a transaction open and silent this long, so a process
    /// that was suspended in the middle of a batch does not hold its locks for ever.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// Every transaction of the session is read only.
    pub read_only: bool,
    /// The session acts as this role, a plain name, of which its user has to be a member.
    pub role: Option<&'static str>,
}

impl Options {
    /// The options as the startup packet carries them.
    fn startup(&self) -> String {
        let mut text = String::new();
        let mut set = |name: &str, duration: Option<Duration>| {
            if let Some(duration) = duration {
                // PostgreSQL reads 0 as "no limit", which a duration below 1 ms does not mean.
                let millis = duration.as_millis().clamp(1, 2_147_483_647);
                text.push_str(&format!(" -c {name}={millis}"));
            }
        };
        set("statement_timeout", self.statement_timeout);
        set("lock_timeout", self.lock_timeout);
        set("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout);
        if self.read_only {
            text.push_str(" -c default_transaction_read_only=on");
        }
        if let Some(role) = self.role {
            text.push_str(&format!(" -c role={role}"));
        }
        text.trim_start().to_owned()
    }
}

impl Target {
    /// Opens a session with the server's settings. See [`Target::connect_with`].
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        self.connect_with(Options::default()).await
    }

    /// Opens a session. The name is looked up and the root certificates are read each time, so an
    /// address or an authority that changed is followed without a restart. So is a password: when the
    /// server refuses the one that it took before, the secret is read again, and what is current and
    /// what is pending there are tried. Each try takes at most [`CONNECT_TIMEOUT`].
    ///
    /// The task that drives the connection ends when the client is dropped or the server goes away.
    pub async fn connect_with(&self, options: Options) -> Result<Client, ConnectError> {
        let Some(password) = &self.password else { return self.attempt(None, options).await };
        let unread = |refused| {
            move |source| ConnectError::Secret { target: self.to_string(), refused, source }
        };
        let secret = password.get().await.map_err(unread(false))?;
        let refused = match self.attempt(Some(&secret), options).await {
            Err(error) if error.is_refused_password() => error,
            Err(error) => return Err(error),
            Ok(client) => {
                password.accepted(&secret).await;
                return Ok(client);
            }
        };
        for other in password.others(&secret).await.map_err(unread(true))? {
            match self.attempt(Some(&other), options).await {
                Err(error) if error.is_refused_password() => {}
                Err(error) => return Err(error),
                Ok(client) => {
                    info!(target_database = %self, "the password was rotated: the new one is in use");
                    password.accepted(&other).await;
                    return Ok(client);
                }
            }
        }
        Err(refused)
    }

    /// Tries once, with this password or none.
    async fn attempt(
        &self,
        secret: Option<&Secret>,
        options: Options,
    ) -> Result<Client, ConnectError> {
        let handshake = self.handshake(secret, options);
        match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
            Ok(result) => result,
            Err(_) => {
                Err(ConnectError::Timeout { target: self.to_string(), after: CONNECT_TIMEOUT })
            }
        }
    }

    async fn handshake(
        &self,
        secret: Option<&Secret>,
        options: Options,
    ) -> Result<Client, ConnectError> {
        let config = self.config(secret, options);
        let pg = |source| ConnectError::Pg { target: self.to_string(), source };
        if config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await.map_err(pg)?;
            drive(self.to_string(), connection);
            return Ok(client);
        }
        let rustls = tls::client_config(self.tls, self.root_cert.as_deref())
            .await
            .map_err(|source| ConnectError::Tls { target: self.to_string(), source })?;
        let (client, connection) =
            config.connect(MakeRustlsConnect::new(rustls)).await.map_err(pg)?;
        drive(self.to_string(), connection);
        Ok(client)
    }

    fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    fn config(&self, secret: Option<&Secret>, options: Options) -> Config {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.database)
            .user(&self.user)
            .application_name(&self.application_name)
            .ssl_mode(if self.is_unix_socket() { SslMode::Disable } else { self.tls.ssl_mode() })
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(TCP_USER_TIMEOUT);
        if let Some(secret) = secret {
            config.password(secret.expose());
        }
        let startup = options.startup();
        if !startup.is_empty() {
            config.options(startup);
        }
        config
    }
}

/// A name as SQL takes it, whatever is in it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written out so that a field added later has to be shown on purpose.
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("tls", &self.tls)
            .field("root_cert", &self.root_cert)
            .field("application_name", &self.application_name)
            .finish()
    }
}

/// Runs the protocol of one session. Its errors reach whoever uses the client, as a closed
/// connection at the latest, so here they are only worth a debug line.
fn drive<S, T>(target: String, connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        match connection.await {
            Ok(()) => debug!(%target, "database session ended"),
            Err(error) => debug!(%target, error = describe(&error), "database session broke"),
        }
    });
}
