//! A budget of requests per second, shared by everything that calls REST.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Grants one request every `interval`, and a few at once after a pause.
///
/// It is the generic cell rate algorithm: the one number kept is the time at which the bucket would
/// be empty again, so no task refills anything.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    interval: Duration,
    /// How far ahead of an even flow requests may run: `interval` * (burst - 1).
    tolerance: Duration,
    /// When the next request is due in an even flow.
    due: Instant,
}

impl Budget {
    /// At most `per_second` requests a second, and `burst` at once; both at least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let (interval, tolerance) = flow(per_second, burst);
        Self { state: Mutex::new(State { interval, tolerance, due: Instant::now() }) }
    }

    /// Changes the rate, for instance after the exchange told our limits.
    pub fn set(&self, per_second: u32, burst: u32) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.interval, state.tolerance) = flow(per_second, burst);
    }

    /// Waits for the turn of one request. Dropping the wait gives up the turn.
    pub async fn take(&self) {
        tokio::time::sleep_until(self.turn(Instant::now())).await;
    }

    /// When the next request may go, which then counts as gone.
    fn turn(&self, now: Instant) -> Instant {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state.due.max(now);
        state.due = due + state.interval;
        due.checked_sub(state.tolerance).map_or(now, |at| at.max(now))
    }

    /// Lets the budget run dry: the exchange said that others of our account have used it.
    pub fn exhausted(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.due = state.due.max(Instant::now() + state.tolerance + state.interval);
    }
}

fn flow(per_second: u32, burst: u32) -> (Duration, Duration) {
    let interval = Duration::from_secs(1) / per_second.max(1);
    (interval, interval * burst.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_an_even_flow() {
        let budget = Budget::new(20, 5);
        let start = Instant::now();
        assert!((0..5).all(|_| budget.turn(start) == start));
        let turns: Vec<_> = (0..40).map(|_| budget.turn(start) - start).collect();
        assert_eq!(turns.first(), Some(&Duration::from_millis(50)));
        assert_eq!(turns.last(), Some(&Duration::from_secs(2)));
        let later = start + Duration::from_secs(10);
        assert!((0..5).all(|_| budget.turn(later) == later));
        assert_eq!(budget.turn(later), later + Duration::from_millis(50));
    }

    #[test]
    fn a_429_stops_the_burst_and_a_new_rate_counts_at_once() {
        let budget = Budget::new(20, 5);
        budget.exhausted();
        let now = Instant::now();
        assert!(budget.turn(now) > now);
        budget.set(1000, 1);
        let first = budget.turn(now);
        assert_eq!(budget.turn(now) - first, Duration::from_millis(1));
    }
}
