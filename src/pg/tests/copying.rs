//! Rows through binary COPY and back.

use bytes::Bytes;
use uuid::Uuid;

use super::super::copy::{Rows, copy_in};
use super::super::testing::Cluster;

const TABLE: &str = "CREATE TABLE t (a bigint, b integer, c integer, d boolean, e text, f uuid,
    g jsonb, h bigint[], i bigint, j boolean)";
const COPY: &str = "COPY t FROM STDIN (FORMAT binary)";

fn row(rows: &mut Rows, n: i64) {
    rows.begin(10);
    rows.i64(n);
    rows.i32(-7);
    rows.i32(i32::MIN);
    rows.bool(true);
    rows.text("KXHIGHNY-26 é\0☃");
    rows.uuid(Uuid::from_u128(0x1234));
    rows.jsonb(r#"{"a":"nul \u0000 and \\u0000","b":[1,2.5]}"#);
    rows.i64_array([i64::MIN, 0, i64::MAX].into_iter());
    rows.opt_i64(None);
    rows.opt_bool(Some(false));
}

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    let cluster = Cluster::start();
    let mut client = cluster.target("postgres").connect().await.unwrap();
    client.batch_execute(TABLE).await.unwrap();
    let mut rows = Rows::new();
    row(&mut rows, i64::MIN);
    assert_eq!(rows.rows(), 1);
    let first = rows.finish();
    assert!(rows.is_empty());
    // The buffer is used again, for a batch with an empty array and nulls.
    rows.begin(10);
    for _ in 0..7 {
        rows.null();
    }
    rows.i64_array([].into_iter());
    rows.opt_i64(Some(5));
    rows.opt_bool(None);
    let second = rows.finish();

    let tx = client.transaction().await.unwrap();
    assert_eq!(copy_in(&tx, COPY, first).await.unwrap(), 1);
    assert_eq!(copy_in(&tx, COPY, second).await.unwrap(), 1);
    assert_eq!(copy_in(&tx, COPY, rows.finish()).await.unwrap(), 0);
    tx.commit().await.unwrap();

    let got = client.query("SELECT * FROM t ORDER BY i NULLS FIRST", &[]).await.unwrap();
    let (full, empty) = (&got[0], &got[1]);
    assert_eq!(full.get::<_, i64>(0), i64::MIN);
    assert_eq!(full.get::<_, i32>(1), -7);
    assert_eq!(full.get::<_, i32>(2), i32::MIN);
    assert!(full.get::<_, bool>(3));
    assert_eq!(full.get::<_, &str>(4), "KXHIGHNY-26 é\u{fffd}☃");
    assert_eq!(full.get::<_, Uuid>(5), Uuid::from_u128(0x1234));
    let json: serde_json::Value = full.get(6);
    assert_eq!(json["a"], "nul \u{fffd} and \\u0000");
    assert_eq!(full.get::<_, Vec<i64>>(7), [i64::MIN, 0, i64::MAX]);
    assert_eq!(full.get::<_, Option<i64>>(8), None);
    assert!(!full.get::<_, bool>(9));
    assert_eq!(empty.get::<_, Option<bool>>(9), None);
    assert_eq!(empty.get::<_, Option<i64>>(0), None);
    assert_eq!(empty.get::<_, Vec<i64>>(7), Vec::<i64>::new());
    assert_eq!(empty.get::<_, Option<i64>>(8), Some(5));
}

#[tokio::test]
async fn a_batch_of_many_chunks_arrives_whole_and_a_dropped_one_not_at_all() {
    let cluster = Cluster::start();
    let mut client = cluster.target("postgres").connect().await.unwrap();
    client.batch_execute(TABLE).await.unwrap();
    let mut rows = Rows::new();
    for n in 0..20_000 {
        row(&mut rows, n);
    }
    let batch = rows.finish();
    assert!(batch.len() > 3 * 1024 * 1024, "{} bytes", batch.len());
    let tx = client.transaction().await.unwrap();
    assert_eq!(copy_in(&tx, COPY, batch.clone()).await.unwrap(), 20_000);
    tx.commit().await.unwrap();

    // Cut at a place that is no row's end, as a decoder's bug would be.
    let tx = client.transaction().await.unwrap();
    let error = copy_in(&tx, COPY, batch.slice(..batch.len() - 9)).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22P04");
    drop(tx);
    // Given up on the way.
    let tx = client.transaction().await.unwrap();
    {
        let mut copy = std::pin::pin!(copy_in(&tx, COPY, batch));
        let polled = futures_util::poll!(copy.as_mut());
        assert!(polled.is_pending());
    }
    drop(tx);
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 20_000);
}

#[test]
#[should_panic(expected = "the row before lacks 1 fields")]
fn a_row_with_too_few_fields_is_a_bug() {
    let mut rows = Rows::new();
    rows.begin(2);
    rows.i64(1);
    rows.begin(2);
}

#[test]
#[should_panic(expected = "more fields than it announced")]
fn a_row_with_too_many_fields_is_a_bug() {
    let mut rows = Rows::new();
    rows.begin(1);
    rows.i64(1);
    rows.i64(1);
}

#[test]
fn an_empty_batch_is_header_and_trailer() {
    let batch: Bytes = Rows::new().finish();
    assert_eq!(&batch[..], b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff");
}
