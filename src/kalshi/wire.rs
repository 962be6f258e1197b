//! Frames as the wire says: the envelope that every frame has, and the commands that we send.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What every frame carries around its `msg`. Unknown fields are no error.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// `orderbook_delta`, `ok`, `error`, ...
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// The command that this answers; 0 counts as none.
    #[serde(default)]
    pub id: Option<u64>,
    /// The subscription; `subscribed` has it inside `msg` instead.
    #[serde(default)]
    pub sid: Option<i64>,
    /// The number on that subscription.
    #[serde(default)]
    pub seq: Option<i64>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope and skips the message.
    ///
    /// # Errors
    /// When the text is not JSON or has no `type`.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        match Self::of_data(text) {
            Some(envelope) => Ok(envelope),
            None => serde_json::from_str(text),
        }
    }

    /// The envelope of a data frame in the form in which the exchange writes nearly all of them,
    /// without a look at the message: whether that is JSON is for the decoder to find.
    fn of_data(text: &'a str) -> Option<Self> {
        let (kind, rest) = text.strip_prefix("{\"type\":\"")?.split_once('"')?;
        if !matches!(kind, "orderbook_delta" | "trade") {
            return None;
        }
        let (sid, rest) = number(rest.strip_prefix(",\"sid\":")?)?;
        let (seq, rest) = number(rest.strip_prefix(",\"seq\":")?)?;
        rest.starts_with(",\"msg\":{").then_some(Self {
            kind: Cow::Borrowed(kind),
            id: None,
            sid: Some(sid),
            seq: Some(seq),
        })
    }
}

/// The number that a text begins with, and what follows it. None of more digits than always fit.
fn number(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    (digits <= 18).then_some(())?;
    Some((number.parse().ok()?, rest))
}

/// The message of a `subscribed` reply.
#[derive(Debug, Deserialize)]
pub struct Subscribed<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    pub sid: i64,
}

/// One of the subscriptions that answer `list_subscriptions`.
#[derive(Debug, Deserialize)]
pub struct Subscription {
    pub sid: i64,
}

/// The message of an `error` reply.
#[derive(Debug, Deserialize)]
pub struct ErrorMessage<'a> {
    pub code: i64,
    #[serde(default, borrow)]
    pub msg: Cow<'a, str>,
    #[serde(default, borrow)]
    pub market_ticker: Option<Cow<'a, str>>,
}

/// A whole frame with a message of a known form.
#[derive(Debug, Deserialize)]
pub struct Whole<M> {
    pub msg: M,
}

/// A command to the exchange.
#[derive(Debug, Serialize)]
pub struct Command<'a> {
    /// Grows from 1 on each connection.
    pub id: u64,
    #[serde(flatten)]
    pub body: CommandBody<'a>,
}

/// What a command asks for.
#[derive(Debug, Serialize)]
#[serde(tag = "cmd", content = "params", rename_all = "snake_case")]
pub enum CommandBody<'a> {
    Subscribe {
        channels: &'a [&'a str],
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        market_tickers: &'a [&'a str],
        /// Keeps the full list of markets out of every `ok`.
        #[serde(skip_serializing_if = "Option::is_none")]
        skip_ticker_ack: Option<bool>,
        /// Always true on order books: the meaning of the no side must not change silently.
        #[serde(skip_serializing_if = "Option::is_none")]
        use_yes_price: Option<bool>,
        /// `ticker` only.
        #[serde(skip_serializing_if = "Option::is_none")]
        send_initial_snapshot: Option<bool>,
    },
    UpdateSubscription {
        sid: i64,
        action: UpdateAction,
        market_tickers: &'a [&'a str],
    },
    Unsubscribe {
        sids: &'a [i64],
    },
    ListSubscriptions,
}

/// What `update_subscription` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateAction {
    AddMarkets,
    DeleteMarkets,
    GetSnapshot,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        for text in [
            r#"{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"a":1}}"#,
            r#"{"type":"trade","sid":11,"seq":123456789012345678,"msg":{}}"#,
        ] {
            let short = Envelope::of_data(text).unwrap();
            let long: Envelope<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(
                (short.kind, short.id, short.sid, short.seq),
                (long.kind, long.id, long.sid, long.seq)
            );
        }
    }

    #[test]
    fn anything_unusual_goes_the_long_way() {
        for text in [
            r#"{"type":"orderbook_snapshot","sid":2,"seq":3,"msg":{}}"#,
            r#"{"type":"orderbook_delta","seq":3,"sid":2,"msg":{}}"#,
            r#"{"type":"orderbook_delta","sid":2,"seq":3,"id":4,"msg":{}}"#,
            r#"{"type":"orderbook_delta","sid":-2,"seq":3,"msg":{}}"#,
            r#"{"type":"orderbook_delta","sid":2,"seq":1234567890123456789,"msg":{}}"#,
            r#"{"type":"orderbook_delta","sid":,"seq":3,"msg":{}}"#,
            r#"{"type":"orderbook_delta","sid":2,"seq":3"#,
            r#"{"type":"orderbook_delta""#,
            "",
        ] {
            assert!(Envelope::of_data(text).is_none(), "{text}");
        }
        assert!(Envelope::parse(r#"{"type":"orderbook_delta","sid":"#).is_err());
    }
}
