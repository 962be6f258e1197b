//! Looks at everything twice a second: the exchange, the roles, the heads of the logs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use crate::model::Log;

use super::cluster::Cluster;
use super::configs::Server;
use super::exchange::Exchange;
use super::scrape::{Histogram, Metrics, Scraper};
use super::verdict::Counts;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A database that does not answer within this is away.
const ANSWER_SECONDS_MAX: u64 = 2;
/// The table whose latency is reported.
const LATENCY_LABELS: [(&str, &str); 1] = [("table", "orderbook_deltas")];

/// A log of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub log_id: String,
    pub head: i64,
}

pub type Heads = BTreeMap<Log, Head>;

/// A gatherer at one moment. What could not be asked is none.
#[derive(Debug, Clone, Default)]
pub struct GathererView {
    /// `healthy`, `degraded` or `unhealthy`, as it says itself.
    pub health: Option<String>,
    pub heads: Option<Heads>,
    pub journal_bytes: Option<f64>,
    /// Bytes of records ever taken, and how far all logs have come in them.
    pub journal_written: Option<f64>,
    pub journal_committed: Option<f64>,
    /// Whether it sees every channel and every book, as far as it knows.
    pub is_whole: bool,
}

impl GathererView {
    pub fn rows(&self) -> Option<u64> {
        self.heads.as_ref().map(|heads| total(&counts(heads)))
    }
}

/// Production at one moment.
#[derive(Debug, Clone, Default)]
pub struct ProductionView {
    pub heads: Option<Heads>,
    /// Position by gatherer, log and log identity.
    pub cursors: BTreeMap<(String, Log, String), i64>,
    /// Health of the deduplicator.
    pub health: Option<String>,
    pub lag_seconds: Option<f64>,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub at: Option<Instant>,
    pub published: Counts,
    pub gatherers: Vec<GathererView>,
    pub production: ProductionView,
    /// Rows that the deduplicator read and did not need, over all its lives.
    pub skipped: f64,
    /// Seconds from the exchange's clock, and from the gatherer's socket, to production.
    pub from_exchange: Histogram,
    pub from_socket: Histogram,
}

impl View {
    pub fn produced(&self) -> Counts {
        self.production.heads.as_ref().map(counts).unwrap_or_default()
    }

    /// Whether production has as many rows of each table as were published.
    pub fn has_everything(&self) -> bool {
        let (wanted, there) = (self.published, self.produced());
        there.orderbook_deltas >= wanted.orderbook_deltas
            && there.trades >= wanted.trades
            && there.tickers >= wanted.tickers
            && there.market_lifecycle >= wanted.market_lifecycle
    }

    /// Whether every cursor stands at the head of its log.
    pub fn is_merged(&self, ids: &[String]) -> bool {
        ids.iter().zip(&self.gatherers).all(|(id, gatherer)| {
            let Some(heads) = &gatherer.heads else { return false };
            heads.iter().all(|(log, head)| {
                let key = (id.clone(), *log, head.log_id.clone());
                let position = self.production.cursors.get(&key).copied().unwrap_or_default();
                position >= head.head
            })
        })
    }

    /// What must change as long as anything is under way.
    pub fn progress(&self) -> (u64, Vec<Option<u64>>, i64) {
        let positions = self
            .production
            .cursors
            .iter()
            .filter(|((_, log, _), _)| is_fact(*log))
            .map(|(_, position)| *position)
            .sum();
        let gathered = self.gatherers.iter().map(GathererView::rows).collect();
        (total(&self.produced()), gathered, positions)
    }
}

/// Whether a log holds what the exchange said, not what recorders add by themselves (snapshots that
/// they asked for, coverage).
const fn is_fact(log: Log) -> bool {
    !matches!(log, Log::OrderbookSnapshots | Log::Coverage)
}

fn counts(heads: &Heads) -> Counts {
    let of =
        |log| heads.get(&log).map_or(0, |head: &Head| u64::try_from(head.head).unwrap_or_default());
    Counts {
        orderbook_deltas: of(Log::OrderbookDeltas),
        trades: of(Log::Trades),
        tickers: of(Log::Tickers),
        market_lifecycle: of(Log::MarketLifecycle),
    }
}

const fn total(counts: &Counts) -> u64 {
    counts.total()
}

