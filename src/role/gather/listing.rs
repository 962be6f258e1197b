//! Keeps the registry current: lists markets over REST while it hears notices, and publishes the
//! plan that follows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::kalshi::calls::{MarketPages, MarketsQuery};
use crate::kalshi::market::Page;
use crate::kalshi::rest::{Rest, RestError};
use crate::kalshi::session::{Notice, SessionState};
use crate::model::Micros;
use crate::ops::backoff::Backoff;
use crate::role::gather::plan::Plan;
use crate::role::gather::poller::Turns;
use crate::role::gather::registry::{Changes, Filter, Registry};

/// The lists that together hold what can be recorded. Opening sends no event, so `unopened` is read
/// before `open`: a market that opens in between is in both, never in none. Pauses send an event.
pub const STATUSES: [&str; 3] = ["unopened", "paused", "open"];
/// The first list takes many seconds; sessions begin with what is known this often.
const PUBLISH_WHILE_LOADING: Duration = Duration::from_secs(1);

/// Between two complete lists, and between two lists of what changed.
pub const FULL_INTERVAL: Duration = Duration::from_secs(30 * 60);
pub const CHANGES_INTERVAL: Duration = Duration::from_secs(60);
/// A list of changes begins this long before the last one began: clocks differ, and the exchange's
/// index may lag.
const CHANGES_OVERLAP_SECS: i64 = 180;

/// A new plan waits this many times as long as the last one took: with all markets on few sessions
/// a plan touches large sets, here and in the sessions.
const PUBLISH_COST_FACTOR: u32 = 20;

/// .. but never longer than this: a new market is recorded within two seconds, and the first plan of
/// all markets says nothing about the next one.
const PUBLISH_WAIT_MAX: Duration = Duration::from_millis(500);

/// The times of the registry, and what it is about.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Order-book sessions.
    pub slots: usize,
    /// How long a market stays after it was settled.
    pub grace: Duration,
    /// Between two complete lists.
    pub reconcile_interval: Duration,
    /// Between two lists of what changed.
    pub changes_interval: Duration,
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
            slots: 1,
            grace: Duration::from_secs(60),
            reconcile_interval: FULL_INTERVAL,
            changes_interval: CHANGES_INTERVAL,
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
    /// Whose turn it is to be polled, when the poller runs.
    pub turns: Option<Arc<Turns>>,
    /// Which markets are recorded.
    pub filters: watch::Receiver<Filter>,
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
    /// Lists of what changed.
    pub change_lists: u64,
    /// Lists that failed, and markets of pages that could not be read.
    pub failures: u64,
    pub refused: u64,
    /// Why the last list failed; nothing once one succeeded.
    pub last_error: Option<String>,
    /// Whether it failed because the exchange refused the key.
    pub refused_key: bool,
}

