//! Connects the crate kalshi-trade-rs, as it is published, to the simulated exchange: subscribes to
//! the four channels of market data, folds the books and compares them with REST.
//!
//!     kalshi-client-check REST_URL KEY_ID PRIVATE_KEY_FILE
//!
//! Prints one JSON object: what was received, and `problems`, empty when all agree.

mod redirect;
mod seen;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use kalshi_trade_rs::models::GetTradesParams;
use kalshi_trade_rs::ws::{Channel, ConnectStrategy, KalshiStreamClient, KalshiStreamHandle};
use kalshi_trade_rs::{Environment, KalshiClient, KalshiConfig};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use redirect::Terminator;
use seen::{Book, Seen};

/// Messages that may wait for the task that counts them.
const BUFFER: usize = 100_000;
/// What must have come of each kind before the comparison.
const DELTAS_MIN: u64 = 1_000;
const TRADES_MIN: usize = 20;
const TICKERS_MIN: u64 = 100;
/// Books and trades that are compared with REST.
const COMPARED_MAX: usize = 40;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rest_url, key_id, key_file] = arguments.as_slice() else {
        bail!("usage: kalshi-client-check REST_URL KEY_ID PRIVATE_KEY_FILE");
    };
    let exchange = rest_url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let exchange: SocketAddr = exchange.context("no http:// address")?.parse()?;
    let key = std::fs::read_to_string(key_file).context("read the key")?;

    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("authority.pem");
    let host = host_of(Environment::Demo.ws_url())?;
    ensure!(host == host_of(Environment::Demo.base_url())?, "REST and WebSocket are one host");
    let terminator = Terminator::new(host, &authority)?;
    // SAFETY: there is one thread yet.
    unsafe { std::env::set_var("SSL_CERT_FILE", &authority) };
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(async {
        terminator.start(exchange).await?;
        check(key_id, &key).await
    })?;
    println!("{report}");
    Ok(())
}

fn host_of(url: &str) -> Result<&str> {
    let rest = url.split_once("://").context("a scheme")?.1;
    rest.split('/').next().context("a host")
}

async fn check(key_id: &str, key: &str) -> Result<Value> {
    let config = KalshiConfig::new(Environment::Demo, key_id, key)?;
    check_refusal(key).await?;
    let rest = KalshiClient::new(config.clone())?;
    let tickers = list(&rest).await?;

    let client =
        KalshiStreamClient::connect_with_options(&config, ConnectStrategy::Simple, BUFFER).await?;
    let mut handle = client.handle();
    let seen = Arc::new(Seen::new());
    let receiver = tokio::spawn(receive(client.handle(), Arc::clone(&seen)));

    // In two parts, so that the second is added to the first's subscription.
    let names: Vec<&str> = tickers.iter().map(String::as_str).collect();
    let (first, second) = names.split_at(names.len() / 2);
    handle.subscribe(Channel::OrderbookDelta, first).await?;
    handle.subscribe(Channel::OrderbookDelta, second).await?;
    let subscribed = handle.markets(Channel::OrderbookDelta).len();
    ensure!(subscribed == names.len(), "{subscribed} markets subscribed of {}", names.len());
    for channel in [Channel::Trade, Channel::Ticker, Channel::MarketLifecycle] {
        handle.subscribe(channel, &[]).await?;
    }
    let subscriptions = handle.list_subscriptions_remote().await?.len();

    seen.wait("all four channels", |state| {
        state.snapshots >= names.len() as u64
            && state.deltas >= DELTAS_MIN
            && state.trades.len() >= TRADES_MIN
            && state.tickers >= TICKERS_MIN
            && !state.lifecycle.is_empty()
    })
    .await?;
    let (mut equal_books, mut equal_levels) = (0, 0);
    for ticker in names.iter().take(COMPARED_MAX) {
        equal_levels += compare_book(&rest, &seen, ticker).await?;
        equal_books += 1;
    }
    let equal_trades = compare_trades(&rest, &seen).await?;
    handle.unsubscribe_all(Channel::Trade).await?;
    seen.wait("the end of a subscription", |state| state.unsubscribed == 1).await?;

    receiver.abort();
    client.shutdown().await?;
    let state = seen.lock();
    Ok(json!({
        "client": "kalshi-trade-rs 0.6.0",
        "markets": names.len(),
        "subscriptions": subscriptions,
        "snapshots": state.snapshots,
        "deltas": state.deltas,
        "trades": state.trades.len(),
        "tickers": state.tickers,
        "lifecycle": state.lifecycle,
        "events": state.events,
        "books_equal_to_rest": equal_books,
        "levels_equal_to_rest": equal_levels,
        "trades_equal_to_rest": equal_trades,
        "numbers_of_replies": state.skipped,
        "problems": state.problems,
    }))
}

