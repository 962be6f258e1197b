//! Requests for fresh snapshots on their way to a session.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::Ticker;

/// The markets of one session whose books are in doubt. A market is in it once, however often it is
/// asked for, so it holds at most as many as the session carries, and none is lost.
#[derive(Debug, Default)]
pub struct Resync {
    tickers: Mutex<BTreeSet<Ticker>>,
    news: Notify,
}

impl Resync {
    /// Asks for a market. Never waits.
    pub fn ask(&self, ticker: Ticker) {
        // A poisoned set is still a set of tickers.
        self.tickers.lock().unwrap_or_else(PoisonError::into_inner).insert(ticker);
        self.news.notify_one();
    }

    /// Takes what was asked for, without waiting.
    pub fn take(&self) -> BTreeSet<Ticker> {
        std::mem::take(&mut *self.tickers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what was asked for as soon as there is anything. Cancel-safe: what is not taken stays.
    pub async fn asked(&self) -> BTreeSet<Ticker> {
        loop {
            let tickers = self.take();
            if !tickers.is_empty() {
                return tickers;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_merge_and_none_is_lost() {
        let resync = Resync::default();
        let ticker = |number: usize| Ticker::parse(&format!("M{}", number % 3_000)).unwrap();
        for number in 0..10_000 {
            resync.ask(ticker(number));
        }
        assert_eq!(resync.asked().await.len(), 3_000);
        assert!(resync.take().is_empty());
        // A wait that was given up takes nothing with it.
        drop(Box::pin(resync.asked()));
        resync.ask(ticker(1));
        assert_eq!(resync.asked().await, BTreeSet::from([ticker(1)]));
    }
}
