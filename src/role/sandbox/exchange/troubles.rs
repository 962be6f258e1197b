//! What can be broken for one account while the others see everything: by the control plane, and by
//! the schedule of a run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::connection::{Filter, slot};
use super::hub::{Hold, Hub};
use super::inject::Injection;
use super::keys::Keys;
use super::market::ConnectionId;
use super::outbox::Opcode;
use super::venue::Venue;
use crate::model::Channel;

/// One thing that goes wrong for one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Sockets end without a word, and handshakes are refused (HTTP 503) for that long.
    Cut(Duration),
    /// Handshakes are refused with an HTTP status for that long; sockets that are open stay.
    Refuse(u16, Duration),
    /// A close frame with that code ends every socket.
    Close(u16),
    /// Sockets stay open and nothing is written for that long; it all comes afterwards.
    Stall(Duration),
    /// Sockets stay open and nothing is ever written again.
    HalfOpen,
    /// The next frames of a channel are left out; their numbers are used.
    Skip(Channel, u64),
    /// The next frames of a channel come twice with the same number.
    Repeat(Channel, u64),
    /// The numbers of a channel's subscriptions begin again at 1.
    Reset(Channel),
    /// Subscriptions of a channel end by an error without an id (10 or 25).
    Terminate(Channel, u8),
    /// Subscriptions of a channel say nothing any more while the socket lives. Commands about one
    /// that is `known` stay unanswered, apart from `unsubscribe`; else they get error 7.
    DeadSid { channel: Channel, known: bool },
    /// The next commands are not carried out and answered by an error code.
    FailCommands(u8, u64),
    /// The next commands are not carried out and not answered.
    IgnoreCommands(u64),
    /// The next subscriptions send data before they say `subscribed`.
    EarlyData(u64),
    /// Later subscriptions get no-leg prices whatever they ask for, until it is switched off.
    IgnoreYesPrice(bool),
    /// Frames that make no sense on the subscriptions of a channel: an unknown type, cut-off JSON,
    /// bytes that are no text, fields of the wrong types, a subscription that is over.
    Garbage(Channel),
    /// So many pings at once on every socket.
    PingFlood(u32),
    /// Every socket gets a frame that no client can take, and nothing after it.
    Mangle(Mangled),
}

/// How a frame is mangled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mangled {
    /// The connection ends in the middle of it.
    Torn,
    /// Bits of its head are flipped.
    Flipped,
    /// It announces more bytes than any client takes: 65 MiB.
    Oversize,
}

impl Mangled {
    /// The bytes on the wire (RFC 6455, section 5.2).
    fn bytes(self) -> Vec<u8> {
        let text = br#"{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"KX"#;
        let head: &[u8] = match self {
            // A text frame of 300 bytes, of which these are the first.
            Self::Torn => &[0x81, 126, 1, 44],
            // Reserved bits that no extension of ours gives a meaning.
            Self::Flipped => &[0xf1, 126, 1, 44],
            Self::Oversize => &[0x81, 127, 0, 0, 0, 0, 0x04, 0x10, 0, 0],
        };
        [head, text].concat()
    }
}

/// Misbehaviour that waits for its occasion, by account and, where it has one, channel.
#[derive(Debug, Default)]
pub(super) struct Pending {
    drops: BTreeMap<(usize, usize), u64>,
    repeats: BTreeMap<(usize, usize), u64>,
    failures: BTreeMap<usize, (u8, u64)>,
    ignored: BTreeMap<usize, u64>,
    early: BTreeMap<usize, u64>,
    no_leg: Keys,
}

/// Counts one down; an entry that is used up goes.
fn take<K: Ord>(left: &mut BTreeMap<K, u64>, key: K) -> bool {
    let Some(count) = left.get_mut(&key) else { return false };
    *count = count.saturating_sub(1);
    if *count == 0 {
        left.remove(&key);
    }
    true
}

