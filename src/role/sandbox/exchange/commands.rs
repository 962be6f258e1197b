//! The commands of a WebSocket client and the replies to them, as the exchange gives them: each
//! reply takes the next number of its subscription, except `subscribed`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::connection::{Filter, Subscription, slot};
use super::frames::{envelope, error_reply};
use super::market::{ConnectionId, MarketId};
use super::outbox::Opcode;
use super::venue::Venue;
use crate::model::Channel;

/// A refusal of a command.
struct Refusal {
    code: u8,
    ticker: Option<String>,
}

impl From<u8> for Refusal {
    fn from(code: u8) -> Self {
        Self { code, ticker: None }
    }
}

impl Venue {
    /// Carries out a command and queues the replies.
    pub fn command(&mut self, id: ConnectionId, text: &str) {
        self.happenings.commands += 1;
        let Some(key) = self.connection(id).map(|connection| connection.key) else { return };
        if self.pending.take_ignored(key) {
            return;
        }
        let Ok(Value::Object(command)) = serde_json::from_str::<Value>(text) else {
            return self.refuse(id, 0, None, &Refusal::from(1));
        };
        let number = command.get("id").and_then(Value::as_u64).unwrap_or(0);
        if self.is_too_fast(id) {
            return self.refuse(id, number, None, &Refusal::from(27));
        }
        let params = command.get("params").and_then(Value::as_object);
        if let Some(code) = self.pending.take_failure(key) {
            let about = params.and_then(|params| sids(params).ok()?.first().copied());
            let about = about.and_then(|sid| self.connection(id)?.channel_of(sid));
            return self.refuse(id, number, about, &Refusal::from(code));
        }
        match (command.get("cmd").and_then(Value::as_str), params) {
            (Some("list_subscriptions"), _) => self.list_subscriptions(id, number),
            (Some("subscribe"), Some(params)) => self.subscribe(id, number, params),
            (Some("unsubscribe"), Some(params)) => self.unsubscribe_sids(id, number, params),
            (Some("update_subscription"), Some(params)) => self.update(id, number, params),
            (Some("subscribe" | "unsubscribe" | "update_subscription"), None) => {
                self.refuse(id, number, None, &Refusal::from(2));
            }
            _ => self.refuse(id, number, None, &Refusal::from(5)),
        }
    }

    fn is_too_fast(&mut self, id: ConnectionId) -> bool {
        let limit = self.limits.commands_per_second;
        let Some(connection) = self.connection(id) else { return true };
        let now = Instant::now();
        if now.duration_since(connection.second) >= Duration::from_secs(1) {
            (connection.second, connection.commands) = (now, 0);
        }
        connection.commands = connection.commands.saturating_add(1);
        connection.commands > limit
    }

    fn reply(&mut self, id: ConnectionId, text: &str) {
        self.send(id, Opcode::Text, &[text.as_bytes()]);
    }

    /// Answers an error. One about a live subscription is scoped to it and takes its next number.
    fn refuse(&mut self, id: ConnectionId, number: u64, about: Option<Channel>, why: &Refusal) {
        let place = about.and_then(|channel| self.place(id, channel));
        let reply = error_reply(why.code, number, place, why.ticker.as_deref());
        self.reply(id, &reply);
    }

    /// The sid of a subscription with its next number.
    fn place(&mut self, id: ConnectionId, channel: Channel) -> Option<(i64, i64)> {
        let subscription = self.connection(id)?.subscription(channel)?;
        Some((subscription.sid, subscription.next()))
    }

    fn list_subscriptions(&mut self, id: ConnectionId, number: u64) {
        let Some(connection) = self.connection(id) else { return };
        let mut live = Vec::new();
        for channel in Channel::ALL {
            if let Some(subscription) = connection.subscription(channel) {
                live.push(json!({"channel": channel.name(), "sid": subscription.sid}));
            }
        }
        let reply = envelope("ok", number, None, Some(Value::Array(live)));
        self.reply(id, &reply);
    }

