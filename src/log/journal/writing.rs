//! The writing thread: brings the buffer to disk, begins and seals segments, removes what is not
//! needed any more, and waits when there is no room.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use tracing::{error, info, warn};

use super::flush::Flusher;
use super::segment::{self, Segment};
use super::writer::{BUFFER_BYTES_MAX, Shared};
use crate::ops::crash;

/// Bytes written at once, as far as whole records allow: small enough that a nearly full disk takes
/// what it still can.
const WRITE_BYTES: usize = 1 << 20;
/// How long the first record of a write waits for others to go with it. Sessions bring them one by
/// one, and a write, with the readers that it wakes, costs far more than a record; against the time to
/// the disk this wait is nothing.
const GATHER_INTERVAL: Duration = Duration::from_millis(4);
/// From this part of the budget on, in percent, full segments are sealed at once.
const SEAL_AT_ONCE_PERCENT: u64 = 25;
/// How often a full journal looks for room.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// How often a journal that stays full says so.
const FULL_SAY_INTERVAL: Duration = Duration::from_secs(60);
/// How long a stopping process tries to bring its last records to a full disk.
const FULL_STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often old segments are looked for and the disk is counted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);
/// The same while a segment is being sealed, which needs room for both forms of it.
const SEALING_INTERVAL: Duration = Duration::from_secs(1);

/// When a segment that could not be sealed, for instance on a full disk, is tried again.
const SEAL_RETRY: Duration = Duration::from_secs(10);

/// The state of the writing thread.
pub struct Writer {
    shared: Arc<Shared>,
    /// The open segment; none until its first record is written.
    file: Option<Arc<File>>,
    /// The open segment's first position.
    base: u64,
    /// The position after the last record written.
    at: u64,
    pruned_at: Instant,
    full: Option<Full>,
}

/// A pause for want of room.
struct Full {
    since: Instant,
    said: Instant,
    stopping_since: Option<Instant>,
}

