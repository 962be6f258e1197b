//! Compares what the exchange published with what production holds, as multisets: what is missing
//! is lost, what is there beyond the ledger is doubled (or was never said).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use crate::model::Log;

use super::books::{self, BookDiff, Place, Snapshot};
use super::metadata::MarketDiff;
use super::rows::{DeltaRow, Density, LifecycleRow, ReceivedDelta, Stretch, TickerRow, TradeRow};

/// Examples printed of each kind of difference.
pub const EXAMPLES_MAX: usize = 10;

/// What the exchange's ledger says must be in production.
#[derive(Debug, Default)]
pub struct Expected {
    pub deltas: Vec<DeltaRow>,
    /// Of these, by account, those that it was not sent.
    pub unsent: Vec<Vec<DeltaRow>>,
    pub trades: Vec<TradeRow>,
    pub tickers: Vec<TickerRow>,
    pub lifecycle: Vec<LifecycleRow>,
    pub places: BTreeMap<Arc<str>, Vec<Place>>,
    /// The exchange's times are those of a recording.
    pub is_replay: bool,
}

/// What production holds.
#[derive(Debug, Default)]
pub struct Found {
    pub deltas: Vec<ReceivedDelta>,
    pub trades: Vec<TradeRow>,
    pub tickers: Vec<TickerRow>,
    pub lifecycle: Vec<LifecycleRow>,
    pub snapshots: Vec<(Arc<str>, Snapshot)>,
}

/// Rows of each table that has an identity of the exchange's making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub orderbook_deltas: u64,
    pub trades: u64,
    pub tickers: u64,
    pub market_lifecycle: u64,
}

impl Counts {
    pub const fn total(&self) -> u64 {
        self.orderbook_deltas + self.trades + self.tickers + self.market_lifecycle
    }
}

/// What one gatherer saw of the changes, and whether it says so.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Witness {
    pub id: String,
    /// Changes in its own log.
    pub received: u64,
    /// Changes of the ledger that are not in its own log.
    pub missed: u64,
    /// Changes of the ledger that the exchange did not send to it.
    pub unsent: u64,
    /// Changes in its own log that it was never sent: it made them up, or counted one twice.
    pub invented: u64,
    /// Those of the missed that lie inside a stretch which it declares to be without a hole.
    pub coverage_violations: u64,
}

impl Witness {
    /// Whether its log and its coverage are what it was sent.
    fn is_exact(&self) -> bool {
        self.coverage_violations == 0 && self.invented == 0
    }
}

/// What came of the comparison.
#[derive(Debug, Default)]
pub struct Verdict {
    pub published: Counts,
    pub production: Counts,
    pub lost: u64,
    pub duplicated: u64,
    pub books: BookDiff,
    pub witnesses: Vec<Witness>,
    /// Production's copy of the exchange's list of markets.
    pub markets: MarketDiff,
    /// Logs whose numbers have holes, by database.
    pub not_dense: Vec<String>,
    /// Of everything that is wrong, for people.
    pub examples: Vec<String>,
}

impl Verdict {
    pub fn is_complete(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.books.different == 0
            && self.markets.different == 0
            && self.not_dense.is_empty()
            && self.witnesses.iter().all(Witness::is_exact)
    }

