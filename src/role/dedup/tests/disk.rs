//! A production whose disk is full.

use super::rig::{Rig, assert_dense};
use crate::ops::small_disk::SmallDisk;
use crate::pg::Target;

/// Rows of which a few tens of thousands fill the disk.
const ROWS: i64 = 200_000;

async fn append(target: &Target) {
    let client = target.connect().await.unwrap();
    let sql = format!(
        "INSERT INTO orderbook_deltas \
         SELECT n, 1800000000000000 + n, 1800000000000000 + n, 'KXTEST-' || n % 50, true, \
                10000, n, 1, 1, 1, n FROM generate_series(1, {ROWS}) n; \
         UPDATE logs SET head = {ROWS} WHERE name = 'orderbook_deltas'"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_out() {
    let disk = SmallDisk::mount(24);
    disk.give("postgres");
    let rig = Rig::start(2).await;
    let admin = rig.cluster.target("postgres").connect().await.unwrap();
    let place = disk.path().display();
    admin.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{place}'")).await.unwrap();
    admin.batch_execute("ALTER DATABASE production SET TABLESPACE small").await.unwrap();
    for gatherer in &rig.gatherers {
        append(gatherer).await;
    }
    let running = rig.run();
    // Full: the server itself says so to whoever writes.
    let probe = async {
        let client = rig.production.connect().await.unwrap();
        loop {
            let sql =
                "CREATE TEMP TABLE probe AS SELECT repeat('x', 2000) FROM generate_series(1, 400)";
            match client.batch_execute(sql).await {
                Err(error) if error.code().is_some_and(|code| code.code() == "53100") => return,
                Err(error) => panic!("{error:?}"),
                Ok(()) => client.batch_execute("DROP TABLE probe").await.unwrap(),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), probe).await.expect("the disk fills");
    assert!(!running.task.is_finished(), "a full disk is no reason to end");
    let count = "SELECT count(*) FROM orderbook_deltas";
    let so_far: i64 = rig.production().await.query_one(count, &[]).await.unwrap().get(0);
    assert!(so_far < ROWS, "{so_far} rows");

    disk.resize(512);
    rig.caught_up("orderbook_deltas").await;
    let client = rig.production().await;
    assert_dense(&client, "orderbook_deltas").await;
    let all: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(all, ROWS);
    running.stop().await.unwrap();
    drop((client, admin, rig));
    drop(disk);
}
