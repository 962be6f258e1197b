//! Rotations against a real server that asks for passwords and logs every statement: each way that one
//! ends, from each place where one may have died, with the file that holds versions.

mod faults;

use std::path::PathBuf;

use super::*;
use crate::ops::exit::chain;
use crate::ops::secret::{Password, Place, Secret, Versions};
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;

const ROTATE: Options = Options { action: Action::Rotate, force: false, json: true };
const ROLLBACK: Options = Options { action: Action::Rollback, ..ROTATE };

/// A server with production's database, and a directory for secrets.
struct Bench {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(settings: &str) -> Self {
        let cluster = Cluster::start_with_tcp();
        cluster.create_with("p", Schema::Production).await;
        cluster.create_with("q", Schema::Production).await;
        cluster.ask_for_passwords(settings);
        Self { cluster, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("role.secret")
    }

    fn store(&self) -> Store {
        Store::at(Place::File(self.path()))
    }

    /// The deduplicator's password, set by the superuser.
    fn job(&self) -> Job {
        Job {
            role: "deduplicator".to_owned(),
            store: self.store(),
            strategy: Strategy::Single,
            databases: vec![self.database("p")],
            reload: None,
        }
    }

    fn database(&self, name: &str) -> Database {
        Database {
            target: self.cluster.tcp(name, "deduplicator"),
            admin: Some(self.cluster.target(name)),
        }
    }

    /// As a daemon's configuration has it.
    fn daemon(&self) -> Target {
        let password = Some(Password::in_store(self.store()));
        Target { password, ..self.cluster.tcp("p", "deduplicator") }
    }

    async fn versions(&self) -> [Option<String>; 3] {
        let Versions { current, pending, previous } = self.store().versions().await.unwrap();
        [current, pending, previous].map(|v| v.map(|v| v.value.expose().to_owned()))
    }

    async fn opens(&self, user: &str, password: &str) -> bool {
        let password = Some(Secret::new(password).into());
        Target { password, ..self.cluster.tcp("p", user) }.connect().await.is_ok()
    }

