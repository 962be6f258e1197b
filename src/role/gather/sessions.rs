//! The gatherer's sessions: one task a slot, fed by the plan, all writing into the journal.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::beside::Beside;
use super::decoder::ResyncSenders;
use super::exchange::Exchange;
use super::health::{Silence, Vitals};
use super::listing::{self, RegistryState};
use super::metrics::Metrics;
use super::plan::Plan;
use super::registry::Filter;
use super::{Config, Multivariate, Sessions};
use crate::kalshi::rest::Rest;
use crate::kalshi::session::{
    FrameSink, Links, Payload, Resync, Session, SessionEvent, SessionState, Settings, Slot, Wants,
};
use crate::log::journal::{Journal, Kind, Position};
use crate::model::{Channel, Micros};

/// Lifecycle notices on the way to the registry; the exchange sends a few a second.
const NOTICES_WAITING_MAX: usize = 4096;
/// How often the sessions' states are summed up.
const SUM_INTERVAL: Duration = Duration::from_millis(200);
/// Sessions start this far apart, and all of them within the second time: 150 connect in six seconds.
pub const STAGGER: Duration = Duration::from_millis(40);
const STAGGER_ALL: Duration = Duration::from_secs(8);

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

/// What the sessions and the registry are given.
pub struct Run {
    pub config: Config,
    /// Which markets are recorded; may change.
    pub filters: watch::Receiver<Filter>,
    /// Wakes sessions that wait before another attempt.
    pub resume: Arc<watch::Sender<u64>>,
    pub journal: Journal,
    pub resync: ResyncSenders,
    pub metrics: Arc<Metrics>,
    pub vitals: Arc<watch::Sender<Vitals>>,
    /// Is told where the journal ends.
    pub end: watch::Sender<Option<Position>>,
}

