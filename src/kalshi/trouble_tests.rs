//! A session in trouble: refused, closed, slowed down, silent. Against a peer that follows each test's
//! script over a real socket.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::tests::{markets, settings, start, three_markets};
use super::*;
use crate::kalshi::testing::{Listener, Peer, soon, tickers};

const LONG: Duration = Duration::from_secs(600);

/// Answers the next handshake with plain HTTP.
async fn answer(listener: &Listener, answer: &str) {
    let mut tcp = listener.tcp().await;
    let mut request = [0; 4096];
    let _read = tcp.read(&mut request).await.unwrap();
    tcp.write_all(answer.as_bytes()).await.unwrap();
}

async fn close(peer: &mut Peer, code: u16, reason: &'static str) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    peer.ws.send(Message::Close(Some(frame))).await.unwrap();
}

async fn subscribed(listener: &Listener) -> Peer {
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    peer
}

#[tokio::test]
async fn an_unanswered_command_ends_the_connection() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(
        Channel::Trade,
        api,
        Wants::All,
        Settings { command_timeout: Duration::from_millis(50), ..settings() },
    );
    let mut peer = listener.accept().await;
    let _unanswered = peer.command().await;
    assert!(matches!(running.event().await.1, SessionEvent::Connected { .. }));
    let (_, closed) = running.event().await;
    let SessionEvent::Closed { reason: CloseReason::Disconnect, detail } = closed else {
        panic!("{closed:?}")
    };
    assert_eq!(detail, "command 1 was not answered");
    running.stop().await;
}

#[tokio::test]
async fn a_refused_key_is_kept_in_the_state_and_tried_again() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::Trade, api, Wants::All, settings());
    let body = r#"{"code":"authentication_error","details":"NOT_FOUND"}"#;
    let length = body.len();
    let refusal = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {length}\r\n\r\n{body}");
    answer(&listener, &refusal).await;
    running
        .until("the refusal", |state| {
            state.refused && state.last_error.as_ref().is_some_and(|error| error.contains("401"))
        })
        .await;
    answer(&listener, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    running.until("the connection", |state| state.subscribed && !state.refused).await;
    running.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_silent_to_pings_is_left_and_a_new_session_begins() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(
        Channel::Trade,
        api,
        Wants::All,
        Settings {
            ping_interval: Duration::from_millis(20),
            pong_timeout: Duration::from_millis(60),
            ..settings()
        },
    );
    // Accepted and never read again: no pong is ever sent, though TCP is alive.
    let _silent = listener.accept().await;
    let (first, connected) = running.event().await;
    assert!(matches!(connected, SessionEvent::Connected { .. }));
    let (closed_of, closed) = running.event().await;
    assert_eq!(closed_of, first);
    assert!(matches!(closed, SessionEvent::Closed { reason: CloseReason::Liveness, .. }));
    // A peer that reads answers pings by itself.
    let mut peer = listener.accept().await;
    let (second, _) = running.event().await;
    assert!(second > first);
    let command = peer.command().await;
    assert_eq!(command["id"], 1, "ids start over on each connection");
    let reading = tokio::spawn(async move { while peer.ws.next().await.is_some() {} });
    running.until("the connection again", |state| state.connects == 2).await;
    running.stop().await;
    soon("the goodbye", reading).await.unwrap();
}

#[tokio::test]
async fn a_close_for_good_is_a_refusal_until_the_exchange_takes_us_again() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::Trade, api, Wants::All, settings());
    let mut peer = subscribed(&listener).await;
    close(&mut peer, 4003, "key revoked").await;
    running.until("the refusal", |state| state.refused && !state.connected).await;
    let why = running.state.borrow().last_error.clone().unwrap();
    assert!(why.contains("4003") && why.contains("key revoked"), "{why}");
    let mut peer = listener.accept().await;
    running.until("the next attempt", |state| state.connected).await;
    assert!(running.state.borrow().refused, "connected is not taken");
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    running.until("the end of the refusal", |state| state.subscribed && !state.refused).await;
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_waits_is_woken_when_the_exchange_is_back() {
    let (listener, api) = Listener::bind().await;
    let patient = Settings {
        refused_base: LONG,
        refused_cap: LONG,
        backoff_cap: LONG,
        polite_wait: LONG,
        ..settings()
    };
    let mut running = start(Channel::Trade, api, Wants::All, patient);
    for (code, round) in [4000, 1012, 1013, 1001].into_iter().zip(1..) {
        let mut peer = subscribed(&listener).await;
        running.until("the connection", |state| state.connects == round && state.subscribed).await;
        close(&mut peer, code, "maintenance").await;
        let refused = code == 4000;
        running.until("the wait", |state| !state.connected && state.refused == refused).await;
        running.resume.send_modify(|times| *times += 1);
    }
    let _peer = subscribed(&listener).await;
    running.stop().await;
}

