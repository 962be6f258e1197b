//! The markets of a session, without exchange and clock.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ticker(name: &str) -> Ticker {
    Ticker::parse(name).unwrap()
}

fn set(names: &[&str]) -> Arc<BTreeSet<Ticker>> {
    Arc::new(names.iter().map(|name| ticker(name)).collect())
}

fn markets(now: Instant) -> Markets {
    Markets::new(SECOND * 10, SECOND * 60, now)
}

fn add_all(markets: &mut Markets, now: Instant) {
    let tickers = markets.take_adds(usize::MAX);
    markets.added(&tickers, now);
}

fn asked(markets: &mut Markets, now: Instant) -> Vec<Ticker> {
    markets.take_snapshots(9, now).map(|(_, tickers)| tickers).unwrap_or_default()
}

fn audited(markets: &mut Markets, max: usize, now: Instant) -> Vec<String> {
    let taken = markets.take_audits(max, now).map(|(_, tickers)| tickers).unwrap_or_default();
    taken.iter().map(ToString::to_string).collect()
}

#[test]
fn a_market_is_as_small_as_it_is_said_to_be() {
    assert_eq!(size_of::<Market>() + size_of::<Ticker>(), 32);
}

#[test]
fn a_market_wanted_again_while_it_is_deleted_is_added_after() {
    let now = Instant::now();
    let mut markets = markets(now);
    markets.want(&set(&["A", "B"]), now);
    add_all(&mut markets, now);
    markets.want(&set(&["B"]), now);
    assert_eq!(markets.take_deletes(9), [ticker("A")]);
    markets.want(&set(&["A", "B"]), now);
    assert_eq!(markets.take_adds(9), []);
    markets.deleted(&ticker("A"));
    assert_eq!(markets.take_adds(9), [ticker("A")]);
    assert_eq!(markets.held(), 2);
}

#[test]
fn a_market_dropped_while_it_is_added_is_deleted_after() {
    let now = Instant::now();
    let mut markets = markets(now);
    markets.want(&set(&["A"]), now);
    assert_eq!(markets.take_adds(9).len(), 1);
    markets.want(&set(&[]), now);
    assert_eq!(markets.take_deletes(9), []);
    markets.added(&[ticker("A")], now);
    assert_eq!(markets.take_deletes(9), [ticker("A")]);
    markets.deleted(&ticker("A"));
    assert_eq!((markets.held(), markets.counts()), (0, Counts::default()));
    assert!(markets.markets.is_empty() && markets.batches.is_empty());
}

#[test]
fn a_snapshot_is_asked_for_once_and_again_with_growing_patience() {
    let start = Instant::now();
    let mut markets = markets(start);
    markets.want(&set(&["A", "B"]), start);
    add_all(&mut markets, start);
    markets.snapshot("A", start);
    assert_eq!(markets.expire(start + SECOND * 9), 0);
    let mut now = start + SECOND * 10;
    assert_eq!(markets.expire(now), 1);
    assert_eq!(asked(&mut markets, now), [ticker("B")]);
    markets.doubt_all();
    assert_eq!(asked(&mut markets, now), [ticker("A")], "B's is on its way");
    markets.snapshot("A", now);
    now += SECOND * 10;
    assert_eq!(markets.expire(now), 1);
    assert_eq!(asked(&mut markets, now), [], "the second time it waits");
    now += SECOND * 10;
    assert_eq!(markets.expire(now), 0);
    assert_eq!(asked(&mut markets, now), [ticker("B")]);
    // A third time in vain: it is deleted and added again, and the others stay as they are.
    now += SECOND * 10;
    assert_eq!(markets.expire(now), 1);
    assert_eq!(markets.take_deletes(9), [ticker("B")]);
    markets.deleted(&ticker("B"));
    assert_eq!(markets.take_adds(9), [ticker("B")]);
    markets.added(&[ticker("B")], now);
    assert_eq!((markets.counts().with_book, markets.held()), (1, 2));
    markets.snapshot("B", now);
    for _ in 0..2 {
        markets.doubt(&ticker("A"));
    }
    assert_eq!(asked(&mut markets, now), [ticker("A")]);
    assert!(markets.take_deletes(9).is_empty());
}

