//! Where coverage begins and ends: sessions, subscriptions, markets, and the hourly cut.

use super::{Interpreter, OpenChange, Output, STRETCH_MICROS_MAX};
use crate::log::journal::Position;
use crate::model::{Channel, Coverage, CoverageEnd, Micros, Record};
use crate::role::gather::streams::{Ending, MarketId, OpenStretch, Stretch, ended};

impl Interpreter {
    /// The process that wrote what came before is gone, and its connections with it.
    pub(super) fn all_sessions_end(&mut self, position: Position, out: &mut Output) {
        let sessions: Vec<i64> = self.sessions.keys().copied().collect();
        for session in sessions {
            let detail = "the gatherer ended without closing";
            self.session_ends(position, session, CoverageEnd::Crash, detail, out);
        }
    }

    pub(super) fn session_ends(
        &mut self,
        position: Position,
        session: i64,
        end: CoverageEnd,
        detail: &str,
        out: &mut Output,
    ) {
        let Some(state) = self.sessions.get(&session) else { return };
        let at = state.last_seen;
        let sids: Vec<i64> = state.streams.keys().copied().collect();
        for sid in sids {
            self.stream_ends(position, (session, sid), Ending { end, at, detail }, out);
        }
        self.sessions.remove(&session);
    }

    /// Ends every stretch of a subscription; its books and waiting snapshots are no use any more.
    pub(super) fn stream_ends(
        &mut self,
        position: Position,
        place: (i64, i64),
        ending: Ending<'_>,
        out: &mut Output,
    ) {
        let state = self.sessions.get_mut(&place.0);
        let Some(stream) = state.and_then(|session| session.streams.get_mut(&place.1)) else {
            return;
        };
        let channel = stream.channel;
        if let Some(stretch) = stream.all_markets.take() {
            let row = ended(&stretch, ending, channel, None, place);
            close(out, position, place, String::new(), row);
        }
        let markets: Vec<MarketId> = stream.markets.keys().copied().collect();
        for market in markets {
            self.market_ends(position, place, market, ending, out);
        }
    }

    pub(super) fn market_ends(
        &mut self,
        position: Position,
        place: (i64, i64),
        market: MarketId,
        ending: Ending<'_>,
        out: &mut Output,
    ) {
        let state = self.sessions.get_mut(&place.0);
        let Some(stream) = state.and_then(|session| session.streams.get_mut(&place.1)) else {
            return;
        };
        let Some(state) = stream.markets.get_mut(&market) else { return };
        state.book = None;
        for ticket in state.waiting.drain(..) {
            self.anchors.give_up(ticket);
        }
        if let Some(stretch) = state.stretch.take()
            && let Some(ticker) = self.markets.ticker(market)
        {
            let name = ticker.as_str().to_owned();
            let row = ended(&stretch, ending, stream.channel, Some(ticker), place);
            close(out, position, place, name, row);
        }
    }

    pub(super) fn cut_long_stretches(&mut self, position: Position, out: &mut Output) {
        for (session, state) in &mut self.sessions {
            let at = state.last_seen;
            for (sid, stream) in &mut state.streams {
                let (place, channel) = ((*session, *sid), stream.channel);
                let ending = Ending { end: CoverageEnd::Continues, at, detail: "" };
                let long = |stretch: &&mut Stretch| at.since(stretch.from) >= STRETCH_MICROS_MAX;
                if let Some(stretch) = stream.all_markets.as_mut().filter(long) {
                    let row = ended(stretch, ending, channel, None, place);
                    out.rows.push((position, Record::Coverage(row)));
                    *stretch = Stretch::new(at);
                    out.open.push((position, opened(place, String::new(), channel, stretch)));
                }
                for (market, state) in &mut stream.markets {
                    let Some(stretch) = state.stretch.as_mut().filter(long) else { continue };
                    let Some(ticker) = self.markets.ticker(*market) else { continue };
                    let name = ticker.as_str().to_owned();
                    let row = ended(stretch, ending, channel, Some(ticker), place);
                    out.rows.push((position, Record::Coverage(row)));
                    *stretch = Stretch::new(at);
                    out.open.push((position, opened(place, name, channel, stretch)));
                }
            }
        }
    }

    pub(super) fn subscription_ends(
        &mut self,
        position: Position,
        place: (i64, i64),
        ending: Ending<'_>,
        out: &mut Output,
    ) {
        self.stream_ends(position, place, ending, out);
        if let Some(state) = self.sessions.get_mut(&place.0) {
            state.streams.remove(&place.1);
            state.sequence.forget(place.1);
        }
    }

    pub(super) fn all_markets_begin(
        &mut self,
        position: Position,
        place: (i64, i64),
        at: Micros,
        out: &mut Output,
    ) {
        if !self.covering {
            return;
        }
        let state = self.sessions.get_mut(&place.0);
        let Some(stream) = state.and_then(|state| state.streams.get_mut(&place.1)) else { return };
        if stream.all_markets.is_none() {
            let stretch = stream.all_markets.insert(Stretch::new(at));
            out.open.push((position, opened(place, String::new(), stream.channel, stretch)));
        }
    }
}

pub(super) fn close(
    out: &mut Output,
    position: Position,
    (session, sid): (i64, i64),
    ticker: String,
    row: Coverage,
) {
    out.rows.push((position, Record::Coverage(row)));
    out.open.push((position, OpenChange { session, sid, ticker, open: None }));
}

pub(super) fn opened(
    (session, sid): (i64, i64),
    ticker: String,
    channel: Channel,
    stretch: &Stretch,
) -> OpenChange {
    let open =
        OpenStretch { channel, from: stretch.from, first_exchange_ts: stretch.first_exchange_ts };
    OpenChange { session, sid, ticker, open: Some(open) }
}
