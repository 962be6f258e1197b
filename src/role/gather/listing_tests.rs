//! The registry's task against a REST server and scripted lifecycle sessions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::kalshi::Api;
use crate::kalshi::rest;
use crate::kalshi::session::MarketNotice;
use crate::kalshi::testing::{serve_rest, soon};
use crate::model::Ticker;

struct Running {
    notices: mpsc::Sender<Notice>,
    lifecycle: watch::Sender<SessionState>,
    orderbook: watch::Sender<SessionState>,
    plan: watch::Receiver<Arc<Plan>>,
    state: watch::Receiver<RegistryState>,
    shutdown: CancellationToken,
    filter: watch::Sender<Filter>,
    task: tokio::task::JoinHandle<()>,
}

fn start(api: &Api, settings: Settings) -> Running {
    let rest_settings = rest::Settings {
        tokens_per_second: 100_000,
        backoff_base: Duration::from_millis(1),
        attempts_max: 2,
        ..rest::Settings::default()
    };
    let rest = Arc::new(Rest::new(api, rest_settings).unwrap());
    let (notices, notices_to) = mpsc::channel(16);
    let (lifecycle, lifecycle_to) = watch::channel(SessionState::default());
    let (orderbook, orderbook_to) = watch::channel(SessionState::default());
    let (plan_from, plan) = watch::channel(Arc::new(Plan::default()));
    let (state_from, state) = watch::channel(RegistryState::default());
    let (filter, filters) = watch::channel(Filter::default());
    let shutdown = CancellationToken::new();
    let links = Links {
        notices: notices_to,
        lifecycle: vec![lifecycle_to],
        orderbooks: vec![orderbook_to],
        plan: plan_from,
        state: state_from,
        turns: None,
        filters,
    };
    let task = tokio::spawn(run(rest, links, settings, shutdown.clone()));
    Running { notices, lifecycle, orderbook, plan, state, filter, shutdown, task }
}

fn quick() -> Settings {
    Settings {
        slots: 2,
        publish_interval: Duration::from_millis(5),
        lifecycle_wait: Duration::from_secs(600),
        reconcile_interval: Duration::from_secs(600),
        reconcile_interval_min: Duration::ZERO,
        grace: Duration::from_millis(20),
        backoff_base: Duration::from_millis(5),
        backoff_cap: Duration::from_millis(20),
        ..Settings::default()
    }
}

