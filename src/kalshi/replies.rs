//! What each frame means for the subscriptions of a connection.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use crate::kalshi::sequence::Step;
use crate::kalshi::subscribe::{
    Broken, Heard, Kind, Outstanding, Silence, Subscriptions, TICKER_SILENCE_MAX,
};
use crate::kalshi::wire::{Envelope, ErrorMessage, Subscribed, Subscription, Whole};
use crate::model::{Channel, Ticker};

/// After a command that failed for no reason we know.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// After a command that named a market which the exchange does not take, or too many: finding those
/// at fault takes many commands, and must not look like a storm of them.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(50);

impl Subscriptions {
    /// Takes a frame. What its place in the sequence means comes first, then what it says.
    ///
    /// # Errors
    /// When the connection must be given up.
    pub fn frame(
        &mut self,
        envelope: &Envelope<'_>,
        text: &str,
        now: Instant,
    ) -> Result<[Heard; 2], Broken> {
        if envelope.sid.is_some() && envelope.sid == self.sid {
            self.heard_at = now;
            // It speaks; unless it is being ended already, that was all.
            if matches!(self.silence, Silence::Ask | Silence::Asked) {
                self.spoke();
            }
        }
        let mut heard = Heard::Nothing;
        if let (Some(sid), Some(seq)) = (envelope.sid, envelope.seq) {
            match self.sequence.step(sid, seq) {
                Step::First | Step::Next => {}
                Step::Duplicate => return Ok([Heard::Duplicate, Heard::Nothing]),
                Step::Gap { expected, got } | Step::Reset { expected, got } => {
                    heard = Heard::Gap { sid, expected, got };
                    if self.sid == Some(sid) {
                        self.gap(now);
                    }
                }
            }
        }
        let id = envelope.id.filter(|id| *id != 0);
        let said = match envelope.kind.as_ref() {
            "orderbook_snapshot" => {
                self.snapshot(envelope.sid, text, now);
                Heard::Nothing
            }
            "subscribed" => self.subscribed(id, text, now),
            "ok" => self.ok(id, envelope.sid, text, now)?,
            "error" => self.error(id, envelope.sid, text, now),
            "unsubscribed" => match envelope.sid {
                Some(sid) if self.sid == Some(sid) => self.lost(sid, 0, "unsubscribed", now),
                _ => Heard::Nothing,
            },
            _ => Heard::Nothing,
        };
        Ok([heard, said])
    }

    fn spoke(&mut self) {
        self.silence = Silence::Fine;
        self.outstanding.retain(|_, command| command.kind != Kind::List);
    }

