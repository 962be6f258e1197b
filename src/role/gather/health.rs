//! A gatherer's health, by the thresholds that operators know.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::log::journal::Usage;
use crate::ops::health::{Report, Status};
use crate::pg::Class;
use crate::pg::pool::GetError;

/// The part of the journal's budget, in percent, from which on health says so. What is left then
/// lasts hours on a disk of the recommended size.
const JOURNAL_DEGRADED_PERCENT: u64 = 80;
/// The unfiltered ticker stream is never silent this long while the exchange trades.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Clocks that differ by more are worth a warning.
const CLOCK_SECONDS_MAX: f64 = 1.0;

/// What health is judged by, read at one moment.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// The last ping of the database; none when it did not answer.
    pub database_ping: Option<Duration>,
    /// Why it did not.
    pub database_error: Option<GetError>,
    /// Whether batches are taken.
    pub database_up: bool,
    pub sessions_planned: usize,
    pub sessions_healthy: usize,
    pub sessions_connected: usize,
    /// Sessions that the exchange refuses, and what it said to one of them.
    pub sessions_refused: usize,
    pub refusal: Option<String>,
    pub markets: usize,
    /// Whether a complete list of markets was read, and why the last one failed.
    pub markets_loaded: bool,
    pub list_error: Option<String>,
    /// Whether the exchange refused the key for the last list.
    pub list_refused: bool,
    /// Markets that no session has room for.
    pub unplaced: usize,
    pub books: usize,
    pub books_wanted: usize,
    /// How long no frame came on the ticker channel of all markets.
    pub ticker_silent: Duration,
    pub journal: Usage,
    /// What divides the logs into parts, once that is known.
    pub engine: Option<&'static str>,
    /// Why rows are kept long past their retention.
    pub retention_waits: Option<String>,
    pub exchange: Exchange,
    /// How far the exchange's clock is ahead of ours, in seconds, by its replies.
    pub clock_offset: Option<f64>,
}

impl Vitals {
    /// Whether something is recorded: a session is subscribed.
    pub fn is_recording(&self) -> bool {
        self.sessions_healthy > 0
    }

    /// Whether the exchange refuses us: the key, most likely.
    pub fn is_refused(&self) -> bool {
        self.sessions_refused > 0 || self.list_refused
    }

    /// Whether most sessions are down, which is a reason to ask the exchange whether it is there.
    pub fn is_troubled(&self) -> bool {
        self.sessions_healthy * 2 < self.sessions_planned
    }
}

/// A component's verdict and, when it is not healthy, a sentence that says why.
struct Verdict(Status, Option<String>);

impl Verdict {
    const WELL: Self = Self(Status::Healthy, None);

    fn unhealthy(reason: impl Into<String>) -> Self {
        Self(Status::Unhealthy, Some(reason.into()))
    }

    fn degraded(reason: impl Into<String>) -> Self {
        Self(Status::Degraded, Some(reason.into()))
    }

    /// Puts status and reason beside a component's figures.
    fn with(&self, mut figures: Value) -> Value {
        if let Some(object) = figures.as_object_mut() {
            object.insert("status".to_owned(), self.0.as_str().into());
            if let Some(reason) = &self.1 {
                object.insert("reason".to_owned(), reason.as_str().into());
            }
        }
        figures
    }
}

