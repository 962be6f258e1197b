//! Ordinals of identical changes, and the memory that makes the copies of a doubled channel one.
//!
//! Both are bounded: two generations, of which the older is dropped when the newer is full. In the
//! capture identical changes stood at most four frames apart, so a generation of 200,000 is no
//! limit in practice.

use std::collections::{HashMap, HashSet};

use crate::model::{Micros, Price, Side, Size};

/// Entries of a generation: about 16 MB for the two of [`Occurrences`].
const GENERATION: usize = 200_000;

/// What makes two changes of one stream identical. The stream and the market are numbers of the
/// caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    pub stream: u32,
    pub market: u32,
    pub exchange_ts: Micros,
    pub side: Side,
    pub price: Price,
    pub size_delta: Size,
}

/// Counts identical changes of each stream.
#[derive(Debug, Default)]
pub struct Occurrences {
    current: HashMap<Change, i32>,
    previous: HashMap<Change, i32>,
}

impl Occurrences {
    /// The ordinal of this change among identical ones, from 1.
    pub fn next(&mut self, change: Change) -> i32 {
        let before = self.current.get(&change).or_else(|| self.previous.get(&change));
        let ordinal = before.copied().unwrap_or_default().saturating_add(1);
        if self.current.len() >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(change, ordinal);
        ordinal
    }
}

/// Remembers what a doubled channel already brought.
#[derive(Debug, Default)]
pub struct Seen {
    current: HashSet<u128>,
    previous: HashSet<u128>,
}

impl Seen {
    /// Whether this content is new; it is remembered.
    pub fn is_new(&mut self, parts: &[&[u8]]) -> bool {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for part in parts {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part);
        }
        // 128 bits: a false match among 400,000 entries is out of reach.
        let hash = hasher.digest128();
        if self.previous.contains(&hash) || self.current.contains(&hash) {
            return false;
        }
        if self.current.len() >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_changes_count_up_in_each_stream() {
        let mut occurrences = Occurrences::default();
        let change = Change {
            stream: 1,
            market: 7,
            exchange_ts: Micros(5),
            side: Side::Yes,
            price: Price::from_micros(10),
            size_delta: Size::from_hundredths(-100),
        };
        assert_eq!(occurrences.next(change), 1);
        assert_eq!(occurrences.next(change), 2);
        assert_eq!(occurrences.next(Change { side: Side::No, ..change }), 1);
        assert_eq!(occurrences.next(Change { stream: 2, ..change }), 1);
        // The memory of the last generation is still there after it turned.
        for ts in 0..i64::try_from(GENERATION).unwrap() {
            occurrences.next(Change { exchange_ts: Micros(100 + ts), ..change });
        }
        assert_eq!(occurrences.next(change), 3);
    }

    #[test]
    fn a_copy_is_seen_once_and_parts_do_not_run_together() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&[b"ab", b"c"]));
        assert!(!seen.is_new(&[b"ab", b"c"]));
        assert!(seen.is_new(&[b"a", b"bc"]));
    }
}