    fn subscribe(&mut self, id: ConnectionId, number: u64, params: &Map<String, Value>) {
        let names = match params.get("channels") {
            Some(Value::Array(names)) if !names.is_empty() => names,
            Some(Value::Array(_)) | None => return self.refuse(id, number, None, &3.into()),
            Some(_) => return self.refuse(id, number, None, &11.into()),
        };
        for name in names {
            let Some(channel) = name.as_str().and_then(Channel::from_name) else {
                self.refuse(id, number, None, &8.into());
                continue;
            };
            if let Err(why) = self.subscribe_one(id, number, channel, params) {
                let merging =
                    self.connection(id).is_some_and(|c| c.subscription(channel).is_some());
                self.refuse(id, number, merging.then_some(channel), &why);
            }
        }
    }

    fn subscribe_one(
        &mut self,
        id: ConnectionId,
        number: u64,
        channel: Channel,
        params: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        let takes_markets = takes_markets(channel);
        let named = if takes_markets { self.named_markets(params)? } else { None };
        let flags = Flags::read(params)?;
        if channel == Channel::OrderbookDelta && named.is_none() {
            return Err(14.into());
        }
        let limit = self.limits.markets_per_subscription;
        let Some(connection) = self.connection(id) else { return Ok(()) };
        let merging = connection.subscription(channel).is_some();
        let mut subscribed = None;
        if !merging {
            if named.as_ref().is_some_and(|markets| markets.len() > limit) {
                return Err(26.into());
            }
            connection.last_sid += 1;
            let sid = connection.last_sid;
            if let Some(place) = connection.subscriptions.get_mut(slot(channel)) {
                *place = Some(Subscription {
                    sid,
                    seq: 0,
                    filter: Filter::Markets(BTreeSet::new()),
                    yes_leg: false,
                    skip_ack: false,
                    dead: false,
                });
            }
            let msg = json!({"channel": channel.name(), "sid": sid});
            subscribed = Some(envelope("subscribed", number, None, Some(msg)));
        }
        let key = connection.key;
        let is_early = subscribed.is_some() && self.pending.take_early(key);
        if let Some(reply) = subscribed.take_if(|_| !is_early) {
            self.reply(id, &reply);
        }
        self.apply_flags(id, channel, &flags);
        let added = match named {
            None => {
                self.widen(id, channel);
                Vec::new()
            }
            Some(markets) => self.add(id, channel, &markets)?,
        };
        if merging {
            self.acknowledge(id, number, channel);
            // The exchange sends no snapshot to a subscription that merges.
            return Ok(());
        }
        self.send_initial(id, channel, &added, flags.send_initial_snapshot);
        if let Some(reply) = subscribed {
            self.reply(id, &reply);
        }
        Ok(())
    }

    fn apply_flags(&mut self, id: ConnectionId, channel: Channel, flags: &Flags) {
        let key = self.connection(id).map(|connection| connection.key);
        let ignoring = key.is_some_and(|key| self.pending.ignores_yes_price(key));
        if let Some(subscription) = self.connection(id).and_then(|c| c.subscription(channel)) {
            let asked = flags.use_yes_price.filter(|_| !ignoring);
            subscription.yes_leg = asked.unwrap_or(subscription.yes_leg);
            subscription.skip_ack = flags.skip_ticker_ack.unwrap_or(subscription.skip_ack);
        }
    }

    /// Makes a subscription one of all markets.
    fn widen(&mut self, id: ConnectionId, channel: Channel) {
        let Some(subscription) = self.connection(id).and_then(|c| c.subscription(channel)) else {
            return;
        };
        if let Filter::Markets(markets) = std::mem::replace(&mut subscription.filter, Filter::All) {
            for market in markets {
                self.unwatch(id, channel, Some(market));
            }
        }
        self.watch(id, channel, None);
    }

