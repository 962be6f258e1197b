//! The REST client against a server that answers as each test says.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::kalshi::calls::{BOOKS_MAX, ExchangeStatus, Limits, MARKETS, MarketsQuery, ORDERBOOKS};
use crate::kalshi::testing::{Asked, credentials, serve_rest, serve_rest_with_headers, soon};
use crate::model::Ticker;

fn quick() -> Settings {
    Settings {
        tokens_per_second: 100_000,
        backoff_base: Duration::from_millis(1),
        backoff_cap: Duration::from_millis(4),
        ..Settings::default()
    }
}

fn client(api: &Api, settings: Settings) -> Arc<Rest> {
    Arc::new(Rest::new(api, settings).unwrap())
}

const STATUS: &str = r#"{"exchange_active":true,"trading_active":false,"new":1}"#;

#[tokio::test]
async fn requests_are_signed_over_the_path_without_the_query() {
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let log = Arc::clone(&asked);
    let api = serve_rest(move |request| {
        log.lock().unwrap().push(request.clone());
        (200, r#"{"markets":[],"cursor":""}"#.to_owned())
    })
    .await;
    let query = MarketsQuery {
        status: Some("open"),
        mve_filter: Some("exclude"),
        series_ticker: Some("A&B".to_owned()),
        min_updated_ts: Some(7),
    };
    let mut pages = client(&api, quick()).markets(&query);
    assert!(soon("a page", pages.next()).await.unwrap().is_some());
    assert!(pages.next().await.unwrap().is_none());
    let asked = asked.lock().unwrap().remove(0);
    assert_eq!(
        asked.target,
        "/trade-api/v2/markets?limit=1000&status=open&mve_filter=exclude&series_ticker=A%26B&min_updated_ts=7"
    );
    let timestamp = asked.header("kalshi-access-timestamp").unwrap();
    let signature = STANDARD.decode(asked.header("kalshi-access-signature").unwrap()).unwrap();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, credentials().public_key())
        .verify(format!("{timestamp}GET/trade-api/v2/markets").as_bytes(), &signature)
        .unwrap();
}

