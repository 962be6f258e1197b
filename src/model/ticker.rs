//! Tickers: the exchange's names of markets and events.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::decimal::excerpt;

/// The longest ticker accepted, in bytes. Tickers of up to 200 characters exist.
pub const TICKER_BYTES_MAX: usize = 200;

/// The name of a market (or of an event, where a lifecycle frame is about one): 1 to
/// [`TICKER_BYTES_MAX`] printable ASCII characters. Cheap to clone: rows of one market share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticker(Arc<str>);

/// Why a text is no ticker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TickerError {
    Empty,
    TooLong(String, usize),
    Unprintable(String),
}

impl fmt::Display for TickerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the ticker is empty"),
            Self::TooLong(text, len) => {
                write!(f, "{text:?} has {len} bytes, more than {TICKER_BYTES_MAX}")
            }
            Self::Unprintable(text) => write!(f, "{text:?} is not printable ASCII"),
        }
    }
}

impl std::error::Error for TickerError {}

impl Ticker {
    /// Checks and copies a ticker from the wire.
    ///
    /// # Errors
    /// When it is empty, too long, or holds anything but printable ASCII without blanks.
    pub fn parse(text: &str) -> Result<Self, TickerError> {
        Self::check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// Checks a text without keeping it.
    ///
    /// # Errors
    /// As [`Ticker::parse`].
    pub fn check(text: &str) -> Result<(), TickerError> {
        if text.is_empty() {
            return Err(TickerError::Empty);
        }
        if text.len() > TICKER_BYTES_MAX {
            return Err(TickerError::TooLong(excerpt(text), text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TickerError::Unprintable(excerpt(text)));
        }
        Ok(())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Ticker {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept() {
        assert!(Ticker::parse("KXGOLD15M-26AUG050800-00").is_ok());
        assert_eq!(Ticker::parse(""), Err(TickerError::Empty));
        assert!(matches!(Ticker::parse("A B"), Err(TickerError::Unprintable(_))));
        assert!(Ticker::parse(&"K".repeat(200)).is_ok());
        let error = Ticker::parse(&"K".repeat(300)).unwrap_err();
        assert!(matches!(error, TickerError::TooLong(_, 300)));
        assert!(error.to_string().len() < 100);
    }
}
