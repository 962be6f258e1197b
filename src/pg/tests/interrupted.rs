//! A migration that is cut off anywhere: nothing is left half done, and the next run ends where an
//! undisturbed one does.

use super::super::migrate::{self, Schema};
use super::super::testing::Cluster;

/// Ends a session at its n-th statement that changes the schema, as a kill does.
const PROBE: &str = "
    CREATE SCHEMA probe;
    CREATE SEQUENCE probe.passed;
    CREATE TABLE probe.stop (at bigint);
    INSERT INTO probe.stop VALUES (0);
    CREATE FUNCTION probe.stop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF nextval('probe.passed') = (SELECT at FROM probe.stop) THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
    END $$;
    CREATE EVENT TRIGGER probe ON ddl_command_end EXECUTE FUNCTION probe.stop()";

/// Migrates a database, from `from` on, being cut off at each of the first statements of a migration in
/// turn, and further on at every so many: what was done before is done again each time, so that all of
/// some hundred comments would cost minutes. Gives how often.
async fn cut_everywhere(cluster: &Cluster, name: &str, schema: Schema, from: i32) -> u32 {
    let target = cluster.create(name).await;
    if from > 0 {
        migrate::run_to(&target, schema, from).await.unwrap();
    }
    let client = target.connect().await.unwrap();
    client.batch_execute(PROBE).await.unwrap();
    let version = async || {
        let status = migrate::status(&target, schema).await.unwrap();
        let applied = status.entries.iter().filter(|entry| entry.applied_at.is_some());
        applied.map(|entry| entry.version).max().unwrap_or(0)
    };
    let (mut at, mut before, mut cuts) = (1_i64, version().await, 0);
    loop {
        let sql =
            format!("UPDATE probe.stop SET at = {at}; SELECT setval('probe.passed', 1, false)");
        client.batch_execute(&sql).await.unwrap();
        match migrate::run(&target, schema).await {
            Ok(_) => break,
            Err(error) => assert!(error.to_string().contains("57P01"), "{error}"),
        }
        cuts += 1;
        let now = version().await;
        // What was applied is not counted again.
        at = if now > before { 2 } else { at + 1 + at / 8 };
        before = now;
    }
    client.batch_execute("DROP EVENT TRIGGER probe; DROP SCHEMA probe CASCADE").await.unwrap();
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_cut_off_at_any_statement_is_completed() {
    let cluster = Cluster::start();
    // The first migrations of production have no other statements than the gatherer's.
    for (schema, from, at_least) in [(Schema::Gatherer, 0, 60), (Schema::Production, 2, 30)] {
        let clean = format!("{schema}_clean");
        cluster.create_with(&clean, schema).await;
        let cut = format!("{schema}_cut");
        let cuts = cut_everywhere(&cluster, &cut, schema, from).await;
        assert!(cuts > at_least, "{schema}: {cuts}");
        let (cut, clean) = (cluster.dump(&cut), cluster.dump(&clean));
        assert!(clean.contains("OWNER TO kalshi_owner"), "{clean}");
        if cut != clean {
            let differs = cut.lines().zip(clean.lines()).find(|(a, b)| a != b);
            panic!("{schema}: {differs:?}");
        }
    }
}