#[tokio::test]
async fn busy_and_broken_answers_are_tried_again_and_refusals_are_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let api = serve_rest(move |request| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => (429, r#"{"error":"too many requests"}"#.to_owned()),
        1 => (503, "maintenance".to_owned()),
        _ if request.target.ends_with("/exchange/status") => (200, STATUS.to_owned()),
        _ => (404, "no such thing".to_owned()),
    })
    .await;
    let rest = client(&api, quick());
    let status = rest.get::<ExchangeStatus>("/exchange/status", "");
    let status = soon("the status", status).await.unwrap();
    assert!(status.exchange_active && !status.trading_active);
    assert_eq!(count.load(Ordering::Relaxed), 3);
    let error = soon("an answer", rest.get::<ExchangeStatus>("/nothing", "")).await.unwrap_err();
    assert_eq!(error.to_string(), "HTTP 404: no such thing");
    assert_eq!(count.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn attempts_end() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let api = serve_rest(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        (500, "x".repeat(5000))
    })
    .await;
    let settings = Settings { attempts_max: 3, ..quick() };
    let rest = client(&api, settings);
    let pages = &mut rest.markets(&MarketsQuery::default());
    let error = soon("the end", pages.next()).await.unwrap_err();
    assert!(matches!(&error, RestError::Status { code: 500, body, .. } if body.len() == 200));
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_missing_field_is_named_and_a_huge_body_refused() {
    let api = serve_rest(|request| match request.param("limit") {
        Some(_) => (200, "x".repeat(2000)),
        None => (200, r#"{"exchange_active":true}"#.to_owned()),
    })
    .await;
    let rest = client(&api, Settings { body_max: 1000, ..quick() });
    let error = soon("an answer", rest.status()).await.unwrap_err();
    assert!(error.to_string().contains("missing field `trading_active`"), "{error}");
    let mut pages = rest.markets(&MarketsQuery::default());
    let error = soon("an answer", pages.next()).await.unwrap_err();
    assert!(matches!(error, RestError::TooLarge(1000)), "{error}");
}

#[tokio::test]
async fn pages_end_at_the_last_cursor_and_a_cycle_is_an_error() {
    let api = serve_rest(|request| {
        let next = match (request.param("status"), request.param("cursor")) {
            (_, None) => "a%20/b",
            (Some("open"), Some("a%2520%2Fb")) => "",
            (_, Some("a%2520%2Fb")) => "c",
            _ => "a%20/b",
        };
        let market = r#"{"ticker":"A","event_ticker":"A","status":"active"}"#;
        (200, format!(r#"{{"markets":[{market}],"cursor":"{next}"}}"#))
    })
    .await;
    let rest = client(&api, quick());
    let mut pages = rest.markets(&MarketsQuery { status: Some("open"), ..MarketsQuery::default() });
    assert_eq!(soon("a page", pages.next()).await.unwrap().unwrap().markets.len(), 1);
    assert!(soon("a page", pages.next()).await.unwrap().is_some());
    assert!(soon("no page", pages.next()).await.unwrap().is_none());
    let mut pages = rest.markets(&MarketsQuery::default());
    assert!(soon("a page", pages.next()).await.unwrap().is_some());
    assert!(soon("a page", pages.next()).await.unwrap().is_some());
    let error = soon("an error", pages.next()).await.unwrap_err();
    assert!(matches!(error, RestError::CursorRepeats { page: 3 }), "{error}");
    let rest = client(&api, Settings { pages_max: 1, ..quick() });
    let mut pages = rest.markets(&MarketsQuery::default());
    assert!(soon("a page", pages.next()).await.unwrap().is_some());
    assert!(matches!(pages.next().await, Err(RestError::PagesMax(1))));
}

#[tokio::test]
async fn limits_are_learned_in_both_forms_and_without_a_key_not_asked() {
    let api = serve_rest(|_| {
        (
            200,
            r#"{"usage_tier":"expert","read":{"refill_rate":600,"bucket_capacity":1200}}"#
                .to_owned(),
        )
    })
    .await;
    assert_eq!(
        soon("limits", client(&api, quick()).learn_limits()).await.unwrap(),
        limits(600, 600)
    );
    let anonymous = Api { credentials: None, ..api };
    assert_eq!(client(&anonymous, quick()).learn_limits().await.unwrap(), None);
    let flat = serve_rest(|_| (200, r#"{"read_limit":200.0}"#.to_owned())).await;
    assert_eq!(
        soon("limits", client(&flat, quick()).learn_limits()).await.unwrap(),
        limits(200, 200)
    );
    let third = client(&flat, Settings { share: 1.0 / 3.0, ..quick() });
    assert_eq!(soon("limits", third.learn_limits()).await.unwrap(), limits(200, 66));
    assert_eq!(third.tokens_per_second(), 66);
    let odd = serve_rest(|_| (200, r#"{"limits":[]}"#.to_owned())).await;
    let error = soon("limits", client(&odd, quick()).learn_limits()).await.unwrap_err();
    assert!(matches!(error, RestError::Decode(_)));
}

#[tokio::test]
async fn a_closed_port_is_a_transport_error_that_says_why() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let api = Api {
        rest_url: format!("http://127.0.0.1:{port}/trade-api/v2/"),
        ws_url: String::new(),
        credentials: None,
    };
    let settings = Settings { attempts_max: 2, ..quick() };
    let error = soon("an error", client(&api, settings).status()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("refused"), "{error}");
}

#[test]
fn only_loopback_may_be_plain() {
    for (url, usable) in [
        ("http://127.0.0.1:1/x", true),
        ("http://example.com/x", false),
        ("ftp://127.0.0.1/x", false),
        ("/x", false),
        ("not a url", false),
    ] {
        let api = Api { rest_url: url.to_owned(), ws_url: String::new(), credentials: None };
        assert_eq!(Rest::new(&api, Settings::default()).is_ok(), usable, "{url}");
    }
}

#[test]
fn shares_are_whole_tokens() {
    for (tokens, share, expected) in
        [(200, 1.0, 200), (200, 0.5, 100), (200, 1.0 / 3.0, 66), (200, 0.0, 1), (0, 1.0, 1)]
    {
        assert_eq!(share_of(tokens, share), expected, "{tokens} {share}");
    }
    assert_eq!(share_of(1000, f64::NAN), 1);
}

fn limits(account_tokens: u32, our_tokens: u32) -> Option<Limits> {
    Some(Limits { account_tokens, our_tokens })
}

#[tokio::test]
async fn costs_are_learned_by_path() {
    let api = serve_rest(|_| {
        let costs = r#"[{"method":"GET","path":"/trade-api/v2/markets/orderbooks","cost":25},
            {"method":"POST","path":"/markets","cost":100},
            {"method":"GET","path":"/portfolio/orders","cost":2},{"new":1}]"#;
        (200, format!(r#"{{"default_cost":12,"endpoint_costs":{costs}}}"#))
    })
    .await;
    let rest = client(&api, quick());
    assert_eq!((rest.cost(MARKETS), rest.cost(ORDERBOOKS)), (10, 10));
    assert_eq!(soon("costs", rest.learn_costs()).await.unwrap(), 2);
    assert_eq!((rest.cost(MARKETS), rest.cost(ORDERBOOKS)), (12, 25));
    assert_eq!(rest.cost("/portfolio/orders"), 2);
}

#[tokio::test]
async fn a_429_slows_down_and_its_retry_after_is_kept() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let api = serve_rest_with_headers(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => (429, String::new(), r#"{"error":"too many requests"}"#.to_owned()),
        1 => (429, "Retry-After: 1\r\n".to_owned(), String::new()),
        _ => (200, String::new(), r#"{"markets":[]}"#.to_owned()),
    })
    .await;
    let rest = client(&api, quick());
    let mut pages = rest.markets(&MarketsQuery::default());
    let began = std::time::Instant::now();
    assert!(soon("a page", pages.next()).await.unwrap().is_some());
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(rest.tokens_per_second(), 100_000, "what was learned is not forgotten");
}

#[tokio::test]
async fn an_empty_page_may_have_a_next_one() {
    let api = serve_rest(|request| match request.param("cursor") {
        None => (200, r#"{"markets":[],"cursor":"more"}"#.to_owned()),
        Some(_) => {
            (200, r#"{"markets":[{"ticker":"A","event_ticker":"A","status":"active"}]}"#.to_owned())
        }
    })
    .await;
    let mut pages = client(&api, quick()).markets(&MarketsQuery::default());
    assert!(soon("a page", pages.next()).await.unwrap().unwrap().markets.is_empty());
    assert_eq!(soon("a page", pages.next()).await.unwrap().unwrap().markets.len(), 1);
    assert!(pages.next().await.unwrap().is_none());
}

#[tokio::test]
async fn the_date_of_replies_tells_the_exchanges_clock() {
    let api = serve_rest_with_headers(|_| {
        (200, "Date: Wed, 05 Aug 2026 03:45:40 GMT\r\n".to_owned(), STATUS.to_owned())
    })
    .await;
    let ours = Micros::parse_rfc3339("2026-08-05T03:44:40.500Z").unwrap();
    let settings = Settings { clock: Arc::new(move || ours), ..quick() };
    let rest = client(&api, settings);
    assert_eq!(rest.clock_offset_micros(), None);
    soon("the status", rest.status()).await.unwrap();
    assert_eq!(rest.clock_offset_micros(), Some(60_000_000));
}

#[tokio::test]
async fn books_are_asked_for_by_name_and_only_once() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let api = serve_rest(move |request| {
        log.lock().unwrap().push(request.target.clone());
        (503, String::new())
    })
    .await;
    let tickers: Vec<_> =
        (0..BOOKS_MAX).map(|n| Ticker::parse(&format!("A&{n}")).unwrap()).collect();
    let error = soon("an answer", client(&api, quick()).orderbooks(&tickers)).await.unwrap_err();
    assert!(error.is_retryable());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("/trade-api/v2/markets/orderbooks?tickers=A%260&tickers=A%261&"));
    assert_eq!(asked[0].matches("tickers=").count(), BOOKS_MAX);
}
