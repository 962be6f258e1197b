//! What all tasks of one exchange share, and the one lock around its state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Account;
use super::blast::Blast;
use super::inject::Injection;
use super::ledger::Ledger;
use super::rest_faults::RestFaults;
use super::venue::{Burst, Venue};

/// What a hold withholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Pings are not answered and none are sent; data goes on.
    Pongs,
    /// Nothing is written at all, as from a peer that vanished without a word.
    Everything,
}

/// The shared parts of a running exchange.
#[derive(Debug)]
pub(super) struct Hub {
    venue: Mutex<Venue>,
    pub accounts: Vec<Account>,
    pub ledger: Arc<Ledger>,
    pub ping_interval: Duration,
    /// Ends everything.
    pub stop: CancellationToken,
    /// Cancelled when the flow may begin.
    pub go: CancellationToken,
    /// What goes wrong with REST.
    pub rest_faults: Mutex<RestFaults>,
    pub blast: Blast,
    /// Turns true when the source has nothing more.
    pub finished: watch::Sender<bool>,
    /// All tasks of this exchange.
    pub tasks: TaskTracker,
}

impl Hub {
    pub fn new(accounts: Vec<Account>, ping_interval: Duration, stop: CancellationToken) -> Self {
        let ledger = Arc::new(Ledger::default());
        Self {
            venue: Mutex::new(Venue::new(Arc::clone(&ledger))),
            accounts,
            ledger,
            ping_interval,
            stop,
            go: CancellationToken::new(),
            rest_faults: Mutex::default(),
            blast: Blast::default(),
            finished: watch::channel(false).0,
            tasks: TaskTracker::new(),
        }
    }

    /// Does something with the state, then wakes the writers of everybody who got a frame.
    pub fn with<R>(&self, act: impl FnOnce(&mut Venue) -> R) -> R {
        // A panic in a publication is a bug that tests show; what is served stays consistent.
        let mut venue = self.venue.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut venue);
        venue.flush();
        result
    }

    /// Waits while somebody who still reads is far behind.
    pub async fn pace(&self) {
        while self.with(|venue| venue.is_congested()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The faults of REST that wait for their calls.
    pub fn rest_faults(&self) -> std::sync::MutexGuard<'_, RestFaults> {
        self.rest_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Withholds something from a key's connections for a while.
    pub fn hold(&self, key: usize, what: Hold, time: Duration) {
        if let Some(account) = self.accounts.get(key) {
            let until = Instant::now().checked_add(time);
            match what {
                Hold::Pongs => account.gate().mute_until = until,
                Hold::Everything => account.gate().frozen_until = until,
            }
        }
    }

    /// Changes the pace of a generated flow for a while.
    pub fn burst(&self, burst: Burst, time: Duration) {
        let until = Instant::now().checked_add(time);
        self.with(|venue| venue.pace.burst = until.map(|until| (burst, until)));
    }

    /// Lets so many markets a minute be born for a while; each lives its whole life.
    pub fn churn(&self, per_minute: f64, time: Duration) {
        let until = Instant::now().checked_add(time);
        self.with(|venue| venue.pace.churn = until.map(|until| (per_minute, until)));
    }

    /// Sends a raw frame on all live subscriptions of its channel and returns on how many.
    pub fn inject(&self, injection: &Injection) -> usize {
        self.with(|venue| venue.inject(injection))
    }
}
