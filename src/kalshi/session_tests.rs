//! A session against a peer that follows each test's script over a real socket.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;
use crate::kalshi::testing::{Given, Listener, Peer, Tell, credentials, soon, tickers};

pub(super) struct Running {
    pub(super) wants: watch::Sender<Wants>,
    pub(super) resync: Arc<Resync>,
    pub(super) resume: watch::Sender<u64>,
    pub(super) notices: mpsc::Receiver<Notice>,
    pub(super) state: watch::Receiver<SessionState>,
    pub(super) given: mpsc::UnboundedReceiver<Given>,
    pub(super) shutdown: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

pub(super) fn markets(names: &[&str]) -> Wants {
    Wants::Markets(Arc::new(names.iter().map(|name| Ticker::parse(name).unwrap()).collect()))
}

/// Quick where production is patient; what must not expire in a test still does not.
pub(super) fn settings() -> Settings {
    Settings {
        backoff_base: Duration::from_millis(5),
        backoff_cap: Duration::from_millis(50),
        polite_wait: Duration::from_millis(5),
        resume_spread: Duration::from_millis(5),
        command_batch: 2,
        resync_interval: Duration::from_millis(300),
        ..Settings::default()
    }
}

pub(super) fn start(channel: Channel, api: Api, wants: Wants, settings: Settings) -> Running {
    start_gated(channel, api, wants, settings, None)
}

fn start_gated(
    channel: Channel,
    api: Api,
    wants: Wants,
    settings: Settings,
    gate: Option<Arc<Semaphore>>,
) -> Running {
    let (wants, wants_to) = watch::channel(wants);
    let resync = Arc::new(Resync::default());
    let (resume, resume_to) = watch::channel(0);
    let (notices_from, notices) = mpsc::channel(2);
    let (state_from, state) = watch::channel(SessionState::default());
    let (to, given) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let links = Links {
        wants: wants_to,
        resync: Arc::clone(&resync),
        notices: notices_from,
        state: state_from,
        resume: resume_to,
        refusal_said: Arc::default(),
    };
    let slot = Slot { name: "test-1".to_owned(), channel };
    let sink = Arc::new(Tell { to, gate });
    let session = Session { slot, api, links, sink, settings, shutdown: shutdown.clone() };
    let task = tokio::spawn(session.run());
    Running { wants, resync, resume, notices, state, given, shutdown, task }
}

impl Running {
    pub(super) async fn event(&mut self) -> (i64, SessionEvent) {
        loop {
            match soon("an event", self.given.recv()).await.unwrap() {
                Given::Event(_, SessionEvent::Alive) | Given::Frame(..) => {}
                Given::Event(session, event) => return (session, event),
            }
        }
    }

    async fn frame(&mut self) -> (i64, Payload) {
        loop {
            if let Given::Frame(session, payload) =
                soon("a frame", self.given.recv()).await.unwrap()
            {
                return (session, payload);
            }
        }
    }

    pub(super) async fn until(&mut self, what: &str, holds: impl FnMut(&SessionState) -> bool) {
        soon(what, self.state.wait_for(holds)).await.unwrap();
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        soon("the end", self.task).await.unwrap();
    }
}

/// Subscribes to A, B and C on sid 7, ending at sequence number 4.
pub(super) async fn three_markets(listener: &Listener, running: &mut Running) -> Peer {
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    peer.subscribed(&first, 7).await;
    peer.snapshot(7, 1, "A").await;
    peer.snapshot(7, 2, "B").await;
    let second = peer.command().await;
    assert_eq!(second["params"]["action"], "add_markets");
    peer.ok(&second, 7, 3).await;
    peer.snapshot(7, 4, "C").await;
    running.until("three books", |state| state.subscribed && state.markets_with_book == 3).await;
    peer
}

#[tokio::test]
async fn the_handshake_is_signed_over_its_path() {
    let (listener, api) = Listener::bind().await;
    let running = start(Channel::Ticker, api, Wants::All, settings());
    let peer = listener.accept().await;
    let header = |name: &str| peer.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(header("KALSHI-ACCESS-KEY"), "key-1");
    let message = format!("{}GET/trade-api/ws/v2", header("KALSHI-ACCESS-TIMESTAMP"));
    let signature = STANDARD.decode(header("KALSHI-ACCESS-SIGNATURE")).unwrap();
    let credentials = credentials();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, credentials.public_key())
        .verify(message.as_bytes(), &signature)
        .unwrap();
    running.stop().await;
}

