//! The planner: which session carries which markets. Pure, and stable: a market moves only when it
//! must, because moving costs a stretch of its coverage.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::kalshi::session::Wants;
use crate::model::Ticker;

/// Sessions may differ by this many markets, or by a quarter of their mean, before any is moved.
const SPREAD_MIN: usize = 8;

/// Which order-book session carries which markets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// One set a session, in the order of the sessions. A set that did not change is the same `Arc`.
    slots: Vec<Arc<BTreeSet<Ticker>>>,
    /// Markets that no session has room for, once the exchange's cap is known.
    unplaced: BTreeSet<Ticker>,
    places: Places,
}

/// Which slot carries each market: what `slots` says, the other way round. It travels from a plan to
/// the one that follows, so that it is neither copied nor made anew for each; a plan that has given
/// it away makes another when it needs one.
#[derive(Debug, Default)]
struct Places(Mutex<Option<HashMap<Ticker, usize>>>);

impl Places {
    fn take(&self, slots: &[Arc<BTreeSet<Ticker>>]) -> HashMap<Ticker, usize> {
        // A poisoned lock guards a value that is taken whole or not at all.
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| {
            let placed = slots.iter().enumerate();
            placed.flat_map(|(index, slot)| slot.iter().map(move |t| (t.clone(), index))).collect()
        })
    }
}

impl Clone for Places {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// It follows from the slots, which are compared.
impl PartialEq for Places {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Places {}

impl Plan {
    /// A plan of no markets for that many sessions.
    pub fn empty(slots: usize) -> Self {
        let slots = vec![Arc::default(); slots];
        Self { slots, unplaced: BTreeSet::new(), places: Places::default() }
    }

    /// The markets of each session, in the order of the sessions.
    #[cfg(test)]
    pub fn slots(&self) -> &[Arc<BTreeSet<Ticker>>] {
        &self.slots
    }

    /// Markets that no session has room for.
    pub fn unplaced(&self) -> &BTreeSet<Ticker> {
        &self.unplaced
    }

    /// The session that carries a market.
    #[cfg(test)]
    pub fn slot_of(&self, ticker: &Ticker) -> Option<usize> {
        self.slots.iter().position(|slot| slot.contains(ticker))
    }

    /// Tells each session what it should carry; those whose set is the same hear nothing.
    pub fn distribute(&self, wants: &[watch::Sender<Wants>]) {
        for (slot, wants) in self.slots.iter().zip(wants) {
            wants.send_if_modified(|current| {
                let same = matches!(current, Wants::Markets(set) if Arc::ptr_eq(set, slot));
                if !same {
                    *current = Wants::Markets(Arc::clone(slot));
                }
                !same
            });
        }
    }

    /// The plan after some markets came and others went; `cap` is the most markets a session takes,
    /// when that is known. Costs in proportion to the changes and the sets they touch.
    pub fn changed(
        &self,
        added: impl IntoIterator<Item = Ticker>,
        removed: &BTreeSet<Ticker>,
        cap: Option<usize>,
    ) -> Self {
        let mut next = self.clone();
        let mut places = self.places.take(&self.slots);
        for ticker in removed {
            if let Some(index) = places.remove(ticker)
                && let Some(slot) = next.slots.get_mut(index)
            {
                Arc::make_mut(slot).remove(ticker);
            }
            next.unplaced.remove(ticker);
        }
        let cap = cap.unwrap_or(usize::MAX);
        let mut homeless = std::mem::take(&mut next.unplaced);
        for slot in next.slots.iter_mut().filter(|slot| slot.len() > cap) {
            let slot = Arc::make_mut(slot);
            while slot.len() > cap
                && let Some(ticker) = slot.pop_last()
            {
                places.remove(&ticker);
                homeless.insert(ticker);
            }
        }
        let mut changes = removed.len();
        for ticker in added {
            changes += 1;
            if !places.contains_key(&ticker) {
                homeless.insert(ticker);
            }
        }
        let mut load = Load::of(&next.slots);
        for ticker in homeless {
            match load.emptiest().filter(|(len, _)| *len < cap) {
                Some((_, index)) => {
                    next.insert(index, ticker, &mut places);
                    load.add(index);
                }
                None => {
                    next.unplaced.insert(ticker);
                }
            }
        }
        next.balance(&mut load, changes, &mut places);
        next.places = Places(Mutex::new(Some(places)));
        next
    }

