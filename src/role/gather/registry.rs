//! The registry: the markets we want to record, from REST lists and lifecycle notices.
//!
//! Pure: it is given pages, notices and the time, and tells what came and what went. A list never
//! removes what it merely did not show once, because pages shift while they are read.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::kalshi::market::{Market, series_of};
use crate::kalshi::session::MarketNotice;
use crate::model::{Micros, Ticker};

/// Complete lists that must miss a market before it is dropped.
const MISSING_LISTS: u32 = 2;

/// Statuses after which nothing of a market is left to record. A status that we do not know is
/// recorded: better too much than a hole.
const OVER: [&str; 6] = ["closed", "determined", "disputed", "amended", "finalized", "settled"];

/// Which markets are recorded at all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Whether multivariate (combo) markets are recorded.
    pub multivariate: bool,
    /// Patterns of series with `*` for any text; empty stands for all.
    pub series: Vec<String>,
    /// Patterns of series that are not recorded, whatever `series` says.
    pub exclude_series: Vec<String>,
}

impl Filter {
    fn takes(&self, series: &str, multivariate: bool) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, series));
        (self.multivariate || !multivariate)
            && (self.series.is_empty() || any(&self.series))
            && !any(&self.exclude_series)
    }
}

/// Whether a text is what a pattern describes; `*` stands for any text, also none.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    while let Some((part, after)) = rest.split_once('*') {
        // The first place is the best: it leaves the most text for what follows.
        let Some((_, behind)) = text.split_once(part) else { return false };
        (text, rest) = (behind, after);
    }
    text.ends_with(rest)
}

#[derive(Debug)]
struct Entry {
    close_time: Option<Micros>,
    /// The list that was going on, or ended last, when the market came.
    added_in: u64,
    /// The list that showed it last.
    seen_in: u64,
    /// Complete lists since that did not show it.
    missing: u32,
    /// When it is dropped.
    drop_at: Option<Instant>,
    /// The exchange said that it is over, so a list that still shows it is late.
    over: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    filter: Filter,
    grace: Duration,
    markets: HashMap<Ticker, Entry>,
    drops: BinaryHeap<Reverse<(Instant, Ticker)>>,
    /// Numbers the lists; 0 before the first.
    list: u64,
    listed: usize,
    added: BTreeSet<Ticker>,
    removed: BTreeSet<Ticker>,
}

