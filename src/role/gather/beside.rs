//! What runs beside the sessions and needs REST: whether the exchange is there, the clocks, the poller.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::exchange::{Exchange, Watcher};
use super::health::Vitals;
use super::metrics::Metrics;
use super::poller::{self, Poller, Turns};
use super::{Config, clocks};
use crate::kalshi::rest::Rest;
use crate::log::journal::Journal;
use crate::model::Micros;
use crate::ops::duration::seconds;

/// What it works with.
pub struct Beside {
    pub rest: Arc<Rest>,
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    pub vitals: Arc<watch::Sender<Vitals>>,
    /// How the exchange stands.
    pub exchange: watch::Sender<Exchange>,
    /// Wakes the sessions that wait before another attempt.
    pub resume: Arc<watch::Sender<u64>>,
    /// The poller and its queue; none when it is off.
    pub poller: Option<(poller::Config, Arc<Turns>)>,
}

impl Beside {
    /// The queue of the poller that a configuration asks for.
    pub fn turns(config: &Config) -> Option<(poller::Config, Arc<Turns>)> {
        let poller = config.poller?;
        Some((poller, Arc::new(Turns::new(poller.interval_min))))
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { rest, journal, metrics, vitals, exchange, resume, poller } = self;
        let (seen, exchange_back) = (exchange.subscribe(), exchange.subscribe());
        let judged = Arc::clone(&vitals);
        let watcher = Watcher {
            rest: Arc::clone(&rest),
            state: exchange,
            troubled: Box::new(move || judged.borrow().is_troubled()),
            clock: Arc::new(Micros::now),
        };
        let polling = async {
            if let Some((config, turns)) = poller {
                let (rest, metrics) = (Arc::clone(&rest), Arc::clone(&metrics));
                let poller = Poller { rest, journal, turns, metrics, config };
                poller.run(shutdown.clone()).await;
            }
        };
        tokio::join!(
            watcher.run(shutdown.clone()),
            clocks::watch(Arc::clone(&rest), Arc::clone(&metrics), shutdown.clone()),
            show(seen, &rest, &metrics, &vitals, shutdown.clone()),
            wake(exchange_back, &resume, shutdown.clone()),
            polling,
        );
    }
}

/// Wakes the sessions when the exchange is back, so that none sleeps out a wait that it began while
/// there was nothing to connect to.
async fn wake(
    mut exchange: watch::Receiver<Exchange>,
    resume: &watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let mut was_away = false;
    loop {
        let state = exchange.borrow_and_update().clone();
        let away = state.unreachable || state.exchange_active == Some(false);
        if was_away && !away {
            resume.send_modify(|times| *times += 1);
        }
        was_away = away;
        tokio::select! {
            changed = exchange.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Takes the exchange's state over into health and metrics.
async fn show(
    mut exchange: watch::Receiver<Exchange>,
    rest: &Rest,
    metrics: &Metrics,
    vitals: &watch::Sender<Vitals>,
    shutdown: CancellationToken,
) {
    loop {
        let state = exchange.borrow_and_update().clone();
        metrics.paused.set(i64::from(state.is_paused()));
        vitals.send_modify(|vitals| {
            vitals.exchange = state;
            vitals.clock_offset = rest.clock_offset_micros().map(seconds);
        });
        tokio::select! {
            changed = exchange.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}
