//! The transaction alone: both ways to write, and everything that must make it fail.

use std::sync::Arc;

use tokio_postgres::Client;
use uuid::Uuid;

use super::super::merge::Batch;
use super::super::production::Tenure;
use super::super::recent::Recent;
use super::super::span::testing::{TestDelta, delta_span};
use super::super::span::{Request, Span, parse};
use super::super::table::{ORDERBOOK_DELTAS, TRADES, Table};
use super::super::write::{Moved, Session, Written};
use super::rig::{assert_dense, login};
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;
use crate::pg::writer::{FenceError, WriterLock};
use crate::pg::{Class, Target, error};

/// The log of [`delta_span`].
const LOG: Uuid = Uuid::nil();

/// Holds the lock and one session, as the role does.
pub struct Writer {
    pub target: Target,
    pub lock: Option<WriterLock>,
    pub session: Session,
}

impl Writer {
    pub async fn open(target: Target, table: &'static Table) -> Self {
        let client = target.connect().await.unwrap();
        let sql = "INSERT INTO gatherers (name) VALUES ('a'), ('b') ON CONFLICT DO NOTHING";
        client.batch_execute(sql).await.unwrap();
        let lock = WriterLock::acquire(&target, "test").await.unwrap();
        let tenure = Tenure { fence: lock.fence(), gatherer_ids: Arc::new([1, 2]) };
        let gatherers = Arc::new(["a".to_owned(), "b".to_owned()]);
        let login = login("deduplicator", &target);
        let mut session = Session::open(table, &login, tenure, gatherers).await.unwrap();
        for gatherer in [0, 1] {
            assert_eq!(session.position(gatherer, LOG).await.unwrap(), 0);
        }
        Self { target, lock: Some(lock), session }
    }

    pub async fn client(&self) -> Client {
        self.target.connect().await.unwrap()
    }
}

/// A batch of what is not remembered.
pub fn batch(table: &Table, recent: &Recent, spans: Vec<Span>) -> Batch {
    let mut batch = Batch::new(2);
    for span in spans {
        batch.absorb(table, recent, None, span);
    }
    batch
}

pub fn delta(n: i64) -> TestDelta {
    TestDelta {
        received_at: 2_000_000 + n,
        exchange_ts: 1_000_000 + n,
        ticker: format!("T{}", n % 3),
        price: 480_000,
        occurrence: 1,
    }
}

pub fn deltas(range: std::ops::Range<i64>) -> Vec<TestDelta> {
    range.map(delta).collect()
}

/// Never proves anything: every row takes the stage.
pub fn proves_nothing() -> Recent {
    Recent::new(i64::MAX, 1000)
}

