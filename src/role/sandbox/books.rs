//! Folds books from production alone and compares them with the exchange's own.
//!
//! Changes are additive, so a book at any moment is any anchored snapshot plus the changes after
//! its anchor, or minus those before it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::model::{Price, Size};

use super::rows::{DeltaRow, ReceivedDelta};

/// A snapshot whose market is silent for 5 s is anchored at its receipt. Half of that is the
/// distance from it at which the clocks of receipt can no longer be mistaken.
const RECEIPT_SLACK_MICROS: i64 = 2_500_000;
/// Differing levels printed for one book.
const LEVELS_SHOWN_MAX: usize = 3;

/// The levels of a book by side (true is yes) and price in micro-dollars, in hundredths of a
/// contract. Unlike a book of the model it may hold what no book can, so that a wrong one shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels(BTreeMap<(bool, i64), i64>);

impl Levels {
    /// Adds a signed size to a level. A level at 0 does not exist.
    pub fn add(&mut self, is_yes: bool, price: i64, size: i64) {
        let level = self.0.entry((is_yes, price)).or_default();
        *level = level.saturating_add(size);
        if *level == 0 {
            self.0.remove(&(is_yes, price));
        }
    }

    /// The first levels in which the two differ, for people.
    fn difference(&self, other: &Self) -> String {
        let mut keys: Vec<_> = self.0.keys().chain(other.0.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let size = |levels: &Self, key| {
            Size::from_hundredths(levels.0.get(key).copied().unwrap_or_default())
        };
        let differing: Vec<String> = keys
            .into_iter()
            .filter(|key| self.0.get(key) != other.0.get(key))
            .map(|key| {
                let side = if key.0 { "yes" } else { "no" };
                let price = Price::from_micros(key.1);
                format!("{side} {price} holds {}, not {}", size(self, key), size(other, key))
            })
            .collect();
        let shown = differing.iter().take(LEVELS_SHOWN_MAX).cloned().collect::<Vec<_>>().join("; ");
        match differing.len().checked_sub(LEVELS_SHOWN_MAX) {
            Some(more @ 1..) => format!("{shown}; and {more} more levels"),
            _ => shown,
        }
    }
}

/// A snapshot of production.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The book after all changes up to this is the snapshot's; microseconds.
    pub anchor_ts: Option<i64>,
    pub received_at: i64,
    pub levels: Levels,
}

/// A moment at which the exchange's book is known.
#[derive(Debug, Clone)]
pub struct Place {
    pub at: At,
    pub levels: Levels,
}

/// Which moment of a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// After all changes with an exchange time up to this one, in microseconds.
    Time(i64),
    End,
    /// As if no snapshot but the first had come: all changes added up.
    WholeFold,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(at) => write!(f, "at {}", crate::model::Micros(*at)),
            Self::End => f.write_str("at the end"),
            Self::WholeFold => f.write_str("folded from its first snapshot"),
        }
    }
}

/// What production holds about one market's book.
#[derive(Debug, Default)]
struct History {
    /// Snapshots by anchor, ascending; those without one are left out.
    anchored: Vec<(i64, Levels)>,
    unanchored: Vec<Levels>,
    /// Changes by exchange time, ascending.
    deltas: Vec<DeltaRow>,
}

impl History {
    /// Whether its first snapshot comes before its last change. One that comes after may be the
    /// empty book of a closed market, from which nothing folds.
    fn begins_before_its_end(&self) -> bool {
        match (self.anchored.first(), self.deltas.last()) {
            (Some((anchor, _)), Some(last)) => *anchor < last.exchange_ts,
            _ => true,
        }
    }

    /// The book at a moment; none when production cannot tell.
    fn book(&self, at: At) -> Option<Levels> {
        let wanted = match at {
            At::Time(at) => at,
            At::End | At::WholeFold => i64::MAX,
        };
        // Several may share an anchor; the last to be recorded is as good as any.
        let before = self.anchored.partition_point(|(anchor, _)| *anchor <= wanted);
        let base = match at {
            At::WholeFold => self.anchored.first(),
            _ => before
                .checked_sub(1)
                .map_or_else(|| self.anchored.first(), |latest| self.anchored.get(latest)),
        };
        let Some((anchor, levels)) = base else {
            // Without a change the book never moved, and any snapshot states it.
            return if self.deltas.is_empty() { self.unanchored.last().cloned() } else { None };
        };
        let mut levels = levels.clone();
        let up_to = |ts: i64| self.deltas.partition_point(|delta| delta.exchange_ts <= ts);
        let (from, to, sign) = if *anchor <= wanted {
            (up_to(*anchor), up_to(wanted), 1)
        } else {
            (up_to(wanted), up_to(*anchor), -1)
        };
        for delta in self.deltas.get(from..to).unwrap_or_default() {
            levels.add(delta.is_yes, delta.price, sign * delta.size_delta);
        }
        Some(levels)
    }
}

