//! The reading side of one connection: every frame to the sink first, then to the subscriptions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::SplitStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::kalshi::connection::{LINGER, Life};
use crate::kalshi::lifecycle;
use crate::kalshi::session::{CloseReason, FrameSink, Notice, Payload, SessionEvent};
use crate::kalshi::socket::Socket;
use crate::kalshi::subscribe::{Broken, Heard, Kept, Subscriptions};
use crate::kalshi::wire::Envelope;
use crate::model::{Channel, Micros};

/// Frames taken off the socket in a row before timers, commands and wishes get their turn.
const FRAMES_IN_A_ROW: usize = 64;
/// How often timeouts are looked at, at most.
const TICK_MAX: Duration = Duration::from_millis(250);
/// `Alive` is said at most this often.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A wait for the sink shorter than this is not worth a correction of the reader's clock.
const BLOCKED_MIN: Duration = Duration::from_millis(1);
/// The same kind of trouble is logged at most this often a connection; metrics count all of it.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub reason: CloseReason,
    pub detail: String,
    /// The code with which the exchange closed it.
    pub code: Option<u16>,
}

impl End {
    pub fn stop() -> Self {
        Self { reason: CloseReason::Stop, detail: "stopped".to_owned(), code: None }
    }

    fn of(reason: CloseReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), code: None }
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        let reason = match broken {
            Broken::Unanswered { .. } | Broken::Silent { .. } => CloseReason::Disconnect,
            Broken::DeadSubscription { .. } => CloseReason::TerminalError,
        };
        Self::of(reason, broken.to_string())
    }
}

/// The body of a ping: our time, which comes back with the pong (RFC 6455, 5.5.3).
fn ping(at: Micros) -> Bytes {
    Bytes::from(at.0.to_string())
}

/// When the ping was sent that a pong answers; none for one that nobody asked for.
fn pinged_at(body: &[u8]) -> Option<Micros> {
    std::str::from_utf8(body).ok()?.parse().ok().map(Micros)
}

/// See the module.
pub struct Reader<'a, S> {
    life: &'a mut Life<S>,
    id: i64,
    out: mpsc::Sender<Message>,
    subscriptions: Subscriptions,
    /// How long the sink kept us from reading. The reader's clock is the real one less this: what
    /// the peer sent in that time we had no chance to see.
    blocked: Duration,
    /// When the sink last kept us for so long that the peer may have given up on us.
    overloaded_at: Option<Instant>,
    ping_at: Instant,
    /// When the oldest ping without a sign of life since was sent.
    unanswered_since: Option<Instant>,
    alive_at: Instant,
    log_at: Instant,
    /// Whether the counts of markets may have changed since they were published.
    changed: bool,
    /// Commands for snapshots, and markets asked for by the audit, on earlier connections.
    before: (u64, u64),
}

impl<'a, S: FrameSink> Reader<'a, S> {
    pub fn new(life: &'a mut Life<S>, id: i64, out: mpsc::Sender<Message>) -> Self {
        let now = Instant::now();
        let kept = std::mem::replace(&mut life.kept, Kept::new(&life.settings));
        let subscriptions = Subscriptions::new(life.slot.channel, &life.settings, kept, now);
        let ping_at = now + life.settings.ping_interval;
        let before = (life.state.snapshot_requests, life.state.audits);
        // Every book of a new connection begins with a snapshot anyway.
        let _moot = life.links.resync.take();
        Self {
            life,
            id,
            out,
            subscriptions,
            blocked: Duration::ZERO,
            overloaded_at: None,
            ping_at,
            unanswered_since: None,
            alive_at: now,
            log_at: now,
            changed: true,
            before,
        }
    }

    /// Reads until the connection ends.
    pub async fn run(
        mut self,
        frames: SplitStream<Socket>,
        failure: oneshot::Receiver<String>,
    ) -> End {
        let end = self.read(frames, failure).await;
        self.publish();
        self.life.kept = self.subscriptions.into_kept();
        end
    }