    /// Moves markets from the fullest to the emptiest session while they differ too much, but never
    /// more markets than have come and gone anyway.
    fn balance(&mut self, load: &mut Load, moves_max: usize, places: &mut HashMap<Ticker, usize>) {
        let markets: usize = self.slots.iter().map(|slot| slot.len()).sum();
        let mean = markets / self.slots.len().max(1);
        let spread_max = SPREAD_MIN.max(mean / 4);
        for _ in 0..moves_max {
            let (Some((least, to)), Some((most, from))) = (load.emptiest(), load.fullest()) else {
                return;
            };
            if most - least <= spread_max {
                return;
            }
            let moved = self.slots.get_mut(from).and_then(|slot| Arc::make_mut(slot).pop_last());
            let Some(ticker) = moved else { return };
            self.insert(to, ticker, places);
            load.remove(from);
            load.add(to);
        }
    }

    fn insert(&mut self, index: usize, ticker: Ticker, places: &mut HashMap<Ticker, usize>) {
        if let Some(slot) = self.slots.get_mut(index) {
            places.insert(ticker.clone(), index);
            Arc::make_mut(slot).insert(ticker);
        }
    }
}

/// How full each session is, in order of fullness.
struct Load {
    by_len: BTreeSet<(usize, usize)>,
    lens: Vec<usize>,
}

impl Load {
    fn of(slots: &[Arc<BTreeSet<Ticker>>]) -> Self {
        let lens: Vec<usize> = slots.iter().map(|slot| slot.len()).collect();
        let by_len = lens.iter().enumerate().map(|(index, len)| (*len, index)).collect();
        Self { by_len, lens }
    }

    fn emptiest(&self) -> Option<(usize, usize)> {
        self.by_len.first().copied()
    }

    fn fullest(&self) -> Option<(usize, usize)> {
        self.by_len.last().copied()
    }

    fn add(&mut self, index: usize) {
        self.set(index, |len| len.saturating_add(1));
    }

    fn remove(&mut self, index: usize) {
        self.set(index, |len| len.saturating_sub(1));
    }

