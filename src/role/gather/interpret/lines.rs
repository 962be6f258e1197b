//! Keeps one trouble from filling the log: a few lines a minute, with the number of those left out.

use crate::model::Micros;

/// Lines of one kind that are written in [`WINDOW_MICROS`].
const LINES_MAX: u32 = 10;
/// A minute of the journal's clock.
const WINDOW_MICROS: i64 = 60_000_000;

/// The lines of one kind.
#[derive(Debug, Default)]
pub struct Lines {
    since: Micros,
    said: u32,
    suppressed: u64,
}

impl Lines {
    /// Whether a line may be written at `at`; then, how many were left out before it.
    pub fn say(&mut self, at: Micros) -> Option<u64> {
        // A clock that was set back begins another minute.
        if at < self.since || at.since(self.since) >= WINDOW_MICROS {
            self.since = at;
            self.said = 0;
        }
        if self.said >= LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_a_minute_and_the_rest_is_counted() {
        let mut lines = Lines::default();
        let said = (0..100_000).filter(|n| lines.say(Micros(1 + n)).is_some()).count();
        assert_eq!(said, 10);
        assert_eq!(lines.say(Micros(60_000_001)), Some(99_990));
        assert_eq!(lines.say(Micros(60_000_002)), Some(0));
        assert_eq!(lines.say(Micros(5)), Some(0));
    }
}
