//! Books that the REST poller asked for: rows beside the streams, and a comparison for the metrics.

use super::Interpreter;
use crate::kalshi::decode::DecodeError;
use crate::kalshi::orderbooks;
use crate::log::journal::{Position, Record as JournalRecord};
use crate::model::{Book, Channel, Place, Snapshot, SnapshotSource};
use crate::role::gather::polled::Header;

impl Interpreter {
    /// Reads one reply. What cannot be read is counted and stays in the journal; it is no hole in
    /// anything, since a polled book has no place in a stream.
    pub(super) fn polled(&mut self, position: Position, record: &JournalRecord) {
        let Some((header, body)) = Header::split(&record.payload) else {
            let reason = "no header".to_owned();
            return self.unreadable_poll(&DecodeError { kind: "poll", field: "header", reason });
        };
        let books = match orderbooks::books(body) {
            Ok(books) => books,
            Err(error) => return self.unreadable_poll(&error),
        };
        for (seq, book) in (header.first..).zip(books) {
            let read = book.and_then(|book| {
                let no = book.no_in_yes_leg(header.notional_of(book.ticker.as_str()))?;
                Ok((book, no))
            });
            let (book, no) = match read {
                Ok(read) => read,
                Err(error) => {
                    self.unreadable_poll(&error);
                    continue;
                }
            };
            let shown = Book::from_levels(&book.yes, &no);
            let mut replayed =
                self.sessions.values().flat_map(|s| s.streams.values()).filter_map(|stream| {
                    match stream.channel {
                        Channel::OrderbookDelta => stream.markets.get(&book.ticker)?.book.as_ref(),
                        _ => None,
                    }
                });
            match replayed.next() {
                // Between the exchange's look at its book and its arrival here the book moves on: a
                // difference says nothing about a single market, the share of them says something.
                Some(replayed) if *replayed == shown => self.counts.polls_matched += 1,
                Some(_) => self.counts.polls_differed += 1,
                None => self.counts.polls_unknown += 1,
            }
            let row = Snapshot {
                ticker: book.ticker,
                received_at: record.received_at,
                anchor_ts: None,
                source: SnapshotSource::Rest,
                yes: book.yes,
                no,
                place: Place { session: record.session, sid: 0, seq },
            };
            // Rows leave in journal order, so it queues behind the snapshots that wait.
            let ticket = self.anchors.hold(row, position, None, None, false);
            self.anchors.give_up(ticket);
        }
    }

    fn unreadable_poll(&mut self, error: &DecodeError) {
        *self.counts.decode_errors.entry("poll").or_default() += 1;
        self.complain(error.kind, error.field, &error.reason);
    }
}
