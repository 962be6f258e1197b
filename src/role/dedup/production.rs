//! Production as a whole: the writer's lock, the schema's version, the gatherers' numbers, the ping.
//!
//! One task keeps the lock and publishes the [`Tenure`] under which the six logs may write. While
//! production is away there is none, and everybody waits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::ops::backoff::Backoff;
use crate::ops::exit::{HeldError, chain};
use crate::pg::migrate::{self, Schema};
use crate::pg::writer::{AcquireError, Fence, FenceError, WriterLock};
use crate::pg::{Class, ConnectError, Options, Target, error};

/// How often the lock's session is asked; its answer time is production's ping.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that takes longer counts as this long while it is waited for.
const PING_SLOW: Duration = Duration::from_secs(1);
/// Pings of which the median is reported, so that a single slow one is no verdict.
const PINGS_KEPT: usize = 3;
/// A process that was just killed may hold the lock until the server notices.
const HELD_PATIENCE: Duration = Duration::from_secs(2);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_BASE: Duration = Duration::from_millis(250);
const BACKOFF_CAP: Duration = Duration::from_secs(5);

/// The right to write to production, and what rows carry for each configured gatherer.
#[derive(Debug, Clone)]
pub struct Tenure {
    pub fence: Fence,
    /// By the place of the gatherer in the configuration.
    pub gatherer_ids: Arc<[i16]>,
}

/// The task that keeps the lock.
#[derive(Debug)]
pub struct Keeper {
    pub target: Target,
    /// What this process calls itself in the lock.
    pub holder: String,
    pub gatherers: Arc<[String]>,
    /// Read by the six logs.
    pub tenure: watch::Sender<Option<Tenure>>,
    /// Median answer time, read by health; none while production is away.
    pub ping: watch::Sender<Option<Duration>>,
    /// Why production is away, read by health.
    pub trouble: watch::Sender<Option<String>>,
    /// Ends when the last log's task has dropped its sender: the lock is kept until then.
    pub logs_ended: mpsc::Receiver<()>,
    pub metrics: Metrics,
}

/// Why the lock is not ours.
enum TakeError {
    /// Production is away, or refuses for a reason that passes.
    Away(anyhow::Error),
    Held(HeldError, String),
    /// Nothing that waiting could cure.
    Fatal(anyhow::Error),
}

/// Why the watch over the lock ended.
enum Ended {
    Stopped,
    Lost(anyhow::Error),
    Replaced(HeldError),
}

