//! The task that keeps production's partitions: some ahead of time, none past the retention.
//!
//! What it does not get done is no harm, only said: the writer makes what it needs itself, and what
//! should have been dropped stays a while longer.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::metrics::{Metrics, OfTable};
use super::partitions::{self, DAY_MICROS};
use super::production::Tenure;
use super::retention::{self, Outcome, Retention};
use super::table::{self, Table};
use crate::model::Micros;
use crate::ops::exit::chain;
use crate::pg::writer::FenceError;
use crate::pg::{Class, OWNER, Options, Target, error};

/// Pause between rounds; a round without work is a few small queries.
const INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a round that failed: a query in the way may end at any moment.
const INTERVAL_FAILED: Duration = Duration::from_secs(5);
/// Partitions are made this far ahead, so that a day without this task costs nothing.
const AHEAD_MICROS: i64 = 3 * DAY_MICROS;
/// Nothing here is worth a wait behind anybody's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The task.
#[derive(Debug)]
pub struct Upkeep {
    pub target: Target,
    pub tenure: watch::Receiver<Option<Tenure>>,
    pub retention: Retention,
    pub metrics: Metrics,
}

/// What was said last, for each table and for the whole, so that it is said once.
type Said = [Option<String>; table::ALL.len()];

impl Upkeep {
    /// Ends when asked to stop, at any point: what it leaves half done the next round finishes.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
        Ok(())
    }

    /// Ends when the task that keeps the lock has ended.
    async fn keep(&mut self) {
        let mut said = Said::default();
        let mut connect_failed = None;
        loop {
            let tenure = match self.tenure.wait_for(Option::is_some).await {
                Ok(tenure) => tenure.clone(),
                Err(_) => return,
            };
            let Some(tenure) = tenure else { continue };
            let pause = match self.connect().await {
                Ok(mut client) => {
                    connect_failed = None;
                    self.round(&mut client, &tenure, &mut said).await
                }
                Err(error) => {
                    let text = chain(&error);
                    if connect_failed.as_ref() != Some(&text) {
                        tracing::warn!(error = text, "cannot look after partitions, retrying");
                        connect_failed = Some(text);
                    }
                    INTERVAL_FAILED
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.tenure.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let options = Options {
            statement_timeout: Some(STATEMENT_TIMEOUT),
            lock_timeout: Some(LOCK_TIMEOUT),
            idle_in_transaction_timeout: Some(STATEMENT_TIMEOUT),
            // What it makes, detaches and drops belongs to the owner.
            role: Some(OWNER),
            ..Options::default()
        };
        Ok(self.target.connect_with(options).await?)
    }

    /// Looks after every table; gives the pause until the next round.
    async fn round(&self, client: &mut Client, tenure: &Tenure, said: &mut Said) -> Duration {
        let mut pause = INTERVAL;
        for (table, said) in table::ALL.iter().zip(said) {
            let name = table.name();
            let result = self.table(client, tenure, table).await;
            let text = match result {
                Ok(waits) => waits,
                Err(error) => {
                    pause = INTERVAL_FAILED;
                    // Somebody else has the lock: the task that keeps it says so.
                    if error.downcast_ref::<FenceError>().is_some() {
                        return pause;
                    }
                    let class = error::classify_chain(&error);
                    let text = chain(&error);
                    if class == Class::Retry {
                        tracing::debug!(table = name, error = text, "partitions: retrying");
                        continue;
                    }
                    Some(text)
                }
            };
            if let Some(reason) = &text
                && said.as_ref() != Some(reason)
            {
                tracing::warn!(
                    table = name,
                    reason,
                    "partitions of {name} are not as they should be"
                );
            }
            *said = text;
        }
        pause
    }

    /// Makes what is missing ahead and drops what is past the retention, one after the other; the
    /// reason when a consumer is waited for.
    async fn table(
        &self,
        client: &mut Client,
        tenure: &Tenure,
        table: &Table,
    ) -> anyhow::Result<Option<String>> {
        let Some(width) = table.partition_micros else { return Ok(None) };
        let now = Micros::now().0;
        let there = partitions::read(client, table).await?;
        // The next one at least, however wide they are.
        let count = AHEAD_MICROS / width + 1;
        let ahead = (0..=count).map(|n| now.saturating_add(n.saturating_mul(width)));
        let missing = there.missing(ahead);
        if !missing.is_empty() {
            partitions::make(client, tenure.fence, table, &missing).await.context("make ahead")?;
        }
        let label = OfTable { table: table.name() };
        let waits = self.metrics.retention_waits.get_or_create_owned(&label);
        let Some(kept) = self.retention.of(table.log) else { return Ok(None) };
        loop {
            match retention::drop_oldest(client, tenure.fence, table, kept).await? {
                Outcome::Nothing => {
                    waits.set(0);
                    return Ok(None);
                }
                Outcome::Waits(reason) => {
                    waits.set(1);
                    return Ok(Some(format!("not dropped: {reason}")));
                }
                Outcome::Dropped(partition) => {
                    self.metrics.partitions_dropped.get_or_create_owned(&label).inc();
                    let table = table.name();
                    tracing::info!(table, partition, "dropped a partition past the retention");
                }
            }
        }
    }
}
