//! The parts of a log: made in time, dropped when nobody needs them, by either engine.

use std::time::Duration;

use tokio_postgres::Client;

use super::parts;
use super::retention::{Outcome, Wait, drop_oldest};
use crate::model::{Log, Micros};
use crate::pg::Target;
use crate::pg::engine::{self, Engine};
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;
use crate::pg::writer::WriterLock;

const LOG: Log = Log::OrderbookDeltas;
const HOUR: Duration = Duration::from_secs(3600);
/// Of a part.
const ROWS: i64 = 100;

/// A gatherer's database whose changes come in parts of a hundred rows.
struct Rig {
    cluster: Cluster,
    target: Target,
    client: Client,
    lock: WriterLock,
    engine: Engine,
}

impl Rig {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let target = cluster.create_with("g", Schema::Gatherer).await;
        cluster.narrow(&target, LOG.name(), ROWS).await;
        let lock = WriterLock::acquire(&target, "test").await.unwrap();
        let client = parts::owner_session(&target).await.unwrap();
        let engine = engine::find(&client).await.unwrap().unwrap();
        Self { cluster, target, client, lock, engine }
    }

    /// Rows `first ..= last`, received so long ago, with the parts that they need and the head.
    async fn append(&mut self, first: i64, last: i64, age: Duration) {
        if parts::room(&self.client, LOG, first).await.unwrap().is_some_and(|end| end <= last) {
            let fence = self.lock.fence();
            let room = parts::make(&mut self.client, fence, LOG, first, last).await.unwrap();
            assert!(room > Some(last), "{room:?}");
        }
        let at = Micros::now().0 - i64::try_from(age.as_micros()).unwrap();
        let sql = format!(
            "INSERT INTO orderbook_deltas SELECT n, {at}, {at}, 'T', true, 1, 1, 1, 1, 1, n \
             FROM generate_series({first}, {last}) n; \
             UPDATE logs SET head = {last} WHERE name = 'orderbook_deltas'"
        );
        self.client.batch_execute(&sql).await.unwrap();
    }

    async fn drop_oldest(&mut self) -> Outcome {
        let fence = self.lock.fence();
        drop_oldest(&mut self.client, self.engine, fence, LOG, HOUR).await.unwrap()
    }

    /// First row, rows, and `kept_from`.
    async fn kept(&self) -> [i64; 3] {
        let sql = "SELECT min(log_seq), count(*), (SELECT kept_from FROM logs \
                   WHERE name = 'orderbook_deltas') FROM orderbook_deltas";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        [row.get(0), row.get(1), row.get(2)]
    }

    async fn bounds(&self) -> Vec<(i64, i64)> {
        let parts = parts::list(&self.client, self.engine, LOG).await.unwrap();
        parts.iter().map(|part| (part.from, part.to)).collect()
    }

    async fn passed(&self, consumer: &str, position: i64) {
        let sql = "SELECT consumer_passed($1, 'orderbook_deltas', $2)";
        self.client.query(sql, &[&consumer, &position]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_finds_room_however_many_parts_it_needs() {
    let mut rig = Rig::start().await;
    rig.append(1, 50, HOUR).await;
    rig.append(51, 420, HOUR).await;
    let bounds: Vec<(i64, i64)> = (0..5).map(|n| (n * ROWS, (n + 1) * ROWS)).collect();
    assert_eq!(rig.bounds().await, bounds);
    let fence = rig.lock.fence();
    if rig.engine == Engine::Native {
        // Made and not used, as by a process that ended in between, twice.
        for _ in 0..2 {
            let room = parts::make(&mut rig.client, fence, LOG, 421, 650).await.unwrap();
            assert_eq!(room, Some(700));
        }
        // What comes after them may be wider, and begins where they end.
        let wider = "UPDATE logs SET chunk_rows = 300 WHERE name = 'orderbook_deltas'";
        rig.client.batch_execute(wider).await.unwrap();
        let room = parts::make(&mut rig.client, fence, LOG, 421, 700).await.unwrap();
        assert_eq!(room, Some(900));
        assert_eq!(rig.bounds().await.last(), Some(&(700, 900)));
    } else {
        assert_eq!(parts::room(&rig.client, LOG, 421).await.unwrap(), None);
    }
    rig.append(421, 750, HOUR).await;
    assert_eq!(rig.kept().await, [1, 750, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_part_is_there_before_it_is_needed() {
    let mut rig = Rig::start().await;
    rig.append(1, 150, HOUR).await;
    let (fence, engine) = (rig.lock.fence(), rig.engine);
    for _ in 0..2 {
        parts::make_ahead(&mut rig.client, engine, fence, LOG).await.unwrap();
    }
    match engine {
        // A whole part's rows from the head.
        Engine::Native => assert_eq!(rig.bounds().await.last(), Some(&(2 * ROWS, 3 * ROWS))),
        Engine::Timescaledb => {
            // It makes them itself, as wide as the log says.
            let wider = "UPDATE logs SET chunk_rows = 1000 WHERE name = 'orderbook_deltas'";
            rig.client.batch_execute(wider).await.unwrap();
            parts::make_ahead(&mut rig.client, engine, fence, LOG).await.unwrap();
            rig.append(151, 1500, HOUR).await;
            assert_eq!(rig.bounds().await.last(), Some(&(1000, 2000)));
        }
    }
    // A writer that was replaced makes nothing.
    drop(WriterLock::acquire(&rig.target, "second").await.unwrap_err());
    let former = rig.lock;
    let held = former.fence();
    drop(former);
    let _second = loop {
        // The server ends a session in its own time.
        if let Ok(lock) = WriterLock::acquire(&rig.target, "second").await {
            break lock;
        }
    };
    let late = parts::make(&mut rig.client, held, LOG, 1, 5000).await;
    assert!(late.unwrap_err().to_string().contains("taken over"), "a fenced writer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consumers_age_alone_decides() {
    let mut rig = Rig::start().await;
    rig.append(1, 250, 3 * HOUR).await;
    rig.append(251, 350, Duration::ZERO).await;
    for kept in [[100, 251, 100], [200, 151, 200]] {
        let Outcome::Dropped(parts) = rig.drop_oldest().await else { panic!("{kept:?}") };
        assert_eq!(parts.len(), 1, "{parts:?}");
        assert_eq!(rig.kept().await, kept);
    }
    // Its last rows are young.
    assert_eq!(rig.drop_oldest().await, Outcome::Nothing);
    rig.append(351, 360, Duration::ZERO).await;
    assert_eq!(rig.kept().await, [200, 161, 200]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_part_that_is_written_stays_however_old() {
    let mut rig = Rig::start().await;
    rig.append(1, 150, 900 * HOUR).await;
    assert!(matches!(rig.drop_oldest().await, Outcome::Dropped(_)));
    assert_eq!(rig.drop_oldest().await, Outcome::Nothing);
    assert_eq!(rig.kept().await, [100, 51, 100]);
    // Complete, and nothing comes after it: the last row that would tell its age is in it.
    rig.append(151, 199, 900 * HOUR).await;
    assert!(matches!(rig.drop_oldest().await, Outcome::Dropped(_)));
    rig.append(200, 200, HOUR).await;
    assert_eq!(rig.kept().await, [200, 1, 200]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_that_a_registered_consumer_has_not_passed() {
    let mut rig = Rig::start().await;
    rig.append(1, 350, 3 * HOUR).await;
    rig.passed("slow", 98).await;
    rig.passed("quick", 300).await;
    let Outcome::Waits(wait) = rig.drop_oldest().await else { panic!("row 99 was not read") };
    assert_eq!((wait.consumer.as_str(), wait.position, wait.last), ("slow", 98, 99));
    assert!(wait.overdue >= 2 * HOUR && wait.overdue < 2 * HOUR + HOUR / 2, "{wait:?}");
    assert_eq!(rig.kept().await, [1, 350, 1]);
    rig.passed("slow", 99).await;
    assert!(matches!(rig.drop_oldest().await, Outcome::Dropped(_)));
    let waits = rig.drop_oldest().await;
    assert!(matches!(waits, Outcome::Waits(Wait { position: 99, last: 199, .. })), "{waits:?}");
    // Given up.
    rig.client.batch_execute("DELETE FROM consumers WHERE name = 'slow'").await.unwrap();
    for _ in 0..2 {
        assert!(matches!(rig.drop_oldest().await, Outcome::Dropped(_)));
    }
    assert_eq!(rig.kept().await, [300, 51, 300]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_finished_by_whoever_comes_next() {
    let mut rig = Rig::start().await;
    rig.append(1, 350, Duration::ZERO).await;
    // As a process leaves it that ends between the two steps.
    let decided = "UPDATE logs SET kept_from = 200 WHERE name = 'orderbook_deltas'";
    rig.client.batch_execute(decided).await.unwrap();
    let Outcome::Dropped(parts) = rig.drop_oldest().await else { panic!("it was decided") };
    assert_eq!(parts.len(), 2, "{parts:?}");
    assert_eq!(rig.kept().await, [200, 151, 200]);
    // And after a crash of the server.
    rig.client.batch_execute(&decided.replace("200", "300")).await.unwrap();
    rig.cluster.crash();
    rig.cluster.resume();
    rig.client = parts::owner_session(&rig.target).await.unwrap();
    rig.lock = WriterLock::acquire(&rig.target, "test").await.unwrap();
    assert!(matches!(rig.drop_oldest().await, Outcome::Dropped(_)));
    assert_eq!(rig.kept().await, [300, 51, 300]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_waited_for_a_moment_and_appends_for_none() {
    let mut rig = Rig::start().await;
    rig.append(1, 350, 3 * HOUR).await;
    let reader = rig.target.connect().await.unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM orderbook_deltas").await.unwrap();
    let fence = rig.lock.fence();
    let dropped = drop_oldest(&mut rig.client, rig.engine, fence, LOG, HOUR).await;
    let error = dropped.unwrap_err();
    assert_eq!(crate::pg::error::classify_chain(&error), crate::pg::Class::Retry, "{error:#}");
    rig.append(351, 360, Duration::ZERO).await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert!(matches!(rig.drop_oldest().await, Outcome::Dropped(_)));
    assert_eq!(rig.kept().await, [100, 261, 100]);
}
