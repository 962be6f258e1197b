//! What lists lead to: the first one, changes, shifts, and what leaves them.

use std::time::Duration;

use serde_json::json;

use super::Bench;
use super::listing::{counted, market};
use crate::model::Micros;
use crate::role::dedup::tests::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_load_brings_everything_once() {
    let bench = Bench::start(10).await;
    let began = Micros::now().0;
    let running = bench.run();
    bench.loaded().await;
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 10);
    let whole = "SELECT count(*) FROM markets m JOIN events e USING (event_ticker) \
                 JOIN series s ON s.ticker = e.series_ticker WHERE m.status = 'open' \
                 AND m.exchange_status = 'active' AND m.last_price = 480100 AND m.volume = 4602 \
                 AND m.notional_value = 1000000 AND m.presence = 'listed' \
                 AND m.raw->>'title' = m.title AND s.fee_multiplier = '0.5' \
                 AND e.mutually_exclusive AND m.open_ts = 1785888000000000";
    assert_eq!(bench.number(whole).await, 10);
    let since = format!("SELECT count(*) FROM markets WHERE valid_from < {began}");
    assert_eq!(bench.number(&since).await, 0);
    // The second complete list, which confirms the first, and lists of changes wrote nothing.
    bench.refreshed().await;
    assert_eq!(bench.number("SELECT count(*) FROM markets_past").await, 0);
    assert_eq!(bench.number("SELECT count(*) FROM events_past").await, 0);
    running.stop().await.unwrap();
    let asked = bench.listing.asked("/markets?limit=1000&mve_filter=exclude");
    let counts = counted(&asked);
    for page in ["", "&cursor=3", "&cursor=6", "&cursor=9"] {
        assert_eq!(counts.get(page), Some(&2), "{page}: {asked:?}");
    }
    assert!(asked.iter().any(|asked| asked.starts_with("&min_updated_ts=")), "{asked:?}");
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_only_what_changed() {
    let bench = Bench::start(10).await;
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    bench.listing.change("M-004", json!({"title": "Another"}));
    bench.listing.lock().markets.push(market(10));
    bench.listing.change("M-010", json!({}));
    bench.listing.lock().asked.clear();
    let running = bench.run();
    bench.holds("SELECT count(*) = 11 FROM markets").await;
    bench.holds("SELECT title = 'Another' FROM markets WHERE ticker = 'M-004'").await;
    running.stop().await.unwrap();
    let full = bench.listing.asked("/markets?limit=1000&mve_filter=exclude");
    assert!(full.iter().all(|asked| asked.contains("min_updated_ts")), "{full:?}");
    assert_eq!(bench.number("SELECT count(*) FROM markets_past").await, 1);
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_shifts_while_it_is_read_loses_nothing() {
    let bench = Bench::start(12).await;
    let mut shifts = vec![("6", true), ("3", false)];
    bench.listing.on_request(move |lists, asked| {
        if asked.target.contains("/markets?")
            && let Some(at) = shifts.iter().position(|(at, _)| asked.param("cursor") == Some(*at))
        {
            let (_, backwards) = shifts.remove(at);
            if backwards {
                // What the next pages show was on the last one already.
                lists.markets.insert(0, market(100));
                lists.markets.insert(0, market(101));
            } else {
                // Two that no page showed slip to places that were read already.
                let slipped = lists.markets.split_off(10);
                lists.markets.splice(0..0, slipped);
                lists.markets.rotate_left(2);
                lists.markets.swap(0, 4);
                lists.markets.swap(1, 5);
            }
        }
        None
    });
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    let listed = bench.listing.lock().markets.len();
    assert_eq!(listed, 14);
    assert_eq!(bench.number("SELECT count(*) FROM markets WHERE presence = 'listed'").await, 14);
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_the_lists_is_marked_by_two_of_them_and_comes_back() {
    let bench = Bench::start(8).await;
    {
        let mut lists = bench.listing.lock();
        lists.cutoff = "2026-09-01T00:00:00Z".to_owned();
        let settled = json!({"status": "finalized", "settlement_ts": "2026-08-20T00:00:00Z"});
        let market = lists.markets[2].as_object_mut().unwrap();
        market.extend(settled.as_object().unwrap().clone());
    }
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    let (gone, archived) = {
        let mut lists = bench.listing.lock();
        lists.asked.clear();
        (lists.markets.remove(5), lists.markets.remove(2))
    };
    assert_eq!((&gone["ticker"], &archived["ticker"]), (&json!("M-005"), &json!("M-002")));
    let mut config = bench.config();
    let markets = config.markets.as_mut().unwrap();
    markets.full_interval = Duration::from_millis(500);
    let running = Rig::run_with(config.clone());
    bench.holds("SELECT presence = 'missing' FROM markets WHERE ticker = 'M-005'").await;
    bench.holds("SELECT presence = 'archived' FROM markets WHERE ticker = 'M-002'").await;
    let asked = bench.listing.asked("/markets?limit=1000&mve_filter=exclude");
    assert!(counted(&asked)[""] >= 2, "one list alone marks nothing: {asked:?}");
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 8, "nothing is removed");
    bench.listing.lock().markets.push(gone);
    bench.holds("SELECT presence = 'listed' FROM markets WHERE ticker = 'M-005'").await;
    running.stop().await.unwrap();
    let presences =
        "SELECT presence FROM markets_history WHERE ticker = 'M-005' ORDER BY valid_from";
    assert_eq!(bench.texts(presences).await, ["listed", "missing", "listed"]);
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_market_that_closes_by_the_clock_alone_is_asked_for_by_name() {
    let bench = Bench::start(7).await;
    let running = bench.run();
    bench.loaded().await;
    // Nothing counts as updated: the status simply is another one when somebody looks.
    let close = Micros(Micros::now().0 + 1_000_000).to_string();
    bench.listing.change("M-003", json!({"close_time": close}));
    bench.refreshed().await;
    {
        let mut lists = bench.listing.lock();
        let market = lists.markets[3].as_object_mut().unwrap();
        market.insert("status".to_owned(), json!("closed"));
        market.insert("updated_time".to_owned(), json!("2026-08-05T00:00:00Z"));
    }
    bench.holds("SELECT exchange_status = 'closed' FROM markets WHERE ticker = 'M-003'").await;
    running.stop().await.unwrap();
    assert!(!bench.listing.asked("/markets?limit=1000&tickers=M-003").is_empty());
    bench.assert_history().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multivariate_markets_and_their_events_come_when_they_are_wanted() {
    let bench = Bench::start(4).await;
    {
        let mut lists = bench.listing.lock();
        let mut combo = market(50);
        combo["mve_collection_ticker"] = json!("MVE");
        lists.markets.push(combo);
        let event = json!({"event_ticker": "MVE-E", "last_updated_ts": "2026-08-05T00:00:00Z"});
        lists.multivariate_events.push(event);
    }
    let running = bench.run();
    bench.loaded().await;
    running.stop().await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM markets").await, 4);
    assert!(bench.listing.asked("/events/multivariate").is_empty());
    let mut config = bench.config();
    let markets = config.markets.as_mut().unwrap();
    (markets.multivariate, markets.full_interval) = (true, Duration::from_millis(500));
    let running = Rig::run_with(config);
    bench.holds("SELECT count(*) = 5 FROM markets").await;
    bench.holds("SELECT count(*) = 2 FROM events").await;
    running.stop().await.unwrap();
    let combos = "SELECT mve_collection_ticker FROM markets WHERE mve_collection_ticker <> ''";
    assert_eq!(bench.texts(combos).await, ["MVE"]);
}
