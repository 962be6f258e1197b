//! The control plane under `/sandbox/`, for tests and for people: begin, look, and break things.
//! Loopback only. Arguments stand in the query; a `key` is the number of an account, from 0; times
//! are milliseconds; a `channel` is `orderbook_delta` unless it is given.
//!
//! | call | does |
//! |---|---|
//! | `GET status` | what is listed, subscribed, published; connections; the blast |
//! | `GET ledger/counts`, `GET ledger/deltas` | what was published; changes as NDJSON |
//! | `POST publish` | lets the flow begin |
//! | `POST cut?key&ms` | drops the sockets, refuses handshakes (503) meanwhile |
//! | `POST refuse?key&ms&status` | refuses handshakes: 401, 403, 429, 500, 503, ... |
//! | `POST close?key&code` | a close frame (1012, 1013, 4000-4999, ...) on every socket |
//! | `POST stall?key&ms` | writes nothing, not even pongs; all of it comes afterwards |
//! | `POST half-open?key` | never writes anything again; the sockets stay open |
//! | `POST hold?key&ms&what=pongs\|everything` | pings unanswered; or as `stall` |
//! | `POST drop?key&channel&n` | leaves out the next frames, their numbers are used |
//! | `POST repeat?key&channel&n` | sends the next frames twice under one number |
//! | `POST reset?key&channel` | the numbers begin again at 1 |
//! | `POST terminate?key&channel&code=10\|25` | ends subscriptions by an error without an id |
//! | `POST dead?key&channel&known=true\|false` | a subscription falls silent; commands about it stay unanswered, or get error 7 |
//! | `POST fail?key&code&n` | the next commands get that error code (1-28) and nothing else |
//! | `POST ignore?key&n` | the next commands are neither carried out nor answered |
//! | `POST early?key&n` | the next subscriptions get data before `subscribed` |
//! | `POST yes-price?key&ignore=true\|false` | new subscriptions get no-leg prices whatever they ask |
//! | `POST garbage?key&channel` | unknown type, cut-off JSON, no text, wrong types, a sid that is over |
//! | `POST mangle?key&how=torn\|flipped\|oversize` | a frame that ends in its middle, has a broken head, or announces 65 MiB |
//! | `POST inject` (NDJSON) | raw frames, see [`Injection`] |
//! | `POST pings?key&n` | a flood of pings |
//! | `POST rest?fault&n\|ms[&key][&path]` | calls go wrong: `fault` is `status` (`&status`), `slow` (`&delay_ms`), `repeat-cursor`, `empty-page`, `shift-back` or `shift-on` (`&items`); `clear` ends all |
//! | `POST limits?markets&commands&outbox_bytes&read_tokens` | bounds; what is absent stays |
//! | `POST market?ticker[&listed=true\|false][&touched=true\|false]` | fields of the body (JSON) over what REST says of the market; in the lists or not; counted as updated or not |
//! | `POST cutoff?settled_ts\|trades_ts` | markets settled before, and trades before (Unix s), are history |
//! | `POST trading?active` | halts and resumes trading |
//! | `POST maintenance?ms[&in_ms]` | announced in `/exchange/schedule`; closes everything (1012), refuses handshakes, then trading resumes when everybody is back |
//! | `POST churn?per_minute&ms` | so many markets a minute are born, live some seconds and end |
//! | `POST burst?rate\|factor&ms` | another pace of the generated flow for a while |
//! | `POST blast?changes` | changes over the subscribed markets as fast as readers take them; `status` says how far it is, and the ledger does not hold them |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::blast;
use super::hub::{Hold, Hub};
use super::inject::Injection;
use super::ledger::{Ledger, LedgerDelta};
use super::rest_faults::{Lasting, RestFault, RestRule};
use super::server::{Body, not_found, reply_json};
use super::troubles::{Mangled, Trouble};
use super::venue::Burst;
use super::views::cutoff_json;
use crate::model::{Channel, Micros};

