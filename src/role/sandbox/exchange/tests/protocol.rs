//! Commands, replies, numbers and frames, on the state alone.

use serde_json::{Value, json};

use super::super::Trouble;
use super::*;
use crate::model::Channel;

fn subscribe(id: u64, channels: &[&str], markets: &[&str]) -> Value {
    json!({"id": id, "cmd": "subscribe", "params": {
        "channels": channels, "market_tickers": markets, "use_yes_price": true,
    }})
}

fn update(id: u64, sid: i64, action: &str, markets: &[&str]) -> Value {
    json!({"id": id, "cmd": "update_subscription", "params": {
        "sid": sid, "action": action, "market_tickers": markets,
    }})
}

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn seqs(frames: &[Value]) -> Vec<i64> {
    frames.iter().filter_map(|frame| frame.get("seq")?.as_i64()).collect()
}

#[test]
fn every_reply_but_subscribed_takes_a_number_of_its_sid() {
    let mut venue = venue(4);
    let client = Client::connect(&mut venue, 0);
    let frames = client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0", "M-1"]));
    assert_eq!(kinds(&frames), ["subscribed", "orderbook_snapshot", "orderbook_snapshot"]);
    assert_eq!(frames[0]["msg"], json!({"channel": "orderbook_delta", "sid": 1}));
    assert_eq!(frames[0].get("seq"), None);
    assert_eq!(seqs(&frames), [1, 2]);

    venue.publish_delta(id(0), &change(0, Side::Yes, "0.22", "-33.50"), false);
    venue.publish_delta(id(2), &change(0, Side::Yes, "0.22", "1"), false);
    let frames = client.frames();
    assert_eq!(kinds(&frames), ["orderbook_delta"], "only what is subscribed");
    assert_eq!(
        frames[0],
        json!({"type": "orderbook_delta", "sid": 1, "seq": 3, "msg": {
            "market_ticker": "M-0", "market_id": "00000000-0000-0000-0000-000000000000",
            "price_dollars": "0.2200", "delta_fp": "-33.50", "side": "yes",
            "ts": "2026-08-05T03:45:40.722003Z", "ts_ms": 1_785_901_540_722_i64,
        }})
    );

    let frames = client.command(&mut venue, update(2, 1, "add_markets", &["M-2", "M-0"]));
    assert_eq!(kinds(&frames), ["ok", "orderbook_snapshot"], "only the new one has a snapshot");
    assert_eq!(frames[0]["msg"], json!({"market_tickers": ["M-0", "M-1", "M-2"]}));
    assert_eq!((frames[0]["id"].as_u64(), seqs(&frames)), (Some(2), vec![4, 5]));

    let frames = client.command(&mut venue, update(3, 1, "frobnicate", &["M-2"]));
    assert_eq!(kinds(&frames), ["error"]);
    assert_eq!(frames[0]["msg"]["code"], 13);
    assert_eq!((frames[0]["sid"].as_i64(), seqs(&frames)), (Some(1), vec![6]));

    let frames = client.command(&mut venue, update(4, 1, "delete_markets", &["M-0"]));
    assert_eq!(frames[0]["msg"], json!({"market_tickers": ["M-1", "M-2"]}));
    assert_eq!(seqs(&frames), [7]);
    venue.publish_delta(id(0), &change(1, Side::Yes, "0.22", "1"), false);
    assert!(client.frames().is_empty());

    let unsubscribe = json!({"id": 5, "cmd": "unsubscribe", "params": {"sids": [1, 9]}});
    let frames = client.command(&mut venue, unsubscribe);
    assert_eq!(frames[0], json!({"type": "unsubscribed", "id": 5, "sid": 1, "seq": 8}));
    assert_eq!((frames[1]["msg"]["code"].as_u64(), frames[1].get("seq")), (Some(7), None));

    let frames = client.command(&mut venue, subscribe(6, &["orderbook_delta"], &["M-0"]));
    assert_eq!(frames[0]["msg"]["sid"], 2, "a new subscription has a new sid");
    assert_eq!(seqs(&frames), [1]);
}

