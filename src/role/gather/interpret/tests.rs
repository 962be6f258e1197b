//! What the journal's records become: rows, stretches, anchors and audits.

mod trouble;

use bytes::Bytes;

use super::*;

const T0: i64 = 1_785_901_540_000_000;

/// Feeds frames and events as a journal would.
struct Feed {
    interpreter: Interpreter,
    output: Output,
    position: u64,
    now: i64,
}

impl Feed {
    fn new() -> Self {
        let mut interpreter = Interpreter::default();
        interpreter.resume(Vec::new());
        Self { interpreter, output: Output::default(), position: 0, now: T0 }
    }

    fn record(&mut self, kind: Kind, session: i64, payload: &str) {
        self.position += 100;
        self.now += 1000;
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let record = JournalRecord { kind, session, received_at: Micros(self.now), payload };
        self.interpreter.read(Position(self.position), &record, &mut self.output);
    }

    fn event(&mut self, session: i64, event: &SessionEvent) {
        self.record(Kind::Event, session, &serde_json::to_string(event).unwrap());
    }

    fn frame(&mut self, text: &str) {
        self.record(Kind::Frame, 1, text);
    }

    fn snapshot(&mut self, seq: i64, reply: bool, yes: &str) {
        let id = if reply { "\"id\":5," } else { "" };
        self.frame(&format!(
            r#"{{"type":"orderbook_snapshot",{id}"sid":2,"seq":{seq},"msg":{{"market_ticker":"T","yes_dollars_fp":[{yes}]}}}}"#
        ));
    }

    fn delta(&mut self, seq: i64, ts: i64, size: &str) {
        let ts = Micros(T0 + ts);
        self.frame(&format!(
            r#"{{"type":"orderbook_delta","sid":2,"seq":{seq},"msg":{{"market_ticker":"T","price_dollars":"0.5","delta_fp":"{size}","side":"yes","ts":"{ts}"}}}}"#
        ));
    }

    /// A change that is read in the moment in which the exchange sends it.
    fn delta_now(&mut self, seq: i64, size: &str) {
        self.delta(seq, self.now + 1000 - T0, size);
    }

    fn coverage(&self) -> Vec<(CoverageEnd, Option<i64>)> {
        let rows = self.output.rows.iter().filter_map(|(_, row)| match row {
            Record::Coverage(coverage) => Some((coverage.end, coverage.records)),
            _ => None,
        });
        rows.collect()
    }

    fn occurrences(&self) -> Vec<i32> {
        let rows = self.output.rows.iter().filter_map(|(_, row)| match row {
            Record::Delta(delta) => Some(delta.occurrence),
            _ => None,
        });
        rows.collect()
    }

    fn anchors(&self) -> Vec<Option<i64>> {
        let rows = self.output.rows.iter().filter_map(|(_, row)| match row {
            Record::Snapshot(snapshot) => Some(snapshot.anchor_ts.map(|at| at.0 - T0)),
            _ => None,
        });
        rows.collect()
    }
}

#[test]
fn identical_changes_are_told_apart_and_a_repeated_number_is_dropped() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta(2, 7, "-1.00");
    feed.delta(3, 7, "-1.00");
    feed.delta(3, 7, "-1.00");
    feed.delta(4, 8, "-1.00");
    assert_eq!(feed.occurrences(), [1, 2, 1]);
    assert_eq!(feed.interpreter.counts.duplicates, 1);
    assert_eq!(feed.anchors(), [Some(6)]);
}

#[test]
fn a_silent_market_is_placed_by_its_own_clock_also_on_a_new_connection() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta(2, 7, "-1.00");
    let ours = feed.now;
    feed.event(1, &SessionEvent::Closed { reason: CloseReason::Disconnect, detail: String::new() });
    // Another market, whose times are of another day, as in a replay of several windows.
    let other = Micros(T0 - 86_400_000_000);
    feed.record(
        Kind::Frame,
        3,
        &format!(
            r#"{{"type":"orderbook_delta","sid":2,"seq":1,"msg":{{"market_ticker":"U","price_dollars":"0.5","delta_fp":"1.00","side":"yes","ts":"{other}"}}}}"#
        ),
    );
    feed.record(
        Kind::Frame,
        4,
        r#"{"type":"orderbook_snapshot","sid":2,"seq":1,"msg":{"market_ticker":"T","yes_dollars_fp":[["0.5","9.00"]]}}"#,
    );
    let anchor = 7 + feed.now - ours;
    for _ in 0..6000 {
        feed.event(4, &SessionEvent::Alive);
    }
    assert_eq!(feed.anchors().last(), Some(&Some(anchor)));
}

