//! The exchange adapter: handshakes, REST, frames, decoding, sessions and sequence numbers.
//!
//! It knows Kalshi's protocol and our model, and neither a database nor a journal: what a session
//! receives goes to a [`session::FrameSink`] that its caller provides.

pub mod auth;
pub mod budget;
pub mod calls;
mod connection;
pub mod decode;
mod lenient;
mod lifecycle;
mod limits;
pub mod lists;
pub mod market;
mod markets;
pub mod offset;
pub mod orderbooks;
mod reader;
mod reconnect;
mod replies;
pub mod rest;
mod resync;
pub mod sequence;
pub mod session;
pub mod socket;
pub mod subscribe;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
pub mod trades;
pub mod wire;

/// Where the exchange is and who we are to it.
#[derive(Debug, Clone)]
pub struct Api {
    /// For instance `https://external-api.kalshi.com/trade-api/v2`, without a slash at the end.
    pub rest_url: String,
    /// For instance `wss://external-api-ws.kalshi.com/trade-api/ws/v2`.
    pub ws_url: String,
    /// Needed for every WebSocket; REST's public endpoints work without.
    pub credentials: Option<auth::Signer>,
}

/// Whether a URL's scheme may be used with that host: TLS everywhere, plain text to this machine
/// only, for tests.
///
/// # Errors
/// A clause that follows the URL in a message.
fn check_scheme(secure: bool, plain: bool, host: &str) -> Result<(), &'static str> {
    if secure {
        return Ok(());
    }
    if !plain {
        return Err("has an unknown scheme");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if loopback { Ok(()) } else { Err("is plain text, which is for loopback addresses only") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_loopback() {
        assert!(check_scheme(true, false, "example.com").is_ok());
        for host in ["127.0.0.1", "127.8.9.1", "[::1]", "localhost"] {
            assert!(check_scheme(false, true, host).is_ok(), "{host}");
        }
        assert!(check_scheme(false, true, "example.com").is_err());
        assert!(check_scheme(false, true, "10.0.0.1").is_err());
        assert!(check_scheme(false, false, "127.0.0.1").is_err());
    }
}
