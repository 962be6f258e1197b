//! Exact decimal numbers: prices in micro-dollars and sizes in hundredths of a contract.
//!
//! The exchange sends decimal text whose number of decimals varies (`"0.5"`, `"0.4800"`); it never
//! passes through a float here, and text that does not fit exactly is an error that names itself.

use std::fmt;

/// Digits after the point that a [`Price`] keeps: one unit is a millionth of a dollar.
const PRICE_DECIMALS: u32 = 6;
/// Digits after the point that a [`Size`] keeps: one unit is a hundredth of a contract.
const SIZE_DECIMALS: u32 = 2;
/// The largest price accepted, in micro-dollars (1,000,000 dollars): far above any notional value,
/// far below what could overflow a sum.
pub const PRICE_MICROS_MAX: i64 = 1_000_000 * 1_000_000;
/// The largest size accepted, in hundredths (10^13 contracts).
pub const SIZE_HUNDREDTHS_MAX: i64 = 1_000_000_000_000_000;

/// Why a piece of text is not the number that its field needs. Carries the text, cut to 40 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NumberError {
    /// Not `-?[0-9]+(\.[0-9]+)?`, the only form that the exchange documents.
    Malformed(String),
    /// More decimals than the unit can hold exactly.
    TooPrecise(String, u32),
    /// Outside the bounds of the type.
    OutOfRange(String),
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "{text:?} is not a decimal number"),
            Self::TooPrecise(text, max) => write!(f, "{text:?} has more than {max} decimals"),
            Self::OutOfRange(text) => write!(f, "{text:?} is out of range"),
        }
    }
}

impl std::error::Error for NumberError {}

/// Shortens text from the wire so that an error or a log line stays readable.
pub fn excerpt(text: &str) -> String {
    const LEN_MAX: usize = 40;
    if text.len() <= LEN_MAX {
        return text.to_owned();
    }
    let end = (0..=LEN_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}

/// Parses `-?[0-9]+(\.[0-9]+)?` into an integer of `decimals` implied decimals, exactly.
fn parse_fixed(text: &str, decimals: u32) -> Result<i64, NumberError> {
    let malformed = || NumberError::Malformed(excerpt(text));
    let out_of_range = || NumberError::OutOfRange(excerpt(text));
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(malformed()),
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(malformed());
    }
    if fraction.contains('.') {
        return Err(malformed());
    }
    if fraction.len() > decimals as usize {
        return Err(NumberError::TooPrecise(excerpt(text), decimals));
    }
    let mut value: i64 = 0;
    let padding = std::iter::repeat_n(b'0', decimals as usize - fraction.len());
    for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i64::from(digit - b'0')))
            .ok_or_else(out_of_range)?;
    }
    Ok(if negative { -value } else { value })
}

/// Writes `value` with `decimals` implied decimals, keeping at least `shown` of them.
fn write_fixed(f: &mut fmt::Formatter<'_>, value: i64, decimals: u32, shown: usize) -> fmt::Result {
    let unit = 10_u64.pow(decimals);
    let magnitude = value.unsigned_abs();
    let sign = if value < 0 { "-" } else { "" };
    let mut fraction = format!("{:0width$}", magnitude % unit, width = decimals as usize);
    while fraction.len() > shown && fraction.ends_with('0') {
        fraction.pop();
    }
    write!(f, "{sign}{}.{fraction}", magnitude / unit)
}

/// A price in micro-dollars (1e-6 $), 0 to [`PRICE_MICROS_MAX`], always in yes-leg terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price(i64);

impl Price {
    /// Parses the exchange's `*_dollars` text.
    ///
    /// # Errors
    /// When the text is malformed, has more than six decimals, or is outside the bounds.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let micros = parse_fixed(text, PRICE_DECIMALS)?;
        if !(0..=PRICE_MICROS_MAX).contains(&micros) {
            return Err(NumberError::OutOfRange(excerpt(text)));
        }
        Ok(Self(micros))
    }

    /// A price that was already checked, for instance one read back from a table.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The price in micro-dollars.
    pub const fn micros(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Price {
    /// Four decimals as the exchange prints them, more only where the price has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_fixed(f, self.0, PRICE_DECIMALS, 4)
    }
}

/// A size, or a signed change of one, in hundredths of a contract; contracts are fractional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(i64);

impl Size {
    /// Parses the exchange's `*_fp` text where it cannot be negative.
    ///
    /// # Errors
    /// When the text is malformed, negative, has more than two decimals, or is outside the bounds.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let size = Self::parse_signed(text)?;
        if size.0 < 0 {
            return Err(NumberError::OutOfRange(excerpt(text)));
        }
        Ok(size)
    }

    /// Parses the exchange's `delta_fp` text, which may be negative.
    ///
    /// # Errors
    /// When the text is malformed, has more than two decimals, or is outside the bounds.
    pub fn parse_signed(text: &str) -> Result<Self, NumberError> {
        let hundredths = parse_fixed(text, SIZE_DECIMALS)?;
        if hundredths.abs() > SIZE_HUNDREDTHS_MAX {
            return Err(NumberError::OutOfRange(excerpt(text)));
        }
        Ok(Self(hundredths))
    }

    /// A size that was already checked, for instance one read back from a table.
    pub const fn from_hundredths(hundredths: i64) -> Self {
        Self(hundredths)
    }

    /// The size in hundredths of a contract.
    pub const fn hundredths(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_fixed(f, self.0, SIZE_DECIMALS, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_vary_and_mean_the_same() {
        for text in ["0.48", "0.480", "0.4800", "0.480000", "00.48"] {
            assert_eq!(Price::parse(text), Ok(Price::from_micros(480_000)), "{text}");
        }
        assert_eq!(Price::parse("1"), Ok(Price::from_micros(1_000_000)));
        assert_eq!(Size::parse("46.02"), Ok(Size::from_hundredths(4602)));
        assert_eq!(Size::parse_signed("-54.00"), Ok(Size::from_hundredths(-5400)));
    }

    #[test]
    fn text_that_does_not_fit_exactly_is_refused() {
        let precise = Price::parse("0.123456789").unwrap_err();
        assert_eq!(precise.to_string(), "\"0.123456789\" has more than 6 decimals");
        for text in ["1e9", "", ".", "1.", ".5", "+1", "--1", "1.2.3", " 1", "0x1", "NaN", "١"] {
            assert!(matches!(Size::parse(text), Err(NumberError::Malformed(_))), "{text:?}");
        }
        assert!(matches!(Price::parse("-0.01"), Err(NumberError::OutOfRange(_))));
        assert!(matches!(Size::parse("-1"), Err(NumberError::OutOfRange(_))));
        let huge = "9".repeat(300);
        let error = Price::parse(&huge).unwrap_err();
        assert!(error.to_string().len() < 80, "{error}");
    }

    proptest! {
        #[test]
        fn every_price_survives_its_text(micros in 0..=PRICE_MICROS_MAX) {
            let price = Price::from_micros(micros);
            prop_assert_eq!(Price::parse(&price.to_string()), Ok(price));
        }

        #[test]
        fn every_size_survives_its_text(hundredths in -SIZE_HUNDREDTHS_MAX..=SIZE_HUNDREDTHS_MAX) {
            let size = Size::from_hundredths(hundredths);
            prop_assert_eq!(Size::parse_signed(&size.to_string()), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _number = (Price::parse(&text), Size::parse_signed(&text));
        }
    }
}
