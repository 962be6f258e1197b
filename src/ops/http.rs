//! The small HTTP server behind `/health`, `/ready` and `/metrics`.
//!
//! Anybody may connect to it, so everything is bounded: connections, the time a request may take to
//! arrive, the time a connection may live, the size of a head. Who has taken all places without asking for
//! anything gives way to the next. It reads no body and knows three paths.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::exit::HeldError;
use super::health::{Report, Source, Status};
use super::metrics::{self, Registry};

/// Where the server listens. Port 0 takes a free one. Where both are the same address, one listener
/// serves both paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub health: SocketAddr,
    pub metrics: SocketAddr,
}

/// Bounds on what a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the whole head of a request to arrive.
    pub header_timeout: Duration,
    /// For a connection from accept to close.
    pub connection_timeout: Duration,
    /// At a time, over both listeners; one more of each waits for a place, the rest in the kernel's queue.
    pub connections: usize,
    /// For the role to answer about its health.
    pub health_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            connection_timeout: Duration::from_secs(15),
            connections: 64,
            health_timeout: Duration::from_secs(5),
        }
    }
}

/// The head of a request, at most: hyper's own minimum.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// For answers under way when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// After accept failed, which is almost always for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A server whose ports are taken and that does not answer yet.
#[derive(Debug)]
pub struct Server {
    health: TcpListener,
    /// None when `health` serves both paths.
    metrics: Option<TcpListener>,
    health_addr: SocketAddr,
    metrics_addr: SocketAddr,
}

impl Server {
    /// Takes the ports. The error names the address that could not be had.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (health, health_addr) = listen(config.health, "/health").await?;
        let shared = config.metrics == config.health && config.metrics.port() != 0;
        if shared {
            return Ok(Self { health, metrics: None, health_addr, metrics_addr: health_addr });
        }
        let (metrics, metrics_addr) = listen(config.metrics, "/metrics").await?;
        Ok(Self { health, metrics: Some(metrics), health_addr, metrics_addr })
    }

    pub fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Answers until `stop`.
    pub async fn serve(self, health: Source, registry: Arc<Registry>, stop: CancellationToken) {
        self.serve_with(health, registry, stop, Limits::default()).await;
    }

    /// As `serve`, within other limits.
    pub async fn serve_with(
        self,
        health: Source,
        registry: Arc<Registry>,
        stop: CancellationToken,
        limits: Limits,
    ) {
        tracing::info!(addr = %self.health_addr(), "serving health");
        tracing::info!(addr = %self.metrics_addr(), "serving metrics");
        let permits = Arc::new(Semaphore::new(limits.connections));
        let silent = Arc::new(Silent::default());
        let shared = self.metrics.is_none();
        let door = |pages: Pages| Door {
            pages: Arc::new(pages),
            permits: permits.clone(),
            silent: silent.clone(),
            limits,
            stop: stop.clone(),
        };
        let of_health = door(Pages {
            health: Some(health),
            registry: shared.then(|| registry.clone()),
            health_timeout: limits.health_timeout,
        });
        let of_metrics = door(Pages {
            health: None,
            registry: Some(registry),
            health_timeout: limits.health_timeout,
        });
        tokio::join!(of_health.accept(self.health), async {
            if let Some(listener) = self.metrics {
                of_metrics.accept(listener).await;
            }
        });
    }
}

async fn listen(addr: SocketAddr, path: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = match TcpListener::bind(addr).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let text = "another process listens there: stop it, or change `server`";
            return Err(HeldError(format!("listen on {addr} for {path}: {text}")).into());
        }
        Err(error) => return Err(error).with_context(|| format!("listen on {addr} for {path}")),
    };
    let bound = listener.local_addr().context("read address of listener")?;
    Ok((listener, bound))
}

/// One listener and what it may answer.
struct Door {
    pages: Arc<Pages>,
    permits: Arc<Semaphore>,
    silent: Arc<Silent>,
    limits: Limits,
    stop: CancellationToken,
}

/// Connections whose request has not arrived. When all places are taken, the one that has been silent for
/// longest gives its place to the next: two hundred slow clients must not hide a role from its monitoring.
#[derive(Default)]
struct Silent(Mutex<Listed>);

/// In the order in which they came.
#[derive(Default)]
struct Listed {
    last: u64,
    leave: BTreeMap<u64, CancellationToken>,
}

