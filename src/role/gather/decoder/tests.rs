//! The decoder over a real journal: what waits while the database is away, damage on the way, and
//! how fast it is.

use std::collections::BTreeSet;

use super::*;
use crate::kalshi::session::SessionEvent;
use crate::log::appender::Appender;
use crate::log::journal::{self, claim};
use crate::ops::metrics;
use crate::pg::Target;
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;
use crate::pg::writer::{Fence, WriterLock};
use crate::role::gather::rows;

const T0: i64 = 1_785_901_540_000_000;
const SESSION: i64 = 77;

fn open(dir: &tempfile::TempDir) -> (Journal, Position) {
    let max_age = Duration::from_secs(3600);
    let config = journal::Config { dir: dir.path().join("journal"), max_age, max_bytes: 64 << 30 };
    let (journal, opened) = claim(config).unwrap().open().unwrap();
    (journal, opened.begin)
}

fn delta(number: i64, market: i64) -> String {
    let ts = Micros(T0 + number);
    let (price, sign) = (10 + number % 80, if number % 2 == 0 { "" } else { "-" });
    format!(
        r#"{{"type":"orderbook_delta","sid":2,"seq":{number},"msg":{{"market_ticker":"KXBTCD-26NOV2217-T{market}","market_id":"2b0a1c9e-6f3d-4f0b-9d37-6c7f4b8f{market:04}","price_dollars":"0.{price}00","delta_fp":"{sign}12.00","side":"yes","ts":"{ts}","ts_ms":{}}}}}"#,
        ts.0 / 1000
    )
}

