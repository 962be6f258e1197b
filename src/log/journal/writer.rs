//! The writing side: sessions append into a bounded buffer, one thread writes it to the segment,
//! another makes it durable, and full segments are sealed behind them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::record::{self, Kind};
use super::{Config, FLUSH_INTERVAL, Position, RESTART_HOLE_BYTES, SEGMENT_BYTES, segment};
use crate::model::Micros;

/// Bytes that sessions may have waiting for the disk: about two seconds of the busiest stream that
/// the exchange was seen to send. A session that finds it full waits, and so does its socket.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// How often a full journal looks for room.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// How often old segments are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);

/// What opening found.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Bytes of a torn record at the end that were cut.
    pub torn_bytes: u64,
    /// Where this process begins to write.
    pub begin: Position,
}

/// The journal's writing side. Cheap to clone; the last clone that goes lets the threads end.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    /// Held open for its lock.
    _lock: Arc<File>,
}

struct Shared {
    id: Uuid,
    config: Config,
    state: Mutex<State>,
    /// Wakes the writing thread.
    work: Condvar,
    /// Wakes sessions that wait for room in the buffer.
    room: Notify,
    /// The position up to which the files hold records; readers wait on it.
    written: watch::Sender<u64>,
    /// The position up to which the disk holds them, whatever happens.
    durable: watch::Sender<u64>,
    /// The lowest position that some log still needs; the appenders move it.
    consumed: AtomicU64,
    disk_bytes: AtomicU64,
    full: AtomicBool,
}

struct State {
    buffer: Vec<u8>,
    /// Position after the last record of the buffer.
    end: u64,
    stop: bool,
    /// The process is stopping: the last records go in, whatever the cap says.
    draining: bool,
    /// Why the writing thread ended early; recording cannot go on.
    failed: Option<String>,
}

impl Journal {
    /// Opens or makes the journal and starts its threads.
    ///
    /// # Errors
    /// When the directory cannot be used, is locked by another process, or is damaged in its
    /// middle.
    pub fn open(config: Config) -> Result<(Self, Opened)> {
        let dir = config.dir.clone();
        fs::create_dir_all(&dir).with_context(|| format!("make journal {}", dir.display()))?;
        let lock = lock(&dir)?;
        let (end, torn_bytes) = segment::recover(&dir)?;
        if end.is_none() {
            // Without its segments it is another journal: positions begin anew.
            forget_identity(&dir)?;
        }
        let id = identity(&dir)?;
        let begin = end.map_or(0, |end| end + RESTART_HOLE_BYTES);
        let file = create(&dir, begin)?;
        let shared = Arc::new(Shared {
            id,
            config,
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
            disk_bytes: AtomicU64::new(0),
            full: AtomicBool::new(false),
        });
        let journal = Self { shared: Arc::clone(&shared), _lock: Arc::new(lock) };
        {
            let mut state = shared.lock();
            let len = record::encode(&mut state.buffer, Kind::Start, 0, Micros::now(), b"");
            state.end += u64::try_from(len)?;
        }
        let writer = Writer { shared, dir, file: Arc::new(file), base: begin, at: begin };
        std::thread::Builder::new()
            .name("journal-write".to_owned())
            .spawn(move || writer.run())
            .context("start journal thread")?;
        Ok((journal, Opened { torn_bytes, begin: Position(begin) }))
    }

    /// Which journal this is; made with its directory.
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    pub fn dir(&self) -> &Path {
        &self.shared.config.dir
    }

    /// Takes a record. Waits while the buffer is full, which pushes back on the socket.
    pub async fn append(&self, kind: Kind, session: i64, received_at: Micros, payload: &[u8]) {
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
                // A record larger than the whole buffer may enter an empty one.
                let fits = state.buffer.is_empty()
                    || state.buffer.len() + payload.len() <= BUFFER_BYTES_MAX;
                if fits {
                    let len =
                        record::encode(&mut state.buffer, kind, session, received_at, payload);
                    // A record is at most 65 MiB, so its length always fits.
                    state.end += u64::try_from(len).unwrap_or_default();
                    self.shared.work.notify_one();
                    return;
                }
            }
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

