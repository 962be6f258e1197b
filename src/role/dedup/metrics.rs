//! The deduplicator's metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::table::{self, Table};
use crate::ops::duration::seconds;
use crate::ops::metrics::{Registry, latency_seconds};

/// Upper bounds of the latency buckets, in microseconds: 1 ms to 600 s, past every alert's threshold.
const LATENCY_BOUNDS_MICROS: [i64; 32] = [
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    20_000,
    30_000,
    40_000,
    50_000,
    75_000,
    100_000,
    125_000,
    150_000,
    200_000,
    250_000,
    300_000,
    400_000,
    500_000,
    750_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_000_000,
    5_000_000,
    7_500_000,
    10_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];

/// One more, for what is above the last bound.
const BUCKETS: usize = LATENCY_BOUNDS_MICROS.len() + 1;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTable {
    pub table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfGatherer {
    pub gatherer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfLog {
    pub gatherer: String,
    pub table: &'static str,
}

/// Latencies of rows. Unlike [`Histogram`] it takes a whole batch at once, without a lock a row.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Arc<LatencyCells>);

#[derive(Debug)]
struct LatencyCells {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Default for LatencyCells {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::default()),
            sum_micros: AtomicU64::default(),
        }
    }
}

impl Latencies {
    /// Adds latencies in microseconds; negative ones (two clocks differ) count as 0.
    pub fn observe(&self, latencies: impl Iterator<Item = i64>) {
        let (mut counts, mut sum) = ([0_u64; BUCKETS], 0_u64);
        for latency in latencies {
            let bucket = LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < latency);
            if let Some(count) = counts.get_mut(bucket) {
                *count += 1;
            }
            sum = sum.saturating_add(u64::try_from(latency).unwrap_or(0));
        }
        for (cell, count) in self.0.buckets.iter().zip(counts) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
        self.0.sum_micros.fetch_add(sum, Ordering::Relaxed);
    }
}

