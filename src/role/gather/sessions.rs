//! The gatherer's sessions: one task a slot, fed by the plan, all writing into the journal.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::decoder::ResyncSenders;
use super::health::Vitals;
use super::listing::{self, RegistryState};
use super::metrics::Metrics;
use super::plan::Plan;
use super::registry::Filter;
use super::{Config, Multivariate};
use crate::kalshi::rest::{self, Rest};
use crate::kalshi::session::{
    self, FrameSink, Links, Payload, SessionEvent, SessionState, Settings, Slot, Wants,
};
use crate::log::journal::{Journal, Kind, Position};
use crate::model::{Channel, Micros};

/// Requests for snapshots on the way to one session: one for each of a few thousand markets would
/// be a gap, for which the session asks by itself.
const RESYNC_WAITING_MAX: usize = 256;
/// Lifecycle notices on the way to the registry; the exchange sends a few a second.
const NOTICES_WAITING_MAX: usize = 4096;
/// How often the sessions' states are summed up.
const SUM_INTERVAL: Duration = Duration::from_millis(200);
/// How often the exchange is asked whether it pauses.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);
/// Sessions start this far apart.
const STAGGER: Duration = Duration::from_millis(40);

/// The journal as a session sees it.
struct JournalSink(Journal);

impl FrameSink for JournalSink {
    async fn frame(&self, session: i64, received_at: Micros, payload: Payload) {
        self.0.append(Kind::Frame, session, received_at, payload.as_bytes()).await;
    }

    async fn event(&self, session: i64, at: Micros, event: SessionEvent) {
        // Events are plain structures of ours; their JSON cannot fail.
        let text = serde_json::to_vec(&event).unwrap_or_default();
        self.0.append(Kind::Event, session, at, &text).await;
    }
}

/// Runs every session and the registry until `shutdown`, then closes the journal and says where it
/// ends.
///
/// # Errors
/// When the REST client cannot be made from the configuration.
pub async fn run(
    config: Config,
    journal: Journal,
    resync: ResyncSenders,
    metrics: Arc<Metrics>,
    vitals: Arc<watch::Sender<Vitals>>,
    end: watch::Sender<Option<Position>>,
    shutdown: CancellationToken,
) -> Result<()> {
    let rest = match Rest::new(&config.api, rest::Settings::default()) {
        Ok(rest) => Arc::new(rest),
        Err(error) => {
            // The decoder waits for the journal's end.
            end.send_replace(Some(journal.close().await));
            return Err(error).context("make REST client");
        }
    };
    let (notices, heard) = mpsc::channel(NOTICES_WAITING_MAX);
    let sink = Arc::new(JournalSink(journal.clone()));
    let mut running = JoinSet::new();
    let mut states = Vec::new();
    let mut books = Vec::new();
    for (number, slot) in slots(&config).into_iter().enumerate() {
        let (state, seen) = watch::channel(SessionState::default());
        let (ask, asked) = mpsc::channel(RESYNC_WAITING_MAX);
        resync.lock().unwrap_or_else(PoisonError::into_inner).insert(slot.name.clone(), ask);
        let is_book = slot.channel == Channel::OrderbookDelta;
        let first = if is_book { Wants::Markets(Arc::default()) } else { Wants::All };
        let (want, wants) = watch::channel(first);
        if is_book {
            books.push(want.clone());
        }
        states.push((slot.channel, seen));
        let links = Links { wants, resync: asked, notices: notices.clone(), state };
        let stagger = STAGGER * u32::try_from(number).unwrap_or_default();
        let settings = Settings {
            start_delay: stagger,
            backoff_cap: config.sessions.reconnect_max,
            ..Settings::default()
        };
        let (api, sink, stop) = (config.api.clone(), Arc::clone(&sink), shutdown.clone());
        running.spawn(async move {
            session::run(slot, api, links, sink, settings, stop).await;
            // The sender stays until the session ends: it may not see its wants close.
            drop(want);
        });
    }
    info!(sessions = states.len(), "sessions started");
    let of = |wanted: Channel| -> Vec<watch::Receiver<SessionState>> {
        let of_channel = states.iter().filter(|(channel, _)| *channel == wanted);
        of_channel.map(|(_, state)| state.clone()).collect()
    };
    let (plan_sender, plan) = watch::channel(Arc::new(Plan::empty(books.len())));
    let (registry_state, known) = watch::channel(RegistryState::default());
    let registry = listing::Links {
        notices: heard,
        lifecycle: of(Channel::Lifecycle),
        orderbooks: of(Channel::OrderbookDelta),
        plan: plan_sender,
        state: registry_state,
    };
    let settings = listing::Settings {
        filter: Filter {
            multivariate: config.markets.multivariate == Multivariate::Include,
            series: config.markets.series.clone(),
            exclude_series: config.markets.exclude_series.clone(),
        },
        slots: books.len(),
        ..listing::Settings::default()
    };
    let ((), (), (), (), ended, ()) = tokio::join!(
        listing::run(Arc::clone(&rest), registry, settings, shutdown.clone()),
        distribute(plan, books, shutdown.clone()),
        watch_maintenance(rest, Arc::clone(&vitals), shutdown.clone()),
        sum_up(states, known, metrics, vitals, shutdown.clone()),
        all_end(running, shutdown.clone()),
        async {
            shutdown.cancelled().await;
            journal.drain();
        },
    );
    let last = journal.close().await;
    end.send_replace(Some(last));
    ended
}