#[test]
fn a_gap_ends_every_stretch_and_the_next_snapshot_begins_one() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta(2, 7, "-1.00");
    feed.delta(5, 9, "-1.00");
    assert_eq!(feed.coverage(), [(CoverageEnd::Gap, Some(1))]);
    // Numbered answers belong to the sequence.
    feed.frame(r#"{"type":"ok","id":9,"sid":2,"seq":6,"msg":{}}"#);
    feed.snapshot(7, true, r#"["0.5","3.00"]"#);
    feed.delta(8, 10, "-3.00");
    assert_eq!(feed.interpreter.counts.integrity_failures, 0);
    let closed = SessionEvent::Closed { reason: CloseReason::Stop, detail: String::new() };
    feed.event(1, &closed);
    assert_eq!(feed.coverage().last(), Some(&(CoverageEnd::Stop, Some(1))));
    assert_eq!(feed.occurrences().len(), 3);
}

#[test]
fn the_audit_compares_in_place_and_a_wrong_book_is_an_integrity_failure() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta(2, 7, "-1.00");
    feed.snapshot(3, true, r#"["0.5","9.00"]"#);
    assert_eq!((feed.interpreter.counts.audits, feed.coverage().len()), (1, 0));
    feed.snapshot(4, true, r#"["0.5","8.00"]"#);
    assert_eq!(feed.interpreter.counts.integrity_failures, 1);
    assert_eq!(feed.coverage(), [(CoverageEnd::Integrity, Some(1))]);
    // Below zero: the change is kept, the book is not trusted, a snapshot is asked for.
    feed.delta(5, 9, "-8.01");
    assert_eq!(feed.interpreter.counts.integrity_failures, 2);
    assert_eq!(feed.output.resync, [(1, Ticker::parse("T").unwrap())]);
    // The empty book at a market's close is no contradiction.
    feed.snapshot(6, true, r#"["0.5","1.00"]"#);
    feed.snapshot(7, false, "");
    assert_eq!(feed.interpreter.counts.integrity_failures, 2);
}

#[test]
fn a_silent_subscription_was_seen_until_its_last_frame() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta_now(2, "-1.00");
    let last = feed.now;
    for _ in 0..20 {
        feed.event(1, &SessionEvent::Alive);
    }
    feed.event(1, &SessionEvent::Stalled { sid: 2 });
    let Some((_, Record::Coverage(row))) = feed.output.rows.last() else { panic!() };
    assert_eq!((row.end, row.covered_to), (CoverageEnd::TerminalError, Micros(last)));
    feed.frame(r#"{"type":"unsubscribed","id":9,"sid":2,"seq":3}"#);
    assert_eq!(feed.coverage().len(), 1);
}

#[test]
fn a_crash_ends_what_a_dead_process_left_open() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta(2, 7, "-1.00");
    let open: Vec<OpenChange> = feed.output.open.iter().map(|(_, change)| change.clone()).collect();
    assert_eq!(open.len(), 2);
    // The next process begins behind all of it, knowing only what the table kept.
    let mut next = Feed::new();
    next.interpreter = Interpreter::default();
    next.interpreter.resume(open);
    next.record(Kind::Start, 0, "");
    assert_eq!(next.coverage(), [(CoverageEnd::Crash, None)]);
    assert!(matches!(next.output.open.last(), Some((_, OpenChange { open: None, .. }))));
}

#[test]
fn what_cannot_be_decoded_ends_the_market_and_asks_for_its_book() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.delta(2, 7, "1e9");
    assert_eq!(feed.coverage(), [(CoverageEnd::DecodeError, Some(0))]);
    assert_eq!(feed.output.resync, [(1, Ticker::parse("T").unwrap())]);
    assert_eq!(feed.interpreter.counts.decode_errors.get("orderbook_delta"), Some(&1));
    feed.frame("garbage");
    feed.frame(r#"{"type":"moon_phase","sid":2,"seq":3,"msg":{}}"#);
    assert_eq!(feed.interpreter.counts.unknown_types, 1);
    assert_eq!(feed.interpreter.counts.gaps, 0);
}

#[test]
fn both_copies_of_a_global_channel_make_one_row() {
    let mut feed = Feed::new();
    for (session, sid) in [(1, 4), (2, 9)] {
        let subscribed =
            format!(r#"{{"id":1,"type":"subscribed","msg":{{"channel":"trade","sid":{sid}}}}}"#);
        feed.record(Kind::Frame, session, &subscribed);
    }
    for (session, sid) in [(1, 4), (2, 9)] {
        let trade = format!(
            r#"{{"type":"trade","sid":{sid},"seq":1,"msg":{{"trade_id":"d91bc706-ee49-470d-82d8-11418bda6fed","market_ticker":"T","yes_price_dollars":"0.36","count_fp":"1.00","taker_outcome_side":"no","ts_ms":1785901540001}}}}"#
        );
        feed.record(Kind::Frame, session, &trade);
    }
    let trades = feed.output.rows.iter().filter(|(_, row)| matches!(row, Record::Trade(_)));
    assert_eq!((trades.count(), feed.interpreter.counts.copies), (1, 1));
    let closed = SessionEvent::Closed { reason: CloseReason::Disconnect, detail: String::new() };
    feed.event(2, &closed);
    assert_eq!(feed.coverage(), [(CoverageEnd::Disconnect, Some(1))]);
}

#[test]
fn a_terminal_error_ends_the_subscription_and_its_sid_may_come_again() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    feed.frame(r#"{"type":"error","sid":2,"seq":2,"msg":{"code":25,"msg":"buffer overflow"}}"#);
    assert_eq!(feed.coverage(), [(CoverageEnd::Overload, Some(0))]);
    feed.snapshot(1, false, r#"["0.5","4.00"]"#);
    assert_eq!((feed.interpreter.counts.gaps, feed.interpreter.counts.resets), (0, 0));
    // "Unknown sid" answers a command, and yet says that the subscription is gone.
    feed.frame(r#"{"type":"error","id":7,"sid":2,"msg":{"code":7,"msg":"unknown sid"}}"#);
    assert_eq!(feed.coverage().last(), Some(&(CoverageEnd::TerminalError, Some(0))));
}

#[test]
fn a_busy_market_gets_a_snapshot_after_so_many_changes() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    let max = i64::from(CHANGES_WITHOUT_SNAPSHOT_MAX);
    for number in 1..max {
        feed.delta(1 + number, number, if number % 2 == 0 { "-1.00" } else { "1.00" });
    }
    assert!(feed.output.resync.is_empty());
    feed.delta(1 + max, max, "1.00");
    let asked = [(1, Ticker::parse("T").unwrap())];
    assert_eq!(feed.output.resync, asked);
    feed.delta(2 + max, 1 + max, "-1.00");
    assert_eq!(feed.output.resync, asked, "asked for once");
}

#[test]
fn what_was_sent_after_the_last_frame_is_not_covered() {
    let mut feed = Feed::new();
    feed.snapshot(1, false, r#"["0.5","10.00"]"#);
    // Each frame is read a millisecond after the one before; these left the exchange far earlier.
    feed.delta(2, 1_900, "1.00");
    feed.delta(3, 2_100, "1.00");
    feed.event(1, &SessionEvent::Closed { reason: CloseReason::Stop, detail: String::new() });
    let rows = feed.output.rows.iter().filter_map(|(_, row)| match row {
        Record::Coverage(coverage) => Some(coverage.covered_to.0 - T0),
        _ => None,
    });
    assert_eq!(rows.collect::<Vec<_>>(), [2_100]);
}
