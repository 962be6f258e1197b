//! The roles as processes over a real PostgreSQL: who may write, what a wiped gatherer becomes, and
//! what bad input does.

#![allow(clippy::indexing_slicing, reason = "tests say what must hold")]

mod support;

use std::path::Path;

use rustix::process::Signal;
use support::{
    Cluster, Exchange, GathererFile, Process, deduplicator_file, gatherer_file, migrate, request,
    wait_for,
};

/// A running gatherer and deduplicator.
struct Platform {
    exchange: Exchange,
    file: GathererFile,
    gatherer: Process,
    dedup: Process,
    /// Dropped last, in this order: everything else uses them.
    cluster: Cluster,
    root: tempfile::TempDir,
}

fn config(path: &Path) -> &str {
    path.to_str().expect("a path of ours is UTF-8")
}

impl Platform {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        for database in ["g1", "production"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
        }
        let exchange = Exchange::start(&["--markets", "20", "--rate", "200", "--seed", "3"]);
        let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
        let dedup_file = deduplicator_file(
            root.path(),
            "dedup",
            &cluster,
            &[("gatherer-1", "g1")],
            "production",
        );
        migrate(&file.path);
        migrate(&dedup_file);
        let logs = root.path();
        let gatherer =
            Process::start(&["gather", "--config", config(&file.path)], logs.join("g1.log"));
        let dedup = Process::start(&["dedup", "--config", config(&dedup_file)], logs.join("d.log"));
        let platform = Self { exchange, file, gatherer, dedup, cluster, root };
        platform.wait_rows("production", 200);
        platform
    }

    fn wait_rows(&self, database: &str, rows: i64) {
        wait_for(&format!("{rows} changes in {database}"), || {
            (self.deltas(database) >= rows).then_some(())
        });
    }

    fn deltas(&self, database: &str) -> i64 {
        self.cluster.number(database, "SELECT head FROM logs WHERE name = 'orderbook_deltas'")
    }

    fn assert_dense(&self, database: &str) {
        for log in ["trades", "orderbook_deltas", "orderbook_snapshots", "tickers", "coverage"] {
            let dense = self.cluster.sql(
                database,
                &format!(
                    "SELECT count(*) = head AND coalesce(max(log_seq), 0) = head \
                     AND coalesce(min(log_seq), 1) = 1 \
                     FROM {log} RIGHT JOIN logs ON true WHERE name = '{log}' GROUP BY head"
                ),
            );
            let empty = self
                .cluster
                .number(database, &format!("SELECT head FROM logs WHERE name = '{log}'"))
                == 0;
            assert!(empty || dense == "t", "{log} in {database}: {dense}");
        }
    }
}

#[test]
fn a_second_writer_is_refused_with_the_holders_name() {
    let platform = Platform::start();
    let root = platform.root.path();

    // The same journal; then its own journal, and the same database.
    let mut twin =
        Process::start(&["gather", "--config", config(&platform.file.path)], root.join("twin.log"));
    assert_eq!(twin.ended().code(), Some(75));
    assert!(twin.log().contains("in use by another process"), "{}", twin.log());
    let Platform { exchange, cluster, .. } = &platform;
    let second = gatherer_file(root, "g1-second", "gatherer-1", exchange, cluster, "g1");
    let mut twin =
        Process::start(&["gather", "--config", config(&second.path)], root.join("second.log"));
    assert_eq!(twin.ended().code(), Some(75), "{}", twin.log());
    assert!(twin.log().contains("gatherer gatherer-1 (process"), "{}", twin.log());

    // A database belongs to one gatherer for good.
    let other = gatherer_file(root, "g2", "gatherer-2", exchange, cluster, "g1");
    let mut stranger =
        Process::start(&["gather", "--config", config(&other.path)], root.join("other.log"));
    assert_eq!(stranger.ended().code(), Some(64), "{}", stranger.log());
    assert!(stranger.log().contains("belongs to gatherer \"gatherer-1\""), "{}", stranger.log());

    let rival = deduplicator_file(root, "rival", cluster, &[("gatherer-1", "g1")], "production");
    let mut rival = Process::start(&["dedup", "--config", config(&rival)], root.join("rival.log"));
    assert_eq!(rival.ended().code(), Some(75), "{}", rival.log());
    assert!(rival.log().contains("dedup"), "{}", rival.log());

    // Nobody was disturbed.
    platform.wait_rows("production", platform.deltas("production") + 100);
}

