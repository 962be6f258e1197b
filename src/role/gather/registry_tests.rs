//! The registry, without a clock or a network.

use super::*;

const GRACE: Duration = Duration::from_secs(60);

fn ticker(name: &str) -> Ticker {
    Ticker::parse(name).unwrap()
}

fn market(name: &str) -> Market {
    Market {
        ticker: ticker(name),
        event_ticker: name.to_owned(),
        status: "active".to_owned(),
        open_time: None,
        close_time: None,
        mve_collection_ticker: None,
        notional: None,
    }
}

fn notice(name: &str, event_type: &str) -> MarketNotice {
    MarketNotice {
        ticker: ticker(name),
        event_type: event_type.to_owned(),
        event_ticker: None,
        open_time: None,
        close_time: None,
        multivariate: false,
    }
}

fn names(set: &BTreeSet<Ticker>) -> Vec<&str> {
    set.iter().map(Ticker::as_str).collect()
}

fn list(registry: &mut Registry, names: &[&str], now: Instant) -> usize {
    registry.list_begins();
    registry.page(names.iter().map(|name| market(name)).collect(), Micros(0), now);
    registry.list_ends(now)
}

#[test]
fn patterns() {
    for (pattern, text, expected) in [
        ("KXGOLD15M", "KXGOLD15M", true),
        ("KXGOLD15M", "KXGOLD15MX", false),
        ("KXGOLD*", "KXGOLD15M", true),
        ("*15M", "KXGOLD15M", true),
        ("KX*15*", "KXGOLD15M", true),
        ("KX*15*15M", "KXGOLD15M", false),
        ("*", "", true),
        ("A*A", "A", false),
        ("**B", "AB", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn filters_by_series_status_and_kind() {
    let filter = Filter {
        multivariate: false,
        series: vec!["KX*".to_owned()],
        exclude_series: vec!["KXB*".to_owned()],
        ..Filter::default()
    };
    let mut registry = Registry::new(filter, GRACE);
    let combo = Market { mve_collection_ticker: Some("C".to_owned()), ..market("KXC-1") };
    let over = Market { status: "finalized".to_owned(), ..market("KXD-1") };
    let new = Market { status: "brand_new".to_owned(), ..market("KXE-1") };
    registry.list_begins();
    let all = vec![market("KXA-1"), market("KXB-1"), market("X-1"), combo, over, new];
    registry.page(all, Micros(0), Instant::now());
    assert_eq!(registry.list_ends(Instant::now()), 2);
    registry.notice(
        MarketNotice { multivariate: true, ..notice("KXF-1", "created") },
        Micros(0),
        Instant::now(),
    );
    let Changes { added, removed } = registry.take_changes().unwrap();
    assert_eq!((names(&added), removed.len()), (vec!["KXA-1", "KXE-1"], 0));
    assert_eq!(registry.take_changes(), None);
}

#[test]
fn a_market_must_be_missing_from_two_lists() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    list(&mut registry, &["A", "B"], now);
    assert_eq!(registry.take_changes().unwrap().added.len(), 2);
    list(&mut registry, &["A"], now);
    registry.expire(Micros(0), now + GRACE);
    list(&mut registry, &["A", "B"], now);
    list(&mut registry, &["A"], now);
    registry.expire(Micros(0), now + GRACE);
    assert_eq!(registry.take_changes(), None, "missing once, twice, but not in a row");
    list(&mut registry, &["A"], now);
    registry.expire(Micros(0), now);
    assert_eq!(registry.take_changes(), None, "within the grace");
    registry.expire(Micros(0), now + GRACE);
    let Changes { added, removed } = registry.take_changes().unwrap();
    assert_eq!((added.len(), names(&removed)), (0, vec!["B"]));
}

#[test]
fn what_a_notice_adds_while_a_list_is_read_stays() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    registry.list_begins();
    registry.page(vec![market("A")], Micros(0), now);
    registry.notice(notice("B", "created"), Micros(0), now);
    registry.list_ends(now);
    registry.expire(Micros(0), now + GRACE);
    assert_eq!(names(&registry.take_changes().unwrap().added), ["A", "B"]);
    // A list that fails half way removes nothing.
    for _ in 0..5 {
        registry.list_begins();
        registry.page(vec![market("A")], Micros(0), now);
    }
    registry.expire(Micros(0), now + GRACE * 9);
    assert_eq!(registry.count(), 2);
}

#[test]
fn settled_markets_go_after_the_grace_unless_they_come_back() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    list(&mut registry, &["A", "B", "C"], now);
    registry.take_changes().unwrap();
    registry.notice(notice("A", "settled"), Micros(0), now);
    registry.notice(notice("B", "determined"), Micros(0), now);
    registry.notice(notice("C", "metadata_updated"), Micros(0), now);
    registry.notice(notice("D", "metadata_updated"), Micros(0), now);
    // A list read before the settlement still shows A.
    list(&mut registry, &["A", "B", "C"], now);
    registry.notice(notice("B", "activated"), Micros(0), now);
    registry.expire(Micros(0), now + GRACE);
    let Changes { added, removed } = registry.take_changes().unwrap();
    assert_eq!((added.len(), names(&removed)), (0, vec!["A"]));
    assert_eq!(registry.count(), 2);
}

