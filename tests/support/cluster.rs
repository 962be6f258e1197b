//! A throw-away PostgreSQL server, and a standby of one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{engine, free_port, migrate, postgres_bin, run, stat_seconds};

/// A PostgreSQL server of our own.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    pub port: u16,
    address: &'static str,
}

impl Cluster {
    /// Makes and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is missing or does not start.
    pub fn start(root: &Path) -> Self {
        Self::start_with(root, "-c shared_buffers=32MB")
    }

    /// The same with more settings, as `-c name=value`.
    pub fn start_with(root: &Path, settings: &str) -> Self {
        let bin = postgres_bin();
        let dir = directory(root);
        let cluster = Self { bin, dir, port: free_port(), address: "127.0.0.1" };
        let mut initdb = cluster.tool("initdb");
        run(initdb.args(["-U", "postgres", "-A", "trust", "-N", "-D"]).arg(cluster.data()));
        cluster.run_server(settings);
        cluster
    }

    /// A standby that follows this server: the same port at another address of this machine.
    pub fn standby(&self, root: &Path) -> Self {
        let dir = directory(root);
        let Self { bin, port, .. } = self;
        let standby = Self { bin: bin.clone(), dir, port: *port, address: "127.0.0.2" };
        let mut copy = standby.tool("pg_basebackup");
        copy.args(["-h", self.address, "-p", &port.to_string(), "-U", "postgres", "-R", "-c"]);
        run(copy.args(["fast", "-N", "-D"]).arg(standby.data()));
        standby.run_server("-c shared_buffers=32MB");
        standby
    }

    /// Makes a standby a server of its own.
    pub fn promote(&self) {
        run(self.tool("pg_ctl").arg("-D").arg(self.data()).args(["-w", "promote"]));
    }

    /// Ends the server as a crash does.
    pub fn crash(&self) {
        run(self.tool("pg_ctl").arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]));
    }

    /// The directory of its unix socket.
    pub fn sockets(&self) -> PathBuf {
        self.dir.clone()
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn run_server(&self, settings: &str) {
        let preload =
            if engine() == "timescaledb" { "-c shared_preload_libraries=timescaledb" } else { "" };
        let options = format!(
            "-p {} -k {} -c listen_addresses={} {preload} {settings}",
            self.port,
            self.dir.display(),
            self.address
        );
        let mut start = self.tool("pg_ctl");
        start.arg("-D").arg(self.data()).args(["-w", "-o", &options, "-l"]);
        run(start.arg(self.dir.join("log")).arg("start"));
    }

    /// A program of PostgreSQL, as the user that may run it.
    fn tool(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        if geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        }
    }

    /// Runs a statement with psql and gives its unaligned output.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let output = self.psql(database, &["-c", statement]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops every process of the server where it stands: it takes connections and answers nothing.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).expect("it runs");
        let postmaster: i32 = file.lines().next().and_then(|l| l.parse().ok()).expect("an id");
        let path = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(path).expect("its children");
        // The postmaster first, so that no child is born meanwhile.
        let ids = children.split_whitespace().filter_map(|id| id.parse().ok());
        for id in std::iter::once(postmaster).chain(ids) {
            let id = Pid::from_raw(id).expect("an id");
            // A child may have ended by itself.
            kill_process(id, signal).ok();
        }
    }

    /// CPU time that all of the server's processes took so far, those that ended included.
    pub fn cpu_seconds(&self) -> f64 {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = file.lines().next() else { return 0.0 };
        let stat = fs::read_to_string(format!("/proc/{postmaster}/stat")).unwrap_or_default();
        let ended = stat_seconds(&stat, &[13, 14]);
        let path = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let living = children.split_whitespace().map(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat_seconds(&stat, &[11, 12])
        });
        ended + living.sum::<f64>()
    }

    /// A number that a query gives.
    pub fn number(&self, database: &str, query: &str) -> i64 {
        let text = self.sql(database, query);
        text.parse().unwrap_or_else(|error| panic!("{query}: {text:?}: {error}"))
    }

    /// Runs psql with more arguments; the caller looks at how it ended.
    pub fn psql(&self, database: &str, arguments: &[&str]) -> Output {
        Command::new("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.address, "-U", "postgres", "-p"])
            .args([&self.port.to_string(), "-d", database])
            .args(arguments)
            .output()
            .expect("run psql")
    }

    /// Makes a database and brings it to this version: `gatherer` or `production`.
    pub fn create_migrated(&self, root: &Path, database: &str, kind: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {database}"));
        self.migrate(root, database, kind);
    }

    /// Brings a database to this version.
    pub fn migrate(&self, root: &Path, database: &str, kind: &str) {
        let target = self.target(database, "postgres");
        let text = match kind {
            "gatherer" => format!(
                "gatherer_id: gatherer-1\napi: {{ key_id: none, private_key_file: /none.pem }}\n\
                 database: {target}\n"
            ),
            _ => format!(
                "deduplicator_id: d\ngatherers: [{{ id: gatherer-1, database: {target} }}]\n\
                 production: {target}\n"
            ),
        };
        let file = root.join(format!("{database}-migrate.yaml"));
        fs::write(&file, text).expect("write a configuration");
        migrate(&file);
    }

    /// Asks these roles for a password, and logs every statement.
    pub fn ask_for_passwords(&self, roles: &str) {
        let path = self.data().join("pg_hba.conf");
        let rules = fs::read_to_string(&path).expect("the server's rules");
        let own = format!("host all {roles} 127.0.0.1/32 scram-sha-256\n");
        fs::write(&path, own + &rules).expect("write the server's rules");
        self.sql("postgres", "ALTER SYSTEM SET log_statement = 'all'");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).expect("the server's log")
    }

    /// Lets everybody in from a network.
    pub fn admit(&self, network: &str) {
        let mut rules = fs::File::options()
            .append(true)
            .open(self.dir.join("data/pg_hba.conf"))
            .expect("open the server's rules");
        writeln!(rules, "host all all {network} trust").expect("write the server's rules");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// How a configuration names a database here, for one of the roles.
    pub fn target(&self, database: &str, user: &str) -> String {
        format!(
            "{{ host: 127.0.0.1, port: {}, database: {database}, user: {user}, sslmode: disable }}",
            self.port
        )
    }
}

/// A directory for a server under one of ours, which whoever may run PostgreSQL can use.
fn directory(root: &Path) -> PathBuf {
    let dir = root.join("pg");
    fs::create_dir(&dir).expect("make the cluster's directory");
    if geteuid().is_root() {
        run(Command::new("chown").arg("postgres").arg(&dir));
        run(Command::new("chmod").arg("755").arg(root));
    }
    dir
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test may have failed while it stood still, or have ended it already.
        if self.data().join("postmaster.pid").exists() {
            self.thaw();
        }
        let mut stop = self.tool("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]);
        stop.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}
