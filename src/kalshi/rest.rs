//! The exchange's REST client: signed requests within a budget, retries, and the exchange's clock.
//! What can be asked is in `calls`.

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, DATE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;

use crate::kalshi::Api;
use crate::kalshi::auth::Signer;
use crate::kalshi::budget::Budget;
use crate::kalshi::calls::{self, Costs};
use crate::kalshi::offset::{Offsets, SKEW_MICROS_MIN};
use crate::kalshi::session::Clock;
use crate::kalshi::tls;
use crate::model::Micros;
use crate::ops::backoff::Backoff;

/// The limits and times of a REST client.
#[derive(Clone)]
pub struct Settings {
    /// Read tokens a second until the exchange tells our limits. The smallest tier's are 200.
    pub tokens_per_second: u32,
    /// The part of the account's budget that is ours, above 0 and up to 1: others may share it.
    pub share: f64,
    /// One attempt, from connecting to the last byte of the body.
    pub timeout: Duration,
    /// Attempts of one request, the first included.
    pub attempts_max: u32,
    /// Full jitter below a bound that doubles from here ..
    pub backoff_base: Duration,
    /// .. to here.
    pub backoff_cap: Duration,
    /// The largest body taken, in bytes. A page of 1000 markets is 2 to 3 MB.
    pub body_max: usize,
    /// The most pages of one list. 425,000 markets are 425 pages.
    pub pages_max: usize,
    pub clock: Clock,
    /// Whom to trust; none for the machine's own roots.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tokens_per_second: 200,
            share: 1.0,
            timeout: Duration::from_secs(30),
            attempts_max: 8,
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(30),
            body_max: 64 << 20,
            pages_max: 10_000,
            clock: Arc::new(Micros::now),
            tls: None,
        }
    }
}

/// Tokens at once after a pause: small, because other processes may share the account.
const BURST_TOKENS: u32 = 50;
/// How much of an error's body is kept for people.
const EXCERPT_CHARS_MAX: usize = 200;
/// The longest wait that a Retry-After is believed.
const RETRY_AFTER_SECS_MAX: u64 = 60;

/// Why a request failed, after its retries.
#[derive(Debug)]
pub enum RestError {
    /// The base URL is no URL, or is plain HTTP to another machine.
    Url(String),
    /// No TLS configuration, or no signature.
    Setup(String),
    /// The connection failed or broke.
    Transport(String),
    Timeout(Duration),
    /// An answer that is no success.
    Status {
        code: u16,
        body: String,
        retry_after: Option<Duration>,
    },
    /// The body is larger than the limit, in bytes.
    TooLarge(usize),
    /// The body is not what the call promises; names the field.
    Decode(String),
    /// A list's cursor came again: following it would never end.
    CursorRepeats {
        page: usize,
    },
    /// A list has more pages than the limit.
    PagesMax(usize),
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) | Self::Setup(why) => f.write_str(why),
            Self::Transport(why) => write!(f, "the connection failed: {why}"),
            Self::Timeout(after) => write!(f, "no answer within {after:?}"),
            Self::Status { code, body, .. } => write!(f, "HTTP {code}: {body}"),
            Self::TooLarge(limit) => write!(f, "the answer is larger than {limit} bytes"),
            Self::Decode(why) => write!(f, "the answer cannot be read: {why}"),
            Self::CursorRepeats { page } => write!(f, "the cursor repeats on page {page}"),
            Self::PagesMax(limit) => write!(f, "the list has more than {limit} pages"),
        }
    }
}

impl std::error::Error for RestError {}

impl RestError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(_) | Self::Timeout(_) => true,
            Self::Status { code, .. } => *code == 429 || *code >= 500,
            _ => false,
        }
    }

    /// Whether the exchange refused the key.
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Status { code: 401 | 403, .. })
    }
}

/// A client of the exchange's REST, to be shared.
pub struct Rest {
    /// `https://host:port`.
    origin: String,
    /// `/trade-api/v2`: part of what is signed.
    prefix: String,
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    credentials: Option<Signer>,
    pub(super) budget: Budget,
    pub(super) costs: Mutex<Costs>,
    offsets: Mutex<Offsets>,
    pub(super) settings: Settings,
}

