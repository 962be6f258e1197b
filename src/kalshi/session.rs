//! A session: one WebSocket for its whole life, across reconnects.
//!
//! It hands every frame to a [`FrameSink`] before anything parses it, keeps its subscriptions what
//! its plan wants, and asks for snapshots where the sequence has a hole.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use crate::kalshi::Api;
use crate::kalshi::connection::Life;
pub use crate::kalshi::resync::Resync;
use crate::model::{Channel, Micros, Ticker};

/// A frame as it left the socket. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Text(Utf8Bytes),
    /// What is not UTF-8, in a frame of whatever kind.
    Bytes(Bytes),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        // The clone shares the bytes, which a failed conversion would drop.
        Utf8Bytes::try_from(bytes.clone()).map_or(Self::Bytes(bytes), Self::Text)
    }
}

impl Payload {
    /// The bytes as received.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_ref(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Where a session's frames and events go: the journal, provided by the gatherer.
pub trait FrameSink: Send + Sync + 'static {
    /// Takes a frame. Waits while there is no room, which is what holds back the socket.
    fn frame(
        &self,
        session: i64,
        received_at: Micros,
        payload: Payload,
    ) -> impl Future<Output = ()> + Send;

    /// Takes an event of the session, in order with its frames.
    fn event(
        &self,
        session: i64,
        at: Micros,
        event: SessionEvent,
    ) -> impl Future<Output = ()> + Send;
}

/// What happened to a session beside its frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SessionEvent {
    /// The handshake succeeded; the session id is new.
    Connected {
        slot: String,
        #[serde(with = "channel_names")]
        channels: Vec<Channel>,
    },
    /// A pong or a ping proved the connection while no frame came: at most once a second.
    Alive,
    /// Markets left the subscription `sid` on our command; stands behind the exchange's reply.
    Removed { sid: i64, tickers: Vec<String> },
    /// The subscription `sid` said nothing while the exchange lived: what was seen ends with its last
    /// frame. It is ended, or the connection is.
    Stalled { sid: i64 },
    /// The connection ended; the session id never comes again.
    Closed { reason: CloseReason, detail: String },
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The peer or the network ended it, or a command was not answered.
    Disconnect,
    /// The exchange ended the subscription and did not give another on this connection.
    TerminalError,
    /// We could not take frames off the socket, or a frame was larger than we take.
    Overload,
    /// We stopped in order.
    Stop,
    /// The peer stayed silent to our pings.
    Liveness,
}

impl CloseReason {
    /// The name in logs and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::TerminalError => "terminal_error",
            Self::Overload => "overload",
            Self::Stop => "stop",
            Self::Liveness => "liveness",
        }
    }
}

mod channel_names {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Channel;

    pub fn serialize<S: Serializer>(channels: &[Channel], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(channels.iter().map(|channel| channel.name()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Channel>, D::Error> {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|name| {
                Channel::from_name(name)
                    .ok_or_else(|| D::Error::custom(format_args!("unknown channel {name:?}")))
            })
            .collect()
    }
}

/// A place for a session: what it is called and which channel it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// For instance `orderbook-3` or `ticker-1`; unique in the process.
    pub name: String,
    pub channel: Channel,
}

/// What a session should be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// Everything the channel has, without naming markets: the global channels.
    All,
    /// These markets: order books.
    Markets(Arc<BTreeSet<Ticker>>),
}

/// News for the registry, from the lifecycle channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Market(MarketNotice),
    /// Frames may have been missed (a reconnect, a gap, or no room for a notice): list again.
    Missed,
}

/// The part of a lifecycle frame that decides whether a market is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketNotice {
    pub ticker: Ticker,
    /// As sent: `created`, `activated`, `deactivated`, `determined`, `settled`, ...
    pub event_type: String,
    /// From `additional_metadata`, on `created`.
    pub event_ticker: Option<String>,
    /// When trading opens and closes, where the frame says so.
    pub open_time: Option<Micros>,
    pub close_time: Option<Micros>,
    /// Whether it came on the multivariate (combo) channel.
    pub multivariate: bool,
}

/// How a session stands, for health, metrics and the planner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionState {
    pub connected: bool,
    /// Connected, and everything wanted is subscribed (but for markets the exchange refuses).
    pub subscribed: bool,
    /// The id of the connection, while connected.
    pub session: Option<i64>,
    /// When `connected` last changed.
    pub since: Micros,
    /// Markets wanted, confirmed by the exchange, seen with a snapshot that still stands, refused
    /// by the exchange. 0 for global channels.
    pub markets_wanted: usize,
    pub markets_subscribed: usize,
    pub markets_with_book: usize,
    pub markets_refused: usize,
    /// The most markets one subscription takes, once error 26 has taught it.
    pub markets_max: Option<usize>,
    /// Since the start of the process.
    pub connects: u64,
    pub frames: u64,
    /// Frames without a readable envelope.
    pub unreadable: u64,
    pub gaps: u64,
    pub duplicates: u64,
    pub terminal_errors: u64,
    pub snapshot_requests: u64,
    /// Snapshots asked for by the audit.
    pub audits: u64,
    /// When that market was last compared with a snapshot that waits longest for it; none without
    /// markets.
    pub audited_since: Option<Micros>,
    /// Why the last connection or attempt ended.
    pub last_error: Option<String>,
    /// The exchange refuses us, and trying again does not help by itself (HTTP 401 and 403, close
    /// codes 4000 to 4999, a setting that cannot work): `last_error` says why.
    pub refused: bool,
}