/// A key that the exchange does not know is refused at the handshake.
async fn check_refusal(key: &str) -> Result<()> {
    let unknown = "00000000-0000-4000-8000-000000000000";
    let config = KalshiConfig::new(Environment::Demo, unknown, key)?;
    match KalshiStreamClient::connect(&config).await {
        Ok(_) => bail!("a handshake under an unknown key is accepted"),
        Err(error) => ensure!(error.to_string().contains("401"), "refused by {error}"),
    }
    Ok(())
}

/// What the crate can read of REST, and the tickers of the open markets.
///
/// The crate's models of a market and of an account's limits are those of an older description:
/// they require fields (`response_price_units`, `fractional_trading_enabled`, `read_limit`) that the
/// current one has not, nor did production's answers of August 2026. The tickers are therefore read
/// from JSON, with the crate's signature.
async fn list(rest: &KalshiClient) -> Result<Vec<String>> {
    let status = rest.get_exchange_status().await.context("get the status")?;
    ensure!(status.exchange_active && status.trading_active, "the exchange is closed");
    let schedule = rest.get_exchange_schedule().await.context("get the schedule")?.schedule;
    ensure!(!schedule.standard_hours.is_empty(), "no hours");
    let events = rest.get_events().await.context("get the events")?.events;
    let event = events.first().context("no events")?;
    let series = rest.get_series(&event.series_ticker).await.context("get a series")?.series;
    ensure!(series.ticker == event.series_ticker, "another series");
    let all: Value = rest.http().get("/markets?limit=1000&status=open").await?;
    let markets = all["markets"].as_array().context("no markets")?;
    let tickers = markets.iter().map(|market| market["ticker"].as_str().map(str::to_owned));
    tickers.collect::<Option<_>>().context("a market without a ticker")
}

/// Passes on what the client delivers, until it ends.
async fn receive(mut handle: KalshiStreamHandle, seen: Arc<Seen>) {
    loop {
        match handle.update_receiver.recv().await {
            Ok(update) => seen.take(&update),
            Err(RecvError::Lagged(count)) => {
                seen.note(format!("{count} messages not read in time"))
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The book that REST shows must be one of those that the stream went through between the request
/// and some time after the answer. Gives the number of its levels.
async fn compare_book(rest: &KalshiClient, seen: &Seen, ticker: &str) -> Result<usize> {
    {
        let mut state = seen.lock();
        let now = state.books.get(ticker).context("no book")?.clone();
        state.watched.insert(ticker.to_owned(), vec![now]);
    }
    let answer = rest.get_orderbook(ticker).await.context("get a book")?;
    let shown = Book::from_rest(&answer.orderbook_fp.context("no orderbook_fp")?)?;
    seen.wait(&format!("the book of {ticker} as REST shows it"), |state| {
        state.watched.get(ticker).is_some_and(|books| books.contains(&shown))
    })
    .await?;
    Ok(shown.levels())
}

/// What REST lists of the newest trades is what the stream brought, field by field.
async fn compare_trades(rest: &KalshiClient, seen: &Seen) -> Result<usize> {
    let params = GetTradesParams::new().limit(1000);
    let listed = rest.get_trades_with_params(params).await.context("get the trades")?.trades;
    let state = seen.lock();
    let mut equal = 0;
    for trade in state.trades.iter().rev().take(COMPARED_MAX) {
        // One that came after the answer is not in it.
        let Some(found) = listed.iter().find(|found| found.trade_id == trade.trade_id) else {
            continue;
        };
        ensure!(
            found.ticker == trade.market_ticker
                && found.count_fp == trade.count_fp
                && found.yes_price_dollars == trade.yes_price_dollars
                && found.no_price_dollars == trade.no_price_dollars
                && format!("{:?}", found.taker_side) == format!("{:?}", trade.taker_side),
            "{found:?} in REST, {trade:?} in the stream"
        );
        equal += 1;
    }
    Ok(equal)
}
