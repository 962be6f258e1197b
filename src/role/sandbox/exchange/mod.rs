//! The simulated exchange: Kalshi's REST and WebSocket protocol over generated or recorded markets,
//! with a ledger of everything that it published.
//!
//! It shares the model of numbers and times with the rest of the program, and nothing of the
//! adapter that talks to it: a mistake there must not be made twice and cancel out.

mod auth;
mod blast;
mod capture;
mod commands;
mod connection;
mod control;
mod edits;
#[cfg(test)]
mod faults;
mod flow;
mod frames;
mod generator;
mod hub;
mod inject;
mod keys;
mod ledger;
mod maintenance;
mod market;
mod outbox;
mod publish;
mod replay;
mod rest;
mod rest_faults;
mod schedule;
mod server;
mod sight;
mod standalone;
mod troubles;
mod universe;
mod venue;
mod views;
mod ws;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use auth::Key;
pub use edits::ListedMarket;
pub use flow::Pace;
pub use ledger::{Counts, Ledger, LedgerDelta, PlaceKind};
pub use rest_faults::{Lasting, RestFault, RestRule};
pub use standalone::run_standalone;
pub use troubles::{Mangled, Trouble};

use auth::Account;
use capture::Capture;
use generator::Generator;
use hub::Hub;
use keys::KEYS_MAX;
use market::Market;
use replay::Replay;
use server::{REST_PATH, WS_PATH};

/// The most markets that a generated run lists.
const MARKETS_MAX: usize = 2_000_000;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// From it follows everything that is generated, apart from times.
    pub seed: u64,
    /// Accounts; the i-th belongs to the i-th gatherer.
    pub keys: usize,
    pub source: Source,
    /// Between two pings of the exchange on a connection.
    pub ping_interval: Duration,
}

/// Where the flow comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Made up, at `rate`, over `markets` markets, for `duration` or without end.
    Generated {
        markets: usize,
        /// Multivariate markets beside them.
        multivariate: usize,
        rate: Pace,
        duration: Option<Duration>,
    },
    /// Recorded frames at `speed` times their pace.
    Replay { files: Vec<PathBuf>, speed: f64 },
    /// Nothing is listed and nothing happens by itself.
    Idle,
}

/// A running exchange. Dropping it does not stop it: its token does.
#[derive(Debug)]
pub struct Exchange {
    hub: Arc<Hub>,
    address: SocketAddr,
}

impl Exchange {
    /// Lists the markets, listens, and serves. Publishing begins with [`Self::publish`].
    ///
    /// # Errors
    /// When the configuration is impossible, a file cannot be read, or the address not be bound.
    pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Self> {
        if config.keys == 0 || config.keys > KEYS_MAX {
            bail!("keys must be 1 to {KEYS_MAX}, not {}", config.keys);
        }
        if config.ping_interval.is_zero() {
            bail!("the interval of pings must not be 0");
        }
        let (seed, keys) = (config.seed, config.keys);
        // Keys and files take a while; other tasks go on meanwhile.
        let source = config.source.clone();
        let prepare = tokio::task::spawn_blocking(move || {
            let mut rng = fastrand::Rng::with_seed(seed ^ 0x6B65_7973);
            let accounts: anyhow::Result<Vec<_>> =
                (0..keys).map(|_| Account::generate(&mut rng)).collect();
            let capture = match &source {
                Source::Replay { files, speed } => {
                    if !speed.is_finite() || *speed <= 0.0 {
                        bail!("the speed must be above 0, not {speed}");
                    }
                    Some(Capture::read(files)?)
                }
                Source::Generated { markets, multivariate, rate, .. } => {
                    if *markets == 0 || markets.saturating_add(*multivariate) > MARKETS_MAX {
                        bail!("markets must be 1 to {MARKETS_MAX}, not {markets}");
                    }
                    let Pace { mean, burst } = *rate;
                    if !mean.is_finite() || mean <= 0.0 {
                        bail!("the rate must be above 0, not {mean}");
                    }
                    if !(1.0..=Pace::BURST_MAX).contains(&burst) {
                        bail!(
                            "a burst must be 1 to {} times the rate, not {burst}",
                            Pace::BURST_MAX
                        );
                    }
                    None
                }
                Source::Idle => None,
            };
            Ok((accounts?, capture))
        });
        let (accounts, capture) = prepare.await.context("prepare the exchange")??;
        let hub = Arc::new(Hub::new(accounts, config.ping_interval, stop));
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listen on {}", config.listen))?;
        let address = reachable(listener.local_addr().context("ask for the bound address")?);
        hub.tasks.spawn(server::accept(Arc::clone(&hub), listener));
        spawn_source(&hub, config, capture);
        Ok(Self { hub, address })
    }