/// Our clock, injectable for tests.
pub type Clock = Arc<dyn Fn() -> Micros + Send + Sync>;

/// The limits and times of a session.
#[derive(Clone)]
pub struct Settings {
    /// Waited before the first connect, so that 150 sessions do not connect at once.
    pub start_delay: Duration,
    /// Whom `wss` trusts; none for the machine's own root certificates.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// TCP, TLS and the WebSocket handshake together.
    pub connect_timeout: Duration,
    pub ping_interval: Duration,
    /// No pong or ping for this long while we wait for a pong: the connection is dead.
    pub pong_timeout: Duration,
    /// Full jitter below a bound that doubles from here ..
    pub backoff_base: Duration,
    /// .. to here.
    pub backoff_cap: Duration,
    /// Where the exchange refuses us for good the bound doubles from here ..
    pub refused_base: Duration,
    /// .. to here, or to `backoff_cap` if that is less; half of each wait is jitter.
    pub refused_cap: Duration,
    /// The least wait after the exchange said that it restarts (close codes 1001 and 1012). Five
    /// times that where it says to come later (close code 1013, HTTP 429 and 503).
    pub polite_wait: Duration,
    /// After [`Links::resume`] sessions connect within this time, each at its own moment of it.
    pub resume_spread: Duration,
    /// Connected for this long, the next failure starts at `backoff_base` again.
    pub stable_after: Duration,
    /// Markets named in one command.
    pub command_batch: usize,
    /// Commands that may wait for their answer at a time.
    pub commands_outstanding_max: usize,
    /// Not answered within this time: the connection is broken.
    pub command_timeout: Duration,
    /// A market without a snapshot for this long after it was added is asked for.
    pub snapshot_timeout: Duration,
    /// At most one round of snapshots of a whole subscription in this time.
    pub resync_interval: Duration,
    /// A market that the exchange refused is tried again after this time.
    pub refused_retry: Duration,
    /// Each book is compared with a snapshot once in this time; none for never.
    pub audit_period: Option<Duration>,
    /// The largest message taken, in bytes.
    pub max_message: usize,
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start_delay: Duration::ZERO,
            tls: None,
            connect_timeout: Duration::from_secs(15),
            ping_interval: Duration::from_secs(10),
            pong_timeout: Duration::from_secs(20),
            backoff_base: Duration::from_millis(250),
            backoff_cap: Duration::from_secs(300),
            refused_base: Duration::from_secs(15),
            refused_cap: Duration::from_secs(60),
            polite_wait: Duration::from_secs(1),
            resume_spread: Duration::from_secs(2),
            stable_after: Duration::from_secs(10),
            command_batch: 500,
            commands_outstanding_max: 4,
            command_timeout: Duration::from_secs(10),
            snapshot_timeout: Duration::from_secs(10),
            resync_interval: Duration::from_secs(5),
            refused_retry: Duration::from_secs(60),
            audit_period: None,
            max_message: 64 << 20,
            clock: Arc::new(Micros::now),
        }
    }
}

/// What a session hears from the rest of the gatherer, and what it tells it.
pub struct Links {
    pub wants: watch::Receiver<Wants>,
    pub resync: Arc<Resync>,
    pub notices: mpsc::Sender<Notice>,
    pub state: watch::Sender<SessionState>,
    /// Changes when the exchange is back, for instance after maintenance: sessions that wait for
    /// their next attempt then connect soon.
    pub resume: watch::Receiver<u64>,
    /// Whether any session has said that the exchange refuses us: all of them share one key, and
    /// one line says it.
    pub refusal_said: Arc<AtomicBool>,
}

/// The id of a new connection: its time in microseconds, unique and increasing in this process
/// even when the clock goes back.
pub fn next_session_id(now: Micros) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let mut id = now.0;
    // The closure always returns a value, so the update always succeeds.
    let _previous = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        id = now.0.max(last.saturating_add(1));
        Some(id)
    });
    id
}

/// One WebSocket for its whole life.
pub struct Session<S> {
    pub slot: Slot,
    pub api: Api,
    pub links: Links,
    pub sink: Arc<S>,
    pub settings: Settings,
    pub shutdown: CancellationToken,
}

impl<S: FrameSink> Session<S> {
    /// Runs until `shutdown`.
    ///
    /// Every failure of a connection is handled here (logged, told to the sink, retried with
    /// backoff); it returns after the last [`SessionEvent::Closed`] is in the sink.
    pub async fn run(self) {
        Box::pin(Life::new(self).run()).await;
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "trouble_tests.rs"]
mod trouble_tests;
