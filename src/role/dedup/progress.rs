//! How far each log of each gatherer is merged, for health, metrics and the gatherers themselves. Only a
//! report: nothing is decided by it here; a gatherer drops nothing that it says is not committed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::gatherer::LogHead;
use super::merge::Move;
use super::span::NO_TIME;
use super::table;
use crate::model::Micros;

/// Shared by the tasks of all logs.
#[derive(Debug)]
pub struct Progress {
    tables: Mutex<Vec<TableProgress>>,
}

#[derive(Debug)]
struct TableProgress {
    syncing: bool,
    gatherers: Vec<LogProgress>,
}

#[derive(Debug, Clone)]
struct LogProgress {
    log_id: Option<Uuid>,
    position: i64,
    /// The rows that wait, if any, came after this.
    merged_until: Micros,
    refused: Option<String>,
}

/// How far behind a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    pub rows: i64,
    pub micros: i64,
}

impl Progress {
    pub fn new(gatherers: usize, now: Micros) -> Self {
        let log = LogProgress { log_id: None, position: 0, merged_until: now, refused: None };
        let tables = table::ALL
            .iter()
            .map(|_| TableProgress { syncing: false, gatherers: vec![log.clone(); gatherers] })
            .collect();
        Self { tables: Mutex::new(tables) }
    }

    fn tables(&self) -> MutexGuard<'_, Vec<TableProgress>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R: Default>(
        &self,
        table: usize,
        gatherer: usize,
        act: impl FnOnce(&mut LogProgress) -> R,
    ) -> R {
        let mut tables = self.tables();
        let log = tables.get_mut(table).and_then(|table| table.gatherers.get_mut(gatherer));
        log.map(act).unwrap_or_default()
    }

    /// Whether the log's task has its session with production.
    pub fn set_syncing(&self, table: usize, syncing: bool) {
        if let Some(table) = self.tables().get_mut(table) {
            table.syncing = syncing;
        }
    }

    /// How many logs have their session with production.
    pub fn syncing(&self) -> usize {
        self.tables().iter().filter(|table| table.syncing).count()
    }

    /// A cursor was read.
    pub fn found(&self, table: usize, gatherer: usize, log_id: Uuid, position: i64, now: Micros) {
        self.with(table, gatherer, |log| {
            if log.log_id != Some(log_id) {
                log.log_id = Some(log_id);
                log.merged_until = now;
            }
            log.position = position;
        });
    }

    /// A cursor was moved.
    pub fn moved(&self, table: usize, moved: &Move, now: Micros) {
        self.with(table, moved.gatherer, |log| {
            if log.log_id == Some(moved.log_id) {
                log.position = moved.through;
                // Rows wait behind the newest one merged, or came after this moment.
                let caught_up = moved.through >= moved.head;
                // A span of which the gatherer has dropped every row has no clock.
                if caught_up {
                    log.merged_until = now;
                } else if moved.clock != NO_TIME {
                    log.merged_until = Micros(moved.clock);
                }
            }
        });
    }

    /// The last row of a log that is committed in production, as far as this process knows; 0 while it
    /// knows nothing of that log.
    pub fn committed(&self, table: usize, gatherer: usize, log_id: Uuid) -> i64 {
        self.with(table, gatherer, |log| if log.log_id == Some(log_id) { log.position } else { 0 })
    }

    /// Notes why a log is not read further, or that it is again; whether that is news.
    pub fn set_refused(&self, table: usize, gatherer: usize, reason: Option<&str>) -> bool {
        self.with(table, gatherer, |log| {
            let news = log.refused.as_deref() != reason;
            log.refused = reason.map(str::to_owned);
            news
        })
    }

    /// The logs that are not read further.
    pub fn refused(&self) -> Vec<(usize, usize, String)> {
        let tables = self.tables();
        let mut refused = Vec::new();
        for (table, progress) in tables.iter().enumerate() {
            for (gatherer, log) in progress.gatherers.iter().enumerate() {
                refused.extend(log.refused.clone().map(|reason| (table, gatherer, reason)));
            }
        }
        refused
    }

    /// How far behind `head` the log is. Caught up, it notes that nothing older than `now` waits.
    pub fn lag(&self, table: usize, gatherer: usize, head: LogHead, now: Micros) -> Lag {
        self.with(table, gatherer, |log| {
            let position = if log.log_id == Some(head.log_id) { log.position } else { 0 };
            let rows = head.head.saturating_sub(position).max(0);
            if rows == 0 {
                log.merged_until = log.merged_until.max(now);
                return Lag::default();
            }
            Lag { rows, micros: now.since(log.merged_until).max(0) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_what_was_merged_last_and_nothing_when_caught_up() {
        let (log_id, second) = (Uuid::from_u128(7), 1_000_000);
        let now = |seconds: i64| Micros(seconds * second);
        let progress = Progress::new(1, now(100));
        let head = |head| LogHead { log_id, head, kept_from: 1 };
        assert_eq!(progress.lag(0, 0, head(0), now(101)), Lag::default());
        // A row after a long silence is not as old as the silence.
        assert_eq!(progress.lag(0, 0, head(5), now(102)), Lag { rows: 5, micros: second });
        progress.found(0, 0, log_id, 2, now(110));
        assert_eq!(progress.lag(0, 0, head(5), now(111)), Lag { rows: 3, micros: second });
        // Catching up with rows of long ago.
        let moved = Move {
            gatherer: 0,
            log_id,
            after: 2,
            through: 4,
            head: 5,
            clock: now(60).0,
            past_retention: 0,
        };
        progress.moved(0, &moved, now(112));
        assert_eq!(progress.lag(0, 0, head(5), now(112)), Lag { rows: 1, micros: 52 * second });
        progress.moved(0, &Move { after: 4, through: 5, ..moved }, now(113));
        assert_eq!(progress.lag(0, 0, head(5), now(114)), Lag::default());
        assert_eq!(progress.lag(0, 0, head(6), now(115)), Lag { rows: 1, micros: second });
    }

    #[test]
    fn a_refusal_is_news_once() {
        let progress = Progress::new(2, Micros(0));
        assert!(progress.set_refused(1, 1, Some("hole")));
        assert!(!progress.set_refused(1, 1, Some("hole")));
        assert_eq!(progress.refused(), [(1, 1, "hole".to_owned())]);
        assert!(progress.set_refused(1, 1, None));
        assert!(progress.refused().is_empty());
    }
}
