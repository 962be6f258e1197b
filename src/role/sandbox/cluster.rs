//! A throw-away PostgreSQL cluster: one a gatherer and one for production, so that each can be
//! stopped, killed and wiped on its own.
//!
//! It listens on a loopback port, where the roles come with a password, and on a socket in a
//! private directory, where only this process comes, as superuser.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::ports::Ports;
use super::postgres::Postgres;
use super::rundir;

/// How long a cluster may take until it answers, crash recovery included.
const START_SECONDS_MAX: u64 = 120;
/// How long an orderly stop may take before it becomes an immediate one.
const STOP_SECONDS_MAX: u64 = 30;
/// A port may be taken between our look and the server's start.
const PORT_TRIES_MAX: usize = 5;
pub const SUPERUSER: &str = "postgres";

/// What a cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gatherer,
    Production,
}

impl Kind {
    /// Its one database.
    pub const fn database(self) -> &'static str {
        match self {
            Self::Gatherer => "kalshi_ts",
            Self::Production => "kalshi_prod",
        }
    }

    /// Who logs in to it: the writer, then who reads. Made by the migration, without a password.
    pub const fn logins(self) -> &'static [&'static str] {
        match self {
            Self::Gatherer => &["gatherer", "dedup_reader"],
            Self::Production => &["deduplicator", "exporter"],
        }
    }
}

/// Small enough for five on one small machine. Durability is the product, so it stays on; what is
/// left out is only what serves replicas. Memory is the kernel's anonymous kind plus the posix
/// segments that a stop removes.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
max_connections = 60
shared_buffers = 128MB
wal_level = minimal
max_wal_senders = 0
max_wal_size = 2GB
checkpoint_timeout = 15min
wal_compression = on
fsync = on
synchronous_commit = on
full_page_writes = on
jit = off
max_worker_processes = 4
autovacuum_naptime = 15s
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
lc_messages = 'C'
";

/// Beside them where there is TimescaleDB: a worker for each database of the cluster that has it.
const TIMESCALEDB_SETTINGS: &str = "\
shared_preload_libraries = 'timescaledb'
timescaledb.max_background_workers = 2
";

/// How to stop a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// As a crash: nothing is written, the next start recovers.
    Immediate,
}

/// One cluster with one database.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    pub kind: Kind,
    port: u16,
    /// Of each of its logins.
    password: String,
    dir: PathBuf,
    group: i32,
    postgres: Arc<Postgres>,
    process: Mutex<Option<Child>>,
}

