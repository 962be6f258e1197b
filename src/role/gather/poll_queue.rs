//! Whose turn it is to be polled. Pure: it is given the markets, what was seen of them and the time.
//!
//! Half of each batch are the markets that changed most since they were polled last, the other half
//! those that wait longest, so that quiet ones come round too.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Price, Ticker};

/// Active markets that are looked at for each one taken: the others were polled a moment ago.
const LOOKS_PER_TICKER: usize = 4;

#[derive(Debug, Default)]
struct Entry {
    /// Seconds since the queue was made, plus one; 0 before the first poll.
    polled_at: u32,
    /// Changes and trades seen since then.
    seen: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    began: Instant,
    /// Between two polls of one market.
    interval_min: Duration,
    markets: HashMap<Ticker, Entry>,
    /// By what was seen, where that is more than nothing.
    active: BTreeSet<(u32, Ticker)>,
    /// All markets, the one that waits longest first. One that was polled out of turn, or is gone,
    /// leaves its old place behind; `polled_at` tells.
    turns: VecDeque<(u32, Ticker)>,
    /// Markets whose contract does not pay one dollar.
    notional: HashMap<Ticker, Price>,
}

impl Queue {
    pub fn new(interval_min: Duration) -> Self {
        Self {
            began: Instant::now(),
            interval_min,
            markets: HashMap::new(),
            active: BTreeSet::new(),
            turns: VecDeque::new(),
            notional: HashMap::new(),
        }
    }