#[tokio::test]
async fn subscribes_in_batches_and_follows_what_is_wanted() {
    let (listener, api) = Listener::bind().await;
    let wants = markets(&["A", "B", "C"]);
    let mut running = start(Channel::OrderbookDelta, api, wants, settings());
    let mut peer = listener.accept().await;
    let first = peer.command().await;
    assert_eq!(
        first,
        json!({"id":1,"cmd":"subscribe","params":{"channels":["orderbook_delta"],
            "market_tickers":["A","B"],"skip_ticker_ack":true,"use_yes_price":true}})
    );
    peer.subscribed(&first, 7).await;
    let second = peer.command().await;
    assert_eq!(
        second,
        json!({"id":2,"cmd":"update_subscription",
            "params":{"sid":7,"action":"add_markets","market_tickers":["C"]}})
    );
    peer.ok(&second, 7, 1).await;
    for (seq, ticker) in [(2, "A"), (3, "B"), (4, "C")] {
        peer.snapshot(7, seq, ticker).await;
    }
    running.until("all books", |state| state.subscribed && state.markets_with_book == 3).await;

    running.wants.send(markets(&["B", "C", "D"])).unwrap();
    let delete = peer.command().await;
    assert_eq!(
        (&delete["params"]["action"], tickers(&delete)),
        (&json!("delete_markets"), vec!["A"])
    );
    peer.ok(&delete, 7, 5).await;
    let (_, event) = running.event().await;
    assert!(matches!(event, SessionEvent::Connected { ref slot, ref channels }
        if slot == "test-1" && *channels == [Channel::OrderbookDelta]));
    let (_, event) = running.event().await;
    assert_eq!(event, SessionEvent::Removed { sid: 7, tickers: vec!["A".to_owned()] });
    let add = peer.command().await;
    assert_eq!((&add["params"]["action"], tickers(&add)), (&json!("add_markets"), vec!["D"]));
    peer.ok(&add, 7, 6).await;
    running.until("the new set", |state| state.subscribed && state.markets_with_book == 2).await;
    let state = running.state.borrow().clone();
    assert_eq!((state.gaps, state.connects, state.markets_wanted), (0, 1, 3));

    running.stop().await;
}

