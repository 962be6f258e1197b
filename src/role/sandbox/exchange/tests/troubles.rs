//! What goes wrong on demand, as a client sees it, on the state alone.

use serde_json::{Value, json};

use super::super::Trouble;
use super::*;
use crate::model::Channel;

const BOOKS: Channel = Channel::OrderbookDelta;

fn subscribe(markets: &[&str]) -> Value {
    json!({"id": 1, "cmd": "subscribe", "params": {
        "channels": ["orderbook_delta"], "market_tickers": markets, "use_yes_price": true,
    }})
}

fn update(id: u64, sid: i64, action: &str, markets: &[&str]) -> Value {
    json!({"id": id, "cmd": "update_subscription", "params": {
        "sid": sid, "action": action, "market_tickers": markets,
    }})
}

/// Three accounts that all watch `M-0`.
fn three() -> (Venue, [Client; 3]) {
    let mut venue = venue(2);
    let clients = [0, 1, 2].map(|key| {
        let client = Client::connect(&mut venue, key);
        let replies = client.command(&mut venue, subscribe(&["M-0"]));
        assert_eq!(replies.len(), 2, "subscribed and a snapshot");
        client
    });
    (venue, clients)
}

fn publish(venue: &mut Venue, micros: i64) {
    venue.publish_delta(id(0), &change(micros, Side::Yes, "0.09", "5"), false);
}

fn seqs(client: &Client) -> Vec<i64> {
    client.frames().iter().map(|frame| frame["seq"].as_i64().unwrap()).collect()
}

#[test]
fn frames_are_left_out_and_repeated_for_one_account_and_the_ledger_knows() {
    let (mut venue, [first, second, third]) = three();
    venue.trouble(0, Trouble::Skip(BOOKS, 2));
    venue.trouble(1, Trouble::Repeat(BOOKS, 1));
    (0..3).for_each(|at| publish(&mut venue, at));
    assert_eq!(seqs(&first), [4]);
    assert_eq!(seqs(&second), [2, 2, 3, 4]);
    assert_eq!(seqs(&third), [2, 3, 4]);
    let sent: Vec<bool> =
        venue.ledger.deltas(0, 9).iter().map(|row| row.receivers.contains(0)).collect();
    assert_eq!(sent, [false, false, true]);
    assert!(venue.ledger.deltas(0, 9).iter().all(|row| row.receivers.contains(1)));
    assert_eq!((venue.happenings.dropped, venue.happenings.repeated), (2, 1));
}

#[test]
fn numbers_begin_again() {
    let (mut venue, [first, second, _]) = three();
    assert_eq!(venue.trouble(0, Trouble::Reset(BOOKS)), 0, "a 1 after a 1 would be a repetition");
    publish(&mut venue, 0);
    assert_eq!(venue.trouble(0, Trouble::Reset(BOOKS)), 1);
    publish(&mut venue, 1);
    assert_eq!(seqs(&first), [2, 1]);
    assert_eq!(seqs(&second), [2, 3]);
}

#[test]
fn a_dead_subscription_is_found_by_asking_alone() {
    for known in [true, false] {
        let (mut venue, [first, second, _]) = three();
        assert_eq!(venue.trouble(0, Trouble::DeadSid { channel: BOOKS, known }), 1);
        publish(&mut venue, 0);
        assert!(first.frames().is_empty(), "no error and no data");
        assert_eq!(seqs(&second), [2]);
        assert!(!venue.ledger.deltas(0, 1)[0].receivers.contains(0));
        let answer = first.command(&mut venue, update(2, 1, "get_snapshot", &["M-0"]));
        let codes: Vec<_> = answer.iter().map(|frame| frame["msg"]["code"].as_u64()).collect();
        assert_eq!(codes, if known { vec![] } else { vec![Some(7)] });
        let end = json!({"id": 3, "cmd": "unsubscribe", "params": {"sids": [1]}});
        let kind = first.command(&mut venue, end)[0]["type"].clone();
        assert_eq!(kind, if known { "unsubscribed" } else { "error" });
        let again = first.command(&mut venue, subscribe(&["M-0"]));
        assert_eq!((again[0]["msg"]["sid"].as_i64(), again.len()), (Some(2), 2));
        publish(&mut venue, 1);
        assert_eq!(seqs(&first), [2], "the new one lives");
    }
}

#[test]
fn commands_fail_with_any_code_or_stay_unanswered() {
    let (mut venue, [first, second, _]) = three();
    for code in 1..=28 {
        venue.trouble(0, Trouble::FailCommands(code, 1));
        let failed = first.command(&mut venue, update(9, 1, "add_markets", &["M-1"]));
        assert_eq!(failed.len(), 1);
        assert_eq!(
            (failed[0]["type"].as_str(), failed[0]["id"].as_u64()),
            (Some("error"), Some(9))
        );
        assert_eq!(failed[0]["msg"]["code"], code);
        assert_eq!(failed[0]["sid"], 1, "an error about a subscription has its number");
    }
    let other = second.command(&mut venue, update(9, 1, "add_markets", &["M-1"]));
    assert_eq!(other[0]["type"], "ok");
    venue.trouble(0, Trouble::IgnoreCommands(2));
    assert!(first.command(&mut venue, update(10, 1, "add_markets", &["M-1"])).is_empty());
    assert!(first.command(&mut venue, json!({"id": 11, "cmd": "list_subscriptions"})).is_empty());
    let done = first.command(&mut venue, update(12, 1, "add_markets", &["M-1"]));
    assert_eq!(done[0]["type"], "ok", "nothing was carried out before");
    assert_eq!(done[1]["type"], "orderbook_snapshot");
}

