//! What goes wrong with sockets and REST on demand, and what the whole exchange does, over real
//! sockets and through the control plane.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::super::Source;
use super::live::{PATIENCE, Running, Socket, next, send};

async fn control(running: &Running, call: &str) -> Value {
    let url = format!("{}/{call}", running.exchange.control_url());
    let (status, body) = running.call("POST", &url, false, "").await;
    assert_eq!(status, StatusCode::OK, "{call}: {body}");
    body
}

async fn status(running: &Running) -> Value {
    let url = format!("{}/status", running.exchange.control_url());
    running.call("GET", &url, false, "").await.1
}

async fn subscribed(running: &Running, key: usize, channel: &str, markets: Value) -> Socket {
    let mut socket = running.connect(key).await.unwrap();
    let mut params = json!({"channels": [channel], "use_yes_price": true});
    if !markets.is_null() {
        params["market_tickers"] = markets;
    }
    send(&mut socket, json!({"id": 1, "cmd": "subscribe", "params": params})).await;
    assert_eq!(next(&mut socket).await["type"], "subscribed");
    socket
}

/// The code of the close frame by which a socket ends.
async fn closed(socket: &mut Socket) -> Option<u16> {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("an end in time") {
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

async fn open_tickers(running: &Running) -> Value {
    let listed = running.get("/markets?limit=1000&status=open&mve_filter=exclude").await;
    listed["markets"].as_array().unwrap().iter().map(|m| m["ticker"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_refused_with_any_status_while_open_sockets_stay() {
    let running = Running::start(Source::Idle).await;
    let mut socket = running.connect(0).await.unwrap();
    for code in [401, 403, 429, 500, 503] {
        control(&running, &format!("refuse?key=0&ms=60000&status={code}")).await;
        match running.connect(0).await {
            Err(WsError::Http(response)) => assert_eq!(response.status().as_u16(), code),
            other => panic!("{other:?}"),
        }
    }
    assert!(running.connect(1).await.is_ok(), "the other account is welcome");
    send(&mut socket, json!({"id": 1, "cmd": "list_subscriptions"})).await;
    assert_eq!(next(&mut socket).await["type"], "ok");
    control(&running, "refuse?key=0&ms=0&status=503").await;
    assert!(running.connect(0).await.is_ok());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_closed_with_a_code() {
    let running = Running::start(Source::Idle).await;
    for code in [1012, 1013, 4000, 4999] {
        let mut socket = running.connect(0).await.unwrap();
        let answer = control(&running, &format!("close?key=0&code={code}")).await;
        assert_eq!(answer["connections"], 1);
        assert_eq!(closed(&mut socket).await, Some(code));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_socket_is_silent_for_ever_and_a_new_one_works() {
    let running = Running::start(Source::Idle).await;
    let mut socket = running.connect(0).await.unwrap();
    send(&mut socket, json!({"id": 1, "cmd": "list_subscriptions"})).await;
    assert_eq!(next(&mut socket).await["type"], "ok");
    assert_eq!(control(&running, "half-open?key=0").await["connections"], 1);
    socket.send(Message::Ping("anyone".into())).await.unwrap();
    send(&mut socket, json!({"id": 2, "cmd": "list_subscriptions"})).await;
    // What was on its way may come; then nothing does, not even the exchange's own pings, which are
    // five a second here.
    let mut quiet = false;
    while !quiet {
        match timeout(Duration::from_millis(700), socket.next()).await {
            Err(_) => quiet = true,
            Ok(Some(Ok(frame))) => assert!(frame.is_ping(), "{frame:?}"),
            Ok(end) => panic!("the socket ended: {end:?}"),
        }
    }
    let mut other = running.connect(0).await.unwrap();
    send(&mut other, json!({"id": 1, "cmd": "list_subscriptions"})).await;
    assert_eq!(next(&mut other).await["type"], "ok");
    assert_eq!(status(&running).await["connections"].as_array().unwrap().len(), 1);
    drop(socket);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_goes_wrong_on_demand() {
    let running = Running::generated(250, 10.0).await;
    let root = running.exchange.rest_url();
    let get =
        async |call: &str, signed| running.call("GET", &format!("{root}{call}"), signed, "").await;
    for code in [401, 403, 429, 500, 503] {
        control(&running, &format!("rest?fault=status&status={code}&n=1&path=markets")).await;
        assert_eq!(get("/series", false).await.0, StatusCode::OK);
        assert_eq!(get("/markets", false).await.0.as_u16(), code);
        assert_eq!(get("/markets", false).await.0, StatusCode::OK);
    }
    control(&running, "rest?fault=status&status=503&ms=60000&key=0").await;
    assert_eq!(get("/series", false).await.0, StatusCode::OK, "not signed by that account");
    assert_eq!(get("/series", true).await.0, StatusCode::SERVICE_UNAVAILABLE);
    control(&running, "rest?fault=clear").await;
    assert_eq!(get("/series", true).await.0, StatusCode::OK);
    let begun = Instant::now();
    control(&running, "rest?fault=slow&delay_ms=300&n=1").await;
    assert_eq!(get("/series", false).await.0, StatusCode::OK);
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let first = running.get("/markets?limit=100").await;
    let cursor = first["cursor"].as_str().unwrap();
    let second = format!("/markets?limit=100&cursor={cursor}");
    let right = running.get(&second).await;
    control(&running, "rest?fault=repeat-cursor&n=1").await;
    assert_eq!(running.get(&second).await["cursor"], cursor, "it would never end");
    control(&running, "rest?fault=empty-page&n=1").await;
    let empty = running.get(&second).await;
    assert_eq!(empty["markets"].as_array().unwrap().len(), 0);
    let next = empty["cursor"].as_str().unwrap();
    assert_ne!(next, cursor);
    assert_eq!(running.get(&format!("/markets?limit=100&cursor={next}")).await, right);
    let ticker = |page: &Value, at: usize| page["markets"][at]["ticker"].clone();
    control(&running, "rest?fault=shift-back&items=5&n=1").await;
    assert_eq!(ticker(&running.get(&second).await, 0), ticker(&first, 95), "seen twice");
    control(&running, "rest?fault=shift-on&items=5&n=1").await;
    assert_eq!(ticker(&running.get(&second).await, 0), ticker(&right, 5), "five are not seen");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maintenance_is_announced_throws_everybody_out_and_ends_when_they_are_back() {
    let running = Running::generated(4, 500.0).await;
    let tickers = open_tickers(&running).await;
    let mut socket = subscribed(&running, 0, "orderbook_delta", tickers.clone()).await;
    control(&running, "maintenance?in_ms=300&ms=2000").await;
    let url = format!("{}/maintenance?ms=5", running.exchange.control_url());
    let (again, _) = running.call("POST", &url, false, "").await;
    assert_eq!(again, StatusCode::BAD_REQUEST, "one at a time");
    let schedule = running.get("/exchange/schedule").await;
    let windows = schedule["schedule"]["maintenance_windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1);
    assert!(windows[0]["start_datetime"].as_str() < windows[0]["end_datetime"].as_str());
    assert!(schedule["schedule"]["standard_hours"][0]["monday"][0]["open_time"].is_string());
    assert_eq!(closed(&mut socket).await, Some(1012));
    let during = running.get("/exchange/status").await;
    assert_eq!(
        (&during["exchange_active"], &during["trading_active"]),
        (&json!(false), &json!(false))
    );
    assert!(during["exchange_estimated_resume_time"].is_string());
    match running.connect(0).await {
        Err(WsError::Http(response)) => assert_eq!(response.status().as_u16(), 503),
        other => panic!("{other:?}"),
    }
    let back = timeout(PATIENCE, async {
        while running.connect(0).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    back.await.expect("the doors open");
    assert_eq!(status(&running).await["trading"], false, "nobody is back yet");
    let _socket = subscribed(&running, 0, "orderbook_delta", tickers).await;
    let resumed = timeout(PATIENCE, async {
        while running.get("/exchange/status").await["trading_active"] != true {
            tokio::task::yield_now().await;
        }
    });
    resumed.await.expect("trading resumes");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markets_are_born_and_end_at_the_pace_that_was_asked_for() {
    let duration = Some(Duration::from_secs(4));
    let running = Running::start(Source::Generated {
        markets: 40,
        multivariate: 2,
        rate: 2_000.0.into(),
        duration,
    })
    .await;
    let mut lifecycle = subscribed(&running, 0, "market_lifecycle_v2", Value::Null).await;
    let mut combos = subscribed(&running, 0, "multivariate_market_lifecycle", Value::Null).await;
    control(&running, "churn?per_minute=6000&ms=2000").await;
    running.exchange.publish();
    let mut born = 0;
    while born < 100 {
        let frame = next(&mut lifecycle).await;
        let name = frame["msg"]["market_ticker"].as_str().unwrap_or_default();
        assert!(!name.starts_with("KXMVE"), "{frame}");
        born += usize::from(frame["msg"]["event_type"] == "created");
    }
    let combo = next(&mut combos).await;
    assert_eq!(combo["msg"]["event_type"], "created");
    assert!(combo["msg"]["market_ticker"].as_str().unwrap().starts_with("KXMVESIM-"), "{combo}");
    timeout(PATIENCE, running.exchange.finished()).await.expect("the flow ends");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_comes_on_top_of_the_run() {
    let running = Running::generated(20, 500.0).await;
    control(&running, "burst?factor=20&ms=500").await;
    running.exchange.publish();
    timeout(PATIENCE, running.exchange.finished()).await.expect("the flow ends");
    let published = running.exchange.progress().orderbook_deltas;
    assert!(published > 3_000, "500 in a second without it: {published}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blast_comes_whole_and_changes_no_book() {
    let running = Running::generated(30, 10.0).await;
    let tickers = open_tickers(&running).await;
    let mut socket = subscribed(&running, 0, "orderbook_delta", tickers.clone()).await;
    let mut before = Vec::new();
    for _ in 0..30 {
        before.push(next(&mut socket).await["msg"].clone());
    }
    assert_eq!(control(&running, "blast?changes=20001").await["changes"], 20_002);
    let mut seq = 30;
    let mut sum = 0;
    while seq < 30 + 20_002 {
        let frame = next(&mut socket).await;
        seq += 1;
        assert_eq!(
            (frame["type"].as_str(), frame["seq"].as_i64()),
            (Some("orderbook_delta"), Some(seq))
        );
        sum += if frame["msg"]["delta_fp"] == "5.00" { 1 } else { -1 };
        let text = frame["msg"]["ts"].as_str().unwrap();
        let millis = crate::model::Micros::parse_rfc3339(text).unwrap().0.div_euclid(1000);
        assert_eq!(frame["msg"]["ts_ms"], millis);
    }
    assert_eq!(sum, 0);
    let done = timeout(PATIENCE, async {
        while status(&running).await["blast"]["running"] != false {
            tokio::task::yield_now().await;
        }
    });
    done.await.expect("the blast ends");
    let blast = status(&running).await["blast"].clone();
    assert_eq!((&blast["published"], &blast["frames"]), (&json!(20_002), &json!(20_002)));
    assert_eq!(
        (&blast["in_ledger"], running.exchange.progress().orderbook_deltas),
        (&json!(false), 0)
    );
    let ask = json!({"id": 2, "cmd": "update_subscription", "params": {
        "sid": 1, "action": "get_snapshot", "market_tickers": tickers,
    }});
    send(&mut socket, ask).await;
    for book in before {
        assert_eq!(next(&mut socket).await["msg"], book);
    }
    running.stop().await;
}
