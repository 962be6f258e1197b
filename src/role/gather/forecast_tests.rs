//! The sums of a forecast.

use super::*;
use crate::kalshi::testing::serve_rest;
use crate::log::journal;
use crate::ops::http;
use crate::pg::engine::Choice;
use crate::role::gather::{Markets, Sessions as Wanted};
use crate::role::gather::{poller, upkeep};

fn config() -> Config {
    let second = Duration::from_secs(1);
    Config {
        gatherer_id: "g1".to_owned(),
        api: crate::kalshi::Api {
            rest_url: "http://127.0.0.1:1/x".to_owned(),
            ws_url: String::new(),
            credentials: None,
        },
        database: crate::pg::Target {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: None,
            tls: crate::pg::TlsMode::Disable,
            root_cert: None,
            application_name: String::new(),
        },
        journal: journal::Config { dir: "/nowhere".into(), max_age: second, max_bytes: 1 << 30 },
        sessions: Wanted {
            ticker: 2,
            trade: 2,
            lifecycle: 2,
            orderbook: 144,
            reconnect_max: second,
            user_connections_max: 200,
            user_gatherers: 1,
        },
        markets: Markets {
            multivariate: Multivariate::Exclude,
            series: Vec::new(),
            exclude_series: Vec::new(),
            tickers: Vec::new(),
            exclude_tickers: vec!["*-X".to_owned()],
        },
        audit_period: Some(second * 3600 * 6),
        storage: upkeep::Storage { engine: Choice::Auto, retention: None },
        poller: Some(poller::Config { share: 0.5, interval_min: second * 60 }),
        server: http::Config {
            health: "127.0.0.1:0".parse().unwrap(),
            metrics: "127.0.0.1:0".parse().unwrap(),
        },
    }
}

fn known(markets: usize, tokens: u32) -> Known {
    let limits = Some(Limits { account_tokens: tokens, our_tokens: tokens });
    Known { markets, limits, list_cost: 10, books_cost: 10 }
}

#[test]
fn everything_on_the_smallest_tier() {
    let plan = forecast(&config(), Options::default(), &known(425_000, 200));
    assert_eq!((plan.sessions.markets_min, plan.sessions.markets_max), (2951, 2952));
    assert_eq!((plan.connections.all, plan.commands_per_session), (150, 6));
    assert!((plan.rest.requests - 20.0).abs() < 1e-9 && (plan.rest.poller - 10.0).abs() < 1e-9);
    assert!((plan.seconds.list - 21.25).abs() < 1e-9, "{:?}", plan.seconds);
    assert!((plan.seconds.poller_round.unwrap() - 425.0).abs() < 1e-9);
    assert!((plan.seconds.coverage - (21.25 + 1.2 + 2.952)).abs() < 1e-9, "{:?}", plan.seconds);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    let text = table(&plan);
    assert!(text.contains("2951 to 2952") && text.contains("150 of the user's 200"), "{text}");
}

#[test]
fn three_gatherers_under_one_user_do_not_fit() {
    let options = Options { gatherers: Some(3), ..Options::default() };
    let plan = forecast(&config(), options, &known(425_000, 200));
    let [warning] = plan.warnings.as_slice() else { panic!("{:?}", plan.warnings) };
    assert!(
        warning.contains("450 connections") && warning.contains("orderbook: 60 fits"),
        "{warning}"
    );
    assert_eq!(plan.rest.tokens, 66);
    let mut fitting = config();
    fitting.sessions.orderbook = 60;
    assert!(forecast(&fitting, options, &known(425_000, 200)).warnings.is_empty());
}

#[test]
fn what_is_not_known_or_has_no_room_is_said() {
    let options = Options { markets_max: Some(1000), ..Options::default() };
    let unlearned = Known { limits: None, ..known(150_000, 0) };
    let plan = forecast(&config(), options, &unlearned);
    assert_eq!((plan.sessions.unplaced, plan.sessions.markets_max), (6000, 1000));
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    // A poller that is off takes nothing.
    let off = Config { poller: None, ..config() };
    let plan = forecast(&off, Options::default(), &known(0, 200));
    assert_eq!((plan.rest.poller, plan.seconds.poller_round), (0.0, None));
    assert!(plan.warnings[0].contains("no market"), "{:?}", plan.warnings);
}

#[tokio::test]
async fn markets_are_counted_as_they_would_be_recorded() {
    let api = serve_rest(|request| {
        let name = request.param("status").unwrap();
        let market = |n: &str| {
            format!(r#"{{"ticker":"{name}-{n}","event_ticker":"{name}","status":"active"}}"#)
        };
        (200, format!(r#"{{"markets":[{},{}],"cursor":""}}"#, market("1"), market("X")))
    })
    .await;
    let rest = Arc::new(Rest::new(&api, crate::kalshi::rest::Settings::default()).unwrap());
    assert_eq!(count_markets(&rest, &config()).await.unwrap(), 3);
}
