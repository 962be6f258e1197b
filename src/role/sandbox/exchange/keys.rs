//! A set of accounts, small enough to stand in every row of the ledger.

/// The most accounts: as many as [`Keys`] has bits.
pub const KEYS_MAX: usize = 16;

/// Accounts by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys(u16);

impl Keys {
    /// Adds an account; one that is out of range is no account.
    pub fn insert(&mut self, key: usize) {
        self.0 |= bit(key);
    }

    pub fn contains(self, key: usize) -> bool {
        self.0 & bit(key) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether everybody in `others` is here too.
    pub fn covers(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }
}

impl FromIterator<usize> for Keys {
    fn from_iter<T: IntoIterator<Item = usize>>(keys: T) -> Self {
        let mut all = Self::default();
        keys.into_iter().for_each(|key| all.insert(key));
        all
    }
}

fn bit(key: usize) -> u16 {
    u32::try_from(key).ok().and_then(|key| 1_u16.checked_shl(key)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let keys: Keys = [0, 2, 2, 15, 99].into_iter().collect();
        assert_eq!(keys.count(), 3);
        assert!(keys.contains(15) && !keys.contains(1) && !keys.contains(99));
        assert!(keys.covers([2].into_iter().collect()));
        assert!(!keys.covers([1, 2].into_iter().collect()));
        assert!(Keys::default().is_empty() && keys.covers(Keys::default()));
    }
}
