//! From journal records to rows: the one reading of what a gatherer received, live, after an
//! outage and after a crash alike.
//!
//! It takes records in journal order and is deterministic: the same journal gives the same rows.
//! It starts a little before the place where rows are needed, so that ordinals, copies and clocks
//! are warm; stretches of coverage are taken from the database at exactly the place where the
//! coverage log ends ([`Interpreter::resume`]).

mod books;
mod channels;
mod lines;
mod polled;
mod stretches;

use std::collections::HashMap;

use tracing::warn;

use super::anchors::Anchors;
use super::exchange_time::{Kept, Offset, proved};
use super::hashing::FastMap;
use super::occurrence::{Occurrences, Seen};
use super::streams::{Ending, OpenChange, Session, Stream, Stretch};
use crate::kalshi::decode::{DecodeError, Frame, Message, decode};
use crate::kalshi::sequence::Step;
use crate::kalshi::session::{CloseReason, SessionEvent};
use crate::log::journal::{Kind, Position, Record as JournalRecord};
use crate::model::{Channel, CoverageEnd, Micros, Place, Record, Ticker};
use crate::ops::once::Once;
use lines::Lines;

/// No stretch is longer than this: it is cut, so that what is covered becomes visible. One hour:
/// 425,000 markets then make 118 rows a second. Each market has its own minute of the hour, or all
/// that began together would be cut together.
const STRETCH_MICROS_MAX: i64 = 3_600_000_000;
/// Changes of one market after which another snapshot is asked for: whoever wants a book of the past
/// starts from the last one and folds what came since, a microsecond or two for each.
const CHANGES_WITHOUT_SNAPSHOT_MAX: u32 = 10_000;
/// How often long stretches are looked for, by the journal's clock.
const CUT_INTERVAL_MICROS: i64 = 60_000_000;
/// Two-sided books that must be seen before most of them crossed is taken for a sign.
const CROSSED_SAMPLE: u64 = 20;
/// Kinds of complaints kept apart in the log; the rest are only counted.
const COMPLAINTS_MAX: usize = 256;

/// What reading made of some records, in journal order.
#[derive(Debug, Default)]
pub struct Output {
    /// Rows, each with the place of the record that it belongs to.
    pub rows: Vec<(Position, Record)>,
    /// Changes of the open stretches, with their places.
    pub open: Vec<(Position, OpenChange)>,
    /// Markets whose book is wrong or unknown, or far from its last snapshot, by session: ask for one.
    pub resync: Vec<(i64, Ticker)>,
}

/// Counts since the start, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub frames: u64,
    pub gaps: u64,
    pub resets: u64,
    pub duplicates: u64,
    pub copies: u64,
    pub audits: u64,
    pub integrity_failures: u64,
    /// By kind of frame.
    pub decode_errors: HashMap<&'static str, u64>,
    pub unknown_types: u64,
    pub unknown_fields: u64,
    pub exchange_errors: u64,
    /// Snapshots with levels on both sides, and those of them whose best bid reaches the best ask.
    pub two_sided: u64,
    pub crossed: u64,
    /// Damaged or missing parts of the journal.
    pub holes: u64,
    /// Times that a session had to wait for the journal.
    pub pauses: u64,
    /// Polled books that equal the replayed one, that do not, and without one.
    pub polls_matched: u64,
    pub polls_differed: u64,
    pub polls_unknown: u64,
}

/// The reader's state.
pub struct Interpreter {
    sessions: FastMap<i64, Session>,
    occurrences: Occurrences,
    seen: Seen,
    anchors: Anchors,
    /// The exchange's clock by the records of all markets.
    offset: Option<Offset>,
    /// The same by those of markets whose subscription ended.
    kept: Kept,
    /// Whether stretches are kept: from [`Interpreter::resume`] on.
    covering: bool,
    /// Markets of subscriptions that were ever kept, for their numbers.
    markets_made: u64,
    cut_at: Micros,
    complaints: Once,
    integrity_lines: Lines,
    sequence_lines: Lines,
    pub counts: Counts,
}

