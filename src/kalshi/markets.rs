//! The markets of one order-book subscription: which are wanted, which the exchange confirmed, and
//! which of their books rest on a snapshot.
//!
//! Every change costs in proportion to itself, not to the number of markets: queues hold what is to
//! be done, and an entry that no longer applies is skipped when its turn comes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Ticker;

/// The longest wait between two requests for a snapshot that never comes.
const SNAPSHOT_RETRY_MAX: Duration = Duration::from_secs(600);

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
    desired: bool,
    stage: Stage,
    /// Whether a snapshot came since the last reason for doubt.
    book: bool,
    /// When a snapshot was asked for (by adding the market, or by name) that has not come yet.
    asked: Option<Instant>,
    /// Snapshots asked for in vain, one after another.
    attempts: u32,
    queued_add: bool,
    queued_delete: bool,
    queued_snapshot: bool,
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
}

/// See the module.
#[derive(Debug)]
pub struct Markets {
    snapshot_timeout: Duration,
    refused_retry: Duration,
    markets: HashMap<Ticker, Market>,
    to_add: VecDeque<Ticker>,
    to_delete: VecDeque<Ticker>,
    to_snapshot: VecDeque<Ticker>,
    /// When to ask again for a snapshot that did not come: (deadline, when it was asked, market).
    awaited: BinaryHeap<Reverse<(Instant, Instant, Ticker)>>,
    /// When to try again what the exchange refused. In order, because the wait is always the same.
    refused: VecDeque<(Instant, Ticker)>,
    /// Markets that the exchange counts for this subscription, or soon will.
    held: usize,
}

impl Markets {
    pub fn new(snapshot_timeout: Duration, refused_retry: Duration) -> Self {
        Self {
            snapshot_timeout,
            refused_retry,
            markets: HashMap::new(),
            to_add: VecDeque::new(),
            to_delete: VecDeque::new(),
            to_snapshot: VecDeque::new(),
            awaited: BinaryHeap::new(),
            refused: VecDeque::new(),
            held: 0,
        }
    }

    /// Makes `wanted` the set of markets to have.
    pub fn want(&mut self, wanted: &BTreeSet<Ticker>) {
        let dropped: Vec<Ticker> = self
            .markets
            .iter()
            .filter(|(ticker, market)| market.desired && !wanted.contains(*ticker))
            .map(|(ticker, _)| ticker.clone())
            .collect();
        for ticker in dropped {
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            market.desired = false;
            match market.stage {
                Stage::Absent | Stage::Refused => {
                    self.markets.remove(&ticker);
                }
                Stage::Present => queue(&mut market.queued_delete, &mut self.to_delete, &ticker),
                Stage::Adding | Stage::Deleting => {}
            }
        }
        for ticker in wanted {
            let market = self.markets.entry(ticker.clone()).or_insert(Market {
                desired: false,
                stage: Stage::Absent,
                book: false,
                asked: None,
                attempts: 0,
                queued_add: false,
                queued_delete: false,
                queued_snapshot: false,
            });
            if !market.desired {
                market.desired = true;
                if market.stage == Stage::Absent {
                    queue(&mut market.queued_add, &mut self.to_add, ticker);
                }
            }
        }
    }