/// The whole report.
pub fn report(vitals: &Vitals) -> Report {
    let database = database(vitals);
    let websocket = websocket(vitals);
    let registry = registry(vitals);
    let books = books(vitals);
    let recording = recording(vitals);
    let journal = journal(&vitals.journal);
    let exchange = exchange(vitals);
    let storage = storage(vitals);
    let ping_ms = vitals.database_ping.map(|ping| ping.as_secs_f64() * 1000.0);
    let connected = vitals.database_up && vitals.database_ping.is_some();
    let stands = &vitals.exchange;
    let components = json!({
        "timescaledb": if connected { "connected" } else { "disconnected" },
        "timescaledb_ping_ms": ping_ms,
        "database": database.with(json!({ "ping_ms": ping_ms })),
        "websocket": websocket.with(json!({
            "connections": vitals.sessions_connected,
            "healthy": vitals.sessions_healthy,
            "planned": vitals.sessions_planned,
            "refused": vitals.sessions_refused,
        })),
        "market_registry": registry.with(json!({
            "markets": vitals.markets,
            "loaded": vitals.markets_loaded,
            "unplaced": vitals.unplaced,
        })),
        "books": books.with(json!({
            "wanted": vitals.books_wanted,
            "with_snapshot": vitals.books,
        })),
        "recording": recording.with(json!({
            "ready": vitals.is_recording(),
            "ticker_silent_seconds": vitals.ticker_silent.as_secs(),
        })),
        "journal": journal.with(json!({
            "bytes": vitals.journal.bytes,
            "needed_bytes": vitals.journal.needed,
            "limit_bytes": vitals.journal.limit,
            "free_bytes": vitals.journal.free,
            "used_percent": vitals.journal.percent(),
            "full_in_seconds": vitals.journal.until_full().map(|left| left.as_secs()),
            "full": vitals.journal.full,
        })),
        "storage": storage.with(json!({ "engine": vitals.engine })),
        "exchange": exchange.with(json!({
            "active": stands.exchange_active,
            "trading": stands.trading_active,
            "paused": stands.is_paused(),
            "reachable": !stands.unreachable,
            "clock_offset_seconds": vitals.clock_offset,
        })),
        "maintenance": stands.is_paused(),
    });
    let all = [&database, &websocket, &registry, &books, &recording, &journal, &exchange, &storage];
    Report::new(Status::worst(all.map(|verdict| verdict.0)), components)
        .ready(vitals.is_recording())
}

fn database(vitals: &Vitals) -> Verdict {
    let slow = |ping: Duration| format!("the database took {} ms to answer", ping.as_millis());
    match vitals.database_ping {
        None => {
            let why = match &vitals.database_error {
                Some(error) if error.class == Class::Auth => format!("refuses us ({error})"),
                Some(error) => format!("does not answer ({error})"),
                None => "does not answer".to_owned(),
            };
            Verdict::unhealthy(format!("the database {why}: the journal keeps what comes"))
        }
        Some(_) if !vitals.database_up => {
            Verdict::unhealthy("the database takes no rows: the journal keeps what comes")
        }
        Some(ping) if ping < Duration::from_millis(100) => Verdict::WELL,
        Some(ping) if ping <= Duration::from_millis(500) => Verdict::degraded(slow(ping)),
        Some(ping) => Verdict::unhealthy(slow(ping)),
    }
}

/// Rows that are kept for a consumer fill the disk in the end.
fn storage(vitals: &Vitals) -> Verdict {
    vitals.retention_waits.as_ref().map_or(Verdict::WELL, Verdict::degraded)
}

fn journal(usage: &Usage) -> Verdict {
    if usage.full {
        Verdict::unhealthy(
            "the journal is full of what the database does not have yet: recording pauses",
        )
    } else if usage.percent() >= JOURNAL_DEGRADED_PERCENT {
        let percent = usage.percent();
        Verdict::degraded(format!("{percent} % of the journal's budget are used"))
    } else {
        Verdict::WELL
    }
}

fn websocket(vitals: &Vitals) -> Verdict {
    let (healthy, planned) = (vitals.sessions_healthy, vitals.sessions_planned);
    let missing = planned.saturating_sub(healthy);
    let mut reason = format!("{missing} of {planned} sessions are not subscribed");
    if vitals.sessions_refused > 0 {
        let said = vitals.refusal.as_deref().unwrap_or_default();
        reason = format!("{reason}; {} are refused: {said}", vitals.sessions_refused);
    }
    if planned == 0 || healthy * 15 >= planned * 14 {
        Verdict::WELL
    } else if vitals.exchange.is_paused() {
        // While the exchange pauses, missing sessions are expected.
        Verdict::degraded(format!("{reason}: the exchange pauses"))
    } else if healthy * 3 >= planned * 2 {
        Verdict::degraded(reason)
    } else {
        Verdict::unhealthy(reason)
    }
}

/// How the exchange answers. What that does to the recording is for the other components to say, so
/// this one only degrades.
fn exchange(vitals: &Vitals) -> Verdict {
    let stands = &vitals.exchange;
    let offset = vitals.clock_offset.filter(|offset| offset.abs() > CLOCK_SECONDS_MAX);
    if vitals.list_refused {
        Verdict::degraded("it refuses the key over REST: check api.key_id and the private key")
    } else if stands.unreachable {
        Verdict::degraded("it did not answer when it was last asked for its status")
    } else if let Some(offset) = offset {
        Verdict::degraded(format!(
            "its clock and ours are {:.1} s apart: synchronise this machine (NTP)",
            offset.abs()
        ))
    } else {
        Verdict::WELL
    }
}

