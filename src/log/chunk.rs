//! A run of rows of one log, encoded and numbered, on its way from the decoder to the appender.

use bytes::Bytes;
use postgres_types::ToSql;

use super::journal::Position;
use crate::model::Micros;

/// Something that commits with the rows although it is no row of the log.
pub struct Effect {
    pub sql: &'static str,
    pub params: Vec<Box<dyn ToSql + Send + Sync>>,
}

/// Rows `first_seq ..= last_seq` of a log, or none and only a new position.
pub struct Chunk {
    /// `log_seq` of the first row; without rows, of the row that comes next.
    pub first_seq: i64,
    pub rows: i64,
    /// The rows as a whole binary COPY; empty without rows.
    pub copy: Bytes,
    /// Every journal record before this place has its rows of this log in this chunk or before it.
    pub position: Position,
    /// Our clock at the oldest row's frame.
    pub oldest: Option<Micros>,
    pub effects: Vec<Effect>,
}

impl Chunk {
    /// `log_seq` of the last row.
    pub fn last_seq(&self) -> i64 {
        self.first_seq + self.rows - 1
    }
}
