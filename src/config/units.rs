//! Durations, sizes, addresses and names as people write them.
//!
//! Every error is a clause that follows the quoted value: "`5x` is not a duration".

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Uri;

pub use crate::ops::duration::parse as duration;

/// A duration within bounds, both included.
pub fn duration_within(
    min: Duration,
    max: Duration,
    shown: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = duration(text)?;
        if value < min || value > max { Err(format!("is not {shown}")) } else { Ok(value) }
    }
}

/// Yes or no, in the words of YAML.
pub fn flag(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// How long rows are kept; None is for ever.
pub fn retention(text: &str) -> Result<Option<Duration>, String> {
    if text.trim() == "forever" {
        return Ok(None);
    }
    match duration(text) {
        Ok(value) if value >= Duration::from_secs(3600) => Ok(Some(value)),
        Ok(_) => Err("is shorter than 1h".to_owned()),
        Err(_) => Err("is neither forever nor a duration like 14d".to_owned()),
    }
}

/// For what is always kept.
pub fn forever(text: &str) -> Result<(), String> {
    if text.trim() == "forever" {
        Ok(())
    } else {
        Err("is not forever, the only choice".to_owned())
    }
}

/// How often each book is compared; None is never.
pub fn audit_period(text: &str) -> Result<Option<Duration>, String> {
    let text = text.trim();
    if matches!(text, "off" | "0") {
        return Ok(None);
    }
    let bounds = Duration::from_secs(10)..=Duration::from_secs(30 * 86_400);
    match duration(text) {
        Ok(value) if value.is_zero() => Ok(None),
        Ok(value) if bounds.contains(&value) => Ok(Some(value)),
        Ok(_) | Err(_) => Err("is neither off nor a time from 10s to 30d".to_owned()),
    }
}

/// `50GiB`, `1.5GB` is not; a bare number is bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let error = || "is not a size like 512MiB, 50GiB or 2TB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(error)?;
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(error()),
    };
    number.checked_mul(unit).ok_or_else(error)
}

/// A count of sessions.
pub fn sessions(text: &str) -> Result<u16, String> {
    const MAX: u16 = 1000;
    match text.trim().parse() {
        Ok(count) if (1..=MAX).contains(&count) => Ok(count),
        _ => Err(format!("is not a number of sessions from 1 to {MAX}")),
    }
}

/// The connections that one user may have.
pub fn connections(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(count) if (4..=10_000).contains(&count) => Ok(count),
        _ => Err("is not a number of connections from 4 to 10000".to_owned()),
    }
}

/// A count of gatherers.
pub fn gatherers(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(count) if (1..=100).contains(&count) => Ok(count),
        _ => Err("is not a number of gatherers from 1 to 100".to_owned()),
    }
}

/// A part of a whole.
pub fn share(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(share) if (0.001..=1.0).contains(&share) => Ok(share),
        _ => Err("is not a share from 0.001 to 1".to_owned()),
    }
}

/// A TCP port that something can listen on.
pub fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("is not a port from 1 to 65535".to_owned()),
    }
}

/// An address to listen on; port 0 takes a free one.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| "is not an address like 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// The name of a gatherer or deduplicator: it becomes part of rows, metrics and lock holders.
pub fn id(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 40;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > BYTES_MAX || !text.chars().all(fine) {
        return Err(format!("is not a name of 1 to {BYTES_MAX} letters, digits, `-`, `_` and `.`"));
    }
    Ok(text.to_owned())
}

/// A pattern of series tickers: a ticker in which `*` stands for any text.
pub fn series(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 200;
    let fine = |c: char| c.is_ascii_graphic();
    if text.is_empty() || text.len() > BYTES_MAX || !text.chars().all(fine) {
        return Err("is not a series like KXGOLD15M or KXBTC*".to_owned());
    }
    Ok(text.to_owned())
}

/// A pattern of market tickers.
pub fn market(text: &str) -> Result<String, String> {
    series(text)
        .map_err(|_| "is not a market like KXGOLD15M-26AUG050800-00 or KXBTC*-T9*".to_owned())
}

