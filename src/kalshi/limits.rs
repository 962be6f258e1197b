//! What the exchange teaches about its limits, and how we keep to them.

use std::time::Duration;

use tokio::time::Instant;

/// After error 27 commands keep at least this distance, doubling to the maximum.
pub const SPACING_MIN: Duration = Duration::from_millis(200);
pub const SPACING_MAX: Duration = Duration::from_secs(10);
/// After this long without another error 27 the distance is halved, down to none.
pub const SPACING_CALM: Duration = Duration::from_secs(120);

/// A session keeps it across connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learned {
    /// The most markets of one subscription, once a single market too many was refused.
    pub markets_max: Option<usize>,
    /// The distance between commands, once there were too many.
    pub spacing: Duration,
    /// When the distance changed last.
    spaced_at: Option<Instant>,
}

impl Learned {
    /// A market alone was one too many for a subscription of `held`.
    ///
    /// Other commands may be on their way and fail too: each then lowers the cap again. It is never
    /// 0, which would be kept for ever.
    pub fn too_many_markets(&mut self, held: usize) {
        self.markets_max = Some(held.max(1));
    }

    /// There were too many commands.
    pub fn too_many_commands(&mut self, now: Instant) {
        self.spacing = (self.spacing * 2).clamp(SPACING_MIN, SPACING_MAX);
        self.spaced_at = Some(now);
    }

    /// Lets time pass.
    pub fn calm(&mut self, now: Instant) {
        let Some(at) = self.spaced_at else { return };
        if now >= at + SPACING_CALM {
            let half = self.spacing / 2;
            (self.spacing, self.spaced_at) =
                if half < SPACING_MIN { (Duration::ZERO, None) } else { (half, Some(now)) };
        }
    }
}

/// How the audit is paced: a few markets at a time, evenly over the period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two commands.
    pub interval: Duration,
    /// Markets a command, at least 1.
    pub batch: usize,
}

/// The most markets of one command of the audit.
const AUDIT_BATCH_MAX: usize = 100;
/// Commands of the audit are this far apart, or a tenth of the period, while 100 markets a command
/// are enough.
const AUDIT_INTERVAL: Duration = Duration::from_secs(10);

impl Pace {
    /// Each of so many markets once a period.
    pub fn of(period: Duration, markets: usize) -> Self {
        let markets = u32::try_from(markets.max(1)).unwrap_or(u32::MAX);
        let interval = AUDIT_INTERVAL.min(period / 10).max(Duration::from_millis(1));
        // How many intervals are in a period; the rest makes each a little shorter, never longer.
        let rounds = (period.as_nanos() / interval.as_nanos()).max(1);
        let needed = u128::from(markets).div_ceil(rounds);
        let batch = usize::try_from(needed).unwrap_or(usize::MAX).clamp(1, AUDIT_BATCH_MAX);
        let commands = markets.div_ceil(u32::try_from(batch).unwrap_or(1)).max(1);
        Self { interval: period / commands, batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_covers_every_market_in_its_period() {
        let hour = Duration::from_secs(3600);
        for period in [Duration::from_secs(1), Duration::from_secs(20), hour, hour * 6, hour * 720]
        {
            for markets in [0, 1, 7, 30, 100, 2_833, 425_000] {
                let Pace { interval, batch } = Pace::of(period, markets);
                assert!((1..=AUDIT_BATCH_MAX).contains(&batch));
                let commands = u32::try_from(markets.div_ceil(batch)).unwrap();
                assert!(interval * commands <= period, "{markets} in {period:?}");
                assert!(interval > Duration::ZERO);
            }
        }
        let large = Pace::of(hour * 6, 2_833);
        assert_eq!((large.batch, large.interval.as_secs()), (2, 15));
        let all = Pace::of(hour * 6, 425_000);
        assert_eq!((all.batch, all.interval.as_secs()), (100, 5));
    }

    #[test]
    fn the_distance_of_commands_doubles_and_decays() {
        let mut now = Instant::now();
        let mut learned = Learned::default();
        for _ in 0..3 {
            learned.too_many_commands(now);
        }
        assert_eq!(learned.spacing, SPACING_MIN * 4);
        let mut seen = Vec::new();
        for _ in 0..4 {
            now += SPACING_CALM;
            learned.calm(now);
            learned.calm(now);
            seen.push(learned.spacing);
        }
        assert_eq!(seen, [SPACING_MIN * 2, SPACING_MIN, Duration::ZERO, Duration::ZERO]);
        for _ in 0..20 {
            learned.too_many_commands(now);
        }
        assert_eq!(learned.spacing, SPACING_MAX);
    }

    #[test]
    fn a_cap_is_never_nothing() {
        let mut learned = Learned::default();
        learned.too_many_markets(0);
        assert_eq!(learned.markets_max, Some(1));
    }
}