    async fn read(
        &mut self,
        mut frames: SplitStream<Socket>,
        mut failure: oneshot::Receiver<String>,
    ) -> End {
        let shutdown = self.life.shutdown.clone();
        let mut stop = std::pin::pin!(shutdown.cancelled());
        let mut stop_by: Option<Instant> = None;
        let settings = &self.life.settings;
        let shortest =
            settings.ping_interval.min(settings.pong_timeout).min(settings.command_timeout);
        let period = (shortest / 4).clamp(Duration::from_millis(1), TICK_MAX);
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut wants_open, mut writable) = (true, true);
        let resync = Arc::clone(&self.life.links.resync);
        let now = self.now();
        self.subscriptions.want(&self.life.links.wants.borrow_and_update(), now);
        loop {
            if stop_by.is_none()
                && let Err(end) = self.send_commands()
            {
                return end;
            }
            tokio::select! {
                message = frames.next() => {
                    let mut next = Some(message);
                    let mut taken = 0;
                    while let Some(message) = next {
                        if let Err(end) = self.message(message).await {
                            return if stop_by.is_some() { End::stop() } else { end };
                        }
                        taken += 1;
                        next = if taken < FRAMES_IN_A_ROW { frames.next().now_or_never() } else { None };
                    }
                }
                changed = self.life.links.wants.changed(), if wants_open => {
                    wants_open = changed.is_ok();
                    let now = self.now();
                    self.subscriptions.want(&self.life.links.wants.borrow_and_update(), now);
                    self.changed = true;
                }
                tickers = resync.asked() => {
                    tickers.iter().for_each(|ticker| self.subscriptions.doubt(ticker));
                    self.changed = true;
                }
                error = &mut failure, if writable => {
                    writable = false;
                    if let Ok(error) = error {
                        return self.lost(format!("write: {error}"));
                    }
                }
                () = &mut stop, if stop_by.is_none() => {
                    stop_by = Some(Instant::now() + LINGER);
                    // What was sent before the goodbye is still taken. Without room for it the
                    // writer stands still anyway.
                    let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
                    let _full = self.out.try_send(Message::Close(Some(close)));
                }
                _ = tick.tick() => {
                    if stop_by.is_some_and(|by| by <= Instant::now()) {
                        return End::stop();
                    }
                    if stop_by.is_none()
                        && let Err(end) = self.tick().await
                    {
                        return end;
                    }
                    self.publish();
                }
            }
        }
    }

    /// The time as the reader has lived it.
    fn now(&self) -> Instant {
        // `blocked` is part of this connection's age, so the result is never before its start.
        Instant::now() - self.blocked
    }

    fn send_commands(&mut self) -> Result<(), End> {
        while let Some(command) = self.subscriptions.next_command(self.now()) {
            self.changed = true;
            if self.out.try_send(Message::text(command)).is_err() {
                return Err(self.lost("commands do not go out".to_owned()));
            }
        }
        Ok(())
    }

    async fn message(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), End> {
        let received_at = self.life.now();
        match message {
            Some(Ok(Message::Text(text))) => self.frame(received_at, Payload::Text(text)).await,
            Some(Ok(Message::Binary(bytes))) => self.frame(received_at, Payload::from(bytes)).await,
            Some(Ok(Message::Ping(_))) => {
                // The socket answers by itself when it is read next, which is at once.
                self.unanswered_since = None;
                Ok(())
            }
            Some(Ok(Message::Pong(body))) => {
                self.unanswered_since = None;
                if let Some(pinged_at) = pinged_at(&body).filter(|at| *at <= received_at) {
                    self.alive(pinged_at).await;
                }
                Ok(())
            }
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                let end = self.lost(format!("closed by the exchange: {code} {reason}"));
                Err(End { code: Some(code.into()), ..end })
            }
            Some(Ok(Message::Close(None))) => Err(self.lost("closed by the exchange".to_owned())),
            Some(Ok(Message::Frame(_))) => Ok(()),
            Some(Err(WsError::Capacity(error @ CapacityError::MessageTooLong { .. }))) => {
                // The writer may be stuck; the connection is dropped either way.
                let close = CloseFrame { code: CloseCode::Size, reason: Utf8Bytes::default() };
                let _full = self.out.try_send(Message::Close(Some(close)));
                Err(End::of(CloseReason::Overload, error.to_string()))
            }
            Some(Err(error)) => Err(self.lost(error.to_string())),
            None => Err(self.lost("the connection ended".to_owned())),
        }
    }

    /// A frame goes to the sink before anything looks into it.
    async fn frame(&mut self, received_at: Micros, payload: Payload) -> Result<(), End> {
        let before = Instant::now();
        self.life.sink.frame(self.id, received_at, payload.clone()).await;
        let after = Instant::now();
        let waited = after - before;
        if waited >= BLOCKED_MIN {
            self.blocked += waited;
            if waited >= self.life.settings.ping_interval {
                self.overloaded_at = Some(after);
            }
        }
        self.life.state.frames += 1;
        let Payload::Text(text) = payload else {
            self.life.state.unreadable += 1;
            return Ok(());
        };
        let Ok(envelope) = Envelope::parse(&text) else {
            // The decoder says what is wrong with it. Its number is missing now, so the next frame
            // of its subscription shows a gap.
            self.life.state.unreadable += 1;
            return Ok(());
        };
        let now = after - self.blocked;
        let [place, said] = self.subscriptions.frame(&envelope, &text, now)?;
        if self.life.is_lifecycle()
            && place != Heard::Duplicate
            && let Some(notice) = lifecycle::notice(&envelope.kind, &text)
        {
            self.life.notify(Notice::Market(notice));
        }
        if !matches!(envelope.kind.as_ref(), "orderbook_delta" | "trade" | "ticker") {
            self.changed = true;
        }
        self.heard(place);
        let event = match said {
            // The reply itself does not name the markets; without this their coverage would go on.
            Heard::Removed { sid, tickers } => {
                let tickers = tickers.iter().map(ToString::to_string).collect();
                SessionEvent::Removed { sid, tickers }
            }
            Heard::Stalled { sid } => {
                let slot = self.life.slot.name.as_str();
                tracing::warn!(slot, sid, "subscription is silent; subscribing anew");
                SessionEvent::Stalled { sid }
            }
            said => {
                self.heard(said);
                return Ok(());
            }
        };
        self.life.sink.event(self.id, received_at, event).await;
        Ok(())
    }

    fn heard(&mut self, heard: Heard) {
        let channel = self.life.slot.channel;
        match heard {
            Heard::Nothing | Heard::Removed { .. } | Heard::Stalled { .. } => {}
            Heard::Duplicate => self.life.state.duplicates += 1,
            Heard::Subscribed { sid } => {
                let slot = self.life.slot.name.as_str();
                tracing::info!(slot, sid, "subscribed to {channel} channel");
                if self.life.is_lifecycle() && self.life.subscribed_before {
                    self.life.missed = true;
                    self.life.notify_missed();
                }
                self.life.subscribed_before = true;
                self.life.accepted();
            }
            Heard::Gap { sid, expected, got } => {
                self.life.state.gaps += 1;
                if self.may_log() {
                    let slot = self.life.slot.name.as_str();
                    tracing::warn!(slot, sid, expected, got, "frames are missing");
                }
                if self.life.is_lifecycle() {
                    self.life.missed = true;
                    self.life.notify_missed();
                }
            }
            Heard::Lost { sid, code, message } => {
                self.life.state.terminal_errors += 1;
                if self.may_log() {
                    let slot = self.life.slot.name.as_str();
                    tracing::warn!(
                        slot,
                        sid,
                        code,
                        message,
                        "subscription ended; subscribing anew"
                    );
                }
            }
            Heard::Failed { code, message } => {
                let slot = self.life.slot.name.clone();
                if let Some(max) = self.subscriptions.learned().markets_max
                    && self.life.state.markets_max != Some(max)
                {
                    self.life.state.markets_max = Some(max);
                    tracing::warn!(slot, max, "learned how many markets a subscription takes");
                } else if self.may_log() {
                    tracing::warn!(slot, code, message, "command failed");
                }
            }
        }
    }

    fn may_log(&mut self) -> bool {
        let now = Instant::now();
        let may = now >= self.log_at;
        if may {
            self.log_at = now + LOG_INTERVAL;
        }
        may
    }

    /// A sign of life on the level of the connection: what the exchange sent before it had our ping of
    /// `pinged_at` has come. What it sent afterwards may still be on its way.
    async fn alive(&mut self, pinged_at: Micros) {
        let now = Instant::now();
        if now >= self.alive_at + ALIVE_INTERVAL {
            self.alive_at = now;
            self.life.sink.event(self.id, pinged_at, SessionEvent::Alive).await;
        }
    }

    async fn tick(&mut self) -> Result<(), End> {
        let now = self.now();
        let (interval, timeout) =
            (self.life.settings.ping_interval, self.life.settings.pong_timeout);
        if let Some(since) = self.unanswered_since
            && now >= since + timeout
        {
            let detail = format!("no answer to a ping within {timeout:?}");
            return Err(End::of(CloseReason::Liveness, detail));
        }
        if now >= self.ping_at {
            self.ping_at = now + interval;
            // Without room the writer stands still, and the ping counts as unanswered.
            let _full = self.out.try_send(Message::Ping(ping(self.life.now())));
            self.unanswered_since.get_or_insert(now);
        }
        self.life.notify_missed();
        if let Err(broken) = self.subscriptions.tick(now) {
            if let Broken::Silent { sid } = broken {
                // The connection is alive: without this the coverage would go on to its last pong.
                let at = self.life.now();
                self.life.sink.event(self.id, at, SessionEvent::Stalled { sid }).await;
            }
            return Err(broken.into());
        }
        self.send_commands()
    }

    fn publish(&mut self) {
        let began = self.life.began;
        let state = &mut self.life.state;
        state.snapshot_requests = self.before.0 + self.subscriptions.snapshot_requests();
        state.audits = self.before.1 + self.subscriptions.audits();
        state.markets_max = self.subscriptions.learned().markets_max;
        if self.changed {
            self.changed = false;
            let counts = self.subscriptions.counts();
            state.markets_wanted = counts.wanted;
            state.markets_subscribed = counts.subscribed;
            state.markets_with_book = counts.with_book;
            state.markets_refused = counts.refused;
            state.audited_since = counts.oldest.map(|after| {
                let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
                Micros(began.0.saturating_add(micros))
            });
            let all = counts.subscribed + counts.refused == counts.wanted;
            state.subscribed = all && (counts.wanted == 0 || self.subscriptions.is_subscribed());
            if self.life.slot.channel != Channel::OrderbookDelta {
                self.life.state.subscribed = self.subscriptions.is_subscribed();
            }
        }
        self.life.publish();
    }

    /// The end of a connection that we did not want: overload when we had stopped reading.
    fn lost(&self, detail: String) -> End {
        let timeout = self.life.settings.pong_timeout;
        match self.overloaded_at {
            Some(at) if at.elapsed() < timeout => {
                let detail = format!("{detail}, after we could not take frames");
                End::of(CloseReason::Overload, detail)
            }
            _ => End::of(CloseReason::Disconnect, detail),
        }
    }
}
