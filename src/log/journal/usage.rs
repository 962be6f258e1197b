//! How full the journal is: against its budget, against its file system, and when both will be used
//! up at the present rate.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// How long the growth is looked at.
const WINDOW: Duration = Duration::from_secs(60);
/// Parts of the budget, in percent, at which the log says how far it is.
const LEVELS: [u64; 3] = [50, 80, 95];
/// How far below a level the journal must fall before reaching the level is said again, in percent.
const HYSTERESIS: u64 = 5;

/// The journal's room, as last counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of all files of the journal.
    pub bytes: u64,
    /// Of those, bytes that may not be removed because some log still needs them.
    pub needed: u64,
    /// `journal.max_bytes`.
    pub limit: u64,
    /// Bytes that its file system still has for us.
    pub free: u64,
    /// Growth of `needed` in bytes a second over the last minute; 0 while it shrinks.
    pub growth: u64,
    /// Whether recording pauses for want of room.
    pub full: bool,
}

impl Usage {
    /// What `needed` may grow to: the limit, or less when the file system has less.
    pub fn budget(&self) -> u64 {
        self.limit.min(self.bytes.saturating_add(self.free)).max(1)
    }

    /// The used part of the budget in percent, 100 when recording pauses.
    pub fn percent(&self) -> u64 {
        if self.full { 100 } else { (self.needed.saturating_mul(100) / self.budget()).min(100) }
    }

    /// When the budget is used up at the present rate; none while the need does not grow.
    pub fn until_full(&self) -> Option<Duration> {
        let room = self.budget().saturating_sub(self.needed);
        room.checked_div(self.growth).map(Duration::from_secs)
    }
}

/// What the writing thread counted last.
#[derive(Debug, Default)]
pub struct Counted(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    usage: Usage,
    /// Former needs.
    samples: VecDeque<(Instant, u64)>,
    /// Levels that were reached and said.
    said: usize,
}

impl Counted {
    pub fn new(limit: u64) -> Self {
        let usage = Usage { limit, free: u64::MAX, ..Usage::default() };
        Self(Mutex::new(State { usage, ..State::default() }))
    }

    pub fn get(&self) -> Usage {
        self.lock().usage
    }

    /// Bytes were written since the last count.
    pub fn grew(&self, bytes: u64) {
        let usage = &mut self.lock().usage;
        usage.bytes += bytes;
        usage.needed += bytes;
        usage.free = usage.free.saturating_sub(bytes);
    }

    pub fn set_full(&self, full: bool) {
        self.lock().usage.full = full;
    }

    /// Takes a new count over, and says when a level is reached.
    pub fn count(&self, dir: &Path, bytes: u64, needed: u64, now: Instant) {
        let mut state = self.lock();
        state.usage.bytes = bytes;
        state.usage.needed = needed;
        if let Some(free) = free_bytes(dir) {
            state.usage.free = free;
        }
        while state.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            state.samples.pop_front();
        }
        if let Some((since, before)) = state.samples.front() {
            let seconds = now.duration_since(*since).as_secs();
            state.usage.growth =
                needed.saturating_sub(*before).checked_div(seconds).unwrap_or_default();
        }
        state.samples.push_back((now, needed));
        let usage = state.usage;
        let percent = usage.percent();
        let reached = LEVELS.iter().filter(|level| percent >= **level).count();
        let left = LEVELS.iter().filter(|level| percent + HYSTERESIS >= **level).count();
        if reached > state.said {
            state.said = reached;
            warn!(
                percent,
                needed_bytes = usage.needed,
                limit_bytes = usage.limit,
                free_bytes = usage.free,
                full_in_s = usage.until_full().map(|left| left.as_secs()),
                "the journal fills: the database does not take rows as fast as they come"
            );
        } else if left < state.said {
            state.said = left;
            info!(percent, "the journal empties");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere changes nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the file system still has for a process like ours; none when it does not tell.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_limit_or_what_the_disk_has() {
        let usage = Usage { bytes: 40, needed: 30, limit: 100, free: 1000, growth: 7, full: false };
        assert_eq!((usage.budget(), usage.percent()), (100, 30));
        assert_eq!(usage.until_full(), Some(Duration::from_secs(10)));
        let small_disk = Usage { free: 20, ..usage };
        assert_eq!((small_disk.budget(), small_disk.percent()), (60, 50));
        assert_eq!(Usage { growth: 0, ..usage }.until_full(), None);
        assert_eq!(Usage { full: true, ..usage }.percent(), 100);
    }

    #[test]
    fn the_growth_is_that_of_the_last_minute() {
        let counted = Counted::new(1_000_000);
        let dir = std::env::temp_dir();
        let start = Instant::now();
        for tick in 0..13 {
            let need = if tick < 7 { 0 } else { (tick - 6) * 1000 };
            counted.count(
                &dir,
                need,
                need,
                start + Duration::from_secs(10) * u32::try_from(tick).unwrap(),
            );
        }
        assert_eq!(counted.get().growth, 100);
        counted.count(&dir, 0, 0, start + Duration::from_secs(130));
        assert_eq!(counted.get().growth, 0);
    }
}
