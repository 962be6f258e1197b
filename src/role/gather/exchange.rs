//! Whether the exchange is there: its status, and the maintenance that it announces.
//!
//! Both come from the exchange, never from a fixed hour. While a window is near, or while most
//! sessions are down, the status is asked often, so that an end is seen within seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::kalshi::calls::{ExchangeStatus, Window};
use crate::kalshi::rest::{Rest, RestError};
use crate::kalshi::session::Clock;

/// How often the status is asked in quiet times ..
const STATUS_INTERVAL: Duration = Duration::from_secs(30);
/// .. and while something is going on.
const STATUS_INTERVAL_BUSY: Duration = Duration::from_secs(2);
/// A status that takes longer is none.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the schedule is asked.
const SCHEDULE_INTERVAL: Duration = Duration::from_secs(600);
/// How long before a window, and after it, something may be going on.
const WINDOW_MARGIN_MICROS: i64 = 120_000_000;

/// How the exchange stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// Whether it said so; none before it answered for the first time.
    pub exchange_active: Option<bool>,
    pub trading_active: Option<bool>,
    /// The announced window that is now.
    pub window: Option<Window>,
    /// Whether the schedule could not be read: then no window is known.
    pub schedule_unknown: bool,
    /// The last answer did not come.
    pub unreachable: bool,
}

impl Exchange {
    /// Whether it pauses, by its own word: missing sessions are then expected.
    pub fn is_paused(&self) -> bool {
        self.window.is_some()
            || self.exchange_active == Some(false)
            || self.trading_active == Some(false)
    }

    /// Whether it says that it trades: silence is then a sign of trouble.
    pub fn is_trading(&self) -> bool {
        self.exchange_active == Some(true) && self.trading_active == Some(true)
    }
}

/// What the watcher is given.
pub struct Watcher {
    pub rest: Arc<Rest>,
    pub state: watch::Sender<Exchange>,
    /// Whether most sessions are down.
    pub troubled: Box<dyn Fn() -> bool + Send + Sync>,
    pub clock: Clock,
}

impl Watcher {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(self) {
        let mut windows = Vec::new();
        let mut schedule_at = Instant::now();
        loop {
            if Instant::now() >= schedule_at {
                schedule_at = Instant::now() + SCHEDULE_INTERVAL;
                self.read_schedule(&mut windows).await;
            }
            let status = tokio::time::timeout(STATUS_TIMEOUT, self.rest.status()).await;
            // A refusal is an answer too: the exchange is there.
            let answered =
                matches!(&status, Ok(Ok(_) | Err(RestError::Status { code: ..500, .. })));
            self.take(status.ok().and_then(Result::ok), answered, &windows);
            let wait = if self.is_busy(&windows) { STATUS_INTERVAL_BUSY } else { STATUS_INTERVAL };
            let until = Instant::now() + wait;
            let was_busy = self.is_busy(&windows);
            while Instant::now() < until {
                tokio::time::sleep(STATUS_INTERVAL_BUSY.min(wait)).await;
                // Trouble that begins is looked into at once.
                if !was_busy && self.is_busy(&windows) {
                    break;
                }
            }
        }
    }

    async fn read_schedule(&self, windows: &mut Vec<Window>) {
        let unknown = match self.rest.maintenance_windows().await {
            Ok(read) => {
                *windows = read;
                false
            }
            Err(error) if error.is_retryable() => {
                // What was announced still holds.
                tracing::debug!(%error, "ask for the exchange's schedule");
                return;
            }
            Err(error) => {
                windows.clear();
                if !self.state.borrow().schedule_unknown {
                    warn!(%error, "the exchange's schedule cannot be read: no maintenance is known");
                }
                true
            }
        };
        self.state.send_if_modified(|state| {
            std::mem::replace(&mut state.schedule_unknown, unknown) != unknown
        });
    }

    fn take(&self, status: Option<ExchangeStatus>, answered: bool, windows: &[Window]) {
        let now = (self.clock)();
        let window = windows.iter().copied().find(|window| (window.from..window.to).contains(&now));
        let before = self.state.borrow().clone();
        let mut after = Exchange { window, unreachable: !answered, ..before.clone() };
        // No answer says nothing about a pause.
        if let Some(status) = &status {
            after.exchange_active = Some(status.exchange_active);
            after.trading_active = Some(status.trading_active);
        }
        if before == after {
            return;
        }
        match (before.is_paused(), after.is_paused()) {
            (false, true) => {
                let resume = status.and_then(|status| status.exchange_estimated_resume_time);
                let announced = window.is_some();
                info!(announced, resume, "the exchange pauses: missing sessions are expected");
            }
            (true, false) => info!("the exchange is back"),
            _ => {}
        }
        self.state.send_replace(after);
    }

    /// Whether the state may change soon.
    fn is_busy(&self, windows: &[Window]) -> bool {
        let now = (self.clock)().0;
        let near = windows.iter().any(|window| {
            let from = window.from.0.saturating_sub(WINDOW_MARGIN_MICROS);
            let to = window.to.0.saturating_add(WINDOW_MARGIN_MICROS);
            (from..to).contains(&now)
        });
        near || self.state.borrow().is_paused() || (self.troubled)()
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
