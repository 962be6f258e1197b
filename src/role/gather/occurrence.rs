//! Ordinals of identical changes, and the memory that makes the copies of a doubled channel one.
//!
//! Both are bounded: two generations, of which the older is dropped when the newer is full.

use std::collections::HashSet;
use std::collections::hash_map::Entry;

use super::hashing::FastMap;
use crate::model::{Micros, Price, Side, Size};

/// Changes of a generation, of all streams together. In the capture identical changes of a stream
/// stood at most four frames apart, so with 150 streams this is a hundred times more than needed; and
/// it is small, because every change looks here.
const CHANGES: usize = 1 << 16;
/// Contents of a generation: the second copy comes from another session, which may be seconds
/// behind.
const CONTENTS: usize = 200_000;

/// What makes two changes of one stream identical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// A number of the caller's for the market in its stream, never used for another.
    pub market: u64,
    pub exchange_ts: Micros,
    pub side: Side,
    pub price: Price,
    pub size_delta: Size,
}

/// Counts identical changes of each stream.
#[derive(Debug, Default)]
pub struct Occurrences {
    current: FastMap<Change, i32>,
    previous: FastMap<Change, i32>,
}

impl Occurrences {
    /// The ordinal of this change among identical ones, from 1.
    pub fn next(&mut self, change: Change) -> i32 {
        if self.current.len() >= CHANGES {
            self.previous = std::mem::take(&mut self.current);
            self.current.reserve(CHANGES);
        }
        match self.current.entry(change) {
            Entry::Occupied(entry) => {
                let ordinal = entry.into_mut();
                *ordinal = ordinal.saturating_add(1);
                *ordinal
            }
            Entry::Vacant(entry) => {
                let before = self.previous.get(entry.key()).copied().unwrap_or_default();
                *entry.insert(before.saturating_add(1))
            }
        }
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
        if self.current.len() >= CONTENTS {
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
            market: 7,
            exchange_ts: Micros(5),
            side: Side::Yes,
            price: Price::from_micros(10),
            size_delta: Size::from_hundredths(-100),
        };
        assert_eq!(occurrences.next(change), 1);
        assert_eq!(occurrences.next(change), 2);
        assert_eq!(occurrences.next(Change { side: Side::No, ..change }), 1);
        assert_eq!(occurrences.next(Change { market: 8, ..change }), 1);
        // The memory of the last generation is still there after it turned.
        for ts in 0..i64::try_from(CHANGES).unwrap() {
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
