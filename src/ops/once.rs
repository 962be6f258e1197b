//! Says of each kind of trouble whether it is the first of its kind, so that it is logged once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// A bounded memory of keys already reported. Shared by reference between tasks.
#[derive(Debug)]
pub struct Once {
    capacity: usize,
    seen: Mutex<HashSet<String>>,
}

/// Keys longer than this are told apart by their beginning only: they often quote input.
const KEY_BYTES_MAX: usize = 200;

impl Once {
    /// Remembers up to `capacity` keys of at most 200 bytes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, seen: Mutex::default() }
    }

    /// Whether `key` is seen for the first time. Once the memory is full every new key counts as seen:
    /// input that is always new must not turn into as many log lines.
    pub fn first(&self, key: &str) -> bool {
        let key = shortened(key);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(key) {
            return false;
        }
        if seen.len() >= self.capacity {
            return false;
        }
        seen.insert(key.to_owned())
    }
}

fn shortened(key: &str) -> &str {
    let mut end = key.len().min(KEY_BYTES_MAX);
    while !key.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    key.get(..end).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_first_once_and_memory_is_bounded() {
        let once = Once::new(2);
        assert!(once.first("a") && once.first("b"));
        assert!(!once.first("a"));
        assert!(!once.first("c") && !once.first("c"));
    }

    #[test]
    fn long_keys_are_cut_at_a_character() {
        let once = Once::new(2);
        let long = "é".repeat(150) + "x";
        assert!(once.first(&long[..]));
        assert!(!once.first(&("é".repeat(150) + "y")));
        assert!(once.first(&("x".to_owned() + &"é".repeat(150))));
    }
}
