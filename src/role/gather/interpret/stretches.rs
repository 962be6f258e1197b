//! Where coverage begins and ends: sessions, subscriptions, markets, and the hourly cut.

use super::{Interpreter, OpenChange, Output, STRETCH_MICROS_MAX};
use crate::log::journal::Position;
use crate::model::{Channel, Coverage, CoverageEnd, Micros, Record};
use crate::role::gather::anchors::Anchors;
use crate::role::gather::exchange_time::Kept;
use crate::role::gather::streams::{Ending, MarketState, OpenStretch, Stretch, ended};

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
        let Some(session) = self.sessions.get_mut(&place.0) else { return };
        let ending = Ending { at: session.proved(ending.at), ..ending };
        let Some(stream) = session.streams.get_mut(&place.1) else { return };
        let channel = stream.channel;
        if let Some(stretch) = stream.all_markets.take() {
            let row = ended(&stretch, ending, channel, None, place);
            close(out, position, place, String::new(), row);
        }
        for state in stream.markets.values_mut() {
            let kept = (&mut self.anchors, &mut self.kept);
            end_market(kept, position, place, channel, state, ending, out);
        }
    }

    pub(super) fn market_ends(
        &mut self,
        position: Position,
        place: (i64, i64),
        ticker: &str,
        ending: Ending<'_>,
        out: &mut Output,
    ) {
        let Some(session) = self.sessions.get_mut(&place.0) else { return };
        let ending = Ending { at: session.proved(ending.at), ..ending };
        let Some(stream) = session.streams.get_mut(&place.1) else { return };
        let channel = stream.channel;
        if let Some(state) = stream.markets.get_mut(ticker) {
            let kept = (&mut self.anchors, &mut self.kept);
            end_market(kept, position, place, channel, state, ending, out);
        }
    }

    /// A part of the journal is lost: nothing that was open is known to have gone on, and every book
    /// has to be had anew.
    pub fn hole(&mut self, position: Position, out: &mut Output) {
        self.counts.holes += 1;
        let sessions: Vec<(i64, Micros)> =
            self.sessions.iter().map(|(id, session)| (*id, session.last_seen)).collect();
        for (session, at) in sessions {
            let streams = self.sessions.get(&session).into_iter().flat_map(|s| &s.streams);
            let mut sids = Vec::new();
            for (sid, stream) in streams {
                sids.push(*sid);
                out.resync.extend(stream.markets.keys().map(|ticker| (session, ticker.clone())));
            }
            for sid in sids {
                let detail = "records of the journal are lost";
                let ending = Ending { end: CoverageEnd::JournalDamage, at, detail };
                self.stream_ends(position, (session, sid), ending, out);
            }
        }
    }

    pub(super) fn cut_long_stretches(&mut self, position: Position, out: &mut Output) {
        for (session, state) in &mut self.sessions {
            let at = state.last_seen;
            for (sid, stream) in &mut state.streams {
                let (place, channel) = ((*session, *sid), stream.channel);
                let ending = Ending { end: CoverageEnd::Continues, at, detail: "" };
                if let Some(stretch) =
                    stream.all_markets.as_mut().filter(|stretch| is_long(stretch, "", at))
                {
                    let row = ended(stretch, ending, channel, None, place);
                    out.rows.push((position, Record::Coverage(row)));
                    *stretch = Stretch::new(at);
                    out.open.push((position, opened(place, String::new(), channel, stretch)));
                }
                for (ticker, state) in &mut stream.markets {
                    let open = state.stretch.as_mut();
                    let Some(stretch) =
                        open.filter(|stretch| is_long(stretch, ticker.as_str(), at))
                    else {
                        continue;
                    };
                    let name = ticker.as_str().to_owned();
                    let row = ended(stretch, ending, channel, Some(ticker.clone()), place);
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

/// Whether a stretch reaches over the time at which its market is cut, once in
/// [`STRETCH_MICROS_MAX`].
fn is_long(stretch: &Stretch, ticker: &str, at: Micros) -> bool {
    let period = STRETCH_MICROS_MAX.unsigned_abs();
    let phase = i64::try_from(xxhash_rust::xxh3::xxh3_64(ticker.as_bytes()) % period);
    let phase = phase.unwrap_or_default();
    let turn = |time: Micros| (time.0 - phase).div_euclid(STRETCH_MICROS_MAX);
    turn(at) > turn(stretch.from)
}

/// Ends a market's stretch; its book and its waiting snapshots are no use any more.
fn end_market(
    (anchors, offsets): (&mut Anchors, &mut Kept),
    position: Position,
    place: (i64, i64),
    channel: Channel,
    state: &mut MarketState,
    ending: Ending<'_>,
    out: &mut Output,
) {
    state.book = None;
    if let Some(offset) = state.offset {
        offsets.keep(&state.ticker, offset);
    }
    for ticket in state.waiting.drain(..) {
        anchors.give_up(ticket);
    }
    if let Some(stretch) = state.stretch.take() {
        let name = state.ticker.as_str().to_owned();
        let row = ended(&stretch, ending, channel, Some(state.ticker.clone()), place);
        close(out, position, place, name, row);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_began_together_are_cut_one_by_one_within_the_hour() {
        let from = Micros(1_785_901_540_000_000);
        let stretch = Stretch::new(from);
        let mut cut = vec![0; 61];
        for number in 0..6000 {
            let ticker = format!("KXMARKET-26AUG05-T{number}");
            let minute = (0..=60_i64)
                .find(|minute| is_long(&stretch, &ticker, Micros(from.0 + minute * 60_000_000)));
            cut[usize::try_from(minute.expect("within the hour")).unwrap()] += 1;
        }
        assert!(cut.iter().all(|count| *count < 200), "{cut:?}");
        assert!(!is_long(&stretch, "", from));
        assert!(is_long(&stretch, "", Micros(from.0 + STRETCH_MICROS_MAX)));
    }
}
