//! Order books: changes, snapshots, and what shows that a book is wrong.

use tracing::error;

use super::stretches::opened;
use super::{CROSSED_SAMPLE, Interpreter, Output};
use crate::kalshi::decode::{DeltaMessage, SnapshotMessage};
use crate::log::journal::Position;
use crate::model::{
    Book, Channel, CoverageEnd, Delta, Micros, Place, Record, Snapshot, SnapshotSource,
};
use crate::role::gather::occurrence::Change;
use crate::role::gather::streams::{ClockReading, Ending, MarketId, MarketState, Stretch};

impl Interpreter {
    pub(super) fn delta(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        delta: DeltaMessage,
        out: &mut Output,
    ) {
        let Some(market) = self.markets.id(&delta.ticker) else { return };
        let Some(ticker) = self.markets.ticker(market) else { return };
        let clock = ClockReading { exchange_ts: delta.exchange_ts, received_at: at };
        self.clock = Some(clock);
        self.anchors.clock_known(at);
        self.markets.read_clock(market, clock);
        let stream = self.stream(place.session, place.sid, Channel::OrderbookDelta, at);
        let stream_id = stream.id;
        let state = stream.markets.entry(market).or_default();
        state.last_change = state.last_change.max(Some(delta.exchange_ts));
        if let Some(stretch) = &mut state.stretch
            && stretch.count(Some(delta.exchange_ts))
        {
            let key = (place.session, place.sid);
            let name = delta.ticker.clone();
            out.open.push((position, opened(key, name, Channel::OrderbookDelta, stretch)));
        }
        let waiting = std::mem::take(&mut state.waiting);
        let wrong = state
            .book
            .as_mut()
            .and_then(|book| book.apply(delta.side, delta.price, delta.size_delta).err());
        for ticket in waiting {
            self.anchors.next_change(ticket, delta.exchange_ts);
        }
        let occurrence = self.occurrences.next(Change {
            stream: stream_id,
            market,
            exchange_ts: delta.exchange_ts,
            side: delta.side,
            price: delta.price,
            size_delta: delta.size_delta,
        });
        out.rows.push((
            position,
            Record::Delta(Delta {
                ticker,
                exchange_ts: delta.exchange_ts,
                received_at: at,
                side: delta.side,
                price: delta.price,
                size_delta: delta.size_delta,
                occurrence,
                place,
            }),
        ));
        if let Some(wrong) = wrong {
            self.integrity_failure(position, place, at, market, &wrong.to_string(), out);
        }
    }

    /// In yes-leg prices every no level lies above the best yes bid. A crossed book now and then is
    /// the market's own; most of them crossed mean that `use_yes_price` was ignored, and that every
    /// no side means something else than we say.
    pub(super) fn look_for_crossed(&mut self, book: &Book) {
        if book.best_yes_bid().is_none() || book.best_yes_ask().is_none() {
            return;
        }
        self.counts.two_sided += 1;
        self.counts.crossed += u64::from(book.is_crossed());
        let (crossed, books) = (self.counts.crossed, self.counts.two_sided);
        if books >= CROSSED_SAMPLE && crossed * 2 > books && self.complaints.first("crossed") {
            error!(
                crossed,
                books,
                "most books are crossed: the exchange seems to ignore use_yes_price, so the prices \
                 of the no side are wrong from here on"
            );
        }
    }

    /// The book contradicts the exchange: say so, end the stretch, ask for a snapshot.
    pub(super) fn integrity_failure(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        market: MarketId,
        detail: &str,
        out: &mut Output,
    ) {
        self.counts.integrity_failures += 1;
        let Some(ticker) = self.markets.ticker(market) else { return };
        let (session, sid, seq) = (place.session, place.sid, place.seq);
        error!(market = %ticker, session, sid, seq, detail, "book contradicts the exchange");
        let ending = Ending { end: CoverageEnd::Integrity, at, detail };
        self.market_ends(position, (session, sid), market, ending, out);
        out.resync.push((session, ticker.as_str().to_owned()));
    }

    pub(super) fn snapshot(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        is_reply: bool,
        snapshot: SnapshotMessage,
        out: &mut Output,
    ) {
        let Some(market) = self.markets.id(&snapshot.ticker) else { return };
        let Some(ticker) = self.markets.ticker(market) else { return };
        let book = Book::from_levels(&snapshot.yes, &snapshot.no);
        self.look_for_crossed(&book);
        let key = (place.session, place.sid);
        let stream = self.stream(place.session, place.sid, Channel::OrderbookDelta, at);
        let state = stream.markets.entry(market).or_default();
        // Resting orders are not removed by changes when a market closes: the exchange sends an
        // empty book that nobody asked for.
        let closing = book.is_empty() && !is_reply;
        let differs = state.book.as_ref().filter(|_| !closing).map(|replayed| *replayed != book);
        if let Some(differs) = differs {
            self.counts.audits += 1;
            if differs {
                let detail = "the replayed book differs from the snapshot in its place";
                self.integrity_failure(position, place, at, market, detail, out);
                // The snapshot that showed it is the cure.
                out.resync.pop();
            }
        }
        let estimate = self.markets.clock(market).map(|clock| clock.at(at));
        let estimate = estimate.or(self.clock.map(|clock| clock.at(at)));
        let covering = self.covering;
        let stream = self.stream(place.session, place.sid, Channel::OrderbookDelta, at);
        let state: &mut MarketState = stream.markets.entry(market).or_default();
        if covering && state.stretch.is_none() {
            let stretch = state.stretch.insert(Stretch::new(at));
            let name = snapshot.ticker.clone();
            out.open.push((position, opened(key, name, Channel::OrderbookDelta, stretch)));
        }
        state.book = Some(book);
        let before = state.last_change;
        let row = Snapshot {
            ticker,
            received_at: at,
            anchor_ts: None,
            source: SnapshotSource::Ws,
            yes: snapshot.yes,
            no: snapshot.no,
            place,
        };
        let ticket = self.anchors.hold(row, position, before, estimate);
        let stream = self.stream(place.session, place.sid, Channel::OrderbookDelta, at);
        stream.markets.entry(market).or_default().waiting.push(ticket);
    }
}
