//! Keeps the registry current: lists markets over REST while it hears notices, and publishes the
//! plan that follows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::kalshi::market::Page;
use crate::kalshi::rest::{MarketPages, MarketsQuery, Rest, RestError};
use crate::kalshi::session::{Notice, SessionState};
use crate::model::Micros;
use crate::ops::backoff::Backoff;
use crate::role::gather::plan::Plan;
use crate::role::gather::registry::{Filter, Registry};

/// The lists that together hold what can be recorded. Opening sends no event, so `unopened` is read
/// before `open`: a market that opens in between is in both, never in none. Pauses send an event.
const STATUSES: [&str; 3] = ["unopened", "paused", "open"];
/// The first list takes many seconds; sessions begin with what is known this often.
const PUBLISH_WHILE_LOADING: Duration = Duration::from_secs(1);

/// A new plan waits this many times as long as the last one took: with all markets on few sessions
/// a plan touches large sets, here and in the sessions.
const PUBLISH_COST_FACTOR: u32 = 20;

/// The times of the registry, and what it is about.
#[derive(Debug, Clone)]
pub struct Settings {
    pub filter: Filter,
    /// Order-book sessions.
    pub slots: usize,
    /// How long a market stays after it was settled.
    pub grace: Duration,
    /// Between two complete lists.
    pub reconcile_interval: Duration,
    /// Between the beginnings of two lists that missed notices ask for.
    pub reconcile_interval_min: Duration,
    /// How long changes are collected before a plan follows: what a new market trades until its
    /// subscription stands is in its first snapshot, and in no delta.
    pub publish_interval: Duration,
    /// How long to wait for a lifecycle subscription before the first list.
    pub lifecycle_wait: Duration,
    /// After a failed list: full jitter below a bound that doubles from here ..
    pub backoff_base: Duration,
    /// .. to here.
    pub backoff_cap: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            slots: 1,
            grace: Duration::from_secs(60),
            reconcile_interval: Duration::from_secs(15 * 60),
            reconcile_interval_min: Duration::from_secs(60),
            publish_interval: Duration::from_millis(20),
            lifecycle_wait: Duration::from_secs(15),
            backoff_base: Duration::from_secs(2),
            backoff_cap: Duration::from_secs(120),
        }
    }
}

/// Who the registry hears and tells.
pub struct Links {
    /// From the lifecycle sessions.
    pub notices: mpsc::Receiver<Notice>,
    /// The lifecycle sessions' states: one must be subscribed before the first list.
    pub lifecycle: Vec<watch::Receiver<SessionState>>,
    /// The order-book sessions' states: what they learn about the exchange's cap.
    pub orderbooks: Vec<watch::Receiver<SessionState>>,
    pub plan: watch::Sender<Arc<Plan>>,
    pub state: watch::Sender<RegistryState>,
}

/// How the registry stands, for health and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryState {
    /// Markets that are recorded.
    pub markets: usize,
    /// Markets that no session has room for.
    pub unplaced: usize,
    /// Whether a complete list was read since the start.
    pub loaded: bool,
    /// Complete lists, and when the last one ended.
    pub lists: u64,
    pub listed_at: Option<Micros>,
    /// Lists that failed, and markets of pages that could not be read.
    pub failures: u64,
    pub refused: u64,
    /// Why the last list failed; nothing once one succeeded.
    pub last_error: Option<String>,
}

/// Runs until `shutdown`. Failures of REST are handled here: logged, retried, the last good registry
/// kept.
pub async fn run(rest: Arc<Rest>, links: Links, settings: Settings, shutdown: CancellationToken) {
    let mut task = Task {
        registry: Registry::new(settings.filter.clone(), settings.grace),
        plan: Arc::new(Plan::empty(settings.slots)),
        cap: None,
        state: RegistryState::default(),
        backoff: Backoff::new(settings.backoff_base, settings.backoff_cap),
        publish_at: Instant::now(),
        refusal_said: false,
        rest,
        links,
        settings,
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = task.run() => {}
    }
}

/// A list that is being read.
struct List {
    began: Instant,
    pages: mpsc::Receiver<Page>,
    end: Pin<Box<dyn Future<Output = Result<(), RestError>> + Send>>,
}

struct Task {
    registry: Registry,
    plan: Arc<Plan>,
    cap: Option<usize>,
    state: RegistryState,
    backoff: Backoff,
    /// No plan before this.
    publish_at: Instant,
    /// A page that cannot be read is said once a list.
    refusal_said: bool,
    rest: Arc<Rest>,
    links: Links,
    settings: Settings,
}

