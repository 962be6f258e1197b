//! What goes wrong: the exchange, production, and this process itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Bench;
use super::listing::market;
use crate::kalshi::testing::{Asked, soon};
use crate::role::dedup::tests::rig::Rig;

fn is_markets(asked: &Asked) -> bool {
    asked.target.starts_with("/trade-api/v2/markets?")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_repeats_is_an_error_and_not_a_loop() {
    let bench = Bench::start(12).await;
    bench.listing.lock().cursors_repeat = true;
    let running = bench.run();
    // Two attempts: the second begins anew, not at the cursor that leads nowhere.
    bench.holds("SELECT count(*) > 0 FROM markets").await;
    let attempts = |bench: &Bench| {
        let asked = bench.listing.asked("/markets?limit=1000&mve_filter=exclude");
        asked.iter().filter(|asked| asked.is_empty()).count()
    };
    soon("a second attempt", async {
        while attempts(&bench) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sql = "SELECT full_ended IS NULL FROM market_sync WHERE table_name = 'markets'";
    bench.holds(sql).await;
    bench.listing.lock().cursors_repeat = false;
    bench.loaded().await;
    running.stop().await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_errors_delays_the_load_and_loses_nothing() {
    let bench = Bench::start(12).await;
    let mut storm = vec![500, 503, 429, 502, 503, 429, 500].into_iter();
    let mut nth = 0;
    bench.listing.on_request(move |_, _| {
        nth += 1;
        if nth % 2 == 0 { storm.next() } else { None }
    });
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 12);
    assert_eq!(bench.number("SELECT count(*) FROM markets_past").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_the_first_load_goes_on_at_its_cursor() {
    let bench = Bench::start(20).await;
    // The fifth page does not come.
    bench.listing.on_request(|_, asked| {
        (is_markets(asked) && asked.param("cursor") == Some("12")).then_some(503)
    });
    let running = bench.run();
    bench
        .holds("SELECT coalesce(cursor_rows, 0) = 12 FROM market_sync WHERE table_name = 'markets'")
        .await;
    running.kill().await;
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 12);
    bench.listing.lock().hook = None;
    bench.listing.lock().asked.clear();
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    let asked = bench.listing.asked("/markets?limit=1000&mve_filter=exclude");
    assert_eq!(asked.first().map(String::as_str), Some("&cursor=12"), "{asked:?}");
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 20);
    assert_eq!(
        bench.number("SELECT rows_listed FROM market_sync WHERE table_name = 'markets'").await,
        20
    );
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_the_exchange_forgot_begins_the_load_anew() {
    let bench = Bench::start(20).await;
    bench.listing.on_request(|_, asked| {
        (is_markets(asked) && asked.param("cursor") == Some("12")).then_some(503)
    });
    let running = bench.run();
    bench
        .holds("SELECT coalesce(cursor_rows, 0) = 12 FROM market_sync WHERE table_name = 'markets'")
        .await;
    running.kill().await;
    let mut refused = false;
    bench.listing.on_request(move |_, asked| {
        let first = is_markets(asked) && !refused;
        refused |= first;
        first.then_some(400)
    });
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_batches_nothing_is_lost_or_doubled() {
    let bench = Bench::start(30).await;
    for round in 1..=6_usize {
        // Changed in between, so that there is something to replace.
        bench.listing.change("M-000", serde_json::json!({"title": format!("round {round}")}));
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pages);
        bench.listing.on_request(move |_, asked| {
            counted.fetch_add(usize::from(is_markets(asked)), Ordering::SeqCst);
            None
        });
        let running = bench.run();
        soon("some pages", async {
            while pages.load(Ordering::SeqCst) < 2 * round {
                tokio::task::yield_now().await;
            }
        })
        .await;
        running.kill().await;
        bench.assert_history().await;
    }
    let running = bench.run();
    bench.loaded().await;
    bench.holds("SELECT title = 'round 6' FROM markets WHERE ticker = 'M-000'").await;
    running.stop().await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 30);
    assert_eq!(bench.number("SELECT count(*) FROM markets_past WHERE ticker <> 'M-000'").await, 0);
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_production_that_goes_away_is_waited_for() {
    let bench = Bench::start(30).await;
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    bench.listing.on_request(move |_, asked| {
        if is_markets(asked) && asked.param("cursor") == Some("9") {
            let _closed = told.send(());
        }
        None
    });
    let running = bench.run();
    soon("the fourth page", tell.recv()).await;
    bench.rig.cluster.crash();
    bench.rig.cluster.resume();
    bench.loaded().await;
    // And again while it is current.
    bench.rig.cluster.crash();
    bench.listing.lock().markets.push(market(40));
    bench.listing.change("M-040", serde_json::json!({}));
    bench.rig.cluster.resume();
    bench.holds("SELECT count(*) = 31 FROM markets").await;
    running.stop().await.unwrap();
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_is_away_degrades_health_and_stops_no_log() {
    let bench = Bench::start(3).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let health = free.local_addr().unwrap();
    drop(free);
    let mut config = bench.config();
    config.server.health = health;
    config.server.metrics = health;
    bench.listing.on_request(|_, _| Some(404));
    let running = Rig::run_with(config);
    let body = |path: &'static str| async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let Ok(mut stream) = tokio::net::TcpStream::connect(health).await else {
            return String::new();
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let shows = |wanted: &'static str| async move {
        soon(wanted, async {
            while !body("/health").await.contains(wanted) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    shows("\"state\":\"failing\"").await;
    assert!(body("/health").await.contains("HTTP 404"));
    let metrics = body("/metrics").await;
    let failed = metrics.lines().find(|line| {
        line.starts_with("dedup_market_sync_errors_total{table=\"series\"}")
            && !line.ends_with(" 0")
    });
    assert!(failed.is_some(), "{metrics}");
    // The logs go on: their cursors' table is there to be written, and the lock is held.
    bench.holds("SELECT holder <> '' FROM writer").await;
    bench.listing.lock().hook = None;
    bench.loaded().await;
    shows("\"state\":\"current\"").await;
    let metrics = body("/metrics").await;
    for line in [
        "dedup_market_sync_rows{table=\"markets\"} 3",
        "dedup_market_sync_changes_total{table=\"markets\",change=\"new\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    running.stop().await.unwrap();
}