    /// Takes up to `max` markets to be added now.
    pub fn take_adds(&mut self, max: usize) -> Vec<Ticker> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(ticker) = self.to_add.pop_front()
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
            && let Some(ticker) = self.to_delete.pop_front()
        {
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            market.queued_delete = false;
            if !market.desired && market.stage == Stage::Present {
                market.stage = Stage::Deleting;
                taken.push(ticker);
            }
        }
        taken
    }

    /// Takes up to `max` markets whose snapshot is to be asked for now.
    pub fn take_snapshots(&mut self, max: usize, now: Instant) -> Vec<Ticker> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(ticker) = self.to_snapshot.pop_front()
        {
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            market.queued_snapshot = false;
            if market.desired && market.stage == Stage::Present && !market.book {
                self.asked(&ticker, now);
                taken.push(ticker);
            }
        }
        taken
    }

    /// The exchange confirmed that it added the market, which brings a snapshot.
    pub fn added(&mut self, ticker: &Ticker, now: Instant) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage != Stage::Adding {
            return;
        }
        market.stage = Stage::Present;
        if !market.desired {
            queue(&mut market.queued_delete, &mut self.to_delete, ticker);
        } else if !market.book {
            // The snapshot may have come before the confirmation; then nothing is awaited.
            self.asked(ticker, now);
        }
    }

    /// The market could not be added now; it goes to the end of the queue.
    pub fn add_later(&mut self, ticker: &Ticker) {
        self.not_added(ticker, |_| true);
    }

    /// The exchange refused the market.
    pub fn refuse(&mut self, ticker: &Ticker, now: Instant) {
        self.not_added(ticker, |market| {
            market.stage = Stage::Refused;
            false
        });
        self.refused.push_back((now + self.refused_retry, ticker.clone()));
    }

    fn not_added(&mut self, ticker: &Ticker, again: impl FnOnce(&mut Market) -> bool) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage != Stage::Adding {
            return;
        }
        self.held = self.held.saturating_sub(1);
        market.stage = Stage::Absent;
        if !market.desired {
            self.markets.remove(ticker);
        } else if again(market) {
            queue(&mut market.queued_add, &mut self.to_add, ticker);
        }
    }

    /// The exchange confirmed that it deleted the market (or never had it).
    pub fn deleted(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage != Stage::Deleting {
            return;
        }
        self.held = self.held.saturating_sub(1);
        if market.desired {
            // Wanted again meanwhile.
            market.stage = Stage::Absent;
            (market.book, market.asked, market.attempts) = (false, None, 0);
            queue(&mut market.queued_add, &mut self.to_add, ticker);
        } else {
            self.markets.remove(ticker);
        }
    }

    /// Deleting did not happen now; it is tried again.
    pub fn delete_later(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        if market.stage == Stage::Deleting {
            market.stage = Stage::Present;
            if !market.desired {
                queue(&mut market.queued_delete, &mut self.to_delete, ticker);
            }
        }
    }

    /// A snapshot of the market arrived.
    pub fn snapshot(&mut self, ticker: &str) {
        if let Some(market) = self.markets.get_mut(ticker) {
            (market.book, market.asked, market.attempts) = (true, None, 0);
        }
    }

    /// The market's book is in doubt: a snapshot is asked for, unless one is on its way.
    pub fn doubt(&mut self, ticker: &Ticker) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        market.book = false;
        if market.stage == Stage::Present && market.asked.is_none() {
            queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
        }
    }

    /// Every book is in doubt. A snapshot that is on its way will arrive behind the gap and heal its
    /// market, so those are not asked for twice.
    pub fn doubt_all(&mut self) {
        for (ticker, market) in &mut self.markets {
            market.book = false;
            if market.stage == Stage::Present && market.asked.is_none() {
                queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
            }
        }
    }

    /// The subscription brought no snapshot with this market, and will not: ask now.
    pub fn ask_now(&mut self, ticker: &Ticker) {
        if let Some(market) = self.markets.get_mut(ticker)
            && !market.book
            && market.stage == Stage::Present
        {
            market.asked = None;
            queue(&mut market.queued_snapshot, &mut self.to_snapshot, ticker);
        }
    }

    /// The subscription is gone: everything wanted is to be added anew.
    pub fn lost(&mut self) {
        self.to_delete.clear();
        self.to_snapshot.clear();
        self.awaited.clear();
        self.held = 0;
        self.markets.retain(|_, market| market.desired);
        for (ticker, market) in &mut self.markets {
            (market.queued_delete, market.queued_snapshot) = (false, false);
            (market.book, market.asked, market.attempts) = (false, None, 0);
            if market.stage != Stage::Refused {
                market.stage = Stage::Absent;
                queue(&mut market.queued_add, &mut self.to_add, ticker);
            }
        }
    }

    /// Queues again what waited long enough. Returns how many snapshots had not come.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut overdue = 0;
        while let Some(Reverse((deadline, _, _))) = self.awaited.peek()
            && *deadline <= now
        {
            let Some(Reverse((_, asked, ticker))) = self.awaited.pop() else { break };
            let Some(market) = self.markets.get_mut(&ticker) else { continue };
            if market.asked == Some(asked) {
                overdue += 1;
                market.asked = None;
                market.attempts = market.attempts.saturating_add(1);
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

    /// Markets that the exchange counts for this subscription, or soon will.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Counts all markets, which looks at each: for reports, not for every frame.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
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
        }
        counts
    }

    fn asked(&mut self, ticker: &Ticker, now: Instant) {
        let Some(market) = self.markets.get_mut(ticker) else { return };
        market.asked = Some(now);
        let factor = 2_u32.saturating_pow(market.attempts);
        let wait = self.snapshot_timeout.saturating_mul(factor).min(SNAPSHOT_RETRY_MAX);
        self.awaited.push(Reverse((now + wait, now, ticker.clone())));
    }
}