impl Default for Interpreter {
    fn default() -> Self {
        Self {
            sessions: FastMap::default(),
            occurrences: Occurrences::default(),
            seen: Seen::default(),
            anchors: Anchors::default(),
            offset: None,
            kept: Kept::default(),
            covering: false,
            markets_made: 0,
            cut_at: Micros(0),
            complaints: Once::new(COMPLAINTS_MAX),
            integrity_lines: Lines::default(),
            sequence_lines: Lines::default(),
            counts: Counts::default(),
        }
    }
}

impl Interpreter {
    /// Takes over the stretches that were open where the coverage log ends; from here on they are
    /// kept. What was wrong before was counted and said by the process that read it first.
    pub fn resume(&mut self, open: Vec<OpenChange>) {
        self.covering = true;
        self.counts = Counts::default();
        for OpenChange { session, sid, ticker, open } in open {
            let Some(open) = open else { continue };
            let stretch = Stretch {
                from: open.from,
                first_exchange_ts: open.first_exchange_ts,
                last_exchange_ts: None,
                records: None,
            };
            let stream = stream_of(&mut self.sessions, session, sid, open.channel, open.from);
            if ticker.is_empty() {
                stream.all_markets = Some(stretch);
            } else if let Some((state, _)) = stream.market(&ticker, &mut self.markets_made) {
                state.stretch = Some(stretch);
            }
        }
    }

    /// The oldest journal place whose snapshot still waits for its anchor.
    pub fn oldest_waiting(&self) -> Option<Position> {
        self.anchors.oldest()
    }

    /// The slot of a session whose beginning was read.
    pub fn slot(&self, session: i64) -> Option<&str> {
        self.sessions.get(&session)?.slot.as_deref()
    }

    /// Reads one record.
    pub fn read(&mut self, position: Position, record: &JournalRecord, out: &mut Output) {
        let at = record.received_at;
        match record.kind {
            Kind::Start => self.all_sessions_end(position, out),
            Kind::Event => match serde_json::from_slice(&record.payload) {
                Ok(event) => self.event(position, record.session, at, event, out),
                Err(error) => {
                    // Written by another version of this program.
                    self.complain("session_event", "event", &error.to_string());
                }
            },
            Kind::Frame => self.frame(position, record, out),
            Kind::Pause => self.pause(record),
            Kind::Poll => self.polled(position, record),
        }
        // A clock that was set back must not stop the cuts.
        if at.since(self.cut_at) >= CUT_INTERVAL_MICROS || at < self.cut_at {
            self.cut_at = at;
            self.cut_long_stretches(position, out);
        }
        self.release(at, out);
    }

    /// Lets the snapshots go that waited long enough at `now`, a time by which every record that
    /// was received before it has been read. Without this a silent exchange would hold them.
    pub fn release(&mut self, now: Micros, out: &mut Output) {
        let Self { anchors, offset, .. } = self;
        anchors.release(
            now,
            |at| offset.map(|offset| offset.at(at)),
            |snapshot, position| out.rows.push((position, Record::Snapshot(snapshot))),
        );
    }

    fn complain(&self, kind: &str, field: &str, reason: &str) {
        if self.covering && self.complaints.first(&format!("{kind}/{field}")) {
            warn!(kind, field, reason, "frame not understood: kept in the journal, counted");
        }
    }

    fn event(
        &mut self,
        position: Position,
        session: i64,
        at: Micros,
        event: SessionEvent,
        out: &mut Output,
    ) {
        match event {
            SessionEvent::Connected { slot, .. } => {
                // A slot has one connection at a time: of another one the end is missing.
                let of_slot = self.sessions.iter().filter(|(_, s)| s.slot.as_ref() == Some(&slot));
                let others = of_slot.map(|(id, _)| *id).filter(|id| *id != session);
                for other in others.collect::<Vec<_>>() {
                    let detail = "its end is missing from the journal";
                    self.session_ends(position, other, CoverageEnd::Disconnect, detail, out);
                }
                let state = self.sessions.entry(session).or_insert_with(|| Session::new(at));
                state.slot = Some(slot);
                state.seen(at, at);
            }
            SessionEvent::Alive => {
                self.sessions.entry(session).or_insert_with(|| Session::new(at)).seen(at, at);
            }
            SessionEvent::Removed { sid, tickers } => {
                for ticker in tickers {
                    let ending = Ending { end: CoverageEnd::Unsubscribed, at, detail: "" };
                    self.market_ends(position, (session, sid), &ticker, ending, out);
                    let stream = self.sessions.get_mut(&session);
                    if let Some(stream) = stream.and_then(|s| s.streams.get_mut(&sid)) {
                        stream.markets.remove(ticker.as_str());
                    }
                }
            }
            SessionEvent::Stalled { sid } => {
                let state = self.sessions.get(&session);
                let last = state.and_then(|state| Some(state.streams.get(&sid)?.last_frame));
                let ending = Ending {
                    end: CoverageEnd::TerminalError,
                    at: last.unwrap_or(at),
                    detail: "the subscription was silent while the exchange answered",
                };
                // The stream itself goes on until the exchange confirms its end.
                self.stream_ends(position, (session, sid), ending, out);
            }
            SessionEvent::Closed { reason, detail } => {
                let end = match reason {
                    CloseReason::Disconnect | CloseReason::Liveness => CoverageEnd::Disconnect,
                    CloseReason::TerminalError => CoverageEnd::TerminalError,
                    CloseReason::Overload => CoverageEnd::Overload,
                    CloseReason::Stop => CoverageEnd::Stop,
                };
                self.session_ends(position, session, end, &detail, out);
            }
        }
    }