#[test]
fn data_comes_before_subscribed() {
    let mut venue = venue(1);
    let client = Client::connect(&mut venue, 0);
    venue.trouble(0, Trouble::EarlyData(1));
    let frames = client.command(&mut venue, subscribe(&["M-0"]));
    let kinds: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["orderbook_snapshot", "subscribed"]);
    let next = Client::connect(&mut venue, 0);
    assert_eq!(next.command(&mut venue, subscribe(&["M-0"]))[0]["type"], "subscribed");
}

#[test]
fn yes_prices_are_ignored_for_one_account() {
    let mut venue = venue(1);
    venue.trouble(0, Trouble::IgnoreYesPrice(true));
    let shown = |venue: &mut Venue, key| {
        let client = Client::connect(venue, key);
        let frames = client.command(venue, subscribe(&["M-0"]));
        frames[1]["msg"]["no_dollars_fp"][0][0].clone()
    };
    assert_eq!(shown(&mut venue, 1), "0.4400");
    assert_eq!(shown(&mut venue, 0), "0.5400", "a no bid at 0.54 is a yes ask at 0.46");
    venue.trouble(0, Trouble::IgnoreYesPrice(false));
    assert_eq!(shown(&mut venue, 0), "0.4400");
}

#[test]
fn garbage_states_nothing_and_numbers_stay_whole() {
    let (mut venue, [first, second, _]) = three();
    assert_eq!(venue.trouble(0, Trouble::Terminate(BOOKS, 10)), 1);
    first.command(&mut venue, subscribe(&["M-0"]));
    assert_eq!(venue.trouble(0, Trouble::Garbage(BOOKS)), 1);
    assert_eq!(venue.trouble(0, Trouble::Garbage(Channel::Trade)), 0, "nobody to send it to");
    let raw = first.raw();
    let valid = |payload: &[u8]| serde_json::from_slice::<Value>(payload).ok();
    let frames: Vec<Option<Value>> = raw.iter().map(|payload| valid(payload)).collect();
    assert_eq!(frames.iter().filter(|frame| frame.is_none()).count(), 3, "cut off, empty, no text");
    assert!(raw.iter().any(|payload| std::str::from_utf8(payload).is_err()));
    let whole: Vec<&Value> = frames.iter().flatten().collect();
    assert!(whole.iter().any(|frame| frame["type"] == "surprise" && frame["seq"] == 2));
    let late = whole.last().unwrap();
    assert_eq!(
        (late["type"].as_str(), late["sid"].as_i64()),
        (Some("orderbook_snapshot"), Some(1))
    );
    publish(&mut venue, 0);
    assert_eq!(seqs(&first), [4], "two of them used a number");
    assert_eq!(seqs(&second), [2]);
}

#[test]
fn a_close_frame_is_the_last_word() {
    let (mut venue, [first, second, _]) = three();
    assert_eq!(venue.trouble(0, Trouble::Close(4001)), 1);
    publish(&mut venue, 0);
    assert_eq!(first.raw_frames(), [(0x88, [&4001_u16.to_be_bytes()[..], b"told to"].concat())]);
    assert_eq!(seqs(&second), [2]);
    assert!(!venue.ledger.deltas(0, 1)[0].receivers.contains(0));
    assert_eq!(venue.trouble(1, Trouble::PingFlood(3)), 1);
    assert_eq!(second.raw_frames(), vec![(0x89, b"heartbeat".to_vec()); 3]);
}

#[test]
fn multivariate_markets_have_a_lifecycle_of_their_own() {
    let mut venue = venue(0);
    let client = Client::connect(&mut venue, 0);
    let channels = ["market_lifecycle_v2", "multivariate_market_lifecycle"];
    for (number, channel) in (1..).zip(channels) {
        let command = json!({"id": number, "cmd": "subscribe", "params": {"channels": [channel]}});
        client.command(&mut venue, command);
    }
    let msg = json!({"event_type": "created", "market_ticker": "KXMVE-1"});
    for (is_multivariate, channel) in [(false, channels[0]), (true, channels[1])] {
        venue.publish_lifecycle(&ticker("KXMVE-1"), channel, &msg, is_multivariate);
        let frames = client.frames();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["type"], channel);
        assert_eq!(frames[0]["sid"], if is_multivariate { 2 } else { 1 });
    }
}

#[test]
fn who_hears_everything_is_known() {
    let (mut venue, [first, ..]) = three();
    assert_eq!(venue.subscribed_markets(), 3);
    assert_eq!(venue.takers(id(0)).count(), 3);
    let before = venue.reach();
    venue.trouble(0, Trouble::DeadSid { channel: BOOKS, known: true });
    assert_eq!((venue.takers(id(0)).count(), venue.is_watched_by_all(id(0))), (2, false));
    venue.trouble(0, Trouble::Terminate(BOOKS, 25));
    assert!(!venue.has_reach(&before, 0));
    first.frames();
    first.command(&mut venue, subscribe(&["M-0"]));
    assert!(venue.has_reach(&before, 0) && venue.is_watched_by_all(id(0)));
}
