//! A market's order book, folded from a snapshot and the deltas that follow it.

use std::fmt;

use super::{Price, Side, Size};

/// All levels of a market, by side. A level of size 0 does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    yes: Levels,
    no: Levels,
}

/// The levels of a side, ascending by price. Most books have a handful, and there are hundreds of
/// thousands of books: a sorted list takes a quarter of a tree's memory, and finds a level faster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Levels(Vec<(Price, Size)>);

impl Levels {
    /// Levels as a snapshot lists them: usually ascending already. Where a price comes twice, the
    /// last one stands.
    fn from_listed(listed: &[(Price, Size)]) -> Self {
        let mut levels = Self(Vec::with_capacity(listed.len()));
        for &(price, size) in listed {
            match levels.0.last() {
                Some((last, _)) if *last >= price => levels.set(price, size),
                _ => levels.0.push((price, size)),
            }
        }
        levels.0.retain(|(_, size)| size.hundredths() != 0);
        levels
    }

    fn find(&self, price: Price) -> Result<usize, usize> {
        self.0.binary_search_by_key(&price, |(at, _)| *at)
    }

    fn size(&self, price: Price) -> Size {
        let found = self.find(price).ok().and_then(|at| self.0.get(at));
        found.map_or_else(Size::default, |(_, size)| *size)
    }

    fn set(&mut self, price: Price, size: Size) {
        match self.find(price) {
            Ok(at) => {
                if let Some(level) = self.0.get_mut(at) {
                    level.1 = size;
                }
            }
            Err(at) => self.0.insert(at, (price, size)),
        }
    }

    fn remove(&mut self, price: Price) {
        if let Ok(at) = self.find(price) {
            self.0.remove(at);
        }
    }
}

/// The book contradicts the stream: something before was lost or doubled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookError {
    pub side: Side,
    pub price: Price,
    /// What the level would hold: below zero.
    pub size: Size,
}

impl fmt::Display for BookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} level at {} would hold {}", self.side, self.price, self.size)
    }
}

impl std::error::Error for BookError {}

impl Book {
    /// The book that a snapshot states. Levels of size 0 are left out.
    pub fn from_levels(yes: &[(Price, Size)], no: &[(Price, Size)]) -> Self {
        Self { yes: Levels::from_listed(yes), no: Levels::from_listed(no) }
    }

    /// Applies a signed change to a level.
    ///
    /// # Errors
    /// When the level would fall below zero; the book then holds it, so that two recorders that
    /// replay the same stream still agree.
    pub fn apply(&mut self, side: Side, price: Price, delta: Size) -> Result<(), BookError> {
        let levels = match side {
            Side::Yes => &mut self.yes,
            Side::No => &mut self.no,
        };
        let before = levels.size(price);
        // Both are bounded by SIZE_HUNDREDTHS_MAX on the way in; a sum of many is not.
        let after = Size::from_hundredths(before.hundredths().saturating_add(delta.hundredths()));
        if after.hundredths() == 0 {
            levels.remove(price);
        } else {
            levels.set(price, after);
        }
        if after.hundredths() < 0 {
            return Err(BookError { side, price, size: after });
        }
        Ok(())
    }

    /// The levels of a side, ascending by price.
    pub fn levels(&self, side: Side) -> impl Iterator<Item = (Price, Size)> + '_ {
        let levels = match side {
            Side::Yes => &self.yes,
            Side::No => &self.no,
        };
        levels.0.iter().copied()
    }

    /// Whether it has no level at all, as after a market's close.
    pub fn is_empty(&self) -> bool {
        self.yes.0.is_empty() && self.no.0.is_empty()
    }

    /// The highest yes bid, when there is one.
    pub fn best_yes_bid(&self) -> Option<Price> {
        self.yes.0.last().map(|(price, _)| *price)
    }

    /// The lowest no-side price in yes-leg terms (the best yes ask), when there is one.
    pub fn best_yes_ask(&self) -> Option<Price> {
        self.no.0.first().map(|(price, _)| *price)
    }

    /// Whether the best yes bid is at or above the best yes ask.
    pub fn is_crossed(&self) -> bool {
        matches!((self.best_yes_bid(), self.best_yes_ask()), (Some(bid), Some(ask)) if bid >= ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(price: &str, size: &str) -> (Price, Size) {
        (Price::parse(price).unwrap(), Size::parse(size).unwrap())
    }

    #[test]
    fn a_level_at_zero_is_gone_and_below_zero_is_an_error() {
        let mut book = Book::from_levels(&[level("0.08", "300.00")], &[level("0.54", "20.00")]);
        let (price, _) = level("0.08", "0");
        assert_eq!(book.apply(Side::Yes, price, Size::parse_signed("-300.00").unwrap()), Ok(()));
        assert_eq!(book.best_yes_bid(), None);
        let error = book.apply(Side::Yes, price, Size::parse_signed("-0.01").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the yes level at 0.0800 would hold -0.01");
    }

    #[test]
    fn a_snapshot_out_of_order_is_the_same_book() {
        let listed =
            [level("0.30", "1"), level("0.10", "2"), level("0.20", "0"), level("0.30", "3")];
        let book = Book::from_levels(&listed, &[]);
        let levels: Vec<_> = book.levels(Side::Yes).collect();
        assert_eq!(levels, [level("0.10", "2"), level("0.30", "3")]);
    }

    proptest::proptest! {
        #[test]
        fn the_levels_are_what_a_map_holds(
            changes in proptest::collection::vec((0_i64..12, -3_i64..4), 0..200),
        ) {
            let mut book = Book::default();
            let mut map = std::collections::BTreeMap::<i64, i64>::new();
            for (cents, hundredths) in changes {
                let price = Price::from_micros(cents * 10_000);
                let result = book.apply(Side::No, price, Size::from_hundredths(hundredths));
                let size = map.entry(cents).or_default();
                *size += hundredths;
                proptest::prop_assert_eq!(result.is_err(), *size < 0);
                map.retain(|_, size| *size != 0);
            }
            let levels: Vec<_> =
                book.levels(Side::No).map(|(p, s)| (p.micros() / 10_000, s.hundredths())).collect();
            proptest::prop_assert_eq!(levels, map.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_crossed_book_shows() {
        let book = Book::from_levels(&[level("0.55", "1")], &[level("0.54", "1")]);
        assert!(book.is_crossed());
        assert!(!Book::default().is_crossed());
    }
}
