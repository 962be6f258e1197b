//! The exchange over real sockets, with a client of another make.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::super::auth::tests::sign;
use super::super::hub::Hold;
use super::super::inject::Injection;
use super::super::server::{REST_PATH, WS_PATH};
use super::super::venue::Limits;
use super::super::{Config, Exchange, Source, Trouble};
use super::*;
use crate::model::Channel;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Running {
    pub exchange: Exchange,
    stop: CancellationToken,
}

impl Running {
    pub async fn start(source: Source) -> Self {
        let stop = CancellationToken::new();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            seed: 11,
            keys: 2,
            source,
            ping_interval: Duration::from_millis(200),
        };
        let exchange = Exchange::start(config, stop.clone()).await.unwrap();
        Self { exchange, stop }
    }

    pub async fn generated(markets: usize, rate: f64) -> Self {
        let duration = Some(Duration::from_secs(1));
        Self::start(Source::Generated { markets, multivariate: 3, rate: rate.into(), duration })
            .await
    }

    pub async fn connect(&self, key: usize) -> Result<Socket, WsError> {
        let mut request = self.exchange.ws_url().into_client_request().unwrap();
        let now = Micros::now().0 / 1000;
        request.headers_mut().extend(sign(&self.exchange.key(key), now, "GET", WS_PATH));
        connect_async(request).await.map(|(socket, _)| socket)
    }

    pub async fn call(
        &self,
        method: &str,
        url: &str,
        signed: bool,
        body: &str,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(url);
        if signed {
            let path = url.split_once("/trade-api").unwrap().1.split('?').next().unwrap();
            let now = Micros::now().0 / 1000;
            let path = format!("/trade-api{path}");
            request.headers_mut().unwrap().extend(sign(&self.exchange.key(0), now, method, &path));
        }
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned()))).unwrap();
        let client = HttpClient::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn get(&self, call: &str) -> Value {
        let url = format!("{}{call}", self.exchange.rest_url());
        let (status, body) = self.call("GET", &url, false, "").await;
        assert_eq!(status, StatusCode::OK, "{call}: {body}");
        body
    }

    pub async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.exchange.stopped()).await.expect("all tasks end");
    }
}

pub(super) async fn send(socket: &mut Socket, command: Value) {
    socket.send(Message::text(command.to_string())).await.unwrap();
}

