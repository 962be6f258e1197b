//! `kalshi rotate-password` as a process: under a running platform, killed at each step, with secrets in
//! files and in AWS Secrets Manager (served by moto), and with the secrets manager failing.

#![allow(clippy::indexing_slicing, reason = "tests say what must hold")]

#[path = "rotate/running.rs"]
mod running;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::moto::{Moto, failing};
use support::{
    Cluster, Exchange, KALSHI, Process, deduplicator_file, gatherer_file, migrate, wait_for,
    with_key,
};

/// Where a run may be killed, in the order in which it passes.
const POINTS: [&str; 5] =
    ["rotate-created", "rotate-set", "rotate-tested", "rotate-promoted", "rotate-settled"];

/// Gatherers' databases and production, whose roles have to give passwords, and their configurations.
struct Bench {
    exchange: Exchange,
    gatherer: PathBuf,
    /// Of further gatherers, with the same secret.
    others: Vec<PathBuf>,
    dedup: PathBuf,
    /// Dropped last, in this order: everything else uses them.
    cluster: Cluster,
    root: tempfile::TempDir,
}

/// Puts a secret's place where the configuration has a user without a password.
fn with_secret(file: &Path, user: &str, place: &str) {
    let text = fs::read_to_string(file).expect("a configuration");
    let from = format!("user: {user}, sslmode");
    assert!(text.contains(&from), "{text}");
    let to = format!("user: {user}, password_secret: '{place}', sslmode");
    fs::write(file, text.replace(&from, &to)).expect("write a configuration");
}

impl Bench {
    /// `place` says where the password of a role is kept.
    fn new(flow: &[&str], place: impl Fn(&Path, &str) -> String) -> Self {
        Self::with_gatherers(1, flow, place)
    }

    fn with_gatherers(
        gatherers: usize,
        flow: &[&str],
        place: impl Fn(&Path, &str) -> String,
    ) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let settings = "-c shared_buffers=128MB -c track_commit_timestamp=on";
        let cluster = Cluster::start_with(root.path(), settings);
        let exchange = Exchange::start(flow);
        let names: Vec<(String, String)> =
            (1..=gatherers).map(|n| (format!("gatherer-{n}"), format!("g{n}"))).collect();
        let file = |(key, (id, database)): (usize, &(String, String))| {
            let file = gatherer_file(root.path(), database, id, &exchange, &cluster, database).path;
            with_key(&file, &exchange, key);
            file
        };
        let mut others: Vec<PathBuf> = names.iter().enumerate().map(file).collect();
        let names: Vec<(&str, &str)> =
            names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
        let dedup = deduplicator_file(root.path(), "dedup", &cluster, &names, "production");
        others.iter().chain([&dedup]).for_each(|file| migrate(file));
        cluster.ask_for_passwords("gatherer,dedup_reader,deduplicator");
        for gatherer in &others {
            with_secret(gatherer, "gatherer", &place(root.path(), "gatherer"));
        }
        let gatherer = others.remove(0);
        with_secret(&dedup, "dedup_reader", &place(root.path(), "dedup_reader"));
        with_secret(&dedup, "deduplicator", &place(root.path(), "deduplicator"));
        // Who sets the passwords in the gatherer's database, from the deduplicator's file.
        let mut text = fs::read_to_string(&dedup).expect("the configuration");
        text.push_str("rotation:\n  - { role: deduplicator }\n");
        text.push_str("  - { role: dedup_reader, admin: { user: postgres } }\n");
        fs::write(&dedup, text).expect("write the configuration");
        Self { exchange, gatherer, others, dedup, cluster, root }
    }

    fn in_files() -> Self {
        Self::new(&["--idle"], in_file)
    }
}

fn in_file(root: &Path, role: &str) -> String {
    format!("file:{}", root.join(format!("{role}.secret")).display())
}

