//! The listener: HTTP/1 for REST and the control plane, and the upgrade of WebSockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::auth::{self, is_ahead};
use super::hub::Hub;
use super::{control, rest, rest_faults, ws};
use crate::model::Micros;

/// Sockets at a time: three recorders of 150 connections, their REST clients, and room to spare.
const SOCKETS_MAX: usize = 2048;
/// How long a client may take over its request's head, and keep a connection without one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
pub const WS_PATH: &str = "/trade-api/ws/v2";
pub const REST_PATH: &str = "/trade-api/v2";

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Accepts connections until the exchange stops.
pub(super) async fn accept(hub: Arc<Hub>, listener: TcpListener) {
    let sockets = Arc::new(Semaphore::new(SOCKETS_MAX));
    loop {
        let permit = tokio::select! {
            () = hub.stop.cancelled() => return,
            permit = Arc::clone(&sockets).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            () = hub.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                hub.tasks.spawn(serve(Arc::clone(&hub), socket, peer, Arc::new(permit)));
            }
            Err(error) => {
                // Out of descriptors, or a client that was gone already: neither ends the exchange.
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A place among [`SOCKETS_MAX`]; a WebSocket keeps it beyond its HTTP connection.
type Permit = Arc<OwnedSemaphorePermit>;

async fn serve(hub: Arc<Hub>, socket: TcpStream, peer: SocketAddr, permit: Permit) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let stop = hub.stop.clone();
    let service = service_fn(move |request| {
        let (hub, permit) = (Arc::clone(&hub), Arc::clone(&permit));
        async move { Ok::<_, Infallible>(answer(&hub, request, peer, permit).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "serve a connection");
        }
    }
}

/// A JSON body.
pub(super) fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// A JSON value as a body.
pub(super) fn reply_json(status: StatusCode, body: &Value) -> Response<Body> {
    reply(status, body.to_string())
}

/// The exchange's way to say that a request is not signed well.
pub(super) fn unauthorised() -> Response<Body> {
    let body = json!({"code": "authentication_error", "details": "NOT_FOUND"});
    reply_json(StatusCode::UNAUTHORIZED, &body)
}

pub(super) fn not_found() -> Response<Body> {
    let body = json!({"error": {"code": "not_found", "message": "not found"}});
    reply_json(StatusCode::NOT_FOUND, &body)
}

async fn answer(
    hub: &Arc<Hub>,
    request: Request<Incoming>,
    peer: SocketAddr,
    permit: Permit,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let now_ms = Micros::now().0.div_euclid(1000);
    if let Some(path) = path.strip_prefix("/sandbox/") {
        if !peer.ip().is_loopback() {
            return reply_json(StatusCode::FORBIDDEN, &json!({"error": "loopback only"}));
        }
        return control::answer(hub, path, request).await;
    }
    let method = request.method().as_str();
    if path == WS_PATH {
        let signer = auth::verify(&hub.accounts, request.headers(), method, &path, now_ms);
        return match signer {
            Ok(key) => upgrade(hub, request, key, permit),
            Err(auth::Refused) => unauthorised(),
        };
    }
    let Some(call) = path.strip_prefix(REST_PATH) else { return not_found() };
    if request.method() != Method::GET {
        let body = json!({"error": "method not allowed"});
        return reply_json(StatusCode::METHOD_NOT_ALLOWED, &body);
    }
    // Public calls work unsigned; a signature that is there must be right.
    let signer = if auth::is_signed(request.headers()) {
        match auth::verify(&hub.accounts, request.headers(), method, &path, now_ms) {
            Ok(key) => Some(key),
            Err(auth::Refused) => return unauthorised(),
        }
    } else {
        None
    };
    let query = request.uri().query().unwrap_or("");
    let fault = hub.rest_faults().take(call, query, signer);
    match fault {
        Some(fault) => {
            rest_faults::answer(fault, query, |query| rest::answer(hub, call, query, signer)).await
        }
        None => rest::answer(hub, call, query, signer),
    }
}

/// Whether the headers ask for a WebSocket (RFC 6455, section 4.2.1).
fn websocket_key(headers: &HeaderMap) -> Option<&[u8]> {
    let has = |name: header::HeaderName, token: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    };
    let asked = has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    key.filter(|_| asked)
}

fn upgrade(
    hub: &Arc<Hub>,
    mut request: Request<Incoming>,
    key: usize,
    permit: Permit,
) -> Response<Body> {
    let gate = hub.accounts.get(key).map(|account| *account.gate());
    let refused = gate.filter(|gate| is_ahead(gate.refused_until)).map(|gate| gate.refused_with);
    if let Some(code) = refused.or_else(|| (!hub.with(|venue| venue.active)).then_some(503)) {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return reply_json(status, &rest_faults::refusal(code));
    }
    let Some(accept) = websocket_key(request.headers()).map(derive_accept_key) else {
        let body = json!({"error": "a WebSocket handshake is needed"});
        return reply_json(StatusCode::UPGRADE_REQUIRED, &body);
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let task_hub = Arc::clone(hub);
    hub.tasks.spawn(async move {
        let hub = task_hub;
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, "upgrade a connection");
                return;
            }
        };
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => {
                ws::serve(hub, parts.io.into_inner(), parts.read_buf.to_vec(), key).await;
            }
            Err(_) => tracing::warn!("an upgraded connection is no TCP socket"),
        }
        drop(permit);
    });
    let mut response = reply(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
