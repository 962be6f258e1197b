//! The three tables: what each is listed by, and which field of the exchange's object is which
//! column. The encoding, the stage and the merge all follow from this.

use crate::kalshi::lists::List;

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Series,
    Events,
    Markets,
}

/// How a field's value becomes a column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    Text,
    /// Text of a column with an index, which takes no value of any length.
    Name,
    /// Text or number, as sent.
    Plain,
    /// `text` dollars to micro-dollars.
    Dollars,
    /// `text` contracts to hundredths.
    Contracts,
    /// RFC 3339, or Unix seconds, to microseconds.
    Time,
    Integer,
    Flag,
    /// The exchange's status to the production one.
    Status,
}

/// A column between the key and those that all three tables end in.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// The field of the exchange's object.
    pub field: &'static str,
    pub kind: As,
}

const fn column(name: &'static str, field: &'static str, kind: As) -> Column {
    Column { name, field, kind }
}

const fn same(name: &'static str, kind: As) -> Column {
    Column { name, field: name, kind }
}

/// What every table ends in.
pub const LAST: [&str; 4] = ["raw", "content_hash", "presence", "valid_from"];

const SERIES: [Column; 6] = [
    same("title", As::Text),
    same("category", As::Text),
    same("frequency", As::Text),
    same("fee_type", As::Text),
    same("fee_multiplier", As::Plain),
    column("updated_ts", "last_updated_ts", As::Time),
];

const EVENTS: [Column; 9] = [
    same("series_ticker", As::Name),
    same("title", As::Text),
    same("sub_title", As::Text),
    same("category", As::Text),
    same("mutually_exclusive", As::Flag),
    same("collateral_return_type", As::Text),
    column("strike_ts", "strike_date", As::Time),
    same("strike_period", As::Text),
    column("updated_ts", "last_updated_ts", As::Time),
];

const MARKETS: [Column; 27] = [
    same("event_ticker", As::Name),
    same("market_type", As::Text),
    same("title", As::Text),
    same("yes_sub_title", As::Text),
    same("no_sub_title", As::Text),
    column("status", "status", As::Status),
    column("exchange_status", "status", As::Text),
    same("result", As::Text),
    column("settlement_value", "settlement_value_dollars", As::Dollars),
    same("settlement_ts", As::Time),
    same("expiration_value", As::Plain),
    column("created_ts", "created_time", As::Time),
    column("updated_ts", "updated_time", As::Time),
    column("open_ts", "open_time", As::Time),
    column("close_ts", "close_time", As::Time),
    column("expected_expiration_ts", "expected_expiration_time", As::Time),
    column("latest_expiration_ts", "latest_expiration_time", As::Time),
    same("settlement_timer_seconds", As::Integer),
    column("notional_value", "notional_value_dollars", As::Dollars),
    column("last_price", "last_price_dollars", As::Dollars),
    column("volume", "volume_fp", As::Contracts),
    column("open_interest", "open_interest_fp", As::Contracts),
    same("strike_type", As::Text),
    same("floor_strike", As::Plain),
    same("cap_strike", As::Plain),
    same("price_level_structure", As::Text),
    same("mve_collection_ticker", As::Text),
];

impl Kind {
    /// Groups before what is in them, so that a reader finds a market's event; nothing needs it.
    pub const ALL: [Self; 3] = [Self::Series, Self::Events, Self::Markets];

    /// The table's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Events => "events",
            Self::Markets => "markets",
        }
    }

    /// The key's column, which is the field's name too.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Series | Self::Markets => "ticker",
            Self::Events => "event_ticker",
        }
    }

    /// The columns between the key and [`LAST`].
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Series => &SERIES,
            Self::Events => &EVENTS,
            Self::Markets => &MARKETS,
        }
    }

    /// The lists that together are complete.
    pub const fn lists(self, multivariate: bool) -> &'static [List] {
        match self {
            Self::Series => &[List::Series],
            Self::Events if multivariate => &[List::Events, List::MultivariateEvents],
            Self::Events => &[List::Events],
            Self::Markets => &[List::Markets],
        }
    }
}

/// The production status of the exchange's; none of one that this version does not know.
pub fn production_status(exchange: &str) -> Option<&'static str> {
    match exchange {
        "initialized" | "unopened" => Some("unopened"),
        // A pause is within the time of trading, and `exchange_status` has it.
        "active" | "inactive" | "open" | "paused" => Some("open"),
        "closed" | "determined" | "disputed" | "amended" => Some("closed"),
        "finalized" | "settled" => Some("settled"),
        _ => None,
    }
}

/// Beginnings of the names of fields that trading changes. They are kept in the row and in `raw`, but
/// another figure is no other version: the logs of trades and tickers have each of them.
const TRADING: [&str; 11] = [
    "yes_bid",
    "yes_ask",
    "no_bid",
    "no_ask",
    "last_price",
    "last_trade",
    "previous_",
    "volume",
    "open_interest",
    "liquidity",
    "dollar_",
];

/// Whether trading changes a field.
pub fn is_trading(field: &str) -> bool {
    TRADING.iter().any(|beginning| field.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_exchange_has_one_of_production() {
        for (exchange, production) in [
            ("initialized", Some("unopened")),
            ("active", Some("open")),
            ("inactive", Some("open")),
            ("closed", Some("closed")),
            ("determined", Some("closed")),
            ("disputed", Some("closed")),
            ("amended", Some("closed")),
            ("finalized", Some("settled")),
            ("brand_new", None),
        ] {
            assert_eq!(production_status(exchange), production, "{exchange}");
        }
    }

    #[test]
    fn trading_is_told_from_metadata() {
        for field in ["yes_bid_dollars", "volume_24h_fp", "previous_price_dollars", "liquidity"] {
            assert!(is_trading(field), "{field}");
        }
        for field in ["yes_sub_title", "no_sub_title", "open_time", "settlement_value_dollars"] {
            assert!(!is_trading(field), "{field}");
        }
    }
}