#[test]
fn a_second_subscribe_merges_and_sends_no_snapshot() {
    let mut venue = venue(4);
    let client = Client::connect(&mut venue, 0);
    client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0"]));
    let frames = client.command(&mut venue, subscribe(2, &["orderbook_delta"], &["M-2", "M-0"]));
    assert_eq!(
        frames,
        [json!({"type": "ok", "id": 2, "sid": 1, "seq": 2,
            "msg": {"market_tickers": ["M-0", "M-2"]}})]
    );
    venue.publish_delta(id(2), &change(0, Side::No, "0.46", "1"), false);
    assert_eq!(seqs(&client.frames()), [3], "but its changes flow");

    let mut quiet = subscribe(3, &["orderbook_delta"], &["M-3"]);
    quiet["params"]["skip_ticker_ack"] = true.into();
    assert_eq!(client.command(&mut venue, quiet)[0]["msg"], json!({}));
}

#[test]
fn a_requested_snapshot_stands_in_sequence_and_equals_the_replayed_book() {
    let mut venue = venue(3);
    let client = Client::connect(&mut venue, 0);
    let mut book = Folded::default();
    for frame in client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0"])) {
        book.take(&frame);
    }
    venue.publish_delta(id(0), &change(0, Side::No, "0.46", "-20"), false);
    venue.publish_delta(id(0), &change(5, Side::No, "0.45", "7.25"), false);
    let frames = client.command(&mut venue, update(9, 1, "get_snapshot", &["M-0"]));
    venue.publish_delta(id(0), &change(9, Side::No, "0.45", "1"), false);
    let frames = [frames, client.frames()].concat();
    assert_eq!(
        kinds(&frames),
        ["orderbook_delta", "orderbook_delta", "orderbook_snapshot", "orderbook_delta"]
    );
    assert_eq!(seqs(&frames), [2, 3, 4, 5]);
    book.take(&frames[0]);
    book.take(&frames[1]);
    assert_eq!(frames[2]["id"], 9);
    assert_eq!(book, Folded::stated(&frames[2]));

    let frames = client.command(&mut venue, update(10, 1, "get_snapshot", &["GONE"]));
    assert_eq!(frames[0]["msg"]["code"], 11);
    assert_eq!(frames[0]["msg"]["market_ticker"], "GONE");
}

#[test]
fn the_no_side_is_in_no_leg_prices_unless_asked_otherwise() {
    let mut venue = venue(1);
    let (plain, yes_leg) = (Client::connect(&mut venue, 0), Client::connect(&mut venue, 1));
    let mut command = subscribe(1, &["orderbook_delta"], &["M-0"]);
    let in_yes = yes_leg.command(&mut venue, command.clone());
    command["params"].as_object_mut().unwrap().remove("use_yes_price");
    let in_no = plain.command(&mut venue, command);
    assert_eq!(
        in_yes[1]["msg"]["no_dollars_fp"],
        json!([["0.4400", "146.00"], ["0.4600", "20.00"]])
    );
    assert_eq!(
        in_no[1]["msg"]["no_dollars_fp"],
        json!([["0.5400", "20.00"], ["0.5600", "146.00"]])
    );
    assert_eq!(in_yes[1]["msg"]["yes_dollars_fp"], in_no[1]["msg"]["yes_dollars_fp"]);
    venue.publish_delta(id(0), &change(0, Side::No, "0.441", "2"), false);
    venue.publish_delta(id(0), &change(0, Side::Yes, "0.1", "2"), false);
    let prices = |client: &Client| -> Vec<Value> {
        client.frames().into_iter().map(|frame| frame["msg"]["price_dollars"].clone()).collect()
    };
    assert_eq!(prices(&yes_leg), ["0.4410", "0.1000"]);
    assert_eq!(prices(&plain), ["0.5590", "0.1000"]);
}

#[test]
fn a_close_is_an_empty_snapshot_without_changes() {
    let mut venue = venue(1);
    let client = Client::connect(&mut venue, 0);
    client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0"]));
    venue.publish_close(id(0));
    venue.publish_close(id(0));
    let frames = client.frames();
    assert_eq!(kinds(&frames), ["orderbook_snapshot"; 2]);
    assert_eq!(seqs(&frames), [2, 3]);
    let keys: Vec<_> = frames[0]["msg"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["market_id", "market_ticker"]);
    let places = venue.ledger.places();
    assert_eq!(places.len(), 2);
    assert!(places[1].stated.is_empty() && !places[1].folded.is_empty());
}

