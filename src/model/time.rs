//! Time as microseconds since the Unix epoch, UTC, and the exchange's ways to write it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::decimal::excerpt;

/// 2021-01-01T00:00:00Z: the exchange opened later that year, so nothing true is older.
pub const EXCHANGE_TS_MIN: Micros = Micros(1_609_459_200_000_000);
/// How far ahead of our clock an exchange time may be before it is refused: one day.
pub const AHEAD_MICROS_MAX: i64 = 86_400_000_000;

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub i64);

/// Why a frame's time cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeError {
    /// Neither `ts` with a fraction nor `ts_ms` was there.
    Missing,
    /// Not RFC 3339 in UTC with at most nine decimals.
    Malformed(String),
    /// Before 2021 or more than a day ahead of our clock.
    OutOfRange(Micros),
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no exchange time"),
            Self::Malformed(text) => write!(f, "{text:?} is not an RFC 3339 time in UTC"),
            Self::OutOfRange(at) => write!(f, "{at} is before 2021 or over a day ahead"),
        }
    }
}

impl std::error::Error for TimeError {}

impl Micros {
    /// Our clock now.
    pub fn now() -> Self {
        // Before 1970 or after the year 294,246 there is no sensible answer; the clock is wrong.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// From whole milliseconds, as in `ts_ms`. Saturates far outside the accepted range.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// From whole seconds, as in `open_ts`. Saturates far outside the accepted range.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Parses `2026-08-05T03:45:40.722003Z` with 0 to 9 decimals, cut to microseconds.
    ///
    /// # Errors
    /// When the text is not RFC 3339 in UTC (`Z` or a zero offset).
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        parse_rfc3339(text.as_bytes()).ok_or_else(|| TimeError::Malformed(excerpt(text)))
    }

    /// Checks that an exchange time is believable: from 2021 to a day after `now`.
    ///
    /// # Errors
    /// When it is not, so that a wrong time never opens a stray partition.
    pub fn believable(self, now: Self) -> Result<Self, TimeError> {
        if self < EXCHANGE_TS_MIN || self.0 > now.0.saturating_add(AHEAD_MICROS_MAX) {
            return Err(TimeError::OutOfRange(self));
        }
        Ok(self)
    }

    /// Microseconds from `earlier` to this; negative when this is before it.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, micros) = (self.0.div_euclid(86_400_000_000), self.0.rem_euclid(86_400_000_000));
        let (year, month, day) = civil_from_days(days);
        let (secs, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
    }
}

/// Reads a fixed run of ASCII digits.
fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0_i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// Hand-written because it runs once a delta: a general parser costs more than the whole decode.
fn parse_rfc3339(text: &[u8]) -> Option<Micros> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let number = |from: usize, to: usize| digits(date_time.get(from..to)?);
    let mark = |at: usize, allowed: &[u8]| allowed.contains(date_time.get(at)?).then_some(());
    mark(4, b"-")?;
    mark(7, b"-")?;
    mark(10, b"Tt ")?;
    mark(13, b":")?;
    mark(16, b":")?;
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let day_max = match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    };
    let valid = (1..=12).contains(&month)
        && (1..=day_max).contains(&day)
        && hour < 24
        && minute < 60
        // A leap second counts as the last microseconds of its minute.
        && second <= 60;
    if !valid {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&len) {
                return None;
            }
            let (fraction, zone) = rest.split_at_checked(len)?;
            let kept = fraction.get(..len.min(6))?;
            let scale = 10_i64.pow(u32::try_from(6 - kept.len()).ok()?);
            (digits(kept)? * scale, zone)
        }
        None => (0, rest),
    };
    if !matches!(zone, b"Z" | b"z" | b"+00:00" | b"-00:00") {
        return None;
    }
    let secs = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Micros(secs * 1_000_000 + fraction))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fractions_of_any_length_keep_their_value() {
        let base = Micros(1_785_901_540_000_000);
        for (text, micros) in [
            ("2026-08-05T03:45:40Z", 0),
            ("2026-08-05T03:45:40.7Z", 700_000),
            ("2026-08-05T03:45:40.722003Z", 722_003),
            ("2026-08-05T03:45:40.722003999Z", 722_003),
            ("2026-08-05T03:45:40.722003+00:00", 722_003),
        ] {
            assert_eq!(Micros::parse_rfc3339(text), Ok(Micros(base.0 + micros)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_in_utc_is_refused() {
        for text in [
            "",
            "2026-08-05",
            "2026-13-05T03:45:40Z",
            "2026-02-30T03:45:40Z",
            "2026-08-05T03:45:40+02:00",
            "2026-08-05T03:45:40.Z",
            "2026-08-05T03:45:40",
            "2026-08-05T25:45:40Z",
            "é026-08-05T03:45:40Z",
        ] {
            assert!(Micros::parse_rfc3339(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unbelievable_times_are_refused() {
        let now = Micros(1_785_901_540_000_000);
        assert!(Micros(0).believable(now).is_err());
        assert!(Micros(now.0 + AHEAD_MICROS_MAX + 1).believable(now).is_err());
        assert_eq!(now.believable(now), Ok(now));
    }

    proptest! {
        #[test]
        fn every_time_survives_its_text(micros in 0_i64..=253_402_300_799_999_999) {
            prop_assert_eq!(Micros::parse_rfc3339(&Micros(micros).to_string()), Ok(Micros(micros)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _time = Micros::parse_rfc3339(&text);
        }
    }
}
