//! The REST snapshot poller: books from a second source, independent of the streams.
//!
//! It asks for 100 books a call, never uses more than its share of the account's tokens, and hands
//! each reply to the journal before anything reads it. One call at a time: at a tenth of a second
//! each that is 60,000 books a minute, more than most accounts' share pays for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::metrics::Metrics;
use super::poll_queue::Queue;
use super::polled::Header;
use crate::kalshi::budget::Budget;
use crate::kalshi::calls::{BOOKS_MAX, ORDERBOOKS};
use crate::kalshi::rest::{Rest, RestError, share_of};
use crate::kalshi::session::next_session_id;
use crate::log::journal::{Journal, Kind};
use crate::model::{Micros, Ticker};
use crate::ops::backoff::Backoff;

/// How long to wait when no market is due.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// How much the poller may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// The part of our tokens that it may use, above 0 and up to 1.
    pub share: f64,
    /// Between two polls of one market at least.
    pub interval_min: Duration,
}

/// The queue, shared with the registry.
#[derive(Debug)]
pub struct Turns(Mutex<Queue>);

impl Turns {
    pub fn new(interval_min: Duration) -> Self {
        Self(Mutex::new(Queue::new(interval_min)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the poller works with.
pub struct Poller {
    pub rest: Arc<Rest>,
    pub journal: Journal,
    pub turns: Arc<Turns>,
    pub metrics: Arc<Metrics>,
    pub config: Config,
}

impl Poller {
    /// Runs until `shutdown`. Failures are handled here: said, counted, tried again.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.poll() => {}
        }
    }

    async fn poll(self) {
        let session = next_session_id(Micros::now());
        let budget = Budget::new(1, 1);
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(120));
        let mut failing = false;
        let mut first = 1;
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                tokio::time::sleep(IDLE_WAIT).await;
                continue;
            }
            let cost = self.rest.cost(ORDERBOOKS);
            let ours = share_of(self.rest.tokens_per_second(), self.config.share);
            budget.set(ours, cost.max(1));
            budget.take(cost).await;
            match self.rest.orderbooks(&batch).await {
                Ok(body) => {
                    let received_at = Micros::now();
                    let notional = self.turns.lock().notional_of(&batch);
                    let payload = Header { first, notional }.before(&body);
                    self.journal.append(Kind::Poll, session, received_at, &payload).await;
                    // A reply has a book a market asked for; should it have more, none is doubled.
                    first += i64::try_from(BOOKS_MAX).unwrap_or(i64::MAX).saturating_mul(2);
                    self.metrics.poll(true);
                    backoff.reset();
                    failing = false;
                }
                Err(error) => {
                    self.turns.lock().give_back(batch);
                    self.metrics.poll(false);
                    self.say(&error, std::mem::replace(&mut failing, true));
                    backoff.wait().await;
                }
            }
        }
    }

    fn next_batch(&self) -> Vec<Ticker> {
        let now = tokio::time::Instant::now();
        let seen = self.metrics.take_activity();
        let mut turns = self.turns.lock();
        for (ticker, count) in &seen {
            turns.seen(ticker, *count);
        }
        let batch = turns.next_batch(BOOKS_MAX, now);
        self.metrics.poll_age(turns.oldest(now));
        batch
    }

    fn say(&self, failure: &RestError, again: bool) {
        if again {
            tracing::debug!(error = %failure, "poll order books");
        } else if failure.is_auth() {
            error!(error = %failure, "poll order books: check the API key");
        } else {
            warn!(error = %failure, "poll order books");
        }
    }
}

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
