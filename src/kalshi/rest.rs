//! The exchange's REST: signed requests within a budget, retries, pages, and the few fields we use.

use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::kalshi::Api;
use crate::kalshi::auth::Credentials;
use crate::kalshi::budget::Budget;
use crate::kalshi::market::{MarketWire, Page};
use crate::kalshi::session::Clock;
use crate::kalshi::tls;
use crate::model::Micros;
use crate::ops::backoff::Backoff;

/// The limits and times of a REST client.
#[derive(Clone)]
pub struct Settings {
    /// Requests a second until the exchange tells our limits. The smallest tier's is 20.
    pub requests_per_second: u32,
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            requests_per_second: 20,
            timeout: Duration::from_secs(30),
            attempts_max: 8,
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(30),
            body_max: 64 << 20,
            pages_max: 10_000,
            clock: Arc::new(Micros::now),
        }
    }
}

/// Requests at once after a pause: small, because other processes may share the account.
const BURST: u32 = 5;
/// How much of an error's body is kept for people.
const EXCERPT_CHARS_MAX: usize = 200;
/// Read tokens that one request costs unless the exchange says otherwise.
const TOKENS_PER_REQUEST: u32 = 10;
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

/// `GET /exchange/status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExchangeStatus {
    pub exchange_active: bool,
    pub trading_active: bool,
    #[serde(default)]
    pub exchange_estimated_resume_time: Option<String>,
}

/// Which markets to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MarketsQuery {
    /// `unopened`, `open`, `paused`, `closed` or `settled`; one only, or all without.
    pub status: Option<&'static str>,
    /// `exclude` or `only`; both kinds without.
    pub mve_filter: Option<&'static str>,
    pub series_ticker: Option<String>,
    /// Metadata changed since, Unix seconds; combines only with `mve_filter` and `series_ticker`.
    pub min_updated_ts: Option<i64>,
}

/// A client of the exchange's REST, to be shared.
pub struct Rest {
    /// `https://host:port`.
    origin: String,
    /// `/trade-api/v2`: part of what is signed.
    prefix: String,
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    credentials: Option<Arc<Credentials>>,
    budget: Budget,
    settings: Settings,
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
        let tls = if scheme == "https" {
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
            budget: Budget::new(settings.requests_per_second, BURST),
            settings,
        })
    }

    /// Whether the exchange and trading are on; answers throughout a maintenance.
    ///
    /// # Errors
    /// As every request: see [`RestError`].
    pub async fn status(&self) -> Result<ExchangeStatus, RestError> {
        self.get("/exchange/status", "").await
    }

    /// The pages of a list of markets, 1000 at a time.
    pub fn markets(self: &Arc<Self>, query: &MarketsQuery) -> MarketPages {
        let mut fixed = String::from("limit=1000");
        let mut pair = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _written = write!(fixed, "&{name}={}", encode(value));
        };
        if let Some(status) = query.status {
            pair("status", status);
        }
        if let Some(filter) = query.mve_filter {
            pair("mve_filter", filter);
        }
        if let Some(series) = &query.series_ticker {
            pair("series_ticker", series);
        }
        if let Some(since) = query.min_updated_ts {
            pair("min_updated_ts", &since.to_string());
        }
        MarketPages {
            rest: Arc::clone(self),
            fixed,
            cursor: String::new(),
            seen: HashSet::new(),
            pages: 0,
            done: false,
        }
    }

    /// Asks for our account's limits and keeps to them from now on. Without credentials the default
    /// stays.
    ///
    /// # Errors
    /// As every request; the budget is then unchanged.
    pub async fn learn_limits(&self) -> Result<Option<u32>, RestError> {
        #[derive(Deserialize)]
        struct Limits {
            #[serde(default)]
            read: Option<Bucket>,
            /// The flat form that the exchange used before.
            #[serde(default)]
            read_limit: Option<f64>,
        }
        #[derive(Deserialize)]
        struct Bucket {
            refill_rate: f64,
        }
        if self.credentials.is_none() {
            return Ok(None);
        }
        let limits: Limits = self.get("/account/limits", "").await?;
        let Some(tokens) = limits.read.map(|bucket| bucket.refill_rate).or(limits.read_limit)
        else {
            return Err(RestError::Decode("no `read` limit in /account/limits".to_owned()));
        };
        let per_second = whole(tokens / f64::from(TOKENS_PER_REQUEST)).max(1);
        self.budget.set(per_second, BURST);
        Ok(Some(per_second))
    }

    /// Sends a GET until it succeeds, fails for good, or has used its attempts.
    ///
    /// `path` is below the base (`/markets`), `query` is encoded and without the question mark.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<T, RestError> {
        let body = self.get_bytes(path, query).await?;
        serde_json::from_slice(&body)
            .map_err(|error| RestError::Decode(format!("GET {path}: {error}")))
    }

    async fn get_bytes(&self, path: &str, query: &str) -> Result<Bytes, RestError> {
        let mut backoff = Backoff::new(self.settings.backoff_base, self.settings.backoff_cap);
        let mut attempt = 1;
        loop {
            self.budget.take().await;
            let limit = self.settings.timeout;
            let error = match tokio::time::timeout(limit, self.attempt(path, query)).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(error)) => error,
                Err(_elapsed) => RestError::Timeout(limit),
            };
            if !error.is_retryable() || attempt >= self.settings.attempts_max {
                return Err(error);
            }
            let mut wait = backoff.next_delay();
            if let RestError::Status { code, retry_after, .. } = &error {
                if *code == 429 {
                    self.budget.exhausted();
                }
                wait = wait.max(retry_after.unwrap_or_default());
            }
            tracing::debug!(path, attempt, %error, wait_ms = wait.as_millis(), "retrying a request");
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
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
            let now_ms = (self.settings.clock)().0 / 1000;
            let headers = credentials
                .headers("GET", &format!("{prefix}{path}"), now_ms)
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
        let response = self.http.request(request).await.map_err(|error| transport(&error))?;
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

