//! Every version of a row: exact bounds, every status, results of every kind, and who may write.

use serde_json::json;

use super::super::kind::Kind;
use super::super::row::Parsed;
use super::super::store::{Store, Written};
use super::Bench;
use super::listing::market;
use crate::model::Micros;
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;
use crate::pg::writer::{FenceError, WriterLock};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_market_is_followed_through_dispute_and_amendment_to_a_scalar_settlement() {
    let bench = Bench::start(5).await;
    let running = bench.run();
    bench.loaded().await;
    let steps = [
        json!({"status": "inactive"}),
        json!({"status": "active"}),
        json!({"status": "closed"}),
        json!({"status": "determined", "result": "yes"}),
        json!({"status": "disputed"}),
        json!({"status": "amended", "result": "scalar", "market_type": "scalar"}),
        json!({"status": "finalized", "settlement_value_dollars": "0.374250",
               "settlement_ts": "2026-11-20T10:00:00.5Z", "expiration_value": "37.425"}),
        json!({"status": "resurrected", "brand_new": {"a": [1, "é"]}}),
    ];
    let mut bounds = Vec::new();
    for step in &steps {
        let before = Micros::now().0;
        bench.listing.change("M-001", step.clone());
        let status = step["status"].as_str().unwrap();
        let sql =
            format!("SELECT exchange_status = '{status}' FROM markets WHERE ticker = 'M-001'");
        bench.holds(&sql).await;
        bounds.push((before, Micros::now().0));
    }
    running.stop().await.unwrap();
    bench.assert_history().await;
    let client = bench.rig.production().await;
    let sql = "SELECT exchange_status, status, result, settlement_value, settlement_ts, valid_from, \
               valid_to FROM markets_history WHERE ticker = 'M-001' ORDER BY valid_from";
    let rows = client.query(sql, &[]).await.unwrap();
    let seen: Vec<(String, Option<String>)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let expected = [
        ("active", Some("open")),
        ("inactive", Some("open")),
        ("active", Some("open")),
        ("closed", Some("closed")),
        ("determined", Some("closed")),
        ("disputed", Some("closed")),
        ("amended", Some("closed")),
        ("finalized", Some("settled")),
        ("resurrected", None),
    ];
    let expected: Vec<(String, Option<String>)> =
        expected.iter().map(|(a, b)| ((*a).to_owned(), b.map(str::to_owned))).collect();
    assert_eq!(seen, expected);
    for (row, (least, most)) in rows.iter().skip(1).zip(bounds) {
        let from: i64 = row.get(5);
        assert!((least..=most).contains(&from), "{from} in {least} to {most}");
    }
    let settled = &rows[7];
    assert_eq!(settled.get::<_, &str>(2), "scalar");
    assert_eq!(settled.get::<_, i64>(3), 374_250);
    assert_eq!(settled.get::<_, i64>(4), 1_795_168_800_500_000);
    let kept = "SELECT raw #>> '{brand_new,a,1}' FROM markets WHERE ticker = 'M-001'";
    assert_eq!(bench.texts(kept).await, ["é"]);
    // The others never changed.
    let past = bench.number("SELECT count(*) FROM markets_past WHERE ticker <> 'M-001'").await;
    assert_eq!(past, 0);
}

async fn store(cluster: &Cluster) -> (crate::pg::Target, WriterLock, Store) {
    let target = cluster.create_with("production", Schema::Production).await;
    let lock = WriterLock::acquire(&target, "test").await.unwrap();
    let store = Store::open(&target, lock.fence()).await.unwrap();
    (target, lock, store)
}

fn rows(items: Vec<serde_json::Value>) -> Vec<super::super::row::Row> {
    Parsed::of(Kind::Markets, items).rows
}

#[tokio::test]
async fn versions_meet_exactly_also_when_the_clock_is_set_back() {
    let cluster = Cluster::start();
    let (target, _lock, mut store) = store(&cluster).await;
    let titled = |title: &str| {
        let mut item = market(1);
        item["title"] = json!(title);
        rows(vec![item])
    };
    let kind = Kind::Markets;
    let new = Written { new: 1, changed: 0, old_news: 1 };
    let at = Micros::from_secs;
    let since = Some(at(1_800_000_000));
    assert_eq!(store.write(kind, &titled("a"), at(100), since, None).await.unwrap(), new);
    let none = Written::default();
    assert_eq!(store.write(kind, &titled("a"), at(200), None, None).await.unwrap(), none);
    let changed = Written { changed: 1, ..none };
    assert_eq!(store.write(kind, &titled("b"), at(300), None, None).await.unwrap(), changed);
    assert_eq!(store.write(kind, &titled("c"), at(250), None, None).await.unwrap(), changed);
    let client = target.connect().await.unwrap();
    let sql = "SELECT title, valid_from, valid_to FROM markets_history ORDER BY valid_from";
    let found: Vec<(String, i64, Option<i64>)> = client
        .query(sql, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let (hundred, three) = (100_000_000, 300_000_000);
    assert_eq!(
        found,
        [
            ("a".to_owned(), hundred, Some(three)),
            ("b".to_owned(), three, Some(three + 1)),
            ("c".to_owned(), three + 1, None),
        ]
    );
}

#[tokio::test]
async fn every_column_has_a_comment() {
    let cluster = Cluster::start();
    let (target, _lock, _store) = store(&cluster).await;
    let client = target.connect().await.unwrap();
    let sql = "SELECT c.relname || '.' || coalesce(a.attname, '') FROM pg_class c \
               LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
               WHERE c.relname ~ '^(series|events|markets)(_past|_history)?$|^market_sync$' \
               AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)";
    let bare: Vec<String> =
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(bare.is_empty(), "{bare:?}");
}

#[tokio::test]
async fn a_writer_that_was_replaced_writes_nothing() {
    let cluster = Cluster::start();
    let (target, lock, mut store) = store(&cluster).await;
    let items = || rows(vec![market(1), market(2)]);
    let kind = Kind::Markets;
    store.write(kind, &items()[..1], Micros(5), None, None).await.unwrap();
    drop(lock);
    let client = target.connect().await.unwrap();
    let free = "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')";
    crate::role::dedup::tests::rig::holds(&client, free).await;
    let _other = WriterLock::acquire(&target, "other").await.unwrap();
    let gone = ["M-001".to_owned()];
    let errors = [
        store.write(kind, &items(), Micros(6), None, None).await.map(|_| ()).unwrap_err(),
        store.changes_ended(kind, Micros(7)).await.unwrap_err(),
        store
            .full_ended(kind, Micros(7), 0, false, &gone, Micros(0))
            .await
            .map(|_| ())
            .unwrap_err(),
        store.forget_bookmark(kind).await.unwrap_err(),
    ];
    for error in errors {
        let lost = error.downcast_ref::<FenceError>();
        assert!(matches!(lost, Some(FenceError::Lost { .. })), "{error:#}");
    }
    let sql = "SELECT count(*) = 1 AND bool_and(presence = 'listed') AND \
               (SELECT bool_and(synced_until IS NULL) FROM market_sync) FROM markets";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}