fn registry(vitals: &Vitals) -> Verdict {
    let why = vitals.list_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    if vitals.markets == 0 && vitals.markets_loaded {
        Verdict::unhealthy("the exchange listed no market that the configuration asks for")
    } else if vitals.markets == 0 {
        Verdict::unhealthy(format!("no market is known yet{why}"))
    } else if !vitals.markets_loaded {
        Verdict::degraded(format!("the markets are not listed completely yet{why}"))
    } else if vitals.unplaced > 0 {
        let unplaced = vitals.unplaced;
        Verdict::degraded(format!("{unplaced} markets have no session: raise sessions.orderbook"))
    } else {
        Verdict::WELL
    }
}

fn books(vitals: &Vitals) -> Verdict {
    let (books, wanted) = (vitals.books, vitals.books_wanted);
    if books * 15 >= wanted * 14 {
        return Verdict::WELL;
    }
    let missing = wanted - books;
    Verdict::degraded(format!("{missing} of {wanted} order books have no snapshot that stands"))
}

fn recording(vitals: &Vitals) -> Verdict {
    if !vitals.is_recording() {
        let reason = "no session is subscribed: nothing is recorded";
        return if vitals.exchange.is_paused() {
            Verdict::degraded(format!("{reason} while the exchange pauses"))
        } else {
            Verdict::unhealthy(reason)
        };
    }
    if vitals.exchange.is_trading() && vitals.ticker_silent > SILENCE_MAX {
        let seconds = vitals.ticker_silent.as_secs();
        return Verdict::degraded(format!(
            "no frame on the ticker channel for {seconds} s although the exchange says that it trades"
        ));
    }
    Verdict::WELL
}

/// How long a count has not grown.
#[derive(Debug)]
pub struct Silence {
    count: u64,
    since: Instant,
}

impl Silence {
    pub fn new(now: Instant) -> Self {
        Self { count: 0, since: now }
    }