    /// Bytes of all segments on disk, as last counted.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.disk_bytes.load(Ordering::Relaxed)
    }

    /// Whether recording pauses because the cap is reached and nothing may be removed.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere changes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    dir: std::path::PathBuf,
    file: Arc<File>,
    base: u64,
    at: u64,
}

impl Writer {
    fn run(mut self) {
        if let Err(error) = self.write_all() {
            error!(error = format!("{error:#}"), "journal cannot be written");
            self.shared.lock().failed = Some(format!("{error:#}"));
            self.shared.room.notify_waiters();
            // Readers and a closing process look at `failed`.
            self.shared.durable.send_modify(|_| {});
            self.shared.written.send_modify(|_| {});
        }
    }

    fn write_all(&mut self) -> Result<()> {
        let flusher = Flusher::start(Arc::clone(&self.shared))?;
        let mut pruned_at = Instant::now();
        let mut bytes = Vec::new();
        self.prune();
        loop {
            let stop = self.take(&mut bytes);
            if pruned_at.elapsed() >= PRUNE_INTERVAL {
                self.prune();
                pruned_at = Instant::now();
            }
            if bytes.is_empty() {
                if stop {
                    break;
                }
                continue;
            }
            self.wait_for_disk();
            (&*self.file).write_all(&bytes).context("write journal")?;
            self.at += u64::try_from(bytes.len())?;
            self.shared.disk_bytes.fetch_add(u64::try_from(bytes.len())?, Ordering::Relaxed);
            self.shared.written.send_replace(self.at);
            flusher.request(&self.file, self.at);
            bytes.clear();
            // The allocation for one enormous frame is not kept.
            bytes.shrink_to(BUFFER_BYTES_MAX);
            if self.at - self.base >= SEGMENT_BYTES {
                self.roll()?;
                self.prune();
            }
        }
        self.file.sync_data().context("flush journal")?;
        self.shared.durable.send_replace(self.at);
        flusher.stop();
        Ok(())
    }

    /// Swaps the filled buffer for an empty one. Returns whether the journal is to close.
    fn take(&self, bytes: &mut Vec<u8>) -> bool {
        let mut state = self.shared.lock();
        if state.buffer.is_empty() && !state.stop {
            let waited = self.shared.work.wait_timeout(state, PRUNE_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.buffer, bytes);
        let stop = state.stop;
        drop(state);
        self.shared.room.notify_waiters();
        stop
    }

    /// Waits until there is room below the cap. What was recorded is kept; what cannot be recorded
    /// stays in the sockets until the exchange gives up, and then shows in the coverage.
    fn wait_for_disk(&self) {
        let cap = self.shared.config.max_bytes;
        while self.shared.disk_bytes.load(Ordering::Relaxed) >= cap {
            self.prune();
            if self.shared.disk_bytes.load(Ordering::Relaxed) < cap {
                break;
            }
            if !self.shared.full.swap(true, Ordering::Relaxed) {
                error!(
                    cap_bytes = cap,
                    "journal is full and no log has passed its oldest segment: recording pauses; \
                     bring the database back or raise journal.max_bytes"
                );
            }
            let ending = {
                let state = self.shared.lock();
                state.stop || state.draining
            };
            if ending {
                // The last records of a stopping process are few; losing them is worse.
                break;
            }
            std::thread::sleep(FULL_RETRY);
        }
        if self.shared.full.swap(false, Ordering::Relaxed) {
            info!("journal has room again: recording goes on");
        }
    }

    fn roll(&mut self) -> Result<()> {
        self.file.sync_data().context("flush journal")?;
        self.shared.durable.send_replace(self.at);
        let full = self.base;
        self.file = Arc::new(create(&self.dir, self.at)?);
        self.base = self.at;
        let dir = self.dir.clone();
        let seal = move || {
            if let Err(error) = segment::seal(&dir, full) {
                // The plain file stays and stays readable; the next start removes the remains.
                warn!(error = format!("{error:#}"), "journal segment stays uncompressed");
            }
        };
        std::thread::Builder::new()
            .name("journal-seal".to_owned())
            .spawn(seal)
            .context("start sealing thread")?;
        Ok(())
    }

    /// Removes sealed segments that every log has passed and that are too old or too many.
    fn prune(&self) {
        let segments = match segment::list(&self.dir) {
            Ok(segments) => segments,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot list the journal");
                return;
            }
        };
        let consumed = self.shared.consumed.load(Ordering::Relaxed);
        let mut total: u64 = segments.iter().map(|segment| segment.disk_bytes).sum();
        let now = SystemTime::now();
        for pair in segments.windows(2) {
            let [segment, next] = pair else { continue };
            let age = now.duration_since(segment.modified).unwrap_or_default();
            // A reader that starts steps back one segment to warm up, so one is kept for it.
            let passed = next.base + SEGMENT_BYTES <= consumed;
            let surplus = age > self.shared.config.max_age || total > self.shared.config.max_bytes;
            if !(passed && surplus) {
                break;
            }
            match fs::remove_file(&segment.path) {
                Ok(()) => total = total.saturating_sub(segment.disk_bytes),
                Err(error) => warn!(%error, path = %segment.path.display(), "remove old segment"),
            }
        }
        self.shared.disk_bytes.store(total, Ordering::Relaxed);
    }
}

