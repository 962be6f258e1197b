//! What must hold of any bytes as a frame. Fuzzing looks for bytes of which it does not.

use super::*;
use crate::model::decimal::{PRICE_MICROS_MAX, SIZE_HUNDREDTHS_MAX};

/// When every frame is received: the believable times end a day later.
const NOW: Micros = Micros(1_785_901_541_000_000);
/// Errors and excerpts go into log lines.
const SAID_BYTES_MAX: usize = 1000;

/// Decodes bytes, and checks the answer.
///
/// # Panics
/// When it is not what it must be.
pub fn check(bytes: &[u8]) {
    let frame = decode(bytes, NOW);
    let said = format!("{frame:?}");
    assert_eq!(said, format!("{:?}", decode(bytes, NOW)), "two readings of one frame");
    if let Some((_, said)) = &frame.unknown_field {
        assert!(said.len() <= SAID_BYTES_MAX, "{} bytes about an unknown field", said.len());
    }
    match &frame.message {
        Ok(message) => {
            accepted(message);
            in_its_place(bytes, &frame);
        }
        Err(error) => {
            assert!(!error.kind.is_empty() && !error.field.is_empty() && !error.reason.is_empty());
            let said = error.to_string();
            assert!(said.len() <= SAID_BYTES_MAX, "an error of {} bytes", said.len());
        }
    }
}

/// The envelope is read by its prefix where it can be: that must give what a whole look gives.
fn in_its_place(bytes: &[u8], frame: &Frame) {
    // A frame that has a field twice is read by the first alone where it is read by its prefix.
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(bytes) else { return };
    assert_eq!((frame.sid, frame.seq), (envelope.sid, envelope.seq), "the place of a frame");
}

fn accepted(message: &Message) {
    match message {
        Message::Delta(delta) => {
            named(&delta.ticker);
            timed(delta.exchange_ts);
            priced(delta.price);
            let size = delta.size_delta;
            assert!(size.hundredths().abs() <= SIZE_HUNDREDTHS_MAX, "{size}");
            assert_eq!(Size::parse_signed(&size.to_string()), Ok(size));
        }
        Message::Snapshot(snapshot) => {
            named(&snapshot.ticker);
            for side in [&snapshot.yes, &snapshot.no] {
                assert!(side.is_sorted_by_key(|(price, _)| *price), "levels out of order");
                for (price, size) in side {
                    priced(*price);
                    sized(*size);
                }
            }
        }
        Message::Trade(trade) => {
            named(&trade.ticker);
            timed(trade.exchange_ts);
            priced(trade.price);
            trade.no_price.into_iter().for_each(priced);
            sized(trade.size);
        }
        Message::Ticker(ticker) => {
            named(&ticker.ticker);
            timed(ticker.exchange_ts);
            let prices = [ticker.last_price, ticker.yes_bid, ticker.yes_ask];
            prices.into_iter().flatten().for_each(priced);
            let sizes = [
                ticker.yes_bid_size,
                ticker.yes_ask_size,
                ticker.last_trade_size,
                ticker.volume,
                ticker.open_interest,
            ];
            sizes.into_iter().flatten().for_each(sized);
        }
        Message::Lifecycle(lifecycle) => {
            named(&lifecycle.subject);
            lifecycle.exchange_ts.into_iter().for_each(timed);
            assert!(!lifecycle.event_type.is_empty(), "a lifecycle of nothing");
            assert!(lifecycle.event_type.chars().count() <= 64, "{}", lifecycle.event_type);
            let payload = serde_json::from_str::<Value>(&lifecycle.payload);
            assert!(payload.is_ok_and(|payload| payload.is_object()), "{}", lifecycle.payload);
            assert_eq!(lifecycle.content_hash, identity::text_content(&lifecycle.payload));
        }
        Message::Error { text: said, .. } | Message::Unknown { kind: said } => {
            assert!(said.len() <= SAID_BYTES_MAX, "{} bytes are quoted", said.len());
        }
        Message::Subscribed { .. } | Message::Ok | Message::Unsubscribed => {}
    }
}

fn named(ticker: &str) {
    assert_eq!(Ticker::check(ticker), Ok(()));
}

fn timed(at: Micros) {
    assert_eq!(at.believable(NOW), Ok(at));
    // What is printed is the same time.
    assert_eq!(Micros::parse_rfc3339(&at.to_string()), Ok(at));
}

fn priced(price: Price) {
    assert!((0..=PRICE_MICROS_MAX).contains(&price.micros()), "{price}");
    assert_eq!(Price::parse(&price.to_string()), Ok(price));
}

fn sized(size: Size) {
    assert!((0..=SIZE_HUNDREDTHS_MAX).contains(&size.hundredths()), "{size}");
    assert_eq!(Size::parse(&size.to_string()), Ok(size));
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::ops::corpus;

    #[test]
    fn what_fuzzing_begins_with_holds() {
        corpus::replay("fuzz/corpus/decoder", check);
    }
}