/// The longest body of a command, in bytes; padding is made here, not sent.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Rows of the ledger in one chunk of an answer.
const CHUNK_ROWS: usize = 2_000;
/// Pings of one flood.
const PINGS_MAX: u32 = 100_000;

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
    if let Some(unknown) = query.unknown() {
        let text = format!("no argument {unknown:?}: one of {}", ARGUMENTS.join(", "));
        return reply_json(StatusCode::BAD_REQUEST, &json!({"error": text}));
    }
    let result = match (request.method(), path) {
        (&Method::GET, "status") => Ok(status(hub)),
        (&Method::GET, "ledger/deltas") => return deltas(Arc::clone(&hub.ledger)),
        (&Method::GET, "ledger/counts") => Ok(json!(hub.ledger.counts())),
        (&Method::POST, "publish") => {
            hub.go.cancel();
            Ok(json!({"publishing": true}))
        }
        (&Method::POST, "hold") => hold(hub, &query),
        (&Method::POST, "limits") => limits(hub, &query),
        (&Method::POST, "trading") => trading(hub, &query),
        (&Method::POST, "rest") => rest(hub, &query),
        (&Method::POST, "maintenance") => maintenance(hub, &query),
        (&Method::POST, "churn") => churn(hub, &query),
        (&Method::POST, "burst") => burst(hub, &query),
        (&Method::POST, "blast") => begin_blast(hub, &query),
        (&Method::POST, "market") => edit(hub, &query, request).await,
        (&Method::POST, "cutoff") => cutoff(hub, &query),
        (&Method::POST, "inject") => inject(hub, request).await,
        (&Method::POST, name) => match trouble(name, &query).transpose() {
            Some(trouble) => trouble.and_then(|trouble| make(hub, trouble, &query)),
            None => return not_found(),
        },
        _ => return not_found(),
    };
    match result {
        Ok(body) => reply_json(StatusCode::OK, &body),
        Err(Bad(text)) => reply_json(StatusCode::BAD_REQUEST, &json!({"error": text})),
    }
}

/// All that a command may be given.
const ARGUMENTS: [&str; 29] = [
    "active",
    "changes",
    "channel",
    "code",
    "commands",
    "delay_ms",
    "factor",
    "fault",
    "how",
    "ignore",
    "in_ms",
    "items",
    "key",
    "known",
    "listed",
    "markets",
    "ms",
    "n",
    "outbox_bytes",
    "path",
    "per_minute",
    "rate",
    "read_tokens",
    "settled_ts",
    "status",
    "ticker",
    "touched",
    "trades_ts",
    "what",
];

/// The arguments of a command: names, numbers and words, so nothing is encoded.
struct Arguments<'a>(&'a str);

impl Arguments<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first argument that no command knows: a slip of the pen must not pass for a success.
    fn unknown(&self) -> Option<&str> {
        let names = self.0.split('&').filter(|pair| !pair.is_empty());
        let mut names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        names.find(|name| !ARGUMENTS.contains(name))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Bad> {
        let parse = |text: &str| text.parse().map_err(|_| Bad(format!("{name}: not a number")));
        self.text(name).map(parse).transpose()
    }

    fn needed<T: std::str::FromStr>(&self, name: &str) -> Result<T, Bad> {
        self.number(name)?.ok_or_else(|| missing(name))
    }

    fn positive(&self, name: &str) -> Result<Option<f64>, Bad> {
        let number: Option<f64> = self.number(name)?;
        match number {
            Some(number) if !number.is_finite() || number <= 0.0 => {
                Err(Bad(format!("{name} must be above 0")))
            }
            number => Ok(number),
        }
    }

    /// The status of a refusal.
    fn status(&self) -> Result<u16, Bad> {
        match self.needed("status")? {
            status @ 400..=599 => Ok(status),
            _ => Err(Bad("status must be 400 to 599".to_owned())),
        }
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
            "active": venue.active,
            "trading": venue.trading,
            "blast": hub.blast.json(),
            "markets": venue.catalog.markets.len(),
            "subscribed_markets": venue.subscribed_markets(),
            "published": counts,
            "happenings": venue.happenings,
            "connections": live,
        })
    })
}

