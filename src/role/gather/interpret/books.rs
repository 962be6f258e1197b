//! Order books: changes, snapshots, and what shows that a book is wrong.

use tracing::error;

use super::stretches::opened;
use super::{CHANGES_WITHOUT_SNAPSHOT_MAX, CROSSED_SAMPLE, Interpreter, Output, stream_of};
use crate::kalshi::decode::{DeltaMessage, SnapshotMessage};
use crate::log::journal::Position;
use crate::model::{
    Book, Channel, CoverageEnd, Delta, Micros, Place, Record, Snapshot, SnapshotSource, Ticker,
};
use crate::role::gather::exchange_time::Offset;
use crate::role::gather::occurrence::Change;
use crate::role::gather::streams::{Ending, Stretch};

impl Interpreter {
    pub(super) fn delta(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        delta: DeltaMessage,
        out: &mut Output,
    ) {
        let Self { sessions, anchors, occurrences, markets_made, .. } = self;
        let stream = stream_of(sessions, place.session, place.sid, Channel::OrderbookDelta, at);
        let Some((state, is_new)) = stream.market(&delta.ticker, markets_made) else { return };
        Offset::take(&mut self.offset, delta.exchange_ts, at);
        anchors.clock_known(at);
        Offset::take(&mut state.offset, delta.exchange_ts, at);
        state.last_change = state.last_change.max(Some(delta.exchange_ts));
        state.changes += 1;
        if is_new || state.changes >= CHANGES_WITHOUT_SNAPSHOT_MAX {
            state.changes = 0;
            // New: a snapshot comes first: this one's is lost or stood before where we began to read.
            out.resync.push((place.session, state.ticker.clone()));
        }
        if let Some(stretch) = &mut state.stretch
            && stretch.count(Some(delta.exchange_ts))
        {
            let key = (place.session, place.sid);
            out.open.push((position, opened(key, delta.ticker, Channel::OrderbookDelta, stretch)));
        }
        for ticket in state.waiting.drain(..) {
            anchors.next_change(ticket, delta.exchange_ts);
        }
        let wrong = state
            .book
            .as_mut()
            .and_then(|book| book.apply(delta.side, delta.price, delta.size_delta).err());
        let occurrence = occurrences.next(Change {
            market: state.number,
            exchange_ts: delta.exchange_ts,
            side: delta.side,
            price: delta.price,
            size_delta: delta.size_delta,
        });
        let ticker = state.ticker.clone();
        let failed = wrong.map(|wrong| (ticker.clone(), wrong.to_string()));
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
        if let Some((ticker, wrong)) = failed {
            self.integrity_failure(position, place, at, &ticker, &wrong, out);
            out.resync.push((place.session, ticker));
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
        let most = books >= CROSSED_SAMPLE && crossed * 2 > books;
        if self.covering && most && self.complaints.first("crossed") {
            error!(
                crossed,
                books,
                "most books are crossed: the exchange seems to ignore use_yes_price, so the prices \
                 of the no side are wrong from here on"
            );
        }
    }

    /// The book contradicts the exchange: say so and end the stretch.
    fn integrity_failure(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        ticker: &Ticker,
        detail: &str,
        out: &mut Output,
    ) {
        self.counts.integrity_failures += 1;
        let Place { session, sid, seq } = place;
        if self.covering
            && let Some(suppressed) = self.integrity_lines.say(at)
        {
            error!(
                market = %ticker,
                session,
                sid,
                seq,
                detail,
                suppressed,
                "book contradicts the exchange"
            );
        }
        let ending = Ending { end: CoverageEnd::Integrity, at, detail };
        self.market_ends(position, (session, sid), ticker.as_str(), ending, out);
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
        let book = Book::from_levels(&snapshot.yes, &snapshot.no);
        self.look_for_crossed(&book);
        let key = (place.session, place.sid);
        let made = &mut self.markets_made;
        let channel = Channel::OrderbookDelta;
        let stream = stream_of(&mut self.sessions, place.session, place.sid, channel, at);
        let Some((state, _)) = stream.market(&snapshot.ticker, made) else { return };
        let ticker = state.ticker.clone();
        // Resting orders are not removed by changes when a market closes: the exchange sends an
        // empty book that nobody asked for.
        let closing = book.is_empty() && !is_reply && state.book.is_some();
        let differs = state.book.as_ref().filter(|_| !closing).map(|replayed| *replayed != book);
        if let Some(differs) = differs {
            self.counts.audits += 1;
            if differs {
                // The snapshot that shows it is the cure.
                let detail = "the replayed book differs from the snapshot in its place";
                self.integrity_failure(position, place, at, &ticker, detail, out);
            }
        }
        let Self { sessions, anchors, markets_made, covering, kept, offset, .. } = self;
        let stream = stream_of(sessions, place.session, place.sid, channel, at);
        let Some((state, _)) = stream.market(&snapshot.ticker, markets_made) else { return };
        if *covering && state.stretch.is_none() {
            let stretch = state.stretch.insert(Stretch::new(at));
            out.open.push((position, opened(key, snapshot.ticker, channel, stretch)));
        }
        state.book = Some(book);
        state.changes = 0;
        let row = Snapshot {
            ticker,
            received_at: at,
            anchor_ts: None,
            source: SnapshotSource::Ws,
            yes: snapshot.yes,
            no: snapshot.no,
            place,
        };
        let of_market = state.offset.or_else(|| kept.get(&state.ticker));
        let estimate = Offset::of_market(of_market, *offset).map(|offset| offset.at(at));
        // Those that left without a change are not remembered: a quiet market is audited for days.
        state.waiting.retain(|ticket| anchors.waits(*ticket));
        state.waiting.push(anchors.hold(row, position, state.last_change, estimate, closing));
    }
}