/// One database that is asked again and again over one session.
struct Database {
    cluster: Arc<Cluster>,
    client: Option<Client>,
}

impl Database {
    fn new(cluster: &Arc<Cluster>) -> Self {
        Self { cluster: Arc::clone(cluster), client: None }
    }

    async fn ask<T>(&mut self, question: impl AsyncFn(&Client) -> Result<T>) -> Option<T> {
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let answer = timeout(limit, async {
            let client = match self.client.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.cluster.connect().await?,
            };
            let answer = question(&client).await;
            self.client = Some(client);
            answer
        })
        .await;
        match answer {
            Ok(Ok(answer)) => Some(answer),
            // Expected while a database is down; that it is down is what the view then says.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

async fn heads(client: &Client) -> Result<Heads> {
    let rows = client.query("SELECT name, log_id::text, head FROM logs", &[]).await?;
    let mut heads = Heads::new();
    for row in rows {
        if let Some(log) = Log::from_name(row.try_get(0)?) {
            heads.insert(log, Head { log_id: row.try_get(1)?, head: row.try_get(2)? });
        }
    }
    Ok(heads)
}

async fn production(client: &Client) -> Result<(Heads, BTreeMap<(String, Log, String), i64>)> {
    let sql = "SELECT gatherer, table_name, log_id::text, position FROM sync_cursors";
    let mut cursors = BTreeMap::new();
    for row in client.query(sql, &[]).await? {
        if let Some(log) = Log::from_name(row.try_get(1)?) {
            cursors.insert((row.try_get(0)?, log, row.try_get(2)?), row.try_get(3)?);
        }
    }
    Ok((heads(client).await?, cursors))
}

/// A counter or histogram of a process that is killed and starts from 0 again.
#[derive(Debug, Default)]
struct OverLives {
    earlier: Histogram,
    current: Histogram,
}

impl OverLives {
    fn update(&mut self, now: Histogram) {
        if now.count() < self.current.count() {
            self.earlier.merge(&self.current);
        }
        self.current = now;
    }

    fn sum(&self) -> Histogram {
        let mut sum = self.earlier.clone();
        sum.merge(&self.current);
        sum
    }
}

/// What is looked at.
pub struct Observer {
    exchange: Arc<Exchange>,
    scraper: Scraper,
    gatherers: Vec<(Server, Database)>,
    deduplicator: Server,
    production: Database,
    from_exchange: OverLives,
    from_socket: OverLives,
    skipped_earlier: f64,
    skipped: f64,
}

impl Observer {
    pub fn new(
        exchange: Arc<Exchange>,
        gatherers: Vec<(Server, Arc<Cluster>)>,
        deduplicator: Server,
        production: &Arc<Cluster>,
    ) -> Self {
        Self {
            exchange,
            scraper: Scraper::new(),
            gatherers: gatherers
                .into_iter()
                .map(|(server, cluster)| (server, Database::new(&cluster)))
                .collect(),
            deduplicator,
            production: Database::new(production),
            from_exchange: OverLives::default(),
            from_socket: OverLives::default(),
            skipped_earlier: 0.0,
            skipped: 0.0,
        }
    }

    /// Looks for ever and tells each view.
    pub async fn run(mut self, views: watch::Sender<View>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let view = self.look().await;
            if views.send(view).is_err() {
                return;
            }
        }
    }

    async fn look(&mut self) -> View {
        // Before the databases are asked, so that what they hold is never less than it by much.
        let published = published(&self.exchange);
        let at = Some(Instant::now());
        let scraper = &self.scraper;
        let gatherers = join_all(
            self.gatherers
                .iter_mut()
                .map(|(server, database)| look_at_gatherer(scraper, *server, database)),
        );
        let deduplicator = async {
            tokio::join!(
                scraper.metrics(self.deduplicator.metrics),
                health(scraper, self.deduplicator.health)
            )
        };
        let (gatherers, (metrics, health), production) =
            tokio::join!(gatherers, deduplicator, self.production.ask(production));
        let lag_seconds = metrics.as_ref().ok().and_then(|m| m.max("dedup_sync_lag_seconds"));
        if let Ok(metrics) = metrics {
            self.take_over(&metrics);
        }
        let (heads, cursors) = match production {
            Some((heads, cursors)) => (Some(heads), cursors),
            None => (None, BTreeMap::new()),
        };
        View {
            at,
            published,
            gatherers,
            production: ProductionView { heads, cursors, health, lag_seconds },
            skipped: self.skipped_earlier + self.skipped,
            from_exchange: self.from_exchange.sum(),
            from_socket: self.from_socket.sum(),
        }
    }

    fn take_over(&mut self, metrics: &Metrics) {
        let histogram = |name| metrics.histogram(name, &LATENCY_LABELS);
        self.from_exchange.update(histogram("dedup_exchange_to_production_seconds"));
        self.from_socket.update(histogram("dedup_received_to_production_seconds"));
        let skipped = metrics.sum("dedup_duplicates_skipped_total", &[]).unwrap_or_default();
        if skipped < self.skipped {
            self.skipped_earlier += self.skipped;
        }
        self.skipped = skipped;
    }
}

/// What the exchange published so far.
pub fn published(exchange: &Exchange) -> Counts {
    let counts = exchange.progress();
    Counts {
        orderbook_deltas: counts.orderbook_deltas,
        trades: counts.trades,
        tickers: counts.tickers,
        market_lifecycle: counts.market_lifecycle,
    }
}

async fn look_at_gatherer(
    scraper: &Scraper,
    server: Server,
    database: &mut Database,
) -> GathererView {
    let (metrics, health, heads) = tokio::join!(
        scraper.metrics(server.metrics),
        health(scraper, server.health),
        database.ask(heads)
    );
    let metrics = metrics.unwrap_or_default();
    let value = |name| metrics.sum(name, &[]);
    let compare = |have, of| value(have).zip(value(of)).filter(|(_, of)| *of > 0.0);
    // Of one missing session either the twin is there (global channels have two), or it is one for
    // books, and then books are missing too.
    let has_sessions =
        compare("gatherer_websocket_connections", "gatherer_websocket_connections_planned")
            .is_some_and(|(have, planned)| have + 1.0 >= planned);
    let has_books = compare("gatherer_books", "gatherer_books_wanted")
        .is_some_and(|(have, wanted)| have >= wanted);
    GathererView {
        health,
        heads,
        journal_bytes: value("gatherer_journal_bytes"),
        journal_written: value("gatherer_journal_written_position"),
        journal_committed: value("gatherer_journal_committed_position"),
        is_whole: has_sessions && has_books,
    }
}

async fn health(scraper: &Scraper, at: SocketAddr) -> Option<String> {
    let body = scraper.health(at).await.context("ask for health").ok()?;
    body.get("status").and_then(|status| status.as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(of: &[(Log, i64)]) -> Heads {
        of.iter().map(|(log, head)| (*log, Head { log_id: "x".to_owned(), head: *head })).collect()
    }

    #[test]
    fn merged_means_every_cursor_of_the_present_log_is_at_its_head() {
        let ids = ["gatherer-1".to_owned()];
        let mut view = View {
            gatherers: vec![GathererView {
                heads: Some(heads(&[(Log::Trades, 5), (Log::Coverage, 0)])),
                ..GathererView::default()
            }],
            ..View::default()
        };
        assert!(!view.is_merged(&ids));
        let key = |log_id: &str| ("gatherer-1".to_owned(), Log::Trades, log_id.to_owned());
        view.production.cursors.insert(key("before it was wiped"), 9);
        assert!(!view.is_merged(&ids));
        view.production.cursors.insert(key("x"), 5);
        assert!(view.is_merged(&ids));
        view.gatherers = vec![GathererView::default()];
        assert!(!view.is_merged(&ids), "a database that does not answer is not known to be merged");
    }

    #[test]
    fn progress_is_of_facts_alone() {
        let mut view = View::default();
        view.production.heads = Some(heads(&[(Log::Trades, 5)]));
        let before = view.progress();
        view.production.heads = Some(heads(&[(Log::Trades, 5), (Log::OrderbookSnapshots, 7)]));
        let key = ("gatherer-1".to_owned(), Log::OrderbookSnapshots, "x".to_owned());
        view.production.cursors.insert(key, 5);
        assert_eq!(view.progress(), before);
        view.production.heads = Some(heads(&[(Log::Trades, 6)]));
        assert_ne!(view.progress(), before);
    }
}
