//! Production's partitions: made for whatever comes, dropped without a row lost, doubled or blocked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::super::partitions::{self, DAY_MICROS};
use super::super::production::Tenure;
use super::super::recent::Recent;
use super::super::retention::{Outcome, drop_oldest};
use super::super::span::testing::{TestDelta, delta_span};
use super::super::table::ORDERBOOK_DELTAS;
use super::super::write::{Moved, Session};
use super::rig::{Delta, Rig, append_deltas, assert_dense, delta as row, holds};
use super::transaction::{Writer, batch, delta, proves_nothing, reopen};
use crate::model::Micros;
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;
use crate::pg::{Class, Options, error};

const DAY: Duration = Duration::from_secs(86_400);

/// Ten deltas within a second, a number of days from today.
fn of_day(days: i64, first: i64) -> Vec<TestDelta> {
    let day = Micros::now().0.div_euclid(DAY_MICROS) * DAY_MICROS + days * DAY_MICROS;
    (first..first + 10).map(|n| TestDelta { exchange_ts: day + n, ..delta(n) }).collect()
}

async fn names(client: &Client) -> Vec<String> {
    let there = partitions::list(client, &ORDERBOOK_DELTAS).await.unwrap();
    there.into_iter().map(|partition| partition.name).collect()
}

async fn write(writer: &mut Writer, after: i64, rows: &[TestDelta]) -> anyhow::Result<u64> {
    let memory = proves_nothing();
    let batch = batch(&ORDERBOOK_DELTAS, &memory, vec![delta_span(0, after, rows)]);
    Ok(writer.session.write(&batch, memory.floor()).await?.rows)
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A session as the task that drops has, with less patience.
async fn dropper(writer: &Writer) -> Client {
    let options = Options { lock_timeout: Some(Duration::from_secs(5)), ..Options::default() };
    writer.target.connect_with(options).await.unwrap()
}

#[tokio::test]
async fn a_row_of_any_time_finds_or_gets_its_partition() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target.clone(), &ORDERBOOK_DELTAS).await;
    // Both ways to write, times of one batch in three partitions, and a late one between them.
    let rows = [of_day(0, 0), of_day(-400, 0), of_day(2, 0)].concat();
    let memory = Recent::new(writer.session.time_max(), 10_000);
    let first = batch(&ORDERBOOK_DELTAS, &memory, vec![delta_span(0, 0, &rows)]);
    assert_eq!(writer.session.write(&first, memory.floor()).await.unwrap().rows, 30);
    assert_eq!(write(&mut writer, 30, &of_day(-100, 0)).await.unwrap(), 10);
    assert_eq!(write(&mut writer, 40, &of_day(-400, 5)).await.unwrap(), 5);
    let client = writer.client().await;
    assert_dense(&client, "orderbook_deltas").await;
    let there = names(&client).await;
    assert_eq!(there.len(), 4, "{there:?}");
    // Who makes one that is there already leaves it as it is.
    let mut other = target.connect().await.unwrap();
    let times: Vec<i64> = rows.iter().map(|row| row.exchange_ts).collect();
    let fence = writer.lock.as_ref().unwrap().fence();
    partitions::make(&mut other, fence, &ORDERBOOK_DELTAS, &times).await.unwrap();
    assert_eq!(names(&client).await, there);
}

