//! Turns the exchange's ledger into what production must hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Book, Side, Ticker};

use super::books::{At, Levels, Place};
use super::exchange::{Ledger, LedgerDelta, PlaceKind};
use super::rows::{DeltaRow, LifecycleRow, TickerRow, TradeRow};
use super::verdict::Expected;

/// Changes copied from the ledger in one go.
const CHUNK_ROWS: usize = 100_000;
/// How long after a market's first change its changes may go unheard, when it was made during the
/// run: recorders learn of it by a message and need a moment to subscribe.
const NEW_MARKET_MICROS_MAX: i64 = 5_000_000;

/// What production must hold, and how many changes nobody could have received; also what each of
/// `keys` accounts was not sent.
pub fn from_ledger(ledger: &Ledger, keys: usize, is_replay: bool) -> (Expected, u64) {
    let mut names = Names::default();
    let mut deltas = Vec::new();
    while let chunk @ [_, ..] = ledger.deltas(deltas.len(), CHUNK_ROWS).as_slice() {
        deltas.extend_from_slice(chunk);
    }
    let lifecycle = ledger.lifecycle();
    let created: HashSet<Ticker> = lifecycle
        .iter()
        .filter(|row| row.event_type == "created")
        .map(|row| row.subject.clone())
        .collect();
    let mut places = places(ledger, &deltas, &mut names);
    let unheard_of: HashSet<Arc<str>> = deltas
        .iter()
        .filter(|delta| delta.receivers.is_empty())
        .map(|delta| names.get(&delta.ticker))
        .collect();
    // Nothing can be folded across a change that nobody was sent.
    for (ticker, places) in &mut places {
        if unheard_of.contains(ticker) {
            places.retain(|place| place.at != At::WholeFold);
        }
    }
    let (heard, unheard) = split_unheard(deltas, &created);
    let mut delta_rows = Vec::with_capacity(heard.len());
    let mut unsent = vec![Vec::new(); keys];
    for delta in &heard {
        let row = DeltaRow {
            ticker: names.get(&delta.ticker),
            exchange_ts: delta.exchange_ts.0,
            is_yes: delta.side.is_yes(),
            price: delta.price.micros(),
            size_delta: delta.size_delta.hundredths(),
            occurrence: delta.occurrence,
        };
        for (key, unsent) in unsent.iter_mut().enumerate() {
            if !delta.receivers.contains(key) {
                unsent.push(row.clone());
            }
        }
        delta_rows.push(row);
    }
    let trades = ledger
        .trades()
        .into_iter()
        .map(|trade| TradeRow {
            trade_id: trade.trade_id,
            exchange_ts: trade.exchange_ts.0,
            ticker: names.get(&trade.ticker),
            price: trade.price.micros(),
            size: trade.size.hundredths(),
            taker_is_yes: Some(trade.taker_side.is_yes()),
        })
        .collect();
    let tickers = ledger
        .tickers()
        .into_iter()
        .map(|row| TickerRow {
            ticker: names.get(&row.ticker),
            exchange_ts: row.exchange_ts.0,
            content_hash: row.content_hash,
        })
        .collect();
    let lifecycle = lifecycle
        .into_iter()
        // What is about multivariate markets goes to those alone who asked for it.
        .filter(|row| !row.multivariate || !row.receivers.is_empty())
        .map(|row| LifecycleRow {
            subject: names.get(&row.subject),
            event_type: row.event_type,
            content_hash: row.content_hash,
        })
        .collect();
    let expected =
        Expected { deltas: delta_rows, unsent, trades, tickers, lifecycle, places, is_replay };
    (expected, unheard)
}

/// Sets apart the first changes of new markets that went out before anybody could subscribe. What
/// nobody heard at any other time stays: somebody should have.
fn split_unheard(deltas: Vec<LedgerDelta>, created: &HashSet<Ticker>) -> (Vec<LedgerDelta>, u64) {
    // Per new market the time of its first change, until one is heard.
    let mut waiting: HashMap<Ticker, Option<i64>> = HashMap::new();
    let mut unheard = 0;
    let heard = deltas
        .into_iter()
        .filter(|delta| {
            if !created.contains(&delta.ticker) {
                return true;
            }
            let at = delta.exchange_ts.0;
            let first = waiting.entry(delta.ticker.clone()).or_insert(Some(at));
            let is_excused = delta.receivers.is_empty()
                && first.is_some_and(|first| at - first <= NEW_MARKET_MICROS_MAX);
            if is_excused {
                unheard += 1;
            } else {
                *first = None;
            }
            !is_excused
        })
        .collect();
    (heard, unheard)
}

