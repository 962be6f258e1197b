//! Faults of REST on demand: refusals, slow answers, and pages that go wrong.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::server::{Body, reply, reply_json};

/// Rules that wait at a time.
const RULES_MAX: usize = 64;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestFault {
    /// Answered by this status, with no `Retry-After`, as the exchange does.
    Status(u16),
    /// Answered so much later.
    Slow(Duration),
    /// A page's cursor is the one that it was asked for: following it never ends.
    RepeatCursor,
    /// A page without items and with a cursor behind which the list goes on.
    EmptyPage,
    /// Pages behind the first begin so many items earlier: as if as many new ones had come before
    /// them, so that some are seen twice.
    ShiftBack(usize),
    /// Pages behind the first begin so many items later: as if as many had gone before them, so
    /// that some are not seen.
    ShiftOn(usize),
}

/// How long a fault stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    Until(Instant),
    Calls(u64),
}

/// A fault with the calls that it befalls.
#[derive(Debug, Clone)]
pub struct RestRule {
    pub fault: RestFault,
    pub lasting: Lasting,
    /// Only calls that this account signed.
    pub key: Option<usize>,
    /// Only calls whose path behind the API's root begins so; empty is all of them.
    pub path: String,
}

/// The faults that wait for their calls.
#[derive(Debug, Default)]
pub(super) struct RestFaults(Vec<RestRule>);

impl RestFaults {
    /// Adds a fault; beyond [`RULES_MAX`] the oldest goes.
    pub fn add(&mut self, rule: RestRule) {
        if self.0.len() == RULES_MAX {
            self.0.remove(0);
        }
        self.0.push(rule);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that befalls a call, if one does.
    pub fn take(&mut self, call: &str, query: &str, signer: Option<usize>) -> Option<RestFault> {
        let now = Instant::now();
        self.0.retain(|rule| match rule.lasting {
            Lasting::Until(until) => now < until,
            Lasting::Calls(calls) => calls > 0,
        });
        let call = call.trim_start_matches('/');
        let has_cursor = cursor_of(query).is_some();
        let rule = self.0.iter_mut().find(|rule| {
            let about_pages = matches!(
                rule.fault,
                RestFault::RepeatCursor
                    | RestFault::EmptyPage
                    | RestFault::ShiftBack(_)
                    | RestFault::ShiftOn(_)
            );
            call.starts_with(rule.path.trim_start_matches('/'))
                && rule.key.is_none_or(|key| signer == Some(key))
                && (has_cursor || !about_pages)
        })?;
        if let Lasting::Calls(calls) = &mut rule.lasting {
            *calls -= 1;
        }
        Some(rule.fault)
    }
}

/// The cursor that a query asks for.
fn cursor_of(query: &str) -> Option<&str> {
    let found = query.split('&').find_map(|pair| pair.strip_prefix("cursor="));
    found.filter(|cursor| !cursor.is_empty())
}

/// The list and the place that a cursor names.
fn place_of(cursor: &str) -> Option<(String, usize)> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (list, offset) = text.split_once(':')?;
    Some((list.to_owned(), offset.parse().ok()?))
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Answers a call as `fault` says; `respond` is the answer to a query without one.
pub(super) async fn answer(
    fault: RestFault,
    query: &str,
    respond: impl FnOnce(&str) -> Response<Body>,
) -> Response<Body> {
    match fault {
        RestFault::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            reply_json(status, &refusal(code))
        }
        RestFault::Slow(delay) => {
            tokio::time::sleep(delay).await;
            respond(query)
        }
        RestFault::RepeatCursor => {
            let asked = cursor_of(query).unwrap_or_default().to_owned();
            with_cursor(respond(query), &asked).await
        }
        RestFault::EmptyPage => {
            let place = cursor_of(query).and_then(place_of);
            let Some((list, offset)) = place else { return respond(query) };
            // The same place by another name.
            let next = encode(&format!("{list}:0{offset}"));
            reply(StatusCode::OK, format!("{{\"{list}\":[],\"cursor\":\"{next}\"}}"))
        }
        RestFault::ShiftBack(items) => respond(&moved(query, |at| at.saturating_sub(items))),
        RestFault::ShiftOn(items) => respond(&moved(query, |at| at.saturating_add(items))),
    }
}

/// What the exchange says with a status.
pub(super) fn refusal(code: u16) -> serde_json::Value {
    match code {
        401 => json!({"code": "authentication_error", "details": "NOT_FOUND"}),
        403 => json!({"error": {"code": "forbidden", "message": "forbidden"}}),
        429 => json!({"error": "too many requests"}),
        _ => json!({"error": {"code": "internal_server_error", "message": "try again"}}),
    }
}

/// The query with its cursor moved.
fn moved(query: &str, to: impl FnOnce(usize) -> usize) -> String {
    let Some(cursor) = cursor_of(query) else { return query.to_owned() };
    let Some((list, offset)) = place_of(cursor) else { return query.to_owned() };
    let other = encode(&format!("{list}:{}", to(offset)));
    query.replace(&format!("cursor={cursor}"), &format!("cursor={other}"))
}

/// The answer with another cursor: the last field of a page.
async fn with_cursor(response: Response<Body>, cursor: &str) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let body: Result<_, Infallible> = body.collect().await;
    let Ok(body) = body;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let name = "\"cursor\":\"";
    let text = match text.rsplit_once(name) {
        Some((head, _)) => format!("{head}{name}{cursor}\"}}"),
        None => text,
    };
    let mut answer = reply(parts.status, Bytes::from(text));
    *answer.headers_mut() = parts.headers;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_for_its_calls_and_is_used_up() {
        let mut faults = RestFaults::default();
        let rule = |fault, lasting, key, path: &str| RestRule {
            fault,
            lasting,
            key,
            path: path.to_owned(),
        };
        faults.add(rule(RestFault::EmptyPage, Lasting::Calls(1), None, "markets"));
        faults.add(rule(RestFault::Status(503), Lasting::Calls(2), Some(1), ""));
        assert_eq!(faults.take("/markets", "limit=5", None), None, "the first page is right");
        assert_eq!(faults.take("/markets", "cursor=x", Some(0)), Some(RestFault::EmptyPage));
        assert_eq!(faults.take("/markets", "cursor=x", Some(0)), None);
        assert_eq!(faults.take("/events", "", Some(1)), Some(RestFault::Status(503)));
        assert_eq!(faults.take("/events", "", Some(1)), Some(RestFault::Status(503)));
        assert_eq!(faults.take("/events", "", Some(1)), None);
        faults.add(rule(RestFault::Status(500), Lasting::Until(Instant::now()), None, ""));
        assert_eq!(faults.take("/events", "", None), None, "its time is over");
    }

    #[test]
    fn cursors_move() {
        let query = format!("limit=10&cursor={}&status=open", encode("markets:30"));
        let back = moved(&query, |at| at - 7);
        assert_eq!(place_of(cursor_of(&back).unwrap()), Some(("markets".to_owned(), 23)));
        assert!(back.starts_with("limit=10&cursor=") && back.ends_with("&status=open"));
        assert_eq!(moved("limit=10", |at| at + 1), "limit=10");
    }
}