/// Nothing of this machine's own access to AWS is used, and none of it is waited for.
fn environment(endpoint: &str) -> [(&'static str, &str); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

fn kalshi(arguments: &[&str], file: &Path, endpoint: &str) -> Command {
    let mut command = Command::new(KALSHI);
    command.args(arguments).arg("--config").arg(file);
    command.envs(environment(endpoint)).stdin(Stdio::null());
    command
}

/// Code, stdout, stderr.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(arguments: &[&str], file: &Path, endpoint: &str) -> (Option<i32>, String, String) {
    said(&kalshi(arguments, file, endpoint).output().expect("run kalshi"))
}

fn fine(arguments: &[&str], file: &Path, endpoint: &str) -> String {
    let (code, told, errors) = run(arguments, file, endpoint);
    assert_eq!(code, Some(0), "{arguments:?}: {told}{errors}");
    told
}

const NOWHERE: &str = "http://127.0.0.1:9";

/// Kills it at each place, checks that the services get in meanwhile, and starts it again.
fn killed_everywhere(bench: &Bench, endpoint: &str, current: impl Fn() -> String) {
    let rotate = ["rotate-password", "--role", "deduplicator", "--format", "json"];
    for point in POINTS {
        let before = current();
        let mut command = kalshi(&rotate, &bench.dedup, endpoint);
        let killed = command.env("FAILPOINTS", format!("{point}=return")).output().expect("run");
        assert_eq!(killed.status.code(), None, "{point}: {:?}", said(&killed));
        fine(&["dedup", "--check"], &bench.dedup, endpoint);
        let told: Value =
            serde_json::from_str(&fine(&rotate, &bench.dedup, endpoint)).expect("JSON");
        let outcome = &told["roles"][0]["outcome"];
        // Killed behind its last step there was nothing left to complete, and this was another one.
        let expected = if point == "rotate-settled" { "rotated" } else { "completed" };
        assert_eq!(outcome, expected, "{point}: {told}");
        assert_ne!(current(), before, "{point}");
        fine(&["dedup", "--check"], &bench.dedup, endpoint);
        assert!(!bench.cluster.log().contains(&before), "{point}: the server saw a password");
    }
    let mut command = kalshi(&rotate, &bench.dedup, endpoint);
    command.arg("--rollback").env("FAILPOINTS", "rotate-set=return");
    let before = current();
    let killed = command.output().expect("run");
    assert_eq!(killed.status.code(), None, "rollback: {:?}", said(&killed));
    fine(&["dedup", "--check"], &bench.dedup, endpoint);
    let mut again = rotate.to_vec();
    again.push("--rollback");
    let told = fine(&again, &bench.dedup, endpoint);
    assert!(told.contains("\"outcome\":\"rolled back\""), "{told}");
    assert_ne!(current(), before);
    fine(&["dedup", "--check"], &bench.dedup, endpoint);
    assert!(!bench.cluster.log().contains(&current()));
}

fn first_passwords(bench: &Bench, endpoint: &str) {
    fine(&["rotate-password", "--role", "gatherer"], &bench.gatherer, endpoint);
    let told = fine(&["rotate-password", "--all"], &bench.dedup, endpoint);
    assert!(told.contains("deduplicator in ") && told.contains("dedup_reader in "), "{told}");
}

#[test]
fn killed_at_any_step_with_secrets_in_files() {
    let bench = Bench::in_files();
    first_passwords(&bench, NOWHERE);
    let file = bench.root.path().join("deduplicator.secret");
    killed_everywhere(&bench, NOWHERE, || {
        let text = fs::read_to_string(&file).expect("the secret");
        let held: Value = serde_json::from_str(&text).expect("JSON");
        held["current"]["value"].as_str().expect("a password").to_owned()
    });
}

#[test]
fn killed_at_any_step_with_secrets_in_aws() {
    let moto = Moto::start();
    let bench = Bench::new(&["--idle"], |_, role| format!("aws:kalshi/{role}#password"));
    let endpoint = moto.url();
    // The secret has to be there: who may make one is not who rotates.
    let (code, _, errors) =
        run(&["rotate-password", "--role", "deduplicator"], &bench.dedup, &endpoint);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("aws:kalshi/deduplicator#password"), "{errors}");
    assert!(errors.contains("ResourceNotFoundException"), "{errors}");
    for role in ["gatherer", "dedup_reader", "deduplicator"] {
        moto.call("CreateSecret", &json!({ "Name": format!("kalshi/{role}") }));
    }
    first_passwords(&bench, &endpoint);
    let current = || {
        let text = moto.labelled("kalshi/deduplicator", "AWSCURRENT").expect("a current version");
        let held: Value = serde_json::from_str(&text).expect("JSON");
        held["password"].as_str().expect("a password").to_owned()
    };
    killed_everywhere(&bench, &endpoint, current);
    assert_eq!(moto.labelled("kalshi/deduplicator", "AWSPENDING"), None);
    assert!(moto.labelled("kalshi/deduplicator", "AWSPREVIOUS").is_some());
    let told = fine(
        &["rotate-password", "--all", "--check-age", "90d", "--format", "json"],
        &bench.dedup,
        &endpoint,
    );
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["roles"][0]["is_too_old"], false, "{told}");
    let old = ["rotate-password", "--all", "--check-age", "1ms"];
    let (code, _, errors) = run(&old, &bench.dedup, &endpoint);
    assert_eq!(code, Some(2), "{errors}");

    // A secrets manager that fails, in each way: told, nothing changed, and the services go on with
    // what they know.
    let (labels, verifier) = (
        || moto.labelled("kalshi/deduplicator", "AWSPENDING"),
        || {
            let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'deduplicator'";
            bench.cluster.sql("postgres", sql)
        },
    );
    let before = (current(), labels(), verifier());
    let throttled = failing("ThrottlingException", "Rate exceeded");
    let denied = failing("AccessDeniedException", "User is not authorized to perform this");
    for (endpoint, words) in [
        (throttled.as_str(), "Rate exceeded (ThrottlingException)"),
        (denied.as_str(), "User is not authorized to perform this (AccessDeniedException)"),
        (NOWHERE, "Secrets Manager gave no answer"),
    ] {
        let rotate = ["rotate-password", "--role", "deduplicator"];
        let (code, _, errors) = run(&rotate, &bench.dedup, endpoint);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(words) && errors.contains("Nothing was changed"), "{errors}");
        assert_eq!((current(), labels(), verifier()), before, "{words}");
    }
}