    /// Adds markets to a subscription and returns those that it did not have.
    fn add(
        &mut self,
        id: ConnectionId,
        channel: Channel,
        markets: &[MarketId],
    ) -> Result<Vec<MarketId>, Refusal> {
        let limit = self.limits.markets_per_subscription;
        let Some(subscription) = self.connection(id).and_then(|c| c.subscription(channel)) else {
            return Ok(Vec::new());
        };
        let Filter::Markets(has) = &mut subscription.filter else { return Ok(Vec::new()) };
        let mut added: Vec<_> = markets.iter().copied().filter(|id| !has.contains(id)).collect();
        added.sort_unstable();
        added.dedup();
        if has.len() + added.len() > limit {
            return Err(26.into());
        }
        has.extend(&added);
        for market in &added {
            self.watch(id, channel, Some(*market));
        }
        Ok(added)
    }

    fn send_initial(
        &mut self,
        id: ConnectionId,
        channel: Channel,
        added: &[MarketId],
        quotes: bool,
    ) {
        for market in added {
            match channel {
                Channel::OrderbookDelta => self.send_snapshot(id, *market, 0),
                Channel::Ticker if quotes => self.send_last_ticker(id, *market),
                _ => {}
            }
        }
    }

    /// Answers `ok` with all markets of the subscription, unless it asked to be spared that.
    fn acknowledge(&mut self, id: ConnectionId, number: u64, channel: Channel) {
        let Some(connection) = self.connection(id) else { return };
        let Some(subscription) = connection.subscription(channel) else { return };
        let place = Some((subscription.sid, subscription.next()));
        let ids: Vec<MarketId> = match &subscription.filter {
            Filter::Markets(markets) if !subscription.skip_ack => markets.iter().copied().collect(),
            _ => Vec::new(),
        };
        let listed = !ids.is_empty();
        let tickers: Vec<Value> = ids
            .into_iter()
            .filter_map(|id| Some(Value::from(self.catalog.market(id)?.ticker.as_str())))
            .collect();
        let msg = if listed { json!({"market_tickers": tickers}) } else { json!({}) };
        let reply = envelope("ok", number, place, Some(msg));
        self.reply(id, &reply);
    }

    fn unsubscribe_sids(&mut self, id: ConnectionId, number: u64, params: &Map<String, Value>) {
        let sids = match sids(params) {
            Ok(sids) if !sids.is_empty() => sids,
            Ok(_) => return self.refuse(id, number, None, &4.into()),
            Err(why) => return self.refuse(id, number, None, &why),
        };
        for sid in sids {
            let channel = self.connection(id).and_then(|connection| connection.channel_of(sid));
            let ended = channel.and_then(|channel| self.unsubscribe(id, channel));
            match ended {
                Some(mut subscription) => {
                    let place = Some((sid, subscription.next()));
                    let reply = envelope("unsubscribed", number, place, None);
                    self.reply(id, &reply);
                }
                None => self.refuse(id, number, None, &7.into()),
            }
        }
    }

    fn update(&mut self, id: ConnectionId, number: u64, params: &Map<String, Value>) {
        let sid = match sids(params) {
            Ok(sids) => match sids.as_slice() {
                [sid] => *sid,
                _ => return self.refuse(id, number, None, &12.into()),
            },
            Err(why) => return self.refuse(id, number, None, &why),
        };
        let Some(channel) = self.connection(id).and_then(|c| c.channel_of(sid)) else {
            return self.refuse(id, number, None, &7.into());
        };
        if self.connection(id).and_then(|c| c.subscription(channel)).is_some_and(|s| s.dead) {
            // Nobody is there to answer.
            return;
        }
        if let Err(why) = self.update_one(id, number, channel, params) {
            self.refuse(id, number, Some(channel), &why);
        }
    }

