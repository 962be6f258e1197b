//! What a connection subscribes to: which command to send next. What the replies mean is in
//! `replies`.
//!
//! Without any I/O: it is given frames and the time, and gives commands. The time is that of the
//! reader, which stands still while the reader waits for its sink, so that our own slowness is never
//! taken for the exchange's silence.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::kalshi::limits::{Learned, Pace};
use crate::kalshi::markets::{Counts, Markets};
use crate::kalshi::sequence::Sequence;
use crate::kalshi::session::{Settings, Wants};
use crate::kalshi::wire::{Command, CommandBody, UpdateAction};
use crate::model::{Channel, Ticker};

/// Subscribing again after an error waits this long, doubling to the maximum; the first time not.
const RESUBSCRIBE_MIN: Duration = Duration::from_secs(1);
const RESUBSCRIBE_MAX: Duration = Duration::from_secs(60);
/// While frames of the subscription come, the exchange is merely slow: a command may then take this
/// many times the usual limit.
const SLOW_FACTOR: u32 = 3;
/// A subscription that was silent for this long is asked after.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// The ticker channel alone is never silent while the exchange is open: after this long it is
/// subscribed anew, whatever the exchange says of it.
pub(super) const TICKER_SILENCE_MAX: Duration = Duration::from_secs(300);
/// Commands of the audit that wait for their snapshots at a time.
const AUDITS_OUTSTANDING_MAX: usize = 2;

/// What a session keeps across its connections.
#[derive(Debug)]
pub struct Kept {
    pub markets: Markets,
    pub learned: Learned,
    /// When the next command of the audit is due.
    audit_at: Option<Instant>,
}

impl Kept {
    pub fn new(settings: &Settings) -> Self {
        Self {
            markets: Markets::new(
                settings.snapshot_timeout,
                settings.refused_retry,
                Instant::now(),
            ),
            learned: Learned::default(),
            audit_at: None,
        }
    }
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
    /// The subscription was silent to us while the exchange answers on this connection: what it
    /// should have said since its last frame is in doubt.
    Stalled { sid: i64 },
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
    /// The subscription is silent, and so is the exchange to a question about it.
    Silent { sid: i64 },
    /// The exchange merged a new subscription into one that it had ended itself.
    DeadSubscription { sid: i64 },
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unanswered { id } => write!(f, "command {id} was not answered"),
            Self::Silent { sid } => {
                write!(f, "subscription {sid} is silent, and the exchange does not answer")
            }
            Self::DeadSubscription { sid } => {
                write!(f, "subscription {sid} ended and the exchange gives no other")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Subscribe,
    Add,
    Delete,
    Snapshot,
    Audit,
    List,
    Unsubscribe,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub kind: Kind,
    /// The markets named, but for requests of snapshots, which are the batch.
    pub tickers: Vec<Ticker>,
    pub batch: u32,
    pub sent: Instant,
}

/// What is thought of a subscription that says nothing. Each step takes at most the time of a
/// command, so that a dead one is replaced, or its connection, within three of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// There is no reason for doubt.
    Fine,
    /// Something was due and no frame came: the exchange is to be asked what it knows, which also
    /// tells a dead subscription from a slow exchange.
    Ask,
    Asked,
    /// The exchange answers and the subscription does not: it is to be ended.
    End,
    Ending,
}

/// See the module.
#[derive(Debug)]
pub struct Subscriptions {
    pub(super) channel: Channel,
    pub(super) batch: usize,
    /// Less than `batch` while the cap on markets is being found.
    pub(super) add_batch: usize,
    outstanding_max: usize,
    pub(super) command_timeout: Duration,
    resync_interval: Duration,
    audit_period: Option<Duration>,
    pub(super) sequence: Sequence,
    pub(super) kept: Kept,
    pub(super) sid: Option<i64>,
    /// The sid that a terminal error ended last: the exchange must not merge into it.
    pub(super) dead: Option<i64>,
    last_id: u64,
    pub(super) outstanding: HashMap<u64, Outstanding>,
    /// Markets of a command that failed as a whole, in halves to find the one at fault.
    pub(super) suspects: Vec<Vec<Ticker>>,
    /// No command before this.
    pub(super) not_before: Instant,
    /// When to subscribe again, and how long to wait the next time.
    pub(super) subscribe_at: Instant,
    subscribe_wait: Duration,
    /// When the last round of snapshots of everything began, and when the next one is due.
    resynced_at: Option<Instant>,
    pub(super) resync_due: Option<Instant>,
    /// When the subscription's last frame came, or the subscription itself.
    pub(super) heard_at: Instant,
    /// When the exchange was last asked after it in vain: not at once again.
    pub(super) asked_after: Instant,
    pub(super) silence: Silence,
    /// Commands for snapshots sent, and markets named by those of the audit, for the metrics.
    snapshot_requests: u64,
    audits: u64,
}