impl Task {
    async fn run(&mut self) {
        let begin_by = Instant::now() + self.settings.lifecycle_wait;
        // When the next list begins; unset until a lifecycle session is subscribed.
        let mut list_at: Option<Instant> = None;
        let mut listed_from: Option<Instant> = None;
        let mut list: Option<List> = None;
        let mut missed = false;
        let mut notices_open = true;
        let mut tick = tokio::time::interval(self.settings.publish_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                notice = self.links.notices.recv(), if notices_open => match notice {
                    Some(Notice::Market(notice)) => {
                        self.registry.notice(notice, Micros::now(), Instant::now());
                    }
                    Some(Notice::Missed) => missed = true,
                    None => notices_open = false,
                },
                step = next_step(&mut list) => match step {
                    Step::Page(page) => self.page(page),
                    Step::End(result) => {
                        listed_from = list.take().map(|list| list.began);
                        list_at = Some(Instant::now() + self.list_ended(result));
                    }
                },
                _ = tick.tick() => {
                    let now = Instant::now();
                    if list_at.is_none() && (self.lifecycle_ready() || now >= begin_by) {
                        list_at = Some(now);
                    }
                    // A list that is being read began before what was missed, so it does not count.
                    if missed && list.is_none() && let Some(at) = list_at {
                        missed = false;
                        let soon = listed_from
                            .map_or(now, |from| now.max(from + self.settings.reconcile_interval_min));
                        list_at = Some(at.min(soon));
                    }
                    if list.is_none() && list_at.is_some_and(|at| at <= now) {
                        list = Some(self.begin_list(now));
                    }
                    self.registry.expire(now);
                    self.publish(now);
                }
            }
        }
    }

    /// Whether a lifecycle session is subscribed, so that nothing that happens from now on is missed.
    fn lifecycle_ready(&self) -> bool {
        self.links.lifecycle.iter().any(|state| state.borrow().subscribed)
    }

    fn begin_list(&mut self, now: Instant) -> List {
        self.registry.list_begins();
        self.refusal_said = false;
        // Two pages of 1000 markets: one is merged while the next one arrives.
        let (to, pages) = mpsc::channel(2);
        let learn = !self.state.loaded;
        let rest = Arc::clone(&self.rest);
        let mve_filter = (!self.settings.filter.multivariate).then_some("exclude");
        List { began: now, pages, end: Box::pin(read_list(rest, mve_filter, learn, to)) }
    }

    fn page(&mut self, page: Page) {
        self.state.refused += u64::try_from(page.refused.len()).unwrap_or(u64::MAX);
        if let Some(why) = page.refused.first()
            && !self.refusal_said
        {
            self.refusal_said = true;
            let markets = page.refused.len();
            tracing::warn!(why, markets, "a listed market cannot be read");
        }
        self.registry.page(page.markets);
    }

    /// Concludes a list; how long to wait for the next one.
    fn list_ended(&mut self, result: Result<(), RestError>) -> Duration {
        match result {
            Ok(()) => {
                let listed = self.registry.list_ends(Instant::now());
                tracing::info!(
                    recorded = self.registry.count(),
                    "loaded {listed} markets from REST API"
                );
                self.backoff.reset();
                self.publish_at = Instant::now();
                self.state.loaded = true;
                self.state.lists += 1;
                self.state.listed_at = Some(Micros::now());
                self.state.last_error = None;
                self.settings.reconcile_interval
            }
            Err(error) => {
                let wait = self.backoff.next_delay();
                let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                if error.is_auth() {
                    tracing::error!(%error, retry_ms, "list markets: check the API key");
                } else {
                    tracing::warn!(%error, retry_ms, "list markets");
                }
                self.state.failures += 1;
                self.state.last_error = Some(error.to_string());
                wait
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let cap = self.links.orderbooks.iter().filter_map(|state| state.borrow().markets_max).min();
        if now >= self.publish_at {
            let changes = self.registry.take_changes();
            if changes.is_some() || cap != self.cap {
                let (added, removed) = changes.unwrap_or_default();
                self.cap = cap;
                self.plan = Arc::new(self.plan.changed(added, &removed, cap));
                self.said_unplaced();
                self.links.plan.send_replace(Arc::clone(&self.plan));
                let least = if self.state.loaded { Duration::ZERO } else { PUBLISH_WHILE_LOADING };
                self.publish_at = now + least.max(now.elapsed() * PUBLISH_COST_FACTOR);
            }
        }
        self.state.markets = self.registry.count();
        self.links.state.send_if_modified(|state| {
            let modified = *state != self.state;
            if modified {
                state.clone_from(&self.state);
            }
            modified
        });
    }

    fn said_unplaced(&mut self) {
        let unplaced = self.plan.unplaced().len();
        if unplaced > 0 && self.state.unplaced == 0 {
            let (sessions, cap) = (self.settings.slots, self.cap);
            tracing::error!(
                unplaced,
                sessions,
                cap,
                "more markets than the order-book sessions can carry: raise sessions.orderbook"
            );
        }
        self.state.unplaced = unplaced;
    }
}

enum Step {
    Page(Page),
    End(Result<(), RestError>),
}

/// The next page of a list or its end; for ever pending while none is read. Cancel-safe: a page is
/// either taken or still in the channel.
async fn next_step(list: &mut Option<List>) -> Step {
    let Some(list) = list else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(page) = list.pages.recv() => Step::Page(page),
        result = &mut list.end => match list.pages.try_recv() {
            // The future ends once: what it sent last is merged first, and the end comes again.
            Ok(page) => {
                list.end = Box::pin(std::future::ready(result));
                Step::Page(page)
            }
            Err(_empty) => Step::End(result),
        },
    }
}

/// Reads the lists of all statuses, one after another.
async fn read_list(
    rest: Arc<Rest>,
    mve_filter: Option<&'static str>,
    learn_limits: bool,
    to: mpsc::Sender<Page>,
) -> Result<(), RestError> {
    if learn_limits {
        match rest.learn_limits().await {
            Ok(Some(per_second)) => {
                tracing::info!(per_second, "learned the budget of REST requests")
            }
            Ok(None) => {}
            // The default is the smallest tier's, so going on is safe.
            Err(error) => tracing::warn!(%error, "ask for the account's limits"),
        }
    }
    for status in STATUSES {
        let query = MarketsQuery { status: Some(status), mve_filter, ..MarketsQuery::default() };
        let mut pages: MarketPages = rest.markets(&query);
        while let Some(page) = pages.next().await? {
            if to.send(page).await.is_err() {
                // Nobody reads any more: the registry is stopping.
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
