//! One market's book, replayed from snapshot to snapshot and compared with each. Pure: whoever reads
//! the rows hands them over in order.

use std::fmt::Write as _;

use crate::model::{Book, Price, Side, Size};

/// Levels of a difference that are told.
const LEVELS_TOLD: usize = 3;

/// A snapshot, as far as a replay needs it.
#[derive(Debug, Clone)]
pub struct Stated {
    /// Where it stands: the exchange's time in production, in microseconds.
    pub at: i64,
    /// Our clock when it came, microseconds.
    pub received_at: i64,
    /// Whose it is, and where in whose stream; for people.
    pub origin: String,
    pub book: Book,
}

/// A part of a market's life, between two snapshots, in which rows are wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The snapshot before, from which was replayed: its place, and our clock.
    pub from: i64,
    pub from_clock: i64,
    /// The snapshot that shows it; none when none follows.
    pub to: Option<i64>,
    pub to_clock: Option<i64>,
    /// Whether the replayed book differed from it.
    pub differs: bool,
    /// How many changes made a level fall below zero.
    pub below_zero: u64,
    pub detail: String,
}

/// What was counted, over all markets.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub markets: u64,
    /// Markets in which no book could be compared: they have not two snapshots in the range.
    pub markets_unchecked: u64,
    pub deltas: u64,
    /// Books compared with a snapshot, level by level.
    pub compared: u64,
    pub equal: u64,
    /// Empty books that ended a market's trading, which no change announces.
    pub closes: u64,
    /// Moments after which the best bid was at or above the best ask.
    pub crossed: u64,
    /// Snapshots with levels on both sides, and those of them that were crossed.
    pub two_sided: u64,
    pub two_sided_crossed: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.markets += other.markets;
        self.markets_unchecked += other.markets_unchecked;
        self.deltas += other.deltas;
        self.compared += other.compared;
        self.equal += other.equal;
        self.closes += other.closes;
        self.crossed += other.crossed;
        self.two_sided += other.two_sided;
        self.two_sided_crossed += other.two_sided_crossed;
    }
}

/// The replay of one market after another.
#[derive(Debug, Default)]
pub struct Replay {
    book: Book,
    /// The last snapshot's place and our clock there; none while the book is not known.
    anchor: Option<(i64, i64)>,
    compared: u64,
    below_zero: u64,
    first_below: String,
    /// The book was stated to be empty while it was not: the market's close, if nothing follows.
    closing: Option<Fault>,
    /// Time of the last change, whose microsecond may not be over.
    moment: Option<i64>,
    /// Levels that were below zero within that microsecond, in which order says nothing.
    suspects: Vec<(Side, Price)>,
    faults: Vec<Fault>,
    pub tally: Tally,
}

impl Replay {
    /// A change at a place that is not before the one handed over last.
    pub fn delta(&mut self, at: i64, side: Side, price: Price, size: Size) {
        if self.anchor.is_none() {
            return;
        }
        self.tally.deltas += 1;
        if self.moment != Some(at) {
            self.moment_ends();
            self.moment = Some(at);
        }
        if let Some(fault) = self.closing.take() {
            // It goes on: the book had not been emptied by the market's close.
            self.tally.closes -= 1;
            self.tally.equal -= 1;
            self.push(fault);
        }
        if self.book.apply(side, price, size).is_err() && !self.suspects.contains(&(side, price)) {
            self.suspects.push((side, price));
        }
    }

    fn moment_ends(&mut self) {
        if self.moment.take().is_some() && self.book.is_crossed() {
            self.tally.crossed += 1;
        }
        for (side, price) in self.suspects.drain(..) {
            let level = self.book.levels(side).find(|(at, _)| *at == price);
            if let Some((_, size)) = level.filter(|(_, size)| size.hundredths() < 0) {
                if self.below_zero == 0 {
                    self.first_below = format!("the {side} level at {price} would hold {size}");
                }
                self.below_zero += 1;
            }
        }
    }

