//! The registry: the markets we want to record, from REST lists and lifecycle notices.
//!
//! Pure: it is given pages, notices and the time, and tells what came and what went. A list never
//! removes what it merely did not show once, because pages shift while they are read. Markets that
//! are not open yet are recorded too, so opening needs nothing; closing is the clock's to tell.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::kalshi::market::{Market, series_of};
use crate::kalshi::session::MarketNotice;
use crate::model::{Micros, Ticker};

/// Complete lists that must miss a market before it is dropped.
const MISSING_LISTS: u8 = 2;

/// Statuses after which nothing of a market is left to record. A status that we do not know is
/// recorded: better too much than a hole.
const OVER: [&str; 6] = ["closed", "determined", "disputed", "amended", "finalized", "settled"];
/// Those of them that are final.
const SETTLED: [&str; 2] = ["finalized", "settled"];
/// How long a market stays after its close, in seconds: closing sends no event, the last book of a
/// market arrives within moments of it, and a close that is put off is announced before.
const CLOSED_SECS: u32 = 900;
/// Closes are looked at together by this many seconds.
const CLOSES_SECS: u32 = 60;

/// Which markets are recorded at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whether multivariate (combo) markets are recorded.
    pub multivariate: bool,
    /// Patterns of series with `*` for any text. All markets are recorded when this and `tickers`
    /// are empty, else those that one of the two describes.
    pub series: Vec<String>,
    /// Patterns of series that are not recorded, whatever the others say.
    pub exclude_series: Vec<String>,
    /// Patterns of single markets.
    pub tickers: Vec<String>,
    /// Patterns of single markets that are not recorded, whatever the others say.
    pub exclude_tickers: Vec<String>,
}

impl Filter {
    fn takes(&self, ticker: &str, series: &str, multivariate: bool) -> bool {
        let any =
            |patterns: &[String], text: &str| patterns.iter().any(|pattern| matches(pattern, text));
        let all = self.series.is_empty() && self.tickers.is_empty();
        (self.multivariate || !multivariate)
            && (all || any(&self.series, series) || any(&self.tickers, ticker))
            && !any(&self.exclude_series, series)
            && !any(&self.exclude_tickers, ticker)
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

/// What is known of a market. Kept small: there are hundreds of thousands.
#[derive(Debug)]
struct Entry {
    /// Unix seconds; 0 when it is not known, or when the exchange shows the market as open after it.
    close: u32,
    /// The list that was going on, or ended last, when the market came.
    added_in: u32,
    /// The list that showed it last.
    seen_in: u32,
    /// Complete lists since that did not show it.
    missing: u8,
    /// The exchange said that it is over, so a list that still shows it is late.
    over: bool,
}

/// What came and what went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: BTreeSet<Ticker>,
    pub removed: BTreeSet<Ticker>,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    filter: Filter,
    grace: Duration,
    markets: HashMap<Ticker, Entry>,
    /// When the markets that are about to be dropped are dropped.
    drop_at: HashMap<Ticker, Instant>,
    drops: BinaryHeap<Reverse<(Instant, Ticker)>>,
    /// Markets by their close, in units of [`CLOSES_SECS`]. A close that was moved leaves an entry
    /// behind, which then means nothing.
    closes: BTreeMap<u32, Vec<Ticker>>,
    /// Numbers the complete lists; 0 before the first.
    list: u32,
    listed: usize,
    changes: Changes,
}

impl Registry {
    /// An empty registry; markets that are over stay for `grace`, for what still arrives.
    pub fn new(filter: Filter, grace: Duration) -> Self {
        Self {
            filter,
            grace,
            markets: HashMap::new(),
            drop_at: HashMap::new(),
            drops: BinaryHeap::new(),
            closes: BTreeMap::new(),
            list: 0,
            listed: 0,
            changes: Changes::default(),
        }
    }

    /// Markets that are recorded.
    pub fn count(&self) -> usize {
        self.markets.len()
    }

    /// Takes another filter over: what it does not take goes at once, what it takes besides is for the
    /// next complete list to show. A market's series is told by its own ticker here; where the event's
    /// says another, that list brings the market back.
    pub fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
        let takes =
            |ticker: &Ticker| self.filter.takes(ticker.as_str(), series_of(ticker.as_str()), false);
        let refused: Vec<Ticker> =
            self.markets.keys().filter(|ticker| !takes(ticker)).cloned().collect();
        for ticker in &refused {
            self.remove(ticker);
        }
    }

    /// Patterns that no recorded market explains: a slip of the pen would record nothing in silence.
    /// Those that exclude are not judged: what they describe is not recorded.
    pub fn unmatched(&self) -> Vec<&str> {
        let by_series = self.filter.series.iter().filter(|pattern| {
            !self.markets.keys().any(|ticker| matches(pattern, series_of(ticker.as_str())))
        });
        let by_ticker =
            self.filter.tickers.iter().filter(|pattern| {
                !self.markets.keys().any(|ticker| matches(pattern, ticker.as_str()))
            });
        by_series.chain(by_ticker).map(String::as_str).collect()
    }

    /// Whether a market is recorded.
    pub fn has(&self, ticker: &Ticker) -> bool {
        self.markets.contains_key(ticker)
    }

    /// A new complete list begins; one that did not end counts for nothing but what it added.
    pub fn list_begins(&mut self) {
        self.list += 1;
        self.listed = 0;
    }