#[test]
fn a_paused_writer_that_was_replaced_cannot_commit_when_it_wakes() {
    let mut platform = Platform::start();
    let root = platform.root.path().to_owned();
    platform.dedup.signal(Signal::STOP);
    // Its server's sessions end, as after a network that was away for long.
    platform.cluster.sql(
        "production",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = 'production' AND pid <> pg_backend_pid()",
    );
    let successor = deduplicator_file(
        &root,
        "successor",
        &platform.cluster,
        &[("gatherer-1", "g1")],
        "production",
    );
    let mut successor =
        Process::start(&["dedup", "--config", config(&successor)], root.join("successor.log"));
    let before = platform.deltas("production");
    platform.wait_rows("production", before + 100);
    platform.dedup.signal(Signal::CONT);
    assert_eq!(platform.dedup.ended().code(), Some(75), "{}", platform.dedup.log());
    assert!(platform.dedup.log().contains("successor"), "{}", platform.dedup.log());

    // The same for a gatherer: paused, replaced by one with a journal of its own.
    platform.gatherer.signal(Signal::STOP);
    platform.cluster.sql(
        "g1",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = 'g1' AND pid <> pg_backend_pid() AND application_name NOT LIKE '%dedup%'",
    );
    let Platform { exchange, cluster, .. } = &platform;
    let second = gatherer_file(&root, "g1-second", "gatherer-1", exchange, cluster, "g1");
    let mut replacement =
        Process::start(&["gather", "--config", config(&second.path)], root.join("second.log"));
    let before = platform.deltas("g1");
    platform.wait_rows("g1", before + 100);
    platform.gatherer.signal(Signal::CONT);
    assert_eq!(platform.gatherer.ended().code(), Some(75), "{}", platform.gatherer.log());

    assert_eq!(replacement.stop().code(), Some(0), "{}", replacement.log());
    let head = platform.deltas("g1");
    wait_for("everything of the gatherer in production", || {
        let position = platform.cluster.number(
            "production",
            "SELECT position FROM sync_cursors WHERE table_name = 'orderbook_deltas'",
        );
        (position == head).then_some(())
    });
    assert_eq!(successor.stop().code(), Some(0), "{}", successor.log());
    platform.assert_dense("g1");
    platform.assert_dense("production");
}

#[test]
fn a_wiped_gatherer_is_a_new_log_that_is_read_from_the_beginning() {
    let mut platform = Platform::start();
    let root = platform.root.path().to_owned();
    assert_eq!(platform.gatherer.stop().code(), Some(0), "{}", platform.gatherer.log());
    let cursors = "SELECT count(*) FROM sync_cursors WHERE table_name = 'orderbook_deltas'";
    assert_eq!(platform.cluster.number("production", cursors), 1);
    platform.cluster.sql("postgres", "DROP DATABASE g1 WITH (FORCE)");
    platform.cluster.sql("postgres", "CREATE DATABASE g1");
    migrate(&platform.file.path);

    // The same gatherer with an empty disk: neither the database nor the journal is there.
    std::fs::remove_dir_all(&platform.file.journal).expect("remove the journal");
    platform.gatherer =
        Process::start(&["gather", "--config", config(&platform.file.path)], root.join("g1.log"));
    platform.wait_rows("g1", 300);
    assert_eq!(platform.gatherer.stop().code(), Some(0), "{}", platform.gatherer.log());
    let head = platform.deltas("g1");
    let identity =
        platform.cluster.sql("g1", "SELECT log_id FROM logs WHERE name = 'orderbook_deltas'");
    wait_for("the new log in production", || {
        let position = platform.cluster.sql(
            "production",
            &format!("SELECT position FROM sync_cursors WHERE log_id = '{identity}'"),
        );
        (position == head.to_string()).then_some(())
    });
    assert_eq!(platform.cluster.number("production", cursors), 2);
    assert_eq!(platform.dedup.stop().code(), Some(0), "{}", platform.dedup.log());

    // Every row of the new log is there, from the first on, beside those of the old one.
    let identity = "SELECT ticker, exchange_ts, side, price, size_delta, occurrence \
                    FROM orderbook_deltas ORDER BY 1, 2, 3, 4, 5, 6";
    let production = platform.cluster.sql("production", identity);
    let known: std::collections::HashSet<&str> = production.lines().collect();
    let recorded = platform.cluster.sql("g1", identity);
    assert!(recorded.lines().count() >= 300);
    assert_eq!(recorded.lines().filter(|row| !known.contains(row)).count(), 0);
    assert!(known.len() > recorded.lines().count());
    assert_eq!(known.len(), production.lines().count(), "nothing is there twice");
    platform.assert_dense("production");
}

