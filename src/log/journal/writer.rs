//! The writing side: sessions append into a bounded buffer, one thread writes it to the segment,
//! another makes it durable, and full segments are sealed behind them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Notify, watch};
use tracing::warn;
use uuid::Uuid;

use super::record::{self, Kind};
use super::usage::{Counted, Usage};
use super::writing::Writer;
use super::{Config, Position, RESTART_HOLE_BYTES, SEGMENT_BYTES, segment};
use crate::model::Micros;

/// Bytes that sessions may have waiting for the disk: about two seconds of the busiest stream that
/// the exchange was seen to send. A session that finds it full waits, and so does its socket. As
/// much again is in the writing thread's hands, and each waiting session holds one frame.
pub const BUFFER_BYTES_MAX: usize = 16 << 20;
/// A session that waited this long for the buffer says so in the journal: its socket was not read
/// meanwhile, so what it receives next may be that old. Far above what any healthy disk makes it
/// wait, far below the time in which the exchange gives a connection up.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// See [`Shared::seal_patience`].
const SEAL_PATIENCE: Duration = Duration::from_secs(60);

/// What opening found.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Bytes of a torn record at the end that were cut.
    pub torn_bytes: u64,
    /// Where this process begins to write.
    pub begin: Position,
}

/// The right to open the journal of a directory. Nothing of a journal is made before it is opened.
pub struct Claim {
    config: Config,
    lock: File,
}

/// Makes the directory and takes its lock.
///
/// # Errors
/// When the directory cannot be used or is locked by another process.
pub fn claim(config: Config) -> Result<Claim> {
    let dir = &config.dir;
    fs::create_dir_all(dir).with_context(|| format!("make journal {}", dir.display()))?;
    let lock = lock(dir)?;
    Ok(Claim { config, lock })
}

impl Claim {
    /// Opens or makes the journal and starts its threads.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn open(self) -> Result<(Journal, Opened)> {
        self.open_with(SEGMENT_BYTES, SEAL_PATIENCE)
    }

    /// As [`Claim::open`], with segments of another size that wait for the logs for another time.
    pub(super) fn open_with(
        self,
        segment_bytes: u64,
        seal_patience: Duration,
    ) -> Result<(Journal, Opened)> {
        let dir = self.config.dir.clone();
        let (end, torn_bytes) = segment::recover(&dir)?;
        if end.is_none() {
            // Without its segments it is another journal: positions begin anew.
            forget_identity(&dir)?;
        }
        let id = identity(&dir)?;
        let begin = end.map_or(0, |end| end + RESTART_HOLE_BYTES);
        let limit = self.config.max_bytes;
        let shared = Arc::new(Shared {
            id,
            config: self.config,
            segment_bytes,
            seal_patience,
            state: Mutex::new(State {
                buffer: Vec::new(),
                end: begin,
                stop: false,
                draining: false,
                failed: None,
            }),
            work: Condvar::new(),
            room: Notify::new(),
            written: watch::Sender::new(begin),
            durable: watch::Sender::new(begin),
            consumed: AtomicU64::new(0),
            counted: Counted::new(limit),
            live_base: AtomicU64::new(begin),
            sealing: AtomicBool::new(false),
        });
        let journal = Journal { shared: Arc::clone(&shared), _lock: Arc::new(self.lock) };
        {
            let mut state = shared.lock();
            let len = record::encode(&mut state.buffer, Kind::Start, 0, Micros::now(), b"");
            state.end += u64::try_from(len)?;
        }
        let writer = Writer::new(shared, begin);
        std::thread::Builder::new()
            .name("journal-write".to_owned())
            .spawn(move || writer.run())
            .context("start journal thread")?;
        Ok((journal, Opened { torn_bytes, begin: Position(begin) }))
    }
}

/// The journal's writing side. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    /// Held open for its lock.
    _lock: Arc<File>,
}

/// What the journal's threads and its users have in common.
pub struct Shared {
    pub id: Uuid,
    pub config: Config,
    pub segment_bytes: u64,
    /// How long a full segment that the logs have not passed stays as it is.
    pub seal_patience: Duration,
    state: Mutex<State>,
    /// Wakes the writing thread.
    pub work: Condvar,
    /// Wakes sessions that wait for room in the buffer.
    pub room: Notify,
    /// The position up to which the files hold records; readers wait on it.
    pub written: watch::Sender<u64>,
    /// The position up to which the disk holds them, whatever happens.
    durable: watch::Sender<u64>,
    /// The lowest position that some log still needs; the appenders move it.
    pub consumed: AtomicU64,
    pub counted: Counted,
    /// Base of the segment that is written; older ones may be sealed.
    pub live_base: AtomicU64,
    /// Whether a thread seals segments.
    pub sealing: AtomicBool,
}

/// What sessions and the writing thread hand each other.
pub struct State {
    pub buffer: Vec<u8>,
    /// Position after the last record of the buffer.
    pub end: u64,
    pub stop: bool,
    /// The process is stopping: the last records go in, whatever the cap says.
    pub draining: bool,
    /// Why the writing thread ended early; recording cannot go on.
    failed: Option<String>,
}

impl Journal {
    /// Which journal this is; made with its directory.
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    pub fn dir(&self) -> &Path {
        &self.shared.config.dir
    }

