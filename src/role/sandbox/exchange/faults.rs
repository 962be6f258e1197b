//! Things that go wrong on demand, for tests in this process; others use the control plane.

use std::time::Duration;

use anyhow::Context;

use super::Exchange;
use super::hub::Hold;
use super::inject::Injection;
use super::venue::{Happenings, Limits};

impl Exchange {
    /// What else happened so far.
    pub fn happenings(&self) -> Happenings {
        self.hub.with(|venue| venue.happenings)
    }

    /// Stops answering a key's pings, or writing to it at all, for that long.
    pub fn hold(&self, key: usize, what: Hold, time: Duration) {
        self.hub.hold(key, what, time);
    }

    /// Sends a raw frame on all live subscriptions of its channel and returns on how many.
    ///
    /// # Errors
    /// When the injection is impossible, in a sentence.
    pub fn inject(&self, injection: &Injection) -> anyhow::Result<usize> {
        injection.check().map_err(anyhow::Error::msg).context("inject a frame")?;
        Ok(self.hub.inject(injection))
    }

    /// The bounds that the exchange keeps.
    pub fn limits(&self) -> Limits {
        self.hub.with(|venue| venue.limits)
    }

    /// Changes the bounds that the exchange keeps.
    pub fn set_limits(&self, limits: Limits) {
        self.hub.with(|venue| venue.limits = limits);
    }
}