impl Rest {
    /// Makes a client; connects to nothing yet.
    ///
    /// # Errors
    /// When the URL is unusable (plain HTTP is for loopback only) or there are no root certificates.
    pub fn new(api: &Api, settings: Settings) -> Result<Self, RestError> {
        let url = api.rest_url.trim_end_matches('/');
        let uri: Uri =
            url.parse().map_err(|error| RestError::Url(format!("{url:?} is no URL: {error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(RestError::Url(format!("{url:?} needs a scheme and a host")));
        };
        crate::kalshi::check_scheme(scheme == "https", scheme == "http", authority.host())
            .map_err(|why| RestError::Url(format!("{url:?} {why}")))?;
        // A machine without certificates can still talk to itself.
        let tls = if let Some(tls) = &settings.tls {
            Ok(tls.as_ref().clone())
        } else if scheme == "https" {
            tls::client_config().map(|shared| shared.as_ref().clone())
        } else {
            tls::without_roots()
        };
        let tls = tls.map_err(|error| RestError::Setup(error.to_string()))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.timeout.min(Duration::from_secs(10))));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(4)
            .build(connector);
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            http,
            credentials: api.credentials.clone(),
            budget: Budget::new(share_of(settings.tokens_per_second, settings.share), BURST_TOKENS),
            costs: Mutex::default(),
            offsets: Mutex::default(),
            settings,
        })
    }

    /// Read tokens a second that we keep to.
    pub fn tokens_per_second(&self) -> u32 {
        self.budget.per_second()
    }

    /// Whether requests are signed.
    pub fn is_signed(&self) -> bool {
        self.credentials.is_some()
    }

    /// What one request of a path costs, in read tokens.
    pub fn cost(&self, path: &str) -> u32 {
        self.costs.lock().unwrap_or_else(PoisonError::into_inner).of(path)
    }

    /// How far the exchange's clock is ahead of ours by the `Date` of its replies, in microseconds:
    /// the median of the last few, each half a round trip corrected. The header counts whole
    /// seconds, so up to half a second of it is noise.
    pub fn clock_offset_micros(&self) -> Option<i64> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner).median()
    }

    /// Sends a GET until it succeeds, fails for good, or has used its attempts.
    ///
    /// `path` is below the base (`/markets`), `query` is encoded and without the question mark.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<T, RestError> {
        let body = self.get_bytes(path, query).await?;
        calls::decode(path, &body)
    }

    /// One attempt, within the budget like every other.
    pub(super) async fn get_once(&self, path: &str, query: &str) -> Result<Bytes, RestError> {
        self.budget.take(self.cost(path)).await;
        let limit = self.settings.timeout;
        let result = match tokio::time::timeout(limit, self.attempt(path, query)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(RestError::Timeout(limit)),
        };
        if let Err(RestError::Status { code: 429, retry_after, .. }) = &result {
            self.budget.exhausted(retry_after.unwrap_or_default());
        }
        result
    }

    /// What the paths of [`Rest::get`] are below, as the exchange writes it.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// As [`Rest::get`], and gives the body as it came.
    pub(super) async fn get_bytes(&self, path: &str, query: &str) -> Result<Bytes, RestError> {
        let mut backoff = Backoff::new(self.settings.backoff_base, self.settings.backoff_cap);
        let mut attempt = 1;
        loop {
            let error = match self.get_once(path, query).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            if !error.is_retryable() || attempt >= self.settings.attempts_max {
                return Err(error);
            }
            let mut wait = backoff.next_delay();
            if let RestError::Status { retry_after, .. } = &error {
                wait = wait.max(retry_after.unwrap_or_default());
            }
            tracing::debug!(path, attempt, %error, wait_ms = wait.as_millis(), "retrying a request");
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// Our clock, or the exchange's where ours is so far off that signatures would be refused.
    fn signing_time_ms(&self) -> i64 {
        let offset = self.clock_offset_micros().filter(|offset| offset.abs() >= SKEW_MICROS_MIN);
        (self.settings.clock)().0.saturating_add(offset.unwrap_or_default()) / 1000
    }

    async fn attempt(&self, path: &str, query: &str) -> Result<Bytes, RestError> {
        let Self { origin, prefix, .. } = self;
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("{origin}{prefix}{path}{mark}{query}"))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("kalshi/", env!("CARGO_PKG_VERSION")));
        if let Some(credentials) = &self.credentials {
            let headers = credentials
                .current()
                .headers("GET", &format!("{prefix}{path}"), self.signing_time_ms())
                .map_err(|error| RestError::Setup(error.to_string()))?;
            for (name, value) in headers {
                let mut value = HeaderValue::try_from(value)
                    .map_err(|error| RestError::Setup(error.to_string()))?;
                value.set_sensitive(true);
                request = request.header(name, value);
            }
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| RestError::Url(format!("GET {path}: {error}")))?;
        let asked_at = (self.settings.clock)();
        let response = self.http.request(request).await.map_err(|error| transport(&error))?;
        let answered_at = (self.settings.clock)();
        if let Some(date) = response.headers().get(DATE).and_then(|value| value.to_str().ok()) {
            let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
            offsets.read(date, asked_at, answered_at);
        }
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|secs: u64| Duration::from_secs(secs.min(RETRY_AFTER_SECS_MAX)));
        let limit = self.settings.body_max;
        let body = Limited::new(response.into_body(), limit).collect().await.map_err(|error| {
            match error.downcast_ref::<LengthLimitError>() {
                Some(_) => RestError::TooLarge(limit),
                None => transport(error.as_ref()),
            }
        });
        if status != StatusCode::OK {
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return Err(RestError::Status {
                code: status.as_u16(),
                body: excerpt(&body),
                retry_after,
            });
        }
        Ok(body?.to_bytes())
    }
}

/// A part of a number of tokens, at least one.
pub fn share_of(tokens: u32, share: f64) -> u32 {
    let whole = f64::from(tokens) * share.clamp(0.0, 1.0);
    // Halving steps instead of a cast: the largest whole number that is not more.
    let (mut least, mut most) = (1, tokens.max(1));
    while least < most {
        let middle = most - (most - least) / 2;
        if f64::from(middle) <= whole { least = middle } else { most = middle - 1 }
    }
    least
}

/// Percent-encodes a value of a query.
pub(super) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS_MAX).collect()
}

fn transport(error: &(dyn std::error::Error + 'static)) -> RestError {
    // The outer error of the client says only "client error (Connect)": the cause is what helps.
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _written = write!(text, ": {cause}");
        source = cause.source();
    }
    RestError::Transport(text)
}

#[cfg(test)]
#[path = "rest_tests.rs"]
mod tests;