impl Keeper {
    /// Ends with `Ok` when asked to stop and the logs have ended; with [`HeldError`] when another
    /// process holds or took the lock, with an error when the schema is another, of bad usage when only
    /// another program or configuration cures it.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        let mut said = None;
        let mut held_since: Option<Instant> = None;
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => break,
                taken = self.take() => taken,
            };
            match taken {
                Ok((lock, tenure)) => {
                    tracing::info!(target_database = %self.target, "connected to production RDS");
                    backoff.reset();
                    (said, held_since) = (None, None);
                    self.trouble.send_replace(None);
                    self.tenure.send_replace(Some(tenure));
                    match self.watch_over(&lock, &stop).await {
                        Ended::Stopped => {
                            let _none_left = self.logs_ended.recv().await;
                            break;
                        }
                        Ended::Replaced(error) => return Err(error.into()),
                        Ended::Lost(error) => {
                            self.withdraw();
                            let error = chain(&error);
                            tracing::warn!(error, "lost production RDS, pausing");
                            self.trouble.send_replace(Some(error));
                        }
                    }
                }
                Err(TakeError::Fatal(error)) => return Err(error),
                Err(TakeError::Held(error, holder)) => {
                    // The server may not have noticed yet that our own session of before is gone.
                    let since = *held_since.get_or_insert_with(Instant::now);
                    if holder != self.holder && since.elapsed() > HELD_PATIENCE {
                        return Err(error.into());
                    }
                    let error = error.to_string();
                    self.trouble.send_replace(Some(error.clone()));
                    if holder == self.holder && said.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            "the server still keeps our lost session with the lock, waiting"
                        );
                        said = Some(error);
                    }
                }
                Err(TakeError::Away(error)) => {
                    let error = chain(&error);
                    self.trouble.send_replace(Some(error.clone()));
                    if said.as_ref() != Some(&error) {
                        tracing::warn!(error, "production RDS is away, waiting for it");
                        said = Some(error);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = backoff.wait() => {}
            }
        }
        self.withdraw();
        Ok(())
    }

    fn withdraw(&self) {
        self.tenure.send_replace(None);
        self.report_ping(None);
    }

    fn report_ping(&self, ping: Option<Duration>) {
        let set = |gauge: &Gauge, up: bool| gauge.set(i64::from(up));
        set(&self.metrics.production_connected, ping.is_some());
        self.metrics.production_ping_seconds.set(ping.map_or(f64::NAN, |ping| ping.as_secs_f64()));
        self.ping.send_replace(ping);
    }

    async fn take(&self) -> Result<(WriterLock, Tenure), TakeError> {
        let options = Options { statement_timeout: Some(STATEMENT_TIMEOUT), ..Options::default() };
        let mut client = self.target.connect_with(options).await.map_err(away)?;
        let checked = migrate::check(&client, Schema::Production).await;
        checked.map_err(|error| by_class(error.class(), error.ending()))?;
        let lock = match WriterLock::acquire(&self.target, &self.holder).await {
            Ok(lock) => lock,
            Err(AcquireError::Held(holder)) => {
                return Err(TakeError::Held(HeldError(holder.to_string()), holder.name));
            }
            Err(AcquireError::Connect(error)) => return Err(away(error)),
            Err(error) => return Err(by_class(error.class(), error.into())),
        };
        let fence = lock.fence();
        let ids = self.number_gatherers(&mut client, fence).await.map_err(|error| {
            let class = error::classify_chain(&error);
            by_class(class, error)
        })?;
        Ok((lock, Tenure { fence, gatherer_ids: ids }))
    }

    /// Finds or makes the small numbers that rows carry.
    async fn number_gatherers(
        &self,
        client: &mut tokio_postgres::Client,
        fence: Fence,
    ) -> anyhow::Result<Arc<[i16]>> {
        let tx = client.transaction().await.context("begin")?;
        fence.check(&tx).await?;
        let names: Vec<&str> = self.gatherers.iter().map(String::as_str).collect();
        // Without a conflict clause, which would use up a number each time.
        let sql = "INSERT INTO gatherers (name) SELECT n FROM unnest($1::text[]) n \
                   WHERE NOT EXISTS (SELECT FROM gatherers g WHERE g.name = n)";
        tx.execute(sql, &[&names]).await.context("number gatherers")?;
        let sql = "SELECT g.gatherer_id FROM unnest($1::text[]) WITH ORDINALITY n (name, place) \
                   JOIN gatherers g USING (name) ORDER BY n.place";
        let rows = tx.query(sql, &[&names]).await.context("read gatherers")?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i16>, _>>()?;
        tx.commit().await.context("commit")?;
        anyhow::ensure!(ids.len() == names.len(), "production numbered {} gatherers", ids.len());
        Ok(ids.into())
    }

    async fn watch_over(&self, lock: &WriterLock, stop: &CancellationToken) -> Ended {
        let mut pings = [Duration::ZERO; PINGS_KEPT];
        let mut filled = false;
        loop {
            let asked = Instant::now();
            let mut answer = std::pin::pin!(lock.check());
            let answered = tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                answered = timeout(PING_SLOW, &mut answer) => answered,
            };
            let answered = match answered {
                Ok(answered) => answered,
                Err(_) => {
                    self.report_ping(Some(PING_SLOW));
                    tokio::select! {
                        () = stop.cancelled() => return Ended::Stopped,
                        answered = answer => answered,
                    }
                }
            };
            match answered {
                Ok(()) => {
                    pings.rotate_left(1);
                    if let Some(last) = pings.last_mut() {
                        *last = asked.elapsed();
                    }
                    if !filled {
                        pings = [asked.elapsed(); PINGS_KEPT];
                        filled = true;
                    }
                    self.report_ping(Some(median(pings)));
                }
                // No holder at all means that the database was made anew.
                Err(FenceError::Lost { holder, .. })
                    if holder != self.holder && !holder.is_empty() =>
                {
                    return Ended::Replaced(HeldError(format!(
                        "the writer lock of {} was taken over by {holder}",
                        self.target
                    )));
                }
                Err(error) => return Ended::Lost(error.into()),
            }
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = sleep(PING_INTERVAL) => {}
            }
        }
    }
}

fn median(mut pings: [Duration; PINGS_KEPT]) -> Duration {
    pings.sort_unstable();
    pings.get(PINGS_KEPT / 2).copied().unwrap_or_default()
}

/// Whatever keeps us from connecting may pass: the role waits and says why.
fn away(error: ConnectError) -> TakeError {
    TakeError::Away(error.into())
}

fn by_class(class: Class, error: anyhow::Error) -> TakeError {
    match class {
        // Fenced while registering: somebody was faster, and the next attempt says who.
        Class::Retry | Class::Auth | Class::Held => TakeError::Away(error),
        Class::Duplicate | Class::Fatal => TakeError::Fatal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_ping_is_no_verdict() {
        let ms = Duration::from_millis;
        assert_eq!(median([ms(3), ms(900), ms(4)]), ms(4));
    }
}