/// The trouble of that name, if there is one.
fn trouble(name: &str, query: &Arguments<'_>) -> Result<Option<Trouble>, Bad> {
    let code = |least: u16, most: u16, otherwise: Option<u16>| {
        let code = match otherwise {
            Some(otherwise) => query.number("code")?.unwrap_or(otherwise),
            None => query.needed("code")?,
        };
        let fits = (least..=most).contains(&code);
        if fits { Ok(code) } else { Err(Bad(format!("code must be {least} to {most}"))) }
    };
    let small = |code: u16| u8::try_from(code).unwrap_or(u8::MAX);
    let flag = |name: &str| Ok::<bool, Bad>(query.number(name)?.unwrap_or(true));
    Ok(Some(match name {
        "cut" => Trouble::Cut(query.millis()?),
        "refuse" => Trouble::Refuse(query.status()?, query.millis()?),
        "close" => Trouble::Close(code(1000, 4999, Some(1012))?),
        "stall" => Trouble::Stall(query.millis()?),
        "half-open" => Trouble::HalfOpen,
        "drop" => Trouble::Skip(query.channel()?, query.needed("n")?),
        "repeat" => Trouble::Repeat(query.channel()?, query.needed("n")?),
        "reset" => Trouble::Reset(query.channel()?),
        "terminate" => match code(10, 25, Some(10))? {
            code @ (10 | 25) => Trouble::Terminate(query.channel()?, small(code)),
            code => return Err(Bad(format!("{code} is no terminal error"))),
        },
        "dead" => Trouble::DeadSid { channel: query.channel()?, known: flag("known")? },
        "fail" => Trouble::FailCommands(small(code(1, 28, None)?), query.needed("n")?),
        "ignore" => Trouble::IgnoreCommands(query.needed("n")?),
        "early" => Trouble::EarlyData(query.needed("n")?),
        "yes-price" => Trouble::IgnoreYesPrice(flag("ignore")?),
        "garbage" => Trouble::Garbage(query.channel()?),
        "mangle" => Trouble::Mangle(match query.text("how") {
            None | Some("torn") => Mangled::Torn,
            Some("flipped") => Mangled::Flipped,
            Some("oversize") => Mangled::Oversize,
            Some(other) => return Err(Bad(format!("cannot mangle {other:?}"))),
        }),
        "pings" => match query.needed("n")? {
            pings @ 0..=PINGS_MAX => Trouble::PingFlood(pings),
            _ => return Err(Bad(format!("n is more than {PINGS_MAX}"))),
        },
        _ => return Ok(None),
    }))
}

fn make(hub: &Hub, trouble: Trouble, query: &Arguments<'_>) -> Result<Value, Bad> {
    let key = query.key(hub)?;
    Ok(json!({"key": key, "connections": hub.trouble(key, trouble)}))
}

/// One of the faults that the module's table lists, for `n` calls or for `ms`.
fn rest(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let fault = match query.text("fault") {
        Some("clear") => {
            hub.rest_faults().clear();
            return Ok(json!({"rest": "cleared"}));
        }
        Some("status") => RestFault::Status(query.status()?),
        Some("slow") => RestFault::Slow(Duration::from_millis(query.needed("delay_ms")?)),
        Some("repeat-cursor") => RestFault::RepeatCursor,
        Some("empty-page") => RestFault::EmptyPage,
        Some("shift-back") => RestFault::ShiftBack(query.needed("items")?),
        Some("shift-on") => RestFault::ShiftOn(query.needed("items")?),
        Some(other) => return Err(Bad(format!("no fault {other:?}"))),
        None => return Err(missing("fault")),
    };
    let lasting = match query.number("n")? {
        Some(calls) => Lasting::Calls(calls),
        None => Lasting::Until(deadline(query.millis()?)?),
    };
    let key = if query.text("key").is_some() { Some(query.key(hub)?) } else { None };
    let path = query.text("path").unwrap_or_default().to_owned();
    hub.rest_faults().add(RestRule { fault, lasting, key, path });
    Ok(json!({"rest": "set"}))
}