    /// Takes the count as it is now.
    pub fn read(&mut self, count: u64, now: Instant) -> Duration {
        if count != self.count {
            *self = Self { count, since: now };
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Vitals {
        Vitals {
            database_ping: Some(Duration::from_millis(3)),
            database_up: true,
            sessions_planned: 150,
            sessions_healthy: 148,
            sessions_connected: 150,
            markets: 425_000,
            journal: Usage { limit: 1000, free: 5000, ..Usage::default() },
            markets_loaded: true,
            books: 424_000,
            books_wanted: 425_000,
            exchange: Exchange {
                exchange_active: Some(true),
                trading_active: Some(true),
                ..Exchange::default()
            },
            ..Vitals::default()
        }
    }

    #[test]
    fn each_threshold_is_the_documented_one() {
        let status = |change: fn(&mut Vitals)| {
            let mut vitals = well();
            change(&mut vitals);
            report(&vitals).status
        };
        assert_eq!(status(|_| {}), Status::Healthy);
        assert_eq!(status(|v| v.sessions_healthy = 140), Status::Healthy);
        assert_eq!(status(|v| v.sessions_healthy = 139), Status::Degraded);
        assert_eq!(status(|v| v.sessions_healthy = 100), Status::Degraded);
        assert_eq!(status(|v| v.sessions_healthy = 99), Status::Unhealthy);
        // One session of one, two of three: the thresholds are ratios of what is planned.
        assert_eq!(status(|v| (v.sessions_planned, v.sessions_healthy) = (1, 1)), Status::Healthy);
        assert_eq!(status(|v| (v.sessions_planned, v.sessions_healthy) = (3, 2)), Status::Degraded);
        assert_eq!(
            status(|v| (v.sessions_planned, v.sessions_healthy) = (3, 1)),
            Status::Unhealthy
        );
        let ping = |v: &mut Vitals| v.database_ping = Some(Duration::from_millis(100));
        assert_eq!(status(ping), Status::Degraded);
        let ping = |v: &mut Vitals| v.database_ping = Some(Duration::from_millis(501));
        assert_eq!(status(ping), Status::Unhealthy);
        assert_eq!(status(|v| v.database_ping = None), Status::Unhealthy);
        assert_eq!(status(|v| v.database_up = false), Status::Unhealthy);
        assert_eq!(status(|v| v.markets = 0), Status::Unhealthy);
        assert_eq!(status(|v| v.journal.needed = 799), Status::Healthy);
        assert_eq!(status(|v| v.journal.needed = 800), Status::Degraded);
        // The disk has less than the budget.
        let small_disk = |v: &mut Vitals| {
            v.journal.bytes = 80;
            v.journal.needed = 80;
            v.journal.free = 20;
        };
        assert_eq!(status(small_disk), Status::Degraded);
        assert_eq!(status(|v| v.journal.full = true), Status::Unhealthy);
        assert_eq!(status(|v| v.markets_loaded = false), Status::Degraded);
        assert_eq!(status(|v| v.unplaced = 1), Status::Degraded);
        assert_eq!(status(|v| v.books = 0), Status::Degraded);
        assert_eq!(status(|v| v.retention_waits = Some("x".to_owned())), Status::Degraded);
    }

    #[test]
    fn a_pause_degrades_and_does_not_alarm() {
        let mut vitals = well();
        vitals.sessions_healthy = 0;
        assert_eq!(report(&vitals).status, Status::Unhealthy);
        for change in [
            |exchange: &mut Exchange| exchange.exchange_active = Some(false),
            |exchange: &mut Exchange| exchange.trading_active = Some(false),
            |exchange: &mut Exchange| {
                let (from, to) = (crate::model::Micros(1), crate::model::Micros(2));
                exchange.window = Some(crate::kalshi::calls::Window { from, to });
            },
        ] {
            let mut paused = vitals.clone();
            change(&mut paused.exchange);
            let report = report(&paused);
            assert_eq!(report.status, Status::Degraded);
            assert_eq!(report.components["maintenance"], true);
        }
    }

    #[test]
    fn silence_while_the_exchange_trades_is_no_health() {
        let mut vitals = well();
        vitals.ticker_silent = Duration::from_secs(61);
        let silent = report(&vitals);
        assert_eq!(silent.status, Status::Degraded);
        let reason = silent.components["recording"]["reason"].as_str().unwrap();
        assert!(reason.contains("61 s"), "{reason}");
        vitals.exchange.trading_active = Some(false);
        assert_eq!(report(&vitals).status, Status::Healthy, "nothing is to be expected");
        vitals.exchange.trading_active = None;
        assert_eq!(report(&vitals).status, Status::Healthy, "nothing is known");
    }

    #[test]
    fn silence_is_measured_from_the_last_frame() {
        let now = Instant::now();
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        let mut silence = Silence::new(now);
        assert_eq!(silence.read(0, after(5)).as_secs(), 5);
        assert_eq!(silence.read(7, after(6)).as_secs(), 0);
        assert_eq!(silence.read(7, after(70)).as_secs(), 64);
    }

    #[test]
    fn the_body_has_the_keys_that_operators_read() {
        let components = report(&well()).components;
        assert_eq!(components["timescaledb"], "connected");
        assert_eq!(components["websocket"]["connections"], 150);
        assert_eq!(components["websocket"]["healthy"], 148);
        assert_eq!(components["market_registry"]["markets"], 425_000);
        assert_eq!(components["recording"]["ready"], true);
    }

    #[test]
    fn every_component_says_how_it_is_and_why() {
        let bad = report(&Vitals { sessions_planned: 3, books_wanted: 9, ..Vitals::default() });
        for name in ["database", "websocket", "market_registry", "books", "recording"] {
            let component = &bad.components[name];
            assert_ne!(component["status"], "healthy", "{name}");
            assert!(component["reason"].as_str().is_some_and(|r| r.len() > 20), "{name}");
        }
        let good = report(&well()).components;
        for name in ["database", "websocket", "market_registry", "books", "recording", "journal"] {
            assert_eq!(good[name]["status"], "healthy", "{name}");
            assert!(good[name].get("reason").is_none(), "{name}");
        }
    }

    #[test]
    fn a_database_that_refuses_is_not_one_that_is_silent() {
        let reason = |class, reason: &str| {
            let error = GetError { class, reason: reason.to_owned() };
            let vitals = Vitals { database_ping: None, database_error: Some(error), ..well() };
            report(&vitals).components["database"]["reason"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            reason(Class::Auth, "FATAL: database \"x\" does not exist"),
            "the database refuses us (FATAL: database \"x\" does not exist): the journal keeps what comes"
        );
        let silent = reason(Class::Retry, "no answer within 5 s");
        assert!(silent.starts_with("the database does not answer (no answer"), "{silent}");
    }
}