    /// A session did not read its socket for a while.
    fn pause(&mut self, record: &JournalRecord) {
        self.counts.pauses += 1;
        let waited = record.payload.as_ref().try_into().map(i64::from_le_bytes);
        if let (Some(state), Ok(waited)) = (self.sessions.get_mut(&record.session), waited) {
            state.paused(record.received_at, waited);
        }
    }

    fn frame(&mut self, position: Position, record: &JournalRecord, out: &mut Output) {
        self.counts.frames += 1;
        let (session, at) = (record.session, record.received_at);
        let frame = decode(&record.payload, at);
        let state = self.sessions.entry(session).or_insert_with(|| Session::new(at));
        let proof = frame.exchange_ts().and_then(|time| proved(time, at, self.offset));
        if let Some(proof) = proof {
            state.seen(at, proof);
        }
        if let Some((kind, field)) = &frame.unknown_field {
            self.counts.unknown_fields += 1;
            self.complain(kind, field.split(' ').next().unwrap_or_default(), field);
        }
        if !self.in_sequence(position, session, &frame, (at, proof), out) {
            return;
        }
        let place = Place {
            session,
            sid: frame.sid.unwrap_or_default(),
            seq: frame.seq.unwrap_or_default(),
        };
        match frame.message {
            Ok(Message::Delta(delta)) => self.delta(position, place, at, delta, out),
            Ok(Message::Snapshot(snapshot)) => {
                self.snapshot(position, place, at, frame.is_reply, snapshot, out);
            }
            Ok(Message::Trade(trade)) => self.trade(position, place, at, trade, out),
            Ok(Message::Ticker(ticker)) => self.ticker(position, place, at, ticker, out),
            Ok(Message::Lifecycle(lifecycle)) => {
                self.lifecycle(position, place, at, lifecycle, out);
            }
            Ok(Message::Subscribed { sid, channel }) => {
                let Some(channel) = channel else { return };
                let stream = stream_of(&mut self.sessions, session, sid, channel, at);
                stream.last_frame = at;
                if channel != Channel::OrderbookDelta {
                    self.all_markets_begin(position, (session, sid), at, out);
                }
            }
            Ok(Message::Unsubscribed) => {
                let ending = Ending { end: CoverageEnd::Unsubscribed, at, detail: "" };
                self.subscription_ends(position, (session, place.sid), ending, out);
            }
            Ok(Message::Error { id, code, text }) => {
                self.counts.exchange_errors += 1;
                // The subscription is over after an unknown sid (7), a channel error (10) and an
                // overflow (25), however they are addressed; other errors answer a command.
                let terminal = matches!(code, 7 | 10 | 25);
                if !terminal && (id.is_some() || frame.sid.is_none()) {
                    return;
                }
                let end = match code {
                    25 => CoverageEnd::Overload,
                    _ => CoverageEnd::TerminalError,
                };
                let detail = format!("error {code}: {text}");
                // What the exchange dropped came after the last frame that it sent.
                let streams = self.sessions.get(&session).into_iter().flat_map(|s| &s.streams);
                let named = streams.filter(|(sid, _)| frame.sid.is_none_or(|named| named == **sid));
                let ends: Vec<_> = named.map(|(sid, stream)| (*sid, stream.last_frame)).collect();
                for (sid, at) in ends {
                    let ending = Ending { end, at, detail: &detail };
                    self.subscription_ends(position, (session, sid), ending, out);
                }
            }
            Ok(Message::Ok) => {}
            Ok(Message::Unknown { kind }) => {
                self.counts.unknown_types += 1;
                self.complain(&kind, "type", "unknown type");
            }
            Err(error) => self.undecoded(position, place, at, &error, frame.ticker, out),
        }
    }