pub(super) async fn next(socket: &mut Socket) -> Value {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("a frame in time") {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
            Some(Ok(_)) => {}
            other => panic!("the socket ended: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_clients_fold_the_same_books_as_the_ledger() {
    let running = Running::generated(30, 4_000.0).await;
    let listed = running.get("/markets?limit=1000&status=open&mve_filter=exclude").await;
    let tickers: Vec<Value> =
        listed["markets"].as_array().unwrap().iter().map(|m| m["ticker"].clone()).collect();
    assert_eq!(tickers.len(), 30);
    let mut sockets = Vec::new();
    for key in [0, 0, 1] {
        let mut socket = running.connect(key).await.unwrap();
        send(
            &mut socket,
            json!({"id": 1, "cmd": "subscribe", "params": {
                "channels": ["orderbook_delta"], "market_tickers": tickers, "use_yes_price": true,
            }}),
        )
        .await;
        assert_eq!(next(&mut socket).await["type"], "subscribed");
        sockets.push(socket);
    }
    assert_eq!(running.exchange.subscribed_markets(), 60);
    let begun = Micros::now();
    running.exchange.publish();
    timeout(PATIENCE, running.exchange.finished()).await.expect("the flow ends");
    // Published times are those of the run, even the first one after a long wait.
    for delta in running.exchange.ledger().deltas(0, usize::MAX) {
        assert!(delta.exchange_ts.since(begun) > -25_000, "{delta:?} begun {begun}");
        assert!(Micros::now().since(delta.exchange_ts) > -50_000, "{delta:?}");
    }

    let books = running.exchange.ledger().books();
    for socket in &mut sockets {
        // The answer to this stands behind everything that was published.
        send(
            socket,
            json!({"id": 2, "cmd": "update_subscription", "params": {
                "sid": 1, "action": "get_snapshot", "market_tickers": tickers,
            }}),
        )
        .await;
        let mut folded: std::collections::HashMap<String, Folded> = Default::default();
        let (mut seq, mut audited, mut deltas) = (0, 0, 0);
        while audited < tickers.len() {
            let frame = next(socket).await;
            seq += 1;
            assert_eq!(frame["seq"], seq, "{frame}");
            let ticker = frame["msg"]["market_ticker"].as_str().unwrap().to_owned();
            let book = folded.entry(ticker).or_default();
            if frame.get("id").is_some() {
                assert_eq!(*book, Folded::stated(&frame));
                audited += 1;
            }
            deltas += u64::from(frame["type"] == "orderbook_delta");
            book.take(&frame);
        }
        let known: Vec<_> =
            books.iter().filter(|book| tickers.contains(&book.ticker.as_str().into())).collect();
        assert_eq!(deltas, known.iter().map(|book| book.deltas).sum::<u64>());
    }
    let counts = running.exchange.progress();
    assert!(counts.orderbook_deltas >= 4_000, "{counts:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_checked_and_cut_keys_are_refused() {
    let running = Running::generated(2, 10.0).await;
    let status = |result: Result<Socket, WsError>| match result {
        Err(WsError::Http(response)) => (response.status(), response.into_body()),
        other => panic!("{other:?}"),
    };
    let unsigned = connect_async(running.exchange.ws_url()).await.map(|(socket, _)| socket);
    let (code, body) = status(unsigned);
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap();
    assert_eq!(body, json!({"code": "authentication_error", "details": "NOT_FOUND"}));

    let mut socket = running.connect(0).await.unwrap();
    let mut other = running.connect(1).await.unwrap();
    running.exchange.trouble(0, Trouble::Cut(Duration::from_millis(400)));
    let ended = timeout(PATIENCE, async { while let Some(Ok(_)) = socket.next().await {} });
    ended.await.expect("a cut socket ends");
    assert_eq!(status(running.connect(0).await).0, StatusCode::SERVICE_UNAVAILABLE);
    send(&mut other, json!({"id": 1, "cmd": "list_subscriptions"})).await;
    assert_eq!(next(&mut other).await["type"], "ok");
    let back = timeout(PATIENCE, async {
        while running.connect(0).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    back.await.expect("the cut ends");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_pings_answers_pings_and_holds_its_tongue_on_demand() {
    let running = Running::start(Source::Idle).await;
    let mut socket = running.connect(0).await.unwrap();
    let ping = loop {
        if let Message::Ping(body) =
            timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap()
        {
            break body;
        }
    };
    assert_eq!(&ping[..], b"heartbeat");
    socket.send(Message::Ping("hello".into())).await.unwrap();
    let pong = loop {
        if let Message::Pong(body) =
            timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap()
        {
            break body;
        }
    };
    assert_eq!(&pong[..], b"hello");
    running.exchange.hold(0, Hold::Pongs, Duration::from_secs(60));
    // One ping may be on its way already.
    let mut silent = 0;
    while silent == 0 {
        socket.send(Message::Ping("anyone".into())).await.unwrap();
        match timeout(Duration::from_millis(700), socket.next()).await {
            Err(_) => silent += 1,
            Ok(frame) => assert!(frame.unwrap().unwrap().is_ping()),
        }
    }
    send(&mut socket, json!({"id": 1, "cmd": "list_subscriptions"})).await;
    assert_eq!(next(&mut socket).await["type"], "ok", "data goes on");
    running.exchange.hold(0, Hold::Everything, Duration::from_millis(500));
    send(&mut socket, json!({"id": 2, "cmd": "list_subscriptions"})).await;
    assert!(timeout(Duration::from_millis(200), socket.next()).await.is_err());
    assert_eq!(next(&mut socket).await["id"], 2, "and comes after the freeze");
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_pages_filters_and_limits() {
    let running = Running::generated(2_345, 10.0).await;
    let (mut cursor, mut tickers) = (String::new(), std::collections::BTreeSet::new());
    let mut pages = 0;
    loop {
        let page =
            running.get(&format!("/markets?limit=1000&mve_filter=exclude&cursor={cursor}")).await;
        pages += 1;
        for market in page["markets"].as_array().unwrap() {
            for key in ["event_ticker", "open_time", "close_time", "status", "rules_primary"] {
                assert!(market[key].is_string(), "{key} of {market}");
            }
            assert!(tickers.insert(market["ticker"].as_str().unwrap().to_owned()));
        }
        cursor = page["cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!((pages, tickers.len()), (3, 2_345));
    let first = tickers.first().unwrap();
    let one = running.get(&format!("/markets/{first}")).await;
    assert_eq!(one["market"]["ticker"], first.as_str());
    let event = one["market"]["event_ticker"].as_str().unwrap();
    let of_event = running.get(&format!("/markets?event_ticker={event}")).await;
    assert_eq!(of_event["markets"].as_array().unwrap().len(), 10);
    let two = tickers.iter().take(2).cloned().collect::<Vec<_>>().join("%2C");
    let named = running.get(&format!("/markets?tickers={two}")).await;
    assert_eq!(named["markets"].as_array().unwrap().len(), 2);
    for (filter, count) in [
        ("status=settled", 0),
        ("mve_filter=only", 3),
        ("mve_filter=only&status=open", 3),
        ("min_updated_ts=9999999999", 0),
    ] {
        let found = running.get(&format!("/markets?{filter}")).await;
        assert_eq!(found["markets"].as_array().unwrap().len(), count, "{filter}");
    }
    let book = running.get(&format!("/markets/{first}/orderbook?depth=0")).await;
    assert!(book["orderbook_fp"]["yes_dollars"].is_array(), "{book}");
    let events = running.get("/events?limit=200&with_nested_markets=true").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 200);
    assert_eq!(events["events"][0]["markets"].as_array().unwrap().len(), 10);
    assert_eq!(running.get("/series").await["series"].as_array().unwrap().len(), 13);
    assert_eq!(running.get("/exchange/status").await["trading_active"], true);

    let root = running.exchange.rest_url();
    for (call, signed, code) in [
        ("/markets?limit=1001", false, 400),
        ("/markets?status=odd", false, 400),
        ("/markets?cursor=zzz", false, 400),
        ("/markets/NONE", false, 404),
        ("/nothing", false, 404),
        ("/account/limits", false, 401),
        ("/account/limits", true, 200),
        ("/markets/orderbooks", true, 400),
    ] {
        let (status, body) = running.call("GET", &format!("{root}{call}"), signed, "").await;
        assert_eq!(status.as_u16(), code, "{call}: {body}");
    }
    let url = format!("{root}/markets/orderbooks?tickers={first}&tickers=NONE");
    let (_, books) = running.call("GET", &url, true, "").await;
    assert_eq!(books["orderbooks"].as_array().unwrap().len(), 1);

    let limits = Limits { read_tokens_per_second: Some(20), ..running.exchange.limits() };
    running.exchange.set_limits(limits);
    let mut refused = 0;
    for _ in 0..6 {
        let (status, body) =
            running.call("GET", &format!("{root}/exchange/status"), false, "").await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(body, json!({"error": "too many requests"}));
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
    assert_eq!(REST_PATH, "/trade-api/v2");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_breaks_things_on_demand() {
    let running = Running::generated(5, 500.0).await;
    let mut socket = running.connect(1).await.unwrap();
    send(&mut socket, json!({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}}))
        .await;
    assert_eq!(next(&mut socket).await["type"], "subscribed");
    let control = running.exchange.control_url();
    let injection = json!({"channel": "trade", "raw": "{\"type\":\"odd\",\"seq\":$SEQ,\"x\":\"$PAD\"}",
        "repeat_bytes": 20 << 20});
    let (status, sent) =
        running.call("POST", &format!("{control}/inject"), false, &injection.to_string()).await;
    assert_eq!((status, sent), (StatusCode::OK, json!({"sent": [1]})));
    let huge = timeout(PATIENCE, socket.next()).await.unwrap();
    // A client with the usual limit of 16 MiB a frame refuses it and ends.
    assert!(matches!(huge, Some(Err(WsError::Capacity(_)))), "20 MiB");

    let mut socket = running.connect(1).await.unwrap();
    send(&mut socket, json!({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}}))
        .await;
    assert_eq!(next(&mut socket).await["type"], "subscribed");
    let bytes: Injection =
        serde_json::from_value(json!({"channel": "trade", "base64": "//4=", "binary": true}))
            .unwrap();
    assert!(running.exchange.inject(&bytes).unwrap() >= 1);
    let binary = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(binary.into_data()[..], [0xff, 0xfe]);
    running.exchange.trouble(1, Trouble::Terminate(Channel::Trade, 10));
    let error = next(&mut socket).await;
    assert_eq!((error["msg"]["code"].as_u64(), error.get("id")), (Some(10), None));

    let (status, _) = running.call("POST", &format!("{control}/publish"), false, "").await;
    assert_eq!(status, StatusCode::OK);
    timeout(PATIENCE, running.exchange.finished()).await.expect("the flow ends");
    let (_, state) = running.call("GET", &format!("{control}/status"), false, "").await;
    assert_eq!(state["finished"], true);
    assert!(state["published"]["orderbook_deltas"].as_u64().unwrap() >= 500, "{state}");
    for wrong in ["cut?key=9&ms=1", "cut?key=0", "drop?key=0&channel=x&n=1", "inject"] {
        let body = "{\"channel\":\"nope\",\"raw\":\"\"}";
        let (status, _) = running.call("POST", &format!("{control}/{wrong}"), false, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let trades = running.get("/markets/trades?limit=5").await;
    assert!(!trades["trades"].as_array().unwrap().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_replays_over_sockets_as_fast_as_it_is_read() {
    let files = super::replayed::windows();
    let running = Running::start(Source::Replay { files, speed: 1e9 }).await;
    let listed = running.get("/markets?limit=1000&status=open").await;
    let tickers: Vec<Value> =
        listed["markets"].as_array().unwrap().iter().map(|m| m["ticker"].clone()).collect();
    assert_eq!(listed["markets"][0]["result"], "");
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for key in [0, 1, 1] {
        let mut socket = running.connect(key).await.unwrap();
        send(
            &mut socket,
            json!({"id": 1, "cmd": "subscribe", "params": {
                "channels": ["orderbook_delta"], "market_tickers": tickers,
            }}),
        )
        .await;
        assert_eq!(next(&mut socket).await["type"], "subscribed");
        let (writer, mut reader) = socket.split();
        writers.push(writer);
        readers.push(tokio::spawn(async move {
            let (mut deltas, mut last) = (0_u64, 0);
            while let Some(Ok(message)) = reader.next().await {
                let Message::Text(text) = message else { continue };
                if text.contains("\"id\":99") {
                    break;
                }
                let number = text.split("\"seq\":").nth(1).unwrap().split(',').next().unwrap();
                last += 1;
                assert_eq!(number.parse(), Ok(last));
                deltas += u64::from(text.contains("orderbook_delta"));
            }
            deltas
        }));
    }
    let begun = std::time::Instant::now();
    running.exchange.publish();
    timeout(Duration::from_secs(120), running.exchange.finished()).await.expect("the replay ends");
    let counts = running.exchange.progress();
    // The answer stands behind everything that was published.
    let last = json!({"id": 99, "cmd": "list_subscriptions"}).to_string();
    for (mut writer, reader) in writers.into_iter().zip(readers) {
        writer.send(Message::text(last.clone())).await.unwrap();
        assert_eq!(timeout(PATIENCE, reader).await.unwrap().unwrap(), counts.orderbook_deltas);
    }
    eprintln!("replayed to three readers in {:?}: {counts:?}", begun.elapsed());
    assert_eq!(running.exchange.happenings().overflows, 0);
    running.stop().await;
}