fn put<K: Ord>(left: &mut BTreeMap<K, u64>, key: K, count: u64) {
    if count == 0 {
        left.remove(&key);
    } else {
        left.insert(key, count);
    }
}

impl Pending {
    /// Whether the next data frame is as it should be, whoever gets it: asked for every frame.
    pub fn is_idle(&self) -> bool {
        self.drops.is_empty() && self.repeats.is_empty()
    }

    pub fn take_drop(&mut self, key: usize, channel: Channel) -> bool {
        take(&mut self.drops, (key, slot(channel)))
    }

    pub fn take_repeat(&mut self, key: usize, channel: Channel) -> bool {
        take(&mut self.repeats, (key, slot(channel)))
    }

    pub fn take_early(&mut self, key: usize) -> bool {
        take(&mut self.early, key)
    }

    pub fn take_ignored(&mut self, key: usize) -> bool {
        take(&mut self.ignored, key)
    }

    /// The code by which the next command fails.
    pub fn take_failure(&mut self, key: usize) -> Option<u8> {
        let (code, left) = self.failures.get_mut(&key)?;
        let code = *code;
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.failures.remove(&key);
        }
        Some(code)
    }

    pub fn ignores_yes_price(&self, key: usize) -> bool {
        self.no_leg.contains(key)
    }

    /// Whether data is still to be left out for an account.
    pub fn is_dropping(&self, key: usize) -> bool {
        self.drops.keys().any(|(of, _)| *of == key)
    }
}

impl Venue {
    /// The live connections of an account.
    pub fn of_key(&self, key: usize) -> Vec<ConnectionId> {
        self.connections().filter(|(_, c)| c.key == key).map(|(id, _)| id).collect()
    }

    /// Makes trouble that needs nothing but the state, and returns how many connections it befell
    /// at once; none for what waits for its occasion.
    pub fn trouble(&mut self, key: usize, trouble: Trouble) -> usize {
        match trouble {
            Trouble::Skip(channel, frames) => {
                put(&mut self.pending.drops, (key, slot(channel)), frames);
            }
            Trouble::Repeat(channel, frames) => {
                put(&mut self.pending.repeats, (key, slot(channel)), frames);
            }
            Trouble::FailCommands(_, 0) => drop(self.pending.failures.remove(&key)),
            Trouble::FailCommands(code, commands) => {
                self.pending.failures.insert(key, (code, commands));
            }
            Trouble::IgnoreCommands(commands) => put(&mut self.pending.ignored, key, commands),
            Trouble::EarlyData(commands) => put(&mut self.pending.early, key, commands),
            Trouble::IgnoreYesPrice(on) => {
                let others = (0..super::keys::KEYS_MAX).filter(|other| *other != key);
                let mut keys: Keys =
                    others.filter(|other| self.pending.no_leg.contains(*other)).collect();
                if on {
                    keys.insert(key);
                }
                self.pending.no_leg = keys;
            }
            at_once => {
                let ids = self.of_key(key);
                return ids.into_iter().filter(|id| self.befall(*id, at_once)).count();
            }
        }
        0
    }

