//! The life of a session: connect, serve the connection until it ends, wait, connect again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use futures_util::stream::SplitSink;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::kalshi::Api;
use crate::kalshi::reader::{End, Reader};
use crate::kalshi::reconnect::{Outcome, Waits};
use crate::kalshi::session::{
    CloseReason, FrameSink, Links, Notice, Session, SessionEvent, SessionState, Settings, Slot,
    next_session_id,
};
use crate::kalshi::socket::{ConnectError, Socket, connect};
use crate::kalshi::subscribe::Kept;
use crate::model::{Channel, Micros};

/// How long a closing handshake may take before the socket is dropped.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Messages waiting to be written beside commands: pings that were not answered yet (two, with a
/// timeout of two intervals), one more that is due, a close, and two questions about a silent
/// subscription.
const OUTGOING_EXTRA: usize = 6;
/// Close codes by which the exchange tells a client that it is at fault.
const REFUSING_CODES: std::ops::RangeInclusive<u16> = 4000..=4999;
/// Going away, and service restart.
const RESTART_CODES: [u16; 2] = [1001, 1012];
/// Try again later.
const LATER_CODE: u16 = 1013;

/// What outlives a connection.
pub struct Life<S> {
    pub(super) slot: Slot,
    api: Api,
    pub(super) links: Links,
    pub(super) sink: Arc<S>,
    pub(super) settings: Settings,
    pub(super) shutdown: CancellationToken,
    /// Empty while there is a connection, whose reader has it.
    pub(super) kept: Kept,
    /// The beginning of the session, by our clock.
    pub(super) began: Micros,
    pub(super) state: SessionState,
    /// A notice had no room, or lifecycle frames may have been missed: the registry must list.
    pub(super) missed: bool,
    /// Whether the channel was subscribed before: the next time, frames were missed in between.
    pub(super) subscribed_before: bool,
    /// How far the exchange's clock is ahead of ours, as a refused handshake told.
    skew_micros: i64,
    waits: Waits,
}

impl<S: FrameSink> Life<S> {
    pub fn new(session: Session<S>) -> Self {
        let Session { slot, api, links, sink, settings, shutdown } = session;
        Self {
            slot,
            api,
            links,
            sink,
            waits: Waits::new(&settings),
            kept: Kept::new(&settings),
            began: (settings.clock)(),
            settings,
            shutdown,
            state: SessionState::default(),
            missed: false,
            subscribed_before: false,
            skew_micros: 0,
        }
    }

    /// See [`Session::run`].
    pub async fn run(&mut self) {
        let start = tokio::time::sleep(self.settings.start_delay);
        let shutdown = self.shutdown.clone();
        if shutdown.run_until_cancelled(start).await.is_none() {
            return;
        }
        loop {
            // What the signal said before this attempt is not news to the wait after it.
            self.links.resume.mark_unchanged();
            let Some(outcome) = self.attempt().await else { return };
            let wait = self.waits.after(outcome);
            if !self.paused(wait).await {
                return;
            }
        }
    }

    /// Waits, less when the exchange is said to be back; false when it is time to stop.
    async fn paused(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let shutdown = self.shutdown.clone();
        let resumed = async {
            // Nobody left to tell us: then the wait alone counts.
            if self.links.resume.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let until = tokio::select! {
            biased;
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep_until(until) => return true,
            () = resumed => until.min(Instant::now() + self.waits.resume()),
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep_until(until) => true,
        }
    }

    /// One connection, from its handshake to its end; none when it is time to stop.
    async fn attempt(&mut self) -> Option<Outcome> {
        let now = Micros(self.now().0.saturating_add(self.skew_micros));
        let shutdown = self.shutdown.clone();
        let connected = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            connected = connect(&self.api, now, &self.settings) => connected,
        };
        match connected {
            Ok(socket) => {
                let start = Instant::now();
                let end = Box::pin(self.serve(socket)).await;
                let lasted = start.elapsed();
                match end {
                    End { reason: CloseReason::Stop, .. } => None,
                    End { code: Some(code), detail, .. } if REFUSING_CODES.contains(&code) => {
                        self.refused(&detail, "the message says what the exchange objects to");
                        Some(Outcome::Refused)
                    }
                    End { code: Some(LATER_CODE), .. } => Some(Outcome::Later { after: None }),
                    End { code: Some(code), .. } if RESTART_CODES.contains(&code) => {
                        Some(Outcome::Restart { lasted })
                    }
                    End { .. } => Some(Outcome::Lost { lasted }),
                }
            }
            Err(error) => Some(self.not_connected(&error)),
        }
    }