fn market(name: &str) -> String {
    format!(r#"{{"ticker":"{name}","event_ticker":"{name}","status":"active"}}"#)
}

fn notice(name: &str, event_type: &str) -> Notice {
    Notice::Market(MarketNotice {
        ticker: Ticker::parse(name).unwrap(),
        event_type: event_type.to_owned(),
        event_ticker: None,
        open_time: None,
        close_time: None,
        multivariate: false,
    })
}

fn planned(plan: &Plan) -> Vec<String> {
    let mut all: Vec<String> =
        plan.slots().iter().flat_map(|slot| slot.iter()).map(ToString::to_string).collect();
    all.sort();
    all
}

impl Running {
    async fn planned(&mut self, expected: &[&str]) {
        soon("the plan", self.plan.wait_for(|plan| planned(plan) == expected)).await.unwrap();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon("the end", self.task).await.unwrap();
    }
}

/// Answers limits and lists; `open` is the JSON of the open markets.
async fn exchange(open: Arc<Mutex<Vec<String>>>, lists: Arc<AtomicUsize>) -> Api {
    serve_rest(move |request| {
        if request.target.contains("/account/") {
            return (200, r#"{"read":{"refill_rate":60000}}"#.to_owned());
        }
        assert_eq!(request.param("mve_filter"), Some("exclude"));
        if request.param("min_updated_ts").is_some() {
            return (200, page(&open.lock().unwrap(), ""));
        }
        let markets = match (request.param("status"), request.param("cursor")) {
            (Some("unopened"), None) => return (200, page(&[market("U1")], "next")),
            (Some("unopened"), Some("next")) => vec![market("U2")],
            (Some("paused"), None) => vec![],
            (Some("open"), None) => {
                lists.fetch_add(1, Ordering::SeqCst);
                open.lock().unwrap().clone()
            }
            other => panic!("{other:?}"),
        };
        (200, page(&markets, ""))
    })
    .await
}

fn page(markets: &[String], cursor: &str) -> String {
    format!(r#"{{"markets":[{}],"cursor":"{cursor}"}}"#, markets.join(","))
}

#[tokio::test]
async fn lists_after_the_lifecycle_subscription_and_merges_notices() {
    let open = Arc::new(Mutex::new(vec![market("A"), market("B")]));
    let lists = Arc::new(AtomicUsize::new(0));
    let api = exchange(Arc::clone(&open), Arc::clone(&lists)).await;
    let mut running = start(&api, quick());
    // A notice is heard before anything is listed.
    running.notices.send(notice("N", "created")).await.unwrap();
    running.planned(&["N"]).await;
    assert_eq!(lists.load(Ordering::SeqCst), 0);
    running.lifecycle.send_modify(|state| state.subscribed = true);
    running.planned(&["A", "B", "N", "U1", "U2"]).await;
    soon("the list", running.state.wait_for(|state| state.loaded)).await.unwrap();
    running.notices.send(notice("A", "settled")).await.unwrap();
    running.planned(&["B", "N", "U1", "U2"]).await;
    // Missed notices bring a list of what changed.
    *open.lock().unwrap() = vec![market("B"), market("C"), r#"{"ticker":"D"}"#.to_owned()];
    running.notices.send(Notice::Missed).await.unwrap();
    running.planned(&["B", "C", "N", "U1", "U2"]).await;
    soon("the list", running.state.wait_for(|state| state.change_lists == 1 && state.refused == 1))
        .await
        .unwrap();
    assert_eq!(running.state.borrow().markets, 5);
    running.stop().await;
}

#[tokio::test]
async fn a_failing_list_keeps_what_is_known_and_is_tried_again() {
    let failing = Arc::new(AtomicUsize::new(usize::MAX));
    let fails = Arc::clone(&failing);
    let api = serve_rest(move |request| {
        if request.target.contains("/account/") {
            return (401, String::new());
        }
        if request.param("status") == Some("open") && fails.load(Ordering::SeqCst) > 0 {
            return (500, "broken".to_owned());
        }
        let name = request.param("status").unwrap();
        (200, page(&[market(name)], ""))
    })
    .await;
    let mut running = start(&api, quick());
    running.lifecycle.send_modify(|state| state.subscribed = true);
    soon("two failures", running.state.wait_for(|state| state.failures >= 2)).await.unwrap();
    assert!(running.state.borrow().last_error.as_ref().is_some_and(|e| e.contains("broken")));
    assert!(!running.state.borrow().loaded);
    failing.store(0, Ordering::SeqCst);
    running.planned(&["open", "paused", "unopened"]).await;
    soon("a list", running.state.wait_for(|s| s.loaded && s.last_error.is_none())).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_list_of_changes_repairs_what_was_missed() {
    let changed = Arc::new(Mutex::new(String::new()));
    let shown = Arc::clone(&changed);
    let api = serve_rest(move |request| {
        if request.target.contains("/account/") {
            return (404, String::new());
        }
        if request.param("min_updated_ts").is_some() {
            assert_eq!(request.param("mve_filter"), Some("exclude"));
            assert_eq!(request.param("status"), None, "it combines with nothing else");
            return (200, format!(r#"{{"markets":[{}],"cursor":""}}"#, shown.lock().unwrap()));
        }
        let open = request.param("status") == Some("open");
        (200, page(&if open { vec![market("A"), market("B")] } else { vec![] }, ""))
    })
    .await;
    let mut running =
        start(&api, Settings { changes_interval: Duration::from_millis(10), ..quick() });
    running.lifecycle.send_modify(|state| state.subscribed = true);
    running.planned(&["A", "B"]).await;
    let settled = r#"{"ticker":"A","event_ticker":"A","status":"finalized"}"#;
    *changed.lock().unwrap() = format!("{settled},{}", market("C"));
    running.planned(&["B", "C"]).await;
    let state = running.state.borrow().clone();
    assert!(state.lists == 1 && state.change_lists > 0, "{state:?}");
    running.stop().await;
}

/// `created` to the plan, with everything that the exchange has.
#[tokio::test]
async fn a_new_market_is_planned_at_once_among_hundreds_of_thousands() {
    let api = serve_rest(|request| {
        let status = request.param("status").unwrap_or_default();
        let at: u32 = request.param("cursor").map_or(0, |cursor| cursor.parse().unwrap());
        if request.target.contains("/account/") || status != "open" {
            return (200, page(&[], ""));
        }
        let markets: Vec<_> = (0..1000).map(|n| market(&format!("KXS{at}-26AUG05-T{n}"))).collect();
        let next = if at < 424 { (at + 1).to_string() } else { String::new() };
        (200, page(&markets, &next))
    })
    .await;
    let mut running = start(&api, Settings { slots: 144, ..quick() });
    running.lifecycle.send_modify(|state| state.subscribed = true);
    let began = std::time::Instant::now();
    let all = running
        .plan
        .wait_for(|plan| plan.slots().iter().map(|slot| slot.len()).sum::<usize>() == 425_000);
    let all = tokio::time::timeout(Duration::from_secs(300), all);
    drop(all.await.expect("waiting for all markets").unwrap());
    let loaded = began.elapsed();
    let began = std::time::Instant::now();
    let new = Ticker::parse("KXNEW-1").unwrap();
    running.notices.send(notice("KXNEW-1", "created")).await.unwrap();
    let planned = running.plan.wait_for(|plan| plan.slot_of(&new).is_some());
    drop(soon("the new market", planned).await.unwrap());
    let after = began.elapsed();
    println!("425,000 markets planned after {loaded:?}, one more after {after:?}");
    assert!(after < Duration::from_secs(2), "{after:?}");
    running.stop().await;
}

#[tokio::test]
async fn another_filter_drops_at_once_and_lists_what_it_takes_besides() {
    let open = ["KXA-1", "KXB-1", "KXC-1"].map(market).to_vec();
    let api = exchange(Arc::new(Mutex::new(open)), Arc::default()).await;
    let mut running = start(&api, quick());
    let only = |series: &[&str]| Filter {
        series: series.iter().map(ToString::to_string).collect(),
        ..Filter::default()
    };
    running.filter.send_replace(only(&["KXA", "KXB"]));
    running.lifecycle.send_modify(|state| state.subscribed = true);
    running.planned(&["KXA-1", "KXB-1"]).await;
    running.filter.send_replace(only(&["KXB", "KXC"]));
    running.planned(&["KXB-1", "KXC-1"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_learned_cap_changes_the_plan_and_names_what_has_no_room() {
    let open = (0..10).map(|number| market(&format!("M{number}"))).collect();
    let api = exchange(Arc::new(Mutex::new(open)), Arc::default()).await;
    let mut running = start(&api, quick());
    running.lifecycle.send_modify(|state| state.subscribed = true);
    soon("all", running.state.wait_for(|s| s.loaded && s.markets == 12)).await.unwrap();
    running.orderbook.send_modify(|state| state.markets_max = Some(4));
    soon("the rest", running.state.wait_for(|state| state.unplaced == 4)).await.unwrap();
    assert!(running.plan.borrow().slots().iter().all(|slot| slot.len() == 4));
    running.stop().await;
}
