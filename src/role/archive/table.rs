//! The archive's tables: the one place that says what their columns are called, mean and hold. The
//! queries that read production, the Parquet schema and the DDL of every engine are made from it.
//!
//! Names are production's. Times are timestamps of microseconds in UTC, prices decimals of dollars
//! with six digits, sizes decimals of contracts with two: the same integers as in production, with the
//! point told to the reader. Nothing is a float.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::model::Log;

/// Digits of every decimal: as many as a signed 64-bit integer holds for certain.
pub const PRECISION: u8 = 18;
/// Digits behind the point of dollars: production holds micro-dollars.
pub const DOLLARS: i8 = 6;
/// Digits behind the point of contracts: production holds hundredths.
pub const CONTRACTS: i8 = 2;

/// What a column holds; decides its type everywhere and how it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A position in a log.
    Seq,
    /// Any integer of 64 bits that repeats: a session, a count.
    Number,
    /// One that does not: a hash.
    Hash,
    /// An integer of 32 bits.
    Small,
    Flag,
    Micros,
    Dollars,
    Contracts,
    /// A text of which there are few, such as tickers.
    Word,
    Text,
    DollarsList,
    ContractsList,
}

impl Kind {
    /// The type in Arrow.
    pub fn arrow(self) -> DataType {
        let list = |scale| {
            let element = Field::new("element", DataType::Decimal64(PRECISION, scale), false);
            DataType::List(Arc::new(element))
        };
        match self {
            Self::Seq | Self::Number | Self::Hash => DataType::Int64,
            Self::Small => DataType::Int32,
            Self::Flag => DataType::Boolean,
            Self::Micros => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Dollars => DataType::Decimal64(PRECISION, DOLLARS),
            Self::Contracts => DataType::Decimal64(PRECISION, CONTRACTS),
            Self::Word => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::Text => DataType::Utf8,
            Self::DollarsList => list(DOLLARS),
            Self::ContractsList => list(CONTRACTS),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// How production is asked for it.
    pub sql: &'static str,
    pub kind: Kind,
    pub nullable: bool,
    pub comment: &'static str,
}

const fn column(name: &'static str, kind: Kind, comment: &'static str) -> Column {
    Column { name, sql: name, kind, nullable: false, comment }
}

impl Column {
    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }

    const fn by(self, sql: &'static str) -> Self {
        Self { sql, ..self }
    }
}

/// Where a table's rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A log of production: rows are read by spans of `log_seq`.
    Log(Log),
    /// Versions of what REST lists: rows are read by the day in which they became valid.
    Versions { view: &'static str },
}

#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub source: Source,
    /// The column by which rows are sorted first, and that has a bloom filter.
    pub key: &'static str,
    /// The first of these that is not null says a row's day, and sorts it within its key.
    pub day_by: &'static [&'static str],
    /// About how many bytes of memory a row takes while a part is made.
    pub row_bytes: u64,
    pub columns: &'static [Column],
    pub comment: &'static str,
}

impl Table {
    /// The table of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|table| table.name == name)
    }

    /// The log that it is the archive of.
    pub const fn log(&self) -> Option<Log> {
        match self.source {
            Source::Log(log) => Some(log),
            Source::Versions { .. } => None,
        }
    }

    /// Where a column stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The schema of its record batches.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|c| Field::new(c.name, c.kind.arrow(), c.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The same with plain texts in place of dictionaries, as parts are read.
    pub fn plain_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|c| {
            let kind = if c.kind == Kind::Word { Kind::Text } else { c.kind };
            Field::new(c.name, kind.arrow(), c.nullable)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The columns as production is asked for them.
    pub fn select(&self) -> String {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.sql).collect();
        columns.join(", ")
    }

    /// The day of a row as SQL of production: whole days since 1970.
    pub fn day_sql(&self) -> String {
        format!("coalesce({}) / 86400000000", self.day_by.join(", "))
    }
}

const LOG_SEQ: Column = column("log_seq", Kind::Seq, "Position in production's log.");
const TICKER: Column = column("ticker", Kind::Word, "The market.");
const EXCHANGE_TS: Column = column("exchange_ts", Kind::Micros, "The exchange's clock.");
const RECEIVED_AT: Column =
    column("received_at", Kind::Micros, "The clock of the gatherer whose copy came first.");
