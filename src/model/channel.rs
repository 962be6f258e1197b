//! The exchange's channels and our logs, by the names that both use.

use std::fmt;

/// A channel of the exchange's WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    OrderbookDelta,
    Trade,
    Ticker,
    Lifecycle,
    MultivariateLifecycle,
}

impl Channel {
    pub const ALL: [Self; 5] = [
        Self::OrderbookDelta,
        Self::Trade,
        Self::Ticker,
        Self::Lifecycle,
        Self::MultivariateLifecycle,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrderbookDelta => "orderbook_delta",
            Self::Trade => "trade",
            Self::Ticker => "ticker",
            Self::Lifecycle => "market_lifecycle_v2",
            Self::MultivariateLifecycle => "multivariate_market_lifecycle",
        }
    }

    /// The channel of that name, when we know it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }

    /// Whether its frames carry `seq`. `ticker` alone has none.
    pub const fn is_sequenced(self) -> bool {
        !matches!(self, Self::Ticker)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the six append-only logs, named like its table in either database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    Trades,
    OrderbookDeltas,
    OrderbookSnapshots,
    Tickers,
    MarketLifecycle,
    Coverage,
}

impl Log {
    pub const ALL: [Self; 6] = [
        Self::Trades,
        Self::OrderbookDeltas,
        Self::OrderbookSnapshots,
        Self::Tickers,
        Self::MarketLifecycle,
        Self::Coverage,
    ];

    /// The table's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::OrderbookDeltas => "orderbook_deltas",
            Self::OrderbookSnapshots => "orderbook_snapshots",
            Self::Tickers => "tickers",
            Self::MarketLifecycle => "market_lifecycle",
            Self::Coverage => "coverage",
        }
    }

    /// The log of that table name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|log| log.name() == name)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