/// Fills a journal with one session's snapshots and changes: `count` frames of `markets` markets.
async fn fill(journal: &Journal, count: i64, markets: i64) {
    let connected = SessionEvent::Connected {
        slot: "orderbook-1".to_owned(),
        channels: vec![Channel::OrderbookDelta],
    };
    let connected = serde_json::to_vec(&connected).unwrap();
    journal.append(Kind::Event, SESSION, Micros(T0), &connected).await;
    let levels: Vec<String> =
        (10..90).map(|price| format!(r#"["0.{price}00","9000000.00"]"#)).collect();
    for number in 1..=count {
        let at = Micros(T0 + number);
        let text = if number <= markets {
            format!(
                r#"{{"type":"orderbook_snapshot","sid":2,"seq":{number},"msg":{{"market_ticker":"KXBTCD-26NOV2217-T{}","yes_dollars_fp":[{}]}}}}"#,
                number % markets,
                levels.join(",")
            )
        } else {
            delta(number, number % markets)
        };
        journal.append(Kind::Frame, SESSION, at, text.as_bytes()).await;
    }
}

fn fresh() -> Places {
    let place = Place { head: 0, position: Position::default() };
    Places { logs: Log::ALL.into_iter().map(|log| (log, place)).collect(), open: Vec::new() }
}

struct Rig {
    decoder: Decoder,
    chunks: BTreeMap<Log, mpsc::Receiver<Chunk>>,
    registry: metrics::Registry,
    end: watch::Sender<Option<Position>>,
}

fn rig(journal: &Journal, live_from: Position) -> Rig {
    let mut registry = metrics::registry();
    let (mut senders, mut chunks) = (BTreeMap::new(), BTreeMap::new());
    for log in Log::ALL {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        senders.insert(log, sender);
        chunks.insert(log, receiver);
    }
    let (end, seen) = watch::channel(None);
    let decoder = Decoder {
        journal: journal.clone(),
        live_from,
        senders,
        resync: ResyncSenders::default(),
        metrics: Metrics::new(&mut registry, journal.clone()),
        end: seen,
    };
    Rig { decoder, chunks, registry, end }
}

fn frames_read(registry: &metrics::Registry) -> u64 {
    let text = metrics::encode(registry).unwrap();
    let line = text.lines().find(|line| line.starts_with("gatherer_frames_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn appender(
    log: Log,
    target: &Target,
    journal: &Journal,
    fence: watch::Receiver<Option<Fence>>,
    observer: Arc<Metrics>,
) -> Appender {
    Appender {
        log,
        target: target.clone(),
        journal: journal.id(),
        copy: rows::copy_statement(log),
        fence,
        used: None,
        observer,
        stopping: tokio_util::sync::CancellationToken::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_a_bounded_part_waits_in_memory_and_nothing_is_lost() {
    // More than a second of 50 times the usual 5,000 changes a second.
    const FRAMES: i64 = 300_000;
    let dir = tempfile::tempdir().unwrap();
    let (journal, begin) = open(&dir);
    let cluster = Cluster::start();
    let target = cluster.create_with("logs", Schema::Gatherer).await;
    let Rig { decoder, chunks, registry, end } = rig(&journal, begin);
    let (fence, fences) = watch::channel(None);
    let deltas = decoder.senders[&Log::OrderbookDeltas].clone();
    let mut appenders = tokio::task::JoinSet::new();
    for (log, chunks) in chunks {
        let observer = Arc::clone(&decoder.metrics);
        appenders.spawn(appender(log, &target, &journal, fences.clone(), observer).run(chunks));
    }
    let decoding = decoder.spawn(fresh()).unwrap();
    fill(&journal, FRAMES, 500).await;
    let stalled = async {
        // The channel is full, and stays so while the decoder waits to send one chunk more.
        let mut before = None;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = frames_read(&registry);
            if deltas.capacity() == 0 && before == Some(now) {
                break now;
            }
            before = Some(now);
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), stalled).await.expect("it stalls");
    // A change has 138 bytes as a row, so this is what the documented 18 MiB of a log hold.
    let bound = u64::try_from(18 * (1 << 20) / 138 + 500).unwrap();
    assert!(read > 8192 && read < bound, "{read} frames read, {bound} may wait");

    drop(deltas);
    let lock = WriterLock::acquire(&target, "test").await.unwrap();
    fence.send_replace(Some(lock.fence()));
    end.send_replace(Some(journal.close().await));
    decoding.await.unwrap().unwrap();
    while let Some(ended) = appenders.join_next().await {
        ended.unwrap().unwrap();
    }
    let client = target.connect().await.unwrap();
    let sql = "SELECT count(*), min(seq), max(seq), count(DISTINCT seq) FROM orderbook_deltas";
    let row = client.query_one(sql, &[]).await.unwrap();
    let found: [i64; 4] = [row.get(0), row.get(1), row.get(2), row.get(3)];
    assert_eq!(found, [FRAMES - 500, 501, FRAMES, FRAMES - 500]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_live_journal_asks_for_the_books_and_decoding_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, begin) = open(&dir);
    fill(&journal, 3000, 400).await;
    let end = journal.end();
    journal.written().wait_for(|at| *at >= end.0).await.unwrap();
    let path = std::fs::read_dir(journal.dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() * 4 / 5;
    bytes[middle..middle + 50].fill(0);
    std::fs::write(&path, bytes).unwrap();

    let Rig { decoder, chunks, registry, end } = rig(&journal, begin);
    let mut drains = tokio::task::JoinSet::new();
    for (log, mut chunks) in chunks {
        drains.spawn(async move {
            let mut rows = 0;
            while let Some(chunk) = chunks.recv().await {
                rows += chunk.rows;
            }
            (log, rows)
        });
    }
    let asked = Arc::new(crate::kalshi::session::Resync::default());
    decoder.resync.lock().unwrap().insert("orderbook-1".to_owned(), Arc::clone(&asked));
    let decoding = decoder.spawn(fresh()).unwrap();
    // None is dropped.
    let mut tickers = BTreeSet::new();
    while tickers.len() < 400 {
        let wait = tokio::time::timeout(Duration::from_secs(30), asked.asked());
        tickers.extend(wait.await.expect("every book is asked for"));
    }
    end.send_replace(Some(journal.close().await));
    decoding.await.unwrap().unwrap();
    let rows: BTreeMap<Log, i64> = drains.join_all().await.into_iter().collect();
    let (deltas, coverage) = (rows[&Log::OrderbookDeltas], rows[&Log::Coverage]);
    assert!((2590..2600).contains(&deltas), "{deltas}");
    assert_eq!(coverage, 400);
    assert!(metrics::encode(&registry).unwrap().contains("gatherer_journal_holes_total 1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_does_not_hold_a_stop_up() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, begin) = open(&dir);
    let cluster = Cluster::start();
    let target = cluster.create_with("logs", Schema::Gatherer).await;
    let lock = WriterLock::acquire(&target, "test").await.unwrap();
    let (_fence, fences) = watch::channel(Some(lock.fence()));
    // Takes connections and statements, and answers none that writes rows.
    let mut admin = target.connect().await.unwrap();
    let hung = admin.transaction().await.unwrap();
    hung.batch_execute("LOCK TABLE orderbook_deltas IN ACCESS EXCLUSIVE MODE").await.unwrap();

    let Rig { decoder, chunks, end, .. } = rig(&journal, begin);
    let stopping = tokio_util::sync::CancellationToken::new();
    let mut appenders = tokio::task::JoinSet::new();
    for (log, chunks) in chunks {
        let observer = Arc::clone(&decoder.metrics);
        let mut appender = appender(log, &target, &journal, fences.clone(), observer);
        appender.stopping = stopping.clone();
        appenders.spawn(appender.run(chunks));
    }
    let decoding = decoder.spawn(fresh()).unwrap();
    fill(&journal, 5000, 10).await;
    let waits = async {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while hung.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
    };
    tokio::time::timeout(Duration::from_secs(30), waits).await.expect("a batch hangs");
    stopping.cancel();
    end.send_replace(Some(journal.close().await));
    let ended = async {
        while let Some(ended) = appenders.join_next().await {
            ended.unwrap().unwrap();
        }
        decoding.await.unwrap().unwrap();
    };
    tokio::time::timeout(Duration::from_secs(18), ended).await.expect("it stops in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_cross_the_parts_of_a_log_and_none_is_refused() {
    const FRAMES: i64 = 20_000;
    const PART: i64 = 700;
    let dir = tempfile::tempdir().unwrap();
    let (journal, begin) = open(&dir);
    let cluster = Cluster::start();
    let target = cluster.create_with("logs", Schema::Gatherer).await;
    for log in [Log::OrderbookDeltas, Log::OrderbookSnapshots] {
        cluster.narrow(&target, log.name(), PART).await;
    }
    let lock = WriterLock::acquire(&target, "test").await.unwrap();
    let (_fence, fences) = watch::channel(Some(lock.fence()));
    let Rig { decoder, chunks, end, .. } = rig(&journal, begin);
    let mut appenders = tokio::task::JoinSet::new();
    for (log, chunks) in chunks {
        let observer = Arc::clone(&decoder.metrics);
        appenders.spawn(appender(log, &target, &journal, fences.clone(), observer).run(chunks));
    }
    let decoding = decoder.spawn(fresh()).unwrap();
    fill(&journal, FRAMES, 2000).await;
    end.send_replace(Some(journal.close().await));
    decoding.await.unwrap().unwrap();
    while let Some(ended) = appenders.join_next().await {
        ended.unwrap().unwrap();
    }
    let client = target.connect().await.unwrap();
    let engine = crate::pg::engine::find(&client).await.unwrap().unwrap();
    let sql = "SELECT count(*), min(seq), max(seq), count(DISTINCT log_seq), max(log_seq) \
               FROM orderbook_deltas";
    let row = client.query_one(sql, &[]).await.unwrap();
    let found: [i64; 5] = std::array::from_fn(|index| row.get(index));
    let rows = FRAMES - 2000;
    assert_eq!(found, [rows, 2001, FRAMES, rows, rows]);
    let parts = crate::log::parts::list(&client, engine, Log::OrderbookDeltas).await.unwrap();
    assert_eq!(i64::try_from(parts.len()).unwrap(), rows / PART + 1);
}

/// Prints how many changes a second one thread brings from the journal to encoded rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture bench_decode"]
async fn bench_decode() {
    const FRAMES: i64 = 2_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (journal, begin) = open(&dir);
    fill(&journal, FRAMES, 3000).await;
    let last = journal.close().await;
    let Rig { decoder, chunks, registry, end } = rig(&journal, begin);
    let mut drains = tokio::task::JoinSet::new();
    for (_, mut chunks) in chunks {
        drains.spawn(async move {
            let mut bytes = 0;
            while let Some(chunk) = chunks.recv().await {
                bytes += chunk.copy.len();
            }
            bytes
        });
    }
    let began = Instant::now();
    let decoding = decoder.spawn(fresh()).unwrap();
    while frames_read(&registry) < u64::try_from(FRAMES).unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (seconds, busy) = (began.elapsed().as_secs_f64(), thread_seconds("decode"));
    end.send_replace(Some(last));
    decoding.await.unwrap().unwrap();
    let bytes: usize = drains.join_all().await.into_iter().sum();
    let rate = f64::from(i32::try_from(FRAMES).unwrap());
    println!(
        "{{\"bench\":\"decode\",\"rows_per_second\":{:.0},\"rows_per_cpu_second\":{:.0},\"copy_bytes\":{bytes}}}",
        rate / seconds,
        rate / busy
    );
}

/// CPU seconds of the threads of a name, which the kernel counts in hundredths.
fn thread_seconds(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let of_name = stats.filter(|stat| stat.contains(&format!("({name})")));
    let ticks = of_name.flat_map(|stat| {
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).collect::<Vec<_>>()
    });
    f64::from(ticks.sum::<u32>()) / 100.0
}
