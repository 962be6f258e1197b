//! What the deduplicator knows of the six logs: columns, identities, and the SQL made of them.
//!
//! A row travels as the bytes of PostgreSQL's binary COPY. Both databases are asked for their
//! columns in one order, chosen so that nothing but a few fixed places is ever looked at:
//!
//! ```text
//! gatherer     log_seq | clock | identity ...... | rest .......
//! production   log_seq | clock | identity ...... | rest ....... | gatherer_id
//!                        '--------- body, copied as it is -----'
//! ```

use std::fmt::Write as _;
use std::ops::Range;

use super::partitions::DAY_MICROS;
use crate::model::Log;

/// How long the binary form of a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Always this many bytes; null is possible where the schema allows it.
    Fixed(usize),
    /// Text, arrays and documents.
    Varies,
}

/// A column of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub width: Width,
}

/// The smallest difference in time at which two trades of one id count as two: a trade repaired from
/// REST has a finer time than the one of the stream.
pub const TRADE_TOLERANCE_MICROS: i64 = 1_000_000;

/// One of the six logs as the deduplicator handles it.
#[derive(Debug)]
pub struct Table {
    pub log: Log,
    /// The columns that both databases have, but `log_seq`. The first is the gatherer's clock.
    pub body: &'static [Column],
    /// Where the identity stands in `body`.
    pub identity: Range<usize>,
    /// Whether the gatherer is part of the identity too.
    pub per_gatherer: bool,
    /// The time in `body` by which identities are remembered and forgotten.
    pub time: usize,
    /// How far the times of two copies of one fact may lie apart, in microseconds.
    pub tolerance_micros: i64,
    /// Whether two copies of one fact never have times further apart than `tolerance_micros`, so
    /// that a row can be proven new by its time (see [`super::recent`]).
    pub provable: bool,
    /// The exchange's clock in `body`, where the table has it.
    pub exchange_ts: Option<usize>,
    /// Width of production's partitions by `time`, in microseconds; none for a plain table. Days
    /// where rows are dropped after a while, longer where they stay for years: a query that names no
    /// time visits every partition.
    pub partition_micros: Option<i64>,
    /// Rows of one read, at most.
    pub span_rows_max: i64,
    /// Cost of the identities remembered, at most: one each, and some for each stretch of time.
    pub recent_cost_max: usize,
}

const fn int8(name: &'static str) -> Column {
    Column { name, width: Width::Fixed(8) }
}
const fn int4(name: &'static str) -> Column {
    Column { name, width: Width::Fixed(4) }
}
const fn boolean(name: &'static str) -> Column {
    Column { name, width: Width::Fixed(1) }
}
const fn uuid(name: &'static str) -> Column {
    Column { name, width: Width::Fixed(16) }
}
const fn varies(name: &'static str) -> Column {
    Column { name, width: Width::Varies }
}

pub static TRADES: Table = Table {
    log: Log::Trades,
    body: &[
        int8("received_at"),
        uuid("trade_id"),
        int8("exchange_ts"),
        varies("ticker"),
        int8("price"),
        int8("no_price"),
        int8("size"),
        boolean("taker_side"),
        boolean("is_block_trade"),
    ],
    identity: 1..2,
    per_gatherer: false,
    time: 2,
    tolerance_micros: TRADE_TOLERANCE_MICROS,
    provable: true,
    exchange_ts: Some(2),
    partition_micros: Some(7 * DAY_MICROS),
    span_rows_max: 20_000,
    recent_cost_max: 500_000,
};

pub static ORDERBOOK_DELTAS: Table = Table {
    log: Log::OrderbookDeltas,
    body: &[
        int8("received_at"),
        int8("exchange_ts"),
        varies("ticker"),
        boolean("side"),
        int8("price"),
        int8("size_delta"),
        int4("occurrence"),
    ],
    identity: 1..7,
    per_gatherer: false,
    time: 1,
    tolerance_micros: 0,
    provable: true,
    exchange_ts: Some(1),
    partition_micros: Some(DAY_MICROS),
    span_rows_max: 20_000,
    recent_cost_max: 2_000_000,
};