const GATHERER: Column = column("gatherer_id", Kind::Small, "Whose copy came first.");
const HASH: Column =
    column("content_hash", Kind::Hash, "Of the content: tells two rows of one time apart.");
const SESSION: Column = column("session_id", Kind::Number, "The gatherer's connection.");
const SID: Column = column("sid", Kind::Number, "The exchange's subscription.");

static TRADES: Table = Table {
    name: "trades",
    source: Source::Log(Log::Trades),
    key: "ticker",
    day_by: &["exchange_ts"],
    row_bytes: 130,
    comment: "Trades. Identity: trade_id.",
    columns: &[
        TICKER,
        EXCHANGE_TS,
        RECEIVED_AT,
        column("trade_id", Kind::Text, "The exchange's id, a UUID.").by("trade_id::text"),
        column("price", Kind::Dollars, "Of the yes leg, in dollars."),
        column("no_price", Kind::Dollars, "Of the no leg, in dollars.").or_null(),
        column("size", Kind::Contracts, "In contracts."),
        column("taker_side", Kind::Flag, "True: the taker is on yes.").or_null(),
        column("is_block_trade", Kind::Flag, "Whether it was a block trade."),
        GATHERER.by("gatherer_id::int4"),
        LOG_SEQ,
    ],
};

static DELTAS: Table = Table {
    name: "orderbook_deltas",
    source: Source::Log(Log::OrderbookDeltas),
    key: "ticker",
    day_by: &["exchange_ts"],
    row_bytes: 80,
    comment: "Signed changes of levels, each once.",
    columns: &[
        TICKER,
        EXCHANGE_TS,
        RECEIVED_AT,
        column("side", Kind::Flag, "True: the yes side."),
        column("price", Kind::Dollars, "In yes-leg terms on both sides, in dollars."),
        column("size_delta", Kind::Contracts, "Signed, in contracts."),
        column("occurrence", Kind::Small, "Ordinal, from 1, among identical changes."),
        GATHERER.by("gatherer_id::int4"),
        LOG_SEQ,
    ],
};

static SNAPSHOTS: Table = Table {
    name: "orderbook_snapshots",
    source: Source::Log(Log::OrderbookSnapshots),
    key: "ticker",
    // The anchor is what a book is looked for by, so that a reader's condition on the day finds it.
    day_by: &["anchor_ts", "received_at"],
    row_bytes: 2_000,
    comment: "Full books, from every gatherer. The day is that of the anchor, where there is one.",
    columns: &[
        TICKER,
        column(
            "anchor_ts",
            Kind::Micros,
            "The book after all changes with exchange_ts <= anchor_ts equals this one.",
        )
        .or_null(),
        RECEIVED_AT,
        column("source", Kind::Word, "ws or rest."),
        column("yes_prices", Kind::DollarsList, "Prices of the yes side, ascending."),
        column("yes_sizes", Kind::ContractsList, "Contracts at each of them."),
        column("no_prices", Kind::DollarsList, "Of the no side, in yes-leg terms, ascending."),
        column("no_sizes", Kind::ContractsList, "Contracts at each of them."),
        SESSION,
        SID,
        column("seq", Kind::Seq, "The place in the exchange's stream."),
        GATHERER.by("gatherer_id::int4"),
        LOG_SEQ,
    ],
};

static TICKERS: Table = Table {
    name: "tickers",
    source: Source::Log(Log::Tickers),
    key: "ticker",
    day_by: &["exchange_ts"],
    row_bytes: 150,
    comment: "Messages of the ticker channel.",
    columns: &[
        TICKER,
        EXCHANGE_TS,
        RECEIVED_AT,
        column("last_price", Kind::Dollars, "Of the last trade, in dollars.").or_null(),
        column("yes_bid", Kind::Dollars, "Best bid for yes, in dollars.").or_null(),
        column("yes_ask", Kind::Dollars, "Best ask for yes, in dollars.").or_null(),
        column("yes_bid_size", Kind::Contracts, "Contracts at the bid.").or_null(),
        column("yes_ask_size", Kind::Contracts, "Contracts at the ask.").or_null(),
        column("last_trade_size", Kind::Contracts, "Of the last trade.").or_null(),
        column("volume", Kind::Contracts, "Contracts traded so far.").or_null(),
        column("open_interest", Kind::Contracts, "Contracts that are open.").or_null(),
        column("dollar_volume", Kind::Number, "Whole dollars traded so far.").or_null(),
        column("dollar_open_interest", Kind::Number, "Whole dollars that are open.").or_null(),
        HASH,
        GATHERER.by("gatherer_id::int4"),
        LOG_SEQ,
    ],
};

