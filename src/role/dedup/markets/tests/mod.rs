//! The market sync over real PostgreSQL and a small exchange that a test holds in its hand.

mod faults;
mod listing;
mod sync;
mod versions;

use self::listing::Listing;
use super::super::Config;
use super::super::tests::rig::{Rig, Running, holds};
use crate::model::Micros;

/// A production without gatherers.
struct Bench {
    rig: Rig,
    listing: Listing,
}

impl Bench {
    async fn start(markets: usize) -> Self {
        Self { rig: Rig::start(0).await, listing: Listing::start(markets).await }
    }

    fn config(&self) -> Config {
        Config { markets: Some(self.listing.config()), ..self.rig.config("deduplicator-1") }
    }

    fn run(&self) -> Running {
        Rig::run_with(self.config())
    }

    async fn holds(&self, question: &str) {
        holds(&self.rig.production().await, question).await;
    }

    /// Waits until every table was read in full and confirmed.
    async fn loaded(&self) {
        self.holds("SELECT bool_and(full_ended IS NOT NULL AND NOT to_confirm) FROM market_sync")
            .await;
    }

    /// Waits until a list of changes of markets that begins from now on has ended.
    async fn refreshed(&self) {
        let now = Micros::now().0;
        let sql = "SELECT synced_until >= ";
        self.holds(&format!("{sql} {now} FROM market_sync WHERE table_name = 'markets'")).await;
    }

    async fn number(&self, query: &str) -> i64 {
        self.rig.production().await.query_one(query, &[]).await.unwrap().get(0)
    }

    async fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.rig.production().await.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// One open version of each key, and versions without gap or overlap.
    async fn assert_history(&self) {
        for (table, key) in
            [("series", "ticker"), ("events", "event_ticker"), ("markets", "ticker")]
        {
            let sql = format!(
                "SELECT count(*) FROM (SELECT valid_from, valid_to, lead(valid_from) OVER \
                 (PARTITION BY {key} ORDER BY valid_from) AS next FROM {table}_history) v \
                 WHERE valid_to IS DISTINCT FROM next OR valid_to <= valid_from"
            );
            assert_eq!(self.number(&sql).await, 0, "{table}");
            let sql = format!(
                "SELECT count(*) FROM (SELECT {key} FROM {table}_history WHERE valid_to IS NULL \
                 GROUP BY {key} HAVING count(*) <> 1) k"
            );
            assert_eq!(self.number(&sql).await, 0, "{table}");
        }
    }
}
