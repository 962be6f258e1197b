//! The exchange's state: what is listed and who is connected. Its owner holds one lock around it,
//! so every subscriber sees the same order, and a snapshot stands exactly where its place in the
//! sequence says.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Filter, Subscription, slot};
use super::frames;
use super::keys::Keys;
use super::ledger::Ledger;
use super::maintenance::Windows;
use super::market::{Catalog, ConnectionId, MarketId, Watchers};
use super::outbox::{Opcode, Outbox, Pushed};
use super::troubles::Pending;
use super::views::usual_cutoff;
use crate::model::{Channel, Micros};

/// Beyond the limit for data, replies are still queued; a client that asks on and on without
/// reading the answers is cut off at this.
const OUTBOX_BYTES_HARD_MAX: usize = 1 << 30;
/// A connection that takes nothing for so long is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bounds that the exchange keeps. Each can be changed while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Markets of one subscription; beyond it error 26.
    pub markets_per_subscription: usize,
    /// Commands of one connection a second; beyond it error 27.
    pub commands_per_second: u32,
    /// Bytes of frames that may wait for one connection before a data frame that does not fit ends
    /// its subscription (error 25). All connections together are bounded by this times their number.
    pub outbox_bytes: usize,
    /// REST budget of an account in read tokens a second (a call costs 10); none is no limit.
    pub read_tokens_per_second: Option<u32>,
}

impl Default for Limits {
    /// The published sanity limits, and no REST limit.
    fn default() -> Self {
        Self {
            markets_per_subscription: 500_000,
            commands_per_second: 10_000,
            outbox_bytes: 64 << 20,
            read_tokens_per_second: None,
        }
    }
}

/// A message in both conventions of prices; they differ on the no side of books alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub channel: Channel,
    pub kind: &'a str,
    pub text: &'a str,
    /// With the no side in no-leg prices, where that differs.
    pub no_leg: Option<&'a str>,
}

/// What happened besides the publications, for people and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Happenings {
    /// Subscriptions ended because their reader was too slow.
    pub overflows: u64,
    /// Frames left out on demand.
    pub dropped: u64,
    /// Frames sent twice on demand.
    pub repeated: u64,
    /// Frames that a dead subscription did not send.
    pub withheld: u64,
    /// Changes that took a level below zero.
    pub below_zero: u64,
    /// Commands received.
    pub commands: u64,
    /// Connections ever accepted.
    pub connections: u64,
}

/// The rate of a burst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Burst {
    /// So many times the run's rate.
    Times(f64),
    /// So many changes a second.
    Rate(f64),
}

/// Changes of the pace of a generated flow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    /// Another rate, until then.
    pub burst: Option<(Burst, Instant)>,
    /// Births a minute, and until when.
    pub churn: Option<(f64, Instant)>,
}

#[derive(Debug)]
pub(super) struct Venue {
    pub catalog: Catalog,
    pub ledger: Arc<Ledger>,
    pub limits: Limits,
    pub happenings: Happenings,
    /// While trading pauses nothing is published.
    pub trading: bool,
    /// While the exchange is in maintenance nobody can connect.
    pub active: bool,
    pub windows: Windows,
    /// Markets settled before are history; none is midnight a quarter ago.
    pub settled_cutoff: Option<Micros>,
    /// Trades before are history; none is midnight a quarter ago.
    pub trades_cutoff: Option<Micros>,
    /// Changes of the pace that somebody asked for.
    pub pace: Pace,
    /// Misbehaviour that waits for its occasion.
    pub pending: Pending,
    connections: Vec<Option<Connection>>,
    free: Vec<ConnectionId>,
    /// Connections whose subscription has no filter, by channel.
    unfiltered: [Vec<ConnectionId>; 5],
    dirty: Vec<ConnectionId>,
    overflowed: Vec<ConnectionId>,
    text: String,
    text_no_leg: String,
    envelope: String,
}