static LIFECYCLE: Table = Table {
    name: "market_lifecycle",
    source: Source::Log(Log::MarketLifecycle),
    key: "subject",
    day_by: &["exchange_ts", "received_at"],
    row_bytes: 2_000,
    comment: "Lifecycle messages of markets and events.",
    columns: &[
        column("subject", Kind::Word, "Ticker of the market or of the event."),
        column("event_type", Kind::Word, "As the exchange names it."),
        EXCHANGE_TS.or_null(),
        RECEIVED_AT,
        column("payload", Kind::Text, "The whole message, JSON.").by("payload::text"),
        HASH,
        GATHERER.by("gatherer_id::int4"),
        LOG_SEQ,
    ],
};

static COVERAGE: Table = Table {
    name: "coverage",
    source: Source::Log(Log::Coverage),
    key: "ticker",
    day_by: &["covered_from"],
    row_bytes: 250,
    comment: "Which gatherer saw which market without a hole, from when to when, and why it ended.",
    columns: &[
        column("ticker", Kind::Word, "The market; empty for a channel that covers all markets."),
        column("channel", Kind::Word, "The exchange's channel."),
        column("covered_from", Kind::Micros, "The gatherer's clock at the stretch's first frame."),
        column("covered_to", Kind::Micros, "Its clock at the last frame or pong."),
        column("first_exchange_ts", Kind::Micros, "The exchange's clock at the first record.")
            .or_null(),
        column("last_exchange_ts", Kind::Micros, "The exchange's clock at the last one.").or_null(),
        column("records", Kind::Number, "Records of the market; null when a crash lost the count.")
            .or_null(),
        column("ended_by", Kind::Word, "gap, reset, disconnect, stop, crash, continues, ..."),
        column("detail", Kind::Text, "More about the end."),
        SESSION,
        SID,
        GATHERER.by("gatherer_id::int4"),
        LOG_SEQ,
    ],
};

const CONTENT: Column = column("content_hash", Kind::Hash, "Another hash is another version.");
const RAW: Column =
    column("raw", Kind::Text, "The whole object as REST listed it, JSON.").by("raw::text");
const PRESENCE: Column = column("presence", Kind::Word, "listed, archived or missing.");
const VALID_FROM: Column = column(
    "valid_from",
    Kind::Micros,
    "When this version was received; the next one of its key ends it.",
);
const UPDATED: Column =
    column("updated_ts", Kind::Micros, "When the exchange says that it changed it.").or_null();
const TITLE: Column = column("title", Kind::Text, "For people.").or_null();
const CATEGORY: Column = column("category", Kind::Word, "The exchange's category.").or_null();

static SERIES: Table = Table {
    name: "series",
    source: Source::Versions { view: "series_history" },
    key: "ticker",
    day_by: &["valid_from"],
    row_bytes: 3_000,
    comment: "Every version of every series.",
    columns: &[
        column("ticker", Kind::Word, "The exchange's name of the series."),
        VALID_FROM,
        TITLE,
        CATEGORY,
        column("frequency", Kind::Word, "How often events recur.").or_null(),
        column("fee_type", Kind::Word, "How trading fees are computed.").or_null(),
        column("fee_multiplier", Kind::Word, "The number in that, as sent.").or_null(),
        UPDATED,
        RAW,
        CONTENT,
        PRESENCE,
    ],
};

static EVENTS: Table = Table {
    name: "events",
    source: Source::Versions { view: "events_history" },
    key: "event_ticker",
    day_by: &["valid_from"],
    row_bytes: 2_000,
    comment: "Every version of every event.",
    columns: &[
        column("event_ticker", Kind::Word, "The exchange's name of the event."),
        VALID_FROM,
        column("series_ticker", Kind::Word, "The series that it belongs to.").or_null(),
        TITLE,
        column("sub_title", Kind::Text, "For people, shorter.").or_null(),
        CATEGORY,
        column("mutually_exclusive", Kind::Flag, "At most one of its markets resolves to yes.")
            .or_null(),
        column("collateral_return_type", Kind::Word, "As the exchange names it.").or_null(),
        column("strike_ts", Kind::Micros, "The date that the question is about.").or_null(),
        column("strike_period", Kind::Word, "The period that it is about, as sent.").or_null(),
        UPDATED,
        RAW,
        CONTENT,
        PRESENCE,
    ],
};