#[tokio::test]
async fn an_overloaded_exchange_is_left_alone_for_as_long_as_it_says() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::Trade, api, Wants::All, settings());
    // The cap on waits is 50 ms: what is said counts up to that.
    let began = tokio::time::Instant::now();
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let text = format!("HTTP/1.1 {status}\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n");
        answer(&listener, &text).await;
        running
            .until("the refusal", |state| {
                state.last_error.as_ref().is_some_and(|why| why.contains(&status[..3]))
            })
            .await;
    }
    let _peer = subscribed(&listener).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert!(!running.state.borrow().refused);
    running.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_dead_on_a_living_socket_is_replaced() {
    let (listener, api) = Listener::bind().await;
    let limit = Duration::from_secs(1);
    let settings = Settings {
        command_batch: 9,
        command_timeout: limit,
        snapshot_timeout: limit,
        ..settings()
    };
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A", "B"]), settings);
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    peer.subscribed(&first, 7).await;
    // Neither book comes, and nothing else on this subscription.
    let list = loop {
        let command = peer.command().await;
        if command["cmd"] == "list_subscriptions" {
            break command;
        }
        assert_eq!(command["params"]["action"], "get_snapshot");
    };
    let id = &list["id"];
    peer.send(&format!(r#"{{"type":"ok","id":{id},"msg":[{{"channel":"x","sid":7}}]}}"#)).await;
    let end = peer.command().await;
    assert_eq!(end["cmd"], "unsubscribe");
    let id = &end["id"];
    peer.send(&format!(r#"{{"type":"unsubscribed","id":{id},"sid":7,"seq":1}}"#)).await;
    let again = peer.command().await;
    let mut named = tickers(&again);
    named.sort_unstable();
    assert_eq!((&again["cmd"], named), (&Value::from("subscribe"), vec!["A", "B"]));
    peer.subscribed(&again, 8).await;
    peer.snapshot(8, 1, "A").await;
    peer.snapshot(8, 2, "B").await;
    running.until("both books", |state| state.subscribed && state.markets_with_book == 2).await;
    let state = running.state.borrow().clone();
    assert_eq!((state.connects, state.terminal_errors), (1, 1));
    assert!(matches!(running.event().await.1, SessionEvent::Connected { .. }));
    assert_eq!(running.event().await.1, SessionEvent::Stalled { sid: 7 });
    running.stop().await;
}

#[tokio::test]
async fn a_socket_that_is_silent_to_every_command_is_left_though_it_answers_pings() {
    let (listener, api) = Listener::bind().await;
    let limit = Duration::from_secs(1);
    let settings = Settings { command_timeout: limit, snapshot_timeout: limit, ..settings() };
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A"]), settings);
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    peer.subscribed(&first, 7).await;
    let _reading = tokio::spawn(async move { while peer.ws.next().await.is_some() {} });
    assert!(matches!(running.event().await.1, SessionEvent::Connected { .. }));
    assert_eq!(running.event().await.1, SessionEvent::Stalled { sid: 7 });
    let (_, closed) = running.event().await;
    assert!(
        matches!(closed, SessionEvent::Closed { reason: CloseReason::Disconnect, ref detail }
        if detail.contains("silent")),
        "{closed:?}"
    );
    let mut peer = listener.accept().await;
    assert_eq!(peer.command().await["cmd"], "subscribe");
    running.stop().await;
}

#[tokio::test]
async fn a_cap_on_markets_is_learned_and_kept_across_connections() {
    let (listener, api) = Listener::bind().await;
    let wants = markets(&["A", "B", "C", "D"]);
    let mut running = start(Channel::OrderbookDelta, api, wants, settings());
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    peer.subscribed(&first, 7).await;
    let mut seq = 0;
    // Two halves are on their way when the first is refused.
    for count in [2, 1, 1] {
        let add = peer.command().await;
        assert_eq!(tickers(&add).len(), count);
        seq += 1;
        let (id, msg) = (&add["id"], r#"{"code":26,"msg":"too many markets"}"#);
        let head = format!(r#""type":"error","id":{id},"sid":7,"seq":{seq}"#);
        peer.send(&format!(r#"{{{head},"msg":{msg}}}"#)).await;
    }
    running.until("the cap", |state| state.markets_max == Some(2)).await;
    drop(peer);
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    assert_eq!(tickers(&first).len(), 2);
    peer.subscribed(&first, 1).await;
    for (seq, ticker) in [(1, "A"), (2, "B"), (3, "C"), (4, "D")] {
        if tickers(&first).contains(&ticker) {
            peer.snapshot(1, seq, ticker).await;
        }
    }
    running.until("what fits", |state| state.markets_with_book == 2).await;
    assert!(!running.state.borrow().subscribed, "two markets have no room");
    running.stop().await;
}

#[tokio::test]
async fn too_many_commands_are_slowed_down_and_none_is_lost() {
    let (listener, api) = Listener::bind().await;
    let wants = markets(&["A", "B", "C", "D"]);
    let mut running = start(Channel::OrderbookDelta, api, wants, settings());
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    peer.subscribed(&first, 7).await;
    let add = peer.command().await;
    let began = tokio::time::Instant::now();
    let (id, msg) = (&add["id"], r#"{"code":27,"msg":"too many commands"}"#);
    peer.send(&format!(r#"{{"type":"error","id":{id},"msg":{msg}}}"#)).await;
    let again = peer.command().await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(tickers(&again), tickers(&add));
    peer.ok(&again, 7, 1).await;
    for (seq, ticker) in [(2, "A"), (3, "B"), (4, "C"), (5, "D")] {
        peer.snapshot(7, seq, ticker).await;
    }
    running.until("all books", |state| state.subscribed && state.markets_with_book == 4).await;
    assert_eq!((running.state.borrow().connects, running.state.borrow().gaps), (1, 0));
    running.stop().await;
}

#[tokio::test]
async fn the_audit_asks_in_turn_and_goes_on_after_a_reconnect() {
    let (listener, api) = Listener::bind().await;
    let settings = Settings { audit_period: Some(Duration::from_millis(300)), ..settings() };
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A", "B", "C"]), settings);
    let mut total = 0;
    for connects in 1..=2 {
        let mut peer = three_markets(&listener, &mut running).await;
        let since = running.state.borrow().audited_since.unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seq in 5..8 {
            let command = peer.command().await;
            assert_eq!(command["params"]["action"], "get_snapshot");
            let [ticker] = tickers(&command)[..] else { panic!("{command}") };
            seen.insert(ticker.to_owned());
            peer.snapshot(7, seq, ticker).await;
        }
        total += 3;
        assert_eq!(seen.len(), 3, "each once");
        running
            .until("the count", |state| state.audits >= total && state.audited_since >= Some(since))
            .await;
        let state = running.state.borrow().clone();
        assert_eq!((state.connects, state.snapshot_requests), (connects, 0));
        total = state.audits;
    }
    running.stop().await;
}

#[tokio::test]
async fn requests_for_snapshots_are_never_too_many() {
    let (listener, api) = Listener::bind().await;
    let names: Vec<String> = (0..1_000).map(|number| format!("M{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let settings = Settings { command_batch: 1_000, ..settings() };
    let mut running = start(Channel::OrderbookDelta, api, markets(&names), settings);
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    peer.subscribed(&first, 7).await;
    let mut seq = 0;
    for name in &names {
        seq += 1;
        peer.snapshot(7, seq, name).await;
    }
    running.until("all books", |state| state.markets_with_book == 1_000).await;
    for name in names.iter().chain(&names) {
        running.resync.ask(Ticker::parse(name).unwrap());
    }
    let command = peer.command().await;
    assert_eq!(tickers(&command).len(), 1_000);
    running.stop().await;
}

#[tokio::test]
async fn a_hundred_and_fifty_sessions_come_up_and_come_back_together() {
    let (listener, api) = Listener::bind().await;
    let mut all = Vec::new();
    for _ in 0..150 {
        let settings = Settings { backoff_base: Duration::from_millis(250), ..settings() };
        all.push(start(Channel::Trade, api.clone(), Wants::All, settings));
    }
    for round in 1..=2 {
        let mut peers = Vec::new();
        for _ in 0..all.len() {
            peers.push(subscribed(&listener).await);
        }
        for running in &mut all {
            running
                .until("the subscription", |state| state.subscribed && state.connects == round)
                .await;
        }
    }
    for running in all {
        running.stop().await;
    }
}