/// A metric's value; 0 when it is not there yet.
fn metric(address: &str, name: &str) -> u64 {
    let text = request(address, "GET", "/metrics", "");
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|r| r.starts_with(' ')));
    let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
    value.parse().unwrap_or_else(|error| panic!("{name}: {value:?}: {error}"))
}

#[test]
fn bad_input_is_counted_kept_and_said_once_and_the_stream_goes_on() {
    let mut platform = Platform::start();
    let metrics = platform.file.metrics.clone();
    let delta = |price: &str, size: &str, ticker: &str| {
        format!(
            r#"{{"type":"orderbook_delta","sid":$SID,"seq":$SEQ,"msg":{{"market_ticker":"{ticker}","price_dollars":"{price}","delta_fp":"{size}","side":"yes","ts_ms":1785901540722}}}}"#
        )
    };
    let long = "K".repeat(300);
    let frames = [
        ("garbage in place of a frame".to_owned(), 0),
        (r#"{"type":"orderbook_delta","sid":$SID,"msg":{"market_tick"#.to_owned(), 0),
        (r#"{"type":"moon_phase","sid":$SID,"seq":$SEQ,"msg":{"phase":"full"}}"#.to_owned(), 0),
        (delta("0.123456789", "1.00", "KXBAD-PRICE"), 0),
        (delta("0.5000", "1e9", "KXBAD-SIZE"), 0),
        (delta("0.5000", "1.00", &long), 0),
        // 20 MiB in one frame, of a type that is not known either.
        (
            r#"{"type":"very_large","sid":$SID,"seq":$SEQ,"msg":{"pad":"$PAD"}}"#.to_owned(),
            20 << 20,
        ),
    ];
    let lines: Vec<String> = frames
        .iter()
        .map(|(raw, pad)| {
            serde_json::json!({ "channel": "orderbook_delta", "raw": raw, "repeat_bytes": pad })
                .to_string()
        })
        .collect();
    // Twice, so that saying it once can be told from saying it each time.
    for _ in 0..2 {
        platform.exchange.control("/inject", &(lines.join("\n") + "\n"));
    }
    // Two order-book sessions heard each of them twice.
    let counted =
        |kind: &str| metric(&metrics, &format!("gatherer_decode_errors_total{{kind=\"{kind}\"}}"));
    wait_for("every bad frame counted", || {
        let whole = counted("json") >= 8
            && counted("orderbook_delta") >= 12
            && metric(&metrics, "gatherer_unknown_frames_total") >= 8;
        whole.then_some(())
    });
    let before = platform.deltas("production");
    platform.wait_rows("production", before + 100);
    assert_eq!(metric(&metrics, "gatherer_sequence_gaps_total"), 0);
    assert_eq!(metric(&metrics, "gatherer_integrity_failures_total"), 0);

    let log = platform.gatherer.log();
    let said = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    for text in ["price_dollars", "0.123456789", "1e9", "300 bytes", "moon_phase", "very_large"] {
        assert_eq!(said(text), 1, "{text} in {log}");
    }
    // Once for each session's first unreadable frame and once where the journal is read.
    assert!((1..=4).contains(&said("garbage")), "{log}");
    assert!(!log.contains("panicked"), "{log}");

    assert_eq!(platform.gatherer.stop().code(), Some(0), "{log}");
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(&platform.file.journal).expect("list the journal") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("read a segment");
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("journal") => kept.extend(bytes),
            Some("zst") => {
                kept.extend(zstd::decode_all(bytes.as_slice()).expect("a whole segment"))
            }
            _ => {}
        }
    }
    for text in ["garbage in place", "0.123456789", "\"1e9\"", "moon_phase", "very_large", &long] {
        let found = kept.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
        assert_eq!(found, 4, "{} in the journal", &text[..text.len().min(20)]);
    }
    let open = platform.cluster.number("g1", "SELECT count(*) FROM coverage_open");
    assert_eq!(open, 0, "an orderly stop ends every stretch");
}
