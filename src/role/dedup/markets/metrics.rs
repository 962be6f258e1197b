//! The metrics of the market sync.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::kind::Kind;
use crate::ops::metrics::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTable {
    pub table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfChange {
    pub table: &'static str,
    /// `new`, `changed` or `gone`.
    pub change: &'static str,
}

/// All of them, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    rows: Family<OfTable, Gauge>,
    changes: Family<OfChange, Counter>,
    pages: Family<OfTable, Counter>,
    errors: Family<OfTable, Counter>,
    refused: Family<OfTable, Counter>,
    unreadable: Family<OfTable, Counter>,
    unknown_statuses: Counter,
    last_success: Family<OfTable, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = metrics.clone();
        let registry = registry.sub_registry_with_prefix("dedup_market_sync");
        registry.register("rows", "Keys in production, by table", m.rows);
        registry.register(
            "changes",
            "Rows that are new, changed, or gone from the exchange's lists",
            m.changes,
        );
        registry.register("pages", "Pages of lists written", m.pages);
        registry.register("errors", "Lists that failed after their retries", m.errors);
        registry.register("refused", "Listed objects without a usable key", m.refused);
        registry.register(
            "unreadable_fields",
            "Values that no column could take; the row's raw has them",
            m.unreadable,
        );
        registry.register(
            "unknown_statuses",
            "Listed markets with a status that this version does not know",
            m.unknown_statuses,
        );
        registry.register(
            "last_success_timestamp_seconds",
            "When the last list of a table ended",
            m.last_success,
        );
        for kind in Kind::ALL {
            let table = OfTable { table: kind.name() };
            for counters in [&metrics.pages, &metrics.errors, &metrics.refused, &metrics.unreadable]
            {
                counters.get_or_create_owned(&table).inc_by(0);
            }
            for change in ["new", "changed", "gone"] {
                metrics.changed(kind, change, 0);
            }
        }
        metrics
    }

    pub fn set_rows(&self, kind: Kind, rows: i64) {
        self.rows.get_or_create_owned(&OfTable { table: kind.name() }).set(rows);
    }

    pub fn changed(&self, kind: Kind, change: &'static str, rows: u64) {
        let label = OfChange { table: kind.name(), change };
        self.changes.get_or_create_owned(&label).inc_by(rows);
    }

    /// A page was written; so many objects were refused, values unreadable, statuses unknown.
    pub fn page(&self, kind: Kind, refused: u64, unreadable: u64, unknown_statuses: u64) {
        let table = OfTable { table: kind.name() };
        self.pages.get_or_create_owned(&table).inc();
        self.refused.get_or_create_owned(&table).inc_by(refused);
        self.unreadable.get_or_create_owned(&table).inc_by(unreadable);
        self.unknown_statuses.inc_by(unknown_statuses);
    }

    pub fn failed(&self, kind: Kind) {
        self.errors.get_or_create_owned(&OfTable { table: kind.name() }).inc();
    }

    /// A list ended, at a time in seconds since 1970.
    pub fn succeeded(&self, kind: Kind, at_seconds: f64) {
        self.last_success.get_or_create_owned(&OfTable { table: kind.name() }).set(at_seconds);
    }
}
