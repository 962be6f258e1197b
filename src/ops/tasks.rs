//! The tasks of a process: each has a name, and the first that fails stops them all.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;

use anyhow::anyhow;
use tokio::task::{Id, JoinSet};

use super::exit;
use super::shutdown::Shutdown;

type Name = Cow<'static, str>;

/// A set of named tasks. Dropping it aborts them; `wait` is the orderly end.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, Name>,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It ends with `Ok` when its work is over or it was asked to stop; an error or a
    /// panic is a failure of the whole process.
    pub fn spawn<F>(&mut self, name: impl Into<Name>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// Waits until every task has ended. The first failure makes the request to stop, the others get
    /// to drain, and it is what `wait` returns, with the task's name; later ones are logged.
    pub async fn wait(mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let mut first = None;
        while let Some(ended) = self.set.join_next_with_id().await {
            let (id, result) = match ended {
                Ok((id, result)) => (id, result),
                Err(error) => (error.id(), Err(ended_early(error))),
            };
            let name = self.names.remove(&id).unwrap_or(Name::Borrowed("unnamed"));
            let Err(error) = result else { continue };
            let error = error.context(format!("task {name}"));
            // Logged here although it is returned: a drain that never ends must not hide its reason.
            tracing::error!(task = %name, error = %exit::chain(&error), "task failed, stopping");
            shutdown.request();
            first.get_or_insert(error);
        }
        first.map_or(Ok(()), Err)
    }
}

fn ended_early(error: tokio::task::JoinError) -> anyhow::Error {
    match error.try_into_panic() {
        Ok(payload) => anyhow!("panicked: {}", panic_message(payload.as_ref())),
        Err(_) => anyhow!("was aborted"),
    }
}

/// The text of a panic, where it has one.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn all_well_is_ok_and_asks_nobody_to_stop() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new();
        tasks.spawn("a", async { Ok(()) });
        tasks.spawn(format!("b-{}", 1), async { Ok(()) });
        tasks.wait(&shutdown).await.unwrap();
        assert!(!shutdown.token().is_cancelled());
    }

    #[tokio::test]
    async fn the_first_failure_stops_the_others_and_they_drain() {
        let shutdown = Shutdown::new();
        let drained = Arc::new(AtomicBool::new(false));
        let mut tasks = Tasks::new();
        let (token, done) = (shutdown.token(), drained.clone());
        tasks.spawn("drain", async move {
            token.cancelled().await;
            tokio::task::yield_now().await;
            done.store(true, Ordering::SeqCst);
            anyhow::bail!("later failure")
        });
        tasks.spawn("append trades", async { Err(anyhow!("disk full").context("commit batch")) });
        let error = tasks.wait(&shutdown).await.unwrap_err();
        assert_eq!(exit::chain(&error), "task append trades: commit batch: disk full");
        assert!(drained.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_the_name_of_its_task() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new();
        tasks.spawn("decode", async {
            assert!(tokio::task::try_id().is_none(), "head is dense");
            Ok(())
        });
        let error = tasks.wait(&shutdown).await.unwrap_err();
        assert_eq!(exit::chain(&error), "task decode: panicked: head is dense");
        assert!(shutdown.token().is_cancelled());
    }
}