static MARKETS: Table = Table {
    name: "markets",
    source: Source::Versions { view: "markets_history" },
    key: "ticker",
    day_by: &["valid_from"],
    row_bytes: 4_000,
    comment: "Every version of every market. Trading alone makes no version.",
    columns: &[
        column("ticker", Kind::Word, "The exchange's name of the market, as in the logs."),
        VALID_FROM,
        column("event_ticker", Kind::Word, "The event that it belongs to.").or_null(),
        column("market_type", Kind::Word, "binary, scalar, or one that is new.").or_null(),
        TITLE,
        column("yes_sub_title", Kind::Text, "What yes means, for people.").or_null(),
        column("no_sub_title", Kind::Text, "What no means, for people.").or_null(),
        column("status", Kind::Word, "unopened, open, closed or settled.").or_null(),
        column("exchange_status", Kind::Word, "As the exchange names it.").or_null(),
        column("result", Kind::Word, "yes, no, scalar, or empty; as sent.").or_null(),
        column("settlement_value", Kind::Dollars, "What a yes contract pays.").or_null(),
        column("settlement_ts", Kind::Micros, "When it was settled.").or_null(),
        column("expiration_value", Kind::Text, "The value that decided it, as sent.").or_null(),
        column("created_ts", Kind::Micros, "When the exchange created it.").or_null(),
        UPDATED,
        column("open_ts", Kind::Micros, "Trading begins.").or_null(),
        column("close_ts", Kind::Micros, "Trading ends.").or_null(),
        column("expected_expiration_ts", Kind::Micros, "The result is expected.").or_null(),
        column("latest_expiration_ts", Kind::Micros, "The result is known at last.").or_null(),
        column("settlement_timer_seconds", Kind::Number, "Determination to settlement.").or_null(),
        column("notional_value", Kind::Dollars, "What yes and no pay together.").or_null(),
        column("last_price", Kind::Dollars, "Of the last trade, when it was read.").or_null(),
        column("volume", Kind::Contracts, "Traded, when it was read.").or_null(),
        column("open_interest", Kind::Contracts, "Open, when it was read.").or_null(),
        column("strike_type", Kind::Word, "greater, between, custom, ...").or_null(),
        column("floor_strike", Kind::Word, "The lower strike, as sent.").or_null(),
        column("cap_strike", Kind::Word, "The upper strike, as sent.").or_null(),
        column("price_level_structure", Kind::Word, "The name of the price steps.").or_null(),
        column("mve_collection_ticker", Kind::Word, "Of a combo market, its collection.").or_null(),
        RAW,
        CONTENT,
        PRESENCE,
    ],
};

/// All of them, those of the logs first.
pub static ALL: [&Table; 9] =
    [&TRADES, &DELTAS, &SNAPSHOTS, &TICKERS, &LIFECYCLE, &COVERAGE, &SERIES, &EVENTS, &MARKETS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_key_its_day_and_its_place_in_the_log() {
        for table in ALL {
            assert_eq!(table.columns[0].name, table.key, "{}", table.name);
            for name in table.day_by {
                let at = table.position(name).unwrap();
                assert_eq!(table.columns[at].kind, Kind::Micros, "{name}");
            }
            let last = table.day_by.last().unwrap();
            assert!(!table.columns[table.position(last).unwrap()].nullable, "{}", table.name);
            assert_eq!(table.log().is_some(), table.position("log_seq").is_some());
            assert_eq!(table.schema().fields().len(), table.columns.len());
            assert!(Table::named(table.name).is_some());
        }
        for log in Log::ALL {
            assert_eq!(Table::named(log.name()).unwrap().log(), Some(log));
        }
    }

    /// `side` is a word of Hive's, but no word that any engine refuses as a column without quotes.
    #[test]
    fn names_are_plain() {
        for column in ALL.into_iter().flat_map(|table| table.columns) {
            assert!(column.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert!(!column.comment.contains('\''.to_string().repeat(2).as_str()));
            assert!(column.comment.ends_with('.') || column.comment.ends_with("..."));
        }
    }
}
