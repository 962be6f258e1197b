//! The journal: an append-only file log of frames and session events, written before anything
//! parses them.
//!
//! Records live in segments, files named by the position of their first record. A position counts
//! bytes of records since the journal was made; it only grows, and it leaves a hole at each start
//! of the process ([`RESTART_HOLE_BYTES`]), so that no position is ever used twice even when a power
//! cut took records that a database already holds rows of. Full segments are sealed: compressed
//! with zstd and read as they are. A torn tail is cut at the last whole record; damage elsewhere is
//! stepped over by readers, who tell it ([`Item::Hole`]).
//!
//! When the budget or the disk itself is full, segments that every log has passed go, the oldest
//! first. When none may go, recording pauses: the sessions wait, and so do their sockets. A session
//! that waited says so in the journal ([`Kind::Pause`]).

mod flush;
mod reader;
mod record;
mod segment;
mod usage;
mod writer;
mod writing;

use std::path::PathBuf;
use std::time::Duration;

pub use reader::{Item, Reader};
pub use record::{Kind, Record};
pub use usage::Usage;
pub use writer::{Journal, claim};

/// The size at which a segment is full. Small enough to decompress in a blink when a reader starts
/// in its middle, large enough that a day is a few thousand files.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Positions skipped at each start. Far more than the records of one flush interval, which is all
/// that a power cut can take.
pub const RESTART_HOLE_BYTES: u64 = 1 << 30;
/// The longest a record stays in memory of this process or of the kernel alone.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The largest payload of a record. The socket's limit is 64 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 65 << 20;

/// Where the journal lives and how much of it is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// Made when missing. One process at a time: it is locked.
    pub dir: PathBuf,
    /// Sealed segments older than this are removed once every log has passed them.
    pub max_age: Duration,
    /// The cap on disk. Passed segments are removed to stay below it; when what is left has not
    /// been passed, recording pauses rather than losing what was recorded.
    pub max_bytes: u64,
}

/// A place between two records: the bytes of records before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// As the database stores it.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// As the database stored it; a negative one, which no program of ours writes, counts as 0.
    pub fn from_i64(value: i64) -> Self {
        Self(u64::try_from(value).unwrap_or_default())
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
