//! Drives the generator: so many changes a second on average, in bursts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::MissedTickBehavior;

use super::generator::Generator;
use super::hub::Hub;
use super::venue::Burst;
use crate::model::Micros;

/// How often the generator looks at what is due: the most that a published time is old when sent.
const TICK: Duration = Duration::from_millis(2);
/// How far back a published time may lie: some ticks, on a machine that is busy.
const SPREAD_MICROS_MAX: i64 = 20_000;
/// Steps under one hold of the lock.
const STEPS_MAX: u32 = 256;
/// How long one intensity lasts.
const INTENSITY_LASTS: Duration = Duration::from_millis(100);
/// One stretch in so many is a burst; the others are quieter, so that the mean is the rate.
const BURST_EVERY: u32 = 10;
/// A run that cannot keep its rate ends this much later than asked, at the latest.
const OVERTIME: f64 = 1.5;

/// How fast a generated flow is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Changes of levels a second, on average; above 0.
    pub mean: f64,
    /// A burst, as a multiple of the mean: 1 (no bursts) to [`Pace::BURST_MAX`].
    pub burst: f64,
}

impl Pace {
    /// The bursts of a flow that nobody asked for others of.
    pub const BURST: f64 = 4.0;
    /// With more, less than nothing would be left for the time between bursts.
    pub const BURST_MAX: f64 = 10.0;

    /// The pace of a stretch that is no burst.
    fn calm(self) -> f64 {
        let every = f64::from(BURST_EVERY);
        (every - self.burst) / (every - 1.0)
    }
}

impl From<f64> for Pace {
    fn from(mean: f64) -> Self {
        Self { mean, burst: Self::BURST }
    }
}

/// Publishes until so many changes as `duration` should have are out, or the exchange stops.
pub(super) async fn generate(
    hub: Arc<Hub>,
    mut generator: Generator,
    seed: u64,
    pace: Pace,
    duration: Option<Duration>,
) {
    let rate = pace.mean;
    // Bursts that a test asks for come on top of what the run should have.
    let mut extra = 0.0;
    let wanted = duration.map(|duration| duration.as_secs_f64() * rate);
    let mut deadline = duration.and_then(|d| Instant::now().checked_add(d.mul_f64(OVERTIME)));
    // Pacing has its own numbers, so that it does not change what is published.
    let mut rng = Rng::with_seed(seed ^ 0x9E37_79B9_7F4A_7C15);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut owed, mut intensity) = (Instant::now(), 0.0, 1.0);
    let mut intensity_until = before;
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        if now >= intensity_until {
            intensity_until = now + INTENSITY_LASTS;
            intensity = if rng.u32(..BURST_EVERY) == 0 { pace.burst } else { pace.calm() };
        }
        let passed = now.duration_since(before);
        let elapsed = passed.as_secs_f64();
        before = now;
        let (trading, burst) = hub.with(|venue| (venue.trading, venue.pace.burst));
        if !trading {
            // A halt does not count.
            deadline = deadline.and_then(|deadline| deadline.checked_add(passed));
            continue;
        }
        let factor = match burst.filter(|(_, until)| now < *until) {
            Some((Burst::Times(times), _)) => times,
            Some((Burst::Rate(other), _)) => other / rate,
            None => 1.0,
        };
        owed += rate * intensity * elapsed * factor;
        extra += rate * elapsed * (factor - 1.0);
        let total = wanted.map(|wanted| whole(wanted + extra));
        let mut more = true;
        while more && owed >= 1.0 && !is_done(&generator, total) {
            (owed, more) = hub.with(|venue| {
                let mut left = owed;
                let wall = Micros::now();
                let mut steps = 0;
                while left >= 1.0 && steps < STEPS_MAX && !is_done(&generator, total) {
                    let clock = generator.clock();
                    if clock > wall {
                        // Times never lie ahead of the clock by more than one step's worth.
                        return (left, false);
                    }
                    // What is due is spread over the time since the last step, about two changes
                    // a step, so that the last one happens now. A pause is not spread over.
                    let from = clock.0.max(wall.0 - SPREAD_MICROS_MAX);
                    let due = i64::try_from(whole(left / 2.0)).unwrap_or(i64::MAX).max(1);
                    let at = Micros(from + (wall.0 - from) / due);
                    let published = generator.published;
                    generator.step(venue, at);
                    steps += 1;
                    let count = u32::try_from(generator.published - published).unwrap_or(u32::MAX);
                    // A step that found nothing to do costs a little, so that this ends.
                    left -= if count == 0 { 0.05 } else { f64::from(count) };
                }
                (left, true)
            });
            hub.pace().await;
        }
        if is_done(&generator, total) || deadline.is_some_and(|deadline| now >= deadline) {
            hub.with(|venue| generator.finish(venue));
            return;
        }
    }
}

fn is_done(generator: &Generator, total: Option<u64>) -> bool {
    total.is_some_and(|total| generator.published >= total)
}

/// The whole part of a count, 0 for what is none. Through `Duration`, whose conversion from a float
/// is checked.
pub(super) fn whole(count: f64) -> u64 {
    let fallback = if count > 0.0 { u64::MAX } else { 0 };
    Duration::try_from_secs_f64(count).map_or(fallback, |count| count.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_is_the_rate_whatever_the_bursts() {
        for burst in [1.0, Pace::BURST, Pace::BURST_MAX] {
            let pace = Pace { mean: 100.0, burst };
            let mean = (burst + 9.0 * pace.calm()) / 10.0;
            assert!((mean - 1.0).abs() < 1e-9, "{burst}: {mean}");
        }
    }
}