#[test]
fn a_determination_before_the_close_waits_for_the_settlement() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    let close = Micros::from_secs(1000);
    let created = MarketNotice { close_time: Some(close), ..notice("A", "created") };
    registry.notice(created, Micros(0), now);
    registry.notice(notice("A", "determined"), Micros(close.0 - 1), now);
    registry.expire(Micros(0), now + GRACE);
    assert_eq!(registry.count(), 1);
    registry.notice(notice("A", "determined"), close, now);
    registry.expire(Micros(0), now + GRACE);
    assert_eq!(registry.count(), 0);
}

#[test]
fn single_markets_are_allowed_and_denied() {
    let patterns = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let mut registry = Registry::new(
        Filter {
            series: patterns(&["KXA"]),
            tickers: patterns(&["KXB-1-*"]),
            exclude_tickers: patterns(&["*-T9"]),
            ..Filter::default()
        },
        GRACE,
    );
    let now = Instant::now();
    list(&mut registry, &["KXA-1", "KXA-1-T9", "KXB-1-T1", "KXB-2-T1", "KXB-1-T9"], now);
    registry.notice(notice("KXB-1-T2", "created"), Micros(0), now);
    registry.notice(notice("KXB-3-T2", "created"), Micros(0), now);
    let changes = registry.take_changes().unwrap();
    assert_eq!(names(&changes.added), ["KXA-1", "KXB-1-T1", "KXB-1-T2"]);
}

#[test]
fn what_two_pages_show_is_one_market() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    assert_eq!(list(&mut registry, &["A", "B", "B", "C", "A"], now), 3);
    assert_eq!(registry.count(), 3);
}

#[test]
fn a_list_of_changes_repairs_missed_notices() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    list(&mut registry, &["A", "B", "C"], now);
    registry.take_changes().unwrap();
    let status = |name: &str, status: &str, close: i64| Market {
        status: status.to_owned(),
        close_time: Some(Micros::from_secs(close)),
        ..market(name)
    };
    let changed = vec![
        status("A", "finalized", 50),
        status("B", "closed", 50),
        status("C", "determined", 500),
        market("D"),
        status("E", "finalized", 50),
    ];
    registry.page(changed, Micros::from_secs(100), now);
    registry.expire(Micros::from_secs(100), now + GRACE);
    let changes = registry.take_changes().unwrap();
    assert_eq!((names(&changes.added), names(&changes.removed)), (vec!["D"], vec!["A"]));
}