    /// Root of the REST calls.
    pub fn rest_url(&self) -> String {
        format!("http://{}{REST_PATH}", self.address)
    }

    /// Where WebSockets connect.
    pub fn ws_url(&self) -> String {
        format!("ws://{}{WS_PATH}", self.address)
    }

    /// Root of the control plane.
    pub fn control_url(&self) -> String {
        format!("http://{}/sandbox", self.address)
    }

    /// The `i`-th account's key; beyond the number of accounts they begin again.
    pub fn key(&self, i: usize) -> Key {
        let at = i % self.hub.accounts.len().max(1);
        match self.hub.accounts.get(at) {
            Some(account) => account.key.clone(),
            None => unreachable!("an exchange has at least one account"),
        }
    }

    /// How many accounts there are.
    pub fn keys(&self) -> usize {
        self.hub.accounts.len()
    }

    /// Begins the flow.
    pub fn publish(&self) {
        self.hub.go.cancel();
    }

    /// Resolves when the source has nothing more, or the exchange stops. An idle source never has.
    pub async fn finished(&self) {
        let mut finished = self.hub.finished.subscribe();
        tokio::select! {
            () = self.hub.stop.cancelled() => {}
            changed = finished.wait_for(|finished| *finished) => {
                debug_assert!(changed.is_ok(), "the hub holds the sender");
            }
        }
    }

    /// What was published so far.
    pub fn progress(&self) -> Counts {
        self.hub.ledger.counts()
    }

    /// Live order-book subscriptions, counted as (key, market).
    pub fn subscribed_markets(&self) -> usize {
        self.hub.with(|venue| venue.subscribed_markets())
    }

    /// Markets that are open for trading.
    pub fn open_markets(&self) -> usize {
        self.hub.with(|venue| venue.open_markets())
    }

    /// Every market as REST lists it now, without what was changed by hand.
    pub fn listed_markets(&self, multivariate: bool) -> Vec<ListedMarket> {
        self.hub.with(|venue| {
            let all = venue.catalog.markets.iter();
            let wanted = all.filter(|market| multivariate || !market.is_multivariate());
            wanted.map(Market::as_listed).collect()
        })
    }

    /// Makes trouble for a key, and returns how many connections it befell at once.
    pub fn trouble(&self, key: usize, trouble: Trouble) -> usize {
        self.hub.trouble(key, trouble)
    }

    /// Lets calls of REST go wrong.
    pub fn rest_fault(&self, rule: RestRule) {
        self.hub.rest_faults().add(rule);
    }

    /// Whether a key is sent everything that is published at the moment.
    pub fn hears(&self, key: usize) -> bool {
        self.hub.hears(key)
    }

    /// A maintenance, announced so long before, that lasts so long: returns when trading has
    /// resumed; at once when there is one already.
    pub async fn maintain(&self, notice: Duration, lasts: Duration) {
        if let Some(maintenance) = self.hub.maintain(notice, lasts) {
            maintenance.await;
        }
    }

    /// Multiplies the pace of a generated flow for a while.
    pub fn burst(&self, factor: f64, time: Duration) {
        self.hub.burst(venue::Burst::Times(factor), time);
    }

    /// Lets so many markets a minute be born, live and end for a while.
    pub fn churn(&self, per_minute: f64, time: Duration) {
        self.hub.churn(per_minute, time);
    }

    /// Whether the source has nothing more.
    pub fn is_finished(&self) -> bool {
        *self.hub.finished.borrow()
    }

    /// Everything published.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.hub.ledger)
    }

    /// Waits until all tasks have ended, after the token was cancelled.
    pub async fn stopped(&self) {
        self.hub.tasks.close();
        self.hub.tasks.wait().await;
    }
}

/// Where a client on this machine reaches what listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}

/// Starts the task that publishes, once it may.
fn spawn_source(hub: &Arc<Hub>, config: Config, capture: Option<Capture>) {
    let task_hub = Arc::clone(hub);
    match config.source {
        Source::Generated { markets, multivariate, rate, duration } => {
            let seed = config.seed;
            let generator =
                hub.with(|venue| Generator::new(venue, seed, (markets, multivariate), rate.mean));
            let flow = flow::generate(task_hub, generator, seed, rate, duration);
            spawn_when_told(hub, flow);
        }
        Source::Replay { speed, .. } => {
            let capture = capture.unwrap_or_default();
            let replay = hub.with(|venue| Replay::list(venue, capture));
            spawn_when_told(hub, replay.play(task_hub, speed));
        }
        Source::Idle => {}
    }
}

fn spawn_when_told(hub: &Arc<Hub>, flow: impl Future<Output = ()> + Send + 'static) {
    let hub = Arc::clone(hub);
    hub.clone().tasks.spawn(async move {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = hub.go.cancelled() => {}
        }
        flow.await;
        hub.finished.send_replace(true);
    });
}
