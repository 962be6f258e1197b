//! Tests of the HTTP server over real sockets.

use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    health: SocketAddr,
    metrics: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn start(config: Config, status: Status, limits: Limits) -> Running {
    let server = Server::bind(&config).await.unwrap();
    let (health, metrics) = (server.health_addr(), server.metrics_addr());
    let stop = CancellationToken::new();
    let source =
        Source::from_fn(
            move || async move { Report::new(status, json!({"database": "connected"})) },
        );
    let mut registry = metrics::registry();
    let frames: Counter = Counter::default();
    registry.register("test_frames", "Frames", frames);
    let task = tokio::spawn(server.serve_with(source, Arc::new(registry), stop.clone(), limits));
    Running { health, metrics, stop, task }
}

async fn start_apart(status: Status, limits: Limits) -> Running {
    start(Config { health: loopback(0), metrics: loopback(0) }, status, limits).await
}

/// Sends `text` and reads until the server closes.
async fn exchange(addr: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ask(addr: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let answer = exchange(addr, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn each_path_on_its_own_listener() {
    let running = start_apart(Status::Healthy, Limits::default()).await;
    let (status, head, body) = ask(running.health, "GET", "/health").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(!head.contains("\nserver:"), "{head}");
    assert_eq!(body, r#"{"status":"healthy","components":{"database":"connected"}}"#);

    let (status, head, body) = ask(running.metrics, "GET", "/metrics?x=1").await;
    assert_eq!(status, 200);
    assert!(head.contains(&format!("content-type: {}", metrics::TEXT_CONTENT_TYPE)), "{head}");
    assert!(body.contains("# TYPE test_frames_total counter\ntest_frames_total 0\n"), "{body}");
    let accept =
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let asked = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    let answer = exchange(running.metrics, &asked).await;
    assert!(answer.contains(metrics::CONTENT_TYPE), "{answer}");
    assert!(answer.contains("test_frames_total 0") && answer.ends_with("# EOF\n"), "{answer}");

    for (addr, path) in [
        (running.health, "/metrics"),
        (running.metrics, "/health"),
        (running.health, "/"),
        (running.health, "/health/"),
        (running.metrics, "/%2e%2e/etc/passwd"),
    ] {
        assert_eq!(ask(addr, "GET", path).await.0, 404, "{path}");
    }
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn one_address_serves_both_paths() {
    let port = TcpListener::bind(loopback(0)).await.unwrap().local_addr().unwrap().port();
    let both = Config { health: loopback(port), metrics: loopback(port) };
    let running = start(both, Status::Degraded, Limits::default()).await;
    assert_eq!(running.health, running.metrics);
    let (status, _, body) = ask(running.health, "GET", "/health").await;
    assert_eq!((status, body.contains("degraded")), (200, true));
    assert_eq!(ask(running.health, "GET", "/metrics").await.0, 200);
}

#[tokio::test]
async fn unhealthy_answers_503_and_head_has_no_body() {
    let running = start_apart(Status::Unhealthy, Limits::default()).await;
    assert_eq!(ask(running.health, "GET", "/health").await.0, 503);
    let (status, head, body) = ask(running.health, "HEAD", "/health").await;
    assert_eq!((status, body.as_str()), (503, ""));
    assert!(head.contains("content-length: 6"), "{head}");
}

#[tokio::test]
async fn other_methods_are_refused() {
    let running = start_apart(Status::Healthy, Limits::default()).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        let (status, head, _) = ask(running.health, method, "/health").await;
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get, head"), "{head}");
    }
    let posted = "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    assert!(exchange(running.health, posted).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn garbage_and_huge_heads_are_refused() {
    let running = start_apart(Status::Healthy, Limits::default()).await;
    assert!(exchange(running.health, "\u{1}\u{2}\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let huge = format!("GET /health HTTP/1.1\r\nX: {}\r\n", "a".repeat(HEAD_BYTES_MAX));
    assert!(exchange(running.health, &huge).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_client_that_dawdles_over_its_head_is_closed() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
    let running = start_apart(Status::Healthy, limits).await;
    for begun in ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: x\r\n"] {
        let began = tokio::time::Instant::now();
        let closed =
            tokio::time::timeout(Duration::from_secs(5), exchange(running.health, begun)).await;
        let answer = closed.expect("the server closes the connection");
        assert!(!answer.contains("200 OK"), "{answer}");
        assert!(began.elapsed() >= Duration::from_millis(90), "{begun:?}");
    }
}

/// A role that says when it is asked about its health, and answers when it is told to.
async fn start_waiting(
    limits: Limits,
    asked: mpsc::UnboundedSender<()>,
    answer: CancellationToken,
) -> Running {
    let config = Config { health: loopback(0), metrics: loopback(0) };
    let server = Server::bind(&config).await.unwrap();
    let (health, metrics) = (server.health_addr(), server.metrics_addr());
    let stop = CancellationToken::new();
    let source = Source::from_fn(move || {
        let (asked, answer) = (asked.clone(), answer.clone());
        async move {
            asked.send(()).unwrap();
            answer.cancelled().await;
            Report::new(Status::Healthy, json!({}))
        }
    });
    let registry = Arc::new(metrics::registry());
    let task = tokio::spawn(server.serve_with(source, registry, stop.clone(), limits));
    Running { health, metrics, stop, task }
}

#[tokio::test]
async fn connections_are_capped_and_the_next_waits_for_a_place() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let answer = CancellationToken::new();
    let running = start_waiting(limits, asked, answer.clone()).await;
    let holder = || tokio::spawn(ask(running.health, "GET", "/health"));
    let holders = [holder(), holder()];
    for _ in &holders {
        was_asked.recv().await.unwrap();
    }
    let third = ask(running.metrics, "GET", "/metrics");
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(200), third.as_mut()).await;
    assert!(early.is_err(), "answered beyond the cap");
    answer.cancel();
    assert_eq!(third.await.0, 200);
    for holder in holders {
        assert_eq!(holder.await.unwrap().0, 200);
    }
}

/// As slow clients do that want to keep everybody else out.
#[tokio::test]
async fn who_is_silent_for_longest_gives_its_place_to_the_next() {
    let minute = Duration::from_secs(60);
    let limits = Limits {
        connections: 2,
        header_timeout: minute,
        connection_timeout: minute,
        ..Limits::default()
    };
    let running = start_apart(Status::Healthy, limits).await;
    let mut silent = Vec::new();
    for begun in ["", "GET /", "GET /health HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(running.health).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    for _ in 0..5 {
        assert_eq!(ask(running.health, "GET", "/health").await.0, 200);
        assert_eq!(ask(running.metrics, "GET", "/metrics").await.0, 200);
    }
    // The first two were sent away; the last of them may still ask.
    for mut stream in silent.drain(..2) {
        let mut rest = Vec::new();
        // Closed with or without what it had begun to say being read.
        stream.read_to_end(&mut rest).await.ok();
        assert_eq!(rest, b"");
    }
    let mut last = silent.pop().unwrap();
    last.write_all(b"Host: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_has_a_longest_life() {
    let limits = Limits {
        connection_timeout: Duration::from_millis(100),
        header_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let running = start_apart(Status::Healthy, limits).await;
    let closed =
        tokio::time::timeout(Duration::from_secs(5), exchange(running.health, "GET")).await;
    assert_eq!(closed.unwrap(), "");
}

#[tokio::test]
async fn a_stuck_role_is_unhealthy() {
    let pages = Pages {
        health: Some(Source::from_fn(std::future::pending)),
        registry: None,
        health_timeout: Duration::from_millis(20),
    };
    assert_eq!(pages.answer(&Method::GET, "/health", false).await.status(), 503);
    assert_eq!(pages.answer(&Method::GET, "/ready", false).await.status(), 503);
}

#[tokio::test]
async fn readiness_is_the_roles_own_word() {
    for (status, is_ready, code) in [
        (Status::Unhealthy, true, 200),
        (Status::Degraded, false, 503),
        (Status::Healthy, true, 200),
    ] {
        let report = move || async move { Report::new(status, json!({})).ready(is_ready) };
        let pages = Pages {
            health: Some(Source::from_fn(report)),
            registry: None,
            health_timeout: Duration::from_secs(5),
        };
        assert_eq!(pages.answer(&Method::GET, "/ready", false).await.status(), code);
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind(loopback(0)).await.unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Server::bind(&Config { health: loopback(0), metrics: addr }).await.unwrap_err();
    let text = super::super::exit::chain(&error);
    assert!(
        text.starts_with(&format!("listen on {addr} for /metrics: another process listens there")),
        "{text}"
    );
    assert_eq!(super::super::exit::Exit::of(&error), super::super::exit::Exit::Held);
}

#[tokio::test]
async fn stop_ends_it_though_a_client_hangs_on() {
    let running = start_apart(Status::Healthy, Limits::default()).await;
    let mut stream = TcpStream::connect(running.health).await.unwrap();
    stream.write_all(b"GET /").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(4), running.task).await.unwrap().unwrap();
}
