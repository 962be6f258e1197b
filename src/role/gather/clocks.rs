//! Our clock against the exchange's: what the metrics show, and a warning when they are apart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::metrics::Metrics;
use crate::kalshi::rest::Rest;
use crate::ops::duration::seconds;

/// How often the clocks are compared.
const INTERVAL: Duration = Duration::from_secs(10);
/// The least delay of a frame is taken over so many intervals: one quick frame a minute suffices.
const DELAYS_MAX: usize = 6;
/// Clocks that are further apart are worth a warning. Signatures of a clock that is off by a few
/// seconds are refused.
const APART_MICROS: i64 = 1_000_000;
/// Between two warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(600);

/// What was seen of the exchange's clock. Pure.
#[derive(Debug, Default)]
pub struct Clocks {
    /// The least delays of the last intervals, none where nothing came.
    delays: VecDeque<Option<i64>>,
    warned_at: Option<Instant>,
}

impl Clocks {
    /// Takes an interval's least delay. The exchange is ahead of us by this many microseconds at
    /// least, by its frames: what a frame needed on its way makes it less, never more.
    pub fn stream_offset(&mut self, least_delay: Option<i64>) -> Option<i64> {
        if self.delays.len() >= DELAYS_MAX {
            self.delays.pop_front();
        }
        self.delays.push_back(least_delay);
        self.delays.iter().flatten().min().map(|delay| delay.saturating_neg())
    }

    /// Whether to warn now: a reply's clock is off in either direction, or a frame came before it
    /// was sent. A frame that came late may only have been slow.
    pub fn is_worth_a_warning(
        &mut self,
        rest: Option<i64>,
        stream: Option<i64>,
        now: Instant,
    ) -> bool {
        let apart = rest.is_some_and(|offset| offset.abs() > APART_MICROS)
            || stream.is_some_and(|offset| offset > APART_MICROS);
        let said = self.warned_at.is_some_and(|at| now < at + WARN_INTERVAL);
        if apart && !said {
            self.warned_at = Some(now);
        }
        apart && !said
    }
}

/// Compares the clocks until `shutdown`.
pub async fn watch(rest: Arc<Rest>, metrics: Arc<Metrics>, shutdown: CancellationToken) {
    let mut clocks = Clocks::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
        let by_rest = rest.clock_offset_micros();
        let by_stream = clocks.stream_offset(metrics.take_least_delay());
        for (source, offset) in [("rest", by_rest), ("stream", by_stream)] {
            if let Some(offset) = offset {
                metrics.clock_offset(source, offset);
            }
        }
        if clocks.is_worth_a_warning(by_rest, by_stream, Instant::now()) {
            warn!(
                ahead_by_replies = by_rest.map(seconds),
                ahead_by_frames = by_stream.map(seconds),
                "our clock and the exchange's are more than a second apart: check that the time is \
                 synchronised"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_tell_how_far_ahead_the_exchange_is_at_least() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.stream_offset(None), None);
        assert_eq!(clocks.stream_offset(Some(40_000)), Some(-40_000));
        assert_eq!(clocks.stream_offset(Some(-2_000_000)), Some(2_000_000));
        for _ in 0..DELAYS_MAX - 1 {
            assert_eq!(clocks.stream_offset(Some(90_000)), Some(2_000_000));
        }
        assert_eq!(clocks.stream_offset(None), Some(-90_000), "what is old is forgotten");
    }

    #[test]
    fn warnings_are_rare_and_have_a_reason() {
        let mut clocks = Clocks::default();
        let now = Instant::now();
        assert!(!clocks.is_worth_a_warning(None, None, now));
        assert!(!clocks.is_worth_a_warning(Some(900_000), Some(-30_000_000), now));
        assert!(clocks.is_worth_a_warning(Some(-1_100_000), None, now));
        assert!(!clocks.is_worth_a_warning(None, Some(1_100_000), now + WARN_INTERVAL / 2));
        assert!(clocks.is_worth_a_warning(None, Some(1_100_000), now + WARN_INTERVAL));
    }
}
