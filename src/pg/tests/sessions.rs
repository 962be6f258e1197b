//! Sessions and the pool against a server that is healthy, refuses, hangs, or went away.

use std::time::{Duration, Instant};

use super::super::error::{Class, ConnectError, classify, describe};
use super::super::pool::{Limits, pool_with};
use super::super::testing::Cluster;
use super::super::{CONNECT_TIMEOUT, Options, Target, TlsMode, pool};
use crate::ops::secret::Secret;

fn tcp(port: u16) -> Target {
    Target {
        host: "127.0.0.1".into(),
        port,
        database: "postgres".into(),
        user: "postgres".into(),
        password: None,
        tls: TlsMode::Disable,
        root_cert: None,
        application_name: "kalshi test".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_reach_the_session_and_errors_have_their_class() {
    let cluster = Cluster::start_with_tcp();
    let options = Options {
        statement_timeout: Some(Duration::from_secs(2)),
        lock_timeout: Some(Duration::from_secs(3)),
        idle_in_transaction_timeout: Some(Duration::from_secs(1)),
        read_only: true,
        role: None,
    };
    let mut client = tcp(cluster.target("postgres").port).connect_with(options).await.unwrap();
    for (name, value) in [
        ("statement_timeout", "2s"),
        ("lock_timeout", "3s"),
        ("idle_in_transaction_session_timeout", "1s"),
        ("default_transaction_read_only", "on"),
        ("application_name", "kalshi test"),
        ("synchronous_commit", "on"),
    ] {
        let row = client.query_one(&format!("SHOW {name}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{name}");
    }
    let error = client.batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!(classify(&error), Class::Retry);
    assert!(
        describe(&error).contains("statement timeout (SQLSTATE 57014)"),
        "{}",
        describe(&error)
    );
    let error = client.batch_execute("CREATE TABLE x ()").await.unwrap_err();
    assert_eq!((error.code().unwrap().code(), classify(&error)), ("25006", Class::Retry));
    let error = client.query("SELECT nothing", &[]).await.unwrap_err();
    assert_eq!(classify(&error), Class::Fatal, "{error:?}");
    // What the program itself does wrong carries no SQLSTATE, and is no lost connection either.
    let error = client.query("SELECT $1::int8", &[&"text"]).await.unwrap_err();
    assert_eq!(classify(&error), Class::Fatal, "{error:?}");
    let row = client.query_one("SELECT 1::int8", &[]).await.unwrap();
    assert_eq!(classify(&row.try_get::<_, String>(0).unwrap_err()), Class::Fatal);
    // A transaction left open and silent is ended, and so is its session.
    let tx = client.transaction().await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while !tx.client().is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the server ends the idle transaction");
    let error = tx.commit().await.unwrap_err();
    assert_eq!(classify(&error), Class::Retry, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_says_why() {
    let cluster = Cluster::start_with_tcp();
    let admin = cluster.target("postgres").connect().await.unwrap();
    admin
        .batch_execute("CREATE ROLE one LOGIN PASSWORD 'right'; CREATE ROLE two LOGIN")
        .await
        .unwrap();
    let hba = "local all postgres trust\nhost all one 127.0.0.1/32 scram-sha-256\n";
    cluster.put("pg_hba.conf", hba.as_bytes());
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let mut target = Target { user: "one".into(), ..tcp(cluster.target("postgres").port) };
    // The reload takes effect when the server's main process has read the signal.
    let error = loop {
        match target.connect().await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), Class::Fatal, "no password configured: {error}");

    target.password = Some(Secret::new("canary-wrong").into());
    let error = target.connect().await.unwrap_err();
    assert_eq!(error.class(), Class::Auth);
    assert!(
        error.to_string().contains("password authentication failed for user \"one\""),
        "{error}"
    );
    assert!(!format!("{error} {error:?} {target:?}").contains("canary"));

    target.password = Some(Secret::new("right").into());
    target.connect().await.unwrap();

    let error = Target { database: "absent".into(), ..target.clone() }.connect().await.unwrap_err();
    assert!(error.to_string().contains("\"absent\" does not exist"), "{error}");
    let error = Target { user: "two".into(), ..target }.connect().await.unwrap_err();
    assert_eq!(error.class(), Class::Auth, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_then_says_nothing_costs_five_seconds() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begun = Instant::now();
    let error = tcp(silent.local_addr().unwrap().port()).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    assert!(begun.elapsed() >= CONNECT_TIMEOUT, "{:?}", begun.elapsed());
    let refused = tcp(closed_port()).connect().await.unwrap_err();
    assert_eq!(refused.class(), Class::Retry);
    assert!(refused.to_string().contains("refused"), "{refused}");
    let unknown = Target { host: "no-such-host.invalid".into(), ..tcp(1) };
    assert_eq!(unknown.connect().await.unwrap_err().class(), Class::Retry);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_replaces_dead_sessions_and_tells_at_once_why_it_has_none() {
    let cluster = Cluster::start();
    let pool = pool(cluster.target("postgres"), 1);
    let before: i32 = backend(&pool.get().await.unwrap()).await;
    assert_eq!(before, backend(&pool.get().await.unwrap()).await, "sessions are kept");
    let admin = cluster.target("postgres").connect().await.unwrap();
    admin.execute("SELECT pg_terminate_backend($1)", &[&before]).await.unwrap();
    let after = backend(&pool.get().await.unwrap()).await;
    assert_ne!(before, after);

    assert!(pool.ping().await.unwrap() > Duration::ZERO);

    // No server: the reason comes at once, in place of a timeout that says nothing.
    cluster.crash();
    let error = pool.get().await.unwrap_err();
    assert_eq!(error.class, Class::Retry);
    assert!(error.reason.contains("connect to postgres@"), "{error}");
    let chain = anyhow::Error::new(error).context("read heads");
    assert_eq!(super::super::error::classify_chain(&chain), Class::Retry);

    cluster.resume();
    assert!(backend(&pool.get().await.unwrap()).await > 0);

    let wrong = pool_with(cluster.target("absent"), Options::default(), Limits::of(2));
    let (one, two) = tokio::join!(wrong.get(), wrong.get());
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert!(error.reason.contains("does not exist"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_keeps_its_bounds_and_says_whose_sessions_it_has() {
    let cluster = Cluster::start();
    let target = Target {
        application_name: "kalshi gather gatherer-1".into(),
        ..cluster.target("postgres")
    };
    let admin = cluster.target("postgres").connect().await.unwrap();
    let sessions = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let row = admin.query_one(sql, &[&"kalshi gather gatherer-1"]).await.unwrap();
        row.get::<_, i64>(0)
    };
    let limits = Limits { wait: Duration::from_millis(300), ..Limits::of(2) };
    let pool = pool_with(target.clone(), Options::default(), limits);
    let (one, _two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let error = pool.get().await.unwrap_err();
    assert_eq!(error.class, Class::Retry);
    assert!(error.reason.contains("no free database session within 300ms"), "{error}");
    assert_eq!(sessions().await, 2);
    let first = backend(&one).await;
    drop(one);
    assert_eq!(backend(&pool.get().await.unwrap()).await, first, "and goes on when one is free");

    // One that is past its lifetime is not handed out again.
    let limits = Limits { lifetime: Duration::from_millis(1), ..Limits::of(1) };
    let short = pool_with(target, Options::default(), limits);
    let old = short.get().await.unwrap();
    let before = backend(&old).await;
    admin.batch_execute("SELECT pg_sleep(0.01)").await.unwrap();
    drop(old);
    assert_ne!(backend(&short.get().await.unwrap()).await, before);
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn backend(client: &tokio_postgres::Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}
