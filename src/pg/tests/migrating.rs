//! Migrations: from nothing, repeated, two at once, edited, newer, failing.

use std::fs;

use super::super::error::Class;
use super::super::migrate::{self, MIGRATE_KEY, MigrateError, Progress, Schema, VersionError};
use super::super::testing::{Cluster, choice};

#[test]
fn every_file_is_embedded() {
    for (schema, dir) in
        [(Schema::Gatherer, "sql/gatherer"), (Schema::Production, "sql/production")]
    {
        let files = fs::read_dir(dir).unwrap().count();
        // The compiler does not notice a new file by itself; a version that lags behind does.
        assert_eq!(
            usize::try_from(schema.version()).unwrap(),
            files,
            "{schema}: touch src/pg/migrate.rs"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_migrated_once_and_checked() {
    let cluster = Cluster::start();
    for (name, schema) in [("g", Schema::Gatherer), ("p", Schema::Production)] {
        let target = cluster.create(name).await;
        let client = target.connect().await.unwrap();
        let error = migrate::check(&client, schema).await.unwrap_err();
        assert!(matches!(error, VersionError::Behind { version: 0, .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("database {name} is at version 0, this program needs"))
        );
        assert!(error.to_string().contains("run `kalshi migrate --config"), "{error}");
        assert_eq!(error.class(), Class::Fatal);

        let plan = migrate::plan(&target, schema).await.unwrap();
        assert_eq!(plan.last().unwrap().version, schema.version());
        assert!(plan[0].sql.contains("CREATE TABLE writer"));
        let pending = migrate::status(&target, schema).await.unwrap();
        assert!(pending.iter().all(|entry| entry.applied_at.is_none()));
        assert!(migrate::check(&client, schema).await.is_err(), "planning changes nothing");

        let mut told = Vec::new();
        let report = migrate::run_with(&target, schema, choice(), |progress| match progress {
            Progress::Waiting => told.push("waiting".to_owned()),
            Progress::Applying(step) => told.push(format!("applying {step}")),
            Progress::Applied => told.push("applied".to_owned()),
        })
        .await
        .unwrap();
        assert_eq!(report.applied, plan);
        assert_eq!(told[..2], ["applying V1__logs", "applied"]);
        migrate::check(&client, schema).await.unwrap();
        let again = migrate::run(&target, schema).await.unwrap();
        assert!(again.applied.is_empty());
        assert_eq!(again.version, schema.version());
        let status = migrate::status(&target, schema).await.unwrap();
        assert!(status.iter().all(|entry| entry.applied_at.is_some()));
        assert_eq!(status[0].checksum, pending[0].checksum);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_apply_everything_once() {
    let cluster = Cluster::start();
    let target = cluster.create("twice").await;
    let (one, two) = tokio::join!(
        migrate::run(&target, Schema::Gatherer),
        migrate::run(&target, Schema::Gatherer)
    );
    let steps = one.unwrap().applied.len() + two.unwrap().applied.len();
    assert_eq!(steps, usize::try_from(Schema::Gatherer.version()).unwrap());

    // While another holds the lock, a run waits and says so.
    let holder = target.connect().await.unwrap();
    holder.execute("SELECT pg_advisory_lock($1)", &[&MIGRATE_KEY]).await.unwrap();
    let (told, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let run = tokio::spawn({
        let target = target.clone();
        async move {
            migrate::run_with(&target, Schema::Gatherer, choice(), |progress| {
                told.send(matches!(progress, Progress::Waiting)).unwrap();
            })
            .await
        }
    });
    assert!(waiting.recv().await.unwrap());
    assert!(!run.is_finished());
    drop(holder);
    run.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_differs_is_refused_by_name() {
    let cluster = Cluster::start();
    let target = cluster.create("differs").await;
    migrate::run(&target, Schema::Gatherer).await.unwrap();
    let client = target.connect().await.unwrap();
    let cases = [
        (
            "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1",
            "migration V1__logs in database differs differs from V1__logs",
        ),
        (
            "UPDATE refinery_schema_history SET checksum = 'not a number' WHERE version = 1",
            "an applied migration was edited",
        ),
        (
            "UPDATE refinery_schema_history SET applied_on = 'some day', name = 'other' WHERE version = 1",
            "migration V1__other",
        ),
        (
            "INSERT INTO refinery_schema_history VALUES (901, 'later', '2030-01-01T00:00:00Z', '5')",
            "is at version 901, this program knows only",
        ),
        (
            "INSERT INTO refinery_schema_history VALUES (0, 'forked', '2030-01-01T00:00:00Z', '5')",
            "has migration V0__forked, which this program does not have",
        ),
        ("UPDATE refinery_schema_history SET version = 901 WHERE version = 1", "is at version 901"),
    ];
    for (change, words) in cases {
        client
            .batch_execute(&format!(
                "BEGIN; CREATE TABLE kept AS TABLE refinery_schema_history; {change}; COMMIT"
            ))
            .await
            .unwrap();
        let run = migrate::run(&target, Schema::Gatherer).await.unwrap_err();
        assert!(matches!(run, MigrateError::Version(_)), "{run}");
        assert!(run.to_string().contains(words), "{run}");
        let check = migrate::check(&client, Schema::Gatherer).await.unwrap_err();
        assert_eq!(check.to_string(), run.to_string());
        assert!(migrate::plan(&target, Schema::Gatherer).await.is_err());
        assert!(migrate::status(&target, Schema::Gatherer).await.is_ok(), "{change}");
        client
            .batch_execute("BEGIN; TRUNCATE refinery_schema_history; INSERT INTO refinery_schema_history TABLE kept; DROP TABLE kept; COMMIT")
            .await
            .unwrap();
    }
    migrate::check(&client, Schema::Gatherer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_step_leaves_nothing_behind_and_quotes_the_server() {
    let cluster = Cluster::start();
    let target = cluster.create("taken").await;
    let client = target.connect().await.unwrap();
    client.batch_execute("CREATE TABLE trades (mine text)").await.unwrap();
    let error = migrate::run(&target, Schema::Gatherer).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("migration V1__logs of database taken failed and was rolled back"),
        "{text}"
    );
    assert!(text.contains("relation \"trades\" already exists"), "{text}");
    let left: i64 = client
        .query_one("SELECT count(*) FROM pg_tables WHERE tablename = 'writer'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
    client.batch_execute("DROP TABLE trades").await.unwrap();
    migrate::run(&target, Schema::Gatherer).await.unwrap();
}

#[tokio::test]
async fn a_database_of_the_other_kind_is_named() {
    let cluster = Cluster::start();
    let target = cluster.create_with("logs", Schema::Gatherer).await;
    let client = target.connect().await.unwrap();
    let error = migrate::check(&client, Schema::Production).await.unwrap_err();
    assert!(error.to_string().contains("logs is a gatherer database"), "{error}");
    assert!(migrate::check(&client, Schema::Gatherer).await.is_ok());
}
