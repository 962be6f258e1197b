//! What is generated, run on a clock of the test's own.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::generator::Generator;
use super::*;
use crate::model::Ticker;

const CHANGES: u64 = 60_000;

/// Runs a generator at about 20,000 changes a second of its clock, with births and deaths of
/// markets ten times as often as at that rate.
fn run(seed: u64, markets: usize) -> Venue {
    let mut venue = Venue::new(Arc::new(Ledger::default()));
    let mut generator = Generator::new(&mut venue, seed, (markets, 0), 2_000.0);
    let mut at = generator.clock();
    while generator.published < CHANGES {
        at = Micros(at.0 + 100);
        generator.step(&mut venue, at);
        assert!(generator.clock().0 - at.0 < 100_000, "times stay near the clock");
        at = at.max(generator.clock());
    }
    generator.finish(&mut venue);
    venue
}

#[test]
fn books_stay_whole_and_uncrossed() {
    let venue = run(1, 40);
    assert_eq!(venue.happenings.below_zero, 0);
    for market in &venue.catalog.markets {
        assert!(!market.book.is_crossed(), "{}: {:?}", market.ticker, market.book);
    }
    for books in venue.ledger.books() {
        assert_eq!(books.below_zero, 0);
        let served = venue.catalog.market(venue.catalog.find(books.ticker.as_str()).unwrap());
        let served = served.unwrap();
        if served.status == Status::Active {
            assert_eq!(served.book, books.folded, "{}", books.ticker);
        } else {
            assert!(served.book.is_empty());
        }
    }
}

#[test]
fn trades_take_exactly_what_leaves_the_makers_level() {
    let venue = run(2, 40);
    let mut reduced: HashMap<(Ticker, i64, Side, Price), i64> = HashMap::new();
    for row in venue.ledger.deltas(0, usize::MAX) {
        if row.size_delta.hundredths() < 0 {
            let key = (row.ticker, row.exchange_ts.0 / 1000, row.side, row.price);
            *reduced.entry(key).or_default() -= row.size_delta.hundredths();
        }
    }
    let mut traded: HashMap<(Ticker, i64, Side, Price), i64> = HashMap::new();
    let trades = venue.ledger.trades();
    let ids: HashSet<_> = trades.iter().map(|trade| trade.trade_id).collect();
    assert_eq!(ids.len(), trades.len());
    assert!(trades.len() > 500, "{}", trades.len());
    assert!(trades.iter().any(|trade| trade.is_block_trade));
    for trade in trades.iter().filter(|trade| !trade.is_block_trade) {
        assert_eq!(trade.price.micros() + trade.no_price.micros(), 1_000_000);
        let maker = if trade.taker_side.is_yes() { Side::No } else { Side::Yes };
        let key = (trade.ticker.clone(), trade.exchange_ts.0 / 1000, maker, trade.price);
        *traded.entry(key).or_default() += trade.size.hundredths();
    }
    for (key, size) in traded {
        assert_eq!(reduced.get(&key), Some(&size), "{key:?}");
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn the_flow_has_the_shape_of_the_real_one() {
    let venue = run(3, 200);
    let deltas = venue.ledger.deltas(0, usize::MAX);
    assert!(deltas.len() as u64 >= CHANGES);
    let share = |count: usize| count as f64 / deltas.len() as f64;

    let fractional = deltas.iter().filter(|row| row.size_delta.hundredths() % 100 != 0).count();
    assert!((0.04..0.30).contains(&share(fractional)), "fractional {}", share(fractional));
    let fine = deltas.iter().filter(|row| row.price.micros() % 10_000 != 0).count();
    assert!(fine > 100, "finer than a cent: {fine}");
    let identical = deltas.iter().filter(|row| row.occurrence > 1).count();
    assert!((0.0001..0.003).contains(&share(identical)), "identical {}", share(identical));

    let mut by_market: BTreeMap<&Ticker, usize> = BTreeMap::new();
    let mut by_millisecond: HashMap<(&Ticker, i64), usize> = HashMap::new();
    for row in &deltas {
        *by_market.entry(&row.ticker).or_default() += 1;
        *by_millisecond.entry((&row.ticker, row.exchange_ts.0 / 1000)).or_default() += 1;
    }
    let mut counts: Vec<_> = by_market.into_values().collect();
    counts.sort_unstable();
    assert!(share(*counts.last().unwrap()) > 0.1, "the busiest is busy");
    assert!(share(counts[counts.len() / 2]) < 0.005, "most are quiet");
    assert!(by_millisecond.values().any(|count| *count > 3));
    let ordered = deltas.windows(2).all(|pair| pair[0].exchange_ts <= pair[1].exchange_ts);
    assert!(ordered, "times never go back");

    let mut tickers: HashMap<(Ticker, i64), usize> = HashMap::new();
    for row in venue.ledger.tickers() {
        *tickers.entry((row.ticker, row.exchange_ts.0)).or_default() += 1;
    }
    assert!(tickers.len() > 1_000);
    assert!(tickers.values().any(|count| *count > 1), "two quotes of one millisecond");

    let lifecycle = venue.ledger.lifecycle();
    for kind in
        ["event_lifecycle", "created", "activated", "close_date_updated", "determined", "settled"]
    {
        // The event of the market that is born first is new when the last one was full.
        assert!(lifecycle.iter().any(|row| row.event_type == kind), "{kind}");
    }
    let born: Vec<_> = lifecycle.iter().filter(|row| row.event_type == "activated").collect();
    assert!(born.iter().any(|row| deltas.iter().any(|delta| delta.ticker == row.subject)));
}

#[test]
fn a_seed_means_one_order_of_events() {
    let order = |venue: &Venue| -> Vec<_> {
        let rows = venue.ledger.deltas(0, usize::MAX);
        rows.into_iter().map(|row| (row.ticker, row.side, row.price, row.size_delta)).collect()
    };
    let (first, again, other) = (run(4, 30), run(4, 30), run(5, 30));
    // Compared as a whole: printing thousands of rows helps nobody.
    assert!(order(&first) == order(&again), "the same seed, another order");
    assert!(order(&first) != order(&other), "another seed, the same order");
    let ids = |venue: &Venue| -> Vec<_> {
        venue.ledger.trades().into_iter().map(|trade| trade.trade_id).collect()
    };
    assert_eq!(ids(&first), ids(&again));
}