    /// One sentence on what is wrong, or that nothing is.
    pub fn sentence(&self) -> String {
        let published = self.published.total();
        if self.is_complete() {
            return format!(
                "complete: all {published} facts that the exchange published are in production \
                 once each, and all {} books fold to the exchange's own",
                self.books.compared
            );
        }
        let violations: u64 = self.witnesses.iter().map(|w| w.coverage_violations).sum();
        let invented: u64 = self.witnesses.iter().map(|w| w.invented).sum();
        let mut faults = Vec::new();
        for (count, what) in [
            (self.lost, "lost"),
            (self.duplicated, "duplicated or unknown"),
            (self.books.different, "books different"),
            (self.markets.different, "markets different"),
            (violations, "missed where coverage was declared"),
            (invented, "recorded that were never sent"),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        if !self.not_dense.is_empty() {
            faults.push(format!("{} logs with holes", self.not_dense.len()));
        }
        format!("incomplete: of {published} facts published, {}", faults.join(", "))
    }

    /// Compares production with the ledger.
    pub fn new(expected: &mut Expected, found: Found) -> Self {
        let Found { mut trades, mut tickers, mut lifecycle, deltas, snapshots } = found;
        let mut verdict = Self {
            published: Counts {
                orderbook_deltas: count(&expected.deltas),
                trades: count(&expected.trades),
                tickers: count(&expected.tickers),
                market_lifecycle: count(&expected.lifecycle),
            },
            production: Counts {
                orderbook_deltas: count(&deltas),
                trades: count(&trades),
                tickers: count(&tickers),
                market_lifecycle: count(&lifecycle),
            },
            ..Self::default()
        };
        let mut rows: Vec<DeltaRow> = deltas.iter().map(|delta| delta.row.clone()).collect();
        verdict.table(Log::OrderbookDeltas, &mut expected.deltas, &mut rows);
        drop(rows);
        verdict.table(Log::Trades, &mut expected.trades, &mut trades);
        verdict.table(Log::Tickers, &mut expected.tickers, &mut tickers);
        verdict.table(Log::MarketLifecycle, &mut expected.lifecycle, &mut lifecycle);
        verdict.books =
            books::compare(&expected.places, &deltas, snapshots, expected.is_replay, EXAMPLES_MAX);
        verdict.examples.extend(verdict.books.examples.iter().cloned());
        verdict
    }

    fn table<R: Ord + Display>(&mut self, log: Log, expected: &mut [R], found: &mut [R]) {
        let diff = difference(expected, found);
        self.lost += diff.missing.count;
        self.duplicated += diff.surplus.count;
        for (what, side) in [("lost from", diff.missing), ("too many in", diff.surplus)] {
            self.examples.extend(side.examples.iter().map(|row| format!("{what} {log}: {row}")));
        }
    }

    /// Adds what the copy of the markets looks like.
    pub fn markets(&mut self, diff: MarketDiff) {
        self.examples.extend(diff.examples.iter().cloned());
        self.markets = diff;
    }

    /// Adds what the numbers of a database's logs look like.
    pub fn numbers(&mut self, database: &str, densities: &[Density]) {
        for density in densities.iter().filter(|density| !density.is_dense()) {
            let Density { log, head, rows, min, max } = density;
            self.not_dense.push(format!("{log} of {database}"));
            self.examples.push(format!(
                "log_seq of {log} of {database} is not dense: head {head}, {rows} rows from {min} \
                 to {max}"
            ));
        }
    }

    /// Adds what a gatherer saw of the ledger's changes, and what it declared. `key` is its account.
    pub fn witness(
        &mut self,
        id: &str,
        key: usize,
        expected: &Expected,
        own: &[ReceivedDelta],
        stretches: &[Stretch],
    ) {
        let mut own_rows: Vec<DeltaRow> = own.iter().map(|own| without_ordinal(&own.row)).collect();
        let mut ledger: Vec<DeltaRow> = expected.deltas.iter().map(without_ordinal).collect();
        // A recorder that missed the first of two identical changes counts the second as the
        // first, so its own rows are compared by number of copies, not by ordinal.
        let missed = missing(&mut ledger, &mut own_rows);
        // Each change that it was not sent must be among those that it missed, and there is nothing
        // in its log that is not in the ledger.
        let unsent = expected.unsent.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut unsent: Vec<DeltaRow> = unsent.iter().map(without_ordinal).collect();
        let mut missed_rows: Vec<DeltaRow> = missed.iter().copied().cloned().collect();
        let impossible = missing(&mut unsent, &mut missed_rows);
        let surplus = (count(own) + count(&missed)).saturating_sub(count(&expected.deltas));
        let mut by_market: BTreeMap<&str, Vec<&Stretch>> = BTreeMap::new();
        for stretch in stretches {
            by_market.entry(&stretch.ticker).or_default().push(stretch);
        }
        let declared = |delta: &&DeltaRow| {
            let of_market = by_market.get(&*delta.ticker).map(Vec::as_slice).unwrap_or_default();
            of_market.iter().any(|stretch| {
                stretch.first_exchange_ts < delta.exchange_ts
                    && delta.exchange_ts < stretch.last_exchange_ts
            })
        };
        let violations: Vec<&DeltaRow> = missed.iter().copied().filter(declared).collect();
        self.witnesses.push(Witness {
            id: id.to_owned(),
            received: count(own),
            missed: count(&missed),
            unsent: expected.unsent.get(key).map_or(0, |unsent| count(unsent)),
            invented: count(&impossible) + surplus,
            coverage_violations: count(&violations),
        });
        self.examples.extend(
            impossible
                .iter()
                .take(EXAMPLES_MAX)
                .map(|delta| format!("recorded by {id}, which was never sent it: {delta}")),
        );
        self.examples.extend(violations.iter().take(EXAMPLES_MAX).map(|delta| {
            format!("missed by {id} inside a stretch that it declares covered: {delta}")
        }));
    }
}

fn count<T>(rows: &[T]) -> u64 {
    // No address space holds more rows than 64 bits count.
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

fn without_ordinal(row: &DeltaRow) -> DeltaRow {
    DeltaRow { occurrence: 0, ..row.clone() }
}

#[derive(Debug, Default)]
struct Surplus {
    count: u64,
    examples: Vec<String>,
}

impl Surplus {
    fn add(&mut self, row: &impl Display) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(row.to_string());
        }
    }
}

#[derive(Debug, Default)]
struct Difference {
    missing: Surplus,
    surplus: Surplus,
}

/// The difference of two multisets, which are sorted on the way.
fn difference<R: Ord + Display>(expected: &mut [R], found: &mut [R]) -> Difference {
    let mut diff = Difference::default();
    walk(expected, found, |row| diff.missing.add(row), |row| diff.surplus.add(row));
    diff
}

/// What the first multiset has more of.
fn missing<'a, R: Ord>(expected: &'a mut [R], found: &mut [R]) -> Vec<&'a R> {
    let mut missing = Vec::new();
    walk(expected, found, |row| missing.push(row), |_| {});
    missing
}

fn walk<'a, 'b, R: Ord>(
    expected: &'a mut [R],
    found: &'b mut [R],
    mut on_missing: impl FnMut(&'a R),
    mut on_surplus: impl FnMut(&'b R),
) {
    expected.sort_unstable();
    found.sort_unstable();
    let (mut expected, mut found) = (expected.iter().peekable(), found.iter().peekable());
    loop {
        let order = match (expected.peek(), found.peek()) {
            (Some(wanted), Some(there)) => wanted.cmp(there),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return,
        };
        if order.is_le()
            && let Some(wanted) = expected.next()
            && order.is_ne()
        {
            on_missing(wanted);
        }
        if order.is_ge()
            && let Some(there) = found.next()
            && order.is_ne()
        {
            on_surplus(there);
        }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
