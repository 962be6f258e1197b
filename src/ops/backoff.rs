//! How long to wait before trying again: exponential with full jitter.

use std::time::Duration;

/// Waits between attempts. Each is uniform in `[0, min(cap, base * 2^attempt)]`: of many clients that
/// failed together none comes back in step with another.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// `base` bounds the first wait, `cap` every wait.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self::with_seed(base, cap, fastrand::u64(..))
    }

    /// The same waits for the same seed.
    pub fn with_seed(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, attempt: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait, longer on average at every call until `reset`.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 2u32.saturating_pow(self.attempt);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(self.rng.f64())
    }

    /// Waits for `next_delay`.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// Forgets the failures: call it after a success that lasted.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_never_past_it() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(300));
        let mut backoff = Backoff::with_seed(base, cap, 7);
        for attempt in 0..200 {
            let ceiling = base.saturating_mul(2u32.saturating_pow(attempt)).min(cap);
            assert!(backoff.next_delay() <= ceiling);
        }
        let late: Duration = (0..100).map(|_| backoff.next_delay()).sum();
        assert!(late > Duration::from_secs(100 * 100), "mean of late waits is near half the cap");
        backoff.reset();
        assert!(backoff.next_delay() <= base);
    }

    #[test]
    fn the_seed_decides() {
        let make = || Backoff::with_seed(Duration::from_millis(50), Duration::from_secs(5), 42);
        let (mut a, mut b) = (make(), make());
        assert!((0..50).all(|_| a.next_delay() == b.next_delay()));
    }
}