impl Registry {
    /// An empty registry; markets that are over stay for `grace`, for what still arrives.
    pub fn new(filter: Filter, grace: Duration) -> Self {
        Self {
            filter,
            grace,
            markets: HashMap::new(),
            drops: BinaryHeap::new(),
            list: 0,
            listed: 0,
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Markets that are recorded.
    pub fn count(&self) -> usize {
        self.markets.len()
    }

    /// A new list begins; one that did not end counts for nothing but what it added.
    pub fn list_begins(&mut self) {
        self.list += 1;
        self.listed = 0;
    }

    /// Takes a page of the list.
    pub fn page(&mut self, markets: Vec<Market>) {
        for market in markets {
            let multivariate = market.mve_collection_ticker.is_some();
            if OVER.contains(&market.status.as_str())
                || !self.filter.takes(market.series(), multivariate)
            {
                continue;
            }
            self.listed += 1;
            let list = self.list;
            let entry = self.add(market.ticker);
            entry.seen_in = list;
            entry.close_time = market.close_time.or(entry.close_time);
            entry.missing = 0;
            if !entry.over {
                entry.drop_at = None;
            }
        }
    }

    /// The list is complete; how many markets it showed that are recorded.
    pub fn list_ends(&mut self, now: Instant) -> usize {
        let at = now + self.grace;
        for (ticker, entry) in &mut self.markets {
            // What came by a notice while the list was read may have missed its page.
            if entry.seen_in == self.list || entry.added_in == self.list {
                continue;
            }
            entry.missing += 1;
            if entry.missing >= MISSING_LISTS && entry.drop_at.is_none() {
                entry.drop_at = Some(at);
                self.drops.push(Reverse((at, ticker.clone())));
            }
        }
        self.listed
    }

    /// Takes a lifecycle notice.
    pub fn notice(&mut self, notice: MarketNotice, wall: Micros, now: Instant) {
        let series = series_of(notice.event_ticker.as_deref().unwrap_or(notice.ticker.as_str()));
        if !self.filter.takes(series, notice.multivariate) {
            return;
        }
        match notice.event_type.as_str() {
            "created" | "activated" | "deactivated" | "close_date_updated" => {
                let entry = self.add(notice.ticker);
                entry.close_time = notice.close_time.or(entry.close_time);
                entry.missing = 0;
                (entry.over, entry.drop_at) = (false, None);
            }
            "settled" => self.ends(&notice.ticker, now),
            // Determined before its close a market may still trade; its settlement ends it then.
            "determined" => {
                let close = self.markets.get(&notice.ticker).and_then(|entry| entry.close_time);
                if close.is_none_or(|close| close <= wall) {
                    self.ends(&notice.ticker, now);
                }
            }
            _ => {}
        }
    }

    /// Drops what is due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.drops.peek()
            && *at <= now
        {
            let Some(Reverse((at, ticker))) = self.drops.pop() else { return };
            // The drop may have been taken back, or put off, since.
            if self.markets.get(&ticker).is_some_and(|entry| entry.drop_at == Some(at)) {
                self.markets.remove(&ticker);
                if !self.added.remove(&ticker) {
                    self.removed.insert(ticker);
                }
            }
        }
    }

    /// What came and what went since the last call.
    pub fn take_changes(&mut self) -> Option<(BTreeSet<Ticker>, BTreeSet<Ticker>)> {
        if self.added.is_empty() && self.removed.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut self.added), std::mem::take(&mut self.removed)))
    }

    fn add(&mut self, ticker: Ticker) -> &mut Entry {
        self.markets.entry(ticker).or_insert_with_key(|ticker| {
            if !self.removed.remove(ticker) {
                self.added.insert(ticker.clone());
            }
            Entry {
                close_time: None,
                added_in: self.list,
                seen_in: 0,
                missing: 0,
                drop_at: None,
                over: false,
            }
        })
    }

    fn ends(&mut self, ticker: &Ticker, now: Instant) {
        let Some(entry) = self.markets.get_mut(ticker) else { return };
        if !entry.over {
            let at = now + self.grace;
            (entry.over, entry.drop_at) = (true, Some(at));
            self.drops.push(Reverse((at, ticker.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn ticker(name: &str) -> Ticker {
        Ticker::parse(name).unwrap()
    }

    fn market(name: &str) -> Market {
        Market {
            ticker: ticker(name),
            event_ticker: name.to_owned(),
            status: "active".to_owned(),
            open_time: None,
            close_time: None,
            mve_collection_ticker: None,
        }
    }

    fn notice(name: &str, event_type: &str) -> MarketNotice {
        MarketNotice {
            ticker: ticker(name),
            event_type: event_type.to_owned(),
            event_ticker: None,
            open_time: None,
            close_time: None,
            multivariate: false,
        }
    }

    fn names(set: &BTreeSet<Ticker>) -> Vec<&str> {
        set.iter().map(Ticker::as_str).collect()
    }

    fn list(registry: &mut Registry, names: &[&str], now: Instant) -> usize {
        registry.list_begins();
        registry.page(names.iter().map(|name| market(name)).collect());
        registry.list_ends(now)
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("KXGOLD15M", "KXGOLD15M", true),
            ("KXGOLD15M", "KXGOLD15MX", false),
            ("KXGOLD*", "KXGOLD15M", true),
            ("*15M", "KXGOLD15M", true),
            ("KX*15*", "KXGOLD15M", true),
            ("KX*15*15M", "KXGOLD15M", false),
            ("*", "", true),
            ("A*A", "A", false),
            ("**B", "AB", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn filters_by_series_status_and_kind() {
        let filter = Filter {
            multivariate: false,
            series: vec!["KX*".to_owned()],
            exclude_series: vec!["KXB*".to_owned()],
        };
        let mut registry = Registry::new(filter, GRACE);
        let combo = Market { mve_collection_ticker: Some("C".to_owned()), ..market("KXC-1") };
        let over = Market { status: "finalized".to_owned(), ..market("KXD-1") };
        let new = Market { status: "brand_new".to_owned(), ..market("KXE-1") };
        registry.list_begins();
        registry.page(vec![market("KXA-1"), market("KXB-1"), market("X-1"), combo, over, new]);
        assert_eq!(registry.list_ends(Instant::now()), 2);
        registry.notice(
            MarketNotice { multivariate: true, ..notice("KXF-1", "created") },
            Micros(0),
            Instant::now(),
        );
        let (added, removed) = registry.take_changes().unwrap();
        assert_eq!((names(&added), removed.len()), (vec!["KXA-1", "KXE-1"], 0));
        assert_eq!(registry.take_changes(), None);
    }

    #[test]
    fn a_market_must_be_missing_from_two_lists() {
        let mut registry = Registry::new(Filter::default(), GRACE);
        let now = Instant::now();
        list(&mut registry, &["A", "B"], now);
        assert_eq!(registry.take_changes().unwrap().0.len(), 2);
        list(&mut registry, &["A"], now);
        registry.expire(now + GRACE);
        list(&mut registry, &["A", "B"], now);
        list(&mut registry, &["A"], now);
        registry.expire(now + GRACE);
        assert_eq!(registry.take_changes(), None, "missing once, twice, but not in a row");
        list(&mut registry, &["A"], now);
        registry.expire(now);
        assert_eq!(registry.take_changes(), None, "within the grace");
        registry.expire(now + GRACE);
        let (added, removed) = registry.take_changes().unwrap();
        assert_eq!((added.len(), names(&removed)), (0, vec!["B"]));
    }

    #[test]
    fn what_a_notice_adds_while_a_list_is_read_stays() {
        let mut registry = Registry::new(Filter::default(), GRACE);
        let now = Instant::now();
        registry.list_begins();
        registry.page(vec![market("A")]);
        registry.notice(notice("B", "created"), Micros(0), now);
        registry.list_ends(now);
        registry.expire(now + GRACE);
        assert_eq!(names(&registry.take_changes().unwrap().0), ["A", "B"]);
        // A list that fails half way removes nothing.
        for _ in 0..5 {
            registry.list_begins();
            registry.page(vec![market("A")]);
        }
        registry.expire(now + GRACE * 9);
        assert_eq!(registry.count(), 2);
    }

    #[test]
    fn settled_markets_go_after_the_grace_unless_they_come_back() {
        let mut registry = Registry::new(Filter::default(), GRACE);
        let now = Instant::now();
        list(&mut registry, &["A", "B", "C"], now);
        registry.take_changes().unwrap();
        registry.notice(notice("A", "settled"), Micros(0), now);
        registry.notice(notice("B", "determined"), Micros(0), now);
        registry.notice(notice("C", "metadata_updated"), Micros(0), now);
        registry.notice(notice("D", "metadata_updated"), Micros(0), now);
        // A list read before the settlement still shows A.
        list(&mut registry, &["A", "B", "C"], now);
        registry.notice(notice("B", "activated"), Micros(0), now);
        registry.expire(now + GRACE);
        let (added, removed) = registry.take_changes().unwrap();
        assert_eq!((added.len(), names(&removed)), (0, vec!["A"]));
        assert_eq!(registry.count(), 2);
    }

    #[test]
    fn a_determination_before_the_close_waits_for_the_settlement() {
        let mut registry = Registry::new(Filter::default(), GRACE);
        let now = Instant::now();
        let close = Micros::from_secs(1000);
        let created = MarketNotice { close_time: Some(close), ..notice("A", "created") };
        registry.notice(created, Micros(0), now);
        registry.notice(notice("A", "determined"), Micros(close.0 - 1), now);
        registry.expire(now + GRACE);
        assert_eq!(registry.count(), 1);
        registry.notice(notice("A", "determined"), close, now);
        registry.expire(now + GRACE);
        assert_eq!(registry.count(), 0);
    }
}