    /// Makes trouble on one connection, and returns whether there was anything to break.
    fn befall(&mut self, id: ConnectionId, trouble: Trouble) -> bool {
        match trouble {
            Trouble::Cut(_) => self.connection(id).is_some_and(|c| {
                c.silence();
                c.cut.cancel();
                true
            }),
            Trouble::HalfOpen => self.connection(id).is_some_and(|c| {
                c.silence();
                c.ghost.cancel();
                c.outbox.abandon();
                true
            }),
            Trouble::Close(code) => self.close(id, code),
            Trouble::Reset(channel) => {
                let subscription = self.connection(id).and_then(|c| c.subscription(channel));
                // From 1 on there is nothing to go back to: the next 1 would be a repetition.
                let numbered = subscription.filter(|subscription| subscription.seq > 1);
                numbered.is_some_and(|subscription| {
                    subscription.seq = 0;
                    true
                })
            }
            Trouble::Terminate(channel, code) => self.terminate(id, channel, code),
            Trouble::DeadSid { channel, known: false } => self.unsubscribe(id, channel).is_some(),
            Trouble::DeadSid { channel, known: true } => {
                let subscription = self.connection(id).and_then(|c| c.subscription(channel));
                subscription.is_some_and(|subscription| {
                    subscription.dead = true;
                    true
                })
            }
            Trouble::Garbage(channel) => self.send_garbage(id, channel),
            Trouble::Mangle(how) => self.connection(id).is_some_and(|c| {
                c.silence();
                c.outbox.push_encoded(&how.bytes());
                if how == Mangled::Torn {
                    c.outbox.close();
                }
                true
            }),
            Trouble::PingFlood(pings) => {
                for _ in 0..pings {
                    self.send(id, Opcode::Ping, &[b"heartbeat"]);
                }
                true
            }
            _ => false,
        }
    }

    /// Ends a connection with a close frame.
    fn close(&mut self, id: ConnectionId, code: u16) -> bool {
        self.send(id, Opcode::Close, &[&code.to_be_bytes(), b"told to"]);
        let connection = self.connection(id);
        connection.is_some_and(|connection| {
            connection.silence();
            connection.outbox.close();
            true
        })
    }

    fn send_garbage(&mut self, id: ConnectionId, channel: Channel) -> bool {
        let market = self.connection(id).and_then(|c| match &c.subscription(channel)?.filter {
            Filter::All => None,
            Filter::Markets(markets) => markets.first().copied(),
        });
        if self.connection(id).is_none_or(|c| c.subscription(channel).is_none()) {
            return false;
        }
        for injection in garbage(channel) {
            self.inject_into(id, channel, &injection);
        }
        // Something true on a subscription that is over.
        let over = self.connection(id).and_then(|c| c.ended.take());
        if let (Some((sid, seq)), Some(market)) = (over, market) {
            self.send_snapshot_as(id, market, sid, seq + 1);
        }
        true
    }
}

/// Frames that a client must survive. None of them states a fact.
fn garbage(channel: Channel) -> Vec<Injection> {
    let kind = match channel {
        Channel::OrderbookDelta => "orderbook_delta",
        other => other.name(),
    };
    let text = |raw: String| Injection::text(channel, raw);
    vec![
        text("{\"type\":\"surprise\",\"sid\":$SID,\"seq\":$SEQ,\"msg\":{\"new\":true}}".to_owned()),
        text(format!("{{\"type\":\"{kind}\",\"sid\":$SID,\"seq\":")),
        text(format!(
            "{{\"type\":\"{kind}\",\"sid\":$SID,\"seq\":$SEQ,\"msg\":{{\"market_ticker\":7,\
             \"price_dollars\":{{}},\"delta_fp\":[],\"side\":3,\"trade_id\":null}}}}"
        )),
        text("{\"type\":\"ok\",\"sid\":999999,\"seq\":5,\"msg\":{}}".to_owned()),
        text("[]".to_owned()),
        text(String::new()),
        Injection { base64: Some("ev/+gA==".to_owned()), ..text(String::new()) },
    ]
}

impl Hub {
    /// Makes trouble for an account, and returns how many connections it befell at once.
    pub fn trouble(&self, key: usize, trouble: Trouble) -> usize {
        if let Some(account) = self.accounts.get(key) {
            let until = |time: Duration| Instant::now().checked_add(time);
            match trouble {
                Trouble::Cut(time) => account.gate().refuse(503, until(time)),
                Trouble::Refuse(status, time) => account.gate().refuse(status, until(time)),
                Trouble::Stall(time) => self.hold(key, Hold::Everything, time),
                _ => {}
            }
        }
        self.with(|venue| venue.trouble(key, trouble))
    }
}
