//! The part of a lifecycle frame that decides whether a market is recorded.

use std::borrow::Cow;

use serde::Deserialize;

use crate::kalshi::session::MarketNotice;
use crate::kalshi::wire::Whole;
use crate::model::{Channel, Micros, Ticker};

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    market_ticker: Cow<'a, str>,
    #[serde(default)]
    open_ts: Option<i64>,
    #[serde(default)]
    close_ts: Option<i64>,
    #[serde(default, borrow)]
    additional_metadata: Option<Metadata<'a>>,
}

#[derive(Debug, Deserialize)]
struct Metadata<'a> {
    #[serde(default, borrow)]
    event_ticker: Option<Cow<'a, str>>,
}

/// Reads the notice of a frame of type `market_lifecycle_v2` or `multivariate_market_lifecycle`.
///
/// `None` when it names no usable market: the decoder reports such a frame, the registry's next
/// list makes up for it.
pub fn notice(kind: &str, text: &str) -> Option<MarketNotice> {
    let channel = Channel::from_name(kind)?;
    let multivariate = match channel {
        Channel::Lifecycle => false,
        Channel::MultivariateLifecycle => true,
        _ => return None,
    };
    let Whole { msg } = serde_json::from_str::<Whole<Message<'_>>>(text).ok()?;
    Some(MarketNotice {
        ticker: Ticker::parse(&msg.market_ticker).ok()?,
        event_type: msg.event_type.into_owned(),
        event_ticker: msg
            .additional_metadata
            .and_then(|metadata| metadata.event_ticker)
            .map(Cow::into_owned),
        open_time: msg.open_ts.filter(|secs| *secs > 0).map(Micros::from_secs),
        close_time: msg.close_ts.filter(|secs| *secs > 0).map(Micros::from_secs),
        multivariate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_market_brings_its_event_and_times() {
        let text = r#"{"type":"market_lifecycle_v2","sid":3,"seq":1,"msg":{"event_type":"created",
            "market_ticker":"KXA-1-T2","open_ts":1785900000,"close_ts":1785903600,"new":[],
            "additional_metadata":{"name":"x","event_ticker":"KXA-1"}}}"#;
        let notice = notice("market_lifecycle_v2", text).unwrap();
        assert_eq!(notice.ticker.as_str(), "KXA-1-T2");
        assert_eq!(notice.event_type, "created");
        assert_eq!(notice.event_ticker.as_deref(), Some("KXA-1"));
        assert_eq!(notice.close_time, Some(Micros::from_secs(1_785_903_600)));
        assert!(!notice.multivariate);
    }

    #[test]
    fn frames_about_no_market_say_nothing() {
        for (kind, text) in [
            ("event_lifecycle", r#"{"msg":{"event_ticker":"KXA"}}"#),
            ("market_lifecycle_v2", r#"{"msg":{"event_type":"created"}}"#),
            ("market_lifecycle_v2", r#"{"msg":{"event_type":"created","market_ticker":""}}"#),
            ("market_lifecycle_v2", "{"),
        ] {
            assert_eq!(notice(kind, text), None, "{text}");
        }
    }
}