/// How much of what every log has passed is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prune {
    /// What is too old, and the oldest while the budget is exceeded. A reader that starts steps back
    /// one segment to warm up, so one is kept for it.
    Surplus,
    /// The oldest segment, because the next record has no room: recording it matters more than a
    /// warm start.
    Oldest,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, begin: u64) -> Self {
        let now = Instant::now();
        Self { shared, file: None, base: begin, at: begin, pruned_at: now, full: None }
    }

    /// Writes until the journal is closed or cannot be written.
    pub fn run(mut self) {
        if let Err(error) = self.write_all() {
            error!(error = format!("{error:#}"), "journal cannot be written");
            self.shared.fail(format!("{error:#}"));
        }
    }

    fn write_all(&mut self) -> Result<()> {
        let flusher = Flusher::start(Arc::clone(&self.shared))?;
        let mut bytes = Vec::new();
        self.prune(Prune::Surplus);
        self.seal_old();
        loop {
            let stop = self.take(&mut bytes);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(whole_records(rest));
                self.write(piece)?;
                if let Some(file) = &self.file {
                    flusher.request(file, self.at);
                }
                rest = after;
                if self.at - self.base >= self.shared.segment_bytes {
                    self.roll()?;
                    self.prune(Prune::Surplus);
                    self.seal_old();
                }
            }
            let sealing = self.shared.sealing.load(Ordering::Relaxed);
            let interval = if sealing { SEALING_INTERVAL } else { PRUNE_INTERVAL };
            if self.pruned_at.elapsed() >= interval {
                self.prune(Prune::Surplus);
                self.seal_old();
            }
            if stop && bytes.is_empty() {
                break;
            }
            bytes.clear();
            // The allocation for one enormous frame is not kept.
            bytes.shrink_to(BUFFER_BYTES_MAX);
        }
        if let Some(file) = &self.file {
            file.sync_data().context("flush journal")?;
        }
        self.shared.made_durable(self.at);
        flusher.stop();
        Ok(())
    }

    /// Swaps the filled buffer for an empty one. Returns whether the journal is to close.
    fn take(&self, bytes: &mut Vec<u8>) -> bool {
        let mut state = self.shared.lock();
        if state.buffer.is_empty() && !state.stop {
            let waited = self.shared.work.wait_timeout(state, SEALING_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !state.stop && !state.buffer.is_empty() {
                drop(state);
                std::thread::sleep(GATHER_INTERVAL);
                state = self.shared.lock();
            }
        }
        std::mem::swap(&mut state.buffer, bytes);
        let stop = state.stop;
        drop(state);
        self.shared.room.notify_waiters();
        stop
    }

    /// Writes whole records, however long there is no room for them. What was recorded is kept; what
    /// cannot be recorded stays in the sockets until the exchange gives up, and then shows in the
    /// coverage.
    ///
    /// # Errors
    /// When the disk fails otherwise, or a stopping process waited in vain.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let len = u64::try_from(bytes.len())?;
        loop {
            let usage = self.shared.counted.get();
            if usage.bytes.saturating_add(len) > usage.limit && !self.shared.is_ending() {
                // The last records of a stopping process are few; losing them is worse.
                self.make_room("journal.max_bytes is used up")?;
                continue;
            }
            crash::point("journal-before-write");
            match self.try_write(bytes) {
                Ok(()) => break,
                Err(error) if is_full(&error) => {
                    self.make_room("the disk is full")?;
                }
                // After an I/O error nothing is known about the file: a restart reads it again.
                Err(error) => return Err(error).context("write journal"),
            }
        }
        self.at += len;
        self.shared.counted.grew(len);
        self.shared.written.send_replace(self.at);
        if let Some(full) = self.full.take() {
            self.shared.counted.set_full(false);
            let seconds = full.since.elapsed().as_secs_f64();
            info!(seconds, "journal has room again: recording goes on");
        }
        Ok(())
    }

    /// Writes at the segment's end. What a failed attempt left there is cut, or written over by the
    /// next one; readers never look past what was announced.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let path = segment::plain_path(&self.shared.config.dir, self.base);
                // Left empty by an attempt that failed, it is there already.
                let file = File::options().create(true).truncate(false).write(true).open(&path)?;
                segment::sync_dir(&self.shared.config.dir)?;
                self.shared.live_base.store(self.base, Ordering::Release);
                self.file.insert(Arc::new(file))
            }
        };
        let offset = self.at - self.base;
        let result = file.write_all_at(bytes, offset);
        if result.is_err()
            && let Err(error) = file.set_len(offset)
        {
            warn!(%error, "cut a record that was written in part");
        }
        result
    }

    /// Removes what may go, or waits a moment.
    fn make_room(&mut self, why: &'static str) -> Result<()> {
        if self.prune(Prune::Oldest) {
            return Ok(());
        }
        if self.at > self.base && self.shared.consumed.load(Ordering::Relaxed) >= self.at {
            // The open segment itself is not needed any more: the next record begins another.
            self.roll()?;
            if self.prune(Prune::Oldest) {
                return Ok(());
            }
        }
        let now = Instant::now();
        let usage = self.shared.counted.get();
        let full = self.full.get_or_insert_with(|| {
            self.shared.counted.set_full(true);
            error!(
                why,
                limit_bytes = usage.limit,
                bytes = usage.bytes,
                free_bytes = usage.free,
                "journal is full and every segment is still needed: recording pauses; bring the \
                 database back, raise journal.max_bytes or free the disk"
            );
            Full { since: now, said: now, stopping_since: None }
        });
        if now.duration_since(full.said) >= FULL_SAY_INTERVAL {
            full.said = now;
            let seconds = now.duration_since(full.since).as_secs();
            error!(
                why,
                seconds,
                free_bytes = usage.free,
                "journal is still full: nothing is recorded"
            );
        }
        if self.shared.is_ending() {
            let since = *full.stopping_since.get_or_insert(now);
            if now.duration_since(since) >= FULL_STOP_PATIENCE {
                bail!("{why}: what was received since the pause began is lost");
            }
        }
        std::thread::sleep(FULL_RETRY);
        Ok(())
    }

    /// Ends the open segment. The next record begins another.
    fn roll(&mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_data().context("flush journal")?;
        }
        self.shared.made_durable(self.at);
        self.base = self.at;
        self.shared.live_base.store(self.base, Ordering::Release);
        Ok(())
    }

    /// Has a thread of its own compress full segments, one after the other.
    fn seal_old(&self) {
        if self.shared.sealing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let seal = move || {
            if let Err(error) = seal_all(&shared) {
                // The plain file stays, stays readable, and is tried again.
                warn!(error = format!("{error:#}"), "journal segment stays uncompressed");
                std::thread::sleep(SEAL_RETRY);
            }
            shared.sealing.store(false, Ordering::Release);
        };
        if let Err(error) = std::thread::Builder::new().name("journal-seal".to_owned()).spawn(seal)
        {
            warn!(%error, "start sealing thread");
            self.shared.sealing.store(false, Ordering::Release);
        }
    }

    /// Removes segments that every log has passed, and counts what is there. Returns whether
    /// something was removed.
    fn prune(&mut self, prune: Prune) -> bool {
        self.pruned_at = Instant::now();
        match self.prune_and_count(prune) {
            Ok(removed) => removed,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot look after the journal's segments");
                false
            }
        }
    }

    fn prune_and_count(&self, prune: Prune) -> Result<bool> {
        let config = &self.shared.config;
        let segments = segment::list(&config.dir)?;
        let mut bytes = segment::disk_bytes(&config.dir)?;
        let consumed = self.shared.consumed.load(Ordering::Relaxed);
        let now = SystemTime::now();
        let (mut removed, mut removing) = (false, true);
        // Everything that is no segment is needed too.
        let mut needed = bytes;
        let ends = segments.iter().skip(1).map(|next| next.base).chain([self.base]);
        for (segment, end) in segments.iter().zip(ends) {
            if segment.base >= self.base {
                // The open one: a byte of it is a byte of the disk.
                needed = needed.saturating_sub(consumed.min(self.at).saturating_sub(segment.base));
                break;
            }
            if end > consumed {
                // Of the segment that the logs are in, what they have passed is needed no more,
                // although it can only go with the rest.
                let (passed, all) = (consumed.saturating_sub(segment.base), end - segment.base);
                let part = u128::from(segment.disk_bytes) * u128::from(passed);
                let part = part.checked_div(u128::from(all)).unwrap_or_default();
                needed = needed.saturating_sub(u64::try_from(part).unwrap_or(u64::MAX));
                break;
            }
            needed = needed.saturating_sub(segment.disk_bytes);
            let age = now.duration_since(segment.modified).unwrap_or_default();
            removing = removing
                && match prune {
                    Prune::Oldest => !removed,
                    Prune::Surplus => {
                        end + self.shared.segment_bytes <= consumed
                            && (age > config.max_age || bytes > config.max_bytes)
                    }
                };
            if removing {
                match remove(segment) {
                    Ok(()) => {
                        bytes = bytes.saturating_sub(segment.disk_bytes);
                        removed = true;
                    }
                    Err(error) => {
                        warn!(%error, path = %segment.path.display(), "remove old segment");
                        removing = false;
                    }
                }
            }
        }
        self.shared.counted.count(&config.dir, bytes, needed, Instant::now());
        Ok(removed)
    }
}

