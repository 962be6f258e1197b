//! Figures of an exchange as large as the real one, and of a blast: for people, so only on demand
//! (`cargo nextest run --run-ignored only --no-capture -E 'test(scale)'`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio_tungstenite::MaybeTlsStream;

use super::super::{Source, rest};
use super::live::{Running, send};
use super::*;

const MARKETS: usize = 425_000;
const SESSIONS: usize = 450;

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / (1 << 20)
}

/// Seconds of processor time of this process: a hundredth is the kernel's unit.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u32>().unwrap();
    f64::from(ticks(11) + ticks(12)) / 100.0
}

fn tickers(running: &Running) -> Vec<Value> {
    running.exchange.hub.with(|venue| {
        venue.catalog.markets.iter().map(|market| Value::from(market.ticker.as_str())).collect()
    })
}

fn subscription(markets: &[Value]) -> Value {
    json!({"id": 1, "cmd": "subscribe", "params": {
        "channels": ["orderbook_delta"], "market_tickers": markets, "use_yes_price": true,
        "skip_ticker_ack": true,
    }})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn scale_of_listing_pages_handshakes_and_subscriptions() {
    let before = resident_mib();
    let begun = Instant::now();
    let source = Source::Generated {
        markets: MARKETS,
        multivariate: 0,
        rate: 5_000.0.into(),
        duration: Some(Duration::from_secs(5)),
    };
    let running = Running::start(source).await;
    eprintln!("listed {MARKETS} in {:?}: {} MiB", begun.elapsed(), resident_mib() - before);

    for filter in ["status=open", "status=unopened", "status=paused", "mve_filter=exclude"] {
        let (mut cursor, mut pages, mut slowest) = (String::new(), 0, Duration::ZERO);
        let begun = Instant::now();
        loop {
            let page_begun = Instant::now();
            let query = format!("limit=1000&{filter}&cursor={cursor}");
            let response = rest::answer(&running.exchange.hub, "/markets", &query, None);
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            slowest = slowest.max(page_begun.elapsed());
            pages += 1;
            let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            let next = text.rsplit("\"cursor\":\"").next().unwrap().split('"').next().unwrap();
            if next.is_empty() {
                break;
            }
            cursor = next.to_owned();
        }
        eprintln!("{filter}: {pages} pages in {:?}, the slowest {slowest:?}", begun.elapsed());
    }

    let begun = Instant::now();
    let mut sockets = Vec::new();
    for at in 0..SESSIONS {
        sockets.push(running.connect(at % 2).await.unwrap());
    }
    eprintln!("{SESSIONS} handshakes one after another in {:?}", begun.elapsed());
    let all = tickers(&running);
    let each = MARKETS.div_ceil(SESSIONS / 3);
    let begun = Instant::now();
    let mut readers = JoinSet::new();
    for (at, mut socket) in sockets.into_iter().enumerate() {
        let from = at / 3 * each;
        let markets = all[from..(from + each).min(MARKETS)].to_vec();
        readers.spawn(async move {
            send(&mut socket, subscription(&markets)).await;
            for _ in 0..=markets.len() {
                while !socket.next().await.unwrap().unwrap().is_text() {}
            }
            socket
        });
    }
    let mut live = Vec::new();
    while let Some(socket) = readers.join_next().await {
        live.push(socket.unwrap());
    }
    eprintln!(
        "{SESSIONS} subscriptions of {each} markets with snapshots in {:?}: {} MiB",
        begun.elapsed(),
        resident_mib() - before
    );
    let begun = Instant::now();
    let subscribed = running.exchange.subscribed_markets();
    eprintln!("{subscribed} are subscribed, counted in {:?}", begun.elapsed());
    for socket in live {
        tokio::spawn(async move {
            let (_writer, mut reader) = socket.split();
            while reader.next().await.is_some_and(|frame| frame.is_ok()) {}
        });
    }
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    running.exchange.publish();
    running.exchange.finished().await;
    let published = running.exchange.progress().orderbook_deltas;
    let spent = cpu_seconds() - cpu;
    eprintln!("{published} changes in {:?} with {spent:.1} s of processor", begun.elapsed());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn scale_of_a_blast() {
    let changes: u64 = 3_000_000;
    for readers in [1, 3] {
        let source = Source::Generated {
            markets: 3_000,
            multivariate: 0,
            rate: 1.0.into(),
            duration: Some(Duration::from_secs(1)),
        };
        let running = Running::start(source).await;
        let all = tickers(&running);
        let bytes = Arc::new(AtomicU64::new(0));
        for at in 0..readers {
            let mut socket = running.connect(at % 2).await.unwrap();
            send(&mut socket, subscription(&all)).await;
            let MaybeTlsStream::Plain(mut socket) = socket.into_inner() else { panic!("plain") };
            let bytes = Arc::clone(&bytes);
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 20];
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    bytes.fetch_add(u64::try_from(read).unwrap(), Ordering::Relaxed);
                }
            });
        }
        while running.exchange.subscribed_markets() < 3_000 * readers.min(2) {
            tokio::task::yield_now().await;
        }
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let changes = running.exchange.hub.blast.begin(changes).unwrap();
        super::super::blast::run(Arc::clone(&running.exchange.hub), changes).await;
        let (took, spent) = (begun.elapsed(), cpu_seconds() - cpu);
        let frames = running.exchange.hub.blast.json()["frames"].as_u64().unwrap();
        let rate = |seconds: f64| (Duration::from_secs(frames).as_secs_f64() / seconds).round();
        eprintln!(
            "{readers} readers: {frames} frames in {took:?}: {} a second, {} a second of processor \
             with the readers', {} MiB sent",
            rate(took.as_secs_f64()),
            rate(spent),
            bytes.load(Ordering::Relaxed) >> 20
        );
        running.stop().await;
    }
}