#[tokio::test]
async fn a_gap_brings_snapshots_of_everything_and_a_storm_brings_one_round() {
    let (listener, api) = Listener::bind().await;
    let settings = Settings { resync_interval: Duration::from_secs(600), ..settings() };
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A", "B", "C"]), settings);
    let mut peer = three_markets(&listener, &mut running).await;
    peer.delta(7, 5, "A").await;
    peer.delta(7, 5, "A").await;
    for seq in [9, 12, 20, 3, 30] {
        peer.delta(7, seq, "A").await;
    }
    let mut asked = Vec::new();
    for _ in 0..2 {
        let command = peer.command().await;
        assert_eq!(command["params"]["action"], "get_snapshot");
        asked.extend(tickers(&command).into_iter().map(str::to_owned));
        peer.ok(&command, 7, 31 + i64::try_from(asked.len()).unwrap()).await;
    }
    asked.sort();
    assert_eq!(asked, ["A", "B", "C"]);
    running.until("the gaps", |state| state.gaps >= 5 && state.duplicates == 1).await;
    assert_eq!(running.state.borrow().snapshot_requests, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_terminal_error_makes_a_new_subscription_on_the_same_connection() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A", "B", "C"]), settings());
    let mut peer = three_markets(&listener, &mut running).await;
    peer.send(r#"{"type":"error","sid":7,"seq":5,"msg":{"code":25,"msg":"buffer overflow"}}"#)
        .await;
    let mut all: BTreeSet<String> = BTreeSet::new();
    let first = peer.command().await;
    assert_eq!(first["cmd"], "subscribe");
    all.extend(tickers(&first).into_iter().map(str::to_owned));
    peer.subscribed(&first, 8).await;
    let second = peer.command().await;
    assert_eq!(
        (&second["params"]["sid"], &second["params"]["action"]),
        (&json!(8), &json!("add_markets"))
    );
    all.extend(tickers(&second).into_iter().map(str::to_owned));
    peer.ok(&second, 8, 1).await;
    assert_eq!(all.len(), 3);
    running.until("subscribed again", |state| state.subscribed && state.terminal_errors == 1).await;
    assert_eq!(running.state.borrow().connects, 1);
    running.stop().await;
}

#[tokio::test]
async fn merging_into_the_dead_subscription_ends_the_connection() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A", "B", "C"]), settings());
    let mut peer = three_markets(&listener, &mut running).await;
    peer.send(r#"{"type":"error","sid":7,"seq":5,"msg":{"code":10,"msg":"channel error"}}"#).await;
    let again = peer.command().await;
    peer.ok(&again, 7, 6).await;
    let (_, connected) = running.event().await;
    assert!(matches!(connected, SessionEvent::Connected { .. }));
    let (_, closed) = running.event().await;
    assert!(
        matches!(closed, SessionEvent::Closed { reason: CloseReason::TerminalError, .. }),
        "{closed:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn odd_frames_are_handed_on_and_change_nothing() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::Ticker, api, Wants::All, settings());
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    assert_eq!(
        command,
        json!({"id":1,"cmd":"subscribe","params":{"channels":["ticker"],"skip_ticker_ack":true}})
    );
    peer.subscribed(&command, 3).await;
    let big = format!(r#"{{"type":"ticker","sid":3,"msg":{{"x":"{}"}}}}"#, "y".repeat(20 << 20));
    let odd = ["garbage", r#"{"type":"ticker","#, r#"{"no":"type"}"#, "[]", "", &big];
    for frame in odd {
        peer.send(frame).await;
    }
    peer.ws.send(Message::binary(vec![0_u8, 255, 1])).await.unwrap();
    // The library of the test's peer sends no such text by itself.
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let frame = Frame::from_payload(header, Bytes::from_static(b"{\"type\":\"\xff\"}"));
    peer.ws.send(Message::Frame(frame)).await.unwrap();
    peer.send(r#"{"type":"brand_new","sid":3,"seq":1,"msg":7}"#).await;
    let mut texts = Vec::new();
    for _ in 0..odd.len() + 4 {
        texts.push(running.frame().await.1);
    }
    assert_eq!(texts[1], Payload::Text("garbage".into()));
    assert_eq!(texts[6].as_bytes().len(), big.len());
    assert_eq!(texts[7], Payload::Bytes(Bytes::from_static(&[0, 255, 1])));
    assert_eq!(texts[8], Payload::Bytes(Bytes::from_static(b"{\"type\":\"\xff\"}")));
    running.until("all frames counted", |state| state.unreadable == 7 && state.frames == 10).await;
    assert_eq!(running.state.borrow().connects, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_connection_as_overload() {
    let (listener, api) = Listener::bind().await;
    let mut running =
        start(Channel::Ticker, api, Wants::All, Settings { max_message: 1000, ..settings() });
    let mut peer = listener.accept().await;
    peer.send(&"x".repeat(1001)).await;
    assert!(matches!(running.event().await.1, SessionEvent::Connected { .. }));
    let (_, closed) = running.event().await;
    assert!(matches!(closed, SessionEvent::Closed { reason: CloseReason::Overload, .. }));
    let _again = listener.accept().await;
    running.stop().await;
}

#[tokio::test]
async fn a_quiet_connection_is_told_alive_and_the_servers_pings_are_answered() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(
        Channel::Trade,
        api,
        Wants::All,
        Settings { ping_interval: Duration::from_millis(100), ..settings() },
    );
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    peer.ws.send(Message::Ping("heartbeat".into())).await.unwrap();
    let pong = async {
        loop {
            if let Message::Pong(body) = peer.ws.next().await.unwrap().unwrap() {
                return body;
            }
        }
    };
    assert_eq!(soon("our pong", pong).await, "heartbeat");
    let _reading = tokio::spawn(async move { while peer.ws.next().await.is_some() {} });
    let alive = async {
        loop {
            if let Some(Given::Event(_, SessionEvent::Alive)) = running.given.recv().await {
                return;
            }
        }
    };
    soon("a sign of life", alive).await;
    running.stop().await;
}

#[tokio::test]
async fn a_slow_sink_holds_back_the_socket_and_nothing_is_taken_for_silence() {
    let (listener, api) = Listener::bind().await;
    let gate = Arc::new(Semaphore::new(0));
    let settings = Settings {
        ping_interval: Duration::from_millis(20),
        pong_timeout: Duration::from_millis(40),
        command_timeout: Duration::from_millis(40),
        ..settings()
    };
    let gated = Some(Arc::clone(&gate));
    let mut running = start_gated(Channel::Trade, api, Wants::All, settings, gated);
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    // Many times every timeout: the sink takes the reply only after that.
    tokio::time::sleep(Duration::from_millis(400)).await;
    gate.add_permits(1);
    let reading = tokio::spawn(async move { while peer.ws.next().await.is_some() {} });
    running.until("the subscription", |state| state.subscribed).await;
    assert_eq!(running.state.borrow().connects, 1);
    running.stop().await;
    soon("the goodbye", reading).await.unwrap();
}

#[tokio::test]
async fn a_stop_says_goodbye_and_takes_what_came_before() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::Trade, api, Wants::All, settings());
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    running.until("the subscription", |state| state.subscribed).await;
    running.shutdown.cancel();
    loop {
        match soon("a close", peer.ws.next()).await.unwrap().unwrap() {
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    while peer.ws.next().await.is_some() {}
    soon("the end", running.task).await.unwrap();
    let mut last = None;
    while let Some(given) = running.given.recv().await {
        last = Some(given);
    }
    let Some(Given::Event(_, SessionEvent::Closed { reason: CloseReason::Stop, .. })) = last else {
        panic!("{last:?}")
    };
    assert!(!running.state.borrow().connected);
}

#[tokio::test]
async fn a_resync_request_asks_once_for_that_market() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::OrderbookDelta, api, markets(&["A", "B", "C"]), settings());
    let mut peer = three_markets(&listener, &mut running).await;
    let ticker = Ticker::parse("B").unwrap();
    for _ in 0..3 {
        running.resync.ask(ticker.clone());
    }
    let command = peer.command().await;
    assert_eq!(
        (&command["params"]["action"], tickers(&command)),
        (&json!("get_snapshot"), vec!["B"])
    );
    peer.snapshot(7, 5, "B").await;
    running
        .until("the book again", |state| {
            state.snapshot_requests == 1 && state.markets_with_book == 3
        })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn lifecycle_frames_become_notices_and_what_may_be_missed_is_told() {
    let (listener, api) = Listener::bind().await;
    let mut running = start(Channel::Lifecycle, api, Wants::All, settings());
    let created = |seq: i64, ticker: &str| {
        format!(
            r#"{{"type":"market_lifecycle_v2","sid":1,"seq":{seq},"msg":{{"event_type":"created","market_ticker":"{ticker}"}}}}"#
        )
    };
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    peer.send(&created(1, "A")).await;
    let notice = soon("a notice", running.notices.recv()).await.unwrap();
    assert!(
        matches!(notice, Notice::Market(MarketNotice { ref ticker, .. }) if ticker.as_str() == "A")
    );
    // A gap.
    peer.send(&created(3, "C")).await;
    let mut missed = false;
    for _ in 0..2 {
        missed |= soon("a notice", running.notices.recv()).await.unwrap() == Notice::Missed;
    }
    assert!(missed);
    // A reconnect.
    drop(peer);
    let mut peer = listener.accept().await;
    let command = peer.command().await;
    peer.subscribed(&command, 1).await;
    assert_eq!(soon("a notice", running.notices.recv()).await, Some(Notice::Missed));
    // More than there is room for.
    for seq in 1..=5 {
        peer.send(&created(seq, "A")).await;
    }
    running.until("all frames", |state| state.frames == 9).await;
    let mut missed = false;
    for _ in 0..3 {
        missed |= soon("a notice", running.notices.recv()).await.unwrap() == Notice::Missed;
    }
    assert!(missed);
    running.stop().await;
}

#[test]
fn session_ids_grow_even_when_the_clock_goes_back() {
    let first = next_session_id(Micros(i64::MAX - 10));
    assert!(next_session_id(Micros(5)) > first);
}

#[test]
fn events_survive_their_text() {
    let events = [
        SessionEvent::Connected { slot: "ticker-1".to_owned(), channels: vec![Channel::Ticker] },
        SessionEvent::Alive,
        SessionEvent::Removed { sid: 1, tickers: vec!["A".to_owned()] },
        SessionEvent::Stalled { sid: 1 },
        SessionEvent::Closed { reason: CloseReason::TerminalError, detail: "x".to_owned() },
    ];
    for event in events {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<SessionEvent>(&text).unwrap(), event, "{text}");
    }
    let text = r#"{"event":"connected","slot":"x","channels":["nope"]}"#;
    assert!(serde_json::from_str::<SessionEvent>(text).is_err());
}
