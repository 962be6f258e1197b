//! Holes in the journal, pauses, and memory that stays bounded whatever comes.

use super::*;

fn covered_to(feed: &Feed) -> Vec<(CoverageEnd, i64)> {
    let rows = feed.output.rows.iter().filter_map(|(_, row)| match row {
        Record::Coverage(coverage) => Some((coverage.end, coverage.covered_to.0)),
        _ => None,
    });
    rows.collect()
}

fn trade(seq: i64) -> String {
    let id = uuid::Uuid::from_u128(u128::try_from(seq).unwrap());
    format!(
        r#"{{"type":"trade","sid":4,"seq":{seq},"msg":{{"trade_id":"{id}","market_ticker":"T","yes_price_dollars":"0.36","count_fp":"1.00","taker_outcome_side":"no","ts_ms":1785901540001}}}}"#
    )
}

#[test]
fn damage_ends_everything_before_it_and_asks_for_every_book() {
    let mut feed = Feed::new();
    feed.frame(r#"{"id":1,"type":"subscribed","msg":{"channel":"trade","sid":4}}"#);
    feed.frame(&trade(1));
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta_now(2, "-1.00");
    let seen = feed.now;
    feed.now += 60_000_000;
    feed.interpreter.hole(Position(feed.position + 50), &mut feed.output);
    assert_eq!(
        covered_to(&feed),
        [(CoverageEnd::JournalDamage, seen), (CoverageEnd::JournalDamage, seen)]
    );
    assert_eq!(feed.output.resync, [(1, Ticker::parse("T").unwrap())]);
    assert_eq!(feed.interpreter.counts.holes, 1);
    // Changes are rows still, but no coverage until the snapshot; the other channel goes on.
    feed.delta(9, 8, "-1.00");
    feed.frame(&trade(7));
    feed.snapshot(10, true, r#"["0.5","1.00"]"#);
    let closed = SessionEvent::Closed { reason: CloseReason::Stop, detail: String::new() };
    feed.event(1, &closed);
    let mut ends = feed.coverage().split_off(2);
    ends.sort_by_key(|(_, records)| *records);
    assert_eq!(ends, [(CoverageEnd::Stop, Some(0)), (CoverageEnd::Stop, Some(1))]);
    assert_eq!(feed.interpreter.counts.integrity_failures, 0);
}

#[test]
fn a_change_whose_snapshot_was_lost_asks_for_one() {
    let mut feed = Feed::new();
    feed.delta(5, 8, "-1.00");
    feed.delta(6, 8, "-1.00");
    assert_eq!(feed.output.resync, [(1, Ticker::parse("T").unwrap())]);
}

#[test]
fn what_is_read_after_a_pause_does_not_prove_the_pause() {
    let pause = |feed: &mut Feed, waited: i64| {
        feed.now += waited;
        feed.position += 100;
        let payload = Bytes::copy_from_slice(&waited.to_le_bytes());
        let record =
            JournalRecord { kind: Kind::Pause, session: 1, received_at: Micros(feed.now), payload };
        feed.interpreter.read(Position(feed.position), &record, &mut feed.output);
    };
    let disconnect =
        SessionEvent::Closed { reason: CloseReason::Disconnect, detail: String::new() };
    // Ten minutes without room; the exchange gave up in them; what the socket still held came after.
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta_now(2, "-1.00");
    let before = feed.now;
    pause(&mut feed, 600_000_000);
    feed.delta(3, 8, "-1.00");
    feed.frame(r#"{"type":"error","sid":2,"seq":4,"msg":{"code":25,"msg":"buffer overflow"}}"#);
    assert_eq!(covered_to(&feed), [(CoverageEnd::Overload, before)]);
    feed.event(1, &disconnect);

    // The same, but the connection ended.
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    let before = feed.now;
    pause(&mut feed, 600_000_000);
    feed.delta(2, 8, "-1.00");
    feed.event(1, &SessionEvent::Alive);
    feed.event(1, &disconnect);
    assert_eq!(covered_to(&feed), [(CoverageEnd::Disconnect, before)]);

    // A connection that lives on long enough afterwards brought everything.
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    pause(&mut feed, 3_000_000);
    feed.delta(2, 8, "-1.00");
    feed.now += 31_000_000;
    feed.event(1, &SessionEvent::Alive);
    let after = feed.now;
    feed.event(1, &disconnect);
    assert_eq!(covered_to(&feed), [(CoverageEnd::Disconnect, after)]);
    assert_eq!(feed.interpreter.counts.pauses, 1);
}

#[test]
fn an_overflow_ends_at_the_last_frame_before_it() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta_now(2, "-1.00");
    let last = feed.now;
    feed.now += 5_000_000;
    feed.frame(r#"{"type":"error","sid":2,"seq":3,"msg":{"code":25,"msg":"buffer overflow"}}"#);
    assert_eq!(covered_to(&feed), [(CoverageEnd::Overload, last)]);
}

#[test]
fn a_slot_has_one_connection_at_a_time() {
    let mut feed = Feed::new();
    for session in 1..1000 {
        let channels = vec![Channel::OrderbookDelta];
        feed.event(session, &SessionEvent::Connected { slot: "orderbook-1".to_owned(), channels });
    }
    assert_eq!(feed.interpreter.sessions.len(), 1);
}

#[test]
fn memory_stays_bounded_while_100_000_markets_come_and_go() {
    const OPEN: usize = 10;
    let mut feed = Feed::new();
    let mut seq = 0;
    let mut most = (0, 0);
    for number in 0..100_000_i64 {
        let ticker = format!("KXCHURN-{number}");
        for text in [
            format!(r#"{{"market_ticker":"{ticker}","yes_dollars_fp":[["0.5","10.00"]]}}"#),
            format!(
                r#"{{"market_ticker":"{ticker}","price_dollars":"0.5","delta_fp":"-1.00","side":"yes","ts_ms":{}}}"#,
                feed.now / 1000
            ),
            format!(r#"{{"market_ticker":"{ticker}","yes_dollars_fp":[["0.5","9.00"]]}}"#),
        ] {
            seq += 1;
            let kind =
                if text.contains("delta_fp") { "orderbook_delta" } else { "orderbook_snapshot" };
            feed.frame(&format!(r#"{{"type":"{kind}","sid":2,"seq":{seq},"msg":{text}}}"#));
        }
        let gone = number - i64::try_from(OPEN).unwrap();
        if gone >= 0 {
            let tickers = vec![format!("KXCHURN-{gone}")];
            feed.event(1, &SessionEvent::Removed { sid: 2, tickers });
        }
        feed.output.rows.clear();
        feed.output.open.clear();
        let markets = feed.interpreter.sessions[&1].streams[&2].markets.len();
        most = (most.0.max(markets), most.1.max(feed.interpreter.anchors.held()));
    }
    // Snapshots wait 5 s at most, which are 5,000 records here.
    assert!(most.0 <= OPEN + 1 && most.1 <= 5000, "{most:?}");
    assert_eq!(feed.interpreter.sessions.len(), 1);
    assert_eq!(feed.interpreter.sessions[&1].streams.len(), 1);
    assert_eq!(feed.interpreter.counts.integrity_failures, 0);
    assert!(feed.output.resync.is_empty());
}

#[test]
fn a_quiet_market_that_is_audited_for_days_keeps_no_trace_of_it() {
    let mut feed = Feed::new();
    for seq in 1..10_000 {
        feed.now += 1_000_000;
        feed.snapshot(seq, true, r#"["0.5","10.00"]"#);
        let waiting = &feed.interpreter.sessions[&1].streams[&2].markets["T"].waiting;
        // Placed by the clock as long as no frame told the exchange's time: after a minute.
        assert!(waiting.len() <= 62, "{}", waiting.len());
    }
    assert!(feed.anchors().len() > 9_900);
}
