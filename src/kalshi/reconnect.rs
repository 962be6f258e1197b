//! How long a session waits before it connects again.
//!
//! After a loss the first attempt comes quickly, and later ones spread: full jitter, so that of 150
//! sessions that fell together no two come back in step. Where the exchange says when, or that it
//! will not have us, that counts more.

use std::time::Duration;

use crate::kalshi::session::Settings;
use crate::ops::backoff::Backoff;

/// An exchange that is overloaded is left alone this many times longer than one that restarts.
const LATER_FACTOR: u32 = 5;

/// How an attempt or a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The connection was there for this long.
    Lost { lasted: Duration },
    /// It was closed for a restart of the exchange (close codes 1001 and 1012).
    Restart { lasted: Duration },
    /// The exchange wants us later (close code 1013, HTTP 429), or after the given time.
    Later { after: Option<Duration> },
    /// The exchange does not work (HTTP 5xx), perhaps for the given time, or the network.
    Failed { after: Option<Duration> },
    /// Trying again does not help by itself.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub struct Waits {
    backoff: Backoff,
    refusals: Backoff,
    refused_base: Duration,
    stable_after: Duration,
    polite: Duration,
    spread: Duration,
    cap: Duration,
}

impl Waits {
    pub fn new(settings: &Settings) -> Self {
        let cap = settings.backoff_cap;
        let refused_cap = settings.refused_cap.min(cap);
        let refused_base = settings.refused_base.min(refused_cap);
        Self {
            backoff: Backoff::new(settings.backoff_base, cap),
            refusals: Backoff::new(refused_base, refused_cap),
            refused_base,
            stable_after: settings.stable_after,
            polite: settings.polite_wait,
            spread: settings.resume_spread,
            cap,
        }
    }

    /// The wait that follows.
    pub fn after(&mut self, outcome: Outcome) -> Duration {
        if let Outcome::Lost { lasted } | Outcome::Restart { lasted } = outcome
            && lasted >= self.stable_after
        {
            self.reset();
        }
        let told = |after: Option<Duration>| after.unwrap_or_default().min(self.cap);
        let least = match outcome {
            Outcome::Lost { .. } => return self.backoff.next_delay(),
            // Half is jitter: a refused key stays refused, so never at once.
            Outcome::Refused => return (self.refused_base + self.refusals.next_delay()) / 2,
            Outcome::Restart { .. } => self.polite,
            Outcome::Later { after } => (self.polite * LATER_FACTOR).max(told(after)),
            Outcome::Failed { after: None } => return self.backoff.next_delay(),
            Outcome::Failed { after } => told(after),
        };
        self.backoff.next_delay().max(least + self.moment())
    }

    /// The exchange is back: failures are forgotten, and each session takes its own moment.
    pub fn resume(&mut self) -> Duration {
        self.reset();
        self.moment()
    }

    fn moment(&self) -> Duration {
        self.spread.mul_f64(fastrand::f64())
    }

    fn reset(&mut self) {
        self.backoff.reset();
        self.refusals.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn many(outcome: Outcome, settings: &Settings) -> Vec<Duration> {
        let mut waits: Vec<Duration> =
            (0..150).map(|_| Waits::new(settings).after(outcome)).collect();
        waits.sort();
        waits
    }

    #[test]
    fn sessions_that_fell_together_come_back_quickly_and_apart() {
        let settings = Settings::default();
        let waits = many(Outcome::Lost { lasted: HOUR }, &settings);
        assert!(waits[149] <= settings.backoff_base);
        let distinct = waits.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(distinct > 140, "{distinct}");
        // Repeated failures: half of the sessions wait longer than two minutes in the end.
        let mut late: Vec<Duration> = (0..150)
            .map(|_| {
                let mut waits = Waits::new(&settings);
                (0..20).map(|_| waits.after(Outcome::Failed { after: None })).last().unwrap()
            })
            .collect();
        late.sort();
        assert!(late[149] <= settings.backoff_cap && late[75] > settings.backoff_cap / 4);
    }

    #[test]
    fn what_the_exchange_says_counts() {
        let settings = Settings::default();
        let (polite, spread) = (settings.polite_wait, settings.resume_spread);
        let waits = many(Outcome::Restart { lasted: HOUR }, &settings);
        assert!(waits[0] >= polite && waits[149] <= polite + spread);
        let waits = many(Outcome::Later { after: None }, &settings);
        assert!(waits[0] >= polite * 5 && waits[149] <= polite * 5 + spread);
        let told = Some(Duration::from_secs(30));
        for outcome in [Outcome::Later { after: told }, Outcome::Failed { after: told }] {
            let waits = many(outcome, &settings);
            assert!(waits[0] >= Duration::from_secs(30) && waits[149] <= Duration::from_secs(32));
        }
        // A day is more than we believe.
        let waits = many(Outcome::Failed { after: Some(HOUR * 24) }, &settings);
        assert!(waits[149] <= settings.backoff_cap + spread);
    }

    #[test]
    fn a_refusal_is_tried_again_slowly_and_within_its_cap() {
        let settings = Settings::default();
        let mut waits = Waits::new(&settings);
        for _ in 0..50 {
            let wait = waits.after(Outcome::Refused);
            assert!(wait >= settings.refused_base / 2 && wait <= settings.refused_cap, "{wait:?}");
        }
        // A connection that held is forgiven, one that did not is not.
        for _ in 0..9 {
            waits.after(Outcome::Lost { lasted: Duration::ZERO });
        }
        assert!(waits.after(Outcome::Lost { lasted: HOUR }) <= settings.backoff_base);
        waits.after(Outcome::Failed { after: None });
        assert!(waits.resume() <= settings.resume_spread);
        assert!(waits.after(Outcome::Failed { after: None }) <= settings.backoff_base);
    }
}
