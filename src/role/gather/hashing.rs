//! A hash for the maps that every change passes through several times, far cheaper than the standard
//! one. Its keys are places, times and tickers that the exchange gives over its own connection; who
//! could choose them to collide could send us anything.

use std::hash::{BuildHasherDefault, Hasher};

/// A map with this hash.
pub type FastMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Mix>>;

/// An odd number with bits all over, from the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds each word in with one wide multiplication.
#[derive(Debug, Default, Clone, Copy)]
pub struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x5851_f42d_4c95_7f2d) * u128::from(MULTIPLIER);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = product.to_le_bytes();
        let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let high = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        self.0 = low ^ high.rotate_left(29);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(<[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes));
        }
        let mut last = [0; 8];
        for (into, byte) in last.iter_mut().zip(words.remainder()) {
            *into = *byte;
        }
        // The length tells texts apart that differ only in trailing zeros.
        self.word(
            u64::from_le_bytes(last) ^ u64::try_from(bytes.len()).unwrap_or(0).rotate_left(56),
        );
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_i64(&mut self, value: i64) {
        self.word(value.cast_unsigned());
    }

    fn write_isize(&mut self, value: isize) {
        self.word(u64::try_from(value).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    fn hash(value: impl Hash) -> u64 {
        let mut mix = Mix::default();
        value.hash(&mut mix);
        mix.finish()
    }

    #[test]
    fn keys_that_differ_a_little_spread_over_all_buckets() {
        // The map takes its bucket from the low bits and its tag from the high ones.
        for shift in [0, 57] {
            let mut buckets = [0_u32; 128];
            for number in 0..128_000_i64 {
                let bits = hash((7_i64, number, "KXBTCD-26NOV2217")) >> shift;
                buckets[usize::try_from(bits & 127).unwrap()] += 1;
            }
            assert!(buckets.iter().all(|count| (800..1200).contains(count)), "{buckets:?}");
        }
        let tickers: HashSet<u64> = (0..100_000).map(|n| hash(format!("KXBTCD-T{n}"))).collect();
        assert_eq!(tickers.len(), 100_000);
        assert_ne!(hash("a"), hash("a\0"));
    }
}
