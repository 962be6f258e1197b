//! What a gatherer counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::interpret::Counts;
use crate::log::appender::Observer;
use crate::log::journal::{Journal, Position};
use crate::model::{Delta, Log, Micros, Ticker};
use crate::ops::duration::seconds;
use crate::ops::metrics::latency_seconds;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LogLabel {
    log: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

/// One change in so many counts for the poller's order: an order needs no exact figures, and the
/// decoder's thread no more work.
const ACTIVITY_SAMPLE: u64 = 8;

/// Counters that only the decoder's thread moves, taken over from its running totals.
#[derive(Debug, Default)]
struct Interpreted {
    gaps: Counter,
    resets: Counter,
    duplicates: Counter,
    copies: Counter,
    audits: Counter,
    integrity_failures: Counter,
    decode_errors: Family<KindLabel, Counter>,
    unknown_frames: Counter,
    unknown_fields: Counter,
    exchange_errors: Counter,
    crossed_books: Counter,
    journal_holes: Counter,
    journal_pauses: Counter,
    polled_books: Family<ResultLabel, Counter>,
}

/// The gatherer's metrics, and what its appenders report.
pub struct Metrics {
    journal: Journal,
    frames: Counter,
    frame_bytes: Counter,
    interpreted: Interpreted,
    rows: Family<LogLabel, Counter>,
    batch_seconds: Family<LogLabel, Histogram>,
    commit_seconds: Family<LogLabel, Histogram>,
    exchange_seconds: Histogram,
    journal_bytes: Gauge,
    journal_needed: Gauge,
    journal_limit: Gauge,
    journal_free: Gauge,
    journal_written: Gauge<u64, AtomicU64>,
    journal_committed: Gauge<u64, AtomicU64>,
    journal_full: Gauge,
    database_up: Gauge,
    pub markets: Gauge,
    pub connections: Gauge,
    pub connections_planned: Gauge,
    connects: Counter,
    pub books: Gauge,
    pub books_wanted: Gauge,
    pub sessions_refused: Gauge,
    pub audit_age_seconds: Gauge,
    /// Complete lists of markets and lists of changes, and those that failed.
    lists: Counter,
    list_failures: Counter,
    pub unplaced: Gauge,
    pub paused: Gauge,
    parts_dropped: Family<LogLabel, Counter>,
    retention_overdue: Family<LogLabel, Gauge>,
    polls: Family<ResultLabel, Counter>,
    poll_age: Gauge,
    clock_offset: Family<SourceLabel, Gauge<f64, AtomicU64>>,
    /// The least that a change took from the exchange's clock to ours, since it was last asked.
    least_delay: AtomicI64,
    changes: AtomicU64,
    /// Sampled changes by market since the poller last asked; at most the markets that are recorded.
    activity: Mutex<HashMap<Ticker, u32>>,
    /// The journal position of each log's last commit.
    committed: Mutex<[Option<Position>; Log::ALL.len()]>,
    away: [AtomicBool; Log::ALL.len()],
}

/// Takes over a total that somebody else keeps.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn index(log: Log) -> usize {
    Log::ALL.iter().position(|other| *other == log).unwrap_or_default()
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry, journal: Journal) -> Arc<Self> {
        let histogram: fn() -> Histogram = || Histogram::new(latency_seconds());
        let metrics = Self {
            journal,
            frames: Counter::default(),
            frame_bytes: Counter::default(),
            interpreted: Interpreted::default(),
            rows: Family::default(),
            batch_seconds: Family::new_with_constructor(histogram),
            commit_seconds: Family::new_with_constructor(histogram),
            exchange_seconds: histogram(),
            journal_bytes: Gauge::default(),
            journal_needed: Gauge::default(),
            journal_limit: Gauge::default(),
            journal_free: Gauge::default(),
            journal_written: Gauge::default(),
            journal_committed: Gauge::default(),
            journal_full: Gauge::default(),
            database_up: Gauge::default(),
            markets: Gauge::default(),
            connections: Gauge::default(),
            connections_planned: Gauge::default(),
            connects: Counter::default(),
            books: Gauge::default(),
            books_wanted: Gauge::default(),
            sessions_refused: Gauge::default(),
            audit_age_seconds: Gauge::default(),
            lists: Counter::default(),
            list_failures: Counter::default(),
            unplaced: Gauge::default(),
            paused: Gauge::default(),
            parts_dropped: Family::default(),
            retention_overdue: Family::default(),
            polls: Family::default(),
            poll_age: Gauge::default(),
            clock_offset: Family::default(),
            least_delay: AtomicI64::new(i64::MAX),
            changes: AtomicU64::new(0),
            activity: Mutex::default(),
            committed: Mutex::default(),
            away: Default::default(),
        };
        metrics.register(registry);
        // Logs without rows yet are there from the start: an absent series looks like a dead process.
        for log in Log::ALL {
            drop(metrics.rows.get_or_create(&LogLabel { log: log.name() }));
            drop(metrics.parts_dropped.get_or_create(&LogLabel { log: log.name() }));
            metrics.retention_overdue(log, None);
        }
        Arc::new(metrics)
    }

    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("gatherer");
        let i = &self.interpreted;
        let counters = [
            ("frames", "Frames read from the journal", &self.frames),
            ("frame_bytes", "Bytes of those frames", &self.frame_bytes),
            ("sequence_gaps", "Numbers of a subscription that were missing", &i.gaps),
            ("sequence_resets", "Subscriptions whose numbers went back", &i.resets),
            ("sequence_duplicates", "Frames that came twice with one number", &i.duplicates),
            ("copies_skipped", "Second copies from doubled channels", &i.copies),
            ("audits", "Replayed books compared with a snapshot in its place", &i.audits),
            ("integrity_failures", "Books that contradicted the exchange", &i.integrity_failures),
            ("unknown_frames", "Frames of an unknown type", &i.unknown_frames),
            ("unknown_fields", "Frames with an unknown field", &i.unknown_fields),
            ("exchange_errors", "Error frames", &i.exchange_errors),
            ("journal_holes", "Damaged or missing parts of the journal", &i.journal_holes),
            ("journal_pauses", "Times that a session waited over 1 s", &i.journal_pauses),
            ("crossed_books", "Snapshots whose best bid reaches the best ask", &i.crossed_books),
            ("market_lists", "Lists of markets that were read", &self.lists),
            ("market_list_failures", "Lists of markets not read to their end", &self.list_failures),
            ("websocket_connects", "Connections made to the exchange", &self.connects),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "decode_errors",
            "Frames that could not be decoded; they stay in the journal",
            i.decode_errors.clone(),
        );
        registry.register(
            "polled_books",
            "Books asked for over REST, beside the replayed ones: one that moves may differ",
            i.polled_books.clone(),
        );
        registry.register(
            "parts_dropped",
            "Chunks or partitions of a log that the retention dropped",
            self.parts_dropped.clone(),
        );
        registry.register(
            "retention_overdue_seconds",
            "How long rows past the retention are kept because a consumer has not read them; else 0",
            self.retention_overdue.clone(),
        );
        registry.register("polls", "Calls of the REST poller", self.polls.clone());
        registry.register(
            "clock_offset_seconds",
            "How far the exchange's clock is ahead of ours, at least, by its frames, and by its replies",
            self.clock_offset.clone(),
        );
        registry.register("rows_written", "Rows committed to a log", self.rows.clone());
        registry.register(
            "batch_seconds",
            "From BEGIN to the commit's acknowledgement",
            self.batch_seconds.clone(),
        );
        registry.register(
            "socket_to_commit_seconds",
            "Age of a batch's oldest row at its commit",
            self.commit_seconds.clone(),
        );
        registry.register(
            "exchange_to_socket_seconds",
            "From the exchange's time of a change to its receipt, 0 when our clock is behind",
            self.exchange_seconds.clone(),
        );
        let gauges = [
            ("journal_bytes", "Bytes of the journal on disk", &self.journal_bytes),
            ("journal_needed_bytes", "Of those, bytes that a log needs", &self.journal_needed),
            ("journal_limit_bytes", "What journal.max_bytes allows", &self.journal_limit),
            ("journal_free_bytes", "Free bytes of its file system", &self.journal_free),
            ("journal_full", "Recording pauses because the cap is reached", &self.journal_full),
            ("database_up", "The database takes batches", &self.database_up),
            ("markets_active", "Markets in the registry", &self.markets),
            ("websocket_connections", "Sessions connected and subscribed", &self.connections),
            ("websocket_connections_planned", "Sessions wanted", &self.connections_planned),
            ("books", "Order books with a snapshot", &self.books),
            ("books_wanted", "Order books that the plan asks for", &self.books_wanted),
            (
                "sessions_refused",
                "Sessions that the exchange refuses until the key or its mind changes",
                &self.sessions_refused,
            ),
            (
                "audit_age_seconds",
                "How long ago the book was compared with a snapshot that waits longest for it",
                &self.audit_age_seconds,
            ),
            ("markets_unplaced", "Markets that no session has room for", &self.unplaced),
            ("exchange_paused", "The exchange says that it pauses", &self.paused),
            ("poll_age_seconds", "Since the poll of the market that waits longest", &self.poll_age),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "journal_written_position",
            "Bytes of records taken since the journal was made",
            self.journal_written.clone(),
        );
        registry.register(
            "journal_committed_position",
            "The place that every log has passed",
            self.journal_committed.clone(),
        );
    }

    /// A frame was read.
    pub fn frame(&self, bytes: usize) {
        self.frames.inc();
        self.frame_bytes.inc_by(u64::try_from(bytes).unwrap_or_default());
    }

    /// A change of a book was read.
    pub fn change(&self, delta: &Delta) {
        let delay = delta.received_at.since(delta.exchange_ts);
        self.exchange_seconds.observe(seconds(delay.max(0)));
        if delay < self.least_delay.load(Ordering::Relaxed) {
            self.least_delay.fetch_min(delay, Ordering::Relaxed);
        }
        if self.changes.fetch_add(1, Ordering::Relaxed).is_multiple_of(ACTIVITY_SAMPLE) {
            let mut activity = self.activity.lock().unwrap_or_else(PoisonError::into_inner);
            match activity.get_mut(&delta.ticker) {
                Some(count) => *count = count.saturating_add(1),
                None => {
                    activity.insert(delta.ticker.clone(), 1);
                }
            }
        }
    }

    /// Sampled changes by market since the last call.
    pub fn take_activity(&self) -> HashMap<Ticker, u32> {
        std::mem::take(&mut *self.activity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The least that a change took from the exchange's clock to ours since the last call, in
    /// microseconds; negative when our clock is behind. None without a change.
    pub fn take_least_delay(&self) -> Option<i64> {
        let least = self.least_delay.swap(i64::MAX, Ordering::Relaxed);
        (least != i64::MAX).then_some(least)
    }

    /// The exchange's clock is that many microseconds ahead of ours, by `rest` or by `stream`.
    pub fn clock_offset(&self, source: &'static str, micros: i64) {
        self.clock_offset.get_or_create(&SourceLabel { source }).set(seconds(micros));
    }

    /// Parts of a log were dropped.
    pub fn parts_dropped(&self, log: Log, parts: usize) {
        let parts = u64::try_from(parts).unwrap_or_default();
        self.parts_dropped.get_or_create(&LogLabel { log: log.name() }).inc_by(parts);
    }

    /// How long the oldest part of a log could have been gone, but for a consumer.
    pub fn retention_overdue(&self, log: Log, overdue: Option<Duration>) {
        let seconds = overdue.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        self.retention_overdue.get_or_create(&LogLabel { log: log.name() }).set(seconds);
    }

    /// A call of the poller ended.
    pub fn poll(&self, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.polls.get_or_create(&ResultLabel { result }).inc();
    }

    /// How long the market that waits longest was not polled.
    pub fn poll_age(&self, age: Option<Duration>) {
        let age = age.map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        self.poll_age.set(age);
    }

    /// So many connections were made by all sessions together, since the process began.
    pub fn connects(&self, total: u64) {
        raise(&self.connects, total);
    }

    /// So many lists of markets were read and failed, since the process began.
    pub fn lists(&self, read: u64, failed: u64) {
        raise(&self.lists, read);
        raise(&self.list_failures, failed);
    }

    /// Takes over the decoder's totals.
    pub fn interpreted(&self, counts: &Counts) {
        let i = &self.interpreted;
        raise(&i.gaps, counts.gaps);
        raise(&i.resets, counts.resets);
        raise(&i.duplicates, counts.duplicates);
        raise(&i.copies, counts.copies);
        raise(&i.audits, counts.audits);
        raise(&i.integrity_failures, counts.integrity_failures);
        raise(&i.unknown_frames, counts.unknown_types);
        raise(&i.unknown_fields, counts.unknown_fields);
        raise(&i.exchange_errors, counts.exchange_errors);
        raise(&i.crossed_books, counts.crossed);
        raise(&i.journal_holes, counts.holes);
        raise(&i.journal_pauses, counts.pauses);
        let polled = [
            ("matched", counts.polls_matched),
            ("differed", counts.polls_differed),
            ("unknown", counts.polls_unknown),
        ];
        for (result, total) in polled {
            raise(&i.polled_books.get_or_create(&ResultLabel { result }), total);
        }
        for (kind, total) in &counts.decode_errors {
            raise(&i.decode_errors.get_or_create(&KindLabel { kind }), *total);
        }
    }

    /// Reads the journal's state into the gauges.
    pub fn read_journal(&self) {
        let usage = self.journal.usage();
        let figures = [
            (&self.journal_bytes, usage.bytes),
            (&self.journal_needed, usage.needed),
            (&self.journal_limit, usage.limit),
            (&self.journal_free, usage.free),
        ];
        for (gauge, bytes) in figures {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        self.journal_written.set(self.journal.end().0);
        self.journal_full.set(i64::from(usage.full));
    }

    /// Whether the database takes the batches of every log.
    pub fn is_database_up(&self) -> bool {
        !self.away.iter().any(|away| away.load(Ordering::Relaxed))
    }
}

impl Observer for Metrics {
    fn committed(&self, log: Log, rows: i64, position: Position, oldest: Option<Micros>) {
        let label = LogLabel { log: log.name() };
        self.rows.get_or_create(&label).inc_by(u64::try_from(rows).unwrap_or_default());
        self.database_up.set(1);
        if let Some(oldest) = oldest {
            let age = Micros::now().since(oldest).max(0);
            self.commit_seconds.get_or_create(&label).observe(seconds(age));
        }
        let lowest = {
            let mut places = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = places.get_mut(index(log)) {
                *place = Some(position);
            }
            places.iter().copied().min().flatten()
        };
        if let Some(lowest) = lowest {
            self.journal_committed.set(lowest.0);
            self.journal.consumed(lowest);
        }
    }

    fn batch_seconds(&self, log: Log, seconds: f64) {
        self.batch_seconds.get_or_create(&LogLabel { log: log.name() }).observe(seconds);
    }

    fn available(&self, log: Log, available: bool) {
        if let Some(away) = self.away.get(index(log)) {
            away.store(!available, Ordering::Relaxed);
        }
        self.database_up.set(i64::from(self.is_database_up()));
    }
}