impl Subscriptions {
    /// The subscriptions of a new connection.
    pub fn new(channel: Channel, settings: &Settings, mut kept: Kept, now: Instant) -> Self {
        kept.markets.lost();
        Self {
            channel,
            batch: settings.command_batch.max(1),
            add_batch: settings.command_batch.max(1),
            outstanding_max: settings.commands_outstanding_max.max(1),
            command_timeout: settings.command_timeout,
            resync_interval: settings.resync_interval,
            audit_period: settings.audit_period,
            sequence: Sequence::default(),
            kept,
            sid: None,
            dead: None,
            last_id: 0,
            outstanding: HashMap::new(),
            suspects: Vec::new(),
            not_before: now,
            subscribe_at: now,
            subscribe_wait: Duration::ZERO,
            resynced_at: None,
            resync_due: None,
            heard_at: now,
            asked_after: now,
            silence: Silence::Fine,
            snapshot_requests: 0,
            audits: 0,
        }
    }

    /// What the next connection begins with.
    pub fn into_kept(self) -> Kept {
        self.kept
    }

    /// Changes what is wanted. A global channel always wants everything.
    pub fn want(&mut self, wants: &Wants, now: Instant) {
        if let (Wants::Markets(wanted), Channel::OrderbookDelta) = (wants, self.channel) {
            self.kept.markets.want(wanted, now);
        }
    }

    /// A market's book is in doubt.
    pub fn doubt(&mut self, ticker: &Ticker) {
        self.kept.markets.doubt(ticker);
    }

    pub fn learned(&self) -> Learned {
        self.kept.learned
    }

    pub fn counts(&self) -> Counts {
        self.kept.markets.counts()
    }

    pub fn snapshot_requests(&self) -> u64 {
        self.snapshot_requests
    }

    pub fn audits(&self) -> u64 {
        self.audits
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
        self.kept.learned.calm(now);
        let limit = self.command_timeout;
        let silent = now >= self.heard_at + limit;
        for (id, command) in &self.outstanding {
            match command.kind {
                // Their markets ask again for themselves.
                Kind::Snapshot | Kind::Audit => {}
                Kind::List | Kind::Unsubscribe if now >= command.sent + limit => {
                    return Err(Broken::Silent { sid: self.sid.unwrap_or_default() });
                }
                Kind::List | Kind::Unsubscribe => {}
                Kind::Subscribe | Kind::Add | Kind::Delete => {
                    let slow = self.sid.is_some() && !silent;
                    let limit = if slow { limit * SLOW_FACTOR } else { limit };
                    if now >= command.sent + limit {
                        return Err(Broken::Unanswered { id: *id });
                    }
                }
            }
        }
        let overdue = self.kept.markets.expire(now);
        self.forget_answered();
        if self.sid.is_some() && self.silence == Silence::Fine {
            let global = self.channel != Channel::OrderbookDelta;
            let quiet = global && now >= self.heard_at.max(self.asked_after) + QUIET_MAX;
            // A request that brought nothing while other frames came is the market's matter.
            if quiet || (overdue > 0 && silent) {
                self.silence = Silence::Ask;
            }
        }
        if self.resync_due.is_some_and(|due| due <= now) {
            self.resync_all(now);
        }
        Ok(())
    }

    /// The next command to send, as JSON, when there is one and it may be sent now. It counts as
    /// sent.
    pub fn next_command(&mut self, now: Instant) -> Option<String> {
        if now < self.not_before {
            return None;
        }
        self.forget_answered();
        let (kind, batch, tickers) = match (self.sid, self.silence) {
            // These may go beyond the limit, which unanswered commands may have used up.
            (Some(_), Silence::Ask) => (Kind::List, 0, Vec::new()),
            (Some(_), Silence::End) => (Kind::Unsubscribe, 0, Vec::new()),
            _ if self.outstanding.len() >= self.outstanding_max => return None,
            (Some(_), Silence::Asked | Silence::Ending) => return None,
            (Some(_), Silence::Fine) => self.next_change(now)?,
            (None, _) => (Kind::Subscribe, 0, self.first_markets(now)?),
        };
        self.last_id += 1;
        self.not_before = now + self.kept.learned.spacing;
        match kind {
            Kind::List => self.silence = Silence::Asked,
            Kind::Unsubscribe => self.silence = Silence::Ending,
            Kind::Snapshot => self.snapshot_requests += 1,
            Kind::Audit => self.audits += u64::try_from(tickers.len()).unwrap_or_default(),
            Kind::Subscribe | Kind::Add | Kind::Delete => {}
        }
        let text = self.text(kind, &tickers)?;
        let tickers = if batch == 0 { tickers } else { Vec::new() };
        self.outstanding.insert(self.last_id, Outstanding { kind, tickers, batch, sent: now });
        Some(text)
    }

