//! One WebSocket's subscriptions, as the exchange's state knows them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::market::MarketId;
use super::outbox::Outbox;
use crate::model::Channel;

/// The markets of a subscription.
#[derive(Debug)]
pub(super) enum Filter {
    All,
    Markets(BTreeSet<MarketId>),
}

impl Filter {
    /// How many markets are named.
    pub fn count(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Markets(markets) => markets.len(),
        }
    }
}

/// One subscription: the only one of its channel on its connection.
#[derive(Debug)]
pub(super) struct Subscription {
    pub sid: i64,
    /// The last number used; replies take numbers too.
    pub seq: i64,
    pub filter: Filter,
    pub yes_leg: bool,
    pub skip_ack: bool,
    /// It says nothing any more, and nothing about it is answered but its end.
    pub dead: bool,
}

impl Subscription {
    /// Takes the next number.
    pub fn next(&mut self) -> i64 {
        self.seq += 1;
        self.seq
    }
}

/// Where a channel's subscription is kept in a connection.
pub(super) const fn slot(channel: Channel) -> usize {
    match channel {
        Channel::OrderbookDelta => 0,
        Channel::Trade => 1,
        Channel::Ticker => 2,
        Channel::Lifecycle => 3,
        Channel::MultivariateLifecycle => 4,
    }
}

/// One WebSocket.
#[derive(Debug)]
pub(super) struct Connection {
    pub key: usize,
    pub outbox: Arc<Outbox>,
    /// Cancelled to drop the socket.
    pub cut: CancellationToken,
    /// Cancelled to fall silent for ever with the socket open, as a peer that vanished.
    pub ghost: CancellationToken,
    pub subscriptions: [Option<Subscription>; 5],
    /// The last order-book subscription that ended: its sid and number.
    pub ended: Option<(i64, i64)>,
    pub last_sid: i64,
    /// Commands in the second that began at `second`.
    pub commands: u32,
    pub second: Instant,
    /// Has frames that its writer was not told about yet.
    pub marked: bool,
    /// What its outbox had given out when that last grew, and when that was.
    pub drained: u64,
    pub drained_at: Instant,
}

impl Connection {
    pub fn subscription(&mut self, channel: Channel) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(slot(channel))?.as_mut()
    }

    /// Sends no data any more: the connection is ending.
    pub fn silence(&mut self) {
        for subscription in self.subscriptions.iter_mut().flatten() {
            subscription.dead = true;
        }
    }

    /// The channel of a sid.
    pub fn channel_of(&self, sid: i64) -> Option<Channel> {
        Channel::ALL.into_iter().find(|channel| {
            let subscription = self.subscriptions.get(slot(*channel)).and_then(Option::as_ref);
            subscription.is_some_and(|subscription| subscription.sid == sid)
        })
    }
}
