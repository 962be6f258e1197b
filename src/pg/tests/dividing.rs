//! A gatherer's database divided into parts: from an older version with rows in it, by the engine that is
//! asked for, and never by another one later.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::engine::{self, Choice, Engine};
use super::super::migrate::{self, MigrateError, Schema};
use super::super::testing::{Cluster, choice};
use crate::pg::Target;

/// What this run of the tests is about.
fn expected() -> Engine {
    match choice() {
        Choice::Timescaledb => Engine::Timescaledb,
        _ => Engine::Native,
    }
}

async fn migrate(target: &Target, choice: Choice) -> Result<migrate::Report, MigrateError> {
    migrate::run_with(target, Schema::Gatherer, choice, |_| {}).await
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Rows as an older gatherer left them, of one log more than a part.
const OLD_ROWS: &str = "
    INSERT INTO market_lifecycle SELECT n, 'S', 'created', n, n, '{}', n, 1, 1, n
        FROM generate_series(1, 1000100) n;
    INSERT INTO trades SELECT n, gen_random_uuid(), n, n, 'T', 1, 1, n, true, false, 1, 1, n
        FROM generate_series(1, 10) n;
    UPDATE logs SET head = 1000100 WHERE name = 'market_lifecycle';
    UPDATE logs SET head = 10 WHERE name = 'trades';
    CREATE ROLE reader; GRANT SELECT ON market_lifecycle TO reader";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_an_older_version_are_all_kept() {
    let cluster = Cluster::start();
    let target = cluster.create("old").await;
    migrate::run_to(&target, Schema::Gatherer, 1).await.unwrap();
    let client = target.connect().await.unwrap();
    client.batch_execute(OLD_ROWS).await.unwrap();
    let state = "SELECT string_agg(row(log_id, head)::text, ',' ORDER BY name) FROM logs";
    let rows = "SELECT (count(*), min(log_seq), max(log_seq), sum(content_hash), \
                        (SELECT (count(*), sum(size)) FROM trades))::text FROM market_lifecycle";
    let about = "SELECT obj_description('market_lifecycle'::regclass, 'pg_class') || \
                 col_description('market_lifecycle'::regclass, 6)";
    let before =
        [text(&client, state).await, text(&client, rows).await, text(&client, about).await];
    assert_eq!(engine::find(&client).await.unwrap(), None);

    let report = migrate(&target, choice()).await.unwrap();
    assert_eq!(report.engine, Some(expected()));
    assert_eq!(engine::find(&client).await.unwrap(), Some(expected()));
    let after = [text(&client, state).await, text(&client, rows).await, text(&client, about).await];
    assert_eq!(after, before);
    let granted = "SELECT has_table_privilege('reader', 'market_lifecycle', 'SELECT')::text";
    assert_eq!(text(&client, granted).await, "true");
    // The next rows have room, and the key still holds.
    let next = "INSERT INTO market_lifecycle SELECT n, 'S', 'created', n, n, '{}', n, 1, 1, n \
                FROM generate_series(1000101, 1000110) n; \
                INSERT INTO coverage VALUES (1, 'c', '', 1, 2, 3, 4, 5, 'stop', '', 1, 1)";
    client.batch_execute(next).await.unwrap();
    let error = client.batch_execute(next).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{error}");
    // The reader's query walks along the key and touches the parts that it needs.
    let read = "SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off";
    client.batch_execute(read).await.unwrap();
    let plan = client
        .query(
            "EXPLAIN SELECT * FROM market_lifecycle WHERE log_seq > 50 AND log_seq <= 70 \
             ORDER BY log_seq",
            &[],
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let scans = plan.iter().filter(|line| line.contains("Scan using")).count();
    assert_eq!(scans, 1, "{plan:#?}");
    assert!(!plan.iter().any(|line| line.contains("Sort")), "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_what_it_is() {
    let cluster = Cluster::start();
    let target = cluster.create("native").await;
    assert_eq!(migrate(&target, Choice::Native).await.unwrap().engine, Some(Engine::Native));
    // Whatever the server has.
    for same in [Choice::Native, Choice::Auto] {
        let again = migrate(&target, same).await.unwrap();
        assert_eq!((again.applied.len(), again.engine), (0, Some(Engine::Native)));
    }
    let error = migrate(&target, Choice::Timescaledb).await.unwrap_err();
    assert!(matches!(error, MigrateError::Engine(engine::EngineError::Other { .. })), "{error}");
    assert!(error.to_string().contains("divided by PostgreSQL's own partitions"), "{error}");
    assert!(error.to_string().contains("set it to native or auto"), "{error}");

    let target = cluster.create("asked").await;
    match choice() {
        Choice::Timescaledb => {
            let report = migrate(&target, Choice::Auto).await.unwrap();
            assert_eq!(report.engine, Some(Engine::Timescaledb));
            let error = migrate(&target, Choice::Native).await.unwrap_err();
            assert!(error.to_string().contains("set it to timescaledb or auto"), "{error}");
        }
        _ => {
            // A server without the extension, or one that was started without it.
            let error = migrate(&target, Choice::Timescaledb).await.unwrap_err();
            let (text, client) = (error.to_string(), target.connect().await.unwrap());
            assert!(text.contains("TimescaleDB") || text.contains("does not have it"), "{text}");
            assert!(text.contains("set storage.engine to native"), "{text}");
            // Nothing was begun.
            assert!(migrate::plan(&target, Schema::Gatherer, choice()).await.unwrap().len() >= 2);
            assert_eq!(engine::find(&client).await.unwrap(), None);
        }
    }
}

/// What `kalshi migrate --dry-run` prints can be run by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_decides_by_itself_where_nothing_is_said() {
    let cluster = Cluster::start();
    let target = cluster.create("by_hand").await;
    let client = target.connect().await.unwrap();
    if choice() == Choice::Native {
        client.batch_execute("SET kalshi.engine = native").await.unwrap();
    }
    for step in migrate::plan(&target, Schema::Gatherer, choice()).await.unwrap() {
        client.batch_execute(&step.sql).await.unwrap();
    }
    assert_eq!(engine::find(&client).await.unwrap(), Some(expected()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_can_say_how_far_and_nothing_else() {
    let cluster = Cluster::start();
    let target = cluster.create("g").await;
    let client = target.connect().await.unwrap();
    client.batch_execute("CREATE ROLE dedup_reader; CREATE ROLE other").await.unwrap();
    migrate(&target, choice()).await.unwrap();
    client.batch_execute("UPDATE logs SET head = 10 WHERE name = 'trades'").await.unwrap();
    // Or it would not even find the function.
    client.batch_execute("GRANT USAGE ON SCHEMA public TO other").await.unwrap();
    let position =
        "SELECT coalesce((SELECT position::text FROM consumers WHERE name = 'd'), 'none')";
    for (role, call, outcome) in [
        ("dedup_reader", "SELECT consumer_passed('d', 'trades', 0)", Ok("0")),
        ("dedup_reader", "SELECT consumer_passed('d', 'trades', 7)", Ok("7")),
        ("dedup_reader", "SELECT consumer_passed('d', 'trades', 3)", Ok("7")),
        (
            "dedup_reader",
            "SELECT consumer_passed('d', 'trades', 11)",
            Err(SqlState::RAISE_EXCEPTION),
        ),
        ("dedup_reader", "SELECT consumer_passed('d', 'trade', 1)", Err(SqlState::RAISE_EXCEPTION)),
        ("dedup_reader", "SELECT consumer_passed('', 'trades', 1)", Err(SqlState::CHECK_VIOLATION)),
        ("dedup_reader", "DELETE FROM consumers", Err(SqlState::INSUFFICIENT_PRIVILEGE)),
        (
            "dedup_reader",
            "INSERT INTO consumers VALUES ('x', 'trades', 1)",
            Err(SqlState::INSUFFICIENT_PRIVILEGE),
        ),
        (
            "other",
            "SELECT consumer_passed('d', 'trades', 9)",
            Err(SqlState::INSUFFICIENT_PRIVILEGE),
        ),
    ] {
        client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
        let called = client.batch_execute(call).await;
        client.batch_execute("RESET ROLE").await.unwrap();
        match outcome {
            Ok(there) => {
                called.unwrap();
                assert_eq!(text(&client, position).await, there, "{call}");
            }
            Err(code) => assert_eq!(called.unwrap_err().code(), Some(&code), "{call}"),
        }
    }
    assert_eq!(text(&client, position).await, "7");
}