    fn set(&mut self, index: usize, change: impl FnOnce(usize) -> usize) {
        if let Some(len) = self.lens.get_mut(index) {
            self.by_len.remove(&(*len, index));
            *len = change(*len);
            self.by_len.insert((*len, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn ticker(number: u16) -> Ticker {
        Ticker::parse(&format!("M{number}")).unwrap()
    }

    fn set(numbers: &BTreeSet<u16>) -> BTreeSet<Ticker> {
        numbers.iter().map(|number| ticker(*number)).collect()
    }

    fn all(plan: &Plan) -> Vec<Ticker> {
        plan.slots.iter().flat_map(|slot| slot.iter()).chain(&plan.unplaced).cloned().collect()
    }

    fn spread(plan: &Plan) -> usize {
        let lens = || plan.slots.iter().map(|slot| slot.len());
        lens().max().unwrap() - lens().min().unwrap()
    }

    /// The plan for a set of markets: what `previous` placed stays where it is, as far as it can.
    fn plan(markets: &BTreeSet<Ticker>, slots: usize, previous: &Plan, cap: Option<usize>) -> Plan {
        let mut base = previous.clone();
        base.slots.resize_with(slots, Arc::default);
        let known = || base.slots.iter().flat_map(|slot| slot.iter()).chain(&base.unplaced);
        let removed: BTreeSet<Ticker> =
            known().filter(|ticker| !markets.contains(*ticker)).cloned().collect();
        let placed: BTreeSet<&Ticker> = known().collect();
        let added: Vec<Ticker> =
            markets.iter().filter(|ticker| !placed.contains(ticker)).cloned().collect();
        base.changed(added, &removed, cap)
    }

    proptest! {
        #[test]
        fn a_fresh_plan_is_even_and_complete(
            numbers in btree_set(any::<u16>(), 0..300),
            slots in 1_usize..20,
        ) {
            let markets = set(&numbers);
            let plan = plan(&markets, slots, &Plan::empty(slots), None);
            prop_assert!(spread(&plan) <= 1);
            let mut placed = all(&plan);
            placed.sort();
            prop_assert_eq!(placed, markets.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn churn_moves_no_more_than_it_changes_and_stays_balanced(
            steps in vec(btree_set(0_u16..400, 0..300), 1..12),
            slots in 1_usize..12,
        ) {
            let mut previous = Plan::empty(slots);
            let mut before = BTreeSet::new();
            for numbers in &steps {
                let markets = set(numbers);
                let next = plan(&markets, slots, &previous, None);
                let mut placed = all(&next);
                placed.sort();
                prop_assert_eq!(&placed, &markets.iter().cloned().collect::<Vec<_>>());
                let places = next.places.take(&next.slots);
                prop_assert_eq!(&places, &Places::default().take(&next.slots));
                *next.places.0.lock().unwrap() = Some(places);
                let changed = before.symmetric_difference(&markets).count();
                let moved = before
                    .intersection(&markets)
                    .filter(|ticker| previous.slot_of(ticker) != next.slot_of(ticker))
                    .count();
                prop_assert!(moved <= changed, "{moved} moved for {changed} changes");
                let mean = markets.len() / slots;
                prop_assert!(spread(&next) <= SPREAD_MIN.max(mean / 4) + 1);
                (previous, before) = (next, markets);
            }
        }

        #[test]
        fn a_cap_is_kept_and_what_has_no_room_is_named(
            numbers in btree_set(any::<u16>(), 0..200),
            slots in 1_usize..6,
            cap in 1_usize..40,
        ) {
            let markets = set(&numbers);
            let free = plan(&markets, slots, &Plan::empty(slots), None);
            let capped = plan(&markets, slots, &free, Some(cap));
            prop_assert!(capped.slots.iter().all(|slot| slot.len() <= cap));
            prop_assert_eq!(capped.unplaced.len(), markets.len().saturating_sub(cap * slots));
            prop_assert_eq!(all(&capped).len(), markets.len());
        }
    }

    #[test]
    fn sessions_whose_set_stays_hear_nothing() {
        let first = Plan::empty(3).changed((0..30).map(ticker), &BTreeSet::new(), None);
        let (senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..3).map(|_| watch::channel(Wants::Markets(Arc::default()))).unzip();
        first.distribute(&senders);
        for receiver in &mut receivers {
            assert!(receiver.has_changed().unwrap());
            receiver.mark_unchanged();
        }
        let gone = ticker(4);
        let slot = first.slot_of(&gone).unwrap();
        let second = first.changed([], &BTreeSet::from([gone]), None);
        second.distribute(&senders);
        let heard: Vec<bool> = receivers.iter().map(|r| r.has_changed().unwrap()).collect();
        assert_eq!(heard, (0..3).map(|index| index == slot).collect::<Vec<_>>());
    }

    /// Prints what plans cost at full scale: `cargo test -- --ignored --nocapture full_scale`.
    #[test]
    #[ignore = "a measurement, not a test"]
    fn full_scale() {
        let ticker = |number: usize| {
            Ticker::parse(&format!("KXSOMESERIES-26NOV22H{}-T{number}", number % 5_000)).unwrap()
        };
        let all: Vec<Ticker> = (0..425_000).map(ticker).collect();
        let mut plan = Plan::empty(144);
        let mut slowest = std::time::Duration::ZERO;
        let start = std::time::Instant::now();
        for batch in all.chunks(20_000) {
            let one = std::time::Instant::now();
            plan = plan.changed(batch.iter().cloned(), &BTreeSet::new(), None);
            slowest = slowest.max(one.elapsed());
        }
        println!(
            "425,000 markets in batches of 20,000: {:?}, slowest {slowest:?}",
            start.elapsed()
        );
        let held = plan.clone();
        let removed: BTreeSet<Ticker> = all.iter().step_by(25_000).cloned().collect();
        let start = std::time::Instant::now();
        let next = plan.changed([ticker(425_001)], &removed, None);
        println!("{} removed, one added: {:?}", removed.len(), start.elapsed());
        assert_ne!(held, next);
    }
}
