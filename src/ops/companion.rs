//! A task that lives in the process of a role that does not know it: it brings its metrics and what it
//! says about its health, and nothing that befalls it ends the role.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::health::Status;
use super::metrics::Registry;

type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// What it takes to run one.
pub struct Companion {
    /// Its member in the body of `/health`, and the name of its task.
    pub name: &'static str,
    /// What it says about itself.
    pub health: watch::Receiver<(Status, Value)>,
    pub register: Box<dyn FnOnce(&mut Registry) + Send>,
    /// Runs until the token is cancelled.
    pub work: Box<dyn FnOnce(CancellationToken) -> Work + Send>,
}

impl fmt::Debug for Companion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Companion({})", self.name)
    }
}
