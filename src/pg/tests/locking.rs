//! One writer, and the fence that keeps its predecessors out.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;

use super::super::Target;
use super::super::advisory::Lock;
use super::super::error::{Class, classify_chain};
use super::super::migrate::{self, Schema};
use super::super::testing::Cluster;
use super::super::writer::{AcquireError, Fence, FenceError, WriterLock};

async fn migrated(cluster: &Cluster, schema: Schema) -> Target {
    let target = cluster.create("logs").await;
    migrate::run(&target, schema).await.unwrap();
    target
}

/// Ends the session that holds the writer's lock, as a failing network or server would.
async fn cut_lock_session(admin: &Client, lock: &WriterLock) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
         WHERE locktype = 'advisory' AND granted
           AND (classid::bigint << 32) | objid::bigint = {}",
        Lock::Writer.key()
    );
    let cut: i64 = admin.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(cut, 1);
    // The driver's task learns it from the socket.
    tokio::time::timeout(Duration::from_secs(30), async {
        while lock.is_held() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the lock's session is known to be gone");
}

/// A whole batch: fence, an effect, commit.
async fn batch(client: &mut Client, fence: Fence) -> Result<(), FenceError> {
    let tx = client.transaction().await.map_err(FenceError::Pg)?;
    fence.check(&tx).await?;
    tx.execute("UPDATE logs SET head = head + 1 WHERE name = 'trades'", &[])
        .await
        .map_err(FenceError::Pg)?;
    tx.commit().await.map_err(FenceError::Pg)
}

async fn head(client: &Client) -> i64 {
    client.query_one("SELECT head FROM logs WHERE name = 'trades'", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_is_told_who_holds_the_lock() {
    let cluster = Cluster::start();
    for (name, schema) in [("g", Schema::Gatherer), ("p", Schema::Production)] {
        let target = cluster.create(name).await;
        migrate::run(&target, schema).await.unwrap();
        let first = WriterLock::acquire(&target, "gatherer-1 on box-a, process 17").await.unwrap();
        first.check().await.unwrap();
        let error =
            WriterLock::acquire(&target, "gatherer-1 on box-b, process 18").await.unwrap_err();
        let AcquireError::Held(holder) = &error else { panic!("{error}") };
        assert_eq!(holder.name, "gatherer-1 on box-a, process 17");
        assert_eq!(holder.epoch, first.fence().epoch());
        assert!(holder.pid.is_some() && holder.since.is_some(), "{holder:?}");
        assert_eq!(error.class(), Class::Held);
        assert!(error.to_string().contains("box-a, process 17"), "{error}");
        assert_eq!(classify_chain(&anyhow::Error::new(error).context("start")), Class::Held);

        // The lock ends with its holder, and the next one gets the next epoch.
        let epoch = first.fence().epoch();
        drop(first);
        let next = loop {
            match WriterLock::acquire(&target, "next").await {
                Ok(lock) => break lock,
                Err(AcquireError::Held(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(next.fence().epoch(), epoch + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_the_lock_is_named() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Gatherer).await;
    drop(WriterLock::acquire(&target, "gatherer-1 on box-a").await.unwrap());
    let stranger = Target { application_name: "psql".to_owned(), ..target.clone() };
    let client = stranger.connect().await.unwrap();
    client.execute("SELECT pg_advisory_lock($1)", &[&Lock::Writer.key()]).await.unwrap();
    let error = WriterLock::acquire(&target, "gatherer-1 on box-b").await.unwrap_err();
    assert_eq!(error.class(), Class::Held);
    let text = error.to_string();
    for part in ["no program of ours", "\"psql\"", &target.user, "pg_terminate_backend", "box-a"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_lost_its_lock_and_was_replaced_cannot_commit() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Gatherer).await;
    let admin = target.connect().await.unwrap();
    let old = WriterLock::acquire(&target, "old").await.unwrap();
    let mut session = target.connect().await.unwrap();
    batch(&mut session, old.fence()).await.unwrap();

    cut_lock_session(&admin, &old).await;
    assert!(matches!(old.check().await, Err(FenceError::Pg(_))));
    // Nobody took over yet: what it commits is still in order.
    batch(&mut session, old.fence()).await.unwrap();

    let new = WriterLock::acquire(&target, "new").await.unwrap();
    let error = batch(&mut session, old.fence()).await.unwrap_err();
    let FenceError::Lost { epoch, now, holder } = &error else { panic!("{error}") };
    assert_eq!((*epoch, *now), (old.fence().epoch(), Some(new.fence().epoch())));
    assert_eq!(holder, "new");
    assert_eq!(error.class(), Class::Held);
    assert_eq!(head(&admin).await, 2);
    batch(&mut session, new.fence()).await.unwrap();
    assert_eq!(head(&admin).await, 3);
    new.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_waits_for_the_running_batch() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Production).await;
    let admin = target.connect().await.unwrap();
    let old = WriterLock::acquire(&target, "old").await.unwrap();
    let mut session = target.connect().await.unwrap();
    let tx = session.transaction().await.unwrap();
    old.fence().check(&tx).await.unwrap();
    cut_lock_session(&admin, &old).await;

    let successor = tokio::spawn({
        let target = target.clone();
        async move { WriterLock::acquire(&target, "new").await }
    });
    wait_for_fence_waiter(&admin).await;
    assert!(!successor.is_finished());
    // A batch that starts now queues behind the takeover and then sees that it is fenced, even
    // though its transaction began before the epoch was raised.
    let mut late_session = target.connect().await.unwrap();
    let late_tx = late_session.transaction().await.unwrap();
    let late = old.fence();
    let late_check = late.check(&late_tx);
    tx.execute("UPDATE logs SET head = head + 1 WHERE name = 'trades'", &[]).await.unwrap();
    let (late_result, committed) = tokio::join!(late_check, tx.commit());
    committed.unwrap();
    assert!(matches!(late_result, Err(FenceError::Lost { .. })), "{late_result:?}");
    drop(late_tx);
    let new = successor.await.unwrap().unwrap();
    assert_eq!(head(&admin).await, 1);
    assert_eq!(new.fence().epoch(), old.fence().epoch() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_ends_the_stuck_batch_of_a_suspended_writer() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Gatherer).await;
    let admin = target.connect().await.unwrap();
    let old = WriterLock::acquire(&target, "old").await.unwrap();
    let mut session = target.connect().await.unwrap();
    let tx = session.transaction().await.unwrap();
    old.fence().check(&tx).await.unwrap();
    tx.execute("UPDATE logs SET head = head + 1 WHERE name = 'trades'", &[]).await.unwrap();
    cut_lock_session(&admin, &old).await;

    let patience = Duration::from_secs(2);
    let new = WriterLock::acquire_within(&target, "new", None, patience).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert_eq!(super::super::error::classify(&error), Class::Retry, "{error:?}");
    assert_eq!(head(&admin).await, 0);
    new.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_made_anew_fences_off_its_writer() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Gatherer).await;
    let lock = WriterLock::acquire(&target, "one").await.unwrap();
    let admin = target.connect().await.unwrap();
    admin.batch_execute("DELETE FROM writer").await.unwrap();
    let error = lock.check().await.unwrap_err();
    assert!(matches!(error, FenceError::Lost { now: None, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_ends_its_own_former_session_but_nobody_elses() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Gatherer).await;
    // Still open at the server, as after a partition of which it knows nothing.
    let half_open = WriterLock::acquire(&target, "one").await.unwrap();
    let former = half_open.former();
    let error = WriterLock::acquire(&target, "two").await.unwrap_err();
    assert!(matches!(error, AcquireError::Held(_)), "{error}");

    let again = WriterLock::acquire_again(&target, "one", former).await.unwrap();
    assert_eq!(again.fence().epoch(), half_open.fence().epoch() + 1);
    again.check().await.unwrap();
    assert!(half_open.check().await.is_err());

    // Somebody else has it now: the former session is not the one that holds it.
    let error = WriterLock::acquire_again(&target, "one", former).await.unwrap_err();
    assert!(matches!(error, AcquireError::Held(_)), "{error}");
    again.check().await.unwrap();
    // The same process of the server, but an epoch that a successor raised.
    let admin = target.connect().await.unwrap();
    admin.batch_execute("UPDATE writer SET epoch = epoch + 1").await.unwrap();
    let error = WriterLock::acquire_again(&target, "one", again.former()).await.unwrap_err();
    assert!(matches!(error, AcquireError::Held(_)), "{error}");
    assert!(again.is_held());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_waits_for_its_own_former_session_that_hangs() {
    let cluster = Cluster::start();
    let target = migrated(&cluster, Schema::Gatherer).await;
    let hung = WriterLock::acquire(&target, "one").await.unwrap();
    let row = hung.client().query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
    let pid = Pid::from_raw(row.get(0)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let error = hung.check().await.unwrap_err();
    assert!(matches!(error, FenceError::Silent { .. }), "{error}");

    let error = WriterLock::acquire_again(&target, "one", hung.former()).await.unwrap_err();
    assert!(matches!(error, AcquireError::Lingering { .. }), "{error}");
    assert_eq!(error.class(), Class::Retry);
    // To anybody else it is the holder.
    let error = WriterLock::acquire(&target, "two").await.unwrap_err();
    assert!(matches!(error, AcquireError::Held(_)), "{error}");

    kill_process(pid, Signal::CONT).unwrap();
    let again = WriterLock::acquire_again(&target, "one", hung.former()).await.unwrap();
    again.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_locks_session_ends_when_its_client_vanishes() {
    let cluster = Cluster::start_with_tcp();
    let target = migrated(&cluster, Schema::Gatherer).await;
    let target = Target { host: "127.0.0.1".to_owned(), ..target };
    let lock = WriterLock::acquire(&target, "one").await.unwrap();
    let sql = "SELECT current_setting('idle_session_timeout'), current_setting('tcp_user_timeout'), \
               current_setting('tcp_keepalives_idle')";
    let row = lock.client().query_one(sql, &[]).await.unwrap();
    let settings: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(settings, ["0", "20000", "10"]);
}

async fn wait_for_fence_waiter(admin: &Client) {
    let sql = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
         AND (classid::bigint << 32) | objid::bigint = {}",
        Lock::Fence.key()
    );
    tokio::time::timeout(Duration::from_secs(30), async {
        while admin.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
    })
    .await
    .expect("the takeover waits for the fence");
}