impl Silent {
    fn with<T>(&self, act: impl FnOnce(&mut Listed) -> T) -> T {
        // The list is whole between any two statements.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lists a connection, and gives what is cancelled when it has to leave.
    fn enter(&self) -> (u64, CancellationToken) {
        self.with(|listed| {
            listed.last += 1;
            let leave = CancellationToken::new();
            listed.leave.insert(listed.last, leave.clone());
            (listed.last, leave)
        })
    }

    /// Its request has arrived, or it has ended.
    fn forget(&self, connection: u64) {
        self.with(|listed| listed.leave.remove(&connection));
    }

    /// Sends away the one that came first, if there is one.
    fn dismiss_oldest(&self) {
        if let Some((_, leave)) = self.with(|listed| listed.leave.pop_first()) {
            leave.cancel();
        }
    }
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let Some(permit) = self.place().await else { break };
                    let (pages, limits, stop) =
                        (self.pages.clone(), self.limits, self.stop.clone());
                    let silent = self.silent.clone();
                    connections.spawn(async move {
                        converse(stream, pages, limits, silent, stop).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while let Some(ended) = connections.try_join_next() {
                report(ended);
            }
        }
        drop(listener);
        // Past the grace the rest is aborted when the set is dropped.
        let rest = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(STOP_GRACE, rest).await.is_err() {
            tracing::debug!("connections cut at stop");
        }
    }

    /// A place for a connection, if need be that of a silent one; none when the server stops.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        self.silent.dismiss_oldest();
        tokio::select! {
            () = self.stop.cancelled() => None,
            permit = self.permits.clone().acquire_owned() => permit.ok(),
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "connection task failed");
    }
}

async fn converse(
    stream: TcpStream,
    pages: Arc<Pages>,
    limits: Limits,
    silent: Arc<Silent>,
    stop: CancellationToken,
) {
    let (id, leave) = silent.enter();
    let service = service_fn(|request: Request<Incoming>| {
        silent.forget(id);
        let pages = pages.clone();
        async move {
            let open = reads_open_metrics(request.headers());
            let answer = pages.answer(request.method(), request.uri().path(), open);
            Ok::<_, Infallible>(answer.await)
        }
    });
    // One request a connection: an idle client never holds one of the few places.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let until_over = async {
        tokio::select! {
            result = connection.as_mut() => return result,
            () = leave.cancelled() => return Ok(()),
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match tokio::time::timeout(limits.connection_timeout, until_over).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection ended"),
        Err(_) => tracing::debug!("connection outlived its limit"),
    }
    silent.forget(id);
}

/// Whether a client reads OpenMetrics. Who does not say so gets the older form, as from other exporters.
fn reads_open_metrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("application/openmetrics-text"))
}

/// The paths that one listener knows.
struct Pages {
    health: Option<Source>,
    registry: Option<Arc<Registry>>,
    health_timeout: Duration,
}

impl Pages {
    async fn answer(&self, method: &Method, path: &str, open: bool) -> Response<Full<Bytes>> {
        let page = match path {
            "/health" => self.health.as_ref().map(Page::Health),
            "/ready" => self.health.as_ref().map(Page::Ready),
            "/metrics" => self.registry.as_deref().map(Page::Metrics),
            _ => None,
        };
        let Some(page) = page else {
            return response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n");
        };
        if method != Method::GET && method != Method::HEAD {
            let text = "only GET and HEAD\n";
            let mut answer =
                response(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", text);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match page {
            Page::Health(source) => self.health(source).await,
            Page::Ready(source) => self.ready(source).await,
            Page::Metrics(registry) => Self::metrics(registry, open),
        }
    }

    fn metrics(registry: &Registry, open: bool) -> Response<Full<Bytes>> {
        let (text, content_type) = if open {
            (metrics::encode(registry), metrics::CONTENT_TYPE)
        } else {
            (metrics::encode_text(registry), metrics::TEXT_CONTENT_TYPE)
        };
        match text {
            Ok(text) => response(StatusCode::OK, content_type, text),
            Err(error) => {
                tracing::error!(%error, "could not encode metrics");
                let text = "could not encode metrics\n";
                response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
            }
        }
    }

    /// A role that is too stuck to answer is not healthy, whatever it would have said.
    async fn report(&self, source: &Source) -> Report {
        tokio::time::timeout(self.health_timeout, source.report())
            .await
            .unwrap_or_else(|_| Report::new(Status::Unhealthy, json!({"report": "timed out"})))
    }

    /// 200 once the role does its work, whatever else it lacks; 503 before.
    async fn ready(&self, source: &Source) -> Response<Full<Bytes>> {
        match self.report(source).await.is_ready {
            true => response(StatusCode::OK, "application/json", r#"{"ready":true}"#),
            false => response(
                StatusCode::SERVICE_UNAVAILABLE,
                "application/json",
                r#"{"ready":false,"see":"/health"}"#,
            ),
        }
    }

    async fn health(&self, source: &Source) -> Response<Full<Bytes>> {
        let report = self.report(source).await;
        let code = match report.status {
            Status::Healthy | Status::Degraded => StatusCode::OK,
            Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = serde_json::to_string(&report)
            .unwrap_or_else(|_| r#"{"status":"unhealthy","components":{}}"#.to_owned());
        response(code, "application/json", body)
    }
}

enum Page<'a> {
    Health(&'a Source),
    Ready(&'a Source),
    Metrics(&'a Registry),
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