    /// Takes a record. Waits while the buffer is full, which pushes back on the socket.
    pub async fn append(&self, kind: Kind, session: i64, received_at: Micros, payload: &[u8]) {
        if self.shared.lock().try_take(kind, session, received_at, payload, &self.shared.work) {
            return;
        }
        let mut waits_since = None;
        loop {
            let room = self.shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.shared.lock();
                if state.failed.is_some() {
                    // The process is about to end; the coverage will end at the last record.
                    return;
                }
                if state.fits(payload) {
                    if let Some(waited) = waits_since.map(|since: Instant| since.elapsed())
                        && waited >= PAUSE_MIN
                    {
                        let waited = i64::try_from(waited.as_micros()).unwrap_or(i64::MAX);
                        state.take(Kind::Pause, session, Micros::now(), &waited.to_le_bytes());
                    }
                    state.take(kind, session, received_at, payload);
                    self.shared.work.notify_one();
                    return;
                }
            }
            waits_since.get_or_insert_with(Instant::now);
            room.await;
        }
    }

    /// The position up to which readers find records.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.shared.written.subscribe()
    }

    /// The position up to which records survive a power cut.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.shared.durable.subscribe()
    }

    /// Says that no log needs records before `position` any more.
    pub fn consumed(&self, position: Position) {
        self.shared.consumed.fetch_max(position.0, Ordering::Relaxed);
    }

    /// How full the journal is, as last counted.
    pub fn usage(&self) -> Usage {
        self.shared.counted.get()
    }

    /// Why the journal cannot be written any more, if so.
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failed.clone()
    }

    /// Position after the last record taken.
    pub fn end(&self) -> Position {
        Position(self.shared.lock().end)
    }

    /// Ends a pause at the cap, so that a stopping process is not held up by its own sockets.
    pub fn drain(&self) {
        self.shared.lock().draining = true;
    }

    /// As [`Journal::close`], for a process that is being ended at once: blocks, at most for
    /// `patience`.
    pub fn close_blocking(&self, patience: Duration) {
        let end = {
            let mut state = self.shared.lock();
            state.stop = true;
            self.shared.work.notify_one();
            state.end
        };
        let (durable, deadline) = (self.durable(), Instant::now() + patience);
        while *durable.borrow() < end && self.failure().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes and flushes what was taken, then ends the threads. Returns the last position.
    pub async fn close(&self) -> Position {
        let end = {
            let mut state = self.shared.lock();
            state.stop = true;
            self.shared.work.notify_one();
            state.end
        };
        let mut durable = self.durable();
        // Ends too when the writing thread failed: then the sender's value no longer moves.
        let reached = durable.wait_for(|at| *at >= end || self.failure().is_some());
        if let Err(error) = reached.await {
            warn!(%error, "journal thread ended before its last flush");
        }
        let written = *self.written().borrow();
        Position(if self.failure().is_some() { written } else { end })
    }
}

impl State {
    /// A record larger than the whole buffer may enter an empty one.
    fn fits(&self, payload: &[u8]) -> bool {
        self.buffer.is_empty() || self.buffer.len() + payload.len() <= BUFFER_BYTES_MAX
    }

    /// Takes a record when there is room and nothing has failed.
    fn try_take(
        &mut self,
        kind: Kind,
        session: i64,
        received_at: Micros,
        payload: &[u8],
        work: &Condvar,
    ) -> bool {
        let takes = self.failed.is_none() && self.fits(payload);
        if takes {
            // The writing thread takes all there is: whoever found it empty wakes it.
            let wakes = self.buffer.is_empty();
            self.take(kind, session, received_at, payload);
            if wakes {
                work.notify_one();
            }
        }
        takes
    }

    fn take(&mut self, kind: Kind, session: i64, received_at: Micros, payload: &[u8]) {
        let len = record::encode(&mut self.buffer, kind, session, received_at, payload);
        // A record is at most 65 MiB, so its length always fits.
        self.end += u64::try_from(len).unwrap_or_default();
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere changes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends recording: nothing is taken any more, and whoever waits looks at the reason.
    pub fn fail(&self, reason: String) {
        self.lock().failed = Some(reason);
        self.room.notify_waiters();
        self.durable.send_modify(|_| {});
        self.written.send_modify(|_| {});
    }

    /// Records before `at` survive a power cut.
    pub fn made_durable(&self, at: u64) {
        self.durable.send_if_modified(|durable| {
            let moved = at > *durable;
            *durable = at.max(*durable);
            moved
        });
    }

    /// Whether the process is stopping.
    pub fn is_ending(&self) -> bool {
        let state = self.lock();
        state.stop || state.draining
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(crate::ops::exit::HeldError(format!(
            "journal {} is in use by another process: stop it, or give this one its own journal.dir",
            dir.display()
        )));
    }
    Ok(file)
}

fn forget_identity(dir: &Path) -> Result<()> {
    match fs::remove_file(dir.join("id")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("remove the identity of an emptied journal")
        }
        _ => Ok(()),
    }
}

fn identity(dir: &Path) -> Result<Uuid> {
    let path = dir.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            let temporary = dir.join("id.tmp");
            let mut file = File::create(&temporary).context("write journal identity")?;
            writeln!(file, "{id}").context("write journal identity")?;
            file.sync_all().context("write journal identity")?;
            fs::rename(&temporary, &path).context("write journal identity")?;
            segment::sync_dir(dir).context("write journal identity")?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
