//! Every fault planted into an otherwise complete production must turn the verdict.

use uuid::Uuid;

use super::super::books::{At, Levels};
use super::*;

const MARKETS: [&str; 2] = ["KXA", "KXB"];

fn delta(ticker: &str, ts: i64, size_delta: i64, occurrence: i32) -> DeltaRow {
    let ticker = Arc::from(ticker);
    DeltaRow { ticker, exchange_ts: ts, is_yes: true, price: 480_000, size_delta, occurrence }
}

fn trade(id: u128, size: i64) -> TradeRow {
    TradeRow {
        trade_id: Uuid::from_u128(id),
        exchange_ts: 100,
        ticker: Arc::from("KXA"),
        price: 480_000,
        size,
        taker_is_yes: Some(true),
    }
}

fn levels(size: i64) -> Levels {
    let mut levels = Levels::default();
    levels.add(true, 480_000, size);
    levels
}

/// A ledger and a production that holds exactly it.
fn complete() -> (Expected, Found) {
    let mut expected = Expected {
        trades: vec![trade(1, 100), trade(2, 100)],
        tickers: vec![TickerRow { ticker: Arc::from("KXA"), exchange_ts: 5, content_hash: 7 }],
        lifecycle: vec![LifecycleRow {
            subject: Arc::from("KXA"),
            event_type: "created".to_owned(),
            content_hash: 9,
        }],
        ..Expected::default()
    };
    let mut snapshots = Vec::new();
    for market in MARKETS {
        for ts in [100, 200, 300] {
            // Two that are truly identical, and one more.
            expected.deltas.push(delta(market, ts, 10, 1));
            expected.deltas.push(delta(market, ts, 10, 2));
            expected.deltas.push(delta(market, ts, -5, 1));
        }
        let places = vec![
            Place { at: At::Time(250), levels: levels(30) },
            Place { at: At::End, levels: levels(45) },
        ];
        expected.places.insert(Arc::from(market), places);
        let anchored = Snapshot { anchor_ts: Some(99), received_at: 99, levels: levels(0) };
        snapshots.push((Arc::from(market), anchored));
    }
    let received = |row: &DeltaRow| ReceivedDelta { row: row.clone(), received_at: 0 };
    let found = Found {
        deltas: expected.deltas.iter().rev().map(received).collect(),
        trades: expected.trades.iter().rev().cloned().collect(),
        tickers: expected.tickers.clone(),
        lifecycle: expected.lifecycle.clone(),
        snapshots,
    };
    (expected, found)
}

/// Lost, duplicated and different books after a fault was planted.
fn after(plant: impl FnOnce(&mut Found)) -> (u64, u64, u64) {
    let (mut expected, mut found) = complete();
    plant(&mut found);
    let verdict = Verdict::new(&mut expected, found);
    let sums = (verdict.lost, verdict.duplicated, verdict.books.different);
    assert_eq!(verdict.is_complete(), sums == (0, 0, 0));
    assert_eq!(verdict.examples.is_empty(), verdict.is_complete());
    let word = if verdict.is_complete() { "complete: " } else { "incomplete: " };
    assert!(verdict.sentence().starts_with(word), "{}", verdict.sentence());
    sums
}

#[test]
fn what_is_complete_is_called_so() {
    assert_eq!(after(|_| {}), (0, 0, 0));
    let (mut expected, found) = complete();
    let verdict = Verdict::new(&mut expected, found);
    assert_eq!(verdict.published, verdict.production);
    assert_eq!(verdict.published.orderbook_deltas, 18);
    assert_eq!(verdict.books.compared, 4);
}

#[test]
fn a_market_that_is_copied_wrongly_shows() {
    let (mut expected, found) = complete();
    let mut verdict = Verdict::new(&mut expected, found);
    let examples = vec!["market KXA is missing in production".to_owned()];
    verdict.markets(MarketDiff { compared: 2, different: 1, examples });
    assert!(!verdict.is_complete() && verdict.examples.len() == 1);
    assert!(verdict.sentence().contains("1 markets different"), "{}", verdict.sentence());
}

#[test]
fn a_lost_row_of_each_table_shows() {
    // The last delta of the reversed rows is the first of KXA: both places of its book differ.
    assert_eq!(after(|found| drop(found.deltas.pop())), (1, 0, 2));
    assert_eq!(after(|found| drop(found.trades.pop())), (1, 0, 0));
    assert_eq!(after(|found| found.tickers.clear()), (1, 0, 0));
    assert_eq!(after(|found| found.lifecycle.clear()), (1, 0, 0));
}

#[test]
fn a_doubled_row_of_each_table_shows() {
    assert_eq!(after(|found| found.deltas.push(found.deltas[17].clone())), (0, 1, 2));
    assert_eq!(after(|found| found.trades.push(trade(1, 100))), (0, 1, 0));
    assert_eq!(after(|found| found.tickers.extend(found.tickers.clone())), (0, 1, 0));
    assert_eq!(after(|found| found.lifecycle.extend(found.lifecycle.clone())), (0, 1, 0));
}

