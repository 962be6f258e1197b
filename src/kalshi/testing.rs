//! Test doubles: keys, a WebSocket peer that does what a test says, and a sink that tells.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;

use crate::kalshi::Api;
use crate::kalshi::auth::{Credentials, Signer};
use crate::kalshi::session::{FrameSink, Payload, SessionEvent};
use crate::model::Micros;

/// Nothing in a test on this machine takes longer, however busy it is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waiting for {what}"))
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// An RSA key of 2048 bits as PKCS#8 PEM, the same for all tests of a process.
pub fn rsa_pem() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(|| {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        pem("PRIVATE KEY", AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&key).unwrap().as_ref())
    })
}

pub fn credentials() -> Credentials {
    Credentials::from_pem("key-1", rsa_pem().as_bytes()).unwrap()
}

/// A listening exchange; each connection is taken by hand.
pub struct Listener {
    tcp: TcpListener,
}

impl Listener {
    pub async fn bind() -> (Self, Api) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let api = Api {
            rest_url: format!("http://{address}/trade-api/v2"),
            ws_url: format!("ws://{address}/trade-api/ws/v2"),
            credentials: Some(Signer::new(credentials())),
        };
        (Self { tcp }, api)
    }

    pub async fn tcp(&self) -> TcpStream {
        soon("a connection", self.tcp.accept()).await.unwrap().0
    }

    #[expect(clippy::result_large_err, reason = "the signature of the library's callback")]
    pub async fn accept(&self) -> Peer {
        let tcp = self.tcp().await;
        let mut headers = HeaderMap::new();
        let callback = |request: &Request, response: Response| {
            headers = request.headers().clone();
            Ok(response)
        };
        let ws =
            soon("a handshake", tokio_tungstenite::accept_hdr_async(tcp, callback)).await.unwrap();
        Peer { ws, headers }
    }
}

/// The exchange's side of one connection.
pub struct Peer {
    pub ws: WebSocketStream<TcpStream>,
    pub headers: HeaderMap,
}

impl Peer {
    /// The next command; pings and pongs are none.
    pub async fn command(&mut self) -> Value {
        loop {
            match soon("a command", self.ws.next()).await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("instead of a command: {other:?}"),
            }
        }
    }

    pub async fn send(&mut self, frame: &str) {
        self.ws.send(Message::text(frame)).await.unwrap();
    }

    pub async fn subscribed(&mut self, command: &Value, sid: i64) {
        let (id, channel) = (&command["id"], &command["params"]["channels"][0]);
        let msg = format!(r#"{{"channel":{channel},"sid":{sid}}}"#);
        self.send(&format!(r#"{{"type":"subscribed","id":{id},"msg":{msg}}}"#)).await;
    }

    pub async fn ok(&mut self, command: &Value, sid: i64, seq: i64) {
        let id = &command["id"];
        self.send(&format!(r#"{{"type":"ok","id":{id},"sid":{sid},"seq":{seq},"msg":{{}}}}"#))
            .await;
    }

    pub async fn snapshot(&mut self, sid: i64, seq: i64, ticker: &str) {
        let msg = format!(r#"{{"market_ticker":"{ticker}","yes_dollars_fp":[["0.5","1.00"]]}}"#);
        let head = format!(r#""sid":{sid},"seq":{seq}"#);
        self.send(&format!(r#"{{"type":"orderbook_snapshot",{head},"msg":{msg}}}"#)).await;
    }

    pub async fn delta(&mut self, sid: i64, seq: i64, ticker: &str) {
        let msg = format!(
            r#"{{"market_ticker":"{ticker}","price_dollars":"0.5","delta_fp":"1.00","side":"yes"}}"#
        );
        let head = format!(r#""sid":{sid},"seq":{seq}"#);
        self.send(&format!(r#"{{"type":"orderbook_delta",{head},"msg":{msg}}}"#)).await;
    }
}

/// The markets that a command names.
pub fn tickers(command: &Value) -> Vec<&str> {
    let tickers = command["params"]["market_tickers"].as_array().map(Vec::as_slice);
    tickers.unwrap_or_default().iter().map(|ticker| ticker.as_str().unwrap()).collect()
}

/// What a sink was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    Frame(i64, Payload),
    Event(i64, SessionEvent),
}

/// Tells everything it is given. With a `gate` each frame waits for a permit of it.
pub struct Tell {
    pub to: mpsc::UnboundedSender<Given>,
    pub gate: Option<Arc<tokio::sync::Semaphore>>,
}

impl FrameSink for Tell {
    async fn frame(&self, session: i64, _received_at: Micros, payload: Payload) {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let _gone = self.to.send(Given::Frame(session, payload));
    }

    async fn event(&self, session: i64, _at: Micros, event: SessionEvent) {
        let _gone = self.to.send(Given::Event(session, event));
    }
}

/// One request as a test's exchange sees it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path with the query.
    pub target: String,
    /// The head as sent, for its headers.
    pub head: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Serves REST on a loopback port for as long as the test runs; one request a connection.
pub async fn serve_rest(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Api {
    serve_rest_with_headers(move |asked| {
        let (code, body) = answer(asked);
        (code, String::new(), body)
    })
    .await
}

/// As [`serve_rest`], with headers (each line with its end) between the code and the body.
pub async fn serve_rest_with_headers(
    answer: impl Fn(&Asked) -> (u16, String, String) + Send + Sync + 'static,
) -> Api {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                let (code, headers, body) = answer(&Asked { target, head });
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {code} X\r\n{headers}Content-Length: {length}\r\nConnection: close"
                );
                let _gone = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
            });
        }
    });
    Api {
        rest_url: format!("http://{address}/trade-api/v2"),
        ws_url: format!("ws://{address}/trade-api/ws/v2"),
        credentials: Some(Signer::new(credentials())),
    }
}
