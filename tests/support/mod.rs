//! What the tests of the running platform share: a throw-away PostgreSQL, the simulated exchange and
//! the roles as processes, and waiting for what they do.
//!
//! Everything is started here and ended by its id when it is dropped.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// The executable under test.
pub const KALSHI: &str = env!("CARGO_BIN_EXE_kalshi");
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `done` gives something, looking again every few milliseconds.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `what` then says what was waited for.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A PostgreSQL server of our own.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    pub port: u16,
}

impl Cluster {
    /// Makes and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is missing or does not start.
    pub fn start(root: &Path) -> Self {
        let bin = postgres_bin();
        let dir = root.join("pg");
        fs::create_dir(&dir).expect("make the cluster's directory");
        if geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&dir));
            run(Command::new("chmod").arg("755").arg(root));
        }
        let cluster = Self { bin, dir, port: free_port() };
        let data = cluster.dir.join("data");
        let mut initdb = cluster.tool("initdb");
        run(initdb.args(["-U", "postgres", "-A", "trust", "-N", "-D"]).arg(&data));
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c shared_buffers=32MB",
            cluster.port,
            cluster.dir.display()
        );
        let mut start = cluster.tool("pg_ctl");
        start.arg("-D").arg(&data).args(["-w", "-o", &options, "-l"]);
        run(start.arg(cluster.dir.join("log")).arg("start"));
        cluster
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
        let output = Command::new("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p"])
            .args([&self.port.to_string(), "-d", database, "-c", statement])
            .output()
            .expect("run psql");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// A number that a query gives.
    pub fn number(&self, database: &str, query: &str) -> i64 {
        let text = self.sql(database, query);
        text.parse().unwrap_or_else(|error| panic!("{query}: {text:?}: {error}"))
    }

    /// How a configuration names a database here.
    pub fn target(&self, database: &str) -> String {
        format!(
            "{{ host: 127.0.0.1, port: {}, database: {database}, user: postgres, sslmode: disable }}",
            self.port
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.tool("pg_ctl");
        stop.arg("-D").arg(self.dir.join("data")).args(["-m", "immediate", "stop"]);
        stop.stdout(Stdio::null()).status().ok();
    }
}

/// Where PostgreSQL's programs are.
fn postgres_bin() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.retain(|bin| bin.join("initdb").exists());
    versions.pop().expect("PostgreSQL is missing: make test installs it")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// A process of ours, with its log in a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `kalshi` with these arguments; its log goes to `log`.
    pub fn start(arguments: &[&str], log: PathBuf) -> Self {
        let file = fs::File::options().create(true).append(true).open(&log).expect("make a log");
        let child = Command::new(KALSHI)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("start kalshi");
        Self { child, log }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(id, signal).expect("signal a child");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let log = self.log.display().to_string();
        wait_for(&format!("the end of the process that logs to {log}"), || {
            self.child.try_wait().expect("wait for a child")
        })
    }

    /// Asks it to stop and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The simulated exchange, alone.
pub struct Exchange {
    child: Child,
    pub rest_url: String,
    pub ws_url: String,
    control: String,
    pub keys: Vec<(String, String)>,
}

impl Exchange {
    /// Starts it with these arguments after `sandbox exchange`.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(KALSHI)
            .args(["sandbox", "exchange"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the exchange");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        let said: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let keys = said["keys"].as_array().expect("keys").iter();
        let keys = keys.map(|key| (text(&key["key_id"]), text(&key["private_key_file"])));
        Self {
            rest_url: text(&said["rest_url"]),
            ws_url: text(&said["ws_url"]),
            control: text(&said["control_url"]),
            keys: keys.collect(),
            child,
        }
    }

    /// Asks the control plane for something and gives the answer's body.
    pub fn control(&self, path: &str, body: &str) -> String {
        let url = self.control.strip_prefix("http://").expect("plain HTTP");
        let (address, base) = url.split_once('/').expect("a path");
        request(address, "POST", &format!("/{base}{path}"), body)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Asked, so that it removes its keys.
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(id, Signal::TERM).ok();
        self.child.wait().ok();
    }
}

/// One HTTP request to this machine; the body of the answer.
pub fn request(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .expect("send a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    body.to_owned()
}

/// A configuration file of a gatherer, and the ports that it serves.
pub struct GathererFile {
    pub path: PathBuf,
    pub journal: PathBuf,
    pub metrics: String,
}

/// Writes a gatherer's configuration.
pub fn gatherer_file(
    root: &Path,
    name: &str,
    gatherer_id: &str,
    exchange: &Exchange,
    cluster: &Cluster,
    database: &str,
) -> GathererFile {
    let (key_id, key_file) = exchange.keys.first().expect("a key");
    let (health, metrics) = (free_port(), free_port());
    let journal = root.join(format!("{name}-journal"));
    let mut text = String::new();
    writeln!(text, "gatherer_id: {gatherer_id}").expect("write");
    writeln!(
        text,
        "api: {{ rest_url: '{}', ws_url: '{}', key_id: {key_id}, private_key_file: {key_file} }}",
        exchange.rest_url, exchange.ws_url
    )
    .expect("write");
    writeln!(text, "database: {}", cluster.target(database)).expect("write");
    writeln!(text, "journal: {{ dir: {} }}", journal.display()).expect("write");
    writeln!(text, "sessions: {{ orderbook: 2, reconnect_max: 1s }}").expect("write");
    writeln!(text, "server: {{ health: '127.0.0.1:{health}', metrics: '127.0.0.1:{metrics}' }}")
        .expect("write");
    writeln!(text, "logging: {{ level: info, format: text }}").expect("write");
    let path = root.join(format!("{name}.yaml"));
    fs::write(&path, text).expect("write a configuration");
    GathererFile { path, journal, metrics: format!("127.0.0.1:{metrics}") }
}

/// Writes a deduplicator's configuration over these gatherers' databases.
pub fn deduplicator_file(
    root: &Path,
    name: &str,
    cluster: &Cluster,
    gatherers: &[(&str, &str)],
    production: &str,
) -> PathBuf {
    let (health, metrics) = (free_port(), free_port());
    let mut text = format!("deduplicator_id: {name}\ngatherers:\n");
    for (id, database) in gatherers {
        writeln!(text, "  - {{ id: {id}, database: {} }}", cluster.target(database))
            .expect("write");
    }
    writeln!(text, "production: {}", cluster.target(production)).expect("write");
    writeln!(text, "server: {{ health: '127.0.0.1:{health}', metrics: '127.0.0.1:{metrics}' }}")
        .expect("write");
    writeln!(text, "logging: {{ level: info, format: text }}").expect("write");
    let path = root.join(format!("{name}.yaml"));
    fs::write(&path, text).expect("write a configuration");
    path
}

/// Brings a configuration's database to this version.
pub fn migrate(configuration: &Path) {
    run(Command::new(KALSHI).arg("migrate").arg("--config").arg(configuration));
}