    /// A snapshot: the book after everything that was handed over.
    pub fn snapshot(&mut self, stated: Stated) {
        self.moment_ends();
        let Stated { at, received_at, origin, book } = stated;
        if book.best_yes_bid().is_some() && book.best_yes_ask().is_some() {
            self.tally.two_sided += 1;
            self.tally.two_sided_crossed += u64::from(book.is_crossed());
        }
        if !book.is_empty() {
            // A market that closed and has levels again was opened anew.
            self.closing = None;
        }
        if let Some((from, from_clock)) = self.anchor.replace((at, received_at)) {
            self.tally.compared += 1;
            self.compared += 1;
            let differs = book != self.book;
            let below_zero = std::mem::take(&mut self.below_zero);
            if differs || below_zero > 0 {
                let mut detail = String::new();
                if differs {
                    detail = format!("{origin}: {}", difference(&self.book, &book));
                }
                if below_zero > 0 {
                    let first = std::mem::take(&mut self.first_below);
                    let mark = if differs { "; " } else { "" };
                    let _infallible =
                        write!(detail, "{mark}below zero {below_zero} times: {first}");
                }
                let fault = Fault {
                    from,
                    from_clock,
                    to: Some(at),
                    to_clock: Some(received_at),
                    differs,
                    below_zero,
                    detail,
                };
                if differs && below_zero == 0 && book.is_empty() {
                    self.tally.closes += 1;
                    self.tally.equal += 1;
                    self.closing = Some(fault);
                } else {
                    self.push(fault);
                }
            } else {
                self.tally.equal += 1;
            }
        }
        self.book = book;
    }

    /// Nothing is known of the book from here to the next snapshot.
    pub fn forget(&mut self) {
        self.moment_ends();
        self.tail();
        self.anchor = None;
        self.closing = None;
        self.book = Book::default();
    }

    /// What came after the last snapshot can be wrong in one way only that shows.
    fn tail(&mut self) {
        let below_zero = std::mem::take(&mut self.below_zero);
        let first = std::mem::take(&mut self.first_below);
        if let Some((from, from_clock)) = self.anchor
            && below_zero > 0
        {
            let detail = format!("below zero {below_zero} times: {first}");
            let (to, to_clock, differs) = (None, None, false);
            self.push(Fault { from, from_clock, to, to_clock, differs, below_zero, detail });
        }
    }

    /// The market's end: what was found in it. The next one may begin.
    pub fn end(&mut self) -> Vec<Fault> {
        self.forget();
        self.tally.markets += 1;
        if std::mem::take(&mut self.compared) == 0 {
            self.tally.markets_unchecked += 1;
        }
        std::mem::take(&mut self.faults)
    }

    /// A wrong row shows twice where it was moved over a snapshot: what lies side by side is one.
    fn push(&mut self, fault: Fault) {
        match self.faults.last_mut() {
            Some(last) if last.to == Some(fault.from) => {
                last.to = fault.to;
                last.to_clock = fault.to_clock;
                last.differs |= fault.differs;
                last.below_zero += fault.below_zero;
                if last.detail.len() < 300 {
                    last.detail.push_str("; then ");
                    last.detail.push_str(&fault.detail);
                }
            }
            _ => self.faults.push(fault),
        }
    }
}

