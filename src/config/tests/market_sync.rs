//! Whether and how series, events and markets are copied.

use std::time::Duration;

use super::*;

const BASE: &str = "deduplicator_id: d1
production: { host: p, database: d, user: u }
gatherers: [ { id: a, database: { host: h, database: d, user: u } } ]
";

fn load(more: &str) -> Loaded<dedup::Config> {
    Place::new().deduplicator(&format!("{BASE}{more}")).unwrap_or_else(|e| panic!("{e}"))
}

fn problems(more: &str) -> Vec<String> {
    let place = Place::new();
    let error = place.deduplicator(&format!("{BASE}{more}")).map(|_| ()).unwrap_err();
    error.problems().iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
}

#[test]
fn markets_are_copied_where_an_exchange_is_given() {
    let without = load("");
    assert!(without.config.markets.is_none());
    assert!(without.notices[0].contains("not copied"), "{:?}", without.notices);
    let with = load("api: { rest_url: https://h/v2 }\n");
    assert!(with.notices.is_empty(), "{:?}", with.notices);
    let markets = with.config.markets.unwrap();
    assert_eq!(markets.api.rest_url, "https://h/v2");
    assert!(markets.api.credentials.is_none() && !markets.multivariate);
    assert_eq!(markets.refresh_interval, Duration::from_secs(300));
    assert_eq!(markets.full_interval, Duration::from_secs(6 * 3600));
    let off = load("api: { rest_url: https://h/v2 }\nmarkets: { enabled: false }\n");
    assert!(off.config.markets.is_none() && off.notices.is_empty());
    assert!(load("markets: { enabled: no }\n").config.markets.is_none());
}

#[test]
fn every_key_can_be_given() {
    let text = "api: { rest_url: https://h/v2 }\n\
                markets: { refresh_interval: 10s, full_interval: 1h, multivariate: include }\n";
    let markets = load(text).config.markets.unwrap();
    assert_eq!(markets.refresh_interval, Duration::from_secs(10));
    assert_eq!(markets.full_interval, Duration::from_secs(3600));
    assert!(markets.multivariate);
    let former = load("api: { rest_url: https://h/v2, market_sync_interval: 7m }\n");
    assert_eq!(former.config.markets.unwrap().refresh_interval, Duration::from_secs(420));
}

#[test]
fn what_does_not_fit_together_is_said() {
    for (text, wanted) in [
        ("markets: { enabled: true }\n", "api: is required by `markets.enabled`"),
        ("api: { key_id: k, rest_url: https://h/v2 }\n", "is required beside `key_id`"),
        ("api: { market_sync_interval: 5m }\n", "api.rest_url: is required"),
        ("api: { rest_url: http://kalshi.com/v2 }\n", "is not encrypted"),
        (
            "api: { rest_url: https://h/v2, market_sync_interval: 5m }\nmarkets: { refresh_interval: 5m }\n",
            "is given beside `api.market_sync_interval`",
        ),
        ("api: { rest_url: https://h/v2 }\nmarkets: { refresh_interval: 0s }\n", "interval"),
        ("api: { rest_url: https://h/v2 }\nmarkets: { full: 1h }\n", "markets.full"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(wanted), "{text}: {found:?}");
    }
}