    fn update_one(
        &mut self,
        id: ConnectionId,
        number: u64,
        channel: Channel,
        params: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        let action = match params.get("action") {
            Some(Value::String(action)) if !action.is_empty() => action.as_str(),
            Some(Value::String(_)) | None => return Err(15.into()),
            Some(_) => return Err(11.into()),
        };
        let supported = match action {
            "add_markets" | "delete_markets" => takes_markets(channel),
            "get_snapshot" => channel == Channel::OrderbookDelta,
            _ => false,
        };
        if !supported {
            return Err(13.into());
        }
        if action == "get_snapshot" {
            return self.get_snapshot(id, number, params);
        }
        let flags = Flags::read(params)?;
        let markets = self.named_markets(params)?.ok_or(14)?;
        if action == "add_markets" {
            let added = self.add(id, channel, &markets)?;
            self.acknowledge(id, number, channel);
            self.send_initial(id, channel, &added, flags.send_initial_snapshot);
            return Ok(());
        }
        if let Some(subscription) = self.connection(id).and_then(|c| c.subscription(channel))
            && let Filter::Markets(has) = &mut subscription.filter
        {
            for market in &markets {
                has.remove(market);
            }
            for market in &markets {
                self.unwatch(id, channel, Some(*market));
            }
        }
        self.acknowledge(id, number, channel);
        Ok(())
    }

    /// Answers each market's book in sequence, under the command's id; a market that is not listed
    /// is an error of its own.
    fn get_snapshot(
        &mut self,
        id: ConnectionId,
        number: u64,
        params: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        let tickers = tickers(params)?.ok_or(14)?;
        for ticker in tickers {
            match self.catalog.find(ticker) {
                Some(market) => self.send_snapshot(id, market, number),
                None => {
                    let why = Refusal { code: 11, ticker: Some(ticker.to_owned()) };
                    self.refuse(id, number, Some(Channel::OrderbookDelta), &why);
                }
            }
        }
        Ok(())
    }

    /// The markets that the parameters name, or none when they name none at all. Tickers that are
    /// not listed are passed over: the codes that once refused them are retired.
    fn named_markets(&self, params: &Map<String, Value>) -> Result<Option<Vec<MarketId>>, Refusal> {
        let found = |tickers: Vec<&str>| {
            tickers.into_iter().filter_map(|ticker| self.catalog.find(ticker)).collect()
        };
        Ok(tickers(params)?.map(found))
    }
}

/// Whether a channel can be limited to markets.
const fn takes_markets(channel: Channel) -> bool {
    matches!(channel, Channel::OrderbookDelta | Channel::Trade | Channel::Ticker)
}

/// The optional flags of a command.
struct Flags {
    use_yes_price: Option<bool>,
    skip_ticker_ack: Option<bool>,
    send_initial_snapshot: bool,
}

impl Flags {
    fn read(params: &Map<String, Value>) -> Result<Self, Refusal> {
        let flag = |name: &str| match params.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(*on)),
            Some(_) => Err(Refusal::from(11)),
        };
        Ok(Self {
            use_yes_price: flag("use_yes_price")?,
            skip_ticker_ack: flag("skip_ticker_ack")?,
            send_initial_snapshot: flag("send_initial_snapshot")?.unwrap_or(false),
        })
    }
}

/// `market_ticker` or `market_tickers`; none when neither names anything.
fn tickers(params: &Map<String, Value>) -> Result<Option<Vec<&str>>, Refusal> {
    match (params.get("market_ticker"), params.get("market_tickers")) {
        (Some(_), Some(_)) => Err(11.into()),
        (Some(Value::String(ticker)), None) => Ok(Some(vec![ticker.as_str()])),
        (None, Some(Value::Array(tickers))) => {
            let tickers: Option<Vec<&str>> = tickers.iter().map(Value::as_str).collect();
            let tickers = tickers.ok_or(11)?;
            Ok((!tickers.is_empty()).then_some(tickers))
        }
        (None, None) => Ok(None),
        _ => Err(11.into()),
    }
}

/// `sid` or `sids`.
fn sids(params: &Map<String, Value>) -> Result<Vec<i64>, Refusal> {
    match (params.get("sid"), params.get("sids")) {
        (Some(sid), None) => Ok(vec![sid.as_i64().ok_or(11)?]),
        (None, Some(Value::Array(sids))) => {
            let sids: Option<Vec<i64>> = sids.iter().map(Value::as_i64).collect();
            Ok(sids.ok_or(11)?)
        }
        (None, None) => Ok(Vec::new()),
        _ => Err(11.into()),
    }
}