/// How a replayed book differs from a stated one: a few of the levels.
fn difference(replayed: &Book, stated: &Book) -> String {
    let mut levels = Vec::new();
    for side in [Side::Yes, Side::No] {
        let size = |book: &Book, price: Price| {
            book.levels(side).find(|(at, _)| *at == price).map_or(0, |(_, size)| size.hundredths())
        };
        let mut prices: Vec<Price> =
            replayed.levels(side).chain(stated.levels(side)).map(|(price, _)| price).collect();
        prices.sort_unstable();
        prices.dedup();
        for price in prices {
            let (ours, theirs) = (size(replayed, price), size(stated, price));
            if ours != theirs {
                let (ours, theirs) = (Size::from_hundredths(ours), Size::from_hundredths(theirs));
                levels.push(format!("{side} {price}: replayed {ours}, stated {theirs}"));
            }
        }
    }
    let more = levels.len().saturating_sub(LEVELS_TOLD);
    levels.truncate(LEVELS_TOLD);
    let mut text = levels.join(", ");
    if more > 0 {
        let _infallible = write!(text, ", and {more} more levels");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(cents: i64, contracts: i64) -> (Price, Size) {
        (Price::from_micros(cents * 10_000), Size::from_hundredths(contracts * 100))
    }

    fn stated(at: i64, yes: &[(i64, i64)]) -> Stated {
        let levels: Vec<_> = yes.iter().map(|(cents, size)| level(*cents, *size)).collect();
        let book = Book::from_levels(&levels, &[]);
        Stated { at, received_at: at + 7, origin: "g".to_owned(), book }
    }

    fn delta(replay: &mut Replay, at: i64, cents: i64, contracts: i64) {
        let (price, size) = level(cents, contracts);
        replay.delta(at, Side::Yes, price, size);
    }

    #[test]
    fn a_right_market_has_no_fault_and_changes_before_the_first_snapshot_say_nothing() {
        let mut replay = Replay::default();
        delta(&mut replay, 1, 40, -5);
        replay.snapshot(stated(2, &[(40, 3)]));
        delta(&mut replay, 3, 41, 2);
        delta(&mut replay, 4, 40, -3);
        replay.snapshot(stated(5, &[(41, 2)]));
        replay.snapshot(stated(5, &[(41, 2)]));
        assert_eq!(replay.end(), []);
        replay.snapshot(stated(1, &[]));
        assert_eq!(replay.end(), []);
        let Tally { markets, markets_unchecked, deltas, compared, equal, .. } = replay.tally;
        assert_eq!((markets, markets_unchecked, deltas, compared, equal), (2, 1, 2, 2, 2));
    }

    #[test]
    fn a_row_that_is_missing_shows_once_and_the_next_part_is_right_again() {
        let mut replay = Replay::default();
        replay.snapshot(stated(2, &[(40, 3)]));
        replay.snapshot(stated(5, &[(41, 2), (42, 1), (43, 1), (44, 1)]));
        delta(&mut replay, 6, 41, -2);
        replay.snapshot(stated(7, &[(42, 1), (43, 1), (44, 1)]));
        let faults = replay.end();
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].from, faults[0].to, faults[0].differs), (2, Some(5), true));
        assert_eq!((faults[0].from_clock, faults[0].to_clock), (9, Some(12)));
        assert_eq!(
            faults[0].detail,
            "g: yes 0.4000: replayed 3.00, stated 0.00, yes 0.4100: replayed 0.00, stated 2.00, \
             yes 0.4200: replayed 0.00, stated 1.00, and 2 more levels"
        );
    }

    #[test]
    fn a_row_that_was_moved_over_a_snapshot_is_one_fault() {
        let mut replay = Replay::default();
        replay.snapshot(stated(2, &[(40, 3)]));
        replay.snapshot(stated(5, &[(40, 4)]));
        delta(&mut replay, 6, 40, 1);
        replay.snapshot(stated(9, &[(40, 4)]));
        let faults = replay.end();
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].from, faults[0].to), (2, Some(9)));
    }

    #[test]
    fn below_zero_is_a_fault_without_any_snapshot_behind_it() {
        let mut replay = Replay::default();
        replay.snapshot(stated(2, &[(40, 3)]));
        delta(&mut replay, 3, 40, -4);
        let faults = replay.end();
        assert_eq!((faults[0].to, faults[0].below_zero), (None, 1));
        assert!(faults[0].detail.contains("would hold -1.00"), "{}", faults[0].detail);
    }

    #[test]
    fn within_a_microsecond_order_says_nothing() {
        let mut replay = Replay::default();
        replay.snapshot(stated(2, &[]));
        delta(&mut replay, 3, 40, -4);
        delta(&mut replay, 3, 40, 4);
        delta(&mut replay, 4, 40, 1);
        replay.snapshot(stated(5, &[(40, 1)]));
        assert_eq!(replay.end(), []);
    }

    #[test]
    fn the_empty_book_of_a_close_is_none_but_one_that_goes_on_is() {
        let mut replay = Replay::default();
        replay.snapshot(stated(2, &[(40, 3)]));
        replay.snapshot(stated(5, &[]));
        replay.snapshot(stated(6, &[]));
        assert_eq!(replay.end(), []);
        assert_eq!((replay.tally.closes, replay.tally.equal), (1, 2));
        replay.snapshot(stated(2, &[(40, 3)]));
        replay.snapshot(stated(5, &[]));
        delta(&mut replay, 6, 41, 1);
        assert_eq!(replay.end().len(), 1);
        assert_eq!((replay.tally.closes, replay.tally.equal), (1, 2));
    }

    #[test]
    fn crossed_books_are_counted_by_moment() {
        let mut replay = Replay::default();
        replay.snapshot(stated(2, &[(40, 3)]));
        let (price, size) = level(40, 1);
        replay.delta(3, Side::No, price, size);
        replay.delta(3, Side::Yes, price, Size::from_hundredths(-300));
        replay.delta(4, Side::Yes, price, size);
        assert_eq!(replay.end(), []);
        assert_eq!(replay.tally.crossed, 1);
    }
}
