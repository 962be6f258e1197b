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
        serde_json::from_str(text)
    }
}

/// The message of a `subscribed` reply.
#[derive(Debug, Deserialize)]
pub struct Subscribed<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
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
}

/// What `update_subscription` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateAction {
    AddMarkets,
    DeleteMarkets,
    GetSnapshot,
}
