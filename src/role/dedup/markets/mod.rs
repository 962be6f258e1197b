//! The market sync: keeps production's `series`, `events` and `markets` as the exchange's REST lists
//! them, with every version that a row ever had.
//!
//! A table is read in full at first (a restart goes on at the cursor that was saved with the rows),
//! then by what changed (`min_updated_ts`, with an overlap), and now and then in full again. Lists may
//! shift while they are read: rows go in by their key, and what two complete lists in a row agree on is
//! believed. So a row that leaves the lists is doubted by the first and marked by the second, never
//! removed; and a row that a list has passed over is found by the next, which follows at once
//! whenever a list leaves a doubt.
//!
//! An exchange or a production that is away only makes it wait. It writes under the same fence as the
//! logs, and nothing of theirs waits for it.

mod kind;
mod lane;
mod metrics;
mod pass;
mod report;
mod row;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::kind::Kind;
use self::lane::{Due, Lane};
use self::pass::{Page, Pass, Source, rows_of};
use self::row::Parsed;
use self::store::{Bookmark, Store, key_hash};
use super::production::Tenure;
use super::sync::{Verdict, verdict};
use crate::kalshi::Api;
use crate::kalshi::lists::{List, NAMES_MAX, Wanted};
use crate::kalshi::rest::{Rest, RestError, Settings};
use crate::model::Micros;
use crate::ops::backoff::Backoff;
use crate::ops::duration::seconds;
use crate::ops::exit::{Exit, chain};
use crate::ops::once::Once;
use crate::pg::Target;

pub use metrics::Metrics;
pub use report::Report;

/// A list of changes begins this long before everything that is known: clocks differ, and the
/// exchange's index may lag.
const CHANGES_OVERLAP_SECONDS: i64 = 180;
/// Markets whose time to open or close has passed that are asked for by name after a list of changes:
/// ten requests. Any more wait for the next one.
const OVERDUE_MAX: i64 = 1_000;
/// A first list that stopped so long ago is begun anew: the exchange says nothing about how long it
/// knows a cursor.
const BOOKMARK_AGE_MAX_SECONDS: i64 = 3_600;
/// After an error of production.
const BACKOFF_BASE: Duration = Duration::from_millis(250);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Pause before another attempt to make a REST client: the machine lacks certificates.
const SETUP_PAUSE: Duration = Duration::from_secs(60);
/// Kinds of oddities that are told of.
const ODDITIES_MAX: usize = 200;

/// What the market sync needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The exchange's REST. Market data is public: credentials only tell the account's limits.
    pub api: Api,
    /// Between two lists of what changed.
    pub refresh_interval: Duration,
    /// Between two complete lists.
    pub full_interval: Duration,
    /// Whether multivariate (combo) markets and their events are copied too.
    pub multivariate: bool,
}

impl Config {
    /// A client as the sync uses it.
    ///
    /// # Errors
    /// When the URL is unusable or the machine has no root certificates.
    pub fn rest(&self) -> Result<Rest, RestError> {
        Rest::new(&self.api, Settings::default())
    }
}

/// The task.
pub struct MarketSync {
    pub config: Config,
    pub target: Target,
    /// What this process calls itself in the writer's lock.
    pub holder: String,
    pub tenure: watch::Receiver<Option<Tenure>>,
    pub report: watch::Sender<Option<Report>>,
    pub metrics: Metrics,
    /// Dropped when the task ends: the lock is kept until then.
    #[expect(dead_code, reason = "only its end means something")]
    pub alive: mpsc::Sender<()>,
    odd: Once,
}

/// What ended a list.
enum Failure {
    Exchange(RestError),
    Production(anyhow::Error),
}

impl From<RestError> for Failure {
    fn from(error: RestError) -> Self {
        Self::Exchange(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Production(error)
    }
}

impl MarketSync {
    pub fn new(
        config: Config,
        target: Target,
        holder: String,
        tenure: watch::Receiver<Option<Tenure>>,
        report: watch::Sender<Option<Report>>,
        metrics: Metrics,
        alive: mpsc::Sender<()>,
    ) -> Self {
        let odd = Once::new(ODDITIES_MAX);
        Self { config, target, holder, tenure, report, metrics, alive, odd }
    }

