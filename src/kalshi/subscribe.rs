//! What a connection subscribes to: which command to send next, and what each reply means.
//!
//! Without any I/O: it is given frames and the time, and gives commands. The time is that of the
//! reader, which stands still while the reader waits for its sink, so that our own slowness is never
//! taken for the exchange's silence.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::kalshi::markets::{Counts, Markets};
use crate::kalshi::sequence::{Sequence, Step};
use crate::kalshi::session::{Settings, Wants};
use crate::kalshi::wire::{
    Command, CommandBody, Envelope, ErrorMessage, Subscribed, UpdateAction, Whole,
};
use crate::model::{Channel, Ticker};

/// After error 27 commands keep at least this distance, doubling to the maximum.
const SPACING_MIN: Duration = Duration::from_millis(200);
const SPACING_MAX: Duration = Duration::from_secs(10);
/// After a command that failed for no reason we know.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// After a command that named a market which the exchange does not take: finding the others at
/// fault takes many commands, and must not look like a storm of them.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Subscribing again after an error waits this long, doubling to the maximum; the first time not.
const RESUBSCRIBE_MIN: Duration = Duration::from_secs(1);
const RESUBSCRIBE_MAX: Duration = Duration::from_secs(60);

/// What the exchange taught about its limits; a session keeps it across connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learned {
    /// The most markets of one subscription, once a single market too many was refused.
    pub markets_max: Option<usize>,
    /// The distance between commands, once there were too many.
    pub spacing: Duration,
}

/// What a frame meant, for the session to log and to pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Data, or a reply that needs nothing.
    Nothing,
    /// A copy of the frame before.
    Duplicate,
    /// The exchange confirmed the subscription.
    Subscribed { sid: i64 },
    /// The sequence has a hole or went back.
    Gap { sid: i64, expected: i64, got: i64 },
    /// The exchange confirmed that these markets are no longer part of the subscription.
    Removed { sid: i64, tickers: Vec<Ticker> },
    /// The subscription died; another one is made on this connection.
    Lost { sid: i64, code: i64, message: String },
    /// A command failed; what it was for is tried again in another way or later.
    Failed { code: i64, message: String },
}

/// Why the connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A command was not answered in time.
    Unanswered { id: u64 },
    /// The exchange merged a new subscription into one that it had ended itself.
    DeadSubscription { sid: i64 },
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unanswered { id } => write!(f, "command {id} was not answered"),
            Self::DeadSubscription { sid } => {
                write!(f, "subscription {sid} ended and the exchange gives no other")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Subscribe,
    Add,
    Delete,
    Snapshot,
}

#[derive(Debug)]
struct Outstanding {
    kind: Kind,
    tickers: Vec<Ticker>,
    deadline: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Subscriptions {
    channel: Channel,
    batch: usize,
    /// Less than `batch` while the cap on markets is being found.
    add_batch: usize,
    outstanding_max: usize,
    command_timeout: Duration,
    resync_interval: Duration,
    sequence: Sequence,
    markets: Markets,
    sid: Option<i64>,
    /// The sid that a terminal error ended last: the exchange must not merge into it.
    dead: Option<i64>,
    last_id: u64,
    outstanding: HashMap<u64, Outstanding>,
    /// Markets of a command that failed as a whole, in halves to find the one at fault.
    suspects: Vec<Vec<Ticker>>,
    learned: Learned,
    /// No command before this.
    not_before: Instant,
    /// When to subscribe again, and how long to wait the next time.
    subscribe_at: Instant,
    subscribe_wait: Duration,
    /// When the last round of snapshots of everything began, and when the next one is due.
    resynced_at: Option<Instant>,
    resync_due: Option<Instant>,
    /// Snapshots asked for, for the metrics.
    snapshot_requests: u64,
}

impl Subscriptions {
    /// The subscriptions of a new connection.
    pub fn new(channel: Channel, settings: &Settings, learned: Learned, now: Instant) -> Self {
        Self {
            channel,
            batch: settings.command_batch.max(1),
            add_batch: settings.command_batch.max(1),
            outstanding_max: settings.commands_outstanding_max.max(1),
            command_timeout: settings.command_timeout,
            resync_interval: settings.resync_interval,
            sequence: Sequence::default(),
            markets: Markets::new(settings.snapshot_timeout, settings.refused_retry),
            sid: None,
            dead: None,
            last_id: 0,
            outstanding: HashMap::new(),
            suspects: Vec::new(),
            learned,
            not_before: now,
            subscribe_at: now,
            subscribe_wait: Duration::ZERO,
            resynced_at: None,
            resync_due: None,
            snapshot_requests: 0,
        }
    }