/// `https://...`, or `http://...` on a loopback host; without the slash at its end.
pub fn rest_url(text: &str) -> Result<String, String> {
    url(text, "https", "http")
}

/// `wss://...`, or `ws://...` on a loopback host; without the slash at its end.
pub fn ws_url(text: &str) -> Result<String, String> {
    url(text, "wss", "ws")
}

fn url(text: &str, secure: &str, plain: &str) -> Result<String, String> {
    let text = text.trim();
    let error = || format!("is not a URL like {secure}://host/path");
    let uri: Uri = text.parse().map_err(|_| error())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(error()) };
    let authority = uri.authority().ok_or_else(error)?;
    if host.is_empty()
        || authority.as_str().contains('@')
        || uri.query().is_some()
        || text.contains('#')
    {
        return Err(format!("{}, without user, query or fragment", error()));
    }
    // A port that is no number, or too large, is left out by the parser without a word.
    let has_port = authority.as_str().strip_prefix(host).is_some_and(|rest| !rest.is_empty());
    if has_port && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(error());
    }
    if scheme != secure && scheme != plain {
        return Err(error());
    }
    if scheme == plain && !is_loopback(host) {
        return Err(format!(
            "is not encrypted: {plain}:// is for loopback addresses, use {secure}://"
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Whether a host can only be this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions() {
        assert_eq!(retention("forever").unwrap(), None);
        assert_eq!(retention("90d").unwrap(), Some(Duration::from_secs(90 * 86_400)));
        assert!(forever("forever").is_ok() && forever("90d").is_err());
        assert!(retention("1m").is_err() && retention("never").is_err());
    }

    #[test]
    fn audit_periods() {
        for text in ["off", "0", "0s", " off "] {
            assert_eq!(audit_period(text), Ok(None), "{text}");
        }
        assert_eq!(audit_period("6h"), Ok(Some(Duration::from_secs(6 * 3600))));
        assert_eq!(audit_period("10s"), Ok(Some(Duration::from_secs(10))));
        for text in ["9s", "31d", "on", "", "-1s", "6"] {
            assert!(audit_period(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("50GiB", 53_687_091_200),
            ("2TB", 2_000_000_000_000),
            ("256 MiB", 268_435_456),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for bad in ["", "GiB", "1.5GiB", "-1", "50Gib", "99999999999TiB", "1e9"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_text_urls_are_for_loopback() {
        for good in [
            "https://external-api.kalshi.com/trade-api/v2",
            "http://127.0.0.1:8080/trade-api/v2/",
            "http://localhost",
            "http://[::1]:80/x",
        ] {
            let url = rest_url(good).unwrap();
            assert!(!url.ends_with('/'), "{url}");
        }
        for bad in [
            "",
            "kalshi.com",
            "/path",
            "ftp://kalshi.com",
            "wss://kalshi.com",
            "http://kalshi.com/",
            "http://127.0.0.1.evil.com/",
            "http://localhost@evil.com/",
            "https://user:pw@kalshi.com/",
            "https://kalshi.com/?key=1",
            "https://kalshi.com/#x",
            "https://",
            "https://kalshi.com:99999/",
            "https://kalshi.com:/",
        ] {
            assert!(rest_url(bad).is_err(), "{bad}");
        }
        assert_eq!(ws_url("wss://h/p").unwrap(), "wss://h/p");
        assert!(ws_url("ws://10.0.0.1/").is_err() && ws_url("https://h/").is_err());
    }

    #[test]
    fn small_numbers_and_names() {
        assert!(sessions("1").is_ok() && sessions("144").is_ok());
        for bad in ["0", "-1", "1001", "2.0", "two", ""] {
            assert!(sessions(bad).is_err(), "{bad}");
        }
        assert!(port("5432").is_ok() && port("0").is_err() && port("65536").is_err());
        assert!(listen_address("0.0.0.0:0").is_ok() && listen_address("8080").is_err());
        assert!(id("gatherer-1").is_ok() && id("a b").is_err() && id("").is_err());
        assert!(id(&"a".repeat(41)).is_err() && id("gäther").is_err());
        assert!(series("KXGOLD15M").is_ok() && series("KX GOLD").is_err() && series("").is_err());
    }
}