/// Queues a market unless it is queued already.
fn queue(queued: &mut bool, queue: &mut VecDeque<Ticker>, ticker: &Ticker) {
    if !*queued {
        *queued = true;
        queue.push_back(ticker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticker(name: &str) -> Ticker {
        Ticker::parse(name).unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<Ticker> {
        names.iter().map(|name| ticker(name)).collect()
    }

    fn markets() -> Markets {
        Markets::new(Duration::from_secs(10), Duration::from_secs(60))
    }

    fn add_all(markets: &mut Markets, now: Instant) {
        for ticker in markets.take_adds(usize::MAX) {
            markets.added(&ticker, now);
        }
    }

    #[test]
    fn a_market_wanted_again_while_it_is_deleted_is_added_after() {
        let (mut markets, now) = (markets(), Instant::now());
        markets.want(&set(&["A", "B"]));
        add_all(&mut markets, now);
        markets.want(&set(&["B"]));
        assert_eq!(markets.take_deletes(9), [ticker("A")]);
        markets.want(&set(&["A", "B"]));
        assert_eq!(markets.take_adds(9), []);
        markets.deleted(&ticker("A"));
        assert_eq!(markets.take_adds(9), [ticker("A")]);
        assert_eq!(markets.held(), 2);
    }

    #[test]
    fn a_market_dropped_while_it_is_added_is_deleted_after() {
        let (mut markets, now) = (markets(), Instant::now());
        markets.want(&set(&["A"]));
        assert_eq!(markets.take_adds(9).len(), 1);
        markets.want(&set(&[]));
        assert_eq!(markets.take_deletes(9), []);
        markets.added(&ticker("A"), now);
        assert_eq!(markets.take_deletes(9), [ticker("A")]);
        markets.deleted(&ticker("A"));
        assert_eq!((markets.held(), markets.counts()), (0, Counts::default()));
    }

    #[test]
    fn a_snapshot_is_asked_for_once_and_again_with_growing_patience() {
        let (mut markets, start) = (markets(), Instant::now());
        markets.want(&set(&["A", "B"]));
        add_all(&mut markets, start);
        markets.snapshot("A");
        assert_eq!(markets.expire(start + Duration::from_secs(9)), 0);
        let mut now = start + Duration::from_secs(10);
        assert_eq!(markets.expire(now), 1);
        assert_eq!(markets.take_snapshots(9, now), [ticker("B")]);
        markets.doubt_all();
        assert_eq!(markets.take_snapshots(9, now), [ticker("A")], "B's is on its way");
        markets.snapshot("A");
        now += Duration::from_secs(19);
        assert_eq!(markets.expire(now), 0);
        now += Duration::from_secs(1);
        assert_eq!(markets.expire(now), 1);
        assert_eq!(markets.counts().with_book, 1);
        markets.doubt(&ticker("A"));
        markets.doubt(&ticker("A"));
        assert_eq!(markets.take_snapshots(9, now), [ticker("B"), ticker("A")]);
    }

    #[test]
    fn a_refused_market_waits_and_a_lost_subscription_starts_over() {
        let (mut markets, now) = (markets(), Instant::now());
        markets.want(&set(&["A", "B", "C"]));
        for ticker in markets.take_adds(9) {
            match ticker.as_str() {
                "A" => markets.refuse(&ticker, now),
                _ => markets.added(&ticker, now),
            }
        }
        assert_eq!(markets.counts().refused, 1);
        markets.lost();
        assert_eq!(markets.held(), 0);
        assert_eq!(markets.take_adds(9).len(), 2);
        assert_eq!(markets.expire(now + Duration::from_secs(60)), 0);
        assert_eq!(markets.take_adds(9), [ticker("A")]);
    }
}
