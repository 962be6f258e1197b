//! The rows of one log between the decoder and its appender.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::Place;
use crate::log::chunk::{Chunk, Effect};
use crate::log::journal::Position;
use crate::model::{Log, Micros, Record};
use crate::pg::copy::Rows;
use crate::role::gather::rows;
use crate::role::gather::streams::{OpenChange, OpenStretch};

/// Rows, or changes of open stretches, after which a chunk is sent although more can be read.
const CHUNK_ROWS_MAX: u64 = 8192;
/// Bytes after which a chunk is sent: it has at most one row more.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The rows of one log that are not sent yet.
pub struct Lane {
    pub log: Log,
    sender: mpsc::Sender<Chunk>,
    /// Rows of records before this place are in the database.
    skip_before: Position,
    next_seq: i64,
    first_seq: i64,
    rows: Rows,
    oldest: Option<Micros>,
    open: BTreeMap<(i64, i64, String), Option<OpenStretch>>,
}

impl Lane {
    /// A lane that goes on where the log stands.
    pub fn new(log: Log, place: Place, sender: mpsc::Sender<Chunk>) -> Self {
        Self {
            log,
            sender,
            skip_before: place.position,
            next_seq: place.head + 1,
            first_seq: place.head + 1,
            rows: Rows::new(),
            oldest: None,
            open: BTreeMap::new(),
        }
    }

    /// Encodes a row, unless the log has it.
    pub fn add(&mut self, position: Position, record: &Record) {
        if position < self.skip_before {
            return;
        }
        rows::encode(&mut self.rows, self.next_seq, record);
        self.next_seq += 1;
        let received_at = match record {
            Record::Delta(delta) => Some(delta.received_at),
            Record::Trade(trade) => Some(trade.received_at),
            Record::Ticker(update) => Some(update.received_at),
            Record::Lifecycle(lifecycle) => Some(lifecycle.received_at),
            // These wait by design; they say nothing of the path's latency.
            Record::Snapshot(_) | Record::Coverage(_) => None,
        };
        self.oldest = match (self.oldest, received_at) {
            (Some(oldest), Some(at)) => Some(oldest.min(at)),
            (oldest, at) => oldest.or(at),
        };
    }

    /// Keeps a change of an open stretch, to commit with the rows.
    pub fn keep(&mut self, position: Position, change: OpenChange) {
        if position >= self.skip_before {
            self.open.insert((change.session, change.sid, change.ticker), change.open);
        }
    }

    /// Whether there is anything to send but a position.
    pub fn has_rows(&self) -> bool {
        !self.rows.is_empty() || !self.open.is_empty()
    }

    /// Whether it is time to send although more can be read.
    pub fn is_large(&self) -> bool {
        let changes = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        self.rows.rows().max(changes) >= CHUNK_ROWS_MAX || self.rows.bytes() >= CHUNK_BYTES_MAX
    }

    /// Sends what there is, with the position reached. False when nobody takes it any more.
    pub fn send(&mut self, position: Position) -> bool {
        let rows = self.next_seq - self.first_seq;
        let chunk = Chunk {
            first_seq: self.first_seq,
            rows,
            copy: if rows > 0 { self.rows.finish() } else { bytes::Bytes::new() },
            // A log that is ahead of the reader stays where it is.
            position: position.max(self.skip_before),
            oldest: self.oldest.take(),
            effects: self.effects(),
        };
        self.first_seq = self.next_seq;
        self.sender.blocking_send(chunk).is_ok()
    }

    /// The changes of the open stretches as two statements over arrays.
    fn effects(&mut self) -> Vec<Effect> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let mut closed = (Vec::new(), Vec::new(), Vec::new());
        let mut opened = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((session, sid, ticker), open) in std::mem::take(&mut self.open) {
            match open {
                None => {
                    closed.0.push(session);
                    closed.1.push(sid);
                    closed.2.push(ticker);
                }
                Some(open) => {
                    opened.0.push(session);
                    opened.1.push(sid);
                    opened.2.push(ticker);
                    opened.3.push(open.channel.name());
                    opened.4.push(open.from.0);
                    opened.5.push(open.first_exchange_ts.map(|at| at.0));
                }
            }
        }
        let mut effects = Vec::new();
        if !closed.0.is_empty() {
            effects.push(Effect {
                sql: "DELETE FROM coverage_open o \
                      USING unnest($1::bigint[], $2::bigint[], $3::text[]) c (session, sid, ticker) \
                      WHERE (o.session_id, o.sid, o.ticker) = (c.session, c.sid, c.ticker)",
                params: vec![Box::new(closed.0), Box::new(closed.1), Box::new(closed.2)],
            });
        }
        if !opened.0.is_empty() {
            effects.push(Effect {
                sql: "INSERT INTO coverage_open \
                      (session_id, sid, ticker, channel, covered_from, first_exchange_ts) \
                      SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], \
                                           $5::bigint[], $6::bigint[]) \
                      ON CONFLICT (session_id, sid, ticker) DO UPDATE \
                      SET channel = excluded.channel, covered_from = excluded.covered_from, \
                          first_exchange_ts = excluded.first_exchange_ts",
                params: vec![
                    Box::new(opened.0),
                    Box::new(opened.1),
                    Box::new(opened.2),
                    Box::new(opened.3),
                    Box::new(opened.4),
                    Box::new(opened.5),
                ],
            });
        }
        effects
    }
}
