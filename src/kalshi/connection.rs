//! The life of a session: connect, serve the connection until it ends, wait, connect again.

use std::sync::Arc;
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
use crate::kalshi::session::{
    CloseReason, FrameSink, Links, Notice, SessionEvent, SessionState, Settings, Slot,
    next_session_id,
};
use crate::kalshi::socket::{ConnectError, Socket, connect};
use crate::kalshi::subscribe::Learned;
use crate::model::{Channel, Micros};
use crate::ops::backoff::Backoff;

/// How long a closing handshake may take before the socket is dropped.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Messages waiting to be written beside commands: pings that were not answered yet (two, with a
/// timeout of two intervals), one more that is due, and a close.
const OUTGOING_EXTRA: usize = 4;
/// After a refused key even the first wait is this many times the usual one.
const REFUSED_FACTOR: u32 = 30;

/// What outlives a connection.
pub(super) struct Life<S> {
    pub slot: Slot,
    pub api: Api,
    pub links: Links,
    pub sink: Arc<S>,
    pub settings: Settings,
    pub shutdown: CancellationToken,
    pub learned: Learned,
    pub state: SessionState,
    /// A notice had no room, or lifecycle frames may have been missed: the registry must list.
    pub missed: bool,
    /// Whether the channel was subscribed before: the next time, frames were missed in between.
    pub subscribed_before: bool,
    /// How far the exchange's clock is ahead of ours, as a refused handshake told.
    skew_micros: i64,
    /// A refused key is an error of the configuration: said once until it works again.
    refusal_said: bool,
}

/// See [`crate::kalshi::session::run`].
pub async fn run<S: FrameSink>(
    slot: Slot,
    api: Api,
    links: Links,
    sink: Arc<S>,
    settings: Settings,
    shutdown: CancellationToken,
) {
    let mut life = Life {
        slot,
        api,
        links,
        sink,
        settings,
        shutdown,
        learned: Learned::default(),
        state: SessionState::default(),
        missed: false,
        subscribed_before: false,
        skew_micros: 0,
        refusal_said: false,
    };
    life.run().await;
}

impl<S: FrameSink> Life<S> {
    async fn run(&mut self) {
        let (base, cap) = (self.settings.backoff_base, self.settings.backoff_cap);
        let mut backoff = Backoff::new(base, cap);
        let mut refusals = Backoff::new(base.saturating_mul(REFUSED_FACTOR).min(cap), cap);
        let mut wait = self.settings.start_delay;
        while self.paused(wait).await {
            wait = match self.attempt().await {
                Ok((End { reason: CloseReason::Stop, .. }, _)) => return,
                Ok((_, lasted)) => {
                    refusals.reset();
                    if lasted >= self.settings.stable_after {
                        backoff.reset();
                    }
                    backoff.next_delay()
                }
                Err(ConnectError::Refused { skew_ms: None, .. } | ConnectError::Setup(_)) => {
                    // Never at once: a refused key stays refused.
                    refusals.next_delay().max(base)
                }
                Err(_) => backoff.next_delay(),
            };
        }
    }

    /// Waits; false when it is time to stop.
    async fn paused(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// One connection, from its handshake to its end; how it ended and how long it lasted.
    async fn attempt(&mut self) -> Result<(End, Duration), ConnectError> {
        let now = Micros(self.now().0.saturating_add(self.skew_micros));
        let (max, limit) = (self.settings.max_message, self.settings.connect_timeout);
        let connected = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                return Ok((End::stop(), Duration::ZERO));
            }
            connected = connect(&self.api, now, max, limit) => connected,
        };
        match connected {
            Ok(socket) => {
                self.refusal_said = false;
                let start = Instant::now();
                let end = Box::pin(self.serve(socket)).await;
                Ok((end, start.elapsed()))
            }
            Err(error) => {
                self.refused(&error);
                self.state.last_error = Some(error.to_string());
                self.publish();
                Err(error)
            }
        }
    }

    fn refused(&mut self, error: &ConnectError) {
        let slot = self.slot.name.as_str();
        match error {
            ConnectError::Refused { skew_ms: Some(ms), .. } => {
                self.skew_micros = self.skew_micros.saturating_add(ms.saturating_mul(1000));
                tracing::warn!(slot, %error, "signing with the exchange's clock instead of ours");
            }
            ConnectError::Refused { .. } | ConnectError::Setup(_) if self.refusal_said => {
                tracing::debug!(slot, %error, "connection refused again");
            }
            ConnectError::Refused { .. } | ConnectError::Setup(_) => {
                self.refusal_said = true;
                tracing::error!(slot, %error, "check the API key; trying again slowly");
            }
            _ => tracing::warn!(slot, %error, "connection failed"),
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
        let End { reason, detail } = &end;
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
