//! The exchange's clock against ours, by the `Date` of its replies.

use std::collections::VecDeque;

use crate::model::Micros;

/// Replies that count. Odd, so that the median is one of them.
const READINGS_MAX: usize = 9;
/// The header counts whole seconds and cuts off the rest: half a second is missing on average.
const CUT_MICROS: i64 = 500_000;
/// A reply that took longer than this tells too little.
const ROUND_TRIP_MICROS_MAX: i64 = 2_000_000;

/// A clock that differs by less does not make the exchange refuse a signature.
pub const SKEW_MICROS_MIN: i64 = 2_000_000;

/// The last few readings, oldest first, in microseconds that the exchange is ahead.
#[derive(Debug, Default)]
pub struct Offsets(VecDeque<i64>);

impl Offsets {
    /// Reads the `Date` of a reply that was asked for and came at these times of ours.
    pub fn read(&mut self, date: &str, asked_at: Micros, answered_at: Micros) {
        let Ok(theirs) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date) else {
            return;
        };
        let round_trip = answered_at.since(asked_at);
        if !(0..=ROUND_TRIP_MICROS_MAX).contains(&round_trip) {
            return;
        }
        let ours = asked_at.0.saturating_add(round_trip / 2);
        let theirs = theirs.as_microsecond().saturating_add(CUT_MICROS);
        if self.0.len() >= READINGS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(theirs.saturating_sub(ours));
    }

    /// The median; none before the first reading.
    pub fn median(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_last_replies_with_half_a_round_trip() {
        let theirs = Micros::parse_rfc3339("2026-08-05T03:45:40Z").unwrap();
        let date = "Wed, 05 Aug 2026 03:45:40 GMT";
        let mut offsets = Offsets::default();
        assert_eq!(offsets.median(), None);
        offsets.read("yesterday", theirs, theirs);
        offsets.read(date, theirs, Micros(theirs.0 + ROUND_TRIP_MICROS_MAX + 1));
        offsets.read(date, theirs, Micros(theirs.0 - 1));
        assert_eq!(offsets.median(), None, "nothing that tells anything");
        // Asked at .3 s, answered at .7 s of the same second: both clocks agree.
        offsets.read(date, Micros(theirs.0 + 300_000), Micros(theirs.0 + 700_000));
        assert_eq!(offsets.median(), Some(0));
        // One stray reply changes nothing.
        let ahead = |seconds: i64| Micros(theirs.0 + 500_000 - seconds * 1_000_000);
        for seconds in [3, 3, 60, 3] {
            offsets.read(date, ahead(seconds), ahead(seconds));
        }
        assert_eq!(offsets.median(), Some(3_000_000));
        for _ in 0..READINGS_MAX {
            offsets.read(date, ahead(-5), ahead(-5));
        }
        assert_eq!(offsets.median(), Some(-5_000_000));
    }
}