    /// Takes a page of a list, of all markets or of those that changed. A market that two pages show
    /// counts once.
    pub fn page(&mut self, markets: Vec<Market>, wall: Micros, now: Instant) {
        for market in markets {
            let multivariate = market.mve_collection_ticker.is_some();
            if !self.filter.takes(market.ticker.as_str(), market.series(), multivariate) {
                continue;
            }
            let status = market.status.as_str();
            if OVER.contains(&status) {
                // Closed only: the clock, or the settlement, ends it.
                let close = market.close_time.is_none_or(|close| close <= wall);
                if SETTLED.contains(&status) || status != "closed" && close {
                    self.ends(&market.ticker, now);
                }
                continue;
            }
            let list = self.list;
            let entry = self.add(market.ticker.clone());
            let again = std::mem::replace(&mut entry.seen_in, list) == list && list > 0;
            entry.missing = 0;
            let over = entry.over;
            self.listed += usize::from(!again);
            if !over {
                self.drop_at.remove(&market.ticker);
            }
            let close = seconds(market.close_time);
            if close > 0 && close.saturating_add(CLOSED_SECS) <= seconds(Some(wall)) {
                // The list knows better than the time that it names.
                self.closes_at(&market.ticker, 0);
            } else {
                self.closes_at(&market.ticker, close);
            }
        }
    }

    /// The complete list ended; how many markets it showed that are recorded.
    pub fn list_ends(&mut self, now: Instant) -> usize {
        let at = now + self.grace;
        for (ticker, entry) in &mut self.markets {
            // What came by a notice while the list was read may have missed its page.
            if entry.seen_in == self.list || entry.added_in == self.list {
                continue;
            }
            entry.missing = entry.missing.saturating_add(1);
            if entry.missing >= MISSING_LISTS && !self.drop_at.contains_key(ticker) {
                self.drop_at.insert(ticker.clone(), at);
                self.drops.push(Reverse((at, ticker.clone())));
            }
        }
        self.listed
    }

    /// Takes a lifecycle notice.
    pub fn notice(&mut self, notice: MarketNotice, wall: Micros, now: Instant) {
        let series = series_of(notice.event_ticker.as_deref().unwrap_or(notice.ticker.as_str()));
        if !self.filter.takes(notice.ticker.as_str(), series, notice.multivariate) {
            return;
        }
        match notice.event_type.as_str() {
            "created" | "activated" | "deactivated" | "close_date_updated" => {
                let entry = self.add(notice.ticker.clone());
                entry.missing = 0;
                entry.over = false;
                self.drop_at.remove(&notice.ticker);
                if let Some(close) = notice.close_time {
                    self.closes_at(&notice.ticker, seconds(Some(close)));
                }
            }
            "settled" => self.ends(&notice.ticker, now),
            // Determined before its close a market may still trade; its settlement ends it then.
            "determined" => {
                let close = self.markets.get(&notice.ticker).map_or(0, |entry| entry.close);
                if close <= seconds(Some(wall)) {
                    self.ends(&notice.ticker, now);
                }
            }
            _ => {}
        }
    }

    /// Drops what is due, and what closed long enough ago by the clock `wall`: closing sends no
    /// event. Costs in proportion to what goes.
    pub fn expire(&mut self, wall: Micros, now: Instant) {
        let closed_before = seconds(Some(wall)).saturating_sub(CLOSED_SECS) / CLOSES_SECS;
        while let Some(first) = self.closes.first_entry()
            && *first.key() < closed_before
        {
            let (unit, tickers) = first.remove_entry();
            for ticker in tickers {
                let still = self.markets.get(&ticker);
                if still.is_some_and(|entry| entry.close / CLOSES_SECS == unit) {
                    self.remove(&ticker);
                }
            }
        }
        while let Some(Reverse((at, _))) = self.drops.peek()
            && *at <= now
        {
            let Some(Reverse((at, ticker))) = self.drops.pop() else { return };
            // The drop may have been taken back, or put off, since.
            if self.drop_at.get(&ticker) == Some(&at) {
                self.remove(&ticker);
            }
        }
    }

    /// What came and what went since the last call.
    pub fn take_changes(&mut self) -> Option<Changes> {
        let none = self.changes.added.is_empty() && self.changes.removed.is_empty();
        (!none).then(|| std::mem::take(&mut self.changes))
    }

    fn add(&mut self, ticker: Ticker) -> &mut Entry {
        let Self { markets, changes, list, .. } = self;
        markets.entry(ticker).or_insert_with_key(|ticker| {
            if !changes.removed.remove(ticker) {
                changes.added.insert(ticker.clone());
            }
            Entry { close: 0, added_in: *list, seen_in: 0, missing: 0, over: false }
        })
    }

    fn remove(&mut self, ticker: &Ticker) {
        self.drop_at.remove(ticker);
        if self.markets.remove(ticker).is_some() && !self.changes.added.remove(ticker) {
            self.changes.removed.insert(ticker.clone());
        }
    }

    fn closes_at(&mut self, ticker: &Ticker, close: u32) {
        let Some(entry) = self.markets.get_mut(ticker) else { return };
        if entry.close != close {
            entry.close = close;
            if close > 0 {
                self.closes.entry(close / CLOSES_SECS).or_default().push(ticker.clone());
            }
        }
    }

    fn ends(&mut self, ticker: &Ticker, now: Instant) {
        let Some(entry) = self.markets.get_mut(ticker) else { return };
        if !entry.over {
            entry.over = true;
            let at = now + self.grace;
            self.drop_at.insert(ticker.clone(), at);
            self.drops.push(Reverse((at, ticker.clone())));
        }
    }
}

/// Unix seconds of a time; 0 without one, and the last of all after the year 2105.
fn seconds(at: Option<Micros>) -> u32 {
    at.map_or(0, |at| u32::try_from((at.0 / 1_000_000).max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