    fn text(&self, kind: Kind, tickers: &[Ticker]) -> Option<String> {
        let names: Vec<&str> = tickers.iter().map(Ticker::as_str).collect();
        let channels = [self.channel.name()];
        let sid = self.sid.unwrap_or_default();
        let sids = [sid];
        let update = |action| CommandBody::UpdateSubscription {
            sid,
            action,
            market_tickers: names.as_slice(),
        };
        let body = match kind {
            Kind::Add => update(UpdateAction::AddMarkets),
            Kind::Delete => update(UpdateAction::DeleteMarkets),
            Kind::Snapshot | Kind::Audit => update(UpdateAction::GetSnapshot),
            Kind::List => CommandBody::ListSubscriptions,
            Kind::Unsubscribe => CommandBody::Unsubscribe { sids: &sids },
            Kind::Subscribe => CommandBody::Subscribe {
                channels: &channels,
                market_tickers: &names,
                skip_ticker_ack: Some(true),
                // Never left to the exchange's default, which is announced to change.
                use_yes_price: (self.channel == Channel::OrderbookDelta).then_some(true),
                send_initial_snapshot: None,
            },
        };
        // Strings and numbers always serialise.
        serde_json::to_string(&Command { id: self.last_id, body }).ok()
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

    /// Deletes go first: they make room under the cap. The audit goes last.
    fn next_change(&mut self, now: Instant) -> Option<(Kind, u32, Vec<Ticker>)> {
        let deletes = self.kept.markets.take_deletes(self.batch);
        if !deletes.is_empty() {
            return Some((Kind::Delete, 0, deletes));
        }
        let adds = self.next_adds();
        if !adds.is_empty() {
            return Some((Kind::Add, 0, adds));
        }
        if let Some((batch, tickers)) = self.kept.markets.take_snapshots(self.batch, now) {
            return Some((Kind::Snapshot, batch, tickers));
        }
        let (batch, tickers) = self.next_audit(now)?;
        Some((Kind::Audit, batch, tickers))
    }

    fn next_adds(&mut self) -> Vec<Ticker> {
        if let Some(suspects) = self.suspects.pop() {
            return suspects;
        }
        let markets = &mut self.kept.markets;
        let cap = self.kept.learned.markets_max;
        let room = cap.map_or(usize::MAX, |cap| cap.saturating_sub(markets.held()));
        markets.take_adds(self.add_batch.min(room))
    }

    /// The audit asks for snapshots of what has a book, so that the book replayed behind the journal
    /// is compared with it: evenly over the period, and only while nothing else waits.
    fn next_audit(&mut self, now: Instant) -> Option<(u32, Vec<Ticker>)> {
        let audits = self.outstanding.values().filter(|command| command.kind == Kind::Audit);
        let audits = audits.count();
        if audits < self.outstanding.len() || audits >= AUDITS_OUTSTANDING_MAX {
            return None;
        }
        if let Some(period) = self.audit_period {
            let Pace { interval, batch } = Pace::of(period, self.kept.markets.len());
            let due = *self.kept.audit_at.get_or_insert(now + interval);
            if now >= due {
                // What a lost connection held up is not caught up with in one go.
                self.kept.audit_at = Some((due + interval).max(now));
                return self.kept.markets.take_audits(batch, now);
            }
        }
        // One book asks whether a quiet subscription is alive.
        if now >= self.heard_at.max(self.asked_after) + QUIET_MAX {
            self.asked_after = now;
            return self.kept.markets.take_audits(1, now);
        }
        None
    }

    /// Requests for snapshots end with the last snapshot, or when no more is awaited.
    fn forget_answered(&mut self) {
        let markets = &self.kept.markets;
        self.outstanding
            .retain(|_, command| command.batch == 0 || markets.is_awaited(command.batch));
    }

    /// At once the first time, then with growing distance: an exchange that ends a subscription
    /// because we read too slowly would only be asked to send everything again.
    pub(super) fn delay_subscribe(&mut self, now: Instant) {
        if now > self.subscribe_at + RESUBSCRIBE_MAX * 2 {
            self.subscribe_wait = Duration::ZERO;
        }
        self.subscribe_at = now + self.subscribe_wait;
        self.subscribe_wait = (self.subscribe_wait * 2).clamp(RESUBSCRIBE_MIN, RESUBSCRIBE_MAX);
    }

    /// Snapshots of everything, at most once an interval: a storm of gaps is one round of commands.
    pub(super) fn gap(&mut self, now: Instant) {
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
        self.kept.markets.doubt_all();
    }
}

#[cfg(test)]
#[path = "subscribe_tests.rs"]
mod tests;
