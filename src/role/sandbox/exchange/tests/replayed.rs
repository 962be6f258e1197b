//! The recorded windows, replayed without sockets and compared with the files read another way.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

pub(super) use self::recorded::windows;
use super::super::capture::Capture;
use super::super::ledger::PlaceKind;
use super::super::replay::Replay;
use super::*;

#[path = "../../../../../tests/support/capture.rs"]
mod recorded;

/// Shows each frame of a file, parsed as plain JSON.
fn each_frame(path: &Path, mut show: impl FnMut(&Value)) {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    for line in text.lines() {
        show(&serde_json::from_str::<Value>(line).unwrap()["event"]);
    }
}

/// A file's market folded in the plainest way.
#[derive(Default)]
struct Plainly {
    ticker: String,
    book: Option<Folded>,
    /// The book at every snapshot after the first.
    at_places: Vec<Folded>,
}

impl Plainly {
    fn take(&mut self, frame: &Value) {
        match (&mut self.book, frame["type"].as_str().unwrap()) {
            (None, "orderbook_snapshot") => {
                frame["msg"]["market_ticker"].as_str().unwrap().clone_into(&mut self.ticker);
                self.book = Some(Folded::stated(frame));
            }
            (Some(book), "orderbook_snapshot") => {
                let stated = Folded::stated(frame);
                if stated != Folded::default() {
                    *book = stated;
                }
                self.at_places.push(book.clone());
            }
            (Some(book), _) => book.take(frame),
            (None, _) => {}
        }
    }
}

/// A change as text says it: ticker, time, side, price in millionths, size in hundredths.
type Plain = (String, String, String, i64, i64);

fn plain(msg: &Value) -> Plain {
    let text = |key: &str| msg[key].as_str().unwrap().to_owned();
    let millionths = Price::parse(&text("price_dollars")).unwrap().micros();
    let price = if text("side") == "no" { 1_000_000 - millionths } else { millionths };
    let size = Size::parse_signed(&text("delta_fp")).unwrap().hundredths();
    (text("market_ticker"), text("ts"), text("side"), price, size)
}

#[test]
fn the_ledger_holds_exactly_what_the_files_hold() {
    let files = windows();
    let mut venue = Venue::new(Arc::new(Ledger::default()));
    let mut replay = Replay::list(&mut venue, Capture::read(&files).unwrap());
    for fact in replay.facts().to_vec() {
        replay.publish(&mut venue, &fact);
    }

    let mut expected: HashMap<Plain, usize> = HashMap::new();
    let mut trades: BTreeMap<String, Value> = BTreeMap::new();
    let (mut deltas, mut snapshots) = (0, 0);
    let mut folded: Vec<Plainly> = Vec::new();
    for file in &files {
        let mut plainly = Plainly::default();
        each_frame(file, |frame| {
            plainly.take(frame);
            match frame["type"].as_str().unwrap() {
                "orderbook_delta" => {
                    *expected.entry(plain(&frame["msg"])).or_default() += 1;
                    deltas += 1;
                }
                "trade" => {
                    let id = frame["msg"]["trade_id"].as_str().unwrap().to_owned();
                    assert!(trades.insert(id, frame["msg"].clone()).is_none());
                }
                _ => snapshots += 1,
            }
        });
        folded.push(plainly);
    }

    let mut found: HashMap<Plain, Vec<i32>> = HashMap::new();
    let mut synthetic = 0;
    for row in venue.ledger.deltas(0, usize::MAX) {
        if row.synthetic {
            synthetic += 1;
            continue;
        }
        let key = (
            row.ticker.as_str().to_owned(),
            super::super::frames::cut_time(row.exchange_ts),
            row.side.to_string(),
            row.price.micros(),
            row.size_delta.hundredths(),
        );
        found.entry(key).or_default().push(row.occurrence);
    }
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), deltas);
    assert_eq!(found.len(), expected.len());
    for (key, occurrences) in found {
        let ordinals: Vec<i32> = (1..=i32::try_from(expected[&key]).unwrap()).collect();
        assert_eq!(occurrences, ordinals, "{key:?}");
    }
    eprintln!(
        "replayed {} files: {deltas} changes, {} trades, {snapshots} snapshots, {synthetic} corrections",
        files.len(),
        trades.len()
    );

    let published = venue.ledger.trades();
    assert_eq!(published.len(), trades.len());
    for trade in published {
        let msg = &trades[&trade.trade_id.to_string()];
        assert_eq!(msg["count_fp"], trade.size.to_string());
        assert_eq!(msg["yes_price_dollars"], trade.price.to_string());
        assert_eq!(msg["taker_outcome_side"], trade.taker_side.to_string());
        assert_eq!(msg["ts_ms"], trade.exchange_ts.0 / 1000);
        assert_eq!(trade.created.0 / 1000, trade.exchange_ts.0 / 1000);
    }
    assert_eq!(venue.happenings.below_zero, 0, "no recorded change takes a level below zero");

    // The first snapshot of each file is the initial book; each further one is a place.
    let places = venue.ledger.places();
    assert_eq!(places.len(), snapshots - files.len());
    for place in &places {
        match place.kind {
            PlaceKind::Resubscribed => assert_eq!(place.folded, place.stated, "{}", place.ticker),
            PlaceKind::Closed { .. } => assert!(place.stated.is_empty()),
        }
    }
    let books = venue.ledger.books();
    for plainly in &folded {
        let own = places.iter().filter(|place| place.ticker.as_str() == plainly.ticker);
        let own: Vec<_> = own.map(|place| shown(&place.folded)).collect();
        assert_eq!(own, plainly.at_places, "{}", plainly.ticker);
        let last = books.iter().find(|books| books.ticker.as_str() == plainly.ticker).unwrap();
        assert_eq!(Some(shown(&last.folded)), plainly.book, "{}", plainly.ticker);
    }
    for market in &venue.catalog.markets {
        assert_eq!(market.status, Status::Finalized);
    }
}

/// A book in the prices of the files.
fn shown(book: &Book) -> Folded {
    let mut all = Folded::default();
    for side in [Side::Yes, Side::No] {
        for (price, size) in super::super::market::shown_levels(book, side, false) {
            all.0.insert((side.to_string(), price), size);
        }
    }
    all
}
