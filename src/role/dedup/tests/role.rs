//! The whole role: what production holds after faults of every kind.

use std::time::Duration;

use tokio::time::sleep;

use super::rig::{Delta, Rig, append_deltas, assert_dense, delta, holds, union};
use crate::ops::exit::{Exit, chain};
use crate::pg::migrate::Schema;
use crate::role::dedup::table;

fn series(range: std::ops::Range<i64>) -> Vec<Delta> {
    range.map(delta).collect()
}

/// What a gatherer saw that misses a third.
fn two_thirds(all: &[Delta], missing: usize) -> Vec<Delta> {
    let seen = all.iter().enumerate().filter(|(n, _)| n / 50 % 3 != missing);
    seen.map(|(_, delta)| delta.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_part_views_make_one_whole() {
    let rig = Rig::start(3).await;
    let all = series(0..3000);
    // One has all of its part before the start, the others get theirs while the role runs.
    append_deltas(&rig.gatherers[0], &two_thirds(&all, 0)).await;
    let running = rig.run();
    for chunk in 0..6 {
        for gatherer in [1, 2] {
            let part = &all[chunk * 500..(chunk + 1) * 500];
            append_deltas(&rig.gatherers[gatherer], &two_thirds(part, gatherer)).await;
        }
    }
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all));
    running.stop().await.unwrap();
    assert!(rig.cursors("orderbook_deltas").await.len() == 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_log_arrives_whole() {
    let rig = Rig::start(2).await;
    for target in &rig.gatherers {
        let client = target.connect().await.unwrap();
        client
            .batch_execute(
                "INSERT INTO trades VALUES
                   (1, '00000000-0000-4000-8000-000000000001', 1800000000000000, 5, 'T', 480000, null, 7, null, false, 1, 1, 1),
                   (2, '00000000-0000-4000-8000-000000000002', 1800000000000000, 6, 'T', 480000, 520000, 7, true, true, 1, 1, 2);
                 INSERT INTO orderbook_snapshots VALUES
                   (1, 5, 4, 'T', 'ws', '{480000,490000}', '{100,200}', '{}', '{}', 1, 1, 1),
                   (2, 5, null, 'T', 'rest', '{}', '{}', '{500000}', '{1}', 1, 1, 2);
                 INSERT INTO tickers VALUES
                   (1, 1800000000000000, 5, 'T', 1, 2, 3, 4, 5, null, 7, 8, 9, 10, -77, 1, 1);
                 INSERT INTO market_lifecycle VALUES
                   (1, 'T', 'created', null, 5, '{\"a\": [1, \"é\"]}', 99, 1, 1, 1),
                   (2, 'T', 'settled', 1800000000000000, 5, '{}', 98, 1, 1, 1);
                 INSERT INTO coverage VALUES
                   (1, 'trade', '', 1, 2, null, 3, 4, 'gap', 'seq 4 after 2', 1, 1);
                 UPDATE logs SET head = 2 WHERE name IN ('trades', 'orderbook_snapshots', 'market_lifecycle');
                 UPDATE logs SET head = 1 WHERE name IN ('tickers', 'coverage')",
            )
            .await
            .unwrap();
        append_deltas(target, &series(0..5)).await;
    }
    let running = rig.run();
    for table in table::ALL {
        rig.caught_up(table.name()).await;
    }
    running.stop().await.unwrap();
    let production = rig.production().await;
    let mut counts = Vec::new();
    for table in table::ALL {
        assert_dense(&production, table.name()).await;
        let sql = format!("SELECT count(*), count(DISTINCT gatherer_id) FROM {}", table.name());
        let row = production.query_one(sql.as_str(), &[]).await.unwrap();
        counts.push((row.get::<_, i64>(0), row.get::<_, i64>(1)));
    }
    // Snapshots and coverage are kept from each gatherer; of the rest the first copy.
    assert_eq!(counts, [(2, 1), (5, 1), (4, 2), (1, 1), (2, 1), (2, 2)]);
    holds(
        &production,
        "SELECT bool_and(no_price IS NULL AND taker_side IS NULL AND ticker = 'T' AND size = 7)
         FROM trades WHERE trade_id = '00000000-0000-4000-8000-000000000001'",
    )
    .await;
    holds(&production, "SELECT bool_and(payload = '{\"a\": [1, \"é\"]}') FROM market_lifecycle WHERE event_type = 'created'").await;
    holds(&production, "SELECT bool_and(yes_sizes = '{100,200}' AND no_prices = '{}') FROM orderbook_snapshots WHERE source = 'ws'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_is_lost_or_doubled() {
    let rig = Rig::start(2).await;
    let all = series(0..6000);
    for round in 0..6_usize {
        let running = rig.run();
        let part = &all[round * 1000..(round + 1) * 1000];
        for chunk in part.chunks(100) {
            append_deltas(&rig.gatherers[0], chunk).await;
            append_deltas(&rig.gatherers[1], &two_thirds(chunk, round % 3)).await;
        }
        running.kill().await;
    }
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_of_the_server_are_waited_out() {
    let rig = Rig::start(2).await;
    rig.cluster.crash();
    // Production and the gatherers are away when it starts.
    let running = rig.run();
    sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished());
    rig.cluster.resume();
    let all = series(0..4000);
    for (round, part) in all.chunks(1000).enumerate() {
        for chunk in part.chunks(200) {
            append_deltas(&rig.gatherers[0], chunk).await;
            append_deltas(&rig.gatherers[1], &two_thirds(chunk, round % 3)).await;
        }
        rig.cluster.crash();
        rig.cluster.resume();
    }
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_gatherer_is_read_from_its_beginning() {
    let rig = Rig::start(2).await;
    let all = series(0..900);
    append_deltas(&rig.gatherers[0], &all[..600]).await;
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    rig.cluster.drop_database("g1").await;
    rig.cluster.create_with("g1", Schema::Gatherer).await;
    // Fewer rows than the old cursor counted, old ones and new ones.
    append_deltas(&rig.gatherers[0], &all[500..]).await;
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all));
    running.stop().await.unwrap();
    let cursors = rig.cursors("orderbook_deltas").await;
    let mut positions: Vec<i64> =
        cursors.iter().filter(|((name, _), _)| name == "gatherer-1").map(|(_, p)| *p).collect();
    positions.sort_unstable();
    assert_eq!(positions, [400, 600]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_broke_a_law_is_refused_and_the_others_go_on() {
    let rig = Rig::start(3).await;
    let all = series(0..300);
    append_deltas(&rig.gatherers[0], &all[..100]).await;
    let client = rig.gatherers[0].connect().await.unwrap();
    client.batch_execute("DELETE FROM orderbook_deltas WHERE log_seq = 40").await.unwrap();
    // The second was put back to an earlier state after it had been read.
    append_deltas(&rig.gatherers[1], &all[100..200]).await;
    let running = rig.run();
    let production = rig.production().await;
    let second_is_read = "SELECT EXISTS (SELECT FROM sync_cursors WHERE gatherer = 'gatherer-2' \
                          AND table_name = 'orderbook_deltas' AND position = 100)";
    holds(&production, second_is_read).await;
    let client = rig.gatherers[1].connect().await.unwrap();
    client
        .batch_execute(
            "DELETE FROM orderbook_deltas WHERE log_seq > 60;
             UPDATE logs SET head = 60 WHERE name = 'orderbook_deltas'",
        )
        .await
        .unwrap();
    append_deltas(&rig.gatherers[2], &all[200..]).await;
    let third_is_read = "SELECT EXISTS (SELECT FROM sync_cursors WHERE gatherer = 'gatherer-3' \
                         AND table_name = 'orderbook_deltas' AND position = 100)";
    holds(&production, third_is_read).await;
    running.stop().await.unwrap();
    assert_eq!(rig.deltas().await, union(&all[100..]));
    let cursors = rig.cursors("orderbook_deltas").await;
    let position = |gatherer: &str| {
        cursors.iter().find(|((name, _), _)| name == gatherer).map(|(_, position)| *position)
    };
    assert_eq!((position("gatherer-1"), position("gatherer-2")), (Some(0), Some(100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_deduplicator_says_who_holds_production() {
    let rig = Rig::start(1).await;
    append_deltas(&rig.gatherers[0], &series(0..10)).await;
    let first = rig.run();
    rig.caught_up("orderbook_deltas").await;
    let error = rig.run().end().await.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Held, "{error:#}");
    assert!(format!("{error:#}").contains("deduplicator deduplicator-1 on "), "{error:#}");
    first.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lock_is_taken_again() {
    let rig = Rig::start(1).await;
    let all = series(0..200);
    append_deltas(&rig.gatherers[0], &all[..100]).await;
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    let production = rig.production().await;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks \
               WHERE locktype = 'advisory' AND pid <> pg_backend_pid()";
    production.query_one(sql, &[]).await.unwrap();
    holds(&production, "SELECT epoch = 2 FROM writer").await;
    append_deltas(&rig.gatherers[0], &all[100..]).await;
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_behind_ends_it_until_it_is_migrated_and_another_one_for_good() {
    let mut rig = Rig::start(1).await;
    rig.production = rig.cluster.create("empty").await;
    let error = rig.run().end().await.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Failed, "{error:#}");
    assert!(format!("{error:#}").contains("kalshi migrate"), "{error:#}");
    // As somebody who may look there: the deduplicator is not even let in.
    let mut config = rig.config("deduplicator-1");
    config.production = rig.gatherers[0].clone();
    let error = Rig::run_with(config).end().await.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Usage, "{error:#}");
    assert!(format!("{error:#}").contains("is a gatherer database"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_gatherer_does_not_hold_up_the_others() {
    let rig = Rig::start(2).await;
    let all = series(0..100);
    let hung = rig.gatherers[0].connect().await.unwrap();
    append_deltas(&rig.gatherers[0], &all).await;
    // Its readers wait for this lock until the server cancels them.
    hung.batch_execute("BEGIN; LOCK TABLE orderbook_deltas IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    append_deltas(&rig.gatherers[1], &all).await;
    let running = rig.run();
    let production = rig.production().await;
    let started = tokio::time::Instant::now();
    holds(&production, "SELECT count(*) = 100 FROM orderbook_deltas").await;
    assert!(started.elapsed() < Duration::from_secs(3));
    hung.batch_execute("ROLLBACK").await.unwrap();
    rig.caught_up("orderbook_deltas").await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_production_that_hangs() {
    let rig = Rig::start(1).await;
    append_deltas(&rig.gatherers[0], &series(0..10)).await;
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    let mut production = rig.production().await;
    let hung = production.transaction().await.unwrap();
    hung.batch_execute("LOCK TABLE sync_cursors IN ACCESS EXCLUSIVE MODE").await.unwrap();
    append_deltas(&rig.gatherers[0], &series(10..20)).await;
    let observer = rig.production().await;
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
    holds(&observer, waits).await;
    let asked = tokio::time::Instant::now();
    running.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(6));
    hung.rollback().await.unwrap();
    // What was rolled back, or committed without an answer, is settled by the next one.
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&series(0..20)));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_another_gatherer_is_not_read() {
    let rig = Rig::start(2).await;
    for (target, owner) in rig.gatherers.iter().zip(["gatherer-1", "gatherer-9"]) {
        let client = target.connect().await.unwrap();
        client.execute("UPDATE writer SET gatherer_id = $1", &[&owner]).await.unwrap();
        append_deltas(target, &series(0..300)).await;
    }
    let mut config = rig.config("deduplicator-1");
    config.gatherers[0].database = rig.cluster.create("empty").await;
    // Each of them is told, also what a restart may cure beside what it cannot.
    let error = super::super::check(config, Vec::new(), true).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("run `kalshi migrate --config FILE` with its gatherer's"), "{text}");
    assert!(text.contains("belongs to gatherer \"gatherer-9\""), "{text}");
    assert_eq!(Exit::of(&error), Exit::Usage);
    let running = rig.run();
    let production = rig.production().await;
    holds(&production, "SELECT count(*) = 300 FROM orderbook_deltas").await;
    holds(&production, "SELECT bool_and(gatherer = 'gatherer-1') FROM sync_cursors").await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gatherer_is_told_what_is_in_production_and_rows_it_dropped_are_passed_over() {
    let rig = Rig::start(2).await;
    let all = series(0..3000);
    for gatherer in &rig.gatherers {
        append_deltas(gatherer, &all[..1000]).await;
    }
    // One has dropped its first rows before anybody read them, more than one read asks for.
    let first = rig.gatherers[0].connect().await.unwrap();
    let dropped = "DELETE FROM orderbook_deltas WHERE log_seq < 701; \
                   UPDATE logs SET kept_from = 701 WHERE name = 'orderbook_deltas'";
    first.batch_execute(dropped).await.unwrap();
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all[..1000]));
    // And all that there were, while it ran.
    let second = rig.gatherers[1].connect().await.unwrap();
    let stopped = "DELETE FROM orderbook_deltas; \
                   UPDATE logs SET kept_from = head + 1 WHERE name = 'orderbook_deltas'";
    second.batch_execute(stopped).await.unwrap();
    for gatherer in &rig.gatherers {
        append_deltas(gatherer, &all[1000..]).await;
    }
    rig.caught_up("orderbook_deltas").await;
    assert_eq!(rig.deltas().await, union(&all));
    for gatherer in [&first, &second] {
        let told = "SELECT count(*) = 6 AND max(position) = 3000 FROM consumers \
                    WHERE name = 'deduplicator-1' AND (position = 3000) = \
                      (table_name = 'orderbook_deltas')";
        holds(gatherer, told).await;
    }
    running.stop().await.unwrap();
    // A gatherer that dropped everything while nobody looked.
    append_deltas(&rig.gatherers[0], &series(3000..3100)).await;
    let gone = "DELETE FROM orderbook_deltas; \
                UPDATE logs SET kept_from = head + 1 WHERE name = 'orderbook_deltas'";
    first.batch_execute(gone).await.unwrap();
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    running.stop().await.unwrap();
    assert_eq!(rig.deltas().await, union(&all));
}