    fn snapshot(&mut self, sid: Option<i64>, text: &str, now: Instant) {
        #[derive(serde::Deserialize)]
        struct Market<'a> {
            #[serde(borrow)]
            market_ticker: Cow<'a, str>,
        }
        // Before the confirmation of the first subscribe our sid is not known yet.
        let stale = sid.is_some() && (sid == self.dead || (self.sid.is_some() && sid != self.sid));
        if stale {
            return;
        }
        if let Ok(Whole { msg }) = serde_json::from_str::<Whole<Market<'_>>>(text) {
            self.kept.markets.snapshot(&msg.market_ticker, now);
        }
    }

    fn subscribed(&mut self, id: Option<u64>, text: &str, now: Instant) -> Heard {
        let Ok(Whole { msg }) = serde_json::from_str::<Whole<Subscribed<'_>>>(text) else {
            return Heard::Nothing;
        };
        if msg.channel != self.channel.name() {
            return Heard::Nothing;
        }
        let Some(command) = id.and_then(|id| self.outstanding.remove(&id)) else {
            return Heard::Nothing;
        };
        self.begins(msg.sid, now);
        self.kept.markets.added(&command.tickers, now);
        Heard::Subscribed { sid: msg.sid }
    }

    fn begins(&mut self, sid: i64, now: Instant) {
        self.sid = Some(sid);
        self.dead = None;
        self.silence = Silence::Fine;
        (self.heard_at, self.asked_after) = (now, now);
    }

    fn ok(
        &mut self,
        id: Option<u64>,
        sid: Option<i64>,
        text: &str,
        now: Instant,
    ) -> Result<Heard, Broken> {
        let command = match id.and_then(|id| self.outstanding.get(&id)) {
            // Should the exchange confirm a request for snapshots, it is answered by them alone.
            None | Some(Outstanding { kind: Kind::Snapshot | Kind::Audit, .. }) => {
                return Ok(Heard::Nothing);
            }
            Some(_) => id.and_then(|id| self.outstanding.remove(&id)),
        };
        let Some(command) = command else { return Ok(Heard::Nothing) };
        match command.kind {
            Kind::Subscribe => {
                // Merged into a subscription that this connection has already. Whether that brings
                // snapshots is not known, so they are asked for.
                let Some(sid) = sid else { return Ok(Heard::Nothing) };
                if self.dead == Some(sid) {
                    return Err(Broken::DeadSubscription { sid });
                }
                self.begins(sid, now);
                self.kept.markets.added(&command.tickers, now);
                command.tickers.iter().for_each(|ticker| self.kept.markets.ask_now(ticker));
                return Ok(Heard::Subscribed { sid });
            }
            Kind::Add => self.kept.markets.added(&command.tickers, now),
            Kind::Delete => {
                command.tickers.iter().for_each(|ticker| self.kept.markets.deleted(ticker));
                if let Some(sid) = self.sid {
                    return Ok(Heard::Removed { sid, tickers: command.tickers });
                }
            }
            Kind::List => return Ok(self.listed(text, now)),
            // Its answer is `unsubscribed`; this one says the same.
            Kind::Unsubscribe => {
                if let Some(sid) = self.sid {
                    return Ok(self.lost(sid, 0, "unsubscribed", now));
                }
            }
            Kind::Snapshot | Kind::Audit => {}
        }
        Ok(Heard::Nothing)
    }

    /// The exchange answers, so it is not slow: what it says of the silent subscription decides.
    fn listed(&mut self, text: &str, now: Instant) -> Heard {
        let Some(sid) = self.sid else { return Heard::Nothing };
        self.asked_after = now;
        // What cannot be read denies nothing.
        let list = serde_json::from_str::<Whole<Vec<Subscription>>>(text);
        let there = list.map_or(true, |Whole { msg }| msg.iter().any(|one| one.sid == sid));
        let end = match self.channel {
            // A request for a snapshot is answered in sequence, and was not.
            Channel::OrderbookDelta => true,
            Channel::Ticker => !there || now >= self.heard_at + TICKER_SILENCE_MAX,
            // Nothing may have happened.
            Channel::Trade | Channel::Lifecycle | Channel::MultivariateLifecycle => !there,
        };
        self.silence = if end { Silence::End } else { Silence::Fine };
        if end { Heard::Stalled { sid } } else { Heard::Nothing }
    }

    fn error(&mut self, id: Option<u64>, sid: Option<i64>, text: &str, now: Instant) -> Heard {
        let Ok(Whole { msg }) = serde_json::from_str::<Whole<ErrorMessage<'_>>>(text) else {
            return Heard::Nothing;
        };
        let named = msg.market_ticker.as_deref();
        let command = id.and_then(|id| self.outstanding.remove(&id));
        // 10 and 25 end a subscription and usually name no command; 7 says that it is gone.
        if matches!(msg.code, 7 | 10 | 25)
            && let Some(ours) = self.sid
            && sid.is_none_or(|sid| sid == ours)
        {
            return self.lost(ours, msg.code, &msg.msg, now);
        }
        let failed = Heard::Failed { code: msg.code, message: msg.msg.to_string() };
        let Some(command) = command else { return failed };
        match (command.kind, msg.code) {
            (_, 18 | 27) => {
                self.kept.learned.too_many_commands(now);
                // The exchange's budget refills by the second: no shorter pause helps.
                let pause = self.kept.learned.spacing.max(Duration::from_secs(1));
                self.not_before = now + pause;
                self.again(command);
            }
            (Kind::Snapshot | Kind::Audit, _) => match named.and_then(|t| Ticker::parse(t).ok()) {
                Some(ticker) => {
                    // The others of the command are still to come.
                    self.kept.markets.in_vain(&ticker, now);
                    if let Some(id) = id {
                        self.outstanding.insert(id, command);
                    }
                }
                None => {
                    self.not_before = self.not_before.max(now + REFUSED_PAUSE);
                    self.kept.markets.give_up(command.batch, now);
                }
            },
            (Kind::List, _) => return self.listed(text, now),
            (Kind::Unsubscribe, code) => match self.sid {
                Some(sid) => return self.lost(sid, code, &msg.msg, now),
                None => return failed,
            },
            (_, 26) => self.too_many_markets(command, now),
            (_, 1 | 11 | 14) => self.refused(command, named, now),
            _ if named.is_some() => self.refused(command, named, now),
            // Nothing about a market: the same again, with growing distance.
            (kind, _) => {
                if kind == Kind::Subscribe {
                    self.delay_subscribe(now);
                }
                self.not_before = self.not_before.max(now + FAILED_PAUSE);
                self.again(command);
            }
        }
        failed
    }

    /// The subscription is gone while the connection lives: everything is subscribed anew.
    fn lost(&mut self, sid: i64, code: i64, message: &str, now: Instant) -> Heard {
        self.sid = None;
        self.dead = Some(sid);
        self.silence = Silence::Fine;
        self.sequence.forget(sid);
        self.outstanding.clear();
        self.suspects.clear();
        self.kept.markets.lost();
        self.resync_due = None;
        self.delay_subscribe(now);
        Heard::Lost { sid, code, message: message.to_owned() }
    }

    /// Finds the cap by halving what is added, until one market alone is too many.
    fn too_many_markets(&mut self, command: Outstanding, now: Instant) {
        let alone = command.tickers.len() <= 1;
        for ticker in &command.tickers {
            self.kept.markets.add_later(ticker);
        }
        self.not_before = self.not_before.max(now + REFUSED_PAUSE);
        if alone {
            let held = self.kept.markets.held();
            self.kept.learned.too_many_markets(held);
            self.add_batch = self.batch;
            if held == 0 {
                self.delay_subscribe(now);
            }
        } else {
            self.add_batch = command.tickers.len() / 2;
        }
    }

    fn again(&mut self, command: Outstanding) {
        let Outstanding { kind, tickers, batch, .. } = command;
        let markets = &mut self.kept.markets;
        match kind {
            Kind::Subscribe | Kind::Add => tickers.iter().for_each(|t| markets.add_later(t)),
            Kind::Delete => tickers.iter().for_each(|t| markets.delete_later(t)),
            Kind::Snapshot | Kind::Audit => markets.ask_again(batch),
            Kind::List => self.silence = Silence::Ask,
            Kind::Unsubscribe => self.silence = Silence::End,
        }
    }

    /// The exchange did not like the command: the market it names is at fault, or the halves tell.
    fn refused(&mut self, command: Outstanding, named: Option<&str>, now: Instant) {
        self.not_before = self.not_before.max(now + REFUSED_PAUSE);
        let markets = &mut self.kept.markets;
        match command.kind {
            // What is not there needs no deleting.
            Kind::Delete => command.tickers.iter().for_each(|t| markets.deleted(t)),
            Kind::Subscribe if command.tickers.is_empty() => self.delay_subscribe(now),
            Kind::Subscribe | Kind::Add => {
                let (mut tickers, blamed): (Vec<Ticker>, Vec<Ticker>) =
                    command.tickers.into_iter().partition(|t| Some(t.as_str()) != named);
                if let ([], [alone]) = (blamed.as_slice(), tickers.as_slice()) {
                    markets.refuse(alone, now);
                    return;
                }
                blamed.iter().for_each(|ticker| markets.refuse(ticker, now));
                if blamed.is_empty() {
                    let half = tickers.split_off(tickers.len() / 2);
                    self.suspects.push(half);
                }
                if !tickers.is_empty() {
                    self.suspects.push(tickers);
                }
            }
            // Answered before it comes here.
            Kind::Snapshot | Kind::Audit | Kind::List | Kind::Unsubscribe => {}
        }
    }
}