#[test]
fn closing_is_the_clocks_to_tell() {
    let mut registry = Registry::new(Filter::default(), GRACE);
    let now = Instant::now();
    let at = |seconds: i64| Micros::from_secs(seconds);
    let closing = |name: &str, close: i64| Market { close_time: Some(at(close)), ..market(name) };
    registry.list_begins();
    let markets = vec![closing("A", 6000), closing("B", 6000), closing("C", 6000), market("D")];
    registry.page(markets, at(5000), now);
    registry.list_ends(now);
    registry.take_changes().unwrap();
    // B's close is put off before it comes.
    let later = MarketNotice { close_time: Some(at(9000)), ..notice("B", "close_date_updated") };
    registry.notice(later, at(5900), now);
    registry.expire(at(6800), now);
    assert_eq!(registry.take_changes(), None, "what closed stays for a while");
    // A list that still shows C as open knows better than the time that it names.
    registry.page(vec![closing("C", 6000)], at(6950), now);
    registry.expire(at(7020), now);
    let changes = registry.take_changes().unwrap();
    assert_eq!((changes.added.len(), names(&changes.removed)), (0, vec!["A"]));
    registry.expire(at(9900 + 120), now);
    assert_eq!(names(&registry.take_changes().unwrap().removed), ["B"]);
    assert_eq!(registry.count(), 2);
}

/// 425,000 markets; prints what they take: `--no-capture`.
#[test]
fn hundreds_of_thousands_of_markets_are_small_and_quick() {
    assert!(size_of::<Entry>() <= 16, "{}", size_of::<Entry>());
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut registry = Registry::new(Filter::default(), GRACE);
    let (now, before) = (Instant::now(), resident());
    registry.list_begins();
    for page in 0..425_u32 {
        let close = Some(Micros::from_secs(1_800_000_000 + i64::from(page) * 60));
        let name = |number: u32| format!("KXSERIES{page}-26AUG050800-T{number}.99");
        let markets = (0..1000).map(|n| Market { close_time: close, ..market(&name(n)) });
        registry.page(markets.collect(), Micros(0), now);
    }
    assert_eq!(registry.list_ends(now), 425_000);
    assert_eq!(registry.take_changes().unwrap().added.len(), 425_000);
    let bytes = resident().saturating_sub(before) / 425_000;
    let began = std::time::Instant::now();
    for second in 0..1000_i64 {
        registry.expire(Micros::from_secs(second), now);
    }
    let per_tick = began.elapsed() / 1000;
    println!("{bytes} bytes a market, tickers included; {per_tick:?} a tick without changes");
    assert!(bytes < 400, "{bytes}");
    assert!(per_tick < Duration::from_millis(1), "{per_tick:?}");
}

#[test]
fn another_filter_drops_what_it_does_not_take_and_nothing_else() {
    let now = Instant::now();
    let mut registry = Registry::new(Filter::default(), GRACE);
    list(&mut registry, &["KXA-1", "KXB-1", "KXB-2"], now);
    registry.take_changes().unwrap();
    registry.set_filter(Filter {
        series: vec!["KXB".to_owned(), "KXC".to_owned()],
        exclude_tickers: vec!["*-2".to_owned()],
        ..Filter::default()
    });
    let changes = registry.take_changes().unwrap();
    assert_eq!((names(&changes.added), names(&changes.removed)), (vec![], vec!["KXA-1", "KXB-2"]));
    list(&mut registry, &["KXA-1", "KXB-1", "KXB-2", "KXC-1"], now);
    let changes = registry.take_changes().unwrap();
    assert_eq!((names(&changes.added), names(&changes.removed)), (vec!["KXC-1"], vec![]));
}

#[test]
fn a_pattern_that_describes_no_market_is_named() {
    let now = Instant::now();
    let filter = Filter {
        series: vec!["KXA".to_owned(), "kxa".to_owned()],
        tickers: vec!["KXB-*".to_owned(), "KXC".to_owned()],
        exclude_series: vec!["KXZ".to_owned()],
        ..Filter::default()
    };
    let mut registry = Registry::new(filter, GRACE);
    list(&mut registry, &["KXA-1", "KXB-1", "KXC-1"], now);
    assert_eq!(registry.unmatched(), ["kxa", "KXC"]);
}