/// A list of markets, page by page. It can move between tasks; dropping it ends the list.
pub struct MarketPages {
    rest: Arc<Rest>,
    fixed: String,
    cursor: String,
    /// Every cursor so far: a longer cycle than one page would go round for ever too.
    seen: HashSet<String>,
    pages: usize,
    done: bool,
}

#[derive(Deserialize)]
struct MarketsWire {
    markets: Vec<MarketWire>,
    #[serde(default)]
    cursor: Option<String>,
}

impl MarketPages {
    /// The next page, `None` after the last one.
    ///
    /// # Errors
    /// As every request, when a cursor repeats, or when there are more pages than the limit. The
    /// same page can be asked for again after an error of the connection.
    pub async fn next(&mut self) -> Result<Option<Page>, RestError> {
        if self.done {
            return Ok(None);
        }
        if self.pages >= self.rest.settings.pages_max {
            return Err(RestError::PagesMax(self.rest.settings.pages_max));
        }
        let query = if self.cursor.is_empty() {
            self.fixed.clone()
        } else {
            format!("{}&cursor={}", self.fixed, encode(&self.cursor))
        };
        let wire: MarketsWire = self.rest.get("/markets", &query).await?;
        self.pages += 1;
        match wire.cursor.filter(|cursor| !cursor.is_empty()) {
            Some(cursor) if !self.seen.insert(cursor.clone()) => {
                return Err(RestError::CursorRepeats { page: self.pages });
            }
            Some(cursor) => self.cursor = cursor,
            None => self.done = true,
        }
        Ok(Some(Page::from_wire(wire.markets)))
    }
}

/// A count of requests from the exchange's number, within what makes sense.
fn whole(per_second: f64) -> u32 {
    // Steps instead of a cast: the largest tier is 600 requests a second.
    (1..=10_000_u32).take_while(|n| f64::from(*n) <= per_second).last().unwrap_or(1)
}

/// Percent-encodes a value of a query.
fn encode(value: &str) -> String {
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
