//! Golden frames of every type, bad input of every kind, and the recorded capture.

use proptest::prelude::*;

use super::*;

const NOW: Micros = Micros(1_785_901_541_000_000);

fn message(text: &str) -> Result<Message, DecodeError> {
    decode(text.as_bytes(), NOW).message
}

fn refused(text: &str) -> String {
    message(text).unwrap_err().to_string()
}

#[test]
fn a_delta_keeps_its_microseconds() {
    let text = r#"{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"T","market_id":"x","price_dollars":"0.9600","delta_fp":"-54.00","side":"yes","ts":"2026-08-05T03:45:40.722003Z","ts_ms":1785901540722}}"#;
    let frame = decode(text.as_bytes(), NOW);
    assert_eq!((frame.sid, frame.seq), (Some(2), Some(3)));
    let Message::Delta(delta) = frame.message.unwrap() else { panic!("a delta") };
    assert_eq!(delta.exchange_ts, Micros(1_785_901_540_722_003));
    assert_eq!((delta.price.micros(), delta.size_delta.hundredths()), (960_000, -5400));
    // The same facts with the keys in another order.
    let turned = r#"{"sid":2,"seq":3,"msg":{"ts_ms":1785901540722,"side":"yes","delta_fp":"-54.00","price_dollars":"0.96","market_ticker":"T"},"type":"orderbook_delta"}"#;
    let Message::Delta(delta) = message(turned).unwrap() else { panic!("a delta") };
    assert_eq!(delta.exchange_ts, Micros(1_785_901_540_722_000));
}

#[test]
fn a_time_without_a_fraction_yields_to_the_milliseconds() {
    let text = r#"{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"T","price_dollars":"0.5","delta_fp":"1.00","side":"no","ts":"2026-08-05T03:45:40Z","ts_ms":1785901540722}}"#;
    let Message::Delta(delta) = message(text).unwrap() else { panic!("a delta") };
    assert_eq!(delta.exchange_ts, Micros(1_785_901_540_722_000));
}

#[test]
fn bad_values_are_named_with_their_field() {
    let delta = |price: &str, size: &str, side: &str, ticker: &str| {
        format!(
            r#"{{"type":"orderbook_delta","sid":2,"seq":3,"msg":{{"market_ticker":"{ticker}","price_dollars":"{price}","delta_fp":"{size}","side":"{side}","ts_ms":1785901540722}}}}"#
        )
    };
    let price = refused(&delta("0.123456789", "1.00", "yes", "T"));
    assert!(price.contains("price_dollars") && price.contains("0.123456789"), "{price}");
    let size = refused(&delta("0.5", "1e9", "yes", "T"));
    assert!(size.contains("delta_fp") && size.contains("1e9"), "{size}");
    assert!(refused(&delta("0.5", "1.00", "maybe", "T")).contains("maybe"));
    assert!(refused(&delta("0.5", "1.00", "yes", &"K".repeat(300))).contains("300 bytes"));
    let untimed = r#"{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"T","price_dollars":"0.5","delta_fp":"1.00","side":"no"}}"#;
    assert!(refused(untimed).contains("no exchange time"));
    let old = untimed.replace("\"side\"", "\"ts_ms\":5,\"side\"");
    assert!(refused(&old).contains("before 2021"));
    let frame = decode(delta("x", "1.00", "yes", "MARKET").as_bytes(), NOW);
    assert_eq!((frame.ticker.as_deref(), frame.seq), (Some("MARKET"), Some(3)));
}