fn deadline(time: Duration) -> Result<Instant, Bad> {
    Instant::now().checked_add(time).ok_or_else(|| Bad("ms: too long".to_owned()))
}

fn maintenance(hub: &Arc<Hub>, query: &Arguments<'_>) -> Result<Value, Bad> {
    let notice = Duration::from_millis(query.number("in_ms")?.unwrap_or(0));
    match hub.maintain(notice, query.millis()?) {
        Some(maintenance) => {
            hub.tasks.spawn(maintenance);
            Ok(json!({"maintenance": "announced"}))
        }
        None => Err(Bad("there is a maintenance already".to_owned())),
    }
}

fn churn(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let per_minute = query.positive("per_minute")?.ok_or_else(|| missing("per_minute"))?;
    hub.churn(per_minute, query.millis()?);
    Ok(json!({"births_per_minute": per_minute}))
}

fn burst(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let burst = match (query.positive("rate")?, query.positive("factor")?) {
        (Some(rate), None) => Burst::Rate(rate),
        (None, Some(factor)) => Burst::Times(factor),
        _ => return Err(missing("one of rate and factor")),
    };
    hub.burst(burst, query.millis()?);
    Ok(json!({"burst": "begun"}))
}

fn begin_blast(hub: &Arc<Hub>, query: &Arguments<'_>) -> Result<Value, Bad> {
    let Some(changes) = hub.blast.begin(query.needed("changes")?) else {
        return Err(Bad("there is a blast already".to_owned()));
    };
    hub.tasks.spawn(blast::run(Arc::clone(hub), changes));
    Ok(json!({"changes": changes}))
}

fn missing(what: &str) -> Bad {
    Bad(format!("{what} is missing"))
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

/// Changes what REST says of a market.
async fn edit(hub: &Hub, query: &Arguments<'_>, request: Request<Incoming>) -> Result<Value, Bad> {
    let ticker = query.text("ticker").ok_or_else(|| missing("ticker"))?;
    let (listed, touched) = (query.number("listed")?, query.number("touched")?.unwrap_or(true));
    let body = read_body(request).await?;
    let fields = match body.as_str() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| format!("read the body: {error}"))?,
    };
    if hub.with(|venue| venue.edit(ticker, fields, listed, touched)) {
        Ok(json!({"market": ticker}))
    } else {
        Err(Bad(format!("no market {ticker:?}")))
    }
}

fn cutoff(hub: &Hub, query: &Arguments<'_>) -> Result<Value, Bad> {
    let time = |name| Ok::<_, Bad>(query.number(name)?.map(Micros::from_secs));
    let (settled, traded) = (time("settled_ts")?, time("trades_ts")?);
    if settled.is_none() && traded.is_none() {
        return Err(missing("one of settled_ts and trades_ts"));
    }
    Ok(hub.with(|venue| {
        venue.settled_cutoff = settled.or(venue.settled_cutoff);
        venue.trades_cutoff = traded.or(venue.trades_cutoff);
        cutoff_json(Micros::now(), venue.settled_cutoff(), venue.trades_cutoff())
    }))
}

async fn read_body(request: Request<Incoming>) -> Result<String, Bad> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("read the body: {error}"))?.to_bytes();
    let text = String::from_utf8(body.to_vec());
    Ok(text.map_err(|error| format!("read the body: {error}"))?)
}

async fn inject(hub: &Hub, request: Request<Incoming>) -> Result<Value, Bad> {
    let text = read_body(request).await?;
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
        "receivers": row.receivers.count(),
    })
    .to_string();
    line.push('\n');
    line
}
