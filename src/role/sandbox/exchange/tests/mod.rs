//! Tests of the exchange: the protocol on the state alone, the flow, the replay, and all of it over
//! real sockets.

mod flow;
mod listing;
mod live;
mod outages;
mod protocol;
mod replayed;
mod scale;
mod troubles;

use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::frames::Change;
use super::ledger::Ledger;
use super::market::{ConnectionId, Event, Listing, MarketId, Status};
use super::outbox::Outbox;
use super::universe::ticker;
use super::venue::Venue;
use crate::model::{Book, Micros, Price, Side, Size};

/// 2026-08-05T03:45:40.722003Z.
const T0: Micros = Micros(1_785_901_540_722_003);

fn level(price: &str, size: &str) -> (Price, Size) {
    (Price::parse(price).unwrap(), Size::parse(size).unwrap())
}

fn change(micros: i64, side: Side, price: &str, size: &str) -> Change {
    Change {
        at: Micros(T0.0 + micros),
        side,
        price: Price::parse(price).unwrap(),
        size_delta: Size::parse_signed(size).unwrap(),
    }
}

/// A state with markets `M-0`, `M-1`, ... of one event; the even ones have a book.
fn venue(markets: usize) -> Venue {
    let mut venue = Venue::new(Arc::new(Ledger::default()));
    let series = venue.catalog.series_index(&ticker("S"), "Series", "Tests");
    let event = venue.catalog.add_event(Event {
        ticker: ticker("E"),
        series,
        title: "Event".to_owned(),
        updated: T0,
        markets: Vec::new(),
        template: None,
    });
    for number in 0..markets {
        let book = if number % 2 == 0 {
            Book::from_levels(
                &[level("0.08", "300"), level("0.22", "333.5")],
                &[level("0.44", "146"), level("0.46", "20")],
            )
        } else {
            Book::default()
        };
        venue.list(Listing {
            ticker: ticker(&format!("M-{number}")),
            uuid: uuid::Uuid::nil(),
            event,
            book,
            tick_micros: 10_000,
            status: Status::Active,
            since: T0,
            close: T0,
            template: None,
            collection: None,
        });
    }
    venue
}

/// A client without a socket: commands go in, frames come out of the outbox.
struct Client {
    id: ConnectionId,
    outbox: Arc<Outbox>,
}

impl Client {
    fn connect(venue: &mut Venue, key: usize) -> Self {
        let outbox = Arc::new(Outbox::default());
        let id = venue.connect(key, Arc::clone(&outbox), CancellationToken::new());
        Self { id, outbox }
    }

    fn command(&self, venue: &mut Venue, command: Value) -> Vec<Value> {
        venue.command(self.id, &command.to_string());
        self.frames()
    }

    /// All frames since the last call, which are all JSON.
    fn frames(&self) -> Vec<Value> {
        self.raw().iter().map(|payload| serde_json::from_slice(payload).unwrap()).collect()
    }

    /// The payloads of all text frames since the last call.
    fn raw(&self) -> Vec<Vec<u8>> {
        let text = |(first, payload)| {
            assert_eq!(first, 0x81, "an unfragmented text frame");
            payload
        };
        self.raw_frames().into_iter().map(text).collect()
    }

    /// All frames since the last call, each with its first byte.
    fn raw_frames(&self) -> Vec<(u8, Vec<u8>)> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.outbox.try_next() {
            bytes.extend(chunk);
        }
        let mut frames = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (header, len) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                127 => {
                    let len = u64::from_be_bytes(rest[2..10].try_into().unwrap());
                    (10, usize::try_from(len).unwrap())
                }
                len => (2, usize::from(len)),
            };
            frames.push((rest[0], rest[header..header + len].to_vec()));
            rest = &rest[header + len..];
        }
        frames
    }
}

/// The market `M-n`.
fn id(number: u32) -> MarketId {
    MarketId(number)
}

/// The book that frames of one market add up to, in the prices that they show.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Folded(std::collections::BTreeMap<(String, Price), Size>);

impl Folded {
    fn take(&mut self, frame: &Value) {
        let msg = &frame["msg"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        match frame["type"].as_str() {
            Some("orderbook_snapshot") => *self = Self::stated(frame),
            Some("orderbook_delta") => {
                let price = Price::parse(&text(&msg["price_dollars"])).unwrap();
                let key = (text(&msg["side"]), price);
                let delta = Size::parse_signed(&text(&msg["delta_fp"])).unwrap();
                let before = self.0.get(&key).copied().unwrap_or_default();
                let after = before.hundredths() + delta.hundredths();
                assert!(after >= 0, "a level below zero: {frame}");
                if after == 0 {
                    self.0.remove(&key);
                } else {
                    self.0.insert(key, Size::from_hundredths(after));
                }
            }
            _ => {}
        }
    }

    fn stated(snapshot: &Value) -> Self {
        let mut all = Self::default();
        for (key, side) in [("yes_dollars_fp", "yes"), ("no_dollars_fp", "no")] {
            let levels = snapshot["msg"][key].as_array().cloned().unwrap_or_default();
            let mut last = None;
            for pair in &levels {
                let (price, size) = level(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
                assert!(last < Some(price), "levels ascend: {snapshot}");
                last = Some(price);
                all.0.insert((side.to_owned(), price), size);
            }
            assert!(snapshot["msg"].get(key).is_none() || !levels.is_empty());
        }
        all
    }
}
