//! Makes written bytes durable beside the writing thread, so that a slow disk delays durability but
//! not the next write.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::FLUSH_INTERVAL;
use super::writer::Shared;
use crate::ops::crash;

/// The flushing thread and what it is asked.
pub struct Flusher {
    request: Arc<(Mutex<Request>, Condvar)>,
}

#[derive(Default)]
struct Request {
    file: Option<(Arc<File>, u64)>,
    stop: bool,
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(shared: Arc<Shared>) -> Result<Self> {
        let request = Arc::new((Mutex::new(Request::default()), Condvar::new()));
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
                crash::point("journal-before-flush");
                if let Err(error) = file.sync_data() {
                    // After a failed fsync the kernel may have dropped the pages, whatever the
                    // reason was: only a restart, which reads the file again, knows what is there.
                    shared.fail(format!("flush journal: {error}"));
                    return;
                }
                shared.made_durable(at);
                // Group what comes meanwhile. With the time that a disk needs the loop as a whole stays
                // below FLUSH_INTERVAL.
                std::thread::sleep(FLUSH_INTERVAL / 2);
            }
        };
        std::thread::Builder::new()
            .name("journal-flush".to_owned())
            .spawn(run)
            .context("start flushing thread")?;
        Ok(Self { request })
    }

    /// Asks that the file be made durable, which then holds the records before `at`.
    pub fn request(&self, file: &Arc<File>, at: u64) {
        let (lock, signal) = &*self.request;
        lock.lock().unwrap_or_else(PoisonError::into_inner).file = Some((Arc::clone(file), at));
        signal.notify_one();
    }

    /// Lets the thread end once it has done what was asked.
    pub fn stop(&self) {
        let (lock, signal) = &*self.request;
        lock.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        signal.notify_one();
    }
}