#[test]
fn each_mistake_has_its_code() {
    let mut venue = venue(2);
    let client = Client::connect(&mut venue, 0);
    client.command(&mut venue, subscribe(1, &["orderbook_delta", "ticker"], &["M-0"]));
    let params = |cmd: &str, params: Value| json!({"id": 7, "cmd": cmd, "params": params});
    let book = |extra: Value| {
        let mut all = json!({"sid": 1});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        params("update_subscription", all)
    };
    for (code, command) in [
        (5, json!({"id": 7, "cmd": "dance"})),
        (2, json!({"id": 7, "cmd": "subscribe"})),
        (3, params("subscribe", json!({}))),
        (8, params("subscribe", json!({"channels": ["gossip"]}))),
        (14, params("subscribe", json!({"channels": ["orderbook_delta"]}))),
        (11, params("subscribe", json!({"channels": ["trade"], "market_tickers": [1]}))),
        (11, params("subscribe", json!({"channels": "trade"}))),
        (4, params("unsubscribe", json!({}))),
        (7, params("unsubscribe", json!({"sids": [77]}))),
        (7, params("update_subscription", json!({"sid": 77, "action": "add_markets"}))),
        (12, params("update_subscription", json!({"sids": [1, 2], "action": "add_markets"}))),
        (12, params("update_subscription", json!({"action": "add_markets"}))),
        (15, book(json!({"market_tickers": ["M-1"]}))),
        (13, book(json!({"action": "paint", "market_tickers": ["M-1"]}))),
        (
            13,
            params(
                "update_subscription",
                json!({
                    "sid": 2, "action": "get_snapshot", "market_tickers": ["M-1"],
                }),
            ),
        ),
        (14, book(json!({"action": "add_markets"}))),
        (14, book(json!({"action": "get_snapshot", "market_tickers": []}))),
        (11, book(json!({"action": "add_markets", "market_tickers": "M-1"}))),
    ] {
        let frames = client.command(&mut venue, command.clone());
        assert_eq!(kinds(&frames), ["error"], "{command}");
        assert_eq!(frames[0]["msg"]["code"], code, "{command}");
        assert_eq!(frames[0]["id"], 7);
    }
    venue.command(client.id, "{not json");
    assert_eq!(client.frames()[0]["msg"]["code"], 1);

    venue.limits.markets_per_subscription = 1;
    let frames = client.command(&mut venue, update(8, 1, "add_markets", &["M-1"]));
    assert_eq!(frames[0]["msg"]["code"], 26);
    assert_eq!(frames[0]["sid"], 1);
    let frames = client.command(&mut venue, subscribe(9, &["trade"], &["M-0", "M-1"]));
    assert_eq!((frames[0]["msg"]["code"].as_u64(), frames[0].get("sid")), (Some(26), None));
    venue.limits.commands_per_second = 3;
    let frames = client.command(&mut venue, json!({"id": 1, "cmd": "list_subscriptions"}));
    assert_eq!(frames[0]["msg"]["code"], 27);
}

#[test]
fn unfiltered_channels_bring_everything_and_tickers_have_no_number() {
    let mut venue = venue(2);
    let client = Client::connect(&mut venue, 0);
    let all = json!({"id": 1, "cmd": "subscribe", "params": {
        "channels": ["ticker", "trade", "market_lifecycle_v2"],
    }});
    let frames = client.command(&mut venue, all);
    let sids: Vec<_> = frames.iter().map(|frame| frame["msg"]["sid"].as_i64()).collect();
    assert_eq!(sids, [Some(1), Some(2), Some(3)]);
    let list = client.command(&mut venue, json!({"id": 2, "cmd": "list_subscriptions"}));
    assert_eq!(list[0]["msg"].as_array().unwrap().len(), 3);
    assert_eq!(list[0].get("seq"), None);

    venue.publish_ticker(id(1), T0);
    venue.publish_ticker(id(1), T0);
    let frames = client.frames();
    assert_eq!(kinds(&frames), ["ticker"], "the same quote of one millisecond is told once");
    assert_eq!(frames[0].get("seq"), None);
    assert_eq!(frames[0]["msg"]["price_dollars"], "");
    assert_eq!(frames[0]["msg"]["ts"], 1_785_901_540);

    let msg = json!({"market_ticker": "M-1", "event_type": "activated"});
    venue.publish_lifecycle(&ticker("M-1"), "market_lifecycle_v2", &msg, false);
    let frames = client.frames();
    assert_eq!((frames[0]["seq"].as_i64(), &frames[0]["msg"]), (Some(1), &msg));
    let row = &venue.ledger.lifecycle()[0];
    assert_eq!((row.subject.as_str(), row.event_type.as_str()), ("M-1", "activated"));
    assert_eq!(row.content_hash, crate::model::identity::text_content(&msg.to_string()));
}