pub static ORDERBOOK_SNAPSHOTS: Table = Table {
    log: Log::OrderbookSnapshots,
    body: &[
        int8("received_at"),
        int8("session_id"),
        int8("sid"),
        int8("seq"),
        int8("anchor_ts"),
        varies("ticker"),
        varies("source"),
        varies("yes_prices"),
        varies("yes_sizes"),
        varies("no_prices"),
        varies("no_sizes"),
    ],
    identity: 0..4,
    per_gatherer: true,
    time: 0,
    tolerance_micros: 0,
    provable: true,
    exchange_ts: None,
    partition_micros: Some(7 * DAY_MICROS),
    // A full book is a hundred times larger than a change of one level.
    span_rows_max: 2_000,
    recent_cost_max: 200_000,
};

pub static TICKERS: Table = Table {
    log: Log::Tickers,
    body: &[
        int8("received_at"),
        int8("exchange_ts"),
        varies("ticker"),
        int8("content_hash"),
        int8("last_price"),
        int8("yes_bid"),
        int8("yes_ask"),
        int8("yes_bid_size"),
        int8("yes_ask_size"),
        int8("last_trade_size"),
        int8("volume"),
        int8("open_interest"),
        int8("dollar_volume"),
        int8("dollar_open_interest"),
    ],
    identity: 1..4,
    per_gatherer: false,
    time: 1,
    tolerance_micros: 0,
    provable: true,
    exchange_ts: Some(1),
    partition_micros: Some(DAY_MICROS),
    span_rows_max: 20_000,
    recent_cost_max: 1_000_000,
};

pub static MARKET_LIFECYCLE: Table = Table {
    log: Log::MarketLifecycle,
    body: &[
        int8("received_at"),
        varies("subject"),
        varies("event_type"),
        int8("content_hash"),
        int8("exchange_ts"),
        varies("payload"),
    ],
    identity: 1..4,
    per_gatherer: false,
    time: 4,
    tolerance_micros: 0,
    // The time may be missing, and is no part of the identity.
    provable: false,
    exchange_ts: Some(4),
    partition_micros: None,
    span_rows_max: 5_000,
    recent_cost_max: 100_000,
};

pub static COVERAGE: Table = Table {
    log: Log::Coverage,
    body: &[
        int8("covered_to"),
        int8("covered_from"),
        int8("session_id"),
        int8("sid"),
        varies("channel"),
        varies("ticker"),
        int8("first_exchange_ts"),
        int8("last_exchange_ts"),
        int8("records"),
        varies("ended_by"),
        varies("detail"),
    ],
    identity: 1..6,
    per_gatherer: true,
    time: 1,
    tolerance_micros: 0,
    provable: true,
    exchange_ts: None,
    partition_micros: Some(7 * DAY_MICROS),
    span_rows_max: 20_000,
    recent_cost_max: 200_000,
};

/// All six, in the order of [`Log::ALL`].
pub static ALL: [&Table; 6] =
    [&TRADES, &ORDERBOOK_DELTAS, &ORDERBOOK_SNAPSHOTS, &TICKERS, &MARKET_LIFECYCLE, &COVERAGE];