async fn content(client: &Client) -> Vec<(i64, i64, String, i16)> {
    let sql = "SELECT exchange_ts, received_at, ticker, gatherer_id FROM orderbook_deltas \
               ORDER BY 1, 3";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn positions(client: &Client) -> Vec<i64> {
    let sql = "SELECT position FROM sync_cursors ORDER BY gatherer";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn both_ways_write_the_same() {
    let cluster = Cluster::start();
    let mut contents = Vec::new();
    for (name, direct) in [("direct", true), ("staged", false)] {
        let target = cluster.create_with(name, Schema::Production).await;
        let mut writer = Writer::open(target, &ORDERBOOK_DELTAS).await;
        let recent = || match direct {
            true => Recent::new(writer.session.time_max(), 10_000),
            false => proves_nothing(),
        };
        // The second gatherer comes later, with rows of before and others.
        let mut memory = recent();
        let first = batch(&ORDERBOOK_DELTAS, &memory, vec![delta_span(0, 0, &deltas(0..50))]);
        let written = writer.session.write(&first, memory.floor()).await.unwrap();
        assert_eq!((written.rows, written.staged), (50, if direct { 0 } else { 50 }));
        if direct {
            memory.remember(first.identities());
        }
        let spans = vec![delta_span(0, 50, &deltas(60..70)), delta_span(1, 0, &deltas(25..80))];
        let second = batch(&ORDERBOOK_DELTAS, &memory, spans);
        let written = writer.session.write(&second, memory.floor()).await.unwrap();
        assert_eq!(written.rows, 30);
        assert_eq!(written.received_latencies.len(), 30);
        assert_eq!(written.exchange_latencies.len(), 30);
        let skipped: u64 = second.counts().iter().map(|counts| counts.skipped).sum::<u64>()
            + written.staged_duplicates.iter().sum::<u64>();
        assert_eq!(skipped, 35);
        let client = writer.client().await;
        assert_dense(&client, "orderbook_deltas").await;
        assert_eq!(positions(&client).await, [60, 55]);
        contents.push(content(&client).await);
    }
    assert_eq!(contents[0], contents[1]);
    assert_eq!(contents[0].len(), 80);
}

#[tokio::test]
async fn late_rows_take_the_stage_and_new_ones_do_not() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target.clone(), &ORDERBOOK_DELTAS).await;
    let memory = Recent::new(writer.session.time_max(), 10_000);
    let first = batch(&ORDERBOOK_DELTAS, &memory, vec![delta_span(0, 0, &deltas(10..20))]);
    writer.session.write(&first, memory.floor()).await.unwrap();
    // A new process knows nothing but the newest time.
    drop(writer.lock.take());
    let mut writer = reopen(target).await;
    assert_eq!(writer.session.time_max(), delta(19).exchange_ts);
    let memory = Recent::new(writer.session.time_max(), 10_000);
    let spans = vec![delta_span(1, 0, &deltas(5..25))];
    let second = batch(&ORDERBOOK_DELTAS, &memory, spans);
    let written = writer.session.write(&second, memory.floor()).await.unwrap();
    assert_eq!((written.rows, written.staged), (10, 15));
    assert_eq!(written.staged_duplicates, [0, 10]);
    assert_dense(&writer.client().await, "orderbook_deltas").await;
}

pub async fn reopen(target: Target) -> Writer {
    // The server may take a moment to notice that the session with the lock is gone.
    let lock = loop {
        if let Ok(lock) = WriterLock::acquire(&target, "test").await {
            break lock;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let tenure = Tenure { fence: lock.fence(), gatherer_ids: Arc::new([1, 2]) };
    let gatherers = Arc::new(["a".to_owned(), "b".to_owned()]);
    let session = Session::open(&ORDERBOOK_DELTAS, &target, tenure, gatherers).await.unwrap();
    Writer { target, lock: Some(lock), session }
}

/// What a failed transaction leaves: nothing.
async fn assert_untouched(client: &Client, rows: usize, position: i64) {
    assert_eq!(content(client).await.len(), rows);
    assert_eq!(positions(client).await, [position, 0]);
    assert_dense(client, "orderbook_deltas").await;
}

async fn write_ten(writer: &mut Writer, memory: &Recent, after: i64) -> anyhow::Result<Written> {
    let span = delta_span(0, after, &deltas(after..after + 10));
    let batch = batch(&ORDERBOOK_DELTAS, memory, vec![span]);
    writer.session.write(&batch, memory.floor()).await
}

#[tokio::test]
async fn a_cursor_or_head_that_moved_aborts_the_transaction() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target, &ORDERBOOK_DELTAS).await;
    let memory = Recent::new(writer.session.time_max(), 10_000);
    write_ten(&mut writer, &memory, 0).await.unwrap();
    let client = writer.client().await;
    let error = write_ten(&mut writer, &memory, 20).await.unwrap_err();
    assert!(error.downcast_ref::<Moved>().is_some(), "{error:#}");
    assert_untouched(&client, 10, 10).await;
    client.batch_execute("UPDATE logs SET head = 11").await.unwrap();
    let error = write_ten(&mut writer, &memory, 10).await.unwrap_err();
    assert!(error.downcast_ref::<Moved>().is_some(), "{error:#}");
    client.batch_execute("UPDATE logs SET head = 10").await.unwrap();
    assert_untouched(&client, 10, 10).await;
    // The session is as good as before.
    write_ten(&mut writer, &memory, 10).await.unwrap();
    assert_untouched(&client, 20, 20).await;
}

