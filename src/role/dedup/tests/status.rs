//! What `--status` tells of real databases, while the deduplicator runs and while it does not.

use super::super::status::{Status, look};
use super::super::table;
use super::super::{GathererTarget, status_text};
use super::rig::{Rig, append_deltas, delta, holds};

fn deltas_of<'a>(status: &'a Status, gatherer: &str) -> &'a super::super::status::Cursor {
    let gatherer = status.gatherers.iter().find(|found| found.gatherer == gatherer).unwrap();
    gatherer.logs.iter().find(|log| log.table == table::ORDERBOOK_DELTAS.name()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_that_of_the_databases() {
    let rig = Rig::start(2).await;
    let mut config = rig.config("deduplicator-1");
    config.gatherers.push(GathererTarget {
        id: "gatherer-3".to_owned(),
        database: rig.cluster.target("nowhere"),
    });
    let status = look(&config).await;
    assert!(!status.writer.as_ref().unwrap().is_running);
    assert_eq!(deltas_of(&status, "gatherer-1").state, "in sync", "an empty log");

    append_deltas(&rig.gatherers[0], &(0..20).map(delta).collect::<Vec<_>>()).await;
    let status = look(&config).await;
    let log = deltas_of(&status, "gatherer-1");
    assert_eq!((log.state, log.position, log.lag_rows), ("never synced", Some(0), Some(20)));

    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    let production = rig.production().await;
    let made = "SELECT count(*) >= 5 FROM pg_inherits WHERE inhparent = 'tickers'::regclass \
                OR inhparent = 'coverage'::regclass";
    holds(&production, made).await;
    let consumer = "INSERT INTO consumers (name, table_name, position) \
                    VALUES ('exporter', 'orderbook_deltas', 5)";
    production.batch_execute(consumer).await.unwrap();
    let status = look(&config).await;
    let writer = status.writer.as_ref().unwrap();
    assert!(writer.is_running && writer.holder.starts_with("deduplicator deduplicator-1 on "));
    assert_eq!(writer.epoch, 1);
    let log = deltas_of(&status, "gatherer-1");
    assert_eq!((log.state, log.position, log.head), ("in sync", Some(20), Some(20)));
    assert!(log.synced_seconds_ago.is_some_and(|ago| ago < 60.0));
    let away = deltas_of(&status, "gatherer-3");
    assert_eq!((away.state, away.lag_seconds), ("unknown", None));
    let place = &status.gatherers[2].place;
    assert_eq!((place.state, status.gatherers[1].place.state), ("refused", "connected"));
    assert!(place.error.as_ref().unwrap().contains("\"nowhere\" does not exist"), "{place:?}");
    let deltas = &status.tables[table::ORDERBOOK_DELTAS.index()];
    assert_eq!((deltas.head, deltas.retention_seconds), (20, Some(90 * 86_400)));
    assert!(deltas.partitions.is_some_and(|count| count >= 2));
    assert_eq!((deltas.consumers[0].position, deltas.consumers[0].lag_rows), (5, 15));
    let text = status_text::text(&status);
    for part in [
        "(running), epoch 1, since 2",
        "gatherer-3 postgres@",
        ": refused\n  connect to ",
        "exporter at 5 (15 behind)",
        "90 d",
        "in sync",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["gatherers"][0]["logs"][1]["position"], 20, "{json}");
    assert_eq!(json["gatherers"][2]["state"], "refused");

    running.stop().await.unwrap();
    append_deltas(&rig.gatherers[0], &(20..27).map(delta).collect::<Vec<_>>()).await;
    let status = look(&config).await;
    assert!(!status.writer.as_ref().unwrap().is_running);
    let log = deltas_of(&status, "gatherer-1");
    // Their times are to come, so none has waited for long.
    assert_eq!((log.state, log.lag_rows), ("following", Some(7)));
    assert!(log.lag_seconds.is_some());

    config.production = rig.cluster.target("nowhere");
    let status = look(&config).await;
    assert_eq!((status.production.state, status.writer.is_none()), ("refused", true));
    let log = deltas_of(&status, "gatherer-1");
    assert_eq!((log.state, log.position, log.head), ("unknown", None, Some(27)));
    assert!(status_text::text(&status).contains("nowhere"));
    config.production.host = "/nowhere".to_owned();
    assert_eq!(look(&config).await.production.state, "away");
}