    /// Markets in the queue.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.markets.len()
    }

    /// A market is recorded from now on.
    pub fn add(&mut self, ticker: Ticker) {
        if !self.markets.contains_key(&ticker) {
            self.turns.push_back((0, ticker.clone()));
            self.markets.insert(ticker, Entry::default());
        }
    }

    /// A market is not recorded any more.
    pub fn remove(&mut self, ticker: &Ticker) {
        self.notional.remove(ticker);
        if let Some(entry) = self.markets.remove(ticker)
            && entry.seen > 0
        {
            self.active.remove(&(entry.seen, ticker.clone()));
        }
    }

    /// What a contract of a market pays at most, where that is not one dollar.
    pub fn pays(&mut self, ticker: &Ticker, notional: Price) {
        if self.notional.get(ticker) != Some(&notional) {
            self.notional.insert(ticker.clone(), notional);
        }
    }

    /// Those of some markets whose contract does not pay one dollar.
    pub fn notional_of(&self, tickers: &[Ticker]) -> BTreeMap<String, i64> {
        let odd = tickers.iter().filter_map(|ticker| Some((ticker, self.notional.get(ticker)?)));
        odd.map(|(ticker, notional)| (ticker.as_str().to_owned(), notional.micros())).collect()
    }

    /// Some changes or trades of a market were seen.
    pub fn seen(&mut self, ticker: &Ticker, count: u32) {
        let Some(entry) = self.markets.get_mut(ticker) else { return };
        if entry.seen > 0 {
            self.active.remove(&(entry.seen, ticker.clone()));
        }
        entry.seen = entry.seen.saturating_add(count);
        self.active.insert((entry.seen, ticker.clone()));
    }

    /// Up to `most` markets whose turn it is; they count as polled at `now`.
    pub fn next_batch(&mut self, most: usize, now: Instant) -> Vec<Ticker> {
        let second = self.second(now);
        let due = |polled_at: u32| {
            let since = Duration::from_secs(u64::from(second.saturating_sub(polled_at)));
            polled_at == 0 || since >= self.interval_min
        };
        let looked_at = self.active.iter().rev().take(most * LOOKS_PER_TICKER);
        let busy = looked_at.filter(|(_, ticker)| {
            self.markets.get(ticker).is_some_and(|entry| due(entry.polled_at))
        });
        let busy: Vec<Ticker> = busy.take(most.div_ceil(2)).map(|(_, t)| t.clone()).collect();
        for ticker in &busy {
            self.polled(ticker, second);
        }
        let mut batch = busy;
        while batch.len() < most
            && let Some((polled_at, ticker)) = self.turns.pop_front()
        {
            let current = self.markets.get(&ticker).map(|entry| entry.polled_at);
            if current != Some(polled_at) {
                continue;
            }
            let since = Duration::from_secs(u64::from(second.saturating_sub(polled_at)));
            if polled_at > 0 && since < self.interval_min {
                self.turns.push_front((polled_at, ticker));
                break;
            }
            self.polled(&ticker, second);
            batch.push(ticker);
        }
        batch
    }

    /// How long the market that waits longest has not been polled; none before all were.
    pub fn oldest(&mut self, now: Instant) -> Option<Duration> {
        let second = self.second(now);
        while let Some((polled_at, ticker)) = self.turns.front() {
            if self.markets.get(ticker).is_some_and(|entry| entry.polled_at == *polled_at) {
                let waits = u64::from(second.saturating_sub(*polled_at));
                return (*polled_at > 0).then(|| Duration::from_secs(waits));
            }
            self.turns.pop_front();
        }
        None
    }

    /// A batch got no answer: its markets are next again.
    pub fn give_back(&mut self, batch: Vec<Ticker>) {
        for ticker in batch.into_iter().rev() {
            if let Some(entry) = self.markets.get_mut(&ticker) {
                entry.polled_at = 0;
                self.turns.push_front((0, ticker));
            }
        }
    }

    fn polled(&mut self, ticker: &Ticker, second: u32) {
        let Some(entry) = self.markets.get_mut(ticker) else { return };
        if entry.seen > 0 {
            self.active.remove(&(entry.seen, ticker.clone()));
        }
        *entry = Entry { polled_at: second, seen: 0 };
        self.turns.push_back((second, ticker.clone()));
    }

    fn second(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX - 1).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticker(number: u32) -> Ticker {
        Ticker::parse(&format!("M{number:04}")).unwrap()
    }

    fn queue(markets: u32) -> Queue {
        let mut queue = Queue::new(Duration::from_secs(10));
        (0..markets).for_each(|number| queue.add(ticker(number)));
        queue
    }

    #[test]
    fn half_are_the_busiest_and_half_wait_longest() {
        let mut queue = queue(100);
        let now = queue.began;
        for number in 50..100 {
            queue.seen(&ticker(number), number);
        }
        queue.seen(&ticker(60), 1000);
        let batch = queue.next_batch(6, now);
        let expected: Vec<Ticker> = [60, 99, 98, 0, 1, 2].map(ticker).to_vec();
        assert_eq!(batch, expected);
        // What was polled starts from nothing, however busy it was.
        queue.seen(&ticker(60), 1);
        let batch = queue.next_batch(6, now + Duration::from_secs(20));
        assert_eq!(batch, [97, 96, 95, 3, 4, 5].map(ticker).to_vec());
    }

    #[test]
    fn quiet_markets_come_round_beside_busy_ones() {
        let mut queue = queue(100);
        let mut polls: HashMap<Ticker, u32> = HashMap::new();
        for step in 0..200 {
            let now = queue.began + Duration::from_secs(step);
            (0..4).for_each(|number| queue.seen(&ticker(number), 100));
            for ticker in queue.next_batch(4, now) {
                *polls.entry(ticker).or_default() += 1;
            }
        }
        let of = |number: u32| polls.get(&ticker(number)).copied().unwrap_or_default();
        let least = (4..100).map(of).min().unwrap();
        assert!(least >= 5, "{least}");
        assert!((0..4).all(|number| (least * 2..=20).contains(&of(number))), "{polls:?}");
    }

    #[test]
    fn no_market_is_polled_more_often_than_it_may() {
        let mut queue = queue(3);
        let now = queue.began;
        assert_eq!(queue.next_batch(100, now).len(), 3);
        queue.seen(&ticker(1), 5);
        assert_eq!(queue.next_batch(100, now + Duration::from_secs(9)), []);
        assert_eq!(queue.oldest(now + Duration::from_secs(9)), Some(Duration::from_secs(9)));
        assert_eq!(queue.next_batch(100, now + Duration::from_secs(10)).len(), 3);
        assert_eq!(queue.next_batch(100, now + Duration::from_secs(10)), []);
    }

    #[test]
    fn what_is_gone_is_not_polled_and_what_had_no_answer_is_next() {
        let mut queue = queue(4);
        let now = queue.began;
        queue.seen(&ticker(1), 5);
        queue.pays(&ticker(1), Price::from_micros(7));
        queue.remove(&ticker(1));
        queue.seen(&ticker(1), 5);
        assert_eq!(queue.notional_of(&[ticker(1)]), BTreeMap::new());
        let batch = queue.next_batch(2, now);
        assert_eq!(batch, [ticker(0), ticker(2)]);
        queue.give_back(batch);
        assert_eq!(queue.oldest(now), None);
        assert_eq!(queue.next_batch(4, now), [ticker(0), ticker(2), ticker(3)]);
        assert_eq!(queue.len(), 3);
        // A market that comes back has one place, not two.
        queue.remove(&ticker(0));
        queue.add(ticker(0));
        let later = now + Duration::from_secs(60);
        assert_eq!(queue.next_batch(9, later).len(), 3);
    }
}