/// What came of comparing books.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BookDiff {
    pub compared: u64,
    pub different: u64,
    pub examples: Vec<String>,
}

/// Compares the books at every place with those folded from production.
///
/// `exchange_is_old` says that the exchange's times are not of today (a replay): a snapshot
/// anchored at its receipt is then placed by the receipts of the market's changes instead.
pub fn compare(
    places: &BTreeMap<Arc<str>, Vec<Place>>,
    deltas: &[ReceivedDelta],
    snapshots: Vec<(Arc<str>, Snapshot)>,
    exchange_is_old: bool,
    examples_max: usize,
) -> BookDiff {
    let histories = histories(deltas, snapshots, exchange_is_old);
    let nothing = History::default();
    let mut diff = BookDiff::default();
    for (ticker, places) in places {
        let history = histories.get(ticker).unwrap_or(&nothing);
        for place in places {
            if place.at == At::WholeFold && !history.begins_before_its_end() {
                continue;
            }
            diff.compared += 1;
            let example = match history.book(place.at) {
                Some(levels) if levels == place.levels => continue,
                Some(levels) => levels.difference(&place.levels),
                None => "production has no snapshot to fold it from".to_owned(),
            };
            diff.different += 1;
            if diff.examples.len() < examples_max {
                diff.examples.push(format!("book of {ticker} {}: {example}", place.at));
            }
        }
    }
    diff
}

fn histories(
    deltas: &[ReceivedDelta],
    snapshots: Vec<(Arc<str>, Snapshot)>,
    exchange_is_old: bool,
) -> HashMap<Arc<str>, History> {
    let mut by_market: HashMap<Arc<str>, Vec<&ReceivedDelta>> = HashMap::new();
    for delta in deltas {
        by_market.entry(Arc::clone(&delta.row.ticker)).or_default().push(delta);
    }
    let mut histories: HashMap<Arc<str>, History> = HashMap::new();
    for (ticker, snapshot) in snapshots {
        let history = histories.entry(Arc::clone(&ticker)).or_default();
        let anchor = match snapshot.anchor_ts {
            Some(anchor) if exchange_is_old && anchor >= snapshot.received_at => {
                let changes = by_market.get(&ticker).map(Vec::as_slice).unwrap_or_default();
                Some(place_by_receipt(snapshot.received_at, changes))
            }
            anchor => anchor,
        };
        match anchor {
            Some(anchor) => history.anchored.push((anchor, snapshot.levels)),
            None => history.unanchored.push(snapshot.levels),
        }
    }
    for (ticker, changes) in by_market {
        let history = histories.entry(ticker).or_default();
        history.deltas = changes.into_iter().map(|delta| delta.row.clone()).collect();
        history.deltas.sort_unstable_by_key(|delta| delta.exchange_ts);
    }
    for history in histories.values_mut() {
        // Stable: of one anchor the last recorded stays last.
        history.anchored.sort_by_key(|(anchor, _)| *anchor);
    }
    histories
}

