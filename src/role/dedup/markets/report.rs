//! How the market sync stands, for health. Metadata that is late stops no recording: it degrades the
//! deduplicator's health and never makes it unhealthy.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::kind::Kind;
use crate::model::Micros;
use crate::ops::health::Status;

/// Lists that may be missed before the copy counts as behind.
const LISTS_MISSED_MAX: u32 = 3;
/// What a list may take beside.
const LIST_PATIENCE: Duration = Duration::from_secs(60);

/// The state of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableReport {
    pub kind: Kind,
    pub rows: i64,
    /// Whether a complete list was ever read.
    pub loaded: bool,
    /// When the last list ended.
    pub synced_at: Option<Micros>,
    /// When something was written last, or the role began.
    pub advanced_at: Micros,
    /// Why the last list failed; nothing once one succeeded.
    pub error: Option<String>,
}

/// The state of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub refresh_interval: Duration,
    pub tables: Vec<TableReport>,
}

impl Report {
    /// The verdict, and what `/health` shows as `market_sync`.
    pub fn component(&self, now: Micros) -> (Status, Value) {
        let patience = self.refresh_interval.saturating_mul(LISTS_MISSED_MAX) + LIST_PATIENCE;
        let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        let error = self
            .tables
            .iter()
            .find_map(|table| Some(format!("{}: {}", table.kind.name(), table.error.as_ref()?)));
        let is_behind = self.tables.iter().any(|table| {
            let last = table.synced_at.unwrap_or(Micros(i64::MIN)).max(table.advanced_at);
            now.since(last) > patience
        });
        let is_loaded = self.tables.iter().all(|table| table.loaded);
        let (status, state) = match (&error, is_behind, is_loaded) {
            (Some(_), ..) => (Status::Degraded, "failing"),
            (None, true, _) => (Status::Degraded, "behind"),
            (None, false, false) => (Status::Healthy, "loading"),
            (None, false, true) => (Status::Healthy, "current"),
        };
        let mut shown = Map::new();
        shown.insert("state".to_owned(), json!(state));
        for table in &self.tables {
            shown.insert(table.kind.name().to_owned(), json!(table.rows));
        }
        // The table that waits longest; none while one was never read.
        let oldest: Option<Vec<Micros>> = self.tables.iter().map(|table| table.synced_at).collect();
        if let Some(oldest) = oldest.and_then(|all| all.into_iter().min()) {
            let age_seconds = now.since(oldest).max(0) / 1_000_000;
            shown.insert("last_success_seconds_ago".to_owned(), json!(age_seconds));
        }
        if let Some(error) = error {
            shown.insert("error".to_owned(), json!(error));
        }
        (status, Value::Object(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(synced: Option<i64>, advanced: i64, error: Option<&str>) -> Report {
        let table = |kind| TableReport {
            kind,
            rows: 7,
            loaded: synced.is_some(),
            synced_at: synced.map(Micros::from_secs),
            advanced_at: Micros::from_secs(advanced),
            error: error.map(str::to_owned),
        };
        Report { refresh_interval: Duration::from_secs(100), tables: Kind::ALL.map(table).to_vec() }
    }

    #[test]
    fn the_state_follows_the_table_that_is_worst() {
        let now = Micros::from_secs(1_000);
        for (report, status, state) in [
            (report(None, 900, None), Status::Healthy, "loading"),
            (report(Some(900), 900, None), Status::Healthy, "current"),
            (report(Some(600), 700, None), Status::Healthy, "current"),
            (report(Some(600), 600, None), Status::Degraded, "behind"),
            (report(None, 600, None), Status::Degraded, "behind"),
            (report(Some(900), 900, Some("HTTP 503")), Status::Degraded, "failing"),
        ] {
            let (found, shown) = report.component(now);
            assert_eq!((found, shown["state"].as_str()), (status, Some(state)), "{report:?}");
        }
        let mut one = report(Some(990), 990, None);
        one.tables[1].synced_at = Some(Micros::from_secs(900));
        one.tables[2].error = Some("HTTP 503".to_owned());
        let (_, shown) = one.component(now);
        assert_eq!(shown["last_success_seconds_ago"], 100);
        assert_eq!(shown["error"], "markets: HTTP 503");
        assert_eq!(shown["markets"], 7);
    }
}