/// Every moment at which the ledger states a market's book.
fn places(
    ledger: &Ledger,
    deltas: &[LedgerDelta],
    names: &mut Names,
) -> BTreeMap<Arc<str>, Vec<Place>> {
    let mut by_market: HashMap<&Ticker, Vec<&LedgerDelta>> = HashMap::new();
    for delta in deltas {
        by_market.entry(&delta.ticker).or_default().push(delta);
    }
    let mut all: BTreeMap<Arc<str>, Vec<Place>> = BTreeMap::new();
    // What a close took off the book without any change, and whether anybody was told.
    let mut closed: HashMap<Ticker, (Book, bool)> = HashMap::new();
    for place in ledger.places() {
        if let PlaceKind::Closed { heard } = place.kind {
            let told = closed.get(&place.ticker).is_some_and(|(_, told)| *told);
            closed.insert(place.ticker, (place.folded, heard || told));
            continue;
        }
        let changes = by_market.get(&place.ticker).map(Vec::as_slice).unwrap_or_default();
        let before = usize::try_from(place.deltas_before).unwrap_or(usize::MAX);
        let after = changes.get(before..).unwrap_or_default();
        let mut levels = levels(&place.stated);
        let at = match (place.last_exchange_ts, after.first()) {
            (_, None) => At::End,
            (None, Some(next)) => At::Time(next.exchange_ts.0 - 1),
            (Some(last), Some(_)) => {
                // Changes of the same microsecond cannot be told from those before it.
                for delta in after.iter().take_while(|delta| delta.exchange_ts <= last) {
                    add(&mut levels, delta);
                }
                At::Time(last.0)
            }
        };
        all.entry(names.get(&place.ticker)).or_default().push(Place { at, levels });
    }
    for market in ledger.books() {
        let of_market = all.entry(names.get(&market.ticker)).or_default();
        let folded = levels(&market.folded);
        let mut end = folded.clone();
        let close = closed.get(&market.ticker);
        if let Some((taken, _)) = close {
            for (side, price, size) in each_level(taken) {
                end.add(side.is_yes(), price, -size);
            }
        }
        if market.deltas > 0 {
            of_market.push(Place { at: At::WholeFold, levels: folded });
        }
        // Of a market that closed while nobody was connected nobody can know that its book is gone.
        if close.is_none_or(|(_, told)| *told) {
            of_market.push(Place { at: At::End, levels: end });
        }
    }
    all
}

fn add(levels: &mut Levels, delta: &LedgerDelta) {
    levels.add(delta.side.is_yes(), delta.price.micros(), delta.size_delta.hundredths());
}

fn each_level(book: &Book) -> impl Iterator<Item = (Side, i64, i64)> + '_ {
    [Side::Yes, Side::No].into_iter().flat_map(|side| {
        book.levels(side).map(move |(price, size)| (side, price.micros(), size.hundredths()))
    })
}

fn levels(book: &Book) -> Levels {
    let mut levels = Levels::default();
    for (side, price, size) in each_level(book) {
        levels.add(side.is_yes(), price, size);
    }
    levels
}

/// One copy of each market's name.
#[derive(Debug, Default)]
struct Names(HashMap<Ticker, Arc<str>>);

impl Names {
    fn get(&mut self, ticker: &Ticker) -> Arc<str> {
        if let Some(name) = self.0.get(ticker) {
            return Arc::clone(name);
        }
        let name: Arc<str> = Arc::from(ticker.as_str());
        self.0.insert(ticker.clone(), Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Micros, Price, Size};

    fn delta(ticker: &str, at: i64, receivers: usize) -> LedgerDelta {
        LedgerDelta {
            ticker: Ticker::parse(ticker).unwrap(),
            exchange_ts: Micros(at),
            side: Side::Yes,
            price: Price::from_micros(10_000),
            size_delta: Size::from_hundredths(100),
            occurrence: 1,
            synthetic: false,
            receivers: (0..receivers).collect(),
        }
    }

    #[test]
    fn only_the_first_moments_of_new_markets_may_go_unheard() {
        let created = HashSet::from([Ticker::parse("NEW").unwrap()]);
        let split = |deltas: Vec<LedgerDelta>| split_unheard(deltas, &created).1;
        assert_eq!(split(vec![delta("NEW", 0, 0), delta("NEW", 10, 3), delta("NEW", 20, 3)]), 1);
        assert_eq!(split(vec![delta("OLD", 0, 0)]), 0, "an old market has no excuse");
        let later = vec![delta("NEW", 0, 3), delta("NEW", 10, 0)];
        assert_eq!(split(later), 0, "it was heard before");
        let slow = vec![delta("NEW", 0, 0), delta("NEW", NEW_MARKET_MICROS_MAX + 1, 0)];
        assert_eq!(split(slow), 1, "nobody came in time");
    }
}
