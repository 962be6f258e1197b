//! SIGHUP: the wish of an operator that a running process reads its configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal, which ends a process that does not listen to it.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Listens from now on. Must be called inside the runtime.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one; several that come at once are one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime is ending: there will be none.
            std::future::pending::<()>().await;
        }
    }
}
