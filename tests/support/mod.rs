//! What the tests of the running platform share: a throw-away PostgreSQL, the simulated exchange and
//! the roles as processes, and waiting for what they do.
//!
//! Everything is started here and ended by its id when it is dropped.

#![allow(dead_code, reason = "each test binary and benchmark uses its part")]
#![allow(clippy::indexing_slicing, reason = "tests say what must hold")]

pub mod capture;
mod cluster;
pub mod moto;
pub mod node;
#[path = "../../src/ops/small_disk.rs"]
pub mod small_disk;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};

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

/// A line of a process's status file, in bytes: `VmRSS` is what it has in memory, `VmHWM` the most
/// that it had.
pub fn memory(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// The sum of some times of a stat file (proc(5)), counted behind the name; ticks of 1/100 s.
fn stat_seconds(stat: &str, fields: &[usize]) -> f64 {
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let all: Vec<&str> = behind.split_whitespace().collect();
    let ticks = |at: &usize| all.get(*at).and_then(|text| text.parse::<f64>().ok());
    fields.iter().filter_map(ticks).sum::<f64>() / 100.0
}

/// The directory of the server's programs that the tests are told to use, in place of the machine's own.
pub fn given_postgres() -> Option<PathBuf> {
    std::env::var_os("KALSHI_POSTGRES").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// What divides gatherers' logs in this run of the tests.
pub fn engine() -> &'static str {
    let has_timescaledb = |bin: PathBuf| bin.join("../lib/timescaledb.so").exists();
    if given_postgres().is_some_and(has_timescaledb) { "timescaledb" } else { "native" }
}

/// Where PostgreSQL's programs are.
fn postgres_bin() -> PathBuf {
    if let Some(given) = given_postgres() {
        return given;
    }
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

/// The executable, started by way of another program if there is one.
fn kalshi(way: &[&str]) -> Command {
    match way {
        [] => Command::new(KALSHI),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(KALSHI);
            command
        }
    }
}

/// A process of ours, with its log in a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `kalshi` with these arguments; its log goes to `log`.
    pub fn start(arguments: &[&str], log: PathBuf) -> Self {
        Self::start_in(&[], arguments, log)
    }

    /// The same, by way of another program that becomes it: `ip netns exec NAME`.
    pub fn start_in(way: &[&str], arguments: &[&str], log: PathBuf) -> Self {
        let file = fs::File::options().create(true).append(true).open(&log).expect("make a log");
        let child = kalshi(way)
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

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
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
        Self::start_in(&[], arguments)
    }

    /// The same, by way of another program that becomes it.
    pub fn start_in(way: &[&str], arguments: &[&str]) -> Self {
        let mut child = kalshi(way)
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
        self.request("POST", path, body)
    }

    /// What a call of market data answers; its path is behind the API's root.
    pub fn rest(&self, path: &str) -> serde_json::Value {
        let url = self.rest_url.strip_prefix("http://").expect("plain HTTP");
        let (address, base) = url.split_once('/').expect("a path");
        let text = request(address, "GET", &format!("/{base}{path}"), "");
        serde_json::from_str(&text).expect("a JSON object")
    }

    /// What the control plane says of the exchange.
    pub fn status(&self) -> serde_json::Value {
        let text = self.request("GET", "/status", "");
        serde_json::from_str(&text).expect("a JSON object")
    }

    /// Every change that was sent to somebody, in the order of publication: what recorders can have.
    pub fn sent(&self) -> Vec<serde_json::Value> {
        let text = self.request("GET", "/ledger/deltas", "");
        let rows = text.lines().map(|line| serde_json::from_str(line).expect("a row"));
        rows.filter(|row: &serde_json::Value| row["receivers"] != 0).collect()
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let url = self.control.strip_prefix("http://").expect("plain HTTP");
        let (address, base) = url.split_once('/').expect("a path");
        request(address, method, &format!("/{base}{path}"), body)
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

/// What an address answers to a GET; nothing while nobody listens there.
pub fn get(address: &str, path: &str) -> String {
    match TcpStream::connect(address) {
        Ok(_) => request(address, "GET", path, ""),
        Err(_) => String::new(),
    }
}

/// One HTTP request to this machine; the body of the answer. Of HTTP 1.0, whose bodies have no chunks.
pub fn request(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
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
    pub health: String,
    pub metrics: String,
}

/// Whoever migrates; the roles themselves have no more rights than they need.
const ADMIN: &str = "admin: { user: postgres }\n";

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
    writeln!(text, "database: {}", cluster.target(database, "gatherer")).expect("write");
    text.push_str(ADMIN);
    writeln!(text, "journal: {{ dir: {} }}", journal.display()).expect("write");
    writeln!(text, "sessions: {{ orderbook: 2, reconnect_max: 1s }}").expect("write");
    writeln!(text, "server: {{ health: '127.0.0.1:{health}', metrics: '127.0.0.1:{metrics}' }}")
        .expect("write");
    writeln!(text, "storage: {{ engine: {} }}", engine()).expect("write");
    writeln!(text, "logging: {{ level: info, format: text }}").expect("write");
    let path = root.join(format!("{name}.yaml"));
    fs::write(&path, text).expect("write a configuration");
    GathererFile {
        path,
        journal,
        health: format!("127.0.0.1:{health}"),
        metrics: format!("127.0.0.1:{metrics}"),
    }
}

/// Gives a gatherer another of the exchange's accounts than the first.
pub fn with_key(file: &Path, exchange: &Exchange, key: usize) {
    let text = fs::read_to_string(file).expect("the configuration");
    let ((first, first_file), (own, own_file)) = (&exchange.keys[0], &exchange.keys[key]);
    let text = text.replace(first_file, own_file).replace(first, own);
    fs::write(file, text).expect("write the configuration");
}

/// Lets a deduplicator copy the exchange's markets.
pub fn with_markets(file: &Path, exchange: &Exchange, settings: &str) {
    let mut text = fs::read_to_string(file).expect("the configuration");
    writeln!(text, "api: {{ rest_url: '{}' }}", exchange.rest_url).expect("write");
    writeln!(text, "markets: {{ {settings} }}").expect("write");
    fs::write(file, text).expect("write the configuration");
}

/// Where a deduplicator's configuration says that it answers for its health.
pub fn health_address(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("the configuration");
    let (_, rest) = text.split_once("health: '").expect("an address");
    rest.split('\'').next().expect("its end").to_owned()
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
        let database = cluster.target(database, "dedup_reader");
        writeln!(text, "  - {{ id: {id}, database: {database} }}").expect("write");
    }
    writeln!(text, "production: {}", cluster.target(production, "deduplicator")).expect("write");
    text.push_str(ADMIN);
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
