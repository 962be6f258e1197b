//! What is judged a hole, and what is told of it.

use super::super::coverage::testing::stretch;
use super::*;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

fn roster(names: &[&str]) -> Roster {
    Roster { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Roster::default() }
}

fn judged(listed: Option<&Listed>, stretches: Vec<Stretch>) -> Found {
    let roster = roster(&["g1", "g2"]);
    let judge = Judge {
        roster: &roster,
        whole: Span::new(0, 10 * HOUR),
        recorded_from: HOUR,
        min_duration: 0,
        maintenance: &[Span::new(8 * HOUR, 9 * HOUR)],
    };
    let seen = Seen { ticker: "T".to_owned(), channel: "orderbook_delta".to_owned(), stretches };
    let mut found = Found::default();
    judge.judge(&seen, listed, &mut found);
    found
}

fn listed(open: i64, close: i64) -> Listed {
    let ticker = "T".to_owned();
    Listed { ticker, open, close, is_open: true, is_multivariate: false }
}

fn holes_of(found: &Found) -> Vec<(i64, i64, &str)> {
    let hole = |f: &Finding| f.from_ts.zip(f.to_ts);
    let cause = |f: &Finding| f.cause.clone().unwrap_or_default();
    let told = found.findings.listed.iter();
    let mut list = Vec::new();
    for finding in told {
        let (from, to) = hole(finding).unwrap();
        let cause: &str = Box::leak(cause(finding).into_boxed_str());
        list.push((from / SECOND, to / SECOND, cause));
    }
    list
}

#[test]
fn one_gatherer_covers_for_the_other() {
    let market = listed(0, 5 * HOUR);
    let seen =
        vec![stretch(0, HOUR, 3 * HOUR, "gap"), stretch(1, HOUR + SECOND, 5 * HOUR, "continues")];
    let found = judged(Some(&market), seen);
    assert_eq!(holes_of(&found), []);
    let day = &found.depths["orderbook_delta"][&0];
    let expected = [0, 2 * HOUR + SECOND, 2 * HOUR - SECOND].map(i128::from);
    assert_eq!(day[..], expected);
    let missed = &found.own[&(0, "gap".to_owned())];
    assert_eq!(*missed, (1, i128::from(2 * HOUR)));
}

#[test]
fn a_hole_in_all_is_found_with_the_cause_of_the_last_and_an_estimate() {
    let market = listed(0, 5 * HOUR);
    let mut seen = vec![
        stretch(0, HOUR, 2 * HOUR, "disconnect"),
        stretch(1, HOUR, 2 * HOUR + SECOND, "overload"),
        stretch(0, 2 * HOUR + 4 * SECOND, 5 * HOUR, "continues"),
        stretch(1, 2 * HOUR + 5 * SECOND, 5 * HOUR, "continues"),
    ];
    for stretch in &mut seen {
        stretch.records = Some(stretch.span.micros() / SECOND * 2);
    }
    let found = judged(Some(&market), seen);
    assert_eq!(holes_of(&found), [(7201, 7204, "overload")]);
    let finding = &found.findings.listed[0];
    assert_eq!((finding.rows, finding.seconds), (Some(6), Some(3.0)));
    assert!(finding.detail.contains("g1: disconnect at 1970-01-01T02:00:00"), "{}", finding.detail);
}

#[test]
fn a_market_that_nobody_subscribed_to_is_found_and_a_short_wait_is_not() {
    let market = listed(2 * HOUR, 3 * HOUR);
    let found = judged(Some(&market), vec![]);
    assert_eq!(holes_of(&found), [(7200, 10800, "not subscribed")]);
    assert_eq!(found.findings.listed[0].kind, "never_covered");
    let seen = vec![stretch(0, 2 * HOUR + 2 * SECOND, 3 * HOUR, "unsubscribed")];
    let found = judged(Some(&market), seen);
    assert_eq!((holes_of(&found), found.late), (vec![], 1));
    let seen = vec![stretch(0, 2 * HOUR + 90 * SECOND, 3 * HOUR, "unsubscribed")];
    assert_eq!(holes_of(&judged(Some(&market), seen)), [(7200, 7290, "not subscribed")]);
}

#[test]
fn what_proves_nothing_covers_nothing() {
    let market = listed(2 * HOUR, 4 * HOUR);
    let seen = vec![
        stretch(0, 2 * HOUR, 3 * HOUR, "integrity"),
        stretch(0, 3 * HOUR, 4 * HOUR, "unsubscribed"),
    ];
    assert_eq!(holes_of(&judged(Some(&market), seen)), [(7200, 10800, "wrong book")]);
}

#[test]
fn maintenance_and_a_market_that_left_are_no_findings() {
    let market = listed(7 * HOUR, 10 * HOUR);
    let seen = vec![
        stretch(0, 7 * HOUR, 8 * HOUR + SECOND, "disconnect"),
        stretch(0, 9 * HOUR - SECOND, 10 * HOUR, "continues"),
    ];
    let found = judged(Some(&market), seen);
    assert_eq!(holes_of(&found), []);
    assert!(found.excused_micros > 0);
    let seen = vec![stretch(0, 2 * HOUR, 3 * HOUR, "unsubscribed")];
    let market = Listed { is_open: false, ..listed(2 * HOUR, 5 * HOUR) };
    assert_eq!(holes_of(&judged(Some(&market), seen.clone())), []);
    let market = listed(2 * HOUR, 5 * HOUR);
    assert_eq!(holes_of(&judged(Some(&market), seen)), [(10800, 18000, "unsubscribed")]);
}

#[test]
fn a_market_in_no_list_is_judged_between_its_first_and_last_moment() {
    let seen = vec![stretch(0, 2 * HOUR, 3 * HOUR, "gap"), stretch(1, 4 * HOUR, 5 * HOUR, "stop")];
    assert_eq!(holes_of(&judged(None, seen)), [(10800, 14400, "gap")]);
}

#[test]
fn a_market_that_closed_while_recording_began_is_waited_for_like_the_others() {
    let found = judged(Some(&listed(0, HOUR + 20 * SECOND)), vec![]);
    assert_eq!((holes_of(&found), found.late), (vec![], 1));
    let found = judged(Some(&listed(0, HOUR + 90 * SECOND)), vec![]);
    assert_eq!(holes_of(&found), [(3600, 3690, "not subscribed")]);
    // One that came and went while everything ran was lost.
    let found = judged(Some(&listed(2 * HOUR, 2 * HOUR + 20 * SECOND)), vec![]);
    assert_eq!(holes_of(&found), [(7200, 7220, "not subscribed")]);
}

#[test]
fn sessions_that_stop_together_leave_no_hole_in_a_market_that_closed_meanwhile() {
    let end = 10 * HOUR;
    let market = Listed { is_open: false, ..listed(9 * HOUR, end - 10 * SECOND) };
    let seen = |to| vec![stretch(0, 9 * HOUR, to, "stop")];
    let found = judged(Some(&market), seen(end - 30 * SECOND));
    assert_eq!((holes_of(&found), found.late), (vec![], 1));
    let found = judged(Some(&market), seen(end - 70 * SECOND));
    assert_eq!(holes_of(&found), [(35_930, 35_990, "restart")]);
}