    /// Ends with `Ok` when asked to stop; what is not committed then is read again by whoever comes
    /// next. Ends with an error when another process holds production, or its schema is another.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = Box::pin(self.work()) => ended,
        }
    }

    async fn work(&mut self) -> anyhow::Result<()> {
        let mut lanes = Kind::ALL.map(Lane::new);
        self.publish(&lanes);
        let rest = self.reach_api(&mut lanes).await;
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        loop {
            let tenure = match self.tenure.wait_for(Option::is_some).await {
                Ok(tenure) => tenure.clone(),
                Err(_) => return Ok(()),
            };
            let Some(tenure) = tenure else { continue };
            let error = self.session(&tenure, &rest, &mut lanes, &mut backoff).await;
            let text = chain(&error);
            // What is wrong with metadata must not stop the logs: all but the lock and the schema
            // is said and tried again.
            if let Verdict::Ends(error) = verdict(error, &self.holder)
                && matches!(Exit::of(&error), Exit::Held | Exit::Usage)
            {
                return Err(error);
            }
            tracing::warn!(error = text, "market sync interrupted, retrying");
            backoff.wait().await;
        }
    }

    /// Makes the client and says whether the exchange answers.
    async fn reach_api(&self, lanes: &mut [Lane]) -> Arc<Rest> {
        let url = &self.config.api.rest_url;
        let rest = loop {
            match self.config.rest() {
                Ok(rest) => break Arc::new(rest),
                Err(error) => {
                    tracing::error!(%error, "market sync cannot begin, retrying");
                    lanes.iter_mut().for_each(|lane| {
                        lane.failed(error.to_string());
                    });
                    self.publish(lanes);
                    sleep(SETUP_PAUSE).await;
                }
            }
        };
        match rest.status().await {
            Ok(status) => {
                tracing::info!(url, exchange_active = status.exchange_active, "Kalshi API answers");
            }
            Err(error) => tracing::warn!(url, %error, "Kalshi API does not answer, retrying"),
        }
        if let Err(error) = rest.learn_limits().await {
            tracing::warn!(%error, "ask for the account's limits: keeping to the smallest");
        }
        rest
    }

    /// Keeps the tables current until production fails.
    async fn session(
        &self,
        tenure: &Tenure,
        rest: &Arc<Rest>,
        lanes: &mut [Lane],
        backoff: &mut Backoff,
    ) -> anyhow::Error {
        let mut store = match Store::open(&self.target, tenure.fence).await {
            Ok(store) => store,
            Err(error) => return error,
        };
        for lane in lanes.iter_mut() {
            if let Err(error) = self.find(&store, lane).await {
                return error;
            }
        }
        self.publish(lanes);
        backoff.reset();
        loop {
            let mut wait = self.config.full_interval;
            for at in 0..lanes.len() {
                let Some(lane) = lanes.get_mut(at) else { break };
                let due = lane.due(Micros::now(), tokio::time::Instant::now(), &self.config);
                let outcome = match due {
                    Due::In(time) => {
                        wait = wait.min(time);
                        continue;
                    }
                    Due::Full => self.full(rest, &mut store, lane).await,
                    Due::Changes => self.changes(rest, &mut store, lane).await,
                };
                let outcome = match outcome {
                    Ok(()) => self.find(&store, lane).await.map_err(Failure::Production),
                    Err(failure) => Err(failure),
                };
                match outcome {
                    Ok(()) => lane.succeeded(),
                    Err(Failure::Exchange(error)) => self.list_failed(lane, &error),
                    Err(Failure::Production(error)) => return error,
                }
                wait = Duration::ZERO;
                self.publish(lanes);
            }
            sleep(wait).await;
        }
    }

    /// Reads where a table stands.
    async fn find(&self, store: &Store, lane: &mut Lane) -> anyhow::Result<()> {
        let (rows, _) = store.count(lane.kind).await?;
        lane.found(store.state(lane.kind).await?, rows);
        self.metrics.set_rows(lane.kind, rows);
        if let Some(at) = lane.state.synced_at {
            self.metrics.succeeded(lane.kind, seconds(at.0));
        }
        Ok(())
    }

    fn list_failed(&self, lane: &mut Lane, error: &RestError) {
        self.metrics.failed(lane.kind);
        let wait = lane.failed(error.to_string());
        let (table, retry_ms) = (lane.kind.name(), wait.as_millis());
        if error.is_auth() {
            tracing::error!(table, %error, retry_ms, "list {table}: check the API key");
        } else {
            tracing::warn!(table, %error, retry_ms, "list {table}");
        }
    }

    fn publish(&self, lanes: &[Lane]) {
        self.report.send_replace(Some(Report {
            refresh_interval: self.config.refresh_interval,
            tables: lanes.iter().map(Lane::report).collect(),
        }));
    }

    /// Shows how one table stands while its list is read, which may take minutes.
    fn show(&self, lane: &Lane) {
        self.report.send_modify(|report| {
            let tables = report.iter_mut().flat_map(|report| &mut report.tables);
            for table in tables.filter(|table| table.kind == lane.kind) {
                *table = lane.report();
            }
        });
    }

    /// A complete list, from its beginning or from where it was interrupted.
    async fn full(
        &self,
        rest: &Arc<Rest>,
        store: &mut Store,
        lane: &mut Lane,
    ) -> Result<(), Failure> {
        let mut pass = match lane.pass.take() {
            Some(pass) => pass,
            None => self.begin(rest, lane),
        };
        let outcome = match self.read(&mut pass, store, lane).await {
            Ok(()) => self.conclude(rest, &mut pass, store, lane).await,
            Err(failure) => Err(failure),
        };
        match &outcome {
            Ok(()) => {}
            Err(Failure::Exchange(error)) if !error.is_retryable() => {
                // A cursor that leads nowhere: the next attempt begins anew.
                if lane.state.full_from.is_none() {
                    store.forget_bookmark(lane.kind).await?;
                    lane.state.bookmark = None;
                }
            }
            Err(_) => lane.pass = Some(pass),
        }
        outcome
    }

    fn begin(&self, rest: &Arc<Rest>, lane: &Lane) -> Pass {
        let now = Micros::now();
        let bookmark = lane.state.bookmark.as_ref().filter(|bookmark| {
            lane.state.full_from.is_none()
                && (0..BOOKMARK_AGE_MAX_SECONDS * 1_000_000).contains(&now.since(bookmark.from))
        });
        let table = lane.kind.name();
        match bookmark {
            Some(bookmark) => {
                tracing::info!(table, rows = bookmark.rows, "going on to load {table}");
            }
            None if lane.state.full_from.is_none() => tracing::info!(table, "loading {table}"),
            None => tracing::debug!(table, "listing all {table}"),
        }
        let source = Source::new(Arc::clone(rest), lane.kind, self.config.multivariate, bookmark);
        Pass::begin(source, bookmark, lane.state.full_from)
    }

    /// Writes page after page; while one is written the next is read.
    async fn read(
        &self,
        pass: &mut Pass,
        store: &mut Store,
        lane: &mut Lane,
    ) -> Result<(), Failure> {
        let known_since = lane
            .state
            .full_from
            .map(|from| Micros(from.0.saturating_sub(CHANGES_OVERLAP_SECONDS * 1_000_000)));
        loop {
            if pass.ready.is_empty() {
                pass.ready.extend(pass.source.next().await?);
            }
            let Some(page) = pass.ready.front() else { return Ok(()) };
            let bookmark = page.next.as_ref().filter(|_| lane.state.full_from.is_none());
            let bookmark = bookmark.map(|(part, cursor)| Bookmark {
                part: *part,
                cursor: cursor.clone(),
                from: pass.from,
                rows: pass.rows.saturating_add(rows_of(page)),
            });
            let writing = store.write(
                lane.kind,
                &page.parsed.rows,
                page.received_at,
                known_since,
                bookmark.as_ref(),
            );
            let (written, next) = tokio::join!(writing, pass.source.next());
            let (next, failure) = match next {
                Ok(next) => (next, None),
                Err(error) => (None, Some(error)),
            };
            pass.ready.extend(next);
            // A page that was not written stays the first.
            let written = written?;
            let Some(page) = pass.ready.pop_front() else { return Ok(()) };
            pass.written(&page);
            pass.old_news += written.old_news;
            self.note(lane, &page.parsed, written);
            if let Some(line) = pass.progress(lane.kind, lane.state.rows_listed) {
                tracing::info!(table = lane.kind.name(), "{line}");
            }
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
    }

    /// Draws the conclusions from a complete list.
    async fn conclude(
        &self,
        rest: &Rest,
        pass: &mut Pass,
        store: &mut Store,
        lane: &mut Lane,
    ) -> Result<(), Failure> {
        let (kind, is_first) = (lane.kind, lane.state.full_from.is_none());
        let shown = i64::try_from(pass.seen.len()).unwrap_or(i64::MAX);
        let mut unseen = Vec::new();
        if !pass.resumed && !is_first && store.count(kind).await?.1 != shown {
            unseen = store.unseen(kind, &pass.seen).await?;
        }
        let (gone, doubted): (Vec<_>, Vec<_>) =
            unseen.into_iter().partition(|key| lane.doubted.contains(&key_hash(key)));
        let cutoff = if kind == Kind::Markets && !gone.is_empty() {
            rest.settled_cutoff().await?
        } else {
            Micros(i64::MIN)
        };
        let to_confirm = is_first || pass.resumed || pass.old_news > 0 || !doubted.is_empty();
        let rows = if pass.resumed { pass.rows } else { shown };
        let marked = store.full_ended(kind, pass.from, rows, to_confirm, &gone, cutoff).await?;
        lane.doubted = doubted.iter().map(|key| key_hash(key)).collect();
        lane.full_ended(to_confirm);
        self.metrics.changed(kind, "gone", marked);
        let table = kind.name();
        tracing::info!(table, "loaded {rows} {table} from REST API");
        if marked > 0 {
            tracing::info!(table, marked, "{table} that are in no list any more are marked");
        }
        Ok(())
    }

    /// What changed since the last list.
    async fn changes(
        &self,
        rest: &Arc<Rest>,
        store: &mut Store,
        lane: &mut Lane,
    ) -> Result<(), Failure> {
        let from = Micros::now();
        let until = lane.state.synced_until.unwrap_or(from);
        // The exchange compares with its own clock: where that is behind ours, so must the list be.
        let behind = rest.clock_offset_micros().unwrap_or(0).min(0);
        let until_seconds = until.0.saturating_add(behind).div_euclid(1_000_000);
        let since = until_seconds.saturating_sub(CHANGES_OVERLAP_SECONDS);
        let wanted = Wanted {
            min_updated_ts: Some(since),
            exclude_multivariate: !self.config.multivariate,
            ..Wanted::default()
        };
        // Multivariate events are listed in full only.
        for list in lane.kind.lists(false) {
            self.take(rest, store, lane, *list, &wanted).await?;
        }
        if lane.kind == Kind::Markets {
            let overdue = store.overdue(from, OVERDUE_MAX).await?;
            for tickers in overdue.chunks(NAMES_MAX) {
                let wanted = Wanted { tickers: tickers.to_vec(), ..Wanted::default() };
                self.take(rest, store, lane, List::Markets, &wanted).await?;
            }
        }
        store.changes_ended(lane.kind, from).await?;
        Ok(())
    }

    /// Writes all pages of a list.
    async fn take(
        &self,
        rest: &Arc<Rest>,
        store: &mut Store,
        lane: &mut Lane,
        list: List,
        wanted: &Wanted,
    ) -> Result<(), Failure> {
        let mut pages = rest.list(list, wanted, None);
        while let Some(raw) = pages.next().await? {
            let parsed = pass::parse(lane.kind, raw.items).await?;
            let page = Page { parsed, received_at: raw.received_at, next: None };
            let rows = &page.parsed.rows;
            let written = store.write(lane.kind, rows, page.received_at, None, None).await?;
            self.note(lane, &page.parsed, written);
        }
        Ok(())
    }

    /// Counts a page that was written, and tells of what is odd about it, once for each kind.
    fn note(&self, lane: &mut Lane, parsed: &Parsed, written: store::Written) {
        let (kind, table) = (lane.kind, lane.kind.name());
        lane.advanced_at = Micros::now();
        lane.rows = lane.rows.saturating_add_unsigned(written.new);
        self.show(lane);
        self.metrics.set_rows(kind, lane.rows);
        self.metrics.changed(kind, "new", written.new);
        self.metrics.changed(kind, "changed", written.changed);
        let count = |odd: &[String]| u64::try_from(odd.len()).unwrap_or(u64::MAX);
        let unknown = &parsed.unknown_statuses;
        self.metrics.page(kind, count(&parsed.refused), count(&parsed.unreadable), count(unknown));
        for status in unknown {
            if self.odd.first(&format!("status {status}")) {
                tracing::warn!(
                    status,
                    "a market has a status that this version does not know; it is kept as it is"
                );
            }
        }
        for what in &parsed.unreadable {
            let field = what.split(' ').next().unwrap_or_default();
            if self.odd.first(&format!("field {table} {field}")) {
                tracing::warn!(table, what, "a listed value fits no column; raw has it");
            }
        }
        if let Some(why) = parsed.refused.first()
            && self.odd.first(&format!("refused {table}"))
        {
            let objects = parsed.refused.len();
            tracing::warn!(table, objects, why, "listed objects have no key");
        }
    }
}