    /// Changes what is wanted. A global channel always wants everything.
    pub fn want(&mut self, wants: &Wants) {
        if let (Wants::Markets(wanted), Channel::OrderbookDelta) = (wants, self.channel) {
            self.markets.want(wanted);
        }
    }

    /// A market's book is in doubt.
    pub fn doubt(&mut self, ticker: &Ticker) {
        self.markets.doubt(ticker);
    }

    pub fn learned(&self) -> Learned {
        self.learned
    }

    pub fn counts(&self) -> Counts {
        self.markets.counts()
    }

    pub fn snapshot_requests(&self) -> u64 {
        self.snapshot_requests
    }

    /// Whether there is a subscription. What it carries is in `counts`.
    pub fn is_subscribed(&self) -> bool {
        self.sid.is_some()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When the connection must be given up.
    pub fn tick(&mut self, now: Instant) -> Result<(), Broken> {
        let overdue = self.outstanding.iter().filter(|(_, command)| command.deadline <= now);
        let mut forgotten = Vec::new();
        for (id, command) in overdue {
            // A request for snapshots of markets that have none may well bring nothing; each market
            // asks again for itself. Anything else must be answered.
            if command.kind != Kind::Snapshot {
                return Err(Broken::Unanswered { id: *id });
            }
            forgotten.push(*id);
        }
        for id in forgotten {
            self.outstanding.remove(&id);
        }
        self.markets.expire(now);
        if self.resync_due.is_some_and(|due| due <= now) {
            self.resync_all(now);
        }
        Ok(())
    }

    /// The next command to send, as JSON, when there is one and it may be sent now. It counts as
    /// sent.
    pub fn next_command(&mut self, now: Instant) -> Option<String> {
        if now < self.not_before || self.outstanding.len() >= self.outstanding_max {
            return None;
        }
        let (kind, tickers) = match self.sid {
            None => (Kind::Subscribe, self.first_markets(now)?),
            Some(_) => self.next_change(now)?,
        };
        self.last_id += 1;
        self.not_before = now + self.learned.spacing;
        let names: Vec<&str> = tickers.iter().map(Ticker::as_str).collect();
        let channels = [self.channel.name()];
        let text = serde_json::to_string(&Command {
            id: self.last_id,
            body: match (kind, self.sid) {
                (Kind::Delete, Some(sid)) => update(sid, UpdateAction::DeleteMarkets, &names),
                (Kind::Add, Some(sid)) => update(sid, UpdateAction::AddMarkets, &names),
                (Kind::Snapshot, Some(sid)) => update(sid, UpdateAction::GetSnapshot, &names),
                (Kind::Subscribe, _) | (_, None) => CommandBody::Subscribe {
                    channels: &channels,
                    market_tickers: &names,
                    skip_ticker_ack: Some(true),
                    // Never left to the exchange's default, which is announced to change.
                    use_yes_price: (self.channel == Channel::OrderbookDelta).then_some(true),
                    send_initial_snapshot: None,
                },
            },
        })
        // Strings and numbers always serialise.
        .ok()?;
        if kind == Kind::Snapshot {
            self.snapshot_requests += 1;
        }
        let deadline = now + self.command_timeout;
        self.outstanding.insert(self.last_id, Outstanding { kind, tickers, deadline });
        Some(text)
    }

    /// The markets of the first subscribe: none on a global channel.
    fn first_markets(&mut self, now: Instant) -> Option<Vec<Ticker>> {
        let waiting = self.outstanding.values().any(|command| command.kind == Kind::Subscribe);
        if waiting || now < self.subscribe_at {
            return None;
        }
        if self.channel != Channel::OrderbookDelta {
            return Some(Vec::new());
        }
        let tickers = self.next_adds();
        (!tickers.is_empty()).then_some(tickers)
    }

    /// Deletes go first: they make room under the cap.
    fn next_change(&mut self, now: Instant) -> Option<(Kind, Vec<Ticker>)> {
        let deletes = self.markets.take_deletes(self.batch);
        if !deletes.is_empty() {
            return Some((Kind::Delete, deletes));
        }
        let adds = self.next_adds();
        if !adds.is_empty() {
            return Some((Kind::Add, adds));
        }
        let snapshots = self.markets.take_snapshots(self.batch, now);
        (!snapshots.is_empty()).then_some((Kind::Snapshot, snapshots))
    }

    fn next_adds(&mut self) -> Vec<Ticker> {
        if let Some(suspects) = self.suspects.pop() {
            return suspects;
        }
        let room = self
            .learned
            .markets_max
            .map_or(usize::MAX, |cap| cap.saturating_sub(self.markets.held()));
        self.markets.take_adds(self.add_batch.min(room))
    }

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
                self.snapshot(id, envelope.sid, text, now);
                Heard::Nothing
            }
            "subscribed" => self.subscribed(id, text, now),
            "ok" => self.ok(id, envelope.sid, now)?,
            "error" => self.error(id, envelope.sid, text, now),
            "unsubscribed" => match envelope.sid {
                Some(sid) if self.sid == Some(sid) => {
                    self.lost(sid, 0, "unsubscribed by the exchange", now)
                }
                _ => Heard::Nothing,
            },
            _ => Heard::Nothing,
        };
        Ok([heard, said])
    }

    fn snapshot(&mut self, id: Option<u64>, sid: Option<i64>, text: &str, now: Instant) {
        #[derive(serde::Deserialize)]
        struct Market<'a> {
            #[serde(borrow)]
            market_ticker: std::borrow::Cow<'a, str>,
        }
        // Before the confirmation of the first subscribe our sid is not known yet.
        let stale = sid.is_some() && (sid == self.dead || (self.sid.is_some() && sid != self.sid));
        if stale {
            return;
        }
        let Ok(Whole { msg }) = serde_json::from_str::<Whole<Market<'_>>>(text) else { return };
        self.markets.snapshot(&msg.market_ticker);
        let Some(id) = id else { return };
        let Some(command) = self.outstanding.get_mut(&id) else { return };
        // A snapshot is an answer; the command stays until all came, so that a large round holds
        // back the next one.
        command.deadline = now + self.command_timeout;
        if command.kind == Kind::Snapshot {
            command.tickers.retain(|ticker| ticker.as_str() != msg.market_ticker);
            if command.tickers.is_empty() {
                self.outstanding.remove(&id);
            }
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
        self.sid = Some(msg.sid);
        self.dead = None;
        for ticker in &command.tickers {
            self.markets.added(ticker, now);
        }
        Heard::Subscribed { sid: msg.sid }
    }

    fn ok(&mut self, id: Option<u64>, sid: Option<i64>, now: Instant) -> Result<Heard, Broken> {
        let Some(command) = id.and_then(|id| self.outstanding.remove(&id)) else {
            return Ok(Heard::Nothing);
        };
        match command.kind {
            Kind::Subscribe => {
                // Merged into a subscription that this connection has already. Whether that brings
                // snapshots is not known, so they are asked for.
                let Some(sid) = sid else { return Ok(Heard::Nothing) };
                if self.dead == Some(sid) {
                    return Err(Broken::DeadSubscription { sid });
                }
                self.sid = Some(sid);
                for ticker in &command.tickers {
                    self.markets.added(ticker, now);
                    self.markets.ask_now(ticker);
                }
                return Ok(Heard::Subscribed { sid });
            }
            Kind::Add => command.tickers.iter().for_each(|ticker| self.markets.added(ticker, now)),
            Kind::Delete => {
                command.tickers.iter().for_each(|ticker| self.markets.deleted(ticker));
                if let Some(sid) = self.sid {
                    return Ok(Heard::Removed { sid, tickers: command.tickers });
                }
            }
            Kind::Snapshot => {}
        }
        Ok(Heard::Nothing)
    }

    fn error(&mut self, id: Option<u64>, sid: Option<i64>, text: &str, now: Instant) -> Heard {
        let Ok(Whole { msg }) = serde_json::from_str::<Whole<ErrorMessage<'_>>>(text) else {
            return Heard::Nothing;
        };
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
        match msg.code {
            26 => self.too_many_markets(command),
            18 | 27 => self.too_many_commands(command, now),
            1 | 11 | 14 => self.refused(command, msg.market_ticker.as_deref(), now),
            _ if msg.market_ticker.is_some() => {
                self.refused(command, msg.market_ticker.as_deref(), now);
            }
            // Nothing about a market: the same again, with growing distance.
            _ => {
                if command.kind == Kind::Subscribe {
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
        self.sequence.forget(sid);
        self.outstanding.clear();
        self.suspects.clear();
        self.markets.lost();
        self.resync_due = None;
        self.delay_subscribe(now);
        Heard::Lost { sid, code, message: message.to_owned() }
    }

    /// At once the first time, then with growing distance: an exchange that ends a subscription
    /// because we read too slowly would only be asked to send everything again.
    fn delay_subscribe(&mut self, now: Instant) {
        if now > self.subscribe_at + RESUBSCRIBE_MAX * 2 {
            self.subscribe_wait = Duration::ZERO;
        }
        self.subscribe_at = now + self.subscribe_wait;
        self.subscribe_wait = (self.subscribe_wait * 2).clamp(RESUBSCRIBE_MIN, RESUBSCRIBE_MAX);
    }

    /// Finds the cap by halving what is added, until one market alone is too many.
    fn too_many_markets(&mut self, command: Outstanding) {
        let alone = command.tickers.len() <= 1;
        for ticker in &command.tickers {
            self.markets.add_later(ticker);
        }
        if alone {
            // Other commands may be on their way and fail too: each then lowers the cap again.
            self.learned.markets_max = Some(self.markets.held());
            self.add_batch = self.batch;
        } else {
            self.add_batch = command.tickers.len() / 2;
        }
    }

    fn too_many_commands(&mut self, command: Outstanding, now: Instant) {
        self.learned.spacing = (self.learned.spacing * 2).clamp(SPACING_MIN, SPACING_MAX);
        // The exchange's budget refills by the second; a second's pause is the least that helps.
        self.not_before = now + self.learned.spacing.max(Duration::from_secs(1));
        self.again(command);
    }

    fn again(&mut self, command: Outstanding) {
        for ticker in &command.tickers {
            match command.kind {
                Kind::Subscribe | Kind::Add => self.markets.add_later(ticker),
                Kind::Delete => self.markets.delete_later(ticker),
                Kind::Snapshot => self.markets.ask_now(ticker),
            }
        }
    }

    /// The exchange did not like the command: the market it names is at fault, or the halves tell.
    fn refused(&mut self, command: Outstanding, named: Option<&str>, now: Instant) {
        self.not_before = self.not_before.max(now + REFUSED_PAUSE);
        match command.kind {
            // What is not there needs no deleting.
            Kind::Delete => command.tickers.iter().for_each(|t| self.markets.deleted(t)),
            // Each market asks again for itself, with growing patience.
            Kind::Snapshot => {}
            Kind::Subscribe if command.tickers.is_empty() => self.delay_subscribe(now),
            Kind::Subscribe | Kind::Add => {
                let (mut tickers, blamed): (Vec<Ticker>, Vec<Ticker>) =
                    command.tickers.into_iter().partition(|t| Some(t.as_str()) != named);
                if let ([], [alone]) = (blamed.as_slice(), tickers.as_slice()) {
                    self.markets.refuse(alone, now);
                    return;
                }
                blamed.iter().for_each(|ticker| self.markets.refuse(ticker, now));
                if blamed.is_empty() {
                    let half = tickers.split_off(tickers.len() / 2);
                    self.suspects.push(half);
                }
                if !tickers.is_empty() {
                    self.suspects.push(tickers);
                }
            }
        }
    }

    /// Snapshots of everything, at most once an interval: a storm of gaps is one round of commands.
    fn gap(&mut self, now: Instant) {
        if self.resync_due.is_some() {
            return;
        }
        match self.resynced_at.map(|at| at + self.resync_interval) {
            Some(due) if due > now => self.resync_due = Some(due),
            _ => self.resync_all(now),
        }
    }

    fn resync_all(&mut self, now: Instant) {
        self.resync_due = None;
        self.resynced_at = Some(now);
        self.markets.doubt_all();
    }
}

fn update<'a>(sid: i64, action: UpdateAction, names: &'a [&'a str]) -> CommandBody<'a> {
    CommandBody::UpdateSubscription { sid, action, market_tickers: names }
}

#[cfg(test)]
#[path = "subscribe_tests.rs"]
mod tests;