#[test]
fn a_slow_exchange_is_not_asked_twice() {
    let mut now = Instant::now();
    let mut markets = markets(now);
    let names: Vec<String> = (0..20).map(|number| format!("M{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    markets.want(&set(&names), now);
    add_all(&mut markets, now);
    // One snapshot in nine seconds: the last comes after three minutes.
    for name in &names {
        now += SECOND * 9;
        assert_eq!(markets.expire(now), 0);
        markets.snapshot(name, now);
    }
    assert_eq!(asked(&mut markets, now), []);
    assert_eq!(markets.counts().with_book, 20);
}

#[test]
fn a_refused_market_waits_and_a_lost_subscription_starts_over() {
    let now = Instant::now();
    let mut markets = markets(now);
    markets.want(&set(&["A", "B", "C"]), now);
    for ticker in markets.take_adds(9) {
        match ticker.as_str() {
            "A" => markets.refuse(&ticker, now),
            _ => markets.added(&[ticker], now),
        }
    }
    assert_eq!(markets.counts().refused, 1);
    markets.lost();
    assert_eq!(markets.held(), 0);
    assert_eq!(markets.take_adds(9).len(), 2);
    assert_eq!(markets.expire(now + SECOND * 60), 0);
    assert_eq!(markets.take_adds(9), [ticker("A")]);
}

#[test]
fn the_audit_takes_what_waits_longest_and_leaves_alone_what_is_in_doubt() {
    let start = Instant::now();
    let mut markets = markets(start);
    markets.want(&set(&["A", "B", "C", "D"]), start);
    assert_eq!(audited(&mut markets, 9, start), [""; 0]);
    add_all(&mut markets, start);
    for (after, name) in ["C", "A", "B"].into_iter().enumerate() {
        markets.snapshot(name, start + SECOND * u32::try_from(after).unwrap());
    }
    // D waits for its first snapshot, and its age counts.
    assert_eq!(markets.counts().oldest, Some(Duration::ZERO));
    let now = start + SECOND * 5;
    assert_eq!(audited(&mut markets, 2, now), ["C", "A"]);
    assert_eq!(audited(&mut markets, 2, now), ["B"], "two are on their way");
    assert_eq!(markets.counts().with_book, 3, "an audit puts no book in doubt");
    for name in ["A", "B", "C", "D"] {
        markets.snapshot(name, now);
    }
    assert_eq!(markets.counts().oldest, Some(SECOND * 5));
    markets.doubt(&ticker("A"));
    assert_eq!(audited(&mut markets, 9, now), ["B", "C", "D"]);
    assert_eq!(asked(&mut markets, now), [ticker("A")]);
    // Unanswered: each asks again for itself, and is in no audit before that.
    assert_eq!(markets.expire(now + SECOND * 10), 4);
    assert_eq!(audited(&mut markets, 9, now + SECOND * 10), [""; 0]);
    assert_eq!(asked(&mut markets, now + SECOND * 10).len(), 4);
}

#[test]
fn a_new_plan_and_a_new_connection_do_not_begin_the_audit_anew() {
    let start = Instant::now();
    let mut markets = markets(start);
    markets.want(&set(&["A", "B"]), start);
    add_all(&mut markets, start);
    markets.snapshot("A", start + SECOND);
    markets.snapshot("B", start + SECOND * 2);
    let now = start + SECOND * 60;
    markets.want(&set(&["A", "B", "N"]), now);
    add_all(&mut markets, now);
    markets.snapshot("N", now);
    assert_eq!(markets.counts().oldest, Some(SECOND));
    assert_eq!(audited(&mut markets, 1, now), ["A"]);
    markets.snapshot("A", now);
    markets.lost();
    assert_eq!(markets.counts().oldest, Some(SECOND * 2), "B was not compared since");
    add_all(&mut markets, now);
    for name in ["A", "B", "N"] {
        markets.snapshot(name, now + SECOND);
    }
    assert_eq!(markets.counts().oldest, Some(SECOND * 61));
}

#[test]
fn a_request_that_the_exchange_did_not_take_is_nobodys_fault() {
    let now = Instant::now();
    let mut markets = markets(now);
    markets.want(&set(&["A"]), now);
    add_all(&mut markets, now);
    markets.snapshot("A", now);
    for _ in 0..9 {
        markets.doubt(&ticker("A"));
        let (batch, _) = markets.take_snapshots(9, now).unwrap();
        markets.ask_again(batch);
        assert!(!markets.is_awaited(batch));
    }
    assert!(markets.take_deletes(9).is_empty());
    assert_eq!(asked(&mut markets, now), [ticker("A")]);
}
