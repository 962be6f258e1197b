//! A small exchange for tests: lists that a test changes while they are read, three items a page, and
//! everything that was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::Config;
use crate::kalshi::Api;
use crate::kalshi::testing::{Asked, serve_rest};
use crate::model::Micros;

const PAGE: usize = 3;

/// What happens at a request, before it is answered.
type Hook = Box<dyn FnMut(&mut Lists, &Asked) -> Option<u16> + Send>;

#[derive(Default)]
pub struct Lists {
    pub series: Vec<Value>,
    pub events: Vec<Value>,
    pub multivariate_events: Vec<Value>,
    pub markets: Vec<Value>,
    pub cutoff: String,
    /// Paths with their queries, in order.
    pub asked: Vec<String>,
    /// May change the lists, or answer with a status of its own.
    pub hook: Option<Hook>,
    /// Every cursor is the one that was asked for.
    pub cursors_repeat: bool,
}

/// The exchange, shared with whoever serves it.
#[derive(Clone)]
pub struct Listing {
    lists: Arc<Mutex<Lists>>,
    api: Api,
}

impl Listing {
    pub async fn start(markets: usize) -> Self {
        let lists = Lists {
            series: vec![json!({"ticker": "S", "title": "Series", "fee_multiplier": 0.5,
                                "last_updated_ts": "2026-08-05T00:00:00Z"})],
            events: vec![json!({"event_ticker": "S-E", "series_ticker": "S", "title": "Event",
                                "mutually_exclusive": true, "strike_date": null,
                                "last_updated_ts": "2026-08-05T00:00:00Z"})],
            markets: (0..markets).map(market).collect(),
            cutoff: "2021-01-01T00:00:00Z".to_owned(),
            ..Lists::default()
        };
        let lists = Arc::new(Mutex::new(lists));
        let served = Arc::clone(&lists);
        let mut api = serve_rest(move |asked| served.lock().unwrap().answer(asked)).await;
        api.credentials = None;
        Self { lists, api }
    }

    pub fn config(&self) -> Config {
        Config {
            api: self.api.clone(),
            refresh_interval: Duration::from_millis(300),
            full_interval: Duration::from_secs(3600),
            multivariate: false,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap()
    }

    /// Changes a market, as the exchange does: it counts as updated now.
    pub fn change(&self, ticker: &str, fields: Value) {
        let mut lists = self.lock();
        let market = lists.markets.iter_mut().find(|m| m["ticker"] == ticker).unwrap();
        let market = market.as_object_mut().unwrap();
        market.extend(fields.as_object().unwrap().clone());
        market.insert("updated_time".to_owned(), Micros::now().to_string().into());
    }

    /// Lets something happen at each request.
    pub fn on_request(&self, hook: impl FnMut(&mut Lists, &Asked) -> Option<u16> + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// What was asked of a path, without the path.
    pub fn asked(&self, path: &str) -> Vec<String> {
        let lists = self.lock();
        let of = lists.asked.iter().filter_map(|asked| asked.strip_prefix(path));
        of.map(str::to_owned).collect()
    }
}

/// The n-th market, created and updated some days ago.
pub fn market(n: usize) -> Value {
    json!({
        "ticker": format!("M-{n:03}"), "event_ticker": "S-E", "market_type": "binary",
        "title": format!("Market {n}"), "status": "active", "result": "",
        "created_time": "2026-08-05T00:00:00Z", "updated_time": "2026-08-05T00:00:00Z",
        "open_time": "2026-08-05T00:00:00Z", "close_time": "2099-01-01T00:00:00Z",
        "last_price_dollars": "0.4801", "volume_fp": "46.02", "notional_value_dollars": "1.0000",
    })
}

fn updated(item: &Value) -> Micros {
    let text = item["updated_time"].as_str().or(item["last_updated_ts"].as_str());
    Micros::parse_rfc3339(text.unwrap()).unwrap()
}

impl Lists {
    fn answer(&mut self, asked: &Asked) -> (u16, String) {
        let target = asked.target.strip_prefix("/trade-api/v2").unwrap().to_owned();
        self.asked.push(target.clone());
        if let Some(mut hook) = self.hook.take() {
            let status = hook(self, asked);
            self.hook.get_or_insert(hook);
            if let Some(status) = status {
                return (status, r#"{"error":"as the test wants"}"#.to_owned());
            }
        }
        let path = target.split('?').next().unwrap();
        let (field, items) = match path {
            "/exchange/status" => {
                return (200, r#"{"exchange_active":true,"trading_active":true}"#.to_owned());
            }
            "/historical/cutoff" => {
                return (200, json!({"market_settled_ts": self.cutoff}).to_string());
            }
            "/series" => ("series", &self.series),
            "/events" => ("events", &self.events),
            "/events/multivariate" => ("events", &self.multivariate_events),
            "/markets" => ("markets", &self.markets),
            _ => return (404, String::new()),
        };
        let since = asked.param("min_updated_ts").map(|secs| secs.parse().unwrap());
        let names = asked.param("tickers").map(|names| names.split(',').collect::<Vec<_>>());
        let exclude = asked.param("mve_filter") == Some("exclude");
        let fits = |item: &&Value| {
            since.is_none_or(|since| updated(item) >= Micros::from_secs(since))
                && names.as_ref().is_none_or(|names| {
                    names.contains(&item["ticker"].as_str().unwrap_or_default())
                })
                && (!exclude || item.get("mve_collection_ticker").is_none())
        };
        let all: Vec<&Value> = items.iter().filter(fits).collect();
        if path == "/series" {
            return (200, json!({ field: all }).to_string());
        }
        let offset: usize = asked.param("cursor").map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<&Value> = all.iter().skip(offset).take(PAGE).copied().collect();
        let next = offset + PAGE;
        let cursor = if self.cursors_repeat && offset > 0 {
            offset.to_string()
        } else if next < all.len() {
            next.to_string()
        } else {
            String::new()
        };
        (200, json!({ field: page, "cursor": cursor }).to_string())
    }
}

/// How often each request was asked.
pub fn counted(asked: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for one in asked {
        *counts.entry(one.as_str()).or_default() += 1;
    }
    counts
}
