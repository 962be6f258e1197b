//! Placing snapshots in the exchange's time, which they do not carry.
//!
//! A snapshot's anchor is one microsecond before the market's next change in the same stream. Its
//! row waits for that, so rows leave in journal order; the log's journal position waits with them.

use std::collections::VecDeque;

use crate::log::journal::Position;
use crate::model::{Micros, Snapshot};

/// How long a snapshot waits for the market's next change, in microseconds of our clock.
const WAIT_MICROS: i64 = 5_000_000;
/// How long it waits while no frame has told the exchange's time yet. Then the time of receipt is
/// all there is.
const UNKNOWN_CLOCK_WAIT_MICROS: i64 = 60_000_000;

/// A snapshot that waits, named by a number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Waiting {
    snapshot: Snapshot,
    position: Position,
    /// The exchange's time at receipt, as far as it can be told: the anchor if nothing comes.
    fallback: Option<Micros>,
    /// The market's newest change before the snapshot.
    before: Option<Micros>,
    /// Whether it is the empty book that ends a market's trading.
    closing: bool,
    resolved: bool,
}

/// The snapshots that wait for their anchors, oldest first.
#[derive(Debug, Default)]
pub struct Anchors {
    waiting: VecDeque<Waiting>,
    /// Ticket of the first one.
    first: u64,
    /// Our clock when a frame first told the exchange's time.
    clock_since: Option<Micros>,
}

impl Anchors {
    /// Takes a snapshot. `before` is the exchange time of the market's newest change before it in
    /// the stream, `estimate` the exchange's time at its receipt when it can be told. A `closing` one
    /// ends the market's trading: no change follows, so that a place that is a little late is right.
    pub fn hold(
        &mut self,
        snapshot: Snapshot,
        position: Position,
        before: Option<Micros>,
        estimate: Option<Micros>,
        closing: bool,
    ) -> Ticket {
        let ticket = Ticket(self.first + u64::try_from(self.waiting.len()).unwrap_or_default());
        let fallback = estimate.max(before);
        let waiting = Waiting { snapshot, position, fallback, before, closing, resolved: false };
        self.waiting.push_back(waiting);
        ticket
    }

    /// A frame told the exchange's time.
    pub fn clock_known(&mut self, received_at: Micros) {
        self.clock_since.get_or_insert(received_at);
    }

    /// The market's next change came, at `exchange_ts`.
    pub fn next_change(&mut self, ticket: Ticket, exchange_ts: Micros) {
        let Some(waiting) = self.get(ticket) else { return };
        // Between two changes of one microsecond no time tells the snapshot's place.
        let splits = waiting.before.is_some_and(|before| before >= exchange_ts);
        waiting.snapshot.anchor_ts = (!splits).then_some(Micros(exchange_ts.0 - 1));
        waiting.resolved = true;
    }

    /// The stream ended or has a hole: the next change that we see may not be the next there was, and
    /// a change that we did not see may lie before the estimate.
    pub fn give_up(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.get(ticket) {
            waiting.snapshot.anchor_ts = waiting.fallback.filter(|_| waiting.closing);
            waiting.resolved = true;
        }
    }

    /// The snapshots that leave, in order, when our clock (by the journal's records) is `now`.
    /// `estimate` tells the exchange's time at a moment of ours, as far as it is known by now.
    pub fn release(
        &mut self,
        now: Micros,
        estimate: impl Fn(Micros) -> Option<Micros>,
        mut out: impl FnMut(Snapshot, Position),
    ) {
        while let Some(waiting) = self.waiting.front_mut() {
            if !waiting.resolved {
                let received_at = waiting.snapshot.received_at;
                let deadline = match self.clock_since {
                    Some(since) => since.max(received_at).0 + WAIT_MICROS,
                    None => received_at.0 + UNKNOWN_CLOCK_WAIT_MICROS,
                };
                // A clock that was set back since makes no snapshot wait for ever.
                let set_back = now.0 < received_at.0 - WAIT_MICROS;
                if now.0 < deadline && !set_back {
                    return;
                }
                let placed = waiting.fallback.or_else(|| estimate(received_at));
                waiting.snapshot.anchor_ts = Some(placed.unwrap_or(received_at));
            }
            if let Some(waiting) = self.waiting.pop_front() {
                self.first += 1;
                out(waiting.snapshot, waiting.position);
            }
        }
    }

