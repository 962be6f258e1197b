//! A budget of tokens per second, shared by everything that calls REST.
//!
//! The exchange refills an account's bucket each second and takes tokens for each request; over it,
//! it answers 429 and says neither how long to wait nor how much is left. Others may use the same
//! account, so a 429 halves our rate, and every half minute without another one doubles it again up
//! to what was learned.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The rate is never divided by more than 2 to this power.
const HALVINGS_MAX: u32 = 5;
/// Requests on their way when the first 429 comes are refused too: they are the same sign.
const HALVING_INTERVAL: Duration = Duration::from_secs(1);
/// So long without a 429, and the rate doubles again.
const RECOVERY: Duration = Duration::from_secs(30);

/// Grants tokens at an even rate, and a few at once after a pause.
///
/// It is the generic cell rate algorithm: the one number kept is the time at which the bucket would
/// be empty again, so no task refills anything.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Tokens a second, as learned.
    per_second: u32,
    /// Tokens at once after a pause.
    burst: u32,
    /// When the next request is due in an even flow.
    due: Instant,
    /// How many times the rate is halved, and since when.
    halvings: u32,
    halved_at: Instant,
}

impl State {
    /// The time that so many tokens take at the present rate.
    fn time_of(&self, tokens: u32) -> Duration {
        let whole = Duration::from_secs(1).saturating_mul(tokens);
        (whole / self.per_second.max(1)).saturating_mul(1 << self.halvings.min(HALVINGS_MAX))
    }

    fn recover(&mut self, now: Instant) {
        while self.halvings > 0 && now.saturating_duration_since(self.halved_at) >= RECOVERY {
            self.halvings -= 1;
            self.halved_at += RECOVERY;
        }
    }
}

impl Budget {
    /// At most `per_second` tokens a second, and `burst` at once; both at least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let now = Instant::now();
        let state = State { per_second, burst, due: now, halvings: 0, halved_at: now };
        Self { state: Mutex::new(state) }
    }

    /// Changes the rate, for instance after the exchange told our limits.
    pub fn set(&self, per_second: u32, burst: u32) {
        let mut state = self.lock();
        (state.per_second, state.burst) = (per_second, burst);
    }

    /// Tokens a second, whole, as they were learned: a slowed budget is the same account.
    pub fn per_second(&self) -> u32 {
        self.lock().per_second
    }

    /// Waits for the turn of a request of that many tokens. Dropping the wait gives up the turn.
    pub async fn take(&self, tokens: u32) {
        tokio::time::sleep_until(self.turn(tokens, Instant::now())).await;
    }

    /// When a request of that many tokens may go, which then counts as gone.
    fn turn(&self, tokens: u32, now: Instant) -> Instant {
        let mut state = self.lock();
        state.recover(now);
        let due = state.due.max(now);
        state.due = due + state.time_of(tokens);
        // A request that costs more than the burst goes when its turn comes, not never.
        let ahead = state.time_of(state.burst.saturating_sub(tokens));
        due.checked_sub(ahead).map_or(now, |at| at.max(now))
    }

    /// The exchange answered 429: the bucket is empty, and for a while we ask for less. Nothing is
    /// granted before `wait` has passed.
    pub fn exhausted(&self, wait: Duration) {
        let now = Instant::now();
        let mut state = self.lock();
        state.recover(now);
        let fresh = state.halvings == 0;
        if fresh || now.saturating_duration_since(state.halved_at) >= HALVING_INTERVAL {
            state.halvings = (state.halvings + 1).min(HALVINGS_MAX);
            state.halved_at = now;
        }
        // What a pause had saved up is gone.
        state.due = state.due.max(now + wait + state.time_of(state.burst));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests of 10 tokens that may go within `seconds` from `now` on.
    fn granted(budget: &Budget, now: Instant, seconds: u64) -> usize {
        let end = now + Duration::from_secs(seconds);
        std::iter::repeat_with(|| budget.turn(10, now)).take_while(|at| *at < end).count()
    }

    #[test]
    fn a_burst_and_then_an_even_flow() {
        let budget = Budget::new(200, 50);
        let start = Instant::now();
        assert!((0..5).all(|_| budget.turn(10, start) == start));
        let turns: Vec<_> = (0..40).map(|_| budget.turn(10, start) - start).collect();
        assert_eq!(turns.first(), Some(&Duration::from_millis(50)));
        assert_eq!(turns.last(), Some(&Duration::from_secs(2)));
        let later = start + Duration::from_secs(10);
        assert!((0..5).all(|_| budget.turn(10, later) == later));
        assert_eq!(budget.turn(10, later), later + Duration::from_millis(50));
    }

    #[test]
    fn requests_cost_what_they_cost() {
        let budget = Budget::new(200, 10);
        let start = Instant::now();
        assert_eq!(budget.turn(100, start), start, "more than the burst, after a pause");
        assert_eq!(budget.turn(2, start), start + Duration::from_millis(460));
        assert_eq!(budget.turn(10, start), start + Duration::from_millis(510));
        budget.set(1000, 10);
        let first = budget.turn(10, start);
        assert_eq!(budget.turn(10, start) - first, Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_halves_the_rate_for_a_while() {
        let budget = Budget::new(200, 50);
        // Three answers of one burst are one sign.
        for _ in 0..3 {
            budget.exhausted(Duration::ZERO);
        }
        let now = Instant::now();
        assert!(budget.turn(10, now) > now, "the burst is gone");
        let slowed = granted(&budget, now, 10);
        assert!((90..=100).contains(&slowed), "{slowed}");
        tokio::time::advance(Duration::from_secs(20)).await;
        budget.exhausted(Duration::ZERO);
        let slower = granted(&budget, Instant::now(), 10);
        assert!((45..=50).contains(&slower), "{slower}");
        tokio::time::advance(RECOVERY * 2).await;
        let again = granted(&budget, Instant::now(), 10);
        assert!((200..=205).contains(&again), "{again}");
        assert_eq!(budget.per_second(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_named_wait_is_kept() {
        let budget = Budget::new(200, 50);
        budget.exhausted(Duration::from_secs(7));
        let began = Instant::now();
        budget.take(10).await;
        assert!(began.elapsed() >= Duration::from_secs(7));
    }
}