/// What a process was started with, of every process of this machine.
fn command_lines() -> String {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

/// A part of a key that is in no other text.
fn middle_line(pem: &Path) -> String {
    let text = fs::read_to_string(pem).expect("a key");
    text.lines().filter(|line| !line.starts_with("--")).nth(3).expect("a line").to_owned()
}

#[test]
fn no_secret_is_shown_by_any_role_at_any_level() {
    let bench = Bench::new(&["--markets", "10", "--rate", "100", "--seed", "7"], in_file);
    let root = bench.root.path();
    let mut planted = vec![middle_line(Path::new(&bench.exchange.keys[0].1))];
    for role in ["gatherer", "dedup_reader", "deduplicator"] {
        let canary = format!("canary-{role}-5f1e9b");
        bench.cluster.sql("postgres", &format!("ALTER ROLE {role} PASSWORD '{canary}'"));
        let file = root.join(format!("{role}.secret"));
        fs::write(&file, &canary).expect("plant a secret");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&file, mode).expect("guard a secret");
        planted.push(canary);
    }
    let loud = |file: &Path| {
        let text = fs::read_to_string(file).expect("a configuration");
        fs::write(file, text.replace("level: info", "level: trace")).expect("write it");
        file.to_str().expect("UTF-8").to_owned()
    };
    let (gather_file, dedup_file) = (loud(&bench.gatherer), loud(&bench.dedup));
    let address = |file: &str, which: &str| {
        let text = fs::read_to_string(file).expect("the configuration");
        let (_, rest) = text.split_once(&format!("{which}: '")).expect("an address");
        rest.split('\'').next().expect("its end").to_owned()
    };
    let mut heard = fine(&["gather", "--check"], &bench.gatherer, NOWHERE);
    // Roles that die of a panic with their secrets in hand, and then as they ought to be.
    for (role, file, place) in [
        ("gather", &gather_file, "append-after-commit=20*off->panic"),
        ("dedup", &dedup_file, "dedup-after-commit=panic"),
    ] {
        let (way, log) = (format!("FAILPOINTS={place}"), root.join(format!("{role}-panic.log")));
        let mut dying = Process::start_in(&["env", &way], &[role, "--config", file], log);
        assert!(!dying.ended().success());
        assert!(dying.log().contains("panicked"), "{}", dying.log());
        heard.push_str(&dying.log());
    }
    let gatherer = Process::start(&["gather", "--config", &gather_file], root.join("g.log"));
    let dedup = Process::start(&["dedup", "--config", &dedup_file], root.join("d.log"));
    wait_for("rows in production", || {
        let sql = "SELECT head FROM logs WHERE name = 'orderbook_deltas'";
        (bench.cluster.number("production", sql) > 100).then_some(())
    });
    let mut hear = |(_, told, errors): (Option<i32>, String, String)| {
        heard.push_str(&told);
        heard.push_str(&errors);
    };
    hear(run(&["dedup", "--status"], &bench.dedup, NOWHERE));
    hear(run(&["migrate", "--status"], &bench.gatherer, NOWHERE));
    for arguments in [
        &["rotate-password", "--all", "--dry-run"][..],
        &["rotate-password", "--all", "--check-age", "1d"],
        &["rotate-password", "--role", "deduplicator"],
        &["rotate-password", "--role", "nobody", "--secret", "aws:x"],
    ] {
        let mut command = kalshi(arguments, &bench.dedup, NOWHERE);
        hear(said(&command.env("RUST_BACKTRACE", "1").output().expect("run")));
    }
    let mut command = kalshi(&["rotate-password", "--role", "deduplicator"], &bench.dedup, NOWHERE);
    command.env("RUST_BACKTRACE", "1").env("FAILPOINTS", "rotate-set=panic");
    let told = said(&command.output().expect("run"));
    assert!(told.2.contains("panicked"), "{told:?}");
    hear(told);
    let text = fs::read_to_string(root.join("deduplicator.secret")).expect("a secret");
    let held: Value = serde_json::from_str(&text).expect("JSON");
    for version in ["current", "pending"] {
        planted.push(held[version]["value"].as_str().expect("a password").to_owned());
    }
    // A password that is wrong, and a file that is damaged, in the words of everybody who meets them.
    for text in
        ["canary-wrong-5f1e9b", "{\"kalshi_secret\": 1, \"current\": \"canary-wrong-5f1e9b\"}"]
    {
        fs::write(root.join("dedup_reader.secret"), text).expect("plant a secret");
        for arguments in [&["dedup", "--check"][..], &["rotate-password", "--all"]] {
            hear(run(arguments, &bench.dedup, NOWHERE));
        }
    }
    planted.push("canary-wrong-5f1e9b".to_owned());
    for (file, which, path) in [
        (&gather_file, "health", "/health"),
        (&gather_file, "metrics", "/metrics"),
        (&dedup_file, "health", "/health"),
        (&dedup_file, "metrics", "/metrics"),
    ] {
        let answer = support::get(&address(file, which), path);
        assert!(!answer.is_empty(), "{file} {path}");
        heard.push_str(&answer);
    }
    let lines = command_lines();
    assert!(lines.contains(&gather_file), "the gatherer's own line is among them");
    let texts = [heard, gatherer.log(), dedup.log(), lines];
    assert!(texts[1].contains("DEBUG") && texts[2].contains("DEBUG"), "they are loud");
    for secret in &planted {
        for text in &texts {
            let at = text.find(secret.as_str());
            let around = at.map(|at| &text[at.saturating_sub(200)..at]);
            assert!(at.is_none(), "{secret} is shown behind: {around:?}");
        }
    }
}

#[test]
fn a_place_of_secrets_that_is_away_is_no_bad_configuration() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("gatherer.yaml");
    let code = |more: &str| {
        let text = format!(
            "gatherer_id: g1\n\
             api:\n  rest_url: https://h/trade-api/v2\n  ws_url: wss://h/trade-api/ws/v2\n  \
             key_id: key-1\n  private_key_secret: aws:kalshi/key\n\
             database: {{ host: h, database: d, user: u }}\n{more}"
        );
        fs::write(&file, text).expect("write a configuration");
        let (code, _, errors) = run(&["gather", "--check"], &file, NOWHERE);
        assert!(errors.contains("api.private_key_secret: "), "{errors}");
        code
    };
    // Who starts it again may find the place there; a file that is wrong stays wrong.
    assert_eq!(code(""), Some(1));
    assert_eq!(code("unknown: 1\n"), Some(64));
}