impl Cluster {
    /// Makes the cluster `name` in a directory of that name under `parent` and starts it. Its
    /// processes join the process group `group`.
    ///
    /// # Errors
    /// When a step fails; the error holds the end of the server's log.
    pub async fn create(
        postgres: Arc<Postgres>,
        parent: &Path,
        name: &str,
        kind: Kind,
        group: i32,
        ports: &Ports,
    ) -> Result<Self> {
        let dir = parent.join(name);
        rundir::private_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        postgres.give(&dir)?;
        let mut cluster = Self {
            name: name.to_owned(),
            kind,
            port: 0,
            password: Uuid::new_v4().simple().to_string(),
            dir,
            group,
            postgres,
            process: Mutex::new(None),
        };
        cluster.init().await.with_context(|| format!("make the cluster of {name}"))?;
        for attempt in 1.. {
            cluster.port = ports.free().context("choose a port")?;
            match cluster.start().await {
                Ok(()) => break,
                Err(error) if attempt < PORT_TRIES_MAX && cluster.port_was_taken() => {
                    tracing::debug!(port = cluster.port, error = %error, "port was taken");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(cluster)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The password of each login, for a configuration file that only its owner may read.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// What divides a gatherer's logs here, as its configuration names it.
    pub fn engine(&self) -> &'static str {
        if self.postgres.has_timescaledb { "timescaledb" } else { "native" }
    }

    /// Where the private socket is, for a person with `psql`.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    async fn init(&self) -> Result<()> {
        let output = self
            .postgres
            .command(&self.postgres.initdb, self.group)
            .args(["--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C"])
            .args(["--auth-local", "trust", "--auth-host", "scram-sha-256"])
            // The files are new and nobody's yet: a machine that fails now loses nothing.
            .args(["--no-sync", "--no-instructions", "--pgdata"])
            .arg(self.data())
            .current_dir(&self.dir)
            .kill_on_drop(true)
            .output()
            .await
            .context("run initdb")?;
        if !output.status.success() {
            bail!("run initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let settings = self.data().join("postgresql.auto.conf");
        let timescaledb = if self.postgres.has_timescaledb { TIMESCALEDB_SETTINGS } else { "" };
        std::fs::write(&settings, format!("{SETTINGS}{timescaledb}"))
            .context("write the settings")?;
        let access = format!(
            "local all {SUPERUSER} trust\nhost {} {} 127.0.0.1/32 scram-sha-256\n",
            self.kind.database(),
            self.kind.logins().join(",")
        );
        std::fs::write(self.data().join("pg_hba.conf"), access).context("write the access rules")
    }

    /// Starts the server and waits until it answers. Nothing happens when it runs.
    ///
    /// # Errors
    /// When it does not start within two minutes, with the end of its log.
    pub async fn start(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        if process.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .context("open the server's log")?;
        let child = self
            .postgres
            .command(&self.postgres.postgres, self.group)
            .arg("-D")
            .arg(self.data())
            .arg("-p")
            .arg(self.port.to_string())
            .arg("-k")
            .arg(self.socket_dir())
            .current_dir(&self.dir)
            .stdout(Stdio::from(log.try_clone().context("open the server's log")?))
            .stderr(Stdio::from(log))
            .spawn()
            .context("start postgres")?;
        let child = process.insert(child);
        let ready = self.wait_until_ready(child).await;
        if ready.is_err() {
            end(child, Signal::QUIT, Duration::from_secs(5)).await;
            *process = None;
        }
        ready
    }

    async fn wait_until_ready(&self, child: &mut Child) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            if let Some(status) = child.try_wait().context("watch postgres")? {
                let log = rundir::tail(&self.log(), 20);
                bail!("start the PostgreSQL of {}: it ended with {status}:\n{log}", self.name);
            }
            match self.connect_to(SUPERUSER).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let log = rundir::tail(&self.log(), 20);
                    return Err(error).with_context(|| {
                        format!("wait for the PostgreSQL of {} to answer:\n{log}", self.name)
                    });
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn port_was_taken(&self) -> bool {
        rundir::tail(&self.log(), 20).contains("Address already in use")
    }

    /// Stops the server and waits for its end. Nothing happens when it does not run.
    pub async fn stop(&self, how: Stop) {
        let mut process = self.process.lock().await;
        let Some(mut child) = process.take() else { return };
        let (signal, patience) = match how {
            Stop::Fast => (Signal::INT, Duration::from_secs(STOP_SECONDS_MAX)),
            Stop::Immediate => (Signal::QUIT, Duration::from_secs(5)),
        };
        end(&mut child, signal, patience).await;
    }

    /// A session on the cluster's database as superuser, over the private socket.
    ///
    /// # Errors
    /// When the server does not answer within 5 s.
    pub async fn connect(&self) -> Result<Client> {
        self.connect_to(self.kind.database()).await
    }

    async fn connect_to(&self, database: &str) -> Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.socket_dir())
            .port(self.port)
            .user(SUPERUSER)
            .dbname(database)
            .application_name("kalshi sandbox");
        let (client, connection) = timeout(Duration::from_secs(5), config.connect(NoTls))
            .await
            .context("connect: no answer within 5 s")?
            .context("connect")?;
        // It ends with its client, or with the server; either shows in the client's next call.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Gives every login its password, also again.
    ///
    /// # Errors
    /// When the server refuses or is away.
    pub async fn set_passwords(&self) -> Result<()> {
        let client = self.connect_to(SUPERUSER).await?;
        for login in self.kind.logins() {
            // Only hexadecimal digits, so there is nothing to quote.
            let sql = format!("ALTER ROLE {login} PASSWORD '{}'", self.password);
            client.batch_execute(&sql).await.map_err(hide_statement)?;
        }
        Ok(())
    }

    /// Signals every process of the server: stopped, it takes connections and answers nothing.
    pub async fn signal_all(&self, signal: Signal) {
        let process = self.process.lock().await;
        let Some(postmaster) = process.as_ref().and_then(Child::id) else { return };
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let send = |id: &str| {
            if let Some(pid) = id.parse().ok().and_then(Pid::from_raw)
                && let Err(error) = kill_process(pid, signal)
            {
                // It may have ended by itself.
                tracing::debug!(%error, id, "signal a server process");
            }
        };
        // The postmaster first when it stops, so that no child is born meanwhile.
        send(&postmaster.to_string());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().for_each(send);
    }

    /// Drops the database, whoever uses it. A migration makes it anew.
    ///
    /// # Errors
    /// When the server refuses or is away.
    pub async fn wipe(&self) -> Result<()> {
        let client = self.connect_to(SUPERUSER).await?;
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.kind.database());
        client.batch_execute(&sql).await.context("drop database")
    }
}

/// The statement holds a password, and the server's detail may repeat it: keep the code alone.
fn hide_statement(error: tokio_postgres::Error) -> anyhow::Error {
    let code = error.code().map_or("no answer", |state| state.code()).to_owned();
    anyhow::anyhow!("set password: {code}")
}

/// Signals a child and waits; kills it when it does not end in time.
pub async fn end(child: &mut Child, signal: Signal, patience: Duration) -> Option<ExitStatus> {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        tracing::debug!(%error, "signal process");
    }
    match timeout(patience, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            tracing::warn!(?pid, "a process did not end in time and is killed");
            match child.kill().await {
                Ok(()) => child.wait().await.ok(),
                Err(error) => {
                    tracing::warn!(%error, "kill process");
                    None
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::postgres;
    use super::super::rundir::RunDir;
    use super::*;

    async fn cluster(run: &RunDir) -> Cluster {
        let postgres = Arc::new(postgres::find(None).await.unwrap());
        let group = run.postmaster_group();
        Cluster::create(postgres, run.path(), "g1", Kind::Gatherer, group, &Ports::default())
            .await
            .unwrap()
    }

    fn processes_with(path: &Path) -> usize {
        let needle = path.to_string_lossy().into_owned();
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .filter(|line| String::from_utf8_lossy(line).contains(&needle))
            .count()
    }

    #[tokio::test]
    async fn a_cluster_survives_both_stops_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        // The owner of the cluster is another user than the one who made this directory.
        std::fs::set_permissions(
            parent.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let run = RunDir::create(Some(parent.path())).unwrap();
        let cluster = cluster(&run).await;
        let admin = cluster.connect_to(SUPERUSER).await.unwrap();
        // What the migration does, which is another process.
        for sql in [
            "CREATE DATABASE kalshi_ts",
            "CREATE ROLE gatherer LOGIN; CREATE ROLE dedup_reader LOGIN",
        ] {
            admin.batch_execute(sql).await.unwrap();
        }
        drop(admin);
        cluster.set_passwords().await.unwrap();
        let client = cluster.connect().await.unwrap();
        client.batch_execute("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
        cluster.stop(Stop::Immediate).await;
        assert!(cluster.connect().await.is_err());
        cluster.start().await.unwrap();
        let rows = |client: Client| async move {
            let row = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
            row.get::<_, i64>(0)
        };
        assert_eq!(rows(cluster.connect().await.unwrap()).await, 1);
        cluster.stop(Stop::Fast).await;
        cluster.start().await.unwrap();
        assert_eq!(rows(cluster.connect().await.unwrap()).await, 1);

        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(cluster.port()).dbname("kalshi_ts");
        for login in cluster.kind.logins() {
            config.user(*login);
            assert!(config.clone().password("wrong").connect(NoTls).await.is_err());
            let password = cluster.password();
            let (client, connection) =
                config.clone().password(password).connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
            assert!(!client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
        }
        config.user(SUPERUSER);
        assert!(config.password(cluster.password()).connect(NoTls).await.is_err());

        cluster.wipe().await.unwrap();
        assert!(cluster.connect().await.is_err());

        let path = run.path().to_path_buf();
        assert!(processes_with(&path) > 0);
        // Not stopped first: the end of the run has to do it.
        tokio::task::spawn_blocking(move || drop(run)).await.unwrap();
        assert_eq!(processes_with(&path), 0);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
