//! The task over a real database: what it makes, drops, and says while it waits.

use std::time::Duration;

use super::*;
use crate::log::journal::{self, claim};
use crate::model::Micros;
use crate::ops::metrics;
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;
use crate::pg::writer::WriterLock;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_does_not_get_on_is_waited_for_and_said_aloud() {
    let cluster = Cluster::start();
    let target = cluster.create_with("g", Schema::Gatherer).await;
    cluster.narrow(&target, "orderbook_deltas", 100).await;
    let client = target.connect().await.unwrap();
    let at = Micros::now().0 - 3 * 86_400_000_000;
    let rows = format!(
        "INSERT INTO orderbook_deltas SELECT n, {at}, {at}, 'T', true, 1, 1, 1, 1, 1, n \
         FROM generate_series(1, 99) n; \
         UPDATE logs SET head = 99 WHERE name = 'orderbook_deltas'; \
         SELECT consumer_passed('stuck', 'orderbook_deltas', 5)"
    );
    client.batch_execute(&rows).await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let config =
        journal::Config { dir: dir.path().join("journal"), max_age: PATIENCE, max_bytes: 1 << 30 };
    let (journal, _) = claim(config).unwrap().open().unwrap();
    let mut registry = metrics::registry();
    let vitals = Arc::new(watch::Sender::new(Vitals::default()));
    let mut seen = vitals.subscribe();
    let lock = WriterLock::acquire(&target, "test").await.unwrap();
    let (fence, fences) = watch::channel(Some(lock.fence()));
    let drained = CancellationToken::new();
    let upkeep = Upkeep {
        target,
        retention: Some(Duration::from_secs(3600)),
        fences,
        metrics: Metrics::new(&mut registry, journal.clone()),
        vitals,
    };
    let running = tokio::spawn(upkeep.run(drained.clone()));

    let waits = seen.wait_for(|vitals| vitals.retention_waits.is_some());
    let said = tokio::time::timeout(PATIENCE, waits).await.unwrap();
    let reason = said.unwrap().retention_waits.clone().unwrap();
    assert!(reason.contains("orderbook_deltas keeps rows to 99 for 7"), "{reason}");
    assert!(reason.contains("consumer stuck is at 5"), "{reason}");
    let shown = |registry: &metrics::Registry, line: &str| {
        let text = metrics::encode(registry).unwrap();
        assert!(text.lines().any(|shown| shown.starts_with(line)), "{line} in {text}");
    };
    shown(&registry, "gatherer_retention_overdue_seconds{log=\"orderbook_deltas\"} 255");

    let passed = "SELECT consumer_passed('stuck', 'orderbook_deltas', 99)";
    client.batch_execute(passed).await.unwrap();
    // The lock was taken again: another round.
    fence.send_replace(Some(lock.fence()));
    let goes_on = seen.wait_for(|vitals| vitals.retention_waits.is_none());
    drop(tokio::time::timeout(PATIENCE, goes_on).await.unwrap().unwrap());
    shown(&registry, "gatherer_retention_overdue_seconds{log=\"orderbook_deltas\"} 0");
    shown(&registry, "gatherer_parts_dropped_total{log=\"orderbook_deltas\"} 1");
    let sql = "SELECT count(*) FROM orderbook_deltas";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    drained.cancel();
    running.await.unwrap().unwrap();
    journal.close().await;
}
