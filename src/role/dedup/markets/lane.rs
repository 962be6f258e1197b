//! One table's part of the sync: what is due, and what its lists led to.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Config;
use super::kind::Kind;
use super::pass::Pass;
use super::report::TableReport;
use super::store::State;
use crate::model::Micros;
use crate::ops::backoff::Backoff;

/// After a failed list: full jitter below a bound that doubles from here ..
const BACKOFF_BASE: Duration = Duration::from_secs(2);
/// .. to here. The requests of a list have retries of their own.
const BACKOFF_CAP: Duration = Duration::from_secs(120);
/// Complete lists in a row to confirm one. An exchange that never stands still would be listed for
/// ever; what is left then waits for the next interval.
const CONFIRMATIONS_MAX: u32 = 3;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Full,
    Changes,
    In(Duration),
}

/// The part of one table.
pub struct Lane {
    pub kind: Kind,
    pub state: State,
    pub rows: i64,
    /// A complete list that an error interrupted.
    pub pass: Option<Pass>,
    /// Keys that the last complete list did not show, by their hash. What the next one does not show
    /// either is gone.
    pub doubted: HashSet<u64>,
    pub advanced_at: Micros,
    error: Option<String>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    confirmations: u32,
}

impl Lane {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            state: State::default(),
            rows: 0,
            pass: None,
            doubted: HashSet::new(),
            advanced_at: Micros::now(),
            error: None,
            retry_at: None,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            confirmations: 0,
        }
    }

    /// What production says now, after it was away. A list under way goes on only over the very state
    /// on which it began; a first one goes on from its bookmark.
    pub fn found(&mut self, state: State, rows: i64) {
        let goes_on = self
            .pass
            .as_ref()
            .is_some_and(|pass| pass.base.is_some() && pass.base == state.full_from);
        if !goes_on {
            self.pass = None;
        }
        (self.state, self.rows) = (state, rows);
    }

    /// What is due.
    pub fn due(&self, now: Micros, clock: Instant, config: &Config) -> Due {
        if let Some(at) = self.retry_at.filter(|at| *at > clock) {
            return Due::In(at.duration_since(clock));
        }
        let (Some(full_from), None) = (self.state.full_from, &self.pass) else { return Due::Full };
        let confirms = self.state.to_confirm && self.confirmations <= CONFIRMATIONS_MAX;
        let full = left(full_from, config.full_interval, now);
        if confirms || full.is_zero() {
            return Due::Full;
        }
        let synced_at = self.state.synced_at.unwrap_or(full_from);
        let changes = left(synced_at, config.refresh_interval, now);
        if changes.is_zero() { Due::Changes } else { Due::In(changes.min(full)) }
    }

    /// A complete list ended; whether another one has to confirm it.
    pub fn full_ended(&mut self, to_confirm: bool) {
        let so_far = if self.confirmations > CONFIRMATIONS_MAX { 0 } else { self.confirmations };
        self.confirmations = if to_confirm { so_far + 1 } else { 0 };
    }

    /// A list succeeded.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
        (self.retry_at, self.error) = (None, None);
    }

    /// A list failed; how long until the next attempt.
    pub fn failed(&mut self, error: String) -> Duration {
        let wait = self.backoff.next_delay();
        self.retry_at = Some(Instant::now() + wait);
        self.error = Some(error);
        wait
    }

    pub fn report(&self) -> TableReport {
        TableReport {
            kind: self.kind,
            rows: self.rows,
            loaded: self.state.full_from.is_some(),
            synced_at: self.state.synced_at,
            advanced_at: self.advanced_at,
            error: self.error.clone(),
        }
    }
}

/// What is left of an interval; nothing of one that began in the future, because a clock was set back.
fn left(since: Micros, interval: Duration, now: Micros) -> Duration {
    match u64::try_from(now.since(since)) {
        Ok(elapsed) => interval.saturating_sub(Duration::from_micros(elapsed)),
        Err(_) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kalshi::Api;

    fn config() -> Config {
        let api = Api { rest_url: String::new(), ws_url: String::new(), credentials: None };
        Config {
            api,
            refresh_interval: Duration::from_secs(60),
            full_interval: Duration::from_secs(3600),
            multivariate: false,
        }
    }

    #[test]
    fn lists_are_due_by_what_production_says() {
        let (config, clock) = (config(), Instant::now());
        let at = Micros::from_secs;
        let mut lane = Lane::new(Kind::Markets);
        assert_eq!(lane.due(at(0), clock, &config), Due::Full, "never loaded");
        lane.state.full_from = Some(at(1000));
        lane.state.synced_at = Some(at(1010));
        assert_eq!(lane.due(at(1040), clock, &config), Due::In(Duration::from_secs(30)));
        assert_eq!(lane.due(at(1070), clock, &config), Due::Changes);
        assert_eq!(lane.due(at(4600), clock, &config), Due::Full);
        assert_eq!(lane.due(at(900), clock, &config), Due::Full, "the clock was set back");
        lane.state.to_confirm = true;
        assert_eq!(lane.due(at(1040), clock, &config), Due::Full);
        let wait = lane.failed("HTTP 503".to_owned());
        assert!(matches!(lane.due(at(1040), clock, &config), Due::In(left) if left >= wait));
        lane.succeeded();
        for _ in 0..=CONFIRMATIONS_MAX {
            lane.full_ended(true);
        }
        assert_ne!(lane.due(at(1040), clock, &config), Due::Full, "not for ever");
        assert_eq!(lane.due(at(4600), clock, &config), Due::Full);
        lane.full_ended(true);
        assert_eq!(lane.due(at(1040), clock, &config), Due::Full, "a new interval, new attempts");
    }
}