    /// Whether a snapshot still waits.
    pub fn waits(&self, ticket: Ticket) -> bool {
        ticket.0 >= self.first
    }

    /// How many wait.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Where the oldest one that waits stands in the journal.
    pub fn oldest(&self) -> Option<Position> {
        self.waiting.front().map(|waiting| waiting.position)
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        let index = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(index).filter(|waiting| !waiting.resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Place, SnapshotSource, Ticker};

    fn snapshot(received_at: i64) -> Snapshot {
        Snapshot {
            ticker: Ticker::parse("T").unwrap(),
            received_at: Micros(received_at),
            anchor_ts: None,
            source: SnapshotSource::Ws,
            yes: Vec::new(),
            no: Vec::new(),
            place: Place { session: 1, sid: 1, seq: 1 },
        }
    }

    fn released(anchors: &mut Anchors, now: i64) -> Vec<Option<i64>> {
        let mut out = Vec::new();
        anchors.release(
            Micros(now),
            |at| Some(Micros(at.0 + 7)),
            |snapshot, _| {
                out.push(snapshot.anchor_ts.map(|at| at.0));
            },
        );
        out
    }

    #[test]
    fn the_next_change_places_it_and_order_is_kept() {
        let mut anchors = Anchors::default();
        anchors.clock_known(Micros(1000));
        let first = anchors.hold(snapshot(1000), Position(1), Some(Micros(800)), None, false);
        let second = anchors.hold(snapshot(1001), Position(2), Some(Micros(900)), None, false);
        anchors.next_change(second, Micros(900));
        assert_eq!(released(&mut anchors, 1002), []);
        assert_eq!(anchors.oldest(), Some(Position(1)));
        anchors.next_change(first, Micros(801));
        anchors.next_change(first, Micros(999));
        assert_eq!(released(&mut anchors, 1002), [Some(800), None]);
        assert_eq!(anchors.oldest(), None);
    }

    #[test]
    fn a_quiet_market_is_placed_by_the_clock_never_before_its_last_change() {
        let mut anchors = Anchors::default();
        anchors.clock_known(Micros(0));
        anchors.hold(snapshot(1000), Position(1), Some(Micros(1500)), Some(Micros(1200)), false);
        anchors.hold(snapshot(1000), Position(2), None, None, false);
        assert_eq!(released(&mut anchors, 5_000_999), []);
        assert_eq!(released(&mut anchors, 5_001_000), [Some(1500), Some(1007)]);
    }

    #[test]
    fn a_closing_book_has_its_place_although_the_stream_ends() {
        let mut anchors = Anchors::default();
        anchors.clock_known(Micros(0));
        let closing =
            anchors.hold(snapshot(9), Position(1), Some(Micros(5)), Some(Micros(8)), true);
        let other = anchors.hold(snapshot(9), Position(2), Some(Micros(5)), Some(Micros(8)), false);
        anchors.give_up(closing);
        anchors.give_up(other);
        assert_eq!(released(&mut anchors, 10), [Some(8), None]);
    }

    #[test]
    fn without_the_exchanges_clock_it_waits_for_it() {
        let mut anchors = Anchors::default();
        let ticket = anchors.hold(snapshot(0), Position(1), None, None, false);
        assert_eq!(released(&mut anchors, 20_000_000), []);
        anchors.clock_known(Micros(20_000_000));
        assert_eq!(released(&mut anchors, 24_000_000), []);
        anchors.give_up(ticket);
        assert_eq!(released(&mut anchors, 24_000_000), [None]);
    }
}
