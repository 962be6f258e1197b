//! `kalshi migrate` as a process: from nothing, killed, two at once, without the rights; what the other
//! commands say of a database that is not as it should be, and with which exit code.

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::{
    Cluster, Exchange, KALSHI, deduplicator_file, free_port, gatherer_file, migrate, wait_for,
    with_markets,
};

struct Bench {
    exchange: Exchange,
    gatherer: PathBuf,
    dedup: PathBuf,
    /// Dropped last, in this order: everything else uses them.
    cluster: Cluster,
    root: tempfile::TempDir,
}

impl Bench {
    /// A server without any database of ours, and the files of a gatherer and a deduplicator.
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        let exchange = Exchange::start(&["--idle"]);
        let gatherer =
            gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1").path;
        let dedup = deduplicator_file(
            root.path(),
            "dedup",
            &cluster,
            &[("gatherer-1", "g1")],
            "production",
        );
        Self { exchange, gatherer, dedup, cluster, root }
    }

    /// A copy of a file with something in place of something else.
    fn changed(&self, file: &Path, from: &str, to: &str) -> PathBuf {
        let text = fs::read_to_string(file).expect("a configuration");
        assert!(text.contains(from), "{text}");
        let changed = self.root.path().join("changed.yaml");
        fs::write(&changed, text.replace(from, to)).expect("write a configuration");
        changed
    }
}

fn kalshi(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(KALSHI);
    command.args(arguments).arg("--config").arg(file).stdin(Stdio::null());
    command
}

/// Runs it to its end: code, stdout, stderr.
fn run(arguments: &[&str], file: &Path) -> (Option<i32>, String, String) {
    said(&kalshi(arguments, file).output().expect("run kalshi"))
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn files(kind: &str) -> usize {
    fs::read_dir(Path::new("sql").join(kind)).expect("the migrations").count()
}

#[test]
fn from_nothing_to_a_database_that_its_own_user_keeps_current() {
    let bench = Bench::new();
    let (code, sql, _) = run(&["migrate", "--dry-run"], &bench.gatherer);
    assert_eq!(code, Some(0));
    assert!(sql.starts_with("CREATE DATABASE \"g1\" ENCODING 'UTF8'"), "{sql}");
    assert!(sql.contains("\n\\connect \"g1\"\n"), "{sql}");
    assert!(sql.contains("-- V1__logs\n") && sql.contains("CREATE TABLE writer"), "{sql}");
    let (code, told, _) = run(&["migrate", "--status"], &bench.gatherer);
    assert!(code == Some(0) && told.starts_with("database g1 does not exist"), "{told}");
    assert_eq!(told.matches("pending").count(), files("gatherer"), "{told}");
    // A server that cannot have what is asked for is refused before anything is made there.
    let absent = bench.changed(&bench.gatherer, "engine: native", "engine: timescaledb");
    for arguments in [&["migrate", "--dry-run"][..], &["migrate"]] {
        let (code, told, errors) = run(arguments, &absent);
        assert_eq!(code, Some(64), "{told}{errors}");
        assert!(errors.contains("database g1") && errors.contains("timescaledb"), "{errors}");
    }
    assert_eq!(bench.cluster.number("postgres", "SELECT count(*) FROM pg_database"), 3);

    let (code, told, errors) = run(&["migrate"], &bench.gatherer);
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(told.starts_with("made database g1\napplying V1__logs ... done\n"), "{told}");
    assert_eq!(told.matches(" ... done\n").count(), files("gatherer"), "{told}");
    let (code, told, _) = run(&["migrate"], &bench.gatherer);
    assert!(code == Some(0) && told.contains(": nothing to do\n"), "{told}");

    // Without the administrator, as the role itself.
    let own = bench.changed(&bench.gatherer, "admin: { user: postgres }\n", "");
    let (code, told, errors) = run(&["migrate"], &own);
    assert!(code == Some(0) && told.contains("gatherer@127.0.0.1"), "{told}{errors}");
    let (code, told, _) = run(&["migrate", "--status"], &own);
    assert!(code == Some(0) && told.contains("logs") && !told.contains("pending"), "{told}");
    let (code, sql, _) = run(&["migrate", "--dry-run"], &own);
    assert!(code == Some(0) && sql.ends_with("nothing to do\n"), "{sql}");

    // The other kind's file for the same database: shown, and refused.
    let mixed = bench.changed(&bench.dedup, "database: production", "database: g1");
    for arguments in [&["migrate", "--status"][..], &["migrate", "--dry-run"], &["migrate"]] {
        let (code, told, errors) = run(arguments, &mixed);
        assert_eq!(code, Some(64), "{arguments:?} {told}{errors}");
        assert!(errors.contains("database g1 is a gatherer database"), "{errors}");
    }
}

/// A session that keeps migrations waiting at their n-th statement.
struct Gate {
    psql: Child,
}

impl Gate {
    fn close(cluster: &Cluster, database: &str, at: u32) -> Self {
        cluster.sql(
            database,
            &format!(
                "CREATE SCHEMA probe; CREATE TABLE probe.gate (); CREATE SEQUENCE probe.passed; \
                 CREATE FUNCTION probe.pass() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER \
                 AS $$ BEGIN IF nextval('probe.passed') = {at} THEN PERFORM FROM probe.gate; END IF; \
                 END $$; \
                 CREATE EVENT TRIGGER probe ON ddl_command_end EXECUTE FUNCTION probe.pass()"
            ),
        );
        let mut psql = Command::new("psql")
            .args(["-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-p"])
            .arg(cluster.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("run psql");
        let stdin = psql.stdin.as_mut().expect("its input");
        writeln!(stdin, "BEGIN; LOCK TABLE probe.gate IN ACCESS EXCLUSIVE MODE;").expect("write");
        let held =
            "SELECT count(*) FROM pg_locks WHERE relation = 'probe.gate'::regclass AND granted";
        wait_for("the gate", || (cluster.number(database, held) == 1).then_some(()));
        Self { psql }
    }

    fn open(mut self) {
        drop(self.psql.stdin.take());
        self.psql.wait().expect("wait for psql");
    }
}

#[test]
fn one_that_is_killed_within_a_statement_is_completed_by_two_others() {
    let bench = Bench::new();
    bench.cluster.sql("postgres", "CREATE DATABASE g1");
    let gate = Gate::close(&bench.cluster, "g1", 20);
    let waiting = |locktype: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity a USING (pid) \
             WHERE locktype = '{locktype}' AND NOT granted AND a.application_name = 'kalshi migrate'"
        );
        bench.cluster.number("g1", &sql)
    };
    let mut first =
        kalshi(&["migrate"], &bench.gatherer).stdout(Stdio::null()).spawn().expect("start");
    wait_for("the first within a statement", || (waiting("relation") == 1).then_some(()));
    first.kill().expect("kill -9");
    first.wait().expect("its end");
    let others = [(); 2].map(|()| {
        let mut command = kalshi(&["migrate"], &bench.gatherer);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start")
    });
    wait_for("the others at its lock", || (waiting("advisory") == 2).then_some(()));
    gate.open();
    let mut applied = 0;
    for other in others {
        let (code, told, errors) = said(&other.wait_with_output().expect("its end"));
        assert_eq!(code, Some(0), "{told}{errors}");
        assert!(told.starts_with("waiting for another migration"), "{told}");
        applied += told.matches(" ... done\n").count();
    }
    assert_eq!(applied, files("gatherer"));
    let (code, _, errors) = run(&["gather", "--check"], &bench.gatherer);
    assert_eq!(code, Some(0), "{errors}");
}