#[tokio::test]
async fn what_was_dropped_is_counted_and_never_lands_again() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target.clone(), &ORDERBOOK_DELTAS).await;
    write(&mut writer, 0, &of_day(-100, 0)).await.unwrap();
    write(&mut writer, 10, &of_day(-95, 0)).await.unwrap();
    write(&mut writer, 20, &of_day(0, 0)).await.unwrap();
    let client = writer.client().await;
    let mut dropper = dropper(&writer).await;
    let fence = writer.lock.as_ref().unwrap().fence();
    let consumer = "INSERT INTO consumers (name, table_name, position) \
                    VALUES ('exporter', 'orderbook_deltas', 9), ('exporter', 'trades', 0)";
    client.batch_execute(consumer).await.unwrap();
    let outcome = drop_oldest(&mut dropper, fence, &ORDERBOOK_DELTAS, 90 * DAY).await.unwrap();
    let Outcome::Waits(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.ends_with("ends with row 10 and consumer exporter is at 9"), "{reason}");
    assert_eq!(names(&client).await.len(), 3);

    client.batch_execute("UPDATE consumers SET position = 15").await.unwrap();
    let outcome = drop_oldest(&mut dropper, fence, &ORDERBOOK_DELTAS, 90 * DAY).await.unwrap();
    assert!(matches!(outcome, Outcome::Dropped(_)), "{outcome:?}");
    let outcome = drop_oldest(&mut dropper, fence, &ORDERBOOK_DELTAS, 90 * DAY).await.unwrap();
    assert!(matches!(outcome, Outcome::Waits(_)), "{outcome:?}");
    assert_eq!(names(&client).await.len(), 2);
    assert_eq!(number(&client, "SELECT count(*) FROM orderbook_deltas").await, 20);
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'orderbook_deltas_2%' \
                  AND relkind = 'r'";
    assert_eq!(number(&client, tables).await, 2, "nothing is left behind");

    // The session has seen the partition; the batch that needs it is refused as a whole.
    let late = [of_day(-100, 5), of_day(0, 10)].concat();
    let error = write(&mut writer, 30, &late).await.unwrap_err();
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code());
    assert_eq!(code, Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION), "{error:#}");
    // One that never was is not made either.
    let error = write(&mut writer, 30, &of_day(-101, 0)).await.unwrap_err();
    assert!(error.downcast_ref::<Moved>().is_some(), "{error:#}");
    assert_eq!(names(&client).await.len(), 2);
    drop(writer.lock.take());
    let mut writer = reopen(target).await;
    let mut again = writer.session.batch();
    let memory = proves_nothing();
    again.absorb(&ORDERBOOK_DELTAS, &memory, None, delta_span(0, 30, &late));
    assert_eq!(again.counts()[0].past_retention, 10);
    assert_eq!(writer.session.write(&again, memory.floor()).await.unwrap().rows, 10);
    let past = "SELECT past_retention FROM sync_cursors WHERE gatherer = 'a'";
    assert_eq!(number(&client, past).await, 10);
    assert_eq!(number(&client, "SELECT max(position) FROM sync_cursors").await, 50);
    // Old, but never dropped: it lands.
    assert_eq!(write(&mut writer, 50, &of_day(-93, 0)).await.unwrap(), 10);
}

#[tokio::test]
async fn a_row_that_comes_while_the_drop_is_decided_is_refused() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target, &ORDERBOOK_DELTAS).await;
    write(&mut writer, 0, &of_day(-100, 0)).await.unwrap();
    let client = writer.client().await;
    // Decided and not detached yet: the partition still takes rows.
    let kept = "UPDATE logs SET kept_from = (SELECT max(exchange_ts) + 1 FROM orderbook_deltas) \
                WHERE name = 'orderbook_deltas'";
    client.batch_execute(kept).await.unwrap();
    let error = write(&mut writer, 10, &of_day(-100, 20)).await.unwrap();
    assert_eq!(error, 10, "rows after what is kept");
    let error = write(&mut writer, 20, &of_day(-100, 5)).await.unwrap_err();
    assert!(error.downcast_ref::<Moved>().is_some(), "{error:#}");
    assert_eq!(number(&client, "SELECT count(*) FROM orderbook_deltas").await, 20);
}

