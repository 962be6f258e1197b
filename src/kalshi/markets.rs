//! The markets of one order-book session: which are wanted, which the exchange confirmed, which of
//! their books rest on a snapshot, and when each was last compared with one.
//!
//! It outlives connections, so that a reconnect forgets neither the plan nor the audit. Every change
//! costs in proportion to itself, not to the number of markets: queues hold what is to be done, and
//! an entry that no longer applies is skipped when its turn comes. A market takes 32 bytes here
//! beside its name, which it shares with the plan and the registry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Ticker;

/// The longest wait between two requests for a snapshot that never comes.
const SNAPSHOT_RETRY_MAX: Duration = Duration::from_secs(600);
/// After as many requests in vain a market is deleted and added again, which brings a snapshot too.
const ADD_AGAIN_AFTER: u8 = 3;

/// Where a market stands with the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Absent,
    Adding,
    Present,
    Deleting,
    /// The exchange does not take it; tried again later.
    Refused,
}

#[derive(Debug)]
struct Market {
    /// When its last snapshot came, before the first one when it was first wanted: in tenths of a
    /// second since the session began.
    compared: u32,
    /// The batch in which it waits for a snapshot; 0 for none.
    batch: u32,
    /// Snapshots asked for in vain, one after another.
    attempts: u8,
    stage: Stage,
    desired: bool,
    /// Whether a snapshot came since the last reason for doubt.
    book: bool,
    queued_add: bool,
    queued_delete: bool,
    queued_snapshot: bool,
    /// It is deleted only to be added again.
    again: bool,
}

/// Markets whose snapshots were asked for together, by adding them or by name.
#[derive(Debug)]
struct Batch {
    /// Moves with each snapshot of the batch: a slow exchange is not asked twice.
    deadline: Instant,
    tickers: Vec<Ticker>,
    /// How many of them still wait in this batch.
    left: usize,
}

/// How many markets stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub wanted: usize,
    /// Wanted and confirmed by the exchange.
    pub subscribed: usize,
    /// Wanted, confirmed, and with a snapshot that still stands.
    pub with_book: usize,
    /// Wanted and refused by the exchange.
    pub refused: usize,
    /// When the market was last compared that waits longest for it, after the session's beginning.
    /// Markets that the exchange refuses do not count.
    pub oldest: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub struct Markets {
    snapshot_timeout: Duration,
    refused_retry: Duration,
    start: Instant,
    wanted: Arc<BTreeSet<Ticker>>,
    markets: HashMap<Ticker, Market>,
    to_add: VecDeque<Ticker>,
    to_delete: VecDeque<Ticker>,
    to_snapshot: VecDeque<Ticker>,
    batches: BTreeMap<u32, Batch>,
    last_batch: u32,
    /// When to ask again for snapshots that were asked for in vain.
    patient: BinaryHeap<Reverse<(Instant, Ticker)>>,
    /// When to try again what the exchange refused. In order, because the wait is always the same.
    refused: VecDeque<(Instant, Ticker)>,
    /// Markets that the exchange counts for this subscription, or soon will.
    held: usize,
}

impl Markets {
    pub fn new(snapshot_timeout: Duration, refused_retry: Duration, now: Instant) -> Self {
        Self {
            snapshot_timeout,
            refused_retry,
            start: now,
            wanted: Arc::default(),
            markets: HashMap::new(),
            to_add: VecDeque::new(),
            to_delete: VecDeque::new(),
            to_snapshot: VecDeque::new(),
            batches: BTreeMap::new(),
            last_batch: 0,
            patient: BinaryHeap::new(),
            refused: VecDeque::new(),
            held: 0,
        }
    }

    /// Makes `wanted` the set of markets to have. One pass over both sets, in which most names are
    /// equal: a plan changes a few of thousands.
    pub fn want(&mut self, wanted: &Arc<BTreeSet<Ticker>>, now: Instant) {
        if Arc::ptr_eq(wanted, &self.wanted) {
            return;
        }
        let before = std::mem::replace(&mut self.wanted, Arc::clone(wanted));
        for ticker in before.difference(wanted) {
            let Some(market) = self.markets.get_mut(ticker) else { continue };
            market.desired = false;
            match market.stage {
                Stage::Absent | Stage::Refused => self.remove(ticker),
                Stage::Present => queue(&mut market.queued_delete, &mut self.to_delete, ticker),
                Stage::Adding | Stage::Deleting => {}
            }
        }
        let compared = tenths(self.start, now);
        for ticker in wanted.difference(&before) {
            let market = self.markets.entry(ticker.clone()).or_insert(Market {
                compared,
                batch: 0,
                attempts: 0,
                stage: Stage::Absent,
                desired: false,
                book: false,
                queued_add: false,
                queued_delete: false,
                queued_snapshot: false,
                again: false,
            });
            market.desired = true;
            if market.stage == Stage::Absent {
                queue(&mut market.queued_add, &mut self.to_add, ticker);
            }
        }
    }

