//! The bounded memory of identities that are certainly in production, and what follows from it.
//!
//! Two questions are answered without asking production:
//!
//! - *Is this row certainly there?* Yes, if its identity is remembered: only identities whose
//!   transaction is known to have committed are ever put in.
//! - *Is this row certainly not there?* Yes, if its time is at or above the `floor` and its identity
//!   is not remembered.
//!
//! Everything else is for the unique key to decide, through the stage.
//!
//! # Why the second answer is right
//!
//! Let *F* be the floor and *M* the identities remembered. Invariant: **every row in production whose
//! time is at or above F has its identity in M.** A row's time is part of its identity (or, for trades,
//! within [`tolerance`](super::table::Table::tolerance_micros) of that of every copy), so a row that
//! has an equal in production finds it at the same time, and if that time is at or above F, in M.
//!
//! - *Start.* `logs.time_max` in production is an upper bound of the times of all committed rows of the
//!   log; it moves in the same transaction as the rows. F = `time_max` + 1 and M = {} fulfil the
//!   invariant whatever the table holds.
//! - *Commit.* Every identity of a committed batch enters M, the written and those that were there
//!   already. Nothing else can add rows: the writer's lock is held and each transaction checks
//!   its epoch ([`crate::pg::writer`]); after the lock was lost, or the outcome of a commit is not
//!   known, M is thrown away and F read anew.
//! - *Late rows.* A time below F proves nothing, whatever M says; such rows take the stage.
//! - *Forgetting.* M is kept in stretches of time and forgets whole stretches, the oldest times first;
//!   F rises to the end of a stretch that is forgotten. A row with a time far in the future therefore
//!   costs nothing but its own place, where forgetting in order of arrival would drive F to that time.
//! - *Not yet known.* While a batch is being committed the next one is merged against M and that batch
//!   ([`super::merge`]). Its rows are not in M, so the invariant is about production *before* it;
//!   should it fail, the next batch is thrown away with it.
//!
//! The unique key stands behind all this: were a law broken by something outside, the direct write
//! fails with 23505, is counted, and the same rows are written again through the stage.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Width of a stretch of time: 2^18 µs, about a quarter of a second.
const STRETCH_BITS: u32 = 18;

/// What an empty stretch costs, in units of an identity, so that sparse times stay bounded too.
const STRETCH_COST: usize = 8;

/// Identities are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, identity: u128) {
        let (high, low) = (identity >> 64, identity & u128::from(u64::MAX));
        self.0 = u64::try_from(high ^ low).unwrap_or_default();
    }
}

/// Hashes identities by taking them as they are.
pub type BuildHashed = BuildHasherDefault<Hashed>;

/// The time from which on everything in production is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor(i64);

impl Floor {
    /// Whether a row with this time that is not remembered is certainly not in production.
    pub fn proves_new(self, time: i64, tolerance: i64) -> bool {
        // The greatest time stands for "nothing can be proven": there is no room above it.
        self.0 < i64::MAX && time.saturating_sub(tolerance) >= self.0
    }
}

/// See the module. Holds at most the cost given to `new` and one batch; a unit of cost is up to
/// about 40 bytes.
#[derive(Debug)]
pub struct Recent {
    stretches: BTreeMap<i64, HashSet<u128, BuildHashed>>,
    floor: i64,
    cost: usize,
    cost_max: usize,
}

impl Recent {
    /// Remembers nothing; `time_max` bounds the times of all that is in production, and the greatest
    /// time says that no bound is known, so that nothing is ever proven new.
    pub fn new(time_max: i64, cost_max: usize) -> Self {
        let floor = time_max.saturating_add(1);
        Self { stretches: BTreeMap::new(), floor, cost: 0, cost_max }
    }

    /// All that is in production at or above this time is remembered.
    pub fn floor(&self) -> Floor {
        Floor(self.floor)
    }

    /// Whether the row is certainly in production: an equal with a time at most `tolerance` away is
    /// remembered.
    pub fn contains(&self, time: i64, tolerance: i64, identity: u128) -> bool {
        let first = stretch_of(time.saturating_sub(tolerance));
        let last = stretch_of(time.saturating_add(tolerance));
        if first == last {
            return self.stretches.get(&first).is_some_and(|known| known.contains(&identity));
        }
        self.stretches.range(first..=last).any(|(_, known)| known.contains(&identity))
    }

