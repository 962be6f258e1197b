//! Migrations: from nothing, repeated, two at once, edited, newer, failing.

use std::fs;

use super::super::advisory::Lock;
use super::super::error::Class;
use super::super::migrate::{self, MigrateError, Progress, Schema, VersionError};
use super::super::testing::{Cluster, choice};

#[test]
fn every_file_is_embedded() {
    for (schema, dir) in
        [(Schema::Gatherer, "sql/gatherer"), (Schema::Production, "sql/production")]
    {
        let mut files: Vec<i32> = fs::read_dir(dir)
            .unwrap()
            .map(|file| {
                let name = file.unwrap().file_name().into_string().unwrap();
                let (number, rest) = name.strip_prefix('V').unwrap().split_once("__").unwrap();
                assert!(rest.ends_with(".sql"), "{name}");
                number.parse().unwrap()
            })
            .collect();
        files.sort_unstable();
        let embedded: Vec<i32> =
            migrate::whole_plan(schema).iter().map(|step| step.version).collect();
        // The compiler does not notice a new file by itself.
        assert_eq!(embedded, files, "{schema}: touch src/pg/migrate.rs");
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

        let plan = migrate::plan(&target, schema, choice()).await.unwrap();
        assert_eq!(plan.last().unwrap().version, schema.version());
        assert!(plan[0].sql.contains("CREATE TABLE writer"));
        let pending = migrate::status(&target, schema).await.unwrap();
        assert!(pending.entries.iter().all(|entry| entry.applied_at.is_none()));
        assert!(pending.refusal.is_none());
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
        assert!(status.entries.iter().all(|entry| entry.applied_at.is_some()));
        assert_eq!(status.entries[0].checksum, pending.entries[0].checksum);
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
    assert_eq!(steps, migrate::whole_plan(Schema::Gatherer).len());

    // Whoever meets a running migration waits for it instead of asking for one.
    let behind = cluster.create("behind").await;
    let (migrating, other) = (behind.connect().await.unwrap(), behind.connect().await.unwrap());
    migrating.execute("SELECT pg_advisory_lock($1)", &[&Lock::Migrate.key()]).await.unwrap();
    let error = migrate::check(&other, Schema::Gatherer).await.unwrap_err();
    assert!(matches!(error, VersionError::Migrating { .. }), "{error}");
    assert_eq!((error.class(), error.is_for_good()), (Class::Retry, false));
    migrating.execute("SELECT pg_advisory_unlock($1)", &[&Lock::Migrate.key()]).await.unwrap();
    let error = migrate::check(&other, Schema::Gatherer).await.unwrap_err();
    assert!(matches!(error, VersionError::Behind { .. }), "{error}");

    // While another holds the lock, a run waits and says so.
    let holder = target.connect().await.unwrap();
    holder.execute("SELECT pg_advisory_lock($1)", &[&Lock::Migrate.key()]).await.unwrap();
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
            "migration V1__logs (checksum 1) in database differs differs from V1__logs (checksum ",
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
            "INSERT INTO refinery_schema_history VALUES (901, 'later', '2030-01-01T00:00:00Z', '5'); \
             COMMENT ON TABLE refinery_schema_history IS 'Made by kalshi 7.1.0 (abc)'",
            "install kalshi 7.1.0 (abc), which made it so, or a later one",
        ),
        (
            "INSERT INTO refinery_schema_history VALUES (0, 'forked', '2030-01-01T00:00:00Z', '5')",
            "has migration V0__forked (checksum 5), which this program does not have",
        ),
        ("UPDATE refinery_schema_history SET version = 901 WHERE version = 1", "is at version 901"),
        (
            "DELETE FROM refinery_schema_history WHERE version = 1",
            "never got migration V1__logs (checksum ",
        ),
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
        assert!(migrate::plan(&target, Schema::Gatherer, choice()).await.is_err());
        let status = migrate::status(&target, Schema::Gatherer).await.unwrap();
        assert_eq!(status.refusal.unwrap().to_string(), run.to_string());
        client
            .batch_execute("BEGIN; TRUNCATE refinery_schema_history; INSERT INTO refinery_schema_history TABLE kept; DROP TABLE kept; \
                 COMMENT ON TABLE refinery_schema_history IS NULL; COMMIT")
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
    let status = migrate::status(&target, Schema::Production).await.unwrap();
    assert!(matches!(status.refusal, Some(VersionError::OtherKind { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_database_is_made_once_and_one_of_another_encoding_is_refused() {
    let cluster = Cluster::start();
    let target = cluster.target("kalshi \"x\"");
    assert!(!migrate::exists(&target).await.unwrap());
    let (one, two) =
        tokio::join!(migrate::create_database(&target), migrate::create_database(&target));
    assert!(one.unwrap() | two.unwrap());
    assert!(!migrate::create_database(&target).await.unwrap());
    migrate::run(&target, Schema::Gatherer).await.unwrap();

    let admin = cluster.target("postgres").connect().await.unwrap();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        let sql = format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0");
        admin.batch_execute(&sql).await.unwrap();
        let target = cluster.target(&name);
        let error = migrate::run(&target, Schema::Production).await.unwrap_err();
        let text = format!("database {name} is encoded in {encoding}");
        assert!(error.to_string().starts_with(&text), "{error}");
        assert!(migrate::plan(&target, Schema::Production, choice()).await.is_err());
        let client = target.connect().await.unwrap();
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(client.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_migrated_remembers_by_whom() {
    let cluster = Cluster::start();
    cluster.create_with("logs", Schema::Gatherer).await;
    let client = cluster.target("logs").connect().await.unwrap();
    let sql = "SELECT obj_description('refinery_schema_history'::regclass, 'pg_class')";
    let text: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert!(
        text.starts_with(concat!("Made by kalshi ", env!("CARGO_PKG_VERSION"), " (")),
        "{text}"
    );
}