    fn not_connected(&mut self, error: &ConnectError) -> Outcome {
        let slot = self.slot.name.as_str();
        self.state.last_error = Some(error.to_string());
        let outcome = match error {
            ConnectError::Refused { skew_ms: Some(ms), .. } => {
                self.skew_micros = self.skew_micros.saturating_add(ms.saturating_mul(1000));
                tracing::warn!(slot, %error, "signing with the exchange's clock instead of ours");
                Outcome::Failed { after: None }
            }
            ConnectError::Refused { .. } => {
                let remedy = "check api.key_id and the private key: it must be this key's, not \
                            revoked, and of this environment (demo keys do not work in production)";
                self.refused(&error.to_string(), remedy);
                Outcome::Refused
            }
            ConnectError::Setup(_) => {
                self.refused(&error.to_string(), "correct the configuration or this machine");
                Outcome::Refused
            }
            ConnectError::Status { code, retry_after, .. } => {
                tracing::warn!(slot, %error, "connection failed");
                match code {
                    429 => Outcome::Later { after: *retry_after },
                    _ => Outcome::Failed { after: *retry_after },
                }
            }
            ConnectError::Network(_) | ConnectError::Timeout(_) => {
                tracing::warn!(slot, %error, "connection failed");
                Outcome::Failed { after: None }
            }
        };
        self.publish();
        outcome
    }

    /// The exchange will not have us: said once for all sessions, with what to do about it.
    fn refused(&mut self, error: &str, remedy: &str) {
        let slot = self.slot.name.as_str();
        if self.links.refusal_said.swap(true, Ordering::Relaxed) {
            tracing::debug!(slot, error, "connection refused");
        } else {
            tracing::error!(slot, error, remedy, "connection refused; trying again slowly");
        }
        self.state.refused = true;
        self.publish();
    }

    /// The exchange takes us.
    pub(super) fn accepted(&mut self) {
        if std::mem::take(&mut self.state.refused) {
            self.links.refusal_said.store(false, Ordering::Relaxed);
        }
    }

    async fn serve(&mut self, socket: Socket) -> End {
        let at = self.now();
        let id = next_session_id(at);
        let (slot, channel) = (self.slot.name.clone(), self.slot.channel);
        let event = SessionEvent::Connected { slot: slot.clone(), channels: vec![channel] };
        self.sink.event(id, at, event).await;
        tracing::info!(slot, session = id, "connected to Kalshi WebSocket");
        self.state.connected = true;
        self.state.session = Some(id);
        self.state.since = at;
        self.state.connects += 1;
        self.publish();

        let (sink, frames) = socket.split();
        let capacity = self.settings.commands_outstanding_max.max(1) + OUTGOING_EXTRA;
        let (out, outgoing) = mpsc::channel(capacity);
        let (failed, failure) = oneshot::channel();
        let mut writing = std::pin::pin!(write(sink, outgoing, failed));
        let mut written = false;
        let end = {
            // The reader is never dropped in the middle of a frame: a writer that fails is only
            // news to it.
            let reader = Reader::new(self, id, out);
            let mut reading = std::pin::pin!(reader.run(frames, failure));
            loop {
                tokio::select! {
                    end = &mut reading => break end,
                    () = &mut writing, if !written => written = true,
                }
            }
        };
        if !written {
            // With the reader its end of the channel is gone: the writer says goodbye and ends.
            let _late = tokio::time::timeout(LINGER, writing).await;
        }

        let at = self.now();
        let End { reason, detail, .. } = &end;
        match reason {
            CloseReason::Stop => tracing::info!(slot, session = id, "closed the connection"),
            _ => tracing::warn!(
                slot,
                session = id,
                reason = reason.name(),
                detail,
                "connection lost"
            ),
        }
        self.state.connected = false;
        self.state.subscribed = false;
        self.state.session = None;
        self.state.since = at;
        self.state.markets_subscribed = 0;
        self.state.markets_with_book = 0;
        self.state.last_error = (*reason != CloseReason::Stop).then(|| detail.clone());
        self.publish();
        let event = SessionEvent::Closed { reason: *reason, detail: detail.clone() };
        self.sink.event(id, at, event).await;
        end
    }

    pub(super) fn now(&self) -> Micros {
        (self.settings.clock)()
    }

    pub(super) fn publish(&self) {
        self.links.state.send_if_modified(|state| {
            let modified = *state != self.state;
            if modified {
                state.clone_from(&self.state);
            }
            modified
        });
    }

    /// Passes a notice on without ever waiting: the registry reads lists while it hears notices, and
    /// one that finds no room becomes a request for another list.
    pub(super) fn notify(&mut self, notice: Notice) {
        self.notify_missed();
        if self.missed {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = self.links.notices.try_send(notice) {
            self.missed = true;
        }
    }

    /// Tells the registry that notices were missed, as soon as there is room.
    pub(super) fn notify_missed(&mut self) {
        if self.missed {
            let full = self.links.notices.try_send(Notice::Missed);
            self.missed = matches!(full, Err(mpsc::error::TrySendError::Full(_)));
        }
    }

    pub(super) fn is_lifecycle(&self) -> bool {
        matches!(self.slot.channel, Channel::Lifecycle | Channel::MultivariateLifecycle)
    }
}

/// Writes until the channel closes, then says goodbye. A failure is told and ends it.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut outgoing: mpsc::Receiver<Message>,
    failed: oneshot::Sender<String>,
) {
    while let Some(message) = outgoing.recv().await {
        if let Err(error) = sink.send(message).await {
            // The reader may have ended by itself meanwhile.
            let _gone = failed.send(error.to_string());
            return;
        }
    }
    // The peer may be gone: then there is nobody to say goodbye to.
    let _gone = sink.close().await;
}