#[tokio::test]
async fn a_replaced_writer_cannot_commit() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target.clone(), &ORDERBOOK_DELTAS).await;
    let memory = Recent::new(writer.session.time_max(), 10_000);
    write_ten(&mut writer, &memory, 0).await.unwrap();
    drop(writer.lock.take());
    let successor = reopen(target).await;
    let error = write_ten(&mut writer, &memory, 10).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(FenceError::Lost { .. })), "{error:#}");
    assert_untouched(&successor.client().await, 10, 10).await;
}

#[tokio::test]
async fn a_wrong_proof_is_caught_by_the_key() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target, &ORDERBOOK_DELTAS).await;
    let memory = Recent::new(writer.session.time_max(), 10_000);
    write_ten(&mut writer, &memory, 0).await.unwrap();
    let client = writer.client().await;
    // Remembers nothing and believes that production is empty.
    let wrong = Recent::new(0, 10_000);
    let spans = || vec![delta_span(0, 10, &deltas(5..15))];
    let twice = batch(&ORDERBOOK_DELTAS, &wrong, spans());
    let error = writer.session.write(&twice, wrong.floor()).await.unwrap_err();
    assert_eq!(error::classify_chain(&error), Class::Duplicate);
    assert_untouched(&client, 10, 10).await;
    let safe = proves_nothing();
    let again = batch(&ORDERBOOK_DELTAS, &safe, spans());
    let written = writer.session.write(&again, safe.floor()).await.unwrap();
    assert_eq!(written.rows, 5);
    assert_untouched(&client, 15, 20).await;
}

/// A span of trades: id and time of each.
fn trade_span(gatherer: usize, after: i64, trades: &[(u128, i64)]) -> Span {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for ((id, exchange_ts), log_seq) in trades.iter().zip(after + 1..) {
        let fields: [Option<&[u8]>; 10] = [
            Some(&log_seq.to_be_bytes()),
            Some(&5_i64.to_be_bytes()),
            Some(&id.to_be_bytes()),
            Some(&exchange_ts.to_be_bytes()),
            Some(b"T"),
            Some(&480_000_i64.to_be_bytes()),
            None,
            Some(&100_i64.to_be_bytes()),
            None,
            Some(&[0]),
        ];
        data.extend_from_slice(&10_i16.to_be_bytes());
        for field in fields {
            let length = field.map_or(-1, |field| i32::try_from(field.len()).unwrap());
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(field.unwrap_or_default());
        }
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());
    let through = after + i64::try_from(trades.len()).unwrap();
    let request = Request { gatherer, log_id: LOG, after, through, head: through, seed: 7 };
    parse(&TRADES, request, data, true).unwrap()
}

#[tokio::test]
async fn a_repaired_trade_is_not_a_second_one() {
    let cluster = Cluster::start();
    let second = 1_000_000;
    for (name, proves) in [("direct", true), ("staged", false)] {
        let target = cluster.create_with(name, Schema::Production).await;
        let mut writer = Writer::open(target, &TRADES).await;
        let mut memory = if proves { Recent::new(0, 1000) } else { proves_nothing() };
        let live = trade_span(0, 0, &[(1, 10 * second), (2, 10 * second)]);
        let first = batch(&TRADES, &memory, vec![live]);
        writer.session.write(&first, memory.floor()).await.unwrap();
        if proves {
            memory.remember(first.identities());
        }
        // From REST: finer times, one of the next second, and one that nobody had.
        let repaired =
            [(1, 10 * second + 123_456), (2, 11 * second), (3, 10 * second + 1), (3, 10 * second)];
        let second_batch = batch(&TRADES, &memory, vec![trade_span(1, 0, &repaired)]);
        let written = writer.session.write(&second_batch, memory.floor()).await.unwrap();
        assert_eq!(written.rows, 1, "{name}");
        let client = writer.client().await;
        assert_dense(&client, "trades").await;
    }
}
