//! TCP, TLS and the WebSocket handshake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::kalshi::lenient::Lenient;
use crate::kalshi::offset::SKEW_MICROS_MIN;
use crate::kalshi::session::Settings;
use crate::kalshi::{Api, tls};
use crate::model::Micros;

/// A WebSocket whose text frames arrive as binary ones: see [`Lenient`].
pub type Socket = WebSocketStream<Lenient<MaybeTlsStream<TcpStream>>>;

/// 128 KiB, the default, times 150 sessions would be 19 MiB; a frame is some 300 bytes.
const READ_BUFFER_BYTES: usize = 32 << 10;
/// How much of a refusal's body is kept for people.
const EXCERPT_CHARS_MAX: usize = 200;

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The URL cannot be used, no key, no certificates: trying again changes nothing by itself.
    Setup(String),
    /// The exchange refused the key (401 or 403). `skew_ms` is how far its clock is ahead of ours,
    /// when that is the likely reason.
    Refused {
        code: u16,
        body: String,
        skew_ms: Option<i64>,
    },
    /// Any other answer than a WebSocket.
    Status {
        code: u16,
        body: String,
        /// When it says to come again.
        retry_after: Option<Duration>,
    },
    /// The network failed.
    Network(String),
    Timeout(Duration),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(why) | Self::Network(why) => f.write_str(why),
            Self::Refused { code, body, skew_ms } => {
                write!(f, "the exchange refused the key: HTTP {code}: {body}")?;
                if let Some(ms) = skew_ms {
                    write!(f, " (its clock is {ms} ms ahead of ours)")?;
                }
                Ok(())
            }
            Self::Status { code, body, .. } => write!(f, "HTTP {code}: {body}"),
            Self::Timeout(after) => write!(f, "no connection within {after:?}"),
        }
    }
}

/// Opens a WebSocket with a freshly signed handshake. `now` is our clock, corrected by what an
/// earlier refusal taught.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(api: &Api, now: Micros, settings: &Settings) -> Result<Socket, ConnectError> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, Box::pin(handshake(api, now, settings))).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectError::Timeout(limit)),
    }
}

async fn handshake(api: &Api, now: Micros, settings: &Settings) -> Result<Socket, ConnectError> {
    let request = request(api, now)?;
    let uri = request.uri();
    let secure = uri.scheme_str() == Some("wss");
    let host = uri.host().unwrap_or_default();
    crate::kalshi::check_scheme(secure, uri.scheme_str() == Some("ws"), host)
        .map_err(|why| ConnectError::Setup(format!("{:?} {why}", api.ws_url)))?;
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((address, port))
        .await
        .map_err(|error| ConnectError::Network(format!("connect to {host}:{port}: {error}")))?;
    tcp.set_nodelay(true)
        .map_err(|error| ConnectError::Network(format!("set TCP_NODELAY: {error}")))?;
    let stream = if secure {
        encrypt(tcp, address, settings.tls.clone()).await?
    } else {
        MaybeTlsStream::Plain(tcp)
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Commands and pongs are small and rare: each goes out at once.
        .write_buffer_size(0)
        .max_message_size(Some(settings.max_message))
        .max_frame_size(Some(settings.max_message));
    let stream = Lenient::new(stream);
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, _response) = opened.map_err(|error| refused(error, now))?;
    Ok(socket)
}

async fn encrypt(
    tcp: TcpStream,
    host: &str,
    config: Option<Arc<ClientConfig>>,
) -> Result<MaybeTlsStream<TcpStream>, ConnectError> {
    let config = config
        .map_or_else(tls::client_config, Ok)
        .map_err(|error| ConnectError::Setup(error.to_string()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        ConnectError::Setup(format!("{host:?} cannot have a certificate: {error}"))
    })?;
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|error| ConnectError::Network(format!("TLS with {host}: {error}")))?;
    Ok(MaybeTlsStream::Rustls(stream))
}

fn request(api: &Api, now: Micros) -> Result<Request, ConnectError> {
    let Some(credentials) = &api.credentials else {
        return Err(ConnectError::Setup(
            "a WebSocket needs an API key, and none is set".to_owned(),
        ));
    };
    let mut request = api
        .ws_url
        .as_str()
        .into_client_request()
        .map_err(|error| ConnectError::Setup(format!("{:?} is no URL: {error}", api.ws_url)))?;
    let path = request.uri().path().to_owned();
    let headers = credentials
        .current()
        .headers("GET", &path, now.0 / 1000)
        .map_err(|error| ConnectError::Setup(error.to_string()))?;
    for (name, value) in headers {
        let mut value =
            HeaderValue::try_from(value).map_err(|error| ConnectError::Setup(error.to_string()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn refused(error: WsError, now: Micros) -> ConnectError {
    let WsError::Http(response) = error else {
        return ConnectError::Network(format!("open the WebSocket: {error}"));
    };
    let code = response.status().as_u16();
    let date = response.headers().get("date").and_then(|value| value.to_str().ok());
    let skew_ms = date.and_then(|date| skew_ms(date, now));
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|value| wait(value, now));
    let body = response.body().as_deref().unwrap_or_default();
    let body = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS_MAX).collect();
    match code {
        401 | 403 => ConnectError::Refused { code, body, skew_ms },
        _ => ConnectError::Status { code, body, retry_after },
    }
}

/// What a `Retry-After` header asks for: seconds, or a date.
fn wait(value: &str, now: Micros) -> Option<Duration> {
    if let Ok(secs) = value.trim().parse() {
        return Some(Duration::from_secs(secs));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    u64::try_from(at.as_millisecond() - now.0 / 1000).ok().map(Duration::from_millis)
}

/// How far the exchange's clock is ahead of ours by its `Date` header, when it is enough to matter.
fn skew_ms(date: &str, now: Micros) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let skew = theirs.as_millisecond().saturating_sub(now.0 / 1000);
    (skew.abs() >= SKEW_MICROS_MIN / 1000).then_some(skew)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tls_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now = Micros::parse_rfc3339("2026-08-05T03:45:40Z").unwrap();
        assert_eq!(wait("7", now), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 05 Aug 2026 03:46:00 GMT", now), Some(Duration::from_secs(20)));
        assert_eq!(wait("Wed, 05 Aug 2026 03:45:00 GMT", now), None);
        assert_eq!(wait("soon", now), None);
    }

    #[test]
    fn the_date_header_tells_a_wrong_clock() {
        let date = "Wed, 05 Aug 2026 03:45:40 GMT";
        let theirs = Micros::parse_rfc3339("2026-08-05T03:45:40Z").unwrap();
        assert_eq!(skew_ms(date, theirs), None);
        assert_eq!(skew_ms(date, Micros(theirs.0 - 1_500_000)), None);
        assert_eq!(skew_ms(date, Micros(theirs.0 - 60_000_000)), Some(60_000));
        assert_eq!(skew_ms(date, Micros(theirs.0 + 3_600_000_000)), Some(-3_600_000));
        assert_eq!(skew_ms("yesterday", theirs), None);
    }
}
