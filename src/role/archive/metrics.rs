//! The archiver's metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::span::{Archived, LogState};
use crate::ops::metrics::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTable {
    pub table: &'static str,
}

/// All of them, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    rows: Family<OfTable, Counter>,
    bytes: Family<OfTable, Counter>,
    parts: Family<OfTable, Counter>,
    compacted: Family<OfTable, Counter>,
    missing: Family<OfTable, Counter>,
    lag_rows: Family<OfTable, Gauge>,
    lag_seconds: Family<OfTable, Gauge<f64, AtomicU64>>,
    pub errors: Counter,
    working: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let m = self.clone();
        let registry = registry.sub_registry_with_prefix("archive");
        registry.register("rows", "Rows archived", m.rows);
        registry.register("bytes", "Bytes of the parts that hold them", m.bytes);
        registry.register("parts", "Parts written", m.parts);
        registry.register("compacted_parts", "Small parts made into larger ones", m.compacted);
        registry.register(
            "missing_rows",
            "Rows that the retention had dropped before the archive began",
            m.missing,
        );
        registry.register("lag_rows", "Rows in production that are not archived", m.lag_rows);
        registry.register(
            "lag_seconds",
            "Since the cursor moved last, while there are rows to archive",
            m.lag_seconds,
        );
        registry.register("errors", "Rounds that failed and were begun anew", m.errors);
        registry.register(
            "working",
            "1 while this process holds the archiver's lock and its last round succeeded",
            m.working,
        );
    }

    pub fn archived(&self, table: &'static str, archived: &Archived) {
        let label = OfTable { table };
        self.rows.get_or_create_owned(&label).inc_by(archived.rows);
        self.bytes.get_or_create_owned(&label).inc_by(archived.bytes);
        self.parts.get_or_create_owned(&label).inc_by(archived.parts);
        self.missing.get_or_create_owned(&label).inc_by(archived.missing);
    }

    pub fn compacted(&self, table: &'static str, parts: u64) {
        self.compacted.get_or_create_owned(&OfTable { table }).inc_by(parts);
    }

    pub fn lag(&self, log: &LogState) {
        let label = OfTable { table: log.table.name };
        self.lag_rows.get_or_create_owned(&label).set(log.pending());
        self.lag_seconds.get_or_create_owned(&label).set(log.lag().as_secs_f64());
    }

    pub fn working(&self, is_working: bool) {
        self.working.set(i64::from(is_working));
    }
}