#[test]
fn a_slow_reader_loses_its_subscription_and_keeps_its_socket() {
    let mut venue = venue(1);
    let (slow, other) = (Client::connect(&mut venue, 0), Client::connect(&mut venue, 1));
    for client in [&slow, &other] {
        client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0"]));
    }
    venue.limits.outbox_bytes = 2_000;
    for at in 0..50 {
        venue.publish_delta(id(0), &change(at, Side::Yes, "0.10", "1"), false);
        other.frames();
    }
    let frames = slow.frames();
    let last = frames.last().unwrap();
    assert_eq!((last["msg"]["code"].as_u64(), last.get("id")), (Some(25), None));
    assert_eq!(last["sid"], 1);
    let numbers = seqs(&frames);
    assert_eq!(numbers, (2..).take(numbers.len()).collect::<Vec<_>>());
    assert_eq!(venue.happenings.overflows, 1);
    assert_eq!(venue.subscribed_markets(), 1);
    let again = slow.command(&mut venue, subscribe(2, &["orderbook_delta"], &["M-0"]));
    assert_eq!(kinds(&again), ["subscribed", "orderbook_snapshot"]);
    assert_eq!(again[0]["msg"]["sid"], 2);
}

#[test]
fn frames_left_out_use_their_numbers() {
    let mut venue = venue(1);
    let (hit, spared) = (Client::connect(&mut venue, 0), Client::connect(&mut venue, 1));
    for client in [&hit, &spared] {
        client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0"]));
    }
    venue.trouble(0, Trouble::Skip(Channel::OrderbookDelta, 2));
    for at in 0..4 {
        venue.publish_delta(id(0), &change(at, Side::Yes, "0.10", "1"), false);
    }
    assert_eq!(seqs(&hit.frames()), [4, 5]);
    assert_eq!(seqs(&spared.frames()), [2, 3, 4, 5]);
    let receivers: Vec<_> =
        venue.ledger.deltas(0, 9).into_iter().map(|row| row.receivers.count()).collect();
    assert_eq!(receivers, [1, 1, 2, 2]);
}

#[test]
fn injected_frames_fit_into_the_sequence() {
    let mut venue = venue(1);
    let client = Client::connect(&mut venue, 0);
    client.command(&mut venue, subscribe(1, &["orderbook_delta"], &["M-0"]));
    let injection = serde_json::from_value::<super::super::inject::Injection>(json!({
        "channel": "orderbook_delta",
        "raw": r#"{"type":"news","sid":$SID,"seq":$SEQ,"msg":{"text":"$PAD"}}"#,
        "repeat_bytes": 100_000,
    }));
    assert_eq!(venue.inject(&injection.unwrap()), 1);
    venue.publish_delta(id(0), &change(0, Side::Yes, "0.10", "1"), false);
    let frames = client.frames();
    assert_eq!(seqs(&frames), [2, 3]);
    assert_eq!(frames[0]["msg"]["text"].as_str().unwrap().len(), 100_000);
}

#[test]
fn a_disconnected_client_leaves_nothing_behind() {
    let mut venue = venue(2);
    let first = Client::connect(&mut venue, 0);
    first.command(&mut venue, subscribe(1, &["orderbook_delta", "trade"], &["M-0", "M-1"]));
    assert_eq!(venue.subscribed_markets(), 2);
    venue.disconnect(first.id);
    assert_eq!(venue.subscribed_markets(), 0);
    let second = Client::connect(&mut venue, 1);
    assert_eq!(second.id, first.id, "slots are used again");
    venue.publish_delta(id(0), &change(0, Side::Yes, "0.10", "1"), false);
    assert!(second.frames().is_empty());
}
