//! The lists of REST after somebody changed what they say: edits by hand, the historical cut-off,
//! disputes and scalar results, and which filters go together.

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::market::{Outcome, Status};
use super::super::schedule::{determine, settle};
use super::live::{PATIENCE, Running};
use super::*;

async fn control(running: &Running, call: &str, body: &str) -> Value {
    let url = format!("{}/{call}", running.exchange.control_url());
    let (status, answer) = running.call("POST", &url, false, body).await;
    assert_eq!(status, StatusCode::OK, "{call}: {answer}");
    answer
}

async fn listed(running: &Running, filter: &str) -> Vec<Value> {
    let page = running.get(&format!("/markets?limit=1000&mve_filter=exclude{filter}")).await;
    page["markets"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_market_says_what_it_was_told_to() {
    let running = Running::generated(12, 100.0).await;
    let all = listed(&running, "").await;
    let ticker = all[3]["ticker"].as_str().unwrap().to_owned();
    let since = Micros::now().0 / 1_000_000;
    let call = format!("market?ticker={ticker}&touched=false");
    control(&running, &call, r#"{"status":"brand_new","more":[1]}"#).await;
    let one = running.get(&format!("/markets/{ticker}")).await;
    assert_eq!(
        (&one["market"]["status"], &one["market"]["more"]),
        (&json!("brand_new"), &json!([1]))
    );
    assert_eq!(one["market"]["updated_time"], all[3]["updated_time"], "nothing tells of it");
    control(&running, &format!("market?ticker={ticker}"), r#"{"title":"x"}"#).await;
    let updated = listed(&running, &format!("&min_updated_ts={since}")).await;
    assert!(updated.iter().any(|market| market["title"] == "x"), "{updated:?}");
    control(&running, &format!("market?ticker={ticker}&listed=false"), "").await;
    assert_eq!(listed(&running, "").await.len(), all.len() - 1);
    assert!(listed(&running, &format!("&tickers={ticker}")).await.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_markets_become_history_behind_the_cutoff() {
    let running = Running::generated(12, 100.0).await;
    let price = Price::parse("0.37").unwrap();
    running.exchange.hub.with(|venue| {
        determine(venue, id(4), Outcome::Scalar(price), Micros::now());
        settle(venue, id(4), Micros::now());
        venue.catalog.set_status(id(5), Status::Disputed, Micros::now());
    });
    let all = listed(&running, "").await;
    let settled = all.iter().find(|market| market["status"] == "finalized").unwrap();
    assert_eq!(
        (&settled["result"], &settled["settlement_value_dollars"]),
        (&json!("scalar"), &json!("0.3700"))
    );
    let closed = listed(&running, "&status=closed").await;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["status"], "disputed");
    let shown = running.exchange.listed_markets(false);
    let settled = shown.iter().find(|market| market.status == "finalized").unwrap();
    assert_eq!((settled.result, settled.settlement_micros), ("scalar", Some(370_000)));
    assert!(
        running.get("/historical/markets?limit=10").await["markets"].as_array().unwrap().is_empty()
    );
    control(&running, "cutoff?settled_ts=4000000000", "").await;
    assert_eq!(listed(&running, "").await.len(), all.len() - 1);
    let history = running.get("/historical/markets?limit=10").await;
    assert_eq!(history["markets"][0]["status"], "finalized");
    let cutoff = running.get("/historical/cutoff").await;
    assert!(cutoff["market_settled_ts"].as_str().unwrap().starts_with("2096-"), "{cutoff}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trades_become_history_behind_the_cutoff() {
    let running = Running::generated(12, 2_000.0).await;
    running.exchange.publish();
    timeout(PATIENCE, running.exchange.finished()).await.expect("the flow ends");
    let page = async |list: &str| -> Vec<Value> {
        let page = running.get(&format!("/{list}/trades?limit=1000")).await;
        assert_eq!(page["cursor"], "", "all on one page");
        page["trades"].as_array().unwrap().clone()
    };
    let all = page("markets").await;
    assert!(all.len() > 20 && page("historical").await.is_empty(), "{}", all.len());
    let created = |trade: &Value| Micros::parse_rfc3339(trade["created_time"].as_str().unwrap());
    // Whole seconds, as the exchange's cut-off is: all of this run may be of one, so the next one.
    let newest = created(&all[0]).unwrap().0 / 1_000_000;
    control(&running, &format!("cutoff?trades_ts={}", newest + 1), "").await;
    assert_eq!(page("historical").await, all);
    assert!(page("markets").await.is_empty());
    control(&running, &format!("cutoff?trades_ts={newest}"), "").await;
    let (recent, historical) = (page("markets").await, page("historical").await);
    assert_eq!([&recent[..], &historical[..]].concat(), all);
    let cutoff = running.get("/historical/cutoff").await;
    let cutoff = Micros::parse_rfc3339(cutoff["trades_created_ts"].as_str().unwrap()).unwrap();
    assert!(!recent.is_empty() && recent.iter().all(|trade| created(trade).unwrap() >= cutoff));
    assert!(historical.iter().all(|trade| created(trade).unwrap() < cutoff));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_listed_alone_and_multivariate_events_apart() {
    let running = Running::generated(12, 100.0).await;
    for filter in ["status=open", "tickers=A", "mve_filter=only", "min_close_ts=1"] {
        let url = format!("{}/markets?min_updated_ts=1&{filter}", running.exchange.rest_url());
        let (status, answer) = running.call("GET", &url, false, "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{filter}: {answer}");
    }
    let count = |page: &Value| page["events"].as_array().unwrap().len();
    assert_eq!(count(&running.get("/events?limit=200").await), 2);
    assert_eq!(count(&running.get("/events/multivariate?limit=200").await), 1);
    running.stop().await;
}
