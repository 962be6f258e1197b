//! Throw-away PostgreSQL clusters for tests: a temporary directory and a unix socket in it; a
//! loopback port only for tests of what a socket cannot show.
//!
//! A test that needs a database and finds no PostgreSQL on the machine panics and says so: it must
//! never pass without having tested anything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::engine::Choice;
use super::migrate::{self, Schema};
use super::{Target, TlsMode};

/// The directory of the server's programs that the tests are to use, in place of the machine's own. With
/// TimescaleDB beside them, gatherers' databases are divided by it.
const PROGRAMS: &str = "KALSHI_POSTGRES";

/// Only names the socket of a server that listens on no port.
const SOCKET_PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";

/// A running server of its own. Dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    owner: Option<Owner>,
    dir: TempDir,
    port: u16,
}

/// Whom the server runs as where we are root, whom PostgreSQL refuses.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Cluster {
    /// Makes and starts a server, without the safety that a test does not need: it starts in about a
    /// second and forgets everything in a crash of the machine, but not in one of its own.
    pub fn start() -> Self {
        Self::start_on(SOCKET_PORT, "")
    }

    /// The same, listening on a free port of 127.0.0.1 too, which [`Cluster::target`] gives.
    pub fn start_with_tcp() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        Self::start_on(port, "127.0.0.1")
    }

    fn start_on(port: u16, listen: &str) -> Self {
        let programs = programs();
        let owner = rustix::process::geteuid().is_root().then(find_owner);
        let dir = tempfile::Builder::new().prefix("kalshi-pg-").tempdir().unwrap();
        if let Some(Owner { uid, gid }) = owner {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let cluster = Self { programs, owner, dir, port };
        let data = cluster.data();
        cluster.run("initdb", |command| {
            command
                .args(["--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"])
                .args(["--username", SUPERUSER, "--pgdata"])
                .arg(&data);
        });
        let settings = format!(
            "listen_addresses = '{listen}'\nunix_socket_directories = '{}'\nport = {port}\nfsync = off\n\
             max_connections = 200\nshared_buffers = 64MB\nautovacuum_naptime = 5s\n{}",
            cluster.dir.path().display(),
            match choice() {
                // No jobs are scheduled by us, and each database's scheduler is a process.
                Choice::Timescaledb =>
                    "shared_preload_libraries = 'timescaledb'\n\
                     timescaledb.max_background_workers = 0\n",
                _ => "",
            }
        );
        let mut config = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        config.push_str(&settings);
        fs::write(data.join("postgresql.conf"), config).unwrap();
        cluster.resume();
        cluster
    }

    /// The way to a database of that name, as the superuser; it need not exist.
    pub fn target(&self, database: &str) -> Target {
        Target {
            host: self.dir.path().display().to_string(),
            port: self.port,
            database: database.to_owned(),
            user: SUPERUSER.to_owned(),
            password: None,
            tls: TlsMode::Disable,
            root_cert: None,
            application_name: "kalshi-test".to_owned(),
        }
    }

    /// The same way for another user, who needs no password.
    pub fn login(&self, database: &str, user: &str) -> Target {
        Target { user: user.to_owned(), ..self.target(database) }
    }

    /// The schema of a database as SQL.
    pub fn dump(&self, database: &str) -> String {
        let (host, file) = (self.dir.path(), self.dir.path().join(format!("{database}.sql")));
        let port = self.port.to_string();
        self.run("pg_dump", |command| {
            command.args(["--schema-only", "--username", SUPERUSER, "--port", &port, "--host"]);
            command.arg(host).arg("--file").arg(&file).arg(database);
        });
        // Newer versions put a random word around it.
        let text = fs::read_to_string(file).unwrap();
        text.lines().filter(|line| !line.contains("restrict ")).map(|l| format!("{l}\n")).collect()
    }

    /// Whether a program run as whoever runs the server gets in over the socket, by peer.
    pub fn psql(&self, user: &str) -> bool {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-XAtq", "-c", "SELECT 1", "-d", "postgres", "-U", user, "-p"]);
        command.arg(self.port.to_string()).arg("-h").arg(self.dir.path());
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command.status().unwrap().success()
    }

    /// Makes an empty database.
    pub async fn create(&self, database: &str) -> Target {
        let client = self.target(SUPERUSER).connect().await.unwrap();
        client.batch_execute(&format!("CREATE DATABASE \"{database}\"")).await.unwrap();
        self.target(database)
    }

    /// Makes a database with our schema in it.
    pub async fn create_with(&self, database: &str, schema: Schema) -> Target {
        let target = self.create(database).await;
        migrate::run(&target, schema).await.unwrap();
        target
    }

    /// Has an empty log of a gatherer's database divided into parts of so many rows.
    pub async fn narrow(&self, target: &Target, log: &str, rows: i64) {
        let sql = match choice() {
            Choice::Timescaledb => {
                format!("SELECT set_chunk_time_interval('{log}', {rows}::bigint)")
            }
            _ => format!(
                "ALTER TABLE {log} DETACH PARTITION {log}_0; DROP TABLE {log}_0; \
                 CREATE TABLE {log}_0 PARTITION OF {log} FOR VALUES FROM (0) TO ({rows}); \
                 ALTER TABLE {log}_0 OWNER TO {}",
                super::OWNER
            ),
        };
        let client = target.connect().await.unwrap();
        let width = format!("UPDATE logs SET chunk_rows = {rows} WHERE name = '{log}'; {sql}");
        client.batch_execute(&width).await.unwrap();
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Asks everybody who comes over TCP for a password, and logs every statement; the socket stays open
    /// to all. Restarts the server.
    pub fn ask_for_passwords(&self, settings: &str) {
        let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        self.put("pg_hba.conf", rules.as_bytes());
        let settings = format!("log_statement = 'all'\n{settings}");
        self.put("postgresql.auto.conf", settings.as_bytes());
        self.control("stop", &["--mode=fast"]);
        self.resume();
    }

    /// The way over TCP to a database as a user.
    pub fn tcp(&self, database: &str, user: &str) -> Target {
        Target { host: "127.0.0.1".to_owned(), ..self.login(database, user) }
    }

    /// Drops a database whoever is connected to it.
    pub async fn drop_database(&self, database: &str) {
        let client = self.target(SUPERUSER).connect().await.unwrap();
        let sql = format!("DROP DATABASE \"{database}\" WITH (FORCE)");
        client.batch_execute(&sql).await.unwrap();
    }

    /// Ends the server as a crash does: every session is cut, what was not committed is gone.
    pub fn crash(&self) {
        self.control("stop", &["--mode=immediate"]);
    }

    /// Starts the server after [`Cluster::crash`].
    pub fn resume(&self) {
        let log = self.dir.path().join("log");
        self.control("start", &["--log", &log.display().to_string()]);
    }

    /// Writes a file of the data directory, for the server alone to read, as it demands of keys.
    pub fn put(&self, name: &str, content: &[u8]) {
        let path = self.data().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(Owner { uid, gid }) = self.owner {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn control(&self, action: &str, args: &[&str]) {
        let data = self.data();
        self.run("pg_ctl", |command| {
            command.arg(action).args(["--wait", "--silent", "--pgdata"]).arg(&data).args(args);
        });
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command)) {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        // The server inherits what pg_ctl has; a pipe to us would never close.
        let errors = self.dir.path().join(format!("{program}.err"));
        command.stderr(fs::File::create(&errors).unwrap());
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        arguments(&mut command);
        let status = command.status().unwrap();
        let errors = fs::read_to_string(&errors).unwrap_or_default();
        assert!(status.success(), "{command:?}: {status}: {errors}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A server that was crashed on purpose is not running, so a failure means nothing.
        let mut stop = Command::new(self.programs.join("pg_ctl"));
        stop.args(["stop", "--wait", "--silent", "--mode=immediate", "--pgdata"]).arg(self.data());
        stop.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(Owner { uid, gid }) = self.owner {
            stop.uid(uid).gid(gid);
        }
        let _stopped = stop.status();
    }
}

/// What divides gatherers' databases in this run of the tests.
pub fn choice() -> Choice {
    let has_timescaledb = |bin: PathBuf| bin.join("../lib/timescaledb.so").exists();
    if given_programs().is_some_and(has_timescaledb) { Choice::Timescaledb } else { Choice::Native }
}

fn given_programs() -> Option<PathBuf> {
    let given = std::env::var_os(PROGRAMS).filter(|dir| !dir.is_empty()).map(PathBuf::from)?;
    assert!(has_programs(&given), "{PROGRAMS} is {}: no server is there", given.display());
    Some(given)
}

/// Where the server's programs are: as the environment says, else the newest version that Debian's
/// packages installed, else the directory of `pg_ctl` on the path.
fn programs() -> PathBuf {
    if let Some(given) = given_programs() {
        return given;
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let dir = entry.path().join("bin");
            has_programs(&dir).then_some((version, dir))
        })
        .collect();
    versions.sort();
    let installed = versions.pop().map(|(_, dir)| dir);
    let path = std::env::var_os("PATH").unwrap_or_default();
    installed
        .or_else(|| std::env::split_paths(&path).find(|dir| has_programs(dir)))
        .expect("this test needs PostgreSQL: apt-get install postgresql")
}

fn has_programs(dir: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| dir.join(program).exists())
}

fn find_owner() -> Owner {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            found.then_some(Owner { uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody")).expect("no user to run PostgreSQL as")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_survives_its_crash_and_leaves_nothing_behind() {
        let cluster = Cluster::start();
        let target = cluster.create_with("g1", Schema::Gatherer).await;
        let client = target.connect().await.unwrap();
        cluster.crash();
        assert!(client.simple_query("SELECT 1").await.is_err());
        cluster.resume();
        let client = target.connect().await.unwrap();
        migrate::check(&client, Schema::Gatherer).await.unwrap();
        let dir = PathBuf::from(&target.host);
        drop(cluster);
        assert!(!dir.exists());
    }
}