/// Waits for every session. One that panics stops the process: it would leave a hole for ever.
async fn all_end(mut running: JoinSet<()>, shutdown: CancellationToken) -> Result<()> {
    let mut result = Ok(());
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            shutdown.cancel();
            result = result.and(Err(error).context("session"));
        }
    }
    result
}

/// Asks whether the exchange pauses, so that missing sessions are told from lost ones.
async fn watch_maintenance(
    rest: Arc<Rest>,
    vitals: Arc<watch::Sender<Vitals>>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            status = rest.status() => {
                // No answer says nothing about a pause.
                if let Ok(status) = status {
                    vitals.send_modify(|vitals| vitals.maintenance = !status.exchange_active);
                }
            }
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(STATUS_INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Every session, lifecycle first: a market created while the others start is then not missed.
fn slots(config: &Config) -> Vec<Slot> {
    let kinds = [
        ("lifecycle", Channel::Lifecycle, config.sessions.lifecycle),
        ("ticker", Channel::Ticker, config.sessions.ticker),
        ("trade", Channel::Trade, config.sessions.trade),
        ("orderbook", Channel::OrderbookDelta, config.sessions.orderbook),
    ];
    let slot = |name: &str, channel, number| Slot { name: format!("{name}-{number}"), channel };
    kinds
        .into_iter()
        .flat_map(|(name, channel, count)| {
            (1..=count).map(move |number| slot(name, channel, number))
        })
        .collect()
}

/// Hands each order-book session its part of every new plan.
async fn distribute(
    mut plan: watch::Receiver<Arc<Plan>>,
    books: Vec<watch::Sender<Wants>>,
    shutdown: CancellationToken,
) {
    loop {
        let current = Arc::clone(&plan.borrow_and_update());
        current.distribute(&books);
        tokio::select! {
            changed = plan.changed() => {
                if changed.is_err() {
                    shutdown.cancelled().await;
                    return;
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Sums the sessions' states up for health and metrics.
async fn sum_up(
    states: Vec<(Channel, watch::Receiver<SessionState>)>,
    registry: watch::Receiver<RegistryState>,
    metrics: Arc<Metrics>,
    vitals: Arc<watch::Sender<Vitals>>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(SUM_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let mut sum = HashMap::new();
        let mut add = |name: &'static str, value: usize| *sum.entry(name).or_insert(0) += value;
        for (_, state) in &states {
            let state = state.borrow();
            add("connected", usize::from(state.connected));
            add("healthy", usize::from(state.connected && state.subscribed));
            add("wanted", state.markets_wanted);
            add("books", state.markets_with_book);
            add("connects", usize::try_from(state.connects).unwrap_or_default());
        }
        let of = |name: &str| sum.get(name).copied().unwrap_or_default();
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let known = registry.borrow().markets;
        metrics.markets.set(gauge(known));
        metrics.connections.set(gauge(of("healthy")));
        metrics.connections_planned.set(gauge(states.len()));
        metrics.books.set(gauge(of("books")));
        metrics.books_wanted.set(gauge(of("wanted")));
        metrics.reconnects.set(u64::try_from(of("connects")).unwrap_or_default());
        vitals.send_modify(|vitals| {
            vitals.sessions_planned = states.len();
            vitals.sessions_connected = of("connected");
            vitals.sessions_healthy = of("healthy");
            vitals.markets = known;
            vitals.books = of("books");
            vitals.books_wanted = of("wanted");
        });
    }
}