/// The latest exchange time among the changes received before a snapshot that stood in silence.
fn place_by_receipt(received_at: i64, changes: &[&ReceivedDelta]) -> i64 {
    changes
        .iter()
        .filter(|delta| delta.received_at <= received_at.saturating_add(RECEIPT_SLACK_MICROS))
        .map(|delta| delta.row.exchange_ts)
        .max()
        // Before the first change: no exchange time is that early.
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "KXA";

    fn levels(of: &[(bool, i64, i64)]) -> Levels {
        let mut levels = Levels::default();
        for &(is_yes, price, size) in of {
            levels.add(is_yes, price, size);
        }
        levels
    }

    fn delta(ts: i64, price: i64, size: i64) -> ReceivedDelta {
        ReceivedDelta {
            row: DeltaRow {
                ticker: Arc::from(T),
                exchange_ts: ts,
                is_yes: true,
                price,
                size_delta: size,
                occurrence: 1,
            },
            received_at: 1_000_000_000 + ts,
        }
    }

    fn snapshot(anchor: Option<i64>, of: &[(bool, i64, i64)]) -> (Arc<str>, Snapshot) {
        let received_at = 1_000_000_000 + anchor.unwrap_or_default();
        (Arc::from(T), Snapshot { anchor_ts: anchor, received_at, levels: levels(of) })
    }

    type Stated<'a> = &'a [(bool, i64, i64)];

    fn places(of: &[(At, Stated<'_>)]) -> BTreeMap<Arc<str>, Vec<Place>> {
        let places = of.iter().map(|(at, of)| Place { at: *at, levels: levels(of) }).collect();
        BTreeMap::from([(Arc::from(T), places)])
    }

    fn different(
        places: &BTreeMap<Arc<str>, Vec<Place>>,
        deltas: &[ReceivedDelta],
        snapshots: &[(Arc<str>, Snapshot)],
    ) -> u64 {
        compare(places, deltas, snapshots.to_vec(), false, 10).different
    }

    #[test]
    fn books_fold_forwards_and_backwards_from_anchors() {
        let deltas = [delta(100, 5, 10), delta(200, 5, -10), delta(300, 6, 7)];
        let wanted = places(&[
            (At::Time(99), &[]),
            (At::Time(150), &[(true, 5, 10)]),
            (At::Time(250), &[]),
            (At::End, &[(true, 6, 7)]),
            (At::WholeFold, &[(true, 6, 7)]),
        ]);
        for anchor in [50, 99] {
            assert_eq!(different(&wanted, &deltas, &[snapshot(Some(anchor), &[])]), 0);
        }
        let middle = snapshot(Some(150), &[(true, 5, 10)]);
        let late = snapshot(Some(400), &[(true, 6, 7)]);
        assert_eq!(different(&wanted, &deltas, std::slice::from_ref(&late)), 0);
        let all = [snapshot(None, &[(true, 9, 9)]), middle, late];
        assert_eq!(different(&wanted, &deltas, &all), 0);
    }

    #[test]
    fn a_missing_change_or_a_wrong_snapshot_shows() {
        let wanted = places(&[(At::End, &[(true, 6, 7)])]);
        let deltas = [delta(100, 5, 10), delta(200, 5, -10), delta(300, 6, 7)];
        let base = snapshot(Some(99), &[]);
        assert_eq!(different(&wanted, &deltas, std::slice::from_ref(&base)), 0);
        assert_eq!(different(&wanted, &deltas[..2], std::slice::from_ref(&base)), 1);
        assert_eq!(different(&wanted, &deltas, &[snapshot(Some(99), &[(false, 1, 1)])]), 1);
        assert_eq!(different(&wanted, &deltas, &[snapshot(None, &[])]), 1);
        let diff = compare(&wanted, &deltas[..2], vec![base], false, 10);
        let text = "book of KXA at the end: yes 0.000006 holds 0.00, not 0.07";
        assert_eq!(diff.examples, [text]);
    }

    #[test]
    fn the_end_of_a_closed_market_is_its_empty_snapshot() {
        let deltas = [delta(100, 5, 10)];
        let snapshots = [snapshot(Some(99), &[]), snapshot(Some(5000), &[])];
        let wanted = places(&[(At::End, &[]), (At::WholeFold, &[(true, 5, 10)])]);
        assert_eq!(different(&wanted, &deltas, &snapshots), 0);
    }

    #[test]
    fn a_market_without_changes_needs_no_anchor() {
        let wanted = places(&[(At::End, &[(true, 5, 10)])]);
        assert_eq!(different(&wanted, &[], &[snapshot(None, &[(true, 5, 10)])]), 0);
        assert_eq!(different(&wanted, &[], &[snapshot(None, &[])]), 1);
        assert_eq!(different(&wanted, &[], &[]), 1);
    }

    #[test]
    fn in_a_replay_a_receipt_is_placed_among_receipts() {
        // The times of the exchange are small, those of receipt large and 10 s apart.
        let mut deltas = [delta(100, 5, 10), delta(200, 6, 7)];
        for (at, delta) in [10_000_000, 20_000_000].into_iter().zip(&mut deltas) {
            delta.received_at = at;
        }
        let receipt = |at: i64, of: &[(bool, i64, i64)]| {
            let levels = levels(of);
            (Arc::from(T), Snapshot { anchor_ts: Some(at), received_at: at, levels })
        };
        let wanted = places(&[(At::Time(150), &[(true, 5, 10)])]);
        let compare = |snapshots| compare(&wanted, &deltas, snapshots, true, 10).different;
        assert_eq!(compare(vec![receipt(1_000_000, &[])]), 0, "before the first change");
        assert_eq!(compare(vec![receipt(11_000_000, &[(true, 5, 10)])]), 0, "between the two");
        let both = &[(true, 5, 10), (true, 6, 7)];
        assert_eq!(compare(vec![receipt(21_000_000, both)]), 0, "after the last");
    }
}
