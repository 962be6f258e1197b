//! The sequence check: one counter a subscription, in which replies take numbers too.
//!
//! Pure, because it runs twice over the same frames: in the session, to ask for snapshots at once,
//! and behind the journal, where it decides what the coverage rows say.

use std::collections::HashMap;

/// What a frame's number says about the frames before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The first number of this subscription: taken as it is (a capture's first was 22).
    First,
    /// The number after the last one.
    Next,
    /// The last number again: a copy to drop.
    Duplicate,
    /// Numbers are missing: every market of the subscription is uncertain.
    Gap { expected: i64, got: i64 },
    /// The numbers went back: the exchange reset the stream, to be treated like a gap.
    Reset { expected: i64, got: i64 },
}

/// The counters of one connection.
#[derive(Debug, Default, Clone)]
pub struct Sequence {
    last: HashMap<i64, i64>,
}

impl Sequence {
    /// Takes a frame's number, data and replies alike.
    pub fn step(&mut self, sid: i64, seq: i64) -> Step {
        let Some(last) = self.last.insert(sid, seq) else {
            return Step::First;
        };
        let expected = last.saturating_add(1);
        match seq {
            _ if seq == expected => Step::Next,
            _ if seq == last => Step::Duplicate,
            _ if seq > expected => Step::Gap { expected, got: seq },
            _ => Step::Reset { expected, got: seq },
        }
    }

    /// Forgets a subscription that ended; its sid may come again with a new counter.
    pub fn forget(&mut self, sid: i64) {
        self.last.remove(&sid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscription_counts_for_itself_and_starts_anywhere() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.step(1, 22), Step::First);
        assert_eq!(sequence.step(2, 1), Step::First);
        assert_eq!(sequence.step(1, 23), Step::Next);
        assert_eq!(sequence.step(1, 23), Step::Duplicate);
        assert_eq!(sequence.step(1, 26), Step::Gap { expected: 24, got: 26 });
        assert_eq!(sequence.step(1, 27), Step::Next);
        assert_eq!(sequence.step(1, 3), Step::Reset { expected: 28, got: 3 });
        assert_eq!(sequence.step(1, 4), Step::Next);
        sequence.forget(2);
        assert_eq!(sequence.step(2, 9), Step::First);
    }
}
