//! `kalshi gather --plan`: what a configuration will do at the exchange, without connecting to a
//! stream: sessions, requests, the time until everything is covered, and what does not fit.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::listing::{CHANGES_INTERVAL, FULL_INTERVAL, STATUSES, read_list};
use super::registry::Registry;
use super::sessions::STAGGER;
use super::{Config, Multivariate};
use crate::kalshi::calls::{BOOKS_MAX, Limits, MARKETS, MarketsQuery, ORDERBOOKS};
use crate::kalshi::rest::Rest;
use crate::kalshi::session;
use crate::model::Micros;

/// Markets of one page of a list.
const PAGE_MARKETS: usize = 1000;
/// The status, asked twice a minute.
const STATUS_PER_SECOND: f64 = 1.0 / 30.0;
/// From a command to its answer, with the exchange far away. Assumed.
const COMMAND_SECONDS: f64 = 0.2;
/// First snapshots that one connection receives in a second. Assumed.
const SNAPSHOTS_PER_SECOND: f64 = 1000.0;

/// What a person may ask for beside the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Gatherers that share the user; the configuration's when not given.
    pub gatherers: Option<u16>,
    /// The most markets that the exchange takes in one subscription; it says so only when there are
    /// too many.
    pub markets_max: Option<usize>,
    pub json: bool,
}

/// What is known before the sums.
#[derive(Debug, Clone)]
struct Known {
    markets: usize,
    limits: Option<Limits>,
    list_cost: u32,
    books_cost: u32,
}