/// Runs every session and the registry until `shutdown`, then closes the journal and says where it
/// ends.
///
/// # Errors
/// When the REST client cannot be made from the configuration.
pub async fn run(given: Run, shutdown: CancellationToken) -> Result<()> {
    let Run { config, filters, resume, journal, resync, metrics, vitals, end } = given;
    let rest = match Rest::new(&config.api, config.rest_settings()) {
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
    let refusal_said = Arc::new(AtomicBool::new(false));
    let slots = slots(&config.sessions, config.markets.multivariate);
    for (slot, start_delay) in slots.iter().zip(start_delays(slots.len())) {
        let slot = slot.clone();
        let (state, seen) = watch::channel(SessionState::default());
        let asked = Arc::new(Resync::default());
        let mut askers = resync.lock().unwrap_or_else(PoisonError::into_inner);
        askers.insert(slot.name.clone(), Arc::clone(&asked));
        drop(askers);
        let is_book = slot.channel == Channel::OrderbookDelta;
        let first = if is_book { Wants::Markets(Arc::default()) } else { Wants::All };
        let (want, wants) = watch::channel(first);
        if is_book {
            books.push(want.clone());
        }
        states.push((slot.channel, seen));
        let links = Links {
            wants,
            resync: asked,
            notices: notices.clone(),
            state,
            resume: resume.subscribe(),
            refusal_said: Arc::clone(&refusal_said),
        };
        let settings = Settings {
            start_delay,
            backoff_cap: config.sessions.reconnect_max,
            audit_period: config.audit_period,
            ..Settings::default()
        };
        let (api, sink) = (config.api.clone(), Arc::clone(&sink));
        let session = Session { slot, api, links, sink, settings, shutdown: shutdown.clone() };
        running.spawn(async move {
            session.run().await;
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
    let poller = Beside::turns(&config);
    let registry = listing::Links {
        notices: heard,
        lifecycle: of(Channel::Lifecycle),
        orderbooks: of(Channel::OrderbookDelta),
        plan: plan_sender,
        state: registry_state,
        turns: poller.as_ref().map(|(_, turns)| Arc::clone(turns)),
        filters,
    };
    let settings = listing::Settings { slots: books.len(), ..listing::Settings::default() };
    let beside = Beside {
        rest: Arc::clone(&rest),
        journal: journal.clone(),
        metrics: Arc::clone(&metrics),
        vitals: Arc::clone(&vitals),
        exchange: watch::Sender::new(Exchange::default()),
        resume: Arc::clone(&resume),
        poller,
    };
    let ((), (), (), (), ended, ()) = tokio::join!(
        listing::run(rest, registry, settings, shutdown.clone()),
        distribute(plan, books, shutdown.clone()),
        beside.run(shutdown.clone()),
        sum_up(states, known, metrics, vitals, resume, shutdown.clone()),
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

/// When each session connects first: in order, each at a moment of its own step.
fn start_delays(sessions: usize) -> impl Iterator<Item = Duration> {
    let count = u32::try_from(sessions.max(1)).unwrap_or(u32::MAX);
    let step = STAGGER.min(STAGGER_ALL / count);
    (0..count).map(move |number| match number {
        // Lifecycle comes first, and nothing waits with it.
        0 => Duration::ZERO,
        _ => step * number + step.mul_f64(fastrand::f64()),
    })
}

/// Every session, lifecycle first: a market created while the others start is then not missed.
fn slots(sessions: &Sessions, multivariate: Multivariate) -> Vec<Slot> {
    let multivariate = match multivariate {
        Multivariate::Include => sessions.lifecycle,
        Multivariate::Exclude => 0,
    };
    let kinds = [
        ("lifecycle", Channel::Lifecycle, sessions.lifecycle),
        ("multivariate-lifecycle", Channel::MultivariateLifecycle, multivariate),
        ("ticker", Channel::Ticker, sessions.ticker),
        ("trade", Channel::Trade, sessions.trade),
        ("orderbook", Channel::OrderbookDelta, sessions.orderbook),
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
    resume: Arc<watch::Sender<u64>>,
    shutdown: CancellationToken,
) {
    let (mut was_connected, mut all_lost) = (0_usize, false);
    let mut ticks = tokio::time::interval(SUM_INTERVAL);
    let mut silence = Silence::new(Instant::now());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let mut sum = HashMap::new();
        let (mut audited_since, mut refusal) = (None, None);
        let mut add = |name: &'static str, value: usize| *sum.entry(name).or_insert(0) += value;
        for (channel, state) in &states {
            let state = state.borrow();
            add("connected", usize::from(state.connected));
            add("healthy", usize::from(state.connected && state.subscribed));
            add("wanted", state.markets_wanted);
            add("books", state.markets_with_book);
            if *channel == Channel::Ticker {
                add("quotes", usize::try_from(state.frames).unwrap_or_default());
            }
            add("connects", usize::try_from(state.connects).unwrap_or_default());
            add("refused", usize::from(state.refused));
            if state.refused && refusal.is_none() {
                refusal.clone_from(&state.last_error);
            }
            audited_since = match (audited_since, state.audited_since) {
                (Some(one), Some(other)) => Some(Micros::min(one, other)),
                (one, other) => one.or(other),
            };
        }
        let of = |name: &str| sum.get(name).copied().unwrap_or_default();
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let known = registry.borrow().clone();
        let quotes = u64::try_from(of("quotes")).unwrap_or_default();
        let ticker_silent = silence.read(quotes, Instant::now());
        metrics.markets.set(gauge(known.markets));
        metrics.unplaced.set(gauge(known.unplaced));
        metrics.lists(known.lists + known.change_lists, known.failures);
        metrics.connections.set(gauge(of("healthy")));
        metrics.connections_planned.set(gauge(states.len()));
        metrics.books.set(gauge(of("books")));
        metrics.books_wanted.set(gauge(of("wanted")));
        metrics.sessions_refused.set(gauge(of("refused")));
        let audit_age = audited_since.map_or(0, |at: Micros| Micros::now().since(at).max(0));
        metrics.audit_age_seconds.set(audit_age / 1_000_000);
        metrics.connects(u64::try_from(of("connects")).unwrap_or_default());
        // The first one that comes through tells the others that the exchange is there again.
        match (of("connected"), was_connected) {
            (0, 1..) => all_lost = true,
            (1.., _) if all_lost => {
                all_lost = false;
                resume.send_modify(|times| *times += 1);
            }
            _ => {}
        }
        was_connected = of("connected");
        vitals.send_modify(|vitals| {
            vitals.sessions_planned = states.len();
            vitals.sessions_connected = of("connected");
            vitals.sessions_healthy = of("healthy");
            vitals.sessions_refused = of("refused");
            vitals.refusal = refusal;
            vitals.markets = known.markets;
            vitals.markets_loaded = known.loaded;
            vitals.list_error = known.last_error;
            vitals.list_refused = known.refused_key;
            vitals.unplaced = known.unplaced;
            vitals.ticker_silent = ticker_silent;
            vitals.books = of("books");
            vitals.books_wanted = of("wanted");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_start_in_order_apart_and_within_ten_seconds() {
        for count in [1, 6, 150, 1_000, 4_000] {
            let delays: Vec<Duration> = start_delays(count).collect();
            assert_eq!(delays.len(), count);
            assert_eq!(delays.first(), Some(&Duration::ZERO));
            assert!(delays.is_sorted());
            assert!(delays.last() <= Some(&STAGGER_ALL), "{:?}", delays.last());
        }
        assert!(start_delays(150).last() <= Some(Duration::from_secs(6)));
        // Jitter: three gatherers that start together do not connect in step.
        assert!(!start_delays(150).eq(start_delays(150)));
    }

    #[test]
    fn multivariate_markets_bring_their_own_lifecycle_sessions() {
        let reconnect_max = Duration::from_secs(300);
        let sessions = Sessions {
            ticker: 2,
            trade: 2,
            lifecycle: 2,
            orderbook: 144,
            reconnect_max,
            user_connections_max: 200,
            user_gatherers: 1,
        };
        let exclude = slots(&sessions, Multivariate::Exclude);
        assert_eq!(exclude.len(), 150);
        let include = slots(&sessions, Multivariate::Include);
        assert_eq!(include.len(), 152);
        let of = |channel| include.iter().filter(|slot| slot.channel == channel).count();
        assert_eq!((of(Channel::Lifecycle), of(Channel::MultivariateLifecycle)), (2, 2));
        let names: std::collections::BTreeSet<&str> =
            include.iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names.len(), 152);
    }
}
