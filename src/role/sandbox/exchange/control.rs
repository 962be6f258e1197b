//! The control plane under `/sandbox/`, for tests and for people: begin, look, and break things.
//! Loopback only.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::hub::{Hold, Hub};
use super::inject::Injection;
use super::ledger::{Ledger, LedgerDelta};
use super::server::{Body, not_found, reply_json};
use crate::model::Channel;

/// The longest body of a command, in bytes; padding is made here, not sent.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Rows of the ledger in one chunk of an answer.
const CHUNK_ROWS: usize = 2_000;

/// A command that cannot be carried out, as a sentence.
struct Bad(String);

impl From<String> for Bad {
    fn from(text: String) -> Self {
        Self(text)
    }
}

pub(super) async fn answer(
    hub: &Arc<Hub>,
    path: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let query = request.uri().query().unwrap_or("").to_owned();
    let query = Arguments(&query);
    let result = match (request.method(), path) {
        (&Method::GET, "status") => Ok(status(hub)),
        (&Method::GET, "ledger/deltas") => return deltas(Arc::clone(&hub.ledger)),
        (&Method::GET, "ledger/counts") => Ok(json!(hub.ledger.counts())),
        (&Method::POST, "publish") => {
            hub.go.cancel();
            Ok(json!({"publishing": true}))
        }
        (&Method::POST, "cut") => cut(hub, &query),
        (&Method::POST, "hold") => hold(hub, &query),
        (&Method::POST, "drop") => drop_next(hub, &query),
        (&Method::POST, "terminate") => terminate(hub, &query),
        (&Method::POST, "limits") => limits(hub, &query),
        (&Method::POST, "trading") => trading(hub, &query),
        (&Method::POST, "inject") => inject(hub, request).await,
        _ => return not_found(),
    };
    match result {
        Ok(body) => reply_json(StatusCode::OK, &body),
        Err(Bad(text)) => reply_json(StatusCode::BAD_REQUEST, &json!({"error": text})),
    }
}

/// The arguments of a command: names, numbers and words, so nothing is encoded.
struct Arguments<'a>(&'a str);

impl Arguments<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Bad> {
        let parse = |text: &str| text.parse().map_err(|_| Bad(format!("{name}: not a number")));
        self.text(name).map(parse).transpose()
    }

    fn needed<T: std::str::FromStr>(&self, name: &str) -> Result<T, Bad> {
        self.number(name)?.ok_or_else(|| Bad(format!("{name} is missing")))
    }

    fn key(&self, hub: &Hub) -> Result<usize, Bad> {
        let key: usize = self.needed("key")?;
        if key < hub.accounts.len() { Ok(key) } else { Err(Bad(format!("no key {key}"))) }
    }

    fn millis(&self) -> Result<Duration, Bad> {
        Ok(Duration::from_millis(self.needed("ms")?))
    }

    fn channel(&self) -> Result<Channel, Bad> {
        let name = self.text("channel").unwrap_or("orderbook_delta");
        Channel::from_name(name).ok_or_else(|| Bad(format!("no channel {name:?}")))
    }
}

fn status(hub: &Hub) -> Value {
    let counts = hub.ledger.counts();
    hub.with(|venue| {
        let live: Vec<Value> = venue
            .connections()
            .map(|(_, connection)| {
                let subscriptions = connection.subscriptions.iter().flatten().count();
                json!({
                    "key": connection.key,
                    "subscriptions": subscriptions,
                    "waiting_bytes": connection.outbox.bytes(),
                })
            })
            .collect();
        json!({
            "publishing": hub.go.is_cancelled(),
            "finished": *hub.finished.borrow(),
            "trading": venue.trading,
            "markets": venue.catalog.markets.len(),
            "subscribed_markets": venue.subscribed_markets(),
            "published": counts,
            "happenings": venue.happenings,
            "connections": live,
        })
    })
}

fn cut(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let (key, time) = (query.key(hub)?, query.millis()?);
    hub.cut(key, time);
    Ok(json!({"cut": key}))
}

/// `what=pongs` (the default) or `what=everything`.
fn hold(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let (key, time) = (query.key(hub)?, query.millis()?);
    let what = match query.text("what") {
        None | Some("pongs") => Hold::Pongs,
        Some("everything") => Hold::Everything,
        Some(other) => return Err(Bad(format!("cannot hold {other:?}"))),
    };
    hub.hold(key, what, time);
    Ok(json!({"held": key}))
}

fn drop_next(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let (key, channel) = (query.key(hub)?, query.channel()?);
    let frames: u64 = query.needed("n")?;
    hub.with(|venue| venue.drop_next(key, channel, frames));
    Ok(json!({"dropping": frames}))
}

fn terminate(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let (key, channel) = (query.key(hub)?, query.channel()?);
    let code = match query.number("code")?.unwrap_or(10) {
        code @ (10 | 25) => code,
        code => return Err(Bad(format!("{code} is no terminal error"))),
    };
    hub.terminate(key, channel, code);
    Ok(json!({"terminated": key}))
}

/// `markets`, `commands`, `outbox_bytes`, `read_tokens` (0 = no limit); what is absent stays.
fn limits(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let markets = query.number("markets")?;
    let commands = query.number("commands")?;
    let outbox_bytes = query.number("outbox_bytes")?;
    let read_tokens: Option<u32> = query.number("read_tokens")?;
    hub.with(|venue| {
        let limits = &mut venue.limits;
        limits.markets_per_subscription = markets.unwrap_or(limits.markets_per_subscription);
        limits.commands_per_second = commands.unwrap_or(limits.commands_per_second);
        limits.outbox_bytes = outbox_bytes.unwrap_or(limits.outbox_bytes);
        if let Some(tokens) = read_tokens {
            limits.read_tokens_per_second = (tokens > 0).then_some(tokens);
        }
    });
    Ok(json!({"limits": "set"}))
}

/// `active=false` begins a maintenance: nothing trades until `active=true`.
fn trading(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let active: bool = query.needed("active")?;
    hub.with(|venue| venue.trading = active);
    Ok(json!({"trading": active}))
}

async fn inject(hub: &Hub, request: Request<Incoming>) -> Result<Value, Bad> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("read the body: {error}"))?.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|error| format!("read the body: {error}"))?;
    let mut injections: Vec<Injection> = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let injection: Injection =
            serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
        injection.check().map_err(|error| format!("line {number}: {error}"))?;
        injections.push(injection);
    }
    let sent: Vec<usize> = injections.iter().map(|injection| hub.inject(injection)).collect();
    Ok(json!({"sent": sent}))
}

/// The ledger's changes as NDJSON, in the units of the tables.
fn deltas(ledger: Arc<Ledger>) -> Response<Body> {
    let chunks = stream::unfold((ledger, 0), |(ledger, from)| async move {
        let rows = ledger.deltas(from, CHUNK_ROWS);
        if rows.is_empty() {
            return None;
        }
        let next = from + rows.len();
        let text: String = rows.iter().map(delta_line).collect();
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
        Some((frame, (ledger, next)))
    });
    Response::new(StreamBody::new(chunks).boxed_unsync())
}

fn delta_line(row: &LedgerDelta) -> String {
    let mut line = json!({
        "ticker": row.ticker.as_str(),
        "exchange_ts": row.exchange_ts.0,
        "side": row.side.is_yes(),
        "price": row.price.micros(),
        "size_delta": row.size_delta.hundredths(),
        "occurrence": row.occurrence,
        "synthetic": row.synthetic,
        "receivers": row.receivers,
    })
    .to_string();
    line.push('\n');
    line
}