#[cfg(feature = "failpoints")]
#[test]
fn one_that_dies_before_or_after_any_step_is_completed() {
    let bench = Bench::new();
    let steps = files("production");
    for point in ["migrate-before-step", "migrate-after-step"] {
        for n in 0..steps {
            let mut command = kalshi(&["migrate"], &bench.dedup);
            command.env("FAILPOINTS", format!("{point}={n}*off->return"));
            let died = command.output().expect("run kalshi").status.code().is_none();
            assert!(died, "{point} of step {n}");
            let (code, told, errors) = run(&["migrate"], &bench.dedup);
            assert_eq!(code, Some(0), "{told}{errors}");
            let (code, _, errors) = run(&["migrate", "--status"], &bench.dedup);
            assert_eq!(code, Some(0), "{errors}");
            bench.cluster.sql("postgres", "DROP DATABASE production");
        }
    }
}

#[test]
fn daemons_say_what_to_run_and_end_with_the_same_codes() {
    let bench = Bench::new();
    for database in ["g1", "production"] {
        bench.cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    // The roles, which the logins need; another database has them made.
    let elsewhere = bench.changed(&bench.gatherer, "database: g1", "database: elsewhere");
    migrate(&elsewhere);
    let elsewhere = bench.changed(&bench.dedup, "database: production", "database: elsewhere2");
    migrate(&elsewhere);

    // Behind: it may be migrated at any moment.
    let (code, _, errors) = run(&["gather"], &bench.gatherer);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("run `kalshi migrate --config FILE` with its gatherer's"), "{errors}");
    let (code, _, errors) = run(&["dedup"], &bench.dedup);
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("run `kalshi migrate --config FILE` with the deduplicator's"),
        "{errors}"
    );
    for (command, file) in [("gather", &bench.gatherer), ("dedup", &bench.dedup)] {
        let (code, told, errors) = run(&[command, "--check"], file);
        assert_eq!(code, Some(1), "{told}{errors}");
    }

    // Everything at once, for a program: production of the wrong kind, a gatherer behind, no exchange.
    let mixed = bench.changed(&bench.dedup, "database: production", "database: elsewhere");
    let dead = bench.exchange.rest_url.clone();
    with_markets(&mixed, &bench.exchange, "refresh_interval: 1s");
    let text = fs::read_to_string(&mixed).expect("the configuration");
    let text = text
        .replace(&dead, &format!("http://127.0.0.1:{}/v2", free_port()))
        .replace("user: deduplicator", "user: gatherer");
    fs::write(&mixed, text).expect("write the configuration");
    let (code, told, errors) = run(&["dedup", "--check", "--format", "json"], &mixed);
    assert_eq!(code, Some(64), "{told}{errors}");
    let found: serde_json::Value = serde_json::from_str(&told).expect("a JSON object");
    let checks = found["checks"].as_array().expect("checks");
    assert_eq!((found["ok"].as_bool(), checks.len()), (Some(false), 3), "{told}");
    for (check, words) in
        checks.iter().zip(["is a gatherer database", "its gatherer's", "api.rest_url"])
    {
        assert!(check["error"].as_str().expect("an error").contains(words), "{check}");
    }

    for file in [&bench.gatherer, &bench.dedup] {
        migrate(file);
    }
    let (code, told, errors) = run(&["gather", "--check", "--format", "json"], &bench.gatherer);
    assert_eq!(code, Some(0), "{told}{errors}");
    let found: serde_json::Value = serde_json::from_str(&told).expect("a JSON object");
    assert_eq!(found["ok"], true);
    assert!(!told.contains("note"), "{told}");
    let superuser = bench.changed(&bench.gatherer, "user: gatherer", "user: postgres");
    let (code, told, errors) = run(&["gather", "--check"], &superuser);
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(told.contains("note: user postgres may change and remove rows"), "{told}");
    // A right that is gone is named.
    bench.cluster.sql("production", "REVOKE INSERT ON tickers FROM deduplicator");
    let (code, told, _) = run(&["dedup", "--check"], &bench.dedup);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("deduplicator lacks the right to INSERT on tickers"), "{told}");

    // Newer: only another program can use it.
    for database in ["g1", "production"] {
        bench.cluster.sql(
            database,
            "INSERT INTO refinery_schema_history VALUES (901, 'later', '2030-01-01T00:00:00Z', '5'); \
             COMMENT ON TABLE refinery_schema_history IS 'Made by kalshi 7.1.0 (abc)'",
        );
    }
    for (command, file) in [("gather", &bench.gatherer), ("dedup", &bench.dedup)] {
        for arguments in
            [&[command][..], &[command, "--check"], &["migrate"], &["migrate", "--status"]]
        {
            let (code, told, errors) = run(arguments, file);
            assert_eq!(code, Some(64), "{arguments:?} {told}{errors}");
            assert!(errors.contains("install kalshi 7.1.0 (abc)"), "{arguments:?} {errors}");
        }
    }
}

#[test]
fn without_the_rights_it_says_which_and_what_to_do() {
    let bench = Bench::new();
    bench.cluster.sql("postgres", "CREATE ROLE gatherer LOGIN");
    bench.cluster.sql("postgres", "CREATE DATABASE g1 OWNER gatherer");
    let own = bench.changed(&bench.gatherer, "admin: { user: postgres }\n", "");
    let (code, told, errors) = run(&["migrate"], &own);
    assert_eq!(code, Some(64), "{told}{errors}");
    for words in ["V3__roles", "42501", "`admin:`", "ALTER ROLE \"gatherer\" CREATEROLE"] {
        assert!(errors.contains(words), "{words}: {errors}");
    }
    // With them it goes on where it stopped.
    let (code, told, errors) = run(&["migrate"], &bench.gatherer);
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(!told.contains("V1__logs"), "{told}");
    bench
        .cluster
        .sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let latin = bench.changed(&bench.gatherer, "database: g1", "database: latin");
    let (code, _, errors) = run(&["migrate"], &latin);
    assert_eq!(code, Some(64), "{errors}");
    assert!(errors.contains("encoded in LATIN1"), "{errors}");
}