    /// Remembers what a transaction that has committed made certain, then forgets the oldest times
    /// until the bound is kept.
    pub fn remember(&mut self, committed: impl IntoIterator<Item = (i64, u128)>) {
        for (time, identity) in committed {
            let known = self.stretches.entry(stretch_of(time)).or_insert_with(|| {
                self.cost += STRETCH_COST;
                HashSet::default()
            });
            if known.insert(identity) {
                self.cost += 1;
            }
        }
        while self.cost > self.cost_max {
            let Some((stretch, forgotten)) = self.stretches.pop_first() else { break };
            self.cost = self.cost.saturating_sub(forgotten.len() + STRETCH_COST);
            self.floor = self.floor.max(end_of(stretch));
        }
    }
}

const fn stretch_of(time: i64) -> i64 {
    time >> STRETCH_BITS
}

/// The first time after a stretch.
fn end_of(stretch: i64) -> i64 {
    stretch.saturating_add(1).saturating_mul(1 << STRETCH_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_repaired_trade_is_found_within_a_second() {
        let mut recent = Recent::new(0, 1000);
        recent.remember([(10 * SECOND, 5)]);
        for time in [9 * SECOND, 10 * SECOND, 10 * SECOND + 123_456, 11 * SECOND] {
            assert!(recent.contains(time, SECOND, 5), "{time}");
        }
        assert!(!recent.contains(12 * SECOND, SECOND, 5));
        assert!(!recent.contains(10 * SECOND + 500_000, 0, 5));
        assert!(!recent.floor().proves_new(SECOND, SECOND));
        assert!(recent.floor().proves_new(SECOND + 1, SECOND));
    }

    #[test]
    fn a_time_in_the_future_does_not_lift_the_floor() {
        let mut recent = Recent::new(0, 100);
        recent.remember([(86_400 * SECOND, 1)]);
        for n in 1..1000_u32 {
            recent.remember([(i64::from(n) * SECOND, u128::from(n) + 1)]);
        }
        assert!(recent.floor() < Floor(1000 * SECOND));
        assert!(recent.contains(86_400 * SECOND, 0, 1));
    }

    #[test]
    fn the_extremes_of_time_are_harmless() {
        let mut recent = Recent::new(i64::MIN, 10);
        recent.remember([(i64::MIN, 1), (i64::MAX, 2), (0, 3)]);
        assert!(recent.contains(i64::MAX, SECOND, 2));
        recent.remember((0..100).map(|n| (i64::MAX - n, n.unsigned_abs().into())));
        assert_eq!(recent.floor(), Floor(i64::MAX));
        assert!(!recent.floor().proves_new(i64::MAX, 0));
        assert!(!Recent::new(i64::MAX, 10).floor().proves_new(i64::MAX, 0));
    }

    proptest! {
        /// Against a model of production: no answer is ever wrong, however late rows come and
        /// however much was forgotten or was there before.
        #[test]
        fn both_answers_hold(
            before in prop::collection::btree_set((0_i64..40, 0_u8..4), 0..20),
            rows in prop::collection::vec((0_i64..60, 0_u8..4), 1..300),
            cost_max in 0_usize..120,
        ) {
            // Times half a stretch apart; the identity contains the time.
            let time = |t: i64| t << (STRETCH_BITS - 1);
            let identity = |t: i64, id: u8| u128::from(t.unsigned_abs()) * 256 + u128::from(id);
            let time_max = before.iter().map(|(t, _)| time(*t)).max().unwrap_or(i64::MIN);
            let mut recent = Recent::new(time_max, cost_max);
            let mut production: BTreeSet<(i64, u8)> = before;
            for (t, id) in rows {
                let known = recent.contains(time(t), 0, identity(t, id));
                let there = production.contains(&(t, id));
                prop_assert!(!known || there);
                if !known && recent.floor().proves_new(time(t), 0) {
                    prop_assert!(!there);
                }
                production.insert((t, id));
                recent.remember([(time(t), identity(t, id))]);
                prop_assert!(recent.cost <= cost_max);
            }
        }
    }
}
