//! Maintenance: announced in the schedule, everybody is thrown out, nobody gets in, and trading
//! resumes once the recorders are back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::frames::cut_time;
use super::hub::Hub;
use super::sight::Reach;
use super::troubles::Trouble;
use super::venue::Venue;
use super::views::schedule_json;
use crate::model::Micros;

/// The close code of a service that restarts (RFC 6455's registry).
const SERVICE_RESTART: u16 = 1012;
/// How long trading waits for those who were connected before. The real exchange opens its doors
/// some time before trading, too; what nobody was sent nobody could have recorded.
const RETURN_WITHIN: Duration = Duration::from_secs(90);
/// How often it looks whether they are back.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Windows that are kept for the schedule.
const WINDOWS_MAX: usize = 64;
/// The resume time that is told when trading was halted by hand.
const RESUME_SECS: i64 = 3_600;

/// One maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub start: Micros,
    pub end: Micros,
}

/// All that were announced, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Windows(Vec<Window>);

impl Windows {
    fn add(&mut self, window: Window) {
        if self.0.len() == WINDOWS_MAX {
            self.0.remove(0);
        }
        self.0.push(window);
    }

    /// The one that goes on.
    fn current(&self, now: Micros) -> Option<Window> {
        self.0.iter().copied().find(|window| window.start <= now && now < window.end)
    }

    /// Whether one goes on or is still to come.
    pub fn is_pending(&self, now: Micros) -> bool {
        self.0.iter().any(|window| now < window.end)
    }
}

fn after(at: Micros, time: Duration) -> Micros {
    Micros(at.0.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
}

impl Venue {
    /// `GET /exchange/status`.
    pub fn status_json(&self) -> Value {
        let mut body = json!({"exchange_active": self.active, "trading_active": self.trading});
        if !self.trading
            && let Some(body) = body.as_object_mut()
        {
            let now = Micros::now();
            let resume = self.windows.current(now).map_or_else(
                || after(now, Duration::from_secs(RESUME_SECS.unsigned_abs())),
                |window| window.end,
            );
            let resume = Micros(resume.0 - resume.0.rem_euclid(1_000_000));
            body.insert("exchange_estimated_resume_time".to_owned(), cut_time(resume).into());
        }
        body
    }

    /// `GET /exchange/schedule`: open around the clock, but for the windows.
    pub fn schedule_json(&self) -> Value {
        let windows: Vec<Value> = self
            .windows
            .0
            .iter()
            .map(|window| {
                json!({
                    "start_datetime": cut_time(window.start),
                    "end_datetime": cut_time(window.end),
                })
            })
            .collect();
        schedule_json(&windows)
    }
}

impl Hub {
    /// Announces a maintenance that begins after `notice` and lasts so long; false when there is
    /// one already. The returned future ends when trading has resumed.
    pub fn maintain(
        self: &Arc<Self>,
        notice: Duration,
        lasts: Duration,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let begins = Instant::now().checked_add(notice)?;
        let start = after(Micros::now(), notice);
        let announced = self.with(|venue| {
            let free = !venue.windows.is_pending(Micros::now()) && venue.active;
            if free {
                venue.windows.add(Window { start, end: after(start, lasts) });
            }
            free
        });
        let hub = Arc::clone(self);
        announced.then_some(async move {
            let stop = hub.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = hold_maintenance(&hub, begins, lasts) => {}
            }
        })
    }
}

async fn hold_maintenance(hub: &Arc<Hub>, begins: Instant, lasts: Duration) {
    tokio::time::sleep_until(begins.into()).await;
    let (before, trading): (Reach, bool) = hub.with(|venue| {
        let was_trading = std::mem::replace(&mut venue.trading, false);
        venue.active = false;
        (venue.reach(), was_trading)
    });
    for key in 0..hub.accounts.len() {
        hub.trouble(key, Trouble::Close(SERVICE_RESTART));
    }
    tokio::time::sleep(lasts).await;
    hub.with(|venue| venue.active = true);
    let opened = Instant::now();
    // Nothing ends while nothing trades, so everything that was subscribed can be again.
    while !hub.with(|venue| venue.has_reach(&before, 0)) && opened.elapsed() < RETURN_WITHIN {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    hub.with(|venue| venue.trading = trading);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_told_and_forgotten() {
        let mut windows = Windows::default();
        let window = |second: i64| Window {
            start: Micros::from_secs(second),
            end: Micros::from_secs(second + 2),
        };
        windows.add(window(10));
        assert!(windows.is_pending(Micros::from_secs(9)), "announced");
        assert_eq!(windows.current(Micros::from_secs(9)), None);
        assert_eq!(windows.current(Micros::from_secs(11)), Some(window(10)));
        assert!(!windows.is_pending(Micros::from_secs(12)));
        (0..200).for_each(|second| windows.add(window(second)));
        assert_eq!(windows.0.len(), WINDOWS_MAX);
    }
}