#[test]
fn a_wrong_content_is_one_lost_and_one_unknown() {
    assert_eq!(after(|found| found.trades[0].size = 101), (1, 1, 0));
    assert_eq!(after(|found| found.trades[0].taker_is_yes = None), (1, 1, 0));
    assert_eq!(after(|found| found.tickers[0].content_hash = 8), (1, 1, 0));
    assert_eq!(after(|found| found.lifecycle[0].event_type.push('x')), (1, 1, 0));
    // An ordinal alone leaves the book as it is, and is a fault all the same.
    assert_eq!(after(|found| found.deltas[0].row.occurrence = 9), (1, 1, 0));
}

#[test]
fn a_wrong_book_shows() {
    assert_eq!(after(|found| found.snapshots[0].1.levels.add(true, 1, 1)), (0, 0, 2));
    assert_eq!(after(|found| found.snapshots[1].1.anchor_ts = None), (0, 0, 2));
}

#[test]
fn a_log_with_a_hole_shows() {
    let (mut expected, found) = complete();
    let mut verdict = Verdict::new(&mut expected, found);
    let dense = Density { log: Log::Trades, head: 2, rows: 2, min: 1, max: 2 };
    verdict.numbers("production", &[dense]);
    assert!(verdict.is_complete());
    verdict.numbers("gatherer-1", &[Density { max: 3, ..dense }]);
    assert!(!verdict.is_complete());
    assert_eq!(verdict.not_dense, ["trades of gatherer-1"]);
}

fn stretch(first: i64, last: i64) -> Stretch {
    Stretch { ticker: Arc::from("KXA"), first_exchange_ts: first, last_exchange_ts: last }
}

#[test]
fn what_a_gatherer_missed_must_lie_outside_its_coverage() {
    let (mut expected, found) = complete();
    let mut own = found.deltas.clone();
    let mut verdict = Verdict::new(&mut expected, found);
    verdict.witness("gatherer-1", 0, &expected, &own, &[stretch(100, 300)]);
    assert_eq!(verdict.witnesses[0].missed, 0);

    // It missed the first of two identical ones and so counts the second as the first.
    own.retain(|d| !(&*d.row.ticker == "KXA" && d.row.exchange_ts == 200 && d.row.occurrence == 1));
    for delta in &mut own {
        delta.row.occurrence = 1;
    }
    let outside = [stretch(100, 200), stretch(200, 300)];
    verdict.witness("gatherer-2", 1, &expected, &own, &outside);
    let expected_witness = Witness {
        id: "gatherer-2".to_owned(),
        received: 16,
        missed: 2,
        unsent: 0,
        invented: 0,
        coverage_violations: 0,
    };
    assert_eq!(verdict.witnesses[1], expected_witness);
    assert!(verdict.is_complete());

    verdict.witness("gatherer-3", 2, &expected, &own, &[stretch(100, 300)]);
    assert_eq!(verdict.witnesses[2].coverage_violations, 2);
    assert!(!verdict.is_complete());
    assert!(verdict.examples[0].starts_with("missed by gatherer-3 inside"));
}

#[test]
fn what_a_gatherer_was_not_sent_it_cannot_have() {
    let (mut expected, found) = complete();
    let own = found.deltas.clone();
    let mut without_first = own.clone();
    let first = without_first.remove(0);
    let mut verdict = Verdict::new(&mut expected, found);
    expected.unsent = vec![vec![first.row.clone()]];
    verdict.witness("gatherer-1", 0, &expected, &without_first, &[]);
    assert_eq!((verdict.witnesses[0].unsent, verdict.witnesses[0].invented), (1, 0));
    assert!(verdict.is_complete());

    verdict.witness("gatherer-1", 0, &expected, &own, &[]);
    assert_eq!(verdict.witnesses[1].invented, 1);
    assert!(!verdict.is_complete());
    assert!(verdict.examples[0].contains("was never sent it"), "{:?}", verdict.examples);

    let mut twice = own.clone();
    twice.push(own[0].clone());
    let (mut expected, found) = complete();
    let mut verdict = Verdict::new(&mut expected, found);
    verdict.witness("gatherer-1", 0, &expected, &twice, &[]);
    assert_eq!(verdict.witnesses[0].invented, 1, "a frame that came twice is one change");
}

#[test]
fn at_most_ten_examples_of_each_kind_are_kept() {
    let (mut expected, mut found) = complete();
    found.deltas.clear();
    let verdict = Verdict::new(&mut expected, found);
    assert_eq!(verdict.lost, 18);
    let lost = verdict.examples.iter().filter(|text| text.starts_with("lost from")).count();
    assert_eq!(lost, EXAMPLES_MAX);
}