impl EncodeMetric for Latencies {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.buckets.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        let bounds = LATENCY_BOUNDS_MICROS.iter().map(|micros| seconds(*micros));
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = counts.iter().sum();
        let sum = self.0.sum_micros.load(Ordering::Relaxed);
        let sum = seconds(i64::try_from(sum).unwrap_or(i64::MAX));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl prometheus_client::metrics::TypedMetric for Latencies {
    const TYPE: MetricType = MetricType::Histogram;
}

/// All of them, cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub sync_lag_seconds: Family<OfTable, Gauge<f64, AtomicU64>>,
    pub sync_lag_rows: Family<OfLog, Gauge>,
    pub records_read: Family<OfLog, Counter>,
    pub records_written: Family<OfTable, Counter>,
    pub duplicates_skipped: Family<OfLog, Counter>,
    pub past_retention: Family<OfLog, Counter>,
    pub dropped_unread: Family<OfLog, Counter>,
    pub tell_failures: Family<OfGatherer, Counter>,
    pub partitions_dropped: Family<OfTable, Counter>,
    pub retention_waits: Family<OfTable, Gauge>,
    pub batches: Family<OfTable, Counter>,
    pub batch_seconds: Family<OfTable, Histogram, fn() -> Histogram>,
    pub staged_rows: Family<OfTable, Counter>,
    pub conflicts: Family<OfTable, Counter>,
    pub retries: Family<OfTable, Counter>,
    pub refusals: Family<OfLog, Counter>,
    pub gatherer_connected: Family<OfGatherer, Gauge>,
    pub production_connected: Gauge,
    pub production_ping_seconds: Gauge<f64, AtomicU64>,
    pub exchange_to_production: Family<OfTable, Latencies>,
    pub received_to_production: Family<OfTable, Latencies>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let batch_seconds: fn() -> Histogram = || Histogram::new(latency_seconds());
        let metrics = Self {
            sync_lag_seconds: Family::default(),
            sync_lag_rows: Family::default(),
            records_read: Family::default(),
            records_written: Family::default(),
            duplicates_skipped: Family::default(),
            past_retention: Family::default(),
            dropped_unread: Family::default(),
            tell_failures: Family::default(),
            partitions_dropped: Family::default(),
            retention_waits: Family::default(),
            batches: Family::default(),
            batch_seconds: Family::new_with_constructor(batch_seconds),
            staged_rows: Family::default(),
            conflicts: Family::default(),
            retries: Family::default(),
            refusals: Family::default(),
            gatherer_connected: Family::default(),
            production_connected: Gauge::default(),
            production_ping_seconds: Gauge::default(),
            exchange_to_production: Family::default(),
            received_to_production: Family::default(),
        };
        let m = metrics.clone();
        let registry = registry.sub_registry_with_prefix("dedup");
        registry.register(
            "sync_lag_seconds",
            "Age of the newest merged row while rows wait, else 0; the worst connected gatherer",
            m.sync_lag_seconds,
        );
        registry.register(
            "sync_lag_rows",
            "Head of the gatherer's log minus our cursor",
            m.sync_lag_rows,
        );
        registry.register("records_read", "Rows read from gatherers and committed", m.records_read);
        registry.register("records_written", "Rows written to production", m.records_written);
        registry.register(
            "duplicates_skipped",
            "Rows read that production had or got from another gatherer",
            m.duplicates_skipped,
        );
        registry.register(
            "past_retention",
            "Rows read whose time the retention had dropped; counted instead of written",
            m.past_retention,
        );
        registry.register(
            "dropped_unread",
            "Rows that a gatherer's retention had dropped before they were read",
            m.dropped_unread,
        );
        registry.register(
            "tell_failures",
            "Failed attempts to tell a gatherer what is in production",
            m.tell_failures,
        );
        registry.register(
            "partitions_dropped",
            "Partitions of production dropped by the retention",
            m.partitions_dropped,
        );
        registry.register(
            "retention_waits",
            "1 while a partition past the retention waits for a consumer",
            m.retention_waits,
        );
        registry.register("batches", "Transactions committed", m.batches);
        registry.register("batch_seconds", "Duration of a transaction", m.batch_seconds);
        registry.register("staged_rows", "Rows that the unique key had to decide", m.staged_rows);
        registry.register(
            "conflicts",
            "Rows proven new that the unique key refused; the batch was repeated through the stage",
            m.conflicts,
        );
        registry.register(
            "retries",
            "Sessions with production that had to be built anew",
            m.retries,
        );
        registry.register(
            "refusals",
            "Logs found with a hole or behind our cursor; they are not read further",
            m.refusals,
        );
        registry.register("gatherer_connected", "1 while a gatherer answers", m.gatherer_connected);
        registry.register(
            "production_connected",
            "1 while production answers",
            m.production_connected,
        );
        registry.register(
            "production_ping_seconds",
            "Last answer time of production",
            m.production_ping_seconds,
        );
        registry.register(
            "exchange_to_production_seconds",
            "From the exchange's clock to the commit in production, of rows written",
            m.exchange_to_production,
        );
        registry.register(
            "received_to_production_seconds",
            "From the gatherer's clock to the commit in production, of rows written",
            m.received_to_production,
        );
        metrics
    }

    /// Makes the counters of all logs, at 0: an alert on a rate must not wait for the first event.
    pub fn begin(&self, gatherers: &[String]) {
        for gatherer in gatherers {
            let label = OfGatherer { gatherer: gatherer.clone() };
            self.tell_failures.get_or_create_owned(&label).inc_by(0);
        }
        for table in table::ALL.map(Table::name) {
            let label = OfTable { table };
            for counters in [
                &self.records_written,
                &self.batches,
                &self.partitions_dropped,
                &self.staged_rows,
                &self.conflicts,
                &self.retries,
            ] {
                counters.get_or_create_owned(&label).inc_by(0);
            }
            for gatherer in gatherers {
                let label = OfLog { gatherer: gatherer.clone(), table };
                for counters in [
                    &self.records_read,
                    &self.duplicates_skipped,
                    &self.past_retention,
                    &self.dropped_unread,
                    &self.refusals,
                ] {
                    counters.get_or_create_owned(&label).inc_by(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::encode;

    #[test]
    fn latencies_are_a_histogram_of_open_metrics() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let latencies = metrics
            .exchange_to_production
            .get_or_create_owned(&OfTable { table: "orderbook_deltas" });
        latencies.observe([-5, 1_000, 1_001, 600_000_000, 600_000_001].into_iter());
        let text = encode(&registry).unwrap();
        for line in [
            "dedup_exchange_to_production_seconds_count{table=\"orderbook_deltas\"} 5",
            "dedup_exchange_to_production_seconds_bucket{le=\"0.001\",table=\"orderbook_deltas\"} 2",
            "dedup_exchange_to_production_seconds_bucket{le=\"0.002\",table=\"orderbook_deltas\"} 3",
            "dedup_exchange_to_production_seconds_bucket{le=\"600.0\",table=\"orderbook_deltas\"} 4",
            "dedup_exchange_to_production_seconds_bucket{le=\"+Inf\",table=\"orderbook_deltas\"} 5",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