    /// Markets wanted.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Takes up to `max` markets to be added now.
    pub fn take_adds(&mut self, max: usize) -> Vec<Ticker> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(ticker) = pop(&mut self.to_add)
        {
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            market.queued_add = false;
            if market.desired && market.stage == Stage::Absent {
                market.stage = Stage::Adding;
                market.book = false;
                taken.push(ticker);
            }
        }
        self.held += taken.len();
        taken
    }

    /// Takes up to `max` markets to be deleted now.
    pub fn take_deletes(&mut self, max: usize) -> Vec<Ticker> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(ticker) = pop(&mut self.to_delete)
        {
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            market.queued_delete = false;
            let again = std::mem::take(&mut market.again) && !market.book;
            if (!market.desired || again) && market.stage == Stage::Present {
                market.stage = Stage::Deleting;
                taken.push(ticker);
            }
        }
        taken
    }

    /// Takes up to `max` markets whose snapshot is to be asked for now, and the batch that they are.
    pub fn take_snapshots(&mut self, max: usize, now: Instant) -> Option<(u32, Vec<Ticker>)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(ticker) = pop(&mut self.to_snapshot)
        {
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            market.queued_snapshot = false;
            let needed = !market.book || market.attempts > 0;
            if market.desired && market.stage == Stage::Present && market.batch == 0 && needed {
                taken.push(ticker);
            }
        }
        self.await_snapshots(taken, now)
    }

    /// Takes up to `max` markets to be compared now: those with a book whose last comparison is the
    /// longest ago. Looks at every market, so it is for every few seconds.
    pub fn take_audits(&mut self, max: usize, now: Instant) -> Option<(u32, Vec<Ticker>)> {
        let mut oldest = BinaryHeap::with_capacity(max.saturating_add(1));
        for (ticker, market) in &self.markets {
            let ready = market.desired && market.book && market.stage == Stage::Present;
            if !ready || market.batch != 0 || market.attempts > 0 || market.queued_snapshot {
                continue;
            }
            oldest.push((market.compared, ticker));
            if oldest.len() > max {
                oldest.pop();
            }
        }
        let taken = oldest.into_sorted_vec().into_iter().map(|(_, ticker)| ticker.clone());
        let taken = taken.collect();
        self.await_snapshots(taken, now)
    }

    /// The exchange confirmed that it added these markets, which brings their snapshots.
    pub fn added(&mut self, tickers: &[Ticker], now: Instant) {
        let mut awaited = Vec::new();
        for ticker in tickers {
            let Some(market) = self.markets.get_mut(ticker) else { continue };
            if market.stage != Stage::Adding {
                continue;
            }
            market.stage = Stage::Present;
            if !market.desired {
                queue(&mut market.queued_delete, &mut self.to_delete, ticker);
            } else if !market.book {
                // The snapshot may have come before the confirmation; then nothing is awaited.
                awaited.push(ticker.clone());
            }
        }
        // The batch is only for the clock here; no command waits for it.
        let _batch = self.await_snapshots(awaited, now);
    }

    /// The market could not be added now; it goes to the end of the queue.
    pub fn add_later(&mut self, ticker: &Ticker) {
        if self.not_added(ticker, Stage::Absent)
            && let Some(market) = self.markets.get_mut(ticker)
        {
            queue(&mut market.queued_add, &mut self.to_add, ticker);
        }
    }

    /// The exchange refused the market.
    pub fn refuse(&mut self, ticker: &Ticker, now: Instant) {
        if self.not_added(ticker, Stage::Refused) {
            self.refused.push_back((now + self.refused_retry, ticker.clone()));
        }
    }

    /// A market that was being added is not. Whether it is still wanted; else it is forgotten.
    fn not_added(&mut self, ticker: &Ticker, stage: Stage) -> bool {
        let Some(market) = self.markets.get_mut(ticker) else { return false };
        if market.stage != Stage::Adding {
            return false;
        }
        self.held = self.held.saturating_sub(1);
        market.stage = stage;
        let desired = market.desired;
        if !desired {
            self.remove(ticker);
        }
        desired
    }

    /// The exchange confirmed that it deleted the market (or never had it).
    pub fn deleted(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage != Stage::Deleting {
            return;
        }
        self.held = self.held.saturating_sub(1);
        if market.desired {
            // Wanted again meanwhile, or deleted to be added again.
            market.stage = Stage::Absent;
            market.book = false;
            queue(&mut market.queued_add, &mut self.to_add, ticker);
            self.leave_batch(ticker.as_str());
        } else {
            self.remove(ticker);
        }
    }

    /// Deleting did not happen now; it is tried again.
    pub fn delete_later(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage == Stage::Deleting {
            market.stage = Stage::Present;
            if market.desired {
                queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
            } else {
                queue(&mut market.queued_delete, &mut self.to_delete, ticker);
            }
        }
    }

    /// A snapshot of the market arrived.
    pub fn snapshot(&mut self, ticker: &str, now: Instant) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        (market.book, market.attempts) = (true, 0);
        market.compared = tenths(self.start, now);
        if let Some(batch) = self.batches.get_mut(&market.batch) {
            batch.deadline = now + self.snapshot_timeout;
        }
        self.leave_batch(ticker);
    }

    /// The market's book is in doubt: a snapshot is asked for, unless one is on its way.
    pub fn doubt(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        market.book = false;
        if market.stage == Stage::Present && market.batch == 0 {
            queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
        }
    }

    /// Every book is in doubt. A snapshot that is on its way will arrive behind the gap and heal its
    /// market, so those are not asked for twice.
    pub fn doubt_all(&mut self) {
        for (ticker, market) in &mut self.markets {
            market.book = false;
            if market.stage == Stage::Present && market.batch == 0 {
                queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
            }
        }
    }

    /// The subscription brought no snapshot with this market, and will not: ask now.
    pub fn ask_now(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.book || market.stage != Stage::Present {
            return;
        }
        queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
        self.leave_batch(ticker.as_str());
    }

    /// The subscription is gone: everything wanted is to be added anew. What was asked for in vain
    /// before is not punished for it, and no snapshot is asked for beside those of the new one.
    pub fn lost(&mut self) {
        self.to_delete = VecDeque::new();
        self.to_snapshot = VecDeque::new();
        self.batches.clear();
        self.patient.clear();
        self.held = 0;
        self.markets.retain(|_, market| market.desired);
        for (ticker, market) in &mut self.markets {
            (market.queued_delete, market.queued_snapshot, market.again) = (false, false, false);
            (market.book, market.batch, market.attempts) = (false, 0, 0);
            if market.stage != Stage::Refused {
                market.stage = Stage::Absent;
                queue(&mut market.queued_add, &mut self.to_add, ticker);
            }
        }
    }

    /// Queues again what waited long enough. Returns how many snapshots had not come.
    pub fn expire(&mut self, now: Instant) -> usize {
        let late = self.batches.iter().filter(|(_, batch)| batch.deadline <= now);
        let late: Vec<u32> = late.map(|(id, _)| *id).collect();
        let mut overdue = 0;
        for id in late {
            overdue += self.give_up(id, now);
        }
        while let Some(Reverse((at, _))) = self.patient.peek()
            && *at <= now
        {
            let Some(Reverse((_, ticker))) = self.patient.pop() else { break };
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            if market.attempts > 0 && market.batch == 0 {
                queue(&mut market.queued_snapshot, &mut self.to_snapshot, &ticker);
            }
        }
        while let Some((at, _)) = self.refused.front()
            && *at <= now
        {
            let Some((_, ticker)) = self.refused.pop_front() else { break };
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            if market.stage == Stage::Refused {
                market.stage = Stage::Absent;
                queue(&mut market.queued_add, &mut self.to_add, &ticker);
            }
        }
        overdue
    }

    /// What is left of a batch will not come: each of its markets asks again for itself, with
    /// growing patience. Returns how many those are.
    pub fn give_up(&mut self, batch: u32, now: Instant) -> usize {
        let Some(Batch { tickers, .. }) = self.batches.remove(&batch) else { return 0 };
        let waits = |ticker: &&Ticker| {
            self.markets.get(*ticker).is_some_and(|market| market.batch == batch)
        };
        let waiting: Vec<Ticker> = tickers.iter().filter(waits).cloned().collect();
        waiting.iter().for_each(|ticker| self.in_vain(ticker, now));
        waiting.len()
    }

    /// The snapshot of one market will not come.
    pub fn in_vain(&mut self, ticker: &Ticker, now: Instant) {
        self.leave_batch(ticker.as_str());
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage != Stage::Present || !market.desired {
            return;
        }
        market.attempts = market.attempts.saturating_add(1);
        if market.attempts.is_multiple_of(ADD_AGAIN_AFTER) && !market.book {
            market.again = true;
            queue(&mut market.queued_delete, &mut self.to_delete, ticker);
            return;
        }
        let factor = 2_u32.saturating_pow(u32::from(market.attempts) - 1) - 1;
        if factor == 0 {
            queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
        } else {
            let wait = self.snapshot_timeout.saturating_mul(factor).min(SNAPSHOT_RETRY_MAX);
            self.patient.push(Reverse((now + wait, ticker.clone())));
        }
    }

    /// Whether any market of a batch still waits.
    pub fn is_awaited(&self, batch: u32) -> bool {
        self.batches.contains_key(&batch)
    }

    /// Markets that the exchange counts for this subscription, or soon will.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Counts all markets, which looks at each: for reports, not for every frame.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let mut oldest = None;
        for market in self.markets.values().filter(|market| market.desired) {
            counts.wanted += 1;
            match market.stage {
                Stage::Present => {
                    counts.subscribed += 1;
                    counts.with_book += usize::from(market.book);
                }
                Stage::Refused => counts.refused += 1,
                Stage::Absent | Stage::Adding | Stage::Deleting => {}
            }
            if market.stage != Stage::Refused {
                oldest = Some(oldest.map_or(market.compared, |at: u32| at.min(market.compared)));
            }
        }
        counts.oldest = oldest.map(|tenths| Duration::from_millis(u64::from(tenths) * 100));
        counts
    }

    /// The exchange did not take the request of a batch: the same again, which is not the markets'
    /// fault.
    pub fn ask_again(&mut self, batch: u32) {
        let Some(Batch { tickers, .. }) = self.batches.remove(&batch) else { return };
        for ticker in &tickers {
            let Some(market) = self.markets.get_mut(ticker) else { continue };
            if market.batch == batch {
                market.batch = 0;
                queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
            }
        }
    }

    fn await_snapshots(
        &mut self,
        tickers: Vec<Ticker>,
        now: Instant,
    ) -> Option<(u32, Vec<Ticker>)> {
        if tickers.is_empty() {
            return None;
        }
        // Zero means none, also after four thousand million batches.
        self.last_batch = self.last_batch.wrapping_add(1).max(1);
        let id = self.last_batch;
        for ticker in &tickers {
            if let Some(market) = self.markets.get_mut(ticker) {
                market.batch = id;
            }
        }
        let (deadline, left) = (now + self.snapshot_timeout, tickers.len());
        self.batches.insert(id, Batch { deadline, tickers: tickers.clone(), left });
        Some((id, tickers))
    }

    fn leave_batch(&mut self, ticker: &str) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        let id = std::mem::take(&mut market.batch);
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.left = batch.left.saturating_sub(1);
            if batch.left == 0 {
                self.batches.remove(&id);
            }
        }
    }

    fn remove(&mut self, ticker: &Ticker) {
        self.leave_batch(ticker.as_str());
        self.markets.remove(ticker);
    }
}

/// Tenths of a second from one time to another; thirteen years fit.
fn tenths(start: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(start).as_millis() / 100).unwrap_or(u32::MAX)
}

/// Queues a market unless it is queued already.
fn queue(queued: &mut bool, queue: &mut VecDeque<Ticker>, ticker: &Ticker) {
    if !*queued {
        *queued = true;
        queue.push_back(ticker.clone());
    }
}

/// The next of a queue. Its memory goes with the last one: it was as large as the whole plan once.
fn pop(queue: &mut VecDeque<Ticker>) -> Option<Ticker> {
    let next = queue.pop_front();
    if next.is_none() {
        *queue = VecDeque::new();
    }
    next
}

#[cfg(test)]
#[path = "markets_tests.rs"]
mod tests;
