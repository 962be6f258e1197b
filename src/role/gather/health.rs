//! A gatherer's health, by the thresholds that operators know.

use std::time::Duration;

use serde_json::json;

use crate::ops::health::{Report, Status};

/// What health is judged by, read at one moment.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// The last ping of the database; none when it did not answer.
    pub database_ping: Option<Duration>,
    /// Whether batches are taken.
    pub database_up: bool,
    pub sessions_planned: usize,
    pub sessions_healthy: usize,
    pub sessions_connected: usize,
    pub markets: usize,
    pub books: usize,
    pub books_wanted: usize,
    pub journal_bytes: u64,
    pub journal_full: bool,
    /// The exchange announced that it pauses.
    pub maintenance: bool,
}

/// The whole report.
pub fn report(vitals: &Vitals) -> Report {
    let (database, database_text) = database(vitals);
    let websocket = websocket(vitals);
    let registry = if vitals.markets > 0 { Status::Healthy } else { Status::Unhealthy };
    let journal = if vitals.journal_full { Status::Unhealthy } else { Status::Healthy };
    let ping_ms = vitals.database_ping.map(|ping| ping.as_secs_f64() * 1000.0);
    let components = json!({
        "timescaledb": database_text,
        "timescaledb_ping_ms": ping_ms,
        "websocket": {
            "connections": vitals.sessions_connected,
            "healthy": vitals.sessions_healthy,
            "planned": vitals.sessions_planned,
            "status": websocket.as_str(),
        },
        "market_registry": { "markets": vitals.markets },
        "books": { "wanted": vitals.books_wanted, "with_snapshot": vitals.books },
        "journal": { "bytes": vitals.journal_bytes, "full": vitals.journal_full },
        "maintenance": vitals.maintenance,
    });
    Report::new(Status::worst([database, websocket, registry, journal]), components)
}

fn database(vitals: &Vitals) -> (Status, &'static str) {
    match vitals.database_ping {
        _ if !vitals.database_up => (Status::Unhealthy, "disconnected"),
        None => (Status::Unhealthy, "disconnected"),
        Some(ping) if ping < Duration::from_millis(100) => (Status::Healthy, "connected"),
        Some(ping) if ping <= Duration::from_millis(500) => (Status::Degraded, "connected"),
        Some(_) => (Status::Unhealthy, "connected"),
    }
}

fn websocket(vitals: &Vitals) -> Status {
    let (healthy, planned) = (vitals.sessions_healthy, vitals.sessions_planned);
    if planned == 0 || healthy * 15 >= planned * 14 {
        Status::Healthy
    } else if healthy * 3 >= planned * 2 || vitals.maintenance {
        // While the exchange pauses, missing sessions are expected.
        Status::Degraded
    } else {
        Status::Unhealthy
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
        let paused = |v: &mut Vitals| {
            v.sessions_healthy = 0;
            v.maintenance = true;
        };
        assert_eq!(status(paused), Status::Degraded);
        let ping = |v: &mut Vitals| v.database_ping = Some(Duration::from_millis(100));
        assert_eq!(status(ping), Status::Degraded);
        let ping = |v: &mut Vitals| v.database_ping = Some(Duration::from_millis(501));
        assert_eq!(status(ping), Status::Unhealthy);
        assert_eq!(status(|v| v.database_ping = None), Status::Unhealthy);
        assert_eq!(status(|v| v.database_up = false), Status::Unhealthy);
        assert_eq!(status(|v| v.markets = 0), Status::Unhealthy);
        assert_eq!(status(|v| v.journal_full = true), Status::Unhealthy);
    }

    #[test]
    fn the_body_has_the_keys_that_operators_read() {
        let components = report(&well()).components;
        assert_eq!(components["timescaledb"], "connected");
        assert_eq!(components["websocket"]["connections"], 150);
        assert_eq!(components["websocket"]["healthy"], 148);
        assert_eq!(components["market_registry"]["markets"], 425_000);
    }
}