impl Venue {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            catalog: Catalog::default(),
            ledger,
            limits: Limits::default(),
            happenings: Happenings::default(),
            trading: true,
            active: true,
            windows: Windows::default(),
            settled_cutoff: None,
            trades_cutoff: None,
            pace: Pace::default(),
            pending: Pending::default(),
            connections: Vec::new(),
            free: Vec::new(),
            unfiltered: Default::default(),
            dirty: Vec::new(),
            overflowed: Vec::new(),
            text: String::new(),
            text_no_leg: String::new(),
            envelope: String::new(),
        }
    }

    /// Markets settled before this are history.
    pub fn settled_cutoff(&self) -> Micros {
        self.settled_cutoff.unwrap_or_else(|| usual_cutoff(Micros::now()))
    }

    /// Trades before this are history.
    pub fn trades_cutoff(&self) -> Micros {
        self.trades_cutoff.unwrap_or_else(|| usual_cutoff(Micros::now()))
    }

    /// The buffers for a message's text in both conventions.
    pub fn take_texts(&mut self) -> (String, String) {
        (std::mem::take(&mut self.text), std::mem::take(&mut self.text_no_leg))
    }

    /// Gives the buffers back, so that publishing does not allocate.
    pub fn put_back(&mut self, mut text: String, mut no_leg: String) {
        text.clear();
        no_leg.clear();
        (self.text, self.text_no_leg) = (text, no_leg);
    }

    /// Queues a message for everybody who watches, and returns whom it was sent to.
    pub fn fan_out(&mut self, market: Option<MarketId>, message: Message<'_>) -> Keys {
        let channel = message.channel;
        let watching = market.and_then(|id| self.catalog.market(id)).map(|market| &market.watchers);
        let named = match (watching, channel) {
            (Some(watchers), Channel::OrderbookDelta) => watchers.book.as_slice(),
            (Some(watchers), Channel::Trade) => watchers.trade.as_slice(),
            (Some(watchers), Channel::Ticker) => watchers.ticker.as_slice(),
            _ => &[],
        };
        let all = self.unfiltered.get(slot(channel)).map_or(&[][..], Vec::as_slice);
        let troubled = !self.pending.is_idle();
        let mut receivers = Keys::default();
        for &id in named.iter().chain(all) {
            let Some(Some(connection)) = self.connections.get_mut(id.index()) else { continue };
            let key = connection.key;
            let Some(subscription) =
                connection.subscriptions.get_mut(slot(channel)).and_then(Option::as_mut)
            else {
                continue;
            };
            if subscription.dead {
                self.happenings.withheld += 1;
                continue;
            }
            if troubled && self.pending.take_drop(key, channel) {
                subscription.seq += 1;
                self.happenings.dropped += 1;
                continue;
            }
            let text = match message.no_leg {
                Some(no_leg) if !subscription.yes_leg => no_leg,
                _ => message.text,
            };
            data_envelope(&mut self.envelope, message.kind, subscription, channel, 0);
            let parts = [self.envelope.as_bytes(), text.as_bytes(), b"}"];
            match connection.outbox.push_within(self.limits.outbox_bytes, &parts) {
                Pushed::Yes => receivers.insert(key),
                Pushed::Full => {
                    // The frame was not sent, so its number is the terminal error's.
                    subscription.seq -= i64::from(channel.is_sequenced());
                    self.overflowed.push(id);
                    continue;
                }
                Pushed::Closed => continue,
            }
            if troubled && self.pending.take_repeat(key, channel) {
                connection.outbox.push(Opcode::Text, &parts);
                self.happenings.repeated += 1;
            }
            if !std::mem::replace(&mut connection.marked, true) {
                self.dirty.push(id);
            }
        }
        while let Some(id) = self.overflowed.pop() {
            self.happenings.overflows += 1;
            self.terminate(id, channel, 25);
        }
        receivers
    }

    /// Takes a new connection in.
    pub fn connect(
        &mut self,
        key: usize,
        outbox: Arc<Outbox>,
        cut: CancellationToken,
    ) -> ConnectionId {
        let now = Instant::now();
        let connection = Connection {
            key,
            outbox,
            cut,
            ghost: CancellationToken::new(),
            subscriptions: Default::default(),
            ended: None,
            last_sid: 0,
            commands: 0,
            second: now,
            marked: false,
            drained: 0,
            drained_at: now,
        };
        self.happenings.connections += 1;
        if let Some(id) = self.free.pop()
            && let Some(place) = self.connections.get_mut(id.index())
        {
            *place = Some(connection);
            return id;
        }
        let id = ConnectionId(u32::try_from(self.connections.len()).unwrap_or(u32::MAX));
        self.connections.push(Some(connection));
        id
    }

    /// Forgets a connection and all its subscriptions.
    pub fn disconnect(&mut self, id: ConnectionId) {
        for channel in Channel::ALL {
            self.unsubscribe(id, channel);
        }
        if let Some(place) = self.connections.get_mut(id.index())
            && place.take().is_some()
        {
            self.free.push(id);
        }
    }

    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.index())?.as_mut()
    }

    /// A live connection.
    pub fn seat(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.index())?.as_ref()
    }

    /// Notes that a connection's writer has something new.
    pub fn mark(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        if !std::mem::replace(&mut connection.marked, true) {
            self.dirty.push(id);
        }
    }

    /// All live connections.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        (0..)
            .map(ConnectionId)
            .zip(&self.connections)
            .filter_map(|(id, place)| place.as_ref().map(|connection| (id, connection)))
    }

    /// Queues a reply or anything else that is not subject to the limit for data.
    pub fn send(&mut self, id: ConnectionId, opcode: Opcode, parts: &[&[u8]]) {
        let Some(connection) = self.connection(id) else { return };
        connection.outbox.push(opcode, parts);
        if connection.outbox.bytes() > OUTBOX_BYTES_HARD_MAX {
            connection.cut.cancel();
        }
        self.mark(id);
    }

    /// Queues one snapshot in sequence. `command` 0 is none.
    pub fn send_snapshot(&mut self, id: ConnectionId, market: MarketId, command: u64) {
        let (mut text, no_leg) = self.take_texts();
        let mut head = std::mem::take(&mut self.envelope);
        let channel = Channel::OrderbookDelta;
        if let (Some(market), Some(Some(connection))) =
            (self.catalog.market(market), self.connections.get_mut(id.index()))
            && let Some(subscription) = connection.subscription(channel)
        {
            frames::put_snapshot(&mut text, market, subscription.yes_leg);
            data_envelope(&mut head, "orderbook_snapshot", subscription, channel, command);
            self.send(id, Opcode::Text, &[head.as_bytes(), text.as_bytes(), b"}"]);
        }
        self.envelope = head;
        self.put_back(text, no_leg);
    }

    /// Queues a market's book under a number of somebody else's choice.
    pub fn send_snapshot_as(&mut self, id: ConnectionId, market: MarketId, sid: i64, seq: i64) {
        let (mut text, no_leg) = self.take_texts();
        if let Some(market) = self.catalog.market(market) {
            frames::put_snapshot(&mut text, market, true);
            let head =
                format!("{{\"type\":\"orderbook_snapshot\",\"sid\":{sid},\"seq\":{seq},\"msg\":");
            self.send(id, Opcode::Text, &[head.as_bytes(), text.as_bytes(), b"}"]);
        }
        self.put_back(text, no_leg);
    }

    /// Sends the newest quote of a market again, when there was one.
    pub fn send_last_ticker(&mut self, id: ConnectionId, market: MarketId) {
        let Some(Some(connection)) = self.connections.get_mut(id.index()) else { return };
        let Some(subscription) = connection.subscription(Channel::Ticker) else { return };
        let last = self.catalog.market(market).and_then(|market| market.last_ticker.as_deref());
        let Some(text) = last.map(str::to_owned) else { return };
        let mut head = std::mem::take(&mut self.envelope);
        data_envelope(&mut head, "ticker", subscription, Channel::Ticker, 0);
        self.send(id, Opcode::Text, &[head.as_bytes(), text.as_bytes(), b"}"]);
        self.envelope = head;
    }

    /// The lists of watchers of a market for a channel.
    fn watchers(watchers: &mut Watchers, channel: Channel) -> Option<&mut Vec<ConnectionId>> {
        match channel {
            Channel::OrderbookDelta => Some(&mut watchers.book),
            Channel::Trade => Some(&mut watchers.trade),
            Channel::Ticker => Some(&mut watchers.ticker),
            Channel::Lifecycle | Channel::MultivariateLifecycle => None,
        }
    }

    /// Lets a connection watch a market, or all of them.
    pub fn watch(&mut self, id: ConnectionId, channel: Channel, market: Option<MarketId>) {
        let list = match market {
            None => self.unfiltered.get_mut(slot(channel)),
            Some(market) => self
                .catalog
                .market_mut(market)
                .and_then(|market| Self::watchers(&mut market.watchers, channel)),
        };
        if let Some(list) = list
            && !list.contains(&id)
        {
            list.push(id);
        }
    }

    /// The reverse of [`Self::watch`].
    pub fn unwatch(&mut self, id: ConnectionId, channel: Channel, market: Option<MarketId>) {
        let list = match market {
            None => self.unfiltered.get_mut(slot(channel)),
            Some(market) => self
                .catalog
                .market_mut(market)
                .and_then(|market| Self::watchers(&mut market.watchers, channel)),
        };
        if let Some(list) = list {
            list.retain(|watcher| *watcher != id);
        }
    }

    /// Ends a subscription and returns what it was.
    pub fn unsubscribe(&mut self, id: ConnectionId, channel: Channel) -> Option<Subscription> {
        let connection = self.connection(id)?;
        let subscription = connection.subscriptions.get_mut(slot(channel))?.take()?;
        match &subscription.filter {
            Filter::All => self.unwatch(id, channel, None),
            Filter::Markets(markets) => {
                for market in markets {
                    self.unwatch(id, channel, Some(*market));
                }
            }
        }
        if let Some(connection) = self.connection(id).filter(|_| channel == Channel::OrderbookDelta)
        {
            connection.ended = Some((subscription.sid, subscription.seq));
        }
        Some(subscription)
    }

    /// Ends a subscription by a terminal error: without an id, in sequence, the socket lives on.
    /// Returns whether there was one.
    pub fn terminate(&mut self, id: ConnectionId, channel: Channel, code: u8) -> bool {
        let Some(mut subscription) = self.unsubscribe(id, channel) else { return false };
        let place = Some((subscription.sid, subscription.next()));
        let reply = frames::error_reply(code, 0, place, None);
        self.send(id, Opcode::Text, &[reply.as_bytes()]);
        true
    }

    /// Whether somebody who still reads has so much waiting that the source should wait too. One
    /// that takes nothing at all is not waited for: its subscriptions overflow in the end.
    pub fn is_congested(&mut self) -> bool {
        let (mark, now) = (self.limits.outbox_bytes / 8, Instant::now());
        let mut congested = false;
        for connection in self.connections.iter_mut().flatten() {
            let drained = connection.outbox.drained();
            if drained != connection.drained || connection.outbox.bytes() <= mark {
                (connection.drained, connection.drained_at) = (drained, now);
            }
            congested |= connection.outbox.bytes() > mark
                && now.duration_since(connection.drained_at) < PATIENCE;
        }
        congested
    }

    /// Wakes the writers of all connections that got something: once a batch, not once a frame.
    pub fn flush(&mut self) {
        while let Some(id) = self.dirty.pop() {
            if let Some(connection) = self.connection(id) {
                connection.marked = false;
                connection.outbox.wake();
            }
        }
    }
}

/// The envelope of a data frame up to its message, with the next number where the channel has one.
fn data_envelope(
    out: &mut String,
    kind: &str,
    subscription: &mut Subscription,
    channel: Channel,
    command: u64,
) {
    out.clear();
    let mut written = write!(out, "{{\"type\":\"{kind}\",\"sid\":{}", subscription.sid);
    if channel.is_sequenced() {
        written = written.and(write!(out, ",\"seq\":{}", subscription.next()));
    }
    if command != 0 {
        written = written.and(write!(out, ",\"id\":{command}"));
    }
    debug_assert!(written.is_ok(), "writing to a string");
    out.push_str(",\"msg\":");
}