#[tokio::test]
async fn dropping_waits_for_readers_and_blocks_nobody() {
    let cluster = Cluster::start();
    let target = cluster.create_with("production", Schema::Production).await;
    let mut writer = Writer::open(target.clone(), &ORDERBOOK_DELTAS).await;
    write(&mut writer, 0, &of_day(-100, 0)).await.unwrap();
    write(&mut writer, 10, &of_day(0, 0)).await.unwrap();
    let reader = target.connect().await.unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM orderbook_deltas").await.unwrap();
    let mut dropper = dropper(&writer).await;
    let fence = writer.lock.as_ref().unwrap().fence();
    let client = target.connect().await.unwrap();
    // While it waits for the reader, rows are written, others read, and partitions made.
    let others = async {
        holds(&client, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
        write(&mut writer, 20, &[of_day(0, 10), of_day(7, 0)].concat()).await.unwrap();
        let rows = number(&client, "SELECT count(*) FROM orderbook_deltas").await;
        // What is decided is out of sight already, and the reader still waited for.
        assert_eq!(rows, 30);
        holds(&client, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
    };
    let dropping = drop_oldest(&mut dropper, fence, &ORDERBOOK_DELTAS, 90 * DAY);
    let (error, ()) = tokio::join!(dropping, others);
    let error = error.unwrap_err();
    assert_eq!(error::classify_chain(&error), Class::Retry, "{error:#}");
    reader.batch_execute("COMMIT").await.unwrap();
    let outcome = drop_oldest(&mut dropper, fence, &ORDERBOOK_DELTAS, 90 * DAY).await.unwrap();
    assert!(matches!(outcome, Outcome::Dropped(_)), "{outcome:?}");
    assert_eq!(names(&client).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_makes_partitions_ahead_and_drops_old_ones() {
    let rig = Rig::start(1).await;
    let now = Micros::now().0;
    let at = |days: i64, n: i64| Delta { exchange_ts: now + days * DAY_MICROS + n, ..row(n) };
    let gatherer = &rig.gatherers[0];
    let old: Vec<Delta> = (0..50).map(|n| at(-100, n)).collect();
    let new: Vec<Delta> = (0..50).map(|n| at(0, n)).collect();
    append_deltas(gatherer, &old).await;
    append_deltas(gatherer, &new).await;
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    let production = rig.production().await;
    let ahead = "SELECT count(*) >= 5 FROM pg_inherits WHERE inhparent = 'coverage'::regclass \
                 OR inhparent = 'orderbook_deltas'::regclass";
    holds(&production, ahead).await;
    running.stop().await.unwrap();
    // A process that begins looks after the partitions first.
    let running = rig.run();
    let dropped = "SELECT kept_from IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c \
                   WHERE obj_description(c.oid, 'pg_class') LIKE 'Dropped by%') \
                   FROM logs WHERE name = 'orderbook_deltas'";
    holds(&production, dropped).await;
    append_deltas(gatherer, &[at(-100, 51), at(-60, 51), at(0, 51)]).await;
    rig.caught_up("orderbook_deltas").await;
    running.stop().await.unwrap();
    let times = "SELECT count(*) FROM orderbook_deltas WHERE exchange_ts";
    for (range, rows) in [
        (format!("< {}", now - 90 * DAY_MICROS), 0),
        (format!("BETWEEN {} AND {}", now - 90 * DAY_MICROS, now - DAY_MICROS), 1),
        (format!("> {}", now - DAY_MICROS), 51),
    ] {
        assert_eq!(number(&production, &format!("{times} {range}")).await, rows, "{range}");
    }
    assert_eq!(
        number(&production, "SELECT sum(past_retention)::bigint FROM sync_cursors").await,
        1
    );
    assert_eq!(
        number(&production, "SELECT head FROM logs WHERE name = 'orderbook_deltas'").await,
        102
    );
}

/// What partitions cost the writer: the same rows into production's table and into a plain one with
/// `UNIQUE (log_seq)`, in turns, and into a partitioned one without another gatherer, where no row is
/// watched for copies. Prints rows a second of both ways to write.
#[tokio::test]
#[ignore = "a measurement: run it alone, with --no-capture"]
async fn speed_beside_a_plain_table() {
    const ROWS: i64 = 20_000;
    const ROUNDS: i64 = 10;
    let plain = "SET ROLE kalshi_owner; CREATE TABLE plain (LIKE orderbook_deltas); DROP TABLE orderbook_deltas; \
                 ALTER TABLE plain RENAME TO orderbook_deltas; \
                 ALTER TABLE orderbook_deltas ADD UNIQUE (log_seq), \
                 ADD PRIMARY KEY (ticker, exchange_ts, side, price, size_delta, occurrence)";
    let cluster = Cluster::start();
    let mut writers = Vec::new();
    for (name, sql) in [("plain", plain), ("partitioned", ""), ("unwatched", "")] {
        let target = cluster.create_with(name, Schema::Production).await;
        target.connect().await.unwrap().batch_execute(sql).await.unwrap();
        let mut writer = Writer::open(target.clone(), &ORDERBOOK_DELTAS).await;
        if name == "unwatched" {
            let fence = writer.lock.as_ref().unwrap().fence();
            let tenure = Tenure { fence, gatherer_ids: Arc::new([1]) };
            let gatherers = Arc::new(["a".to_owned()]);
            let opened = Session::open(&ORDERBOOK_DELTAS, &target, tenure, gatherers).await;
            writer.session = opened.unwrap();
        }
        writers.push(writer);
    }
    // A third of a day a round, as catching up would read it.
    let rows = |round: i64, odd: i64| -> Vec<TestDelta> {
        let step = DAY_MICROS / 3 / ROWS;
        let of = |n: i64| TestDelta {
            exchange_ts: n * step + odd,
            ticker: format!("KXM-{:05}", n * 7919 % 2000),
            ..delta(n)
        };
        (round * ROWS..(round + 1) * ROWS).map(of).collect()
    };
    for (way, after) in [("copied", 0), ("staged", ROWS * ROUNDS)] {
        let mut seconds = [0.0; 3];
        for round in 0..ROUNDS {
            let odd = i64::from(way == "staged");
            for (writer, seconds) in writers.iter_mut().zip(&mut seconds) {
                let span = delta_span(0, after + round * ROWS, &rows(round, odd));
                let memory = match way {
                    "copied" => Recent::new(writer.session.time_max(), 10),
                    _ => proves_nothing(),
                };
                let batch = batch(&ORDERBOOK_DELTAS, &memory, vec![span]);
                let began = Instant::now();
                writer.session.write(&batch, memory.floor()).await.unwrap();
                *seconds += began.elapsed().as_secs_f64();
            }
        }
        let rows = f64::from(i32::try_from(ROWS * ROUNDS).unwrap());
        let [plain, partitioned, unwatched] = seconds.map(|seconds| rows / seconds);
        println!(
            "{way}: plain {plain:.0} rows/s, partitioned {partitioned:.0} rows/s (ratio {:.3}), \
             unwatched {unwatched:.0} rows/s (ratio {:.3})",
            partitioned / plain,
            unwatched / plain
        );
    }
}
