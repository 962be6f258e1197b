//! What keeps a password from being rotated: said clearly, and nothing is changed.

use super::*;
use crate::ops::exit::Exit;

impl Bench {
    /// Runs a job that has to fail with these words, leaving secret, database and audit log as they were.
    async fn fails(&self, job: Job, words: &[&str]) {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        let audited = self.audit().await;
        let error = once(job, ROTATE).await.unwrap_err();
        let said = chain(&error);
        for word in words.iter().chain(&["Nothing was changed"]) {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(Exit::of(&error), Exit::Failed, "{said}");
        assert_eq!(std::fs::read_to_string(self.path()).unwrap_or_default(), text, "{said}");
        assert_eq!(self.audit().await, audited, "{said}");
        for secret in self.versions().await.into_iter().flatten() {
            assert!(!said.contains(&secret), "{said}");
        }
    }

    async fn sql(&self, sql: &str) {
        let admin = self.cluster.target("p").connect().await.unwrap();
        admin.batch_execute(sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_database_is_found_before_anything_changes() {
    let bench = Bench::new().await;
    once(bench.job(), ROTATE).await.unwrap();
    bench.sql("CREATE ROLE boss LOGIN PASSWORD 'right'; GRANT CONNECT ON DATABASE p TO boss").await;
    let by = |password: &str| {
        let mut job = bench.job();
        let password = Some(Secret::new(password).into());
        job.databases[0].admin = Some(Target { password, ..bench.cluster.tcp("p", "boss") });
        job
    };
    bench.fails(by("wrong"), &["log in as administrator", "password authentication failed"]).await;
    // One who may not.
    let words = ["set the password of deduplicator", "permission denied", "`admin` in the"];
    bench.fails(by("right"), &words).await;

    let mut job = bench.job();
    job.role = "nobody_here".to_owned();
    job.databases[0].target.user = "nobody_here".to_owned();
    bench.fails(job, &["there is no role nobody_here in nobody_here@127.0.0.1"]).await;

    bench.sql("ALTER ROLE postgres IN DATABASE p SET default_transaction_read_only = on").await;
    bench.fails(bench.job(), &["is read only"]).await;
    let admin = bench.cluster.target("q").connect().await.unwrap();
    admin
        .batch_execute("ALTER ROLE postgres IN DATABASE p RESET default_transaction_read_only")
        .await
        .unwrap();

    bench.sql("ALTER ROLE deduplicator VALID UNTIL '2020-01-01'").await;
    bench.fails(bench.job(), &["has expired", "VALID UNTIL 'infinity'"]).await;
    bench.sql("ALTER ROLE deduplicator VALID UNTIL 'infinity' NOLOGIN").await;
    bench.fails(bench.job(), &["may not log in"]).await;
    bench.sql("ALTER ROLE deduplicator LOGIN").await;

    // The audit log is a part of it.
    bench.sql("ALTER FUNCTION rotation_noted RENAME TO other").await;
    bench.fails(bench.job(), &["run kalshi migrate first"]).await;
    bench.sql("ALTER FUNCTION other RENAME TO rotation_noted").await;

    // Somebody set another password by hand: whoever uses that one would be locked out.
    bench.sql("ALTER ROLE deduplicator PASSWORD 'by hand'").await;
    bench.fails(bench.job(), &["is not the password that the database has", "--force"]).await;
    once(bench.job(), Options { force: true, ..ROTATE }).await.unwrap();
    bench.daemon().connect().await.unwrap();
    std::fs::remove_file(bench.path()).unwrap();
    bench.fails(bench.job(), &["holds no password, and the role has one", "--force"]).await;
}

/// The policy sees verifiers alone, and refuses that of the role's own name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_a_policy_refuses_is_dropped_by_a_rollback() {
    let bench = Bench::with("shared_preload_libraries = 'passwordcheck'\n").await;
    once(bench.job(), ROTATE).await.unwrap();
    bench.store().put_pending(&Secret::new("deduplicator"), None).await.unwrap();
    let text = std::fs::read_to_string(bench.path()).unwrap();
    let said = chain(&once(bench.job(), ROTATE).await.unwrap_err());
    for words in ["refuses the password that is pending", "--rollback", "password must not"] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(std::fs::read_to_string(bench.path()).unwrap(), text);
    once(bench.job(), ROLLBACK).await.unwrap();
    bench.daemon().connect().await.unwrap();
    once(bench.job(), ROTATE).await.unwrap();
    bench.daemon().connect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_at_once_the_second_is_refused_with_the_firsts_name() {
    let bench = Bench::new().await;
    once(bench.job(), ROTATE).await.unwrap();
    let database = bench.database("p");
    let versions = bench.store().versions().await.unwrap();
    let first = super::super::database::Session::open(&database, "deduplicator", &versions).await;
    let first = first.unwrap();
    let text = std::fs::read_to_string(bench.path()).unwrap();
    let error = once(bench.job(), ROTATE).await.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Held);
    let said = chain(&error);
    assert!(
        said.contains("another rotation is under way") && said.contains("(user postgres)"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(bench.path()).unwrap(), text);
    drop(first);
    // The server notices the end of the session when it reads it.
    while once(bench.job(), ROTATE).await.is_err_and(|error| Exit::of(&error) == Exit::Held) {
        tokio::task::yield_now().await;
    }
    bench.daemon().connect().await.unwrap();
}

/// The new password is in the database and does not open it: here because the server lets the role in
/// from elsewhere only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_that_does_not_work_is_taken_back() {
    let bench = Bench::new().await;
    let job = || {
        let mut job = bench.job();
        job.role = "exporter".to_owned();
        job.strategy = Strategy::Alternating;
        job.databases[0].target.user = "exporter".to_owned();
        job
    };
    once(job(), ROTATE).await.unwrap();
    let rules = "local all all trust\nhost all exporter_b 127.0.0.1/32 reject\n\
                 host all all 127.0.0.1/32 scram-sha-256\n";
    bench.cluster.put("pg_hba.conf", rules.as_bytes());
    bench.cluster.crash();
    bench.cluster.resume();
    let [Some(before), None, None] = bench.versions().await else { panic!("one version") };
    let said = chain(&once(job(), ROTATE).await.unwrap_err());
    assert!(said.contains("pg_hba.conf rejects"), "{said}");
    assert_eq!(bench.versions().await, [Some(before.clone()), None, None], "{said}");
    assert!(bench.opens("exporter_a", &before).await);
    // The role that was made for it lets nobody in, also once the server would.
    let admin = bench.cluster.target("p").connect().await.unwrap();
    let sql = "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'exporter_b'";
    assert!(admin.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), "{said}");
    bench.cluster.ask_for_passwords("");
    once(job(), ROTATE).await.unwrap();
    let [Some(after), None, Some(_)] = bench.versions().await else { panic!("two versions") };
    assert!(bench.opens("exporter_b", &after).await);
}

/// A run that died before it set anything: the password that the role has is somebody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_leaves_a_password_that_was_set_by_hand() {
    let bench = Bench::new().await;
    bench.sql("ALTER ROLE deduplicator PASSWORD 'by hand'").await;
    bench.store().put_pending(&Secret::new("pending"), None).await.unwrap();
    once(bench.job(), ROLLBACK).await.unwrap();
    assert_eq!(bench.versions().await, [None, None, None]);
    assert!(bench.opens("deduplicator", "by hand").await);

    // One that it had set opens nothing any more.
    bench.store().put_pending(&Secret::new("pending"), None).await.unwrap();
    bench.sql("ALTER ROLE deduplicator PASSWORD 'pending'").await;
    once(bench.job(), ROLLBACK).await.unwrap();
    assert!(!bench.opens("deduplicator", "pending").await);
}