    /// What the audit log says, in order.
    async fn audit(&self) -> Vec<String> {
        let admin = self.cluster.target("p").connect().await.unwrap();
        let sql =
            "SELECT step || ' ' || login || ' by ' || session_name FROM rotations ORDER BY id";
        let rows = admin.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Whoever ran anything here, no password was in any statement.
    async fn assert_server_knows_no_password(&self) {
        let log = self.cluster.log();
        assert!(log.contains("SCRAM-SHA-256$4096:"), "statements are logged");
        for text in self.versions().await.into_iter().flatten() {
            assert!(!log.contains(&text));
        }
    }
}

async fn once(job: Job, options: Options) -> Result<()> {
    run(vec![job], options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_rotated_under_a_daemon_and_back_again() {
    let bench = Bench::new().await;
    once(bench.job(), ROTATE).await.unwrap();
    let [Some(first), None, None] = bench.versions().await else { panic!("one version") };
    assert!(bench.opens("deduplicator", &first).await);

    let daemon = bench.daemon();
    let session = daemon.connect().await.unwrap();
    once(bench.job(), ROTATE).await.unwrap();
    let [Some(second), None, Some(before)] = bench.versions().await else { panic!("two versions") };
    assert_eq!(before, first);
    assert!(bench.opens("deduplicator", &second).await);
    assert!(!bench.opens("deduplicator", &first).await);
    session.batch_execute("SELECT 1").await.expect("sessions go on");
    daemon.connect().await.expect("a new one reads the secret again");

    once(bench.job(), ROLLBACK).await.unwrap();
    let again = [Some(first.clone()), None, Some(second)];
    assert_eq!(bench.versions().await, again);
    assert!(bench.opens("deduplicator", &first).await);
    daemon.connect().await.unwrap();
    let steps = ["set", "finish"].repeat(3);
    let lines = steps.iter().map(|step| format!("{step} deduplicator by postgres"));
    assert_eq!(bench.audit().await, lines.collect::<Vec<_>>());
    bench.assert_server_knows_no_password().await;
}

/// The states that a run can leave, made by the same calls that it makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_died_is_completed_or_undone_from_wherever_it_was() {
    let bench = Bench::new().await;
    once(bench.job(), ROTATE).await.unwrap();
    let admin = bench.cluster.target("p").connect().await.unwrap();
    for (is_set, is_promoted) in [(false, false), (true, false), (true, true)] {
        for options in [ROTATE, ROLLBACK] {
            let what = format!("set {is_set}, promoted {is_promoted}, {options:?}");
            let daemon = bench.daemon();
            daemon.connect().await.unwrap();
            let [Some(before), None, _] = bench.versions().await else { panic!("{what}") };
            let new = Secret::generate().unwrap();
            let version = bench.store().put_pending(&new, None).await.unwrap();
            if is_set {
                let verifier = postgres_protocol::password::scram_sha_256(new.expose().as_bytes());
                let sql = format!("ALTER ROLE deduplicator PASSWORD '{verifier}'");
                admin.batch_execute(&sql).await.unwrap();
            }
            if is_promoted {
                bench.store().promote(&version).await.unwrap();
            }
            let connected = daemon.connect().await;
            connected.unwrap_or_else(|error| panic!("{what}, half way: {error}"));
            once(bench.job(), options).await.unwrap();
            let expected = if options.action == Action::Rotate { new.expose() } else { &before };
            let [Some(current), None, _] = bench.versions().await else { panic!("{what}") };
            assert_eq!(current, expected, "{what}");
            assert!(bench.opens("deduplicator", expected).await, "{what}");
            daemon.connect().await.unwrap_or_else(|error| panic!("{what}, after: {error}"));
            // A pause after a look in vain belongs to one daemon; the next round has its own.
        }
    }
    bench.assert_server_knows_no_password().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_may_rotate_its_own_password_and_one_secret_may_open_several_databases() {
    let bench = Bench::new().await;
    let both = |admin: bool| {
        let mut job = bench.job();
        job.databases.push(bench.database("q"));
        if !admin {
            job.databases.iter_mut().for_each(|database| database.admin = None);
        }
        job
    };
    let error = chain(&once(both(false), ROTATE).await.unwrap_err());
    assert!(error.contains("the first one is set by an administrator"), "{error}");
    once(both(true), ROTATE).await.unwrap();
    once(both(false), ROTATE).await.unwrap();
    let [Some(current), None, Some(_)] = bench.versions().await else { panic!("two versions") };
    assert!(bench.opens("deduplicator", &current).await);
    let lines = bench.audit().await;
    assert_eq!(lines[2], "set deduplicator by deduplicator", "{lines:?}");
    assert_eq!(lines[3], "finish deduplicator by deduplicator", "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logins_take_turns_and_the_one_before_stays_valid() {
    let bench = Bench::new().await;
    let job = || {
        let mut job = bench.job();
        job.role = "exporter".to_owned();
        job.strategy = Strategy::Alternating;
        job.databases[0].target.user = "exporter".to_owned();
        job
    };
    let mut known: Vec<(String, String)> = Vec::new();
    for expected in ["exporter_a", "exporter_b", "exporter_a"] {
        once(job(), ROTATE).await.unwrap();
        let versions = bench.store().versions().await.unwrap();
        let current = versions.current.unwrap();
        assert_eq!(current.username.as_deref(), Some(expected));
        known.push((expected.to_owned(), current.value.expose().to_owned()));
        for (user, password) in known.iter().rev().take(2) {
            assert!(bench.opens(user, password).await, "{user}");
        }
    }
    let (user, password) = &known[0];
    assert!(!bench.opens(user, password).await, "the first one's password was replaced");
    let (_, password) = &known[2];
    let password = Some(Secret::new(password.as_str()).into());
    let target = Target { password, ..bench.cluster.tcp("p", "exporter_a") };
    let client = target.connect().await.unwrap();
    client.batch_execute("SELECT count(*) FROM trades").await.expect("it may what exporter may");

    once(job(), ROLLBACK).await.unwrap();
    let versions = bench.store().versions().await.unwrap();
    assert_eq!(versions.current.unwrap().username.as_deref(), Some("exporter_b"));
    let (user, password) = &known[1];
    assert!(bench.opens(user, password).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_are_not_ours_are_told_once_the_new_password_is_current() {
    let bench = Bench::new().await;
    let told = bench.dir.path().join("told");
    let mut job = bench.job();
    job.reload = Some(format!("cp {} {}", bench.path().display(), told.display()));
    once(job, ROTATE).await.unwrap();
    let [Some(current), ..] = bench.versions().await else { panic!("a version") };
    let seen: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!(seen["current"]["value"], current);

    let mut job = bench.job();
    job.reload = Some("exit 3".to_owned());
    let error = chain(&once(job, ROTATE).await.unwrap_err());
    assert!(error.contains("\"exit 3\" failed: exit status: 3"), "{error}");
    assert!(error.contains("The same command completes it"), "{error}");
    once(bench.job(), ROTATE).await.unwrap();
    let [Some(second), None, Some(before)] = bench.versions().await else { panic!("settled") };
    assert_eq!(before, current);
    assert!(bench.opens("deduplicator", &second).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_changes_nothing_and_a_check_of_age_neither() {
    let bench = Bench::new().await;
    once(bench.job(), ROTATE).await.unwrap();
    let before = std::fs::read_to_string(bench.path()).unwrap();
    let audited = bench.audit().await;
    once(bench.job(), Options { action: Action::DryRun, ..ROTATE }).await.unwrap();
    let check = |age| Options { action: Action::CheckAge(age), ..ROTATE };
    once(bench.job(), check(Duration::from_secs(3600))).await.unwrap();
    let error = once(bench.job(), check(Duration::from_nanos(1))).await.unwrap_err();
    assert_eq!(crate::ops::exit::Exit::of(&error), crate::ops::exit::Exit::Discrepancy);
    assert_eq!(std::fs::read_to_string(bench.path()).unwrap(), before);
    assert_eq!(bench.audit().await, audited);
    bench.daemon().connect().await.unwrap();
}
