//! A market's order book, folded from a snapshot and the deltas that follow it.

use std::collections::BTreeMap;
use std::fmt;

use super::{Price, Side, Size};

/// All levels of a market, by side. A level of size 0 does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    yes: BTreeMap<Price, Size>,
    no: BTreeMap<Price, Size>,
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
        let levels = |side: &[(Price, Size)]| {
            side.iter().copied().filter(|(_, size)| size.hundredths() != 0).collect()
        };
        Self { yes: levels(yes), no: levels(no) }
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
        let before = levels.get(&price).copied().unwrap_or_default();
        // Both are bounded by SIZE_HUNDREDTHS_MAX on the way in; a sum of many is not.
        let after = Size::from_hundredths(before.hundredths().saturating_add(delta.hundredths()));
        if after.hundredths() == 0 {
            levels.remove(&price);
        } else {
            levels.insert(price, after);
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
        levels.iter().map(|(price, size)| (*price, *size))
    }

    /// Whether it has no level at all, as after a market's close.
    pub fn is_empty(&self) -> bool {
        self.yes.is_empty() && self.no.is_empty()
    }

    /// The highest yes bid, when there is one.
    pub fn best_yes_bid(&self) -> Option<Price> {
        self.yes.keys().next_back().copied()
    }

    /// The lowest no-side price in yes-leg terms (the best yes ask), when there is one.
    pub fn best_yes_ask(&self) -> Option<Price> {
        self.no.keys().next().copied()
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
    fn a_crossed_book_shows() {
        let book = Book::from_levels(&[level("0.55", "1")], &[level("0.54", "1")]);
        assert!(book.is_crossed());
        assert!(!Book::default().is_crossed());
    }
}
