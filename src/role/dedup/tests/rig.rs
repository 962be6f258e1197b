//! Databases of a production and some gatherers in one throw-away cluster, and ways to look at them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use uuid::Uuid;

use super::super::{Config, GathererTarget, Retention, run};
use crate::ops;
use crate::ops::shutdown::Shutdown;
use crate::pg::Target;
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;

/// The last moment for whatever a test waits for; it takes well under a second here.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub cluster: Cluster,
    pub production: Target,
    pub gatherers: Vec<Target>,
}

/// A delta without what a stream adds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delta {
    pub ticker: String,
    pub exchange_ts: i64,
    pub price: i64,
    pub size_delta: i64,
    pub occurrence: i32,
}

/// Delta `n` of an endless series over a few markets, with some identical ones.
pub fn delta(n: i64) -> Delta {
    Delta {
        ticker: format!("KXTEST-{}", n % 7),
        exchange_ts: 1_800_000_000_000_000 + (n / 3) * 1000,
        price: 10_000 * (n % 5),
        size_delta: 100,
        occurrence: i32::try_from(n % 3).unwrap() + 1,
    }
}

impl Rig {
    pub async fn start(gatherers: usize) -> Self {
        let cluster = Cluster::start();
        let production = cluster.create_with("production", Schema::Production).await;
        let mut targets = Vec::new();
        for n in 1..=gatherers {
            targets.push(cluster.create_with(&format!("g{n}"), Schema::Gatherer).await);
        }
        Self { cluster, production, gatherers: targets }
    }

    /// The role comes with the rights of its logins; whoever looks on is a superuser.
    pub fn config(&self, id: &str) -> Config {
        let any = "127.0.0.1:0".parse().unwrap();
        let gatherers = self.gatherers.iter().enumerate();
        Config {
            deduplicator_id: id.to_owned(),
            gatherers: gatherers
                .map(|(n, database)| GathererTarget {
                    id: format!("gatherer-{}", n + 1),
                    database: login("dedup_reader", database),
                })
                .collect(),
            production: login("deduplicator", &self.production),
            markets: None,
            retention: Retention::default(),
            server: ops::http::Config { health: any, metrics: any },
        }
    }

    pub fn run(&self) -> Running {
        Self::run_with(self.config("deduplicator-1"))
    }

    pub fn run_with(config: Config) -> Running {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(config, None, shutdown.clone()));
        Running { shutdown, task }
    }

    pub async fn production(&self) -> Client {
        self.production.connect().await.unwrap()
    }

    /// Every delta in production, after the check that its log is dense and its head right.
    pub async fn deltas(&self) -> Vec<Delta> {
        let client = self.production().await;
        assert_dense(&client, "orderbook_deltas").await;
        let sql = "SELECT ticker, exchange_ts, price, size_delta, occurrence FROM orderbook_deltas \
                   ORDER BY ticker, exchange_ts, price, size_delta, occurrence";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| Delta {
                ticker: row.get(0),
                exchange_ts: row.get(1),
                price: row.get(2),
                size_delta: row.get(3),
                occurrence: row.get(4),
            })
            .collect()
    }

    /// Waits until every cursor of the table stands at its gatherer's head.
    pub async fn caught_up(&self, table: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let behind = self.behind(table).await;
            if behind == Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "{table} is still {behind:?} rows behind");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn behind(&self, table: &str) -> Option<i64> {
        let production = self.production.connect().await.ok()?;
        let mut behind = 0;
        for (n, target) in self.gatherers.iter().enumerate() {
            let client = target.connect().await.ok()?;
            let sql = "SELECT log_id, head FROM logs WHERE name = $1";
            let row = client.query_one(sql, &[&table]).await.ok()?;
            let (log_id, head): (Uuid, i64) = (row.get(0), row.get(1));
            let sql = "SELECT position FROM sync_cursors \
                       WHERE gatherer = $1 AND table_name = $2 AND log_id = $3";
            let name = format!("gatherer-{}", n + 1);
            let row = production.query_opt(sql, &[&name, &table, &log_id]).await.ok()?;
            behind += head - row.map_or(0, |row| row.get::<_, i64>(0));
        }
        Some(behind)
    }

    pub async fn cursors(&self, table: &str) -> BTreeMap<(String, Uuid), i64> {
        let sql = "SELECT gatherer, log_id, position FROM sync_cursors WHERE table_name = $1";
        let rows = self.production().await.query(sql, &[&table]).await.unwrap();
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
    }
}

/// The same database for another user, who needs no password here.
pub fn login(user: &str, target: &Target) -> Target {
    Target { user: user.to_owned(), ..target.clone() }
}

/// The role, running.
pub struct Running {
    pub shutdown: Shutdown,
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Asks it to stop and gives its result.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.request();
        self.end().await
    }

    /// Waits for it to end by itself.
    pub async fn end(self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the role ends").unwrap()
    }

    /// Ends it as kill -9 does: nothing is drained, the connections just close.
    pub async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }
}

/// Appends as a gatherer's appender does: rows and head in one transaction.
pub async fn append_deltas(target: &Target, deltas: &[Delta]) {
    let mut client = target.connect().await.unwrap();
    let tx = client.transaction().await.unwrap();
    let head: i64 = tx
        .query_one("SELECT head FROM logs WHERE name = 'orderbook_deltas' FOR UPDATE", &[])
        .await
        .unwrap()
        .get(0);
    let tickers: Vec<&str> = deltas.iter().map(|d| d.ticker.as_str()).collect();
    let times: Vec<i64> = deltas.iter().map(|d| d.exchange_ts).collect();
    let prices: Vec<i64> = deltas.iter().map(|d| d.price).collect();
    let sizes: Vec<i64> = deltas.iter().map(|d| d.size_delta).collect();
    let occurrences: Vec<i32> = deltas.iter().map(|d| d.occurrence).collect();
    let sql = "INSERT INTO orderbook_deltas SELECT $1 + n, ts, ts + 5000, ticker, true, price, size, \
               occurrence, 1, 1, 1 FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], \
               $6::int[]) WITH ORDINALITY u (ticker, ts, price, size, occurrence, n)";
    tx.execute(sql, &[&head, &tickers, &times, &prices, &sizes, &occurrences]).await.unwrap();
    let head = head + i64::try_from(deltas.len()).unwrap();
    tx.execute("UPDATE logs SET head = $1 WHERE name = 'orderbook_deltas'", &[&head])
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// Checks that `log_seq` is 1, 2, ... head.
pub async fn assert_dense(client: &Client, table: &str) {
    let sql = format!(
        "SELECT count(*), coalesce(min(log_seq), 1), coalesce(max(log_seq), 0), \
         (SELECT head FROM logs WHERE name = '{table}') FROM {table}"
    );
    let row = client.query_one(sql.as_str(), &[]).await.unwrap();
    let (count, min, max, head): (i64, i64, i64, i64) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!((min, max, head), (1, count, count), "{table}: first, last, head");
}

/// Waits until a question about a database is answered with true.
pub async fn holds(client: &Client, question: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !client.query_one(question, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "never true: {question}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The series given, in the order in which [`Rig::deltas`] shows it, each once.
pub fn union<'a>(parts: impl IntoIterator<Item = &'a Delta>) -> Vec<Delta> {
    let mut all: Vec<Delta> = parts.into_iter().cloned().collect();
    all.sort();
    all.dedup();
    all
}