#[test]
fn garbage_is_an_error_and_an_unknown_type_is_not() {
    for text in ["", "garbage", "{", r#"{"type":"trade","sid":1,"seq":2,"#, "[]", "null", "{}"] {
        assert!(message(text).is_err(), "{text}");
    }
    assert!(decode(&[0xff, 0xfe], NOW).message.is_err());
    let unknown = message(r#"{"type":"moon_phase","sid":1,"seq":2,"msg":{}}"#);
    assert_eq!(unknown, Ok(Message::Unknown { kind: "moon_phase".to_owned() }));
    let truncated = r#"{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"T"}}"#;
    let frame = decode(truncated.as_bytes(), NOW);
    assert_eq!(frame.seq, Some(2));
    assert!(frame.message.unwrap_err().to_string().contains("price_dollars"));
}

#[test]
fn a_snapshot_may_lack_a_side() {
    let text = r#"{"type":"orderbook_snapshot","sid":2,"seq":2,"msg":{"market_ticker":"T","no_dollars_fp":[["0.5400","20.00"],["0.1","3.5"]]}}"#;
    let Message::Snapshot(snapshot) = message(text).unwrap() else { panic!("a snapshot") };
    assert!(snapshot.yes.is_empty());
    let prices: Vec<i64> = snapshot.no.iter().map(|(price, _)| price.micros()).collect();
    assert_eq!(prices, [100_000, 540_000]);
}

#[test]
fn a_trade_and_a_quote_report_unknown_fields() {
    let text = r#"{"type":"trade","sid":11,"seq":2,"msg":{"trade_id":"d91bc706-ee49-470d-82d8-11418bda6fed","market_ticker":"T","yes_price_dollars":"0.3600","no_price_dollars":"0.6400","count_fp":"136.00","taker_outcome_side":"no","taker_book_side":"ask","taker_side":"no","ts":1669149841,"ts_ms":1669149841000,"mood":"good"}}"#;
    let frame = decode(text.as_bytes(), NOW);
    assert_eq!(frame.unknown_field, Some(("trade", "mood = \"good\"".to_owned())));
    let Message::Trade(trade) = frame.message.unwrap() else { panic!("a trade") };
    assert_eq!((trade.price.micros(), trade.size.hundredths()), (360_000, 13_600));
    assert_eq!(trade.taker_side, Some(Side::No));
    let text = r#"{"type":"ticker","sid":11,"msg":{"market_ticker":"T","price_dollars":"","yes_bid_dollars":"0.4500","yes_ask_dollars":"0.5300","volume_fp":"33896.00","open_interest_fp":"20422.00","dollar_volume":16948,"dollar_open_interest":10211,"yes_bid_size_fp":"300.00","yes_ask_size_fp":"1.5","last_trade_size_fp":"0.00","ts":1669149841,"ts_ms":1669149841123,"time":"2022-11-22T20:44:01.123Z"}}"#;
    let Message::Ticker(ticker) = message(text).unwrap() else { panic!("a quote") };
    assert_eq!(ticker.last_price, None);
    assert_eq!(ticker.exchange_ts, Micros(1_669_149_841_123_000));
}

#[test]
fn lifecycle_of_markets_and_events_is_kept_whole() {
    let text = r#"{"type":"market_lifecycle_v2","sid":3,"seq":9,"msg":{"market_ticker":"T","event_type":"created","open_ts":1,"additional_metadata":{"z":1,"a":2}}}"#;
    let Message::Lifecycle(market) = message(text).unwrap() else { panic!("a lifecycle") };
    assert_eq!((market.subject.as_str(), market.event_type.as_str()), ("T", "created"));
    assert!(market.payload.contains(r#"{"a":2,"z":1}"#));
    let text = r#"{"type":"event_lifecycle","sid":3,"seq":9,"msg":{"event_ticker":"E"}}"#;
    let Message::Lifecycle(event) = message(text).unwrap() else { panic!("a lifecycle") };
    assert_eq!((event.subject.as_str(), event.event_type.as_str()), ("E", "event_lifecycle"));
}

#[test]
fn replies_are_told_apart() {
    let subscribed =
        message(r#"{"id":1,"type":"subscribed","msg":{"channel":"trade","sid":4}}"#).unwrap();
    assert_eq!(subscribed, Message::Subscribed { sid: 4, channel: Some(Channel::Trade) });
    let terminal =
        message(r#"{"type":"error","sid":4,"seq":7,"msg":{"code":25,"msg":"overflow"}}"#).unwrap();
    assert_eq!(terminal, Message::Error { id: None, code: 25, text: "overflow".to_owned() });
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _frame = decode(&bytes, NOW);
    }

    #[test]
    fn no_cut_or_flipped_frame_panics(at in 0_usize..230, byte in any::<u8>()) {
        let text = r#"{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"T","market_id":"x","price_dollars":"0.9600","delta_fp":"-54.00","side":"yes","ts":"2026-08-05T03:45:40.722003Z","ts_ms":1785901540722}}"#;
        let mut bytes = text.as_bytes().to_vec();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _frame = decode(&bytes, NOW);
        let _cut = decode(bytes.get(..at).unwrap_or_default(), NOW);
    }
}
