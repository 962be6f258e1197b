//! Which gatherer brought what nobody else had: exact after kills, and however late the copies come.

use super::rig::{Delta, Rig, append_deltas, delta};

const HOUR: i64 = 3_600_000_000;
const ROWS: i64 = 900;

/// Row `n` of three hours of 300 rows each.
fn row(n: i64) -> Delta {
    let exchange_ts = 500_000 * HOUR + n / 300 * HOUR + n % 300;
    Delta { exchange_ts, occurrence: 1, ..delta(n) }
}

/// Of ten rows: one each for every gatherer alone, one for the first and the third, six for all.
fn has(gatherer: usize, n: i64) -> bool {
    match n % 10 {
        0 => gatherer == 0,
        1 => gatherer == 1,
        2 => gatherer != 1,
        3 => gatherer == 2,
        _ => true,
    }
}

fn seen(gatherer: usize, range: std::ops::Range<i64>) -> Vec<Delta> {
    range.filter(|n| has(gatherer, *n)).map(row).collect()
}

/// By hour, of each gatherer: offered, duplicates, alone, unwatched.
async fn figures(rig: &Rig) -> Vec<Vec<(i64, i64, i64, i64)>> {
    let client = rig.production().await;
    let sql = "SELECT offered, duplicates, alone, alone_unwatched FROM contributions \
               WHERE table_name = 'orderbook_deltas' AND hour = $1 ORDER BY gatherer";
    let mut hours = Vec::new();
    for hour in 0..3 {
        let rows = client.query(sql, &[&((500_000 + hour) * HOUR)]).await.unwrap();
        let figures = |row: &tokio_postgres::Row| (row.get(0), row.get(1), row.get(2), row.get(3));
        hours.push(rows.iter().map(figures).collect());
    }
    hours
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gatherer_alone_brought_is_counted_exactly() {
    let rig = Rig::start(3).await;
    for round in 0..3 {
        let running = rig.run();
        for part in 0..6 {
            let begin = round * 300 + part * 50;
            append_deltas(&rig.gatherers[0], &seen(0, begin..begin + 50)).await;
            append_deltas(&rig.gatherers[1], &seen(1, begin..begin + 50)).await;
        }
        running.kill().await;
    }
    let running = rig.run();
    rig.caught_up("orderbook_deltas").await;
    for hour in figures(&rig).await {
        assert_eq!((hour[0].0, hour[1].0), (240, 210), "offered");
        assert_eq!(hour[0].1 + hour[1].1, 180, "duplicates: {hour:?}");
        assert_eq!((hour[0].2, hour[1].2), (60, 30), "alone until the third comes");
    }
    running.stop().await.unwrap();
    // The third has been away all the time; half of its rows come under one process, half under
    // another.
    for range in [0..ROWS / 2, ROWS / 2..ROWS] {
        let running = rig.run();
        append_deltas(&rig.gatherers[2], &seen(2, range)).await;
        rig.caught_up("orderbook_deltas").await;
        running.kill().await;
    }
    let hours = figures(&rig).await;
    for hour in &hours {
        assert_eq!(hour[2], (240, 210, 30, 0));
        let alone: Vec<(i64, i64)> = hour.iter().map(|figures| (figures.2, figures.3)).collect();
        assert_eq!(alone, [(30, 0); 3]);
        let written: i64 = hour.iter().map(|(offered, duplicates, ..)| offered - duplicates).sum();
        assert_eq!(written, 300);
    }
    assert_eq!(rig.deltas().await.len(), 900);
}
