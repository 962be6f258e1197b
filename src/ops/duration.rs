//! Durations as people write them, and as metrics and reports count them.

use std::time::Duration;

/// `72h`, `1h30m`, `500ms`: whole numbers with units ms, s, m, h, d, w. The error is a clause that
/// follows the quoted text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let error = || "is not a duration like 500ms, 25s, 5m, 72h or 14d".to_owned();
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(error)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters).ok_or_else(error)?;
        let number: u32 = number.parse().map_err(|_| error())?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            "w" => Duration::from_secs(604_800),
            _ => return Err(error()),
        };
        let part = unit.checked_mul(number).ok_or_else(error)?;
        total = total.checked_add(part).ok_or_else(error)?;
        rest = tail;
    }
    Ok(total)
}

/// Microseconds as seconds; exact to the microsecond for some centuries.
pub fn seconds(micros: i64) -> f64 {
    let length = Duration::from_micros(micros.unsigned_abs()).as_secs_f64();
    if micros < 0 { -length } else { length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_keep_their_microseconds() {
        assert!((seconds(1_500_000) - 1.5).abs() < 1e-9);
        assert!((seconds(-1) + 1e-6).abs() < 1e-12);
    }

    #[test]
    fn units_and_sums_of_them() {
        for (text, seconds) in [
            ("25s", 25),
            ("5m", 300),
            ("72h", 259_200),
            ("14d", 1_209_600),
            ("1w", 604_800),
            ("1h30m", 5400),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse(" 500ms "), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in ["", "5", "h", "5x", "-5s", "1.5h", "5 m", "99999999999d", "5m3", "5µs", "４s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