/// The forecast. Keys are stable; more may come.
#[derive(Debug, Serialize)]
pub struct Forecast {
    pub gatherer_id: String,
    /// Markets that the configuration asks for.
    pub markets: usize,
    pub sessions: Sessions,
    pub connections: Connections,
    pub rest: Requests,
    pub commands_per_session: usize,
    pub seconds: Seconds,
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Sessions {
    pub lifecycle: usize,
    pub ticker: usize,
    pub trade: usize,
    pub orderbook: usize,
    /// Markets of an order-book session.
    pub markets_min: usize,
    pub markets_mean: f64,
    pub markets_max: usize,
    /// Markets that no session has room for.
    pub unplaced: usize,
}

#[derive(Debug, Serialize)]
pub struct Connections {
    pub gatherer: usize,
    pub gatherers: usize,
    pub all: usize,
    pub allowed: usize,
}

/// Requests a second of this gatherer.
#[derive(Debug, Serialize)]
pub struct Requests {
    /// Read tokens a second of the account; the smallest tier's when it was not asked.
    pub account_tokens: u32,
    /// The part of this gatherer.
    pub tokens: u32,
    pub requests: f64,
    /// Complete lists, spread over the time between two of them.
    pub lists: f64,
    pub changes: f64,
    pub status: f64,
    pub poller: f64,
    /// Snapshots of the audit come over the sessions.
    pub audit: f64,
}

#[derive(Debug, Serialize)]
pub struct Seconds {
    /// One complete list.
    pub list: f64,
    /// Until the last session has begun to connect.
    pub connect: f64,
    pub commands: f64,
    pub snapshots: f64,
    /// From the start until every market has a book.
    pub coverage: f64,
    /// Until the poller has been round once; none when it is off.
    pub poller_round: Option<f64>,
}

/// Lists the markets, asks for the account's limits, and prints the forecast on stdout.
///
/// # Errors
/// When the exchange does not answer, or stdout is closed.
pub async fn run(config: Config, options: Options) -> Result<()> {
    use std::io::Write as _;
    let rest = Arc::new(Rest::new(&config.api, config.rest_settings())?);
    let limits = rest.learn_limits().await.context("ask for the account's limits")?;
    // Without them every request counts as the usual one.
    rest.learn_costs().await.ok();
    let markets = count_markets(&rest, &config).await?;
    let (list_cost, books_cost) = (rest.cost(MARKETS), rest.cost(ORDERBOOKS));
    let forecast = forecast(&config, options, &Known { markets, limits, list_cost, books_cost });
    let text = if options.json {
        serde_json::to_string(&forecast).context("write the plan as JSON")?
    } else {
        table(&forecast)
    };
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

async fn count_markets(rest: &Arc<Rest>, config: &Config) -> Result<usize> {
    let include = config.markets.multivariate == Multivariate::Include;
    let of = |status| MarketsQuery {
        status: Some(status),
        mve_filter: (!include).then_some("exclude"),
        ..MarketsQuery::default()
    };
    let (to, mut pages) = mpsc::channel(2);
    let queries = STATUSES.into_iter().map(of).collect();
    let list = read_list(Arc::clone(rest), queries, false, to);
    // People see that something happens; a pipe gets the result alone.
    let progress = if std::io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    progress.enable_steady_tick(Duration::from_millis(100));
    let mut registry = Registry::new(config.markets.filter(), Duration::ZERO);
    let merge = async {
        let mut listed = 0;
        while let Some(page) = pages.recv().await {
            listed += page.markets.len();
            registry.page(page.markets, Micros::now(), Instant::now());
            progress.set_message(format!("{listed} markets listed, {} recorded", registry.count()));
        }
    };
    let (result, ()) = tokio::join!(list, merge);
    progress.finish_and_clear();
    result.context("list markets")?;
    Ok(registry.count())
}

fn forecast(config: &Config, options: Options, known: &Known) -> Forecast {
    let sessions = &config.sessions;
    let gatherers = usize::from(options.gatherers.unwrap_or(sessions.user_gatherers)).max(1);
    let slots = usize::from(sessions.orderbook).max(1);
    let room = options.markets_max.map_or(known.markets, |max| max.saturating_mul(slots));
    let placed = known.markets.min(room);
    // The planner fills the emptiest session first, so a fresh plan differs by one market at most.
    let (least, most) = (placed / slots, placed.div_ceil(slots));
    let commands = most.div_ceil(session::Settings::default().command_batch);

    let smallest = crate::kalshi::rest::Settings::default().tokens_per_second;
    let account_tokens = known.limits.map_or(smallest, |limits| limits.account_tokens);
    let share = 1.0 / float(gatherers);
    let tokens = crate::kalshi::rest::share_of(account_tokens, share);
    let list_requests = float(known.markets.div_ceil(PAGE_MARKETS).max(STATUSES.len()));
    let per_second = |cost: u32| f64::from(tokens) / f64::from(cost.max(1));
    let list_seconds = list_requests / per_second(known.list_cost);
    let rounds = float(known.markets.div_ceil(BOOKS_MAX));
    let polled = config.poller.map(|poller| {
        let most = per_second(known.books_cost) * poller.share;
        // No market is polled more often than it may.
        let wanted = rounds / poller.interval_min.as_secs_f64();
        (most.min(wanted), rounds / most)
    });
    let connect = STAGGER.as_secs_f64() * float(sessions.count());
    let commands_seconds = float(commands) * COMMAND_SECONDS;
    let snapshots = float(most) / SNAPSHOTS_PER_SECOND;
    let all = sessions.count() * gatherers;
    let mut forecast = Forecast {
        gatherer_id: config.gatherer_id.clone(),
        markets: known.markets,
        sessions: Sessions {
            lifecycle: sessions.lifecycle.into(),
            ticker: sessions.ticker.into(),
            trade: sessions.trade.into(),
            orderbook: slots,
            markets_min: least,
            markets_mean: float(placed) / float(slots),
            markets_max: most,
            unplaced: known.markets - placed,
        },
        connections: Connections {
            gatherer: sessions.count(),
            gatherers,
            all,
            allowed: sessions.user_connections_max.into(),
        },
        rest: Requests {
            account_tokens,
            tokens,
            requests: per_second(known.list_cost),
            lists: list_requests / FULL_INTERVAL.as_secs_f64(),
            changes: 1.0 / CHANGES_INTERVAL.as_secs_f64(),
            status: STATUS_PER_SECOND,
            poller: polled.map_or(0.0, |(requests, _)| requests),
            audit: 0.0,
        },
        commands_per_session: commands,
        seconds: Seconds {
            list: list_seconds,
            connect,
            commands: commands_seconds,
            snapshots,
            coverage: list_seconds.max(connect) + commands_seconds + snapshots,
            poller_round: polled.map(|(_, round)| round),
        },
        warnings: Vec::new(),
    };
    forecast.warnings = warnings(&forecast, known.limits.is_some());
    forecast
}

fn warnings(forecast: &Forecast, is_learned: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let Connections { gatherer, gatherers, all, allowed } = forecast.connections;
    if all > allowed {
        let fits = allowed / gatherers;
        let others = gatherer - forecast.sessions.orderbook;
        let advice = match fits.checked_sub(others).filter(|books| *books > 0) {
            Some(books) => format!("sessions.orderbook: {books} fits"),
            None => "not even the channels of all markets fit".to_owned(),
        };
        warnings.push(format!(
            "{gatherers} x {gatherer} sessions need {all} connections and the user has {allowed}: \
             {advice}, or give each gatherer a user of its own"
        ));
    }
    if forecast.markets == 0 {
        warnings.push("no market is what `markets` asks for".to_owned());
    }
    if forecast.sessions.unplaced > 0 {
        let unplaced = forecast.sessions.unplaced;
        warnings.push(format!("{unplaced} markets have no session: raise sessions.orderbook"));
    }
    if !is_learned {
        warnings.push("the account's limits are not known: the smallest tier's are assumed".into());
    }
    let rest = &forecast.rest;
    let used = rest.lists + rest.changes + rest.status + rest.poller;
    if used > rest.requests {
        warnings.push(format!(
            "{used:.1} REST requests a second are wanted and {:.1} are there: lower poller.share",
            rest.requests
        ));
    }
    if forecast.seconds.poller_round.is_some_and(|seconds| seconds > 3600.0) {
        warnings.push("the poller needs more than an hour for one round".to_owned());
    }
    warnings
}

fn table(forecast: &Forecast) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let Forecast { sessions, connections, rest, seconds, .. } = forecast;
    let mut row = |name: &str, text: String| {
        table.add_row([name.to_owned(), text]);
    };
    row("gatherer", forecast.gatherer_id.clone());
    row("markets", forecast.markets.to_string());
    row(
        "sessions",
        format!(
            "{} (lifecycle {}, ticker {}, trade {}, orderbook {})",
            connections.gatherer,
            sessions.lifecycle,
            sessions.ticker,
            sessions.trade,
            sessions.orderbook
        ),
    );
    row(
        "markets a session",
        format!(
            "{} to {}, mean {:.1}; {} without one",
            sessions.markets_min, sessions.markets_max, sessions.markets_mean, sessions.unplaced
        ),
    );
    row(
        "connections",
        format!(
            "{} of the user's {} ({})",
            connections.all,
            connections.allowed,
            match connections.gatherers {
                1 => "1 gatherer".to_owned(),
                gatherers => format!("{gatherers} gatherers"),
            }
        ),
    );
    row(
        "REST budget",
        format!(
            "{:.1} requests/s ({} of the account's {} tokens/s)",
            rest.requests, rest.tokens, rest.account_tokens
        ),
    );
    row(
        "REST use",
        format!(
            "lists {:.2}/s, changes {:.2}/s, status {:.2}/s, poller {:.2}/s, audit 0 (in the streams)",
            rest.lists, rest.changes, rest.status, rest.poller
        ),
    );
    row("commands a session", forecast.commands_per_session.to_string());
    row(
        "time to coverage",
        format!(
            "{} (list {} beside connecting {}, commands {}, snapshots {})",
            time(seconds.coverage),
            time(seconds.list),
            time(seconds.connect),
            time(seconds.commands),
            time(seconds.snapshots)
        ),
    );
    if let Some(round) = seconds.poller_round {
        row("poller's round", time(round));
    }
    let mut text = table.to_string();
    for warning in &forecast.warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Seconds for a person: tenths where they matter.
fn time(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts of markets have far fewer than 52 bits")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