impl Table {
    /// The name in both databases.
    pub const fn name(&self) -> &'static str {
        self.log.name()
    }

    /// Where this log stands in [`ALL`] and in everything that is kept per log.
    pub fn index(&self) -> usize {
        ALL.iter().position(|table| table.log == self.log).unwrap_or_default()
    }

    /// Fields of a row as a gatherer sends it: `log_seq` and the body.
    pub const fn fields_read(&self) -> usize {
        self.body.len() + 1
    }

    fn body_columns(&self, prefix: &str) -> String {
        let names: Vec<String> =
            self.body.iter().map(|column| format!("{prefix}{}", column.name)).collect();
        names.join(", ")
    }

    /// Asks a gatherer for the rows of (after, through], in order, if its log is `log_id`.
    ///
    /// One statement sees one state of the database: were the log replaced since we last looked at
    /// its identity, the condition on it makes the answer empty.
    pub fn read_sql(&self, log_id: uuid::Uuid, after: i64, through: i64) -> String {
        let (name, columns) = (self.name(), self.body_columns(""));
        format!(
            "COPY (SELECT log_seq, {columns} FROM {name} \
             WHERE log_seq > {after} AND log_seq <= {through} \
             AND (SELECT log_id FROM logs WHERE name = '{name}') = '{log_id}' \
             ORDER BY log_seq) TO STDOUT (FORMAT binary)"
        )
    }

    /// Writes rows straight into production's table.
    pub fn copy_sql(&self) -> String {
        let (name, columns) = (self.name(), self.body_columns(""));
        format!("COPY {name} (log_seq, {columns}, gatherer_id) FROM STDIN (FORMAT binary)")
    }

    /// Makes the session's stage: production's columns without its keys; `log_seq` is the row's
    /// place in the batch there.
    pub fn create_stage_sql(&self) -> String {
        let name = self.name();
        format!("CREATE TEMP TABLE stage (LIKE {name}) ON COMMIT DELETE ROWS")
    }

    /// Writes rows into the stage.
    pub fn stage_sql(&self) -> String {
        format!(
            "COPY stage (log_seq, {}, gatherer_id) FROM STDIN (FORMAT binary)",
            self.body_columns("")
        )
    }

    /// Takes from the stage what the table has, and returns the places of these rows. Of a partitioned
    /// table only the partitions of the times from `$1` to `$2` are looked at.
    ///
    /// One lookup a row, as a scalar: a join would be planned by statistics.
    pub fn known_sql(&self) -> String {
        let name = self.name();
        let mut same = String::new();
        for column in self.body.get(self.identity.clone()).unwrap_or_default() {
            let column = column.name;
            let _infallible = write!(same, "t.{column} = s.{column} AND ");
        }
        if self.per_gatherer {
            same.push_str("t.gatherer_id = s.gatherer_id AND ");
        }
        if self.tolerance_micros > 0 {
            let tolerance = self.tolerance_micros;
            let time = self.column(self.time);
            let _infallible = write!(
                same,
                "t.{time} BETWEEN s.{time} - {tolerance} AND s.{time} + {tolerance} AND "
            );
        }
        if self.partition_micros.is_some() {
            let time = self.column(self.time);
            let _infallible = write!(same, "t.{time} BETWEEN $1 AND $2 AND ");
        }
        format!(
            "DELETE FROM stage s WHERE (SELECT true FROM {name} t WHERE {same}true LIMIT 1) \
             RETURNING s.log_seq"
        )
    }

    /// Moves the rest of the stage into the table, numbered from `$1` + 1 in the stage's order.
    ///
    /// No conflict clause: the stage holds each identity once and nobody else may write, so a
    /// conflict is a broken law and has to abort the transaction.
    pub fn insert_sql(&self) -> String {
        format!(
            "INSERT INTO {name} (log_seq, {columns}, gatherer_id) \
             SELECT $1::bigint + row_number() OVER (ORDER BY s.log_seq), {staged}, s.gatherer_id \
             FROM stage s",
            name = self.name(),
            columns = self.body_columns(""),
            staged = self.body_columns("s."),
        )
    }

    fn column(&self, index: usize) -> &'static str {
        self.body.get(index).map_or("", |column| column.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_model() {
        let logs: Vec<Log> = ALL.iter().map(|table| table.log).collect();
        assert_eq!(logs, Log::ALL);
        for (index, table) in ALL.iter().enumerate() {
            assert_eq!(table.index(), index);
            assert!(table.identity.end <= table.body.len());
            assert_eq!(table.body[0].width, Width::Fixed(8), "{} has no clock", table.name());
            assert_eq!(table.body[table.time].width, Width::Fixed(8));
            // A key over partitions holds the time they are made by.
            assert!(table.partition_micros.is_none() || table.provable);
            // What proves a row new must be the same in every copy: a part of the identity, or
            // bounded by the tolerance.
            assert!(
                !table.provable
                    || table.identity.contains(&table.time)
                    || table.tolerance_micros > 0
            );
        }
    }

    #[test]
    fn a_trade_is_looked_for_around_its_time() {
        let sql = TRADES.known_sql();
        assert!(sql.contains(
            "WHERE t.trade_id = s.trade_id AND \
             t.exchange_ts BETWEEN s.exchange_ts - 1000000 AND s.exchange_ts + 1000000 AND \
             t.exchange_ts BETWEEN $1 AND $2 AND true LIMIT 1)"
        ));
        assert!(COVERAGE.known_sql().contains("t.gatherer_id = s.gatherer_id AND t.covered"));
    }
}
