//! The subscriptions against replies as the exchange gives them, without a socket.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::kalshi::limits::SPACING_MIN;
use crate::kalshi::replies::REFUSED_PAUSE;
use crate::kalshi::testing::tickers;
use crate::kalshi::wire::Envelope;

fn markets(range: std::ops::Range<usize>) -> Wants {
    let names = range.map(|number| Ticker::parse(&format!("M{number:03}")).unwrap());
    Wants::Markets(Arc::new(names.collect::<BTreeSet<_>>()))
}

struct Wire {
    subscriptions: Subscriptions,
    now: Instant,
    seq: i64,
}

impl Wire {
    fn new(channel: Channel, settings: Settings) -> Self {
        let now = Instant::now();
        let subscriptions = Subscriptions::new(channel, &settings, Kept::new(&settings), now);
        Self { subscriptions, now, seq: 0 }
    }

    fn books(batch: usize) -> Self {
        Self::new(Channel::OrderbookDelta, Settings { command_batch: batch, ..Settings::default() })
    }

    fn want(&mut self, wants: &Wants) {
        self.subscriptions.want(wants, self.now);
    }

    fn pass(&mut self, time: Duration) -> Result<(), Broken> {
        self.now += time;
        self.subscriptions.tick(self.now)
    }

    fn command(&mut self) -> Option<Value> {
        let text = self.subscriptions.next_command(self.now)?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn hear(&mut self, text: &str) -> Heard {
        let envelope = Envelope::parse(text).unwrap();
        match self.subscriptions.frame(&envelope, text, self.now).unwrap() {
            [place, Heard::Nothing] => place,
            [_, said] => said,
        }
    }

    fn subscribed(&mut self, id: u64, sid: i64) -> Heard {
        let channel = self.subscriptions.channel;
        let msg = format!(r#"{{"channel":"{channel}","sid":{sid}}}"#);
        self.hear(&format!(r#"{{"type":"subscribed","id":{id},"msg":{msg}}}"#))
    }

    fn ok(&mut self, id: u64, sid: i64) -> Heard {
        self.seq += 1;
        let seq = self.seq;
        self.hear(&format!(r#"{{"type":"ok","id":{id},"sid":{sid},"seq":{seq},"msg":{{}}}}"#))
    }

    fn error(&mut self, id: u64, code: i64, more: &str) -> Heard {
        let msg = format!(r#"{{"code":{code},"msg":"no"{more}}}"#);
        self.hear(&format!(r#"{{"type":"error","id":{id},"msg":{msg}}}"#))
    }

    fn snapshot(&mut self, sid: i64, ticker: &str) -> Heard {
        self.seq += 1;
        let seq = self.seq;
        let msg = format!(r#"{{"market_ticker":"{ticker}"}}"#);
        self.hear(&format!(
            r#"{{"type":"orderbook_snapshot","sid":{sid},"seq":{seq},"msg":{msg}}}"#
        ))
    }
}

fn id(command: &Value) -> u64 {
    command["id"].as_u64().unwrap()
}

#[test]
fn an_exchange_with_a_cap_is_filled_to_it_exactly() {
    let mut wire = Wire::books(64);
    wire.want(&markets(0..200));
    let (cap, mut held) = (77, 0);
    let mut refusals = 0;
    for _ in 0..100 {
        let Some(command) = wire.command() else { break };
        let count = tickers(&command).len();
        if held + count > cap {
            refusals += 1;
            wire.error(id(&command), 26, "");
            wire.pass(REFUSED_PAUSE).unwrap();
        } else {
            held += count;
            match command["cmd"].as_str().unwrap() {
                "subscribe" => wire.subscribed(id(&command), 1),
                _ => wire.ok(id(&command), 1),
            };
        }
    }
    assert_eq!((held, wire.subscriptions.learned().markets_max), (cap, Some(cap)));
    assert!(refusals <= 8, "{refusals} refusals");
    // Room that comes free is used: five go, and as many of the waiting ones come.
    wire.want(&markets(5..200));
    let delete = wire.command().unwrap();
    assert_eq!(
        (&delete["params"]["action"], tickers(&delete).len()),
        (&Value::from("delete_markets"), 5)
    );
    let Heard::Removed { sid: 1, tickers: removed } = wire.ok(id(&delete), 1) else { panic!() };
    assert_eq!(removed.len(), 5);
    let add = wire.command().unwrap();
    assert_eq!((&add["params"]["action"], tickers(&add).len()), (&Value::from("add_markets"), 5));
}

#[test]
fn too_many_commands_slow_down_and_lose_nothing() {
    let mut wire = Wire::books(2);
    wire.want(&markets(0..4));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    let second = wire.command().unwrap();
    assert_eq!(
        wire.error(id(&second), 27, ""),
        Heard::Failed { code: 27, message: "no".to_owned() }
    );
    assert_eq!(wire.command(), None);
    wire.pass(Duration::from_secs(1)).unwrap();
    let again = wire.command().unwrap();
    assert_eq!(tickers(&again), tickers(&second));
    assert_eq!(wire.subscriptions.learned().spacing, SPACING_MIN);
}

#[test]
fn a_bad_market_is_found_by_name_or_by_halves_and_the_others_are_added() {
    for named in [true, false] {
        let mut wire = Wire::books(16);
        wire.want(&markets(0..16));
        let bad = "M005";
        let mut sid_known = false;
        for _ in 0..40 {
            wire.pass(REFUSED_PAUSE).unwrap();
            let Some(command) = wire.command() else { break };
            if tickers(&command).contains(&bad) {
                let name =
                    if named { format!(r#","market_ticker":"{bad}""#) } else { String::new() };
                wire.error(id(&command), 11, &name);
                continue;
            } else if sid_known {
                wire.ok(id(&command), 1);
            } else {
                sid_known = true;
                wire.subscribed(id(&command), 1);
            }
            for ticker in tickers(&command) {
                wire.snapshot(1, ticker);
            }
        }
        let counts = wire.subscriptions.counts();
        assert_eq!((counts.subscribed, counts.refused), (15, 1), "named: {named}");
        wire.pass(Settings::default().refused_retry).unwrap();
        let mut retried = Vec::new();
        while let Some(command) = wire.command() {
            retried.push(tickers(&command).join(","));
        }
        assert!(retried.contains(&bad.to_owned()), "{retried:?}");
    }
}

#[test]
fn a_subscribe_that_merges_asks_for_the_snapshots_itself() {
    let mut wire = Wire::books(8);
    wire.want(&markets(0..3));
    let first = wire.command().unwrap();
    assert_eq!(wire.ok(id(&first), 9), Heard::Subscribed { sid: 9 });
    let ask = wire.command().unwrap();
    assert_eq!(ask["params"]["action"], "get_snapshot");
    assert_eq!(tickers(&ask).len(), 3);
}

#[test]
fn replies_take_numbers_and_other_subscriptions_gaps_are_not_ours() {
    let mut wire = Wire::books(2);
    wire.want(&markets(0..4));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    for ticker in ["M000", "M001"] {
        assert_eq!(wire.snapshot(1, ticker), Heard::Nothing);
    }
    let second = wire.command().unwrap();
    assert_eq!(wire.ok(id(&second), 1), Heard::Nothing);
    for ticker in ["M002", "M003"] {
        assert_eq!(wire.snapshot(1, ticker), Heard::Nothing);
    }
    assert_eq!(wire.hear(r#"{"type":"x","sid":2,"seq":1}"#), Heard::Nothing);
    assert!(matches!(wire.hear(r#"{"type":"x","sid":2,"seq":9}"#), Heard::Gap { sid: 2, .. }));
    assert_eq!(wire.command(), None);
    assert_eq!(wire.subscriptions.counts().with_book, 4);
}

#[test]
fn a_later_gap_waits_for_the_interval_and_then_asks_again() {
    let mut wire = Wire::books(8);
    wire.want(&markets(0..2));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    wire.snapshot(1, "M000");
    wire.snapshot(1, "M001");
    let answer = |wire: &mut Wire, command: &Value| {
        wire.ok(id(command), 1);
        for ticker in tickers(command) {
            wire.snapshot(1, ticker);
        }
    };
    wire.seq += 3;
    let ask = {
        wire.snapshot(1, "M000");
        wire.command().unwrap()
    };
    // The snapshot behind the gap healed M000 in the same moment.
    assert_eq!(tickers(&ask), ["M001"]);
    answer(&mut wire, &ask);
    wire.seq += 3;
    assert!(matches!(wire.hear(r#"{"type":"x","sid":1,"seq":99}"#), Heard::Gap { .. }));
    wire.seq = 99;
    assert_eq!(wire.command(), None);
    wire.pass(Settings::default().resync_interval).unwrap();
    let ask = wire.command().unwrap();
    assert_eq!(tickers(&ask).len(), 2);
    answer(&mut wire, &ask);
    assert_eq!(wire.subscriptions.counts().with_book, 2);
}

#[test]
fn repeated_terminal_errors_resubscribe_with_growing_distance() {
    let mut wire = Wire::new(Channel::Trade, Settings::default());
    let mut waits = Vec::new();
    for sid in 1..=4 {
        let start = wire.now;
        let command = loop {
            if let Some(command) = wire.command() {
                break command;
            }
            wire.pass(Duration::from_millis(500)).unwrap();
        };
        waits.push((wire.now - start).as_secs());
        assert_eq!(command["params"]["channels"][0], "trade");
        wire.subscribed(id(&command), sid);
        let lost = wire.hear(&format!(
            r#"{{"type":"error","sid":{sid},"seq":1,"msg":{{"code":25,"msg":"slow"}}}}"#
        ));
        assert_eq!(lost, Heard::Lost { sid, code: 25, message: "slow".to_owned() });
    }
    assert_eq!(waits, [0, 0, 1, 2]);
    // After a calm time it is the first time again.
    wire.pass(RESUBSCRIBE_MAX).unwrap();
    let command = wire.command().unwrap();
    wire.subscribed(id(&command), 9);
    wire.now += RESUBSCRIBE_MAX * 3;
    wire.hear(r#"{"type":"error","sid":9,"msg":{"code":10,"msg":""}}"#);
    assert!(wire.command().is_some());
}

#[test]
fn an_unknown_sid_is_a_lost_subscription() {
    let mut wire = Wire::books(1);
    wire.want(&markets(0..2));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    let second = wire.command().unwrap();
    assert!(matches!(wire.error(id(&second), 7, ""), Heard::Lost { sid: 1, code: 7, .. }));
    let again = wire.command().unwrap();
    assert_eq!(again["cmd"], "subscribe");
    assert_eq!(wire.subscriptions.counts().subscribed, 0);
}

#[test]
fn a_slow_exchange_has_three_times_the_limit_while_it_speaks() {
    let limit = Settings::default().command_timeout;
    let mut wire = Wire::books(1);
    wire.want(&markets(0..2));
    let first = wire.command().unwrap();
    let unanswered = Err(Broken::Unanswered { id: id(&first) });
    assert_eq!(wire.pass(limit), unanswered, "nothing came at all");
    wire.subscribed(id(&first), 1);
    wire.snapshot(1, "M000");
    let second = wire.command().unwrap();
    for _ in 0..5 {
        wire.pass(limit / 2).unwrap();
        wire.hear(&format!(r#"{{"type":"orderbook_delta","sid":1,"seq":{}}}"#, wire.seq + 1));
        wire.seq += 1;
    }
    assert_eq!(wire.pass(limit / 2), Err(Broken::Unanswered { id: id(&second) }));
}

/// One market with a book, whose snapshot is asked for and does not come.
fn unanswered() -> Wire {
    let mut wire = Wire::books(8);
    wire.want(&markets(0..1));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    wire.snapshot(1, "M000");
    wire.subscriptions.doubt(&Ticker::parse("M000").unwrap());
    let ask = wire.command().unwrap();
    assert_eq!(ask["params"]["action"], "get_snapshot");
    wire
}

#[test]
fn a_silent_subscription_of_a_living_exchange_is_replaced() {
    let limit = Settings::default().command_timeout;
    let mut wire = unanswered();
    wire.pass(limit).unwrap();
    let list = wire.command().unwrap();
    assert_eq!(list, serde_json::json!({"id": id(&list), "cmd": "list_subscriptions"}));
    assert_eq!(wire.command(), None);
    let listed = format!(
        r#"{{"type":"ok","id":{},"msg":[{{"channel":"orderbook_delta","sid":1}}]}}"#,
        id(&list)
    );
    assert_eq!(wire.hear(&listed), Heard::Stalled { sid: 1 });
    let end = wire.command().unwrap();
    assert_eq!(
        (&end["cmd"], &end["params"]),
        (&"unsubscribe".into(), &serde_json::json!({"sids": [1]}))
    );
    // Data may still come before the end is confirmed.
    wire.snapshot(1, "M000");
    assert_eq!(wire.command(), None);
    let seq = wire.seq + 1;
    let ended = format!(r#"{{"type":"unsubscribed","id":{},"sid":1,"seq":{seq}}}"#, id(&end));
    assert!(matches!(wire.hear(&ended), Heard::Lost { sid: 1, code: 0, .. }));
    let again = wire.command().unwrap();
    assert_eq!((&again["cmd"], tickers(&again)), (&"subscribe".into(), vec!["M000"]));
    wire.subscribed(id(&again), 2);
    wire.seq = 0;
    wire.snapshot(2, "M000");
    assert_eq!(wire.command(), None, "the new subscription's snapshot is the only one");
    assert_eq!(wire.subscriptions.counts().with_book, 1);
}

#[test]
fn a_slow_subscription_that_speaks_at_last_is_left_alone() {
    let limit = Settings::default().command_timeout;
    let mut wire = unanswered();
    wire.pass(limit).unwrap();
    let list = wire.command().unwrap();
    wire.pass(limit / 2).unwrap();
    wire.snapshot(1, "M000");
    let listed = format!(r#"{{"type":"ok","id":{},"msg":[]}}"#, id(&list));
    assert_eq!(wire.hear(&listed), Heard::Nothing);
    wire.pass(limit).unwrap();
    assert_eq!(wire.command(), None);
    assert_eq!(wire.subscriptions.counts().with_book, 1);
}

#[test]
fn silence_on_every_level_ends_the_connection_within_thirty_seconds() {
    let limit = Settings::default().command_timeout;
    // Neither the question nor, with it answered, the end of the subscription is answered.
    for answered in [false, true] {
        let mut wire = unanswered();
        let start = wire.now;
        wire.pass(limit).unwrap();
        let list = wire.command().unwrap();
        if answered {
            // An error is an answer too.
            wire.pass(limit / 2).unwrap();
            assert_eq!(wire.error(id(&list), 5, ""), Heard::Stalled { sid: 1 });
            assert_eq!(wire.command().unwrap()["cmd"], "unsubscribe");
        }
        assert_eq!(wire.pass(limit), Err(Broken::Silent { sid: 1 }));
        assert!(wire.now - start <= Duration::from_secs(30));
    }
}

#[test]
fn a_quiet_channel_is_asked_after_and_a_silent_ticker_is_subscribed_anew() {
    let quiet = |wire: &mut Wire, sid: i64, silence: u32| {
        for passed in 0..silence {
            wire.pass(Duration::from_secs(1)).unwrap();
            if let Some(command) = wire.command() {
                if command["cmd"] != "list_subscriptions" {
                    return Some((passed, command));
                }
                let id = id(&command);
                wire.hear(&format!(r#"{{"type":"ok","id":{id},"msg":[{{"sid":{sid}}}]}}"#));
            }
        }
        None
    };
    for channel in [Channel::Trade, Channel::Ticker] {
        let mut wire = Wire::new(channel, Settings::default());
        let first = wire.command().unwrap();
        wire.subscribed(id(&first), 4);
        let ended = quiet(&mut wire, 4, 900);
        match channel {
            Channel::Ticker => {
                let (after, command) = ended.unwrap();
                assert_eq!(command["cmd"], "unsubscribe");
                assert!((295..=310).contains(&after), "{after}");
            }
            _ => assert_eq!(ended, None, "nothing may have been traded"),
        }
        // A subscription that the exchange knows nothing of.
        let mut wire = Wire::new(channel, Settings::default());
        let first = wire.command().unwrap();
        wire.subscribed(id(&first), 4);
        let (after, command) = quiet(&mut wire, 5, 900).unwrap();
        assert_eq!((command["cmd"].as_str(), after), (Some("unsubscribe"), 60));
        assert!(matches!(wire.error(id(&command), 7, ""), Heard::Lost { sid: 4, code: 7, .. }));
        assert_eq!(wire.command().unwrap()["cmd"], "subscribe");
    }
}

#[test]
fn a_market_without_a_snapshot_is_no_trouble_of_the_others() {
    let mut wire = Wire::books(8);
    wire.want(&markets(0..2));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    let mut said = Vec::new();
    // M001 speaks, M000 never gets its snapshot.
    for _ in 0..60 {
        wire.snapshot(1, "M001");
        wire.pass(Duration::from_secs(1)).unwrap();
        while let Some(command) = wire.command() {
            assert_eq!(tickers(&command), ["M000"]);
            let action = command["params"]["action"].as_str().unwrap().to_owned();
            if action != "get_snapshot" {
                wire.ok(id(&command), 1);
            }
            said.push(action);
        }
    }
    assert_eq!(said, ["get_snapshot", "get_snapshot", "delete_markets", "add_markets"]);
}

#[test]
fn the_audit_goes_around_evenly_and_yields_to_everything_else() {
    let period = Duration::from_secs(20);
    let settings = Settings { audit_period: Some(period), ..Settings::default() };
    let mut wire = Wire::new(Channel::OrderbookDelta, settings);
    wire.want(&markets(0..30));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    for number in 0..30 {
        wire.snapshot(1, &format!("M{number:03}"));
    }
    let mut seen: std::collections::BTreeMap<String, Vec<u64>> = std::collections::BTreeMap::new();
    let start = wire.now;
    for _ in 0..620 {
        wire.pass(Duration::from_millis(100)).unwrap();
        let Some(command) = wire.command() else { continue };
        assert_eq!(command["params"]["action"], "get_snapshot");
        assert_eq!(tickers(&command).len(), 3);
        let at = (wire.now - start).as_secs();
        for ticker in tickers(&command) {
            seen.entry(ticker.to_owned()).or_default().push(at);
            wire.snapshot(1, ticker);
        }
    }
    assert_eq!(seen.len(), 30);
    for (ticker, times) in &seen {
        assert_eq!(times.len(), 3, "{ticker}");
        assert!(times.windows(2).all(|pair| (19..=21).contains(&(pair[1] - pair[0]))), "{times:?}");
    }
    assert_eq!(wire.subscriptions.audits(), 90);
    assert_eq!(wire.subscriptions.snapshot_requests(), 0);
    // Two may wait, and nothing of the audit is sent while anything else does.
    wire.pass(Duration::from_secs(2)).unwrap();
    let audit = wire.command().unwrap();
    wire.subscriptions.doubt(&Ticker::parse("M029").unwrap());
    assert_eq!(tickers(&wire.command().unwrap()), ["M029"]);
    wire.pass(Duration::from_secs(3)).unwrap();
    assert_eq!(wire.command(), None);
    wire.snapshot(1, "M029");
    let second = wire.command().unwrap();
    assert_ne!(tickers(&audit), tickers(&second));
    wire.pass(Duration::from_secs(3)).unwrap();
    assert_eq!(wire.command(), None);
}

#[test]
fn without_an_audit_one_book_asks_whether_a_quiet_subscription_lives() {
    let mut wire = Wire::books(8);
    wire.want(&markets(0..3));
    let first = wire.command().unwrap();
    wire.subscribed(id(&first), 1);
    for ticker in ["M000", "M001", "M002"] {
        wire.snapshot(1, ticker);
    }
    wire.pass(Duration::from_secs(59)).unwrap();
    assert_eq!(wire.command(), None);
    wire.pass(Duration::from_secs(1)).unwrap();
    let ask = wire.command().unwrap();
    assert_eq!((&ask["params"]["action"], tickers(&ask).len()), (&"get_snapshot".into(), 1));
    wire.pass(Settings::default().command_timeout).unwrap();
    assert_eq!(wire.command().unwrap()["cmd"], "list_subscriptions");
}

#[test]
fn an_error_about_one_snapshot_leaves_the_others_awaited() {
    let mut wire = Wire::books(8);
    wire.want(&markets(0..3));
    let first = wire.command().unwrap();
    wire.ok(id(&first), 1);
    let ask = wire.command().unwrap();
    assert_eq!(tickers(&ask).len(), 3);
    wire.error(id(&ask), 11, r#","market_ticker":"M001""#);
    let again = wire.command().unwrap();
    assert_eq!(tickers(&again), ["M001"]);
    wire.error(id(&again), 11, r#","market_ticker":"M001""#);
    assert_eq!(wire.command(), None, "the second time it waits");
    for ticker in ["M000", "M002"] {
        wire.snapshot(1, ticker);
    }
    wire.pass(Duration::ZERO).unwrap();
    assert_eq!(wire.subscriptions.counts().with_book, 2);
    assert!(wire.subscriptions.outstanding.is_empty());
}

#[test]
fn commands_wait_for_answers_beyond_the_limit() {
    let mut wire = Wire::new(
        Channel::OrderbookDelta,
        Settings { command_batch: 1, commands_outstanding_max: 2, ..Settings::default() },
    );
    wire.want(&markets(0..9));
    let first = wire.command().unwrap();
    assert_eq!(wire.command(), None, "the sid is not known yet");
    wire.subscribed(id(&first), 1);
    let (second, _third) = (wire.command().unwrap(), wire.command().unwrap());
    assert_eq!(wire.command(), None);
    wire.ok(id(&second), 1);
    assert!(wire.command().is_some());
}
