//! What a running gatherer takes over from its configuration without a restart: the exchange's key,
//! which markets are recorded, and (by whoever reads the file) the log level. No session that is
//! connected is touched.
//!
//! It reads the file again when it is asked to (SIGHUP), and by itself, for the key alone: each minute,
//! and more often while the exchange refuses the one it has. A key that was rotated is so taken up
//! without anybody's help. Sessions that are connected go on under the key of before; those that are
//! refused connect again with the new one, each at a moment of its own.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Config;
use super::health::Vitals;
use super::registry::Filter;
use crate::ops::exit;
use crate::ops::hangup::Hangup;

/// How often a refused key is read again.
const REFUSED_INTERVAL: Duration = Duration::from_secs(10);
/// Of so many of these intervals, how many pass between two looks for a key that is not refused.
const REFUSED_PER_LOOK: u32 = 6;

/// Who wants the configuration read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody who changed it: everything that can be is taken over.
    Asked,
    /// This process, for the key alone.
    Key,
}

/// Reads the configuration again.
pub type Load = Arc<dyn Fn(Why) -> Result<Config> + Send + Sync>;

/// What the task works with.
pub struct Reload {
    pub load: Load,
    /// What is in force.
    pub config: Config,
    pub hangup: Hangup,
    pub vitals: watch::Receiver<Vitals>,
    pub filter: watch::Sender<Filter>,
    /// Wakes the sessions that wait before another attempt.
    pub resume: Arc<watch::Sender<u64>>,
}

impl Reload {
    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<()> {
        let mut ticks = tokio::time::interval(REFUSED_INTERVAL);
        let (mut said, mut waited) = (None, 0_u32);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.hangup.next() => {
                    info!("asked to read the configuration again");
                    let loaded = (self.load)(Why::Asked);
                    self.hangup.answered(loaded.is_ok());
                    match loaded {
                        Ok(config) => self.take(&config),
                        Err(failure) => error!(
                            error = exit::chain(&failure),
                            "the configuration is not taken over: what was in force stays"
                        ),
                    }
                }
                _ = ticks.tick() => {
                    let is_refused = self.vitals.borrow().is_refused();
                    waited = (waited + 1) % REFUSED_PER_LOOK;
                    if !is_refused {
                        said = None;
                        if waited != 0 {
                            continue;
                        }
                    }
                    match (self.load)(Why::Key) {
                        Ok(config) => self.take_key(&config),
                        // A file that is wrong now is told of to whoever asks for it, or needs it.
                        Err(_) if !is_refused => {}
                        Err(failure) => {
                            let failure = exit::chain(&failure);
                            if said.as_ref() != Some(&failure) {
                                warn!(error = failure, "read the refused key again");
                                said = Some(failure);
                            }
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, new: &Config) {
        self.take_key(new);
        let filter = new.markets.filter();
        if new.markets.multivariate == self.config.markets.multivariate
            && new.markets != self.config.markets
        {
            info!("other markets are recorded from now on");
            self.config.markets = new.markets.clone();
            self.filter.send_replace(filter);
        }
        let later = needs_restart(&self.config, new);
        if later.is_empty() {
            info!("the configuration is taken over");
        } else {
            warn!(sections = later.join(", "), "these changes are taken over at the next start");
        }
    }

    fn take_key(&self, new: &Config) {
        let (Some(ours), Some(theirs)) = (&self.config.api.credentials, &new.api.credentials)
        else {
            return;
        };
        if ours.replace(theirs) {
            info!("the exchange's key was replaced");
            self.resume.send_modify(|times| *times += 1);
        }
    }
}

/// The sections that differ and cannot change while the process runs.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    fn differ(old: &impl Debug, new: &impl Debug) -> bool {
        // Secrets show no text, so a changed password is no difference here.
        format!("{old:?}") != format!("{new:?}")
    }
    let urls = |config: &Config| (config.api.rest_url.clone(), config.api.ws_url.clone());
    let multivariate = |config: &Config| config.markets.multivariate;
    [
        ("gatherer_id", differ(&old.gatherer_id, &new.gatherer_id)),
        ("api", urls(old) != urls(new)),
        ("database", differ(&old.database, &new.database)),
        ("journal", differ(&old.journal, &new.journal)),
        ("sessions", differ(&old.sessions, &new.sessions)),
        ("markets.multivariate", multivariate(old) != multivariate(new)),
        ("audit", differ(&old.audit_period, &new.audit_period)),
        ("poller", differ(&old.poller, &new.poller)),
        ("storage", differ(&old.storage, &new.storage)),
        ("server", differ(&old.server, &new.server)),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}