    /// Checks the frame's number. False when it is a copy to drop.
    fn in_sequence(
        &mut self,
        position: Position,
        session: i64,
        frame: &Frame,
        (at, proof): (Micros, Option<Micros>),
        out: &mut Output,
    ) -> bool {
        let (Some(sid), Some(seq)) = (frame.sid, frame.seq) else { return true };
        let Some(state) = self.sessions.get_mut(&session) else { return true };
        let step = state.sequence.step(sid, seq);
        let last_frame = state.streams.get_mut(&sid).map(|stream| {
            let now = proof.map_or(stream.last_frame, |proof| proof.max(stream.last_frame));
            std::mem::replace(&mut stream.last_frame, now)
        });
        let (end, expected) = match step {
            Step::First | Step::Next => return true,
            Step::Duplicate => {
                self.counts.duplicates += 1;
                return false;
            }
            Step::Gap { expected, .. } => {
                self.counts.gaps += 1;
                (CoverageEnd::Gap, expected)
            }
            Step::Reset { expected, .. } => {
                self.counts.resets += 1;
                (CoverageEnd::Reset, expected)
            }
        };
        let detail = format!("expected number {expected}, got {seq}");
        if self.covering
            && let Some(suppressed) = self.sequence_lines.say(at)
        {
            let end = end.name();
            warn!(session, sid, expected, got = seq, end, suppressed, "sequence broken");
        }
        let ending = Ending { end, at: last_frame.unwrap_or(at), detail: &detail };
        self.stream_ends(position, (session, sid), ending, out);
        // A channel of all markets goes on with this frame; books wait for their snapshots.
        let state = self.sessions.get(&session);
        let channel = state.and_then(|state| Some(state.streams.get(&sid)?.channel));
        if channel.is_some_and(|channel| channel != Channel::OrderbookDelta) {
            self.all_markets_begin(position, (session, sid), at, out);
        }
        true
    }

    /// A frame that could not be decoded: what it should have said is missing from its market, or
    /// from the whole subscription when it does not name one.
    fn undecoded(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        error: &DecodeError,
        ticker: Option<String>,
        out: &mut Output,
    ) {
        *self.counts.decode_errors.entry(error.kind).or_default() += 1;
        self.complain(error.kind, error.field, &error.reason);
        let key = (place.session, place.sid);
        let state = self.sessions.get(&place.session);
        let Some(stream) = state.and_then(|state| state.streams.get(&place.sid)) else { return };
        let detail = error.to_string();
        let ending = Ending { end: CoverageEnd::DecodeError, at, detail: &detail };
        if stream.channel != Channel::OrderbookDelta {
            self.stream_ends(position, key, ending, out);
            self.all_markets_begin(position, key, at, out);
            return;
        }
        // A name that is none of the markets that we subscribed to concerns none of them.
        let affected: Vec<Ticker> = match &ticker {
            Some(ticker) => stream
                .markets
                .get(ticker.as_str())
                .map(|state| state.ticker.clone())
                .into_iter()
                .collect(),
            None => stream.markets.keys().cloned().collect(),
        };
        for market in affected {
            self.market_ends(position, key, market.as_str(), ending, out);
            out.resync.push((place.session, market));
        }
    }
}

/// The subscription of a place, made when its beginning was not read.
fn stream_of(
    sessions: &mut FastMap<i64, Session>,
    session: i64,
    sid: i64,
    channel: Channel,
    at: Micros,
) -> &mut Stream {
    let state = sessions.entry(session).or_insert_with(|| Session::new(at));
    state.streams.entry(sid).or_insert_with(|| Stream::new(channel, at))
}

#[cfg(test)]
mod tests;