/// Makes written bytes durable beside the writing thread, so that a slow disk delays durability
/// but not the next write.
struct Flusher {
    request: Arc<(Mutex<FlushRequest>, Condvar)>,
}

#[derive(Default)]
struct FlushRequest {
    file: Option<(Arc<File>, u64)>,
    stop: bool,
}

impl Flusher {
    fn start(shared: Arc<Shared>) -> Result<Self> {
        let request = Arc::new((Mutex::new(FlushRequest::default()), Condvar::new()));
        let theirs = Arc::clone(&request);
        let run = move || {
            loop {
                let (lock, signal) = &*theirs;
                let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = signal.wait_while(guard, |r| r.file.is_none() && !r.stop);
                let mut guard = waited.unwrap_or_else(PoisonError::into_inner);
                let (file, stop) = (guard.file.take(), guard.stop);
                drop(guard);
                let Some((file, at)) = file else {
                    if stop {
                        return;
                    }
                    continue;
                };
                if let Err(error) = file.sync_data() {
                    // After a failed fsync the kernel may have dropped the pages: only a restart,
                    // which reads the file again, knows what is there.
                    shared.lock().failed = Some(format!("flush journal: {error}"));
                    shared.room.notify_waiters();
                    shared.durable.send_modify(|_| {});
                    return;
                }
                shared.durable.send_if_modified(|durable| {
                    let moved = at > *durable;
                    *durable = at.max(*durable);
                    moved
                });
                // Group what comes meanwhile: the loop as a whole stays below FLUSH_INTERVAL.
                std::thread::sleep(FLUSH_INTERVAL / 4);
            }
        };
        std::thread::Builder::new()
            .name("journal-flush".to_owned())
            .spawn(run)
            .context("start flushing thread")?;
        Ok(Self { request })
    }

    fn request(&self, file: &Arc<File>, at: u64) {
        let (lock, signal) = &*self.request;
        lock.lock().unwrap_or_else(PoisonError::into_inner).file = Some((Arc::clone(file), at));
        signal.notify_one();
    }

    fn stop(&self) {
        let (lock, signal) = &*self.request;
        lock.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        signal.notify_one();
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

fn create(dir: &Path, base: u64) -> Result<File> {
    let path = segment::plain_path(dir, base);
    let file = File::options()
        .create_new(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("make segment {}", path.display()))?;
    segment::sync_dir(dir).with_context(|| format!("make segment {}", path.display()))?;
    Ok(file)
}