/// Removes a segment and frees its room, which a reader that still stands at its end would keep.
fn remove(segment: &Segment) -> io::Result<()> {
    if !segment.sealed {
        File::options().write(true).open(&segment.path)?.set_len(0)?;
    }
    fs::remove_file(&segment.path)
}

/// Seals every segment before the open one, oldest first.
fn seal_all(shared: &Shared) -> Result<()> {
    loop {
        let live = shared.live_base.load(Ordering::Acquire);
        let segments = segment::list(&shared.config.dir)?;
        // What the logs have not passed is about to be read: plain it costs neither them nor us
        // anything. That ends when it is not read soon, or when space gets short.
        let is_short = shared.counted.get().percent() >= SEAL_AT_ONCE_PERCENT;
        let patience = if is_short { Duration::ZERO } else { shared.seal_patience };
        let (consumed, now) = (shared.consumed.load(Ordering::Relaxed), SystemTime::now());
        let is_due = |segment: &Segment, end: u64| {
            let age = now.duration_since(segment.modified).unwrap_or_default();
            end <= consumed || age >= patience
        };
        let ends = segments.iter().skip(1).map(|next| next.base).chain([live]);
        let mut full = segments.iter().zip(ends).filter(|(segment, _)| segment.base < live);
        let next = full.find(|(segment, end)| !segment.sealed && is_due(segment, *end));
        let Some((next, _)) = next else { return Ok(()) };
        segment::seal(&shared.config.dir, next.base)?;
    }
}

/// Whether an error says that the disk, or our share of it, is used up.
fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC.raw_os_error(), Errno::DQUOT.raw_os_error()];
    error.raw_os_error().is_some_and(|code| full.contains(&code))
}

/// Bytes of the first records of a buffer: as many as [`WRITE_BYTES`] holds, and one at least.
fn whole_records(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(len) = bytes.get(at..).and_then(super::record::stated_len) {
        if at > 0 && at + len > WRITE_BYTES {
            break;
        }
        at += len;
    }
    assert!(at > 0 && at <= bytes.len(), "the buffer holds whole records");
    at
}
