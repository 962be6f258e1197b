//! SIGHUP: the wish of an operator that a running process reads its configuration again.

use std::io;
use std::sync::LazyLock;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// 1 until a wish was refused, and from the next one on that was not. Of the process, as its memory is:
/// whoever listens need not be who serves metrics.
static SUCCESSFUL: LazyLock<Gauge> = LazyLock::new(|| {
    let gauge = Gauge::default();
    gauge.set(1);
    gauge
});

/// Registers what became of the last wish.
pub fn register(registry: &mut Registry) {
    registry.register(
        "kalshi_config_last_reload_successful",
        "0 while the configuration that was last asked to be taken over is refused",
        SUCCESSFUL.clone(),
    );
}

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

    /// Says what became of the wish: taken over, or refused.
    pub fn answered(&self, is_taken: bool) {
        SUCCESSFUL.set(i64::from(is_taken));
    }

    /// Waits for the next one; several that come at once are one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime is ending: there will be none.
            std::future::pending::<()>().await;
        }
    }
}