/// Runs until `shutdown`. Failures of REST are handled here: logged, retried, the last good registry
/// kept.
pub async fn run(rest: Arc<Rest>, links: Links, settings: Settings, shutdown: CancellationToken) {
    let filter = links.filters.borrow().clone();
    let mut task = Task {
        registry: Registry::new(filter, settings.grace),
        plan: Arc::new(Plan::empty(settings.slots)),
        cap: None,
        state: RegistryState::default(),
        backoff: Backoff::new(settings.backoff_base, settings.backoff_cap),
        current_at: Micros(0),
        publish_at: Instant::now(),
        refusal_said: false,
        unmatched_said: String::new(),
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
    began_at: Micros,
    is_complete: bool,
    pages: mpsc::Receiver<Page>,
    end: Pin<Box<dyn Future<Output = Result<(), RestError>> + Send>>,
}

struct Task {
    registry: Registry,
    plan: Arc<Plan>,
    cap: Option<usize>,
    state: RegistryState,
    backoff: Backoff,
    /// When what the registry has was asked for, by our clock: the last list's beginning.
    current_at: Micros,
    /// No plan before this.
    publish_at: Instant,
    /// A page that cannot be read is said once a list.
    refusal_said: bool,
    /// Patterns without a market, as last said.
    unmatched_said: String,
    rest: Arc<Rest>,
    links: Links,
    settings: Settings,
}

impl Task {
    async fn run(&mut self) {
        let begin_by = Instant::now() + self.settings.lifecycle_wait;
        // When the next complete list begins; unset until a lifecycle session is subscribed.
        let mut list_at: Option<Instant> = None;
        // When the next list of changes begins; unset until a complete one was read.
        let mut changes_at: Option<Instant> = None;
        let mut listed_from: Option<Instant> = None;
        let mut list: Option<List> = None;
        let mut missed = false;
        let (mut notices_open, mut filters_open) = (true, true);
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
                changed = self.links.filters.changed(), if filters_open => match changed {
                    Ok(()) => {
                        let filter = self.links.filters.borrow_and_update().clone();
                        self.registry.set_filter(filter);
                        // What it takes besides is in no list of changes. A list that is being read
                        // was asked for before, and may have shown it already.
                        list = None;
                        list_at = Some(Instant::now());
                    }
                    Err(_) => filters_open = false,
                },
                step = next_step(&mut list) => match step {
                    Step::Page(page) => self.page(page),
                    Step::End(result) => {
                        let Some(ended) = list.take() else { continue };
                        listed_from = Some(ended.began);
                        let wait = self.list_ended(&ended, result);
                        let now = Instant::now();
                        if ended.is_complete {
                            list_at = Some(now + wait);
                        }
                        if self.state.loaded {
                            let usual = self.settings.changes_interval;
                            let wait = if ended.is_complete { usual } else { wait };
                            changes_at = Some(now + wait);
                        }
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
                        // Changes are listed of ordinary markets only.
                        match changes_at {
                            Some(at) if !self.multivariate() => {
                                changes_at = Some(at.min(soon));
                            }
                            _ => list_at = Some(at.min(soon)),
                        }
                    }
                    if list.is_none() {
                        let complete = list_at.is_some_and(|at| at <= now);
                        if complete || changes_at.is_some_and(|at| at <= now) {
                            list = Some(self.begin_list(complete, now));
                        }
                    }
                    self.registry.expire(Micros::now(), now);
                    self.publish(now);
                }
            }
        }
    }

    /// Whether multivariate markets are recorded; fixed for the life of the process.
    fn multivariate(&self) -> bool {
        self.links.filters.borrow().multivariate
    }

    /// Whether a lifecycle session is subscribed, so that nothing that happens from now on is missed.
    fn lifecycle_ready(&self) -> bool {
        self.links.lifecycle.iter().any(|state| state.borrow().subscribed)
    }

    fn begin_list(&mut self, is_complete: bool, now: Instant) -> List {
        if is_complete {
            self.registry.list_begins();
        }
        self.refusal_said = false;
        // Two pages of 1000 markets: one is merged while the next one arrives.
        let (to, pages) = mpsc::channel(2);
        let learn = !self.state.loaded;
        let rest = Arc::clone(&self.rest);
        let mve_filter = (!self.multivariate()).then_some("exclude");
        let query = MarketsQuery { mve_filter, ..MarketsQuery::default() };
        let queries: Vec<MarketsQuery> = if is_complete {
            let of = |status| MarketsQuery { status: Some(status), ..query.clone() };
            STATUSES.into_iter().map(of).collect()
        } else {
            // It combines with nothing else, and without a status it shows what ended too.
            let since = self.current_at.0 / 1_000_000 - CHANGES_OVERLAP_SECS;
            let mve_filter = Some("exclude");
            vec![MarketsQuery { min_updated_ts: Some(since), mve_filter, ..query }]
        };
        let end = Box::pin(read_list(rest, queries, learn, to));
        List { began: now, began_at: Micros::now(), is_complete, pages, end }
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
        let odd: Vec<_> =
            page.markets.iter().filter_map(|m| Some((m.ticker.clone(), m.notional?))).collect();
        self.registry.page(page.markets, Micros::now(), Instant::now());
        if let Some(turns) = &self.links.turns
            && !odd.is_empty()
        {
            let mut turns = turns.lock();
            for (ticker, notional) in odd.iter().filter(|(ticker, _)| self.registry.has(ticker)) {
                turns.pays(ticker, *notional);
            }
        }
    }

    /// Concludes a list; how long to wait for the next one.
    fn list_ended(&mut self, list: &List, result: Result<(), RestError>) -> Duration {
        match result {
            Ok(()) if !list.is_complete => {
                self.backoff.reset();
                self.current_at = list.began_at;
                self.state.change_lists += 1;
                self.state.last_error = None;
                self.state.refused_key = false;
                self.settings.changes_interval
            }
            Ok(()) => {
                self.current_at = list.began_at;
                let listed = self.registry.list_ends(Instant::now());
                tracing::info!(
                    recorded = self.registry.count(),
                    "loaded {listed} markets from REST API"
                );
                let unmatched = self.registry.unmatched().join(", ");
                if !unmatched.is_empty() && unmatched != self.unmatched_said {
                    tracing::warn!(
                        patterns = unmatched,
                        "no listed market is what these patterns of `markets` describe"
                    );
                }
                self.unmatched_said = unmatched;
                self.backoff.reset();
                self.publish_at = Instant::now();
                self.state.loaded = true;
                self.state.lists += 1;
                self.state.listed_at = Some(Micros::now());
                self.state.last_error = None;
                self.state.refused_key = false;
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
                self.state.refused_key = error.is_auth();
                wait
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let cap = self.links.orderbooks.iter().filter_map(|state| state.borrow().markets_max).min();
        if now >= self.publish_at {
            let changes = self.registry.take_changes();
            if changes.is_some() || cap != self.cap {
                let Changes { added, removed } = changes.unwrap_or_default();
                self.cap = cap;
                if let Some(turns) = &self.links.turns {
                    let mut turns = turns.lock();
                    removed.iter().for_each(|ticker| turns.remove(ticker));
                    added.iter().for_each(|ticker| turns.add(ticker.clone()));
                }
                self.plan = Arc::new(self.plan.changed(added, &removed, cap));
                self.said_unplaced();
                self.links.plan.send_replace(Arc::clone(&self.plan));
                let least = if self.state.loaded { Duration::ZERO } else { PUBLISH_WHILE_LOADING };
                let cost = now.elapsed() * PUBLISH_COST_FACTOR;
                self.publish_at = Instant::now() + least.max(cost.min(PUBLISH_WAIT_MAX));
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

/// Reads lists, one after another. The first time it asks for our limits before.
pub async fn read_list(
    rest: Arc<Rest>,
    queries: Vec<MarketsQuery>,
    learn_limits: bool,
    to: mpsc::Sender<Page>,
) -> Result<(), RestError> {
    if learn_limits {
        match rest.learn_limits().await {
            Ok(Some(limits)) => {
                let (account, ours) = (limits.account_tokens, limits.our_tokens);
                tracing::info!(account, ours, "learned the tokens a second of REST");
            }
            Ok(None) => {}
            // The default is the smallest tier's, so going on is safe.
            Err(error) => tracing::warn!(%error, "ask for the account's limits"),
        }
        // Without them every request counts as the usual one.
        if let Err(error) = rest.learn_costs().await {
            tracing::debug!(%error, "ask what requests cost");
        }
    }
    for query in queries {
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
