//! One run, from the first cluster to the verdict.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::PING_INTERVAL;
use super::chaos::{self, Event};
use super::children::{Role, Spec};
use super::cluster::{self, Cluster};
use super::configs::{self, Server};
use super::display::Screen;
use super::exchange::{self, Exchange, Source};
use super::observe::{self, Observer, View};
use super::options::Options;
use super::ports::Ports;
use super::postgres::Postgres;
use super::report::{Circumstances, Report};
use super::rundir::{self, RunDir};
use super::strikes::{Strikes, Target};
use super::verdict::{EXAMPLES_MAX, Found, Verdict};
use super::{expected, metadata, rows};
use crate::model::Micros;

const DEDUPLICATOR: &str = "deduplicator-1";
/// How long the roles may take until every market is subscribed.
const READY_SECONDS_MAX: u64 = 180;
/// Waiting for rows ends when nothing moved for so long.
const STALL: Duration = Duration::from_secs(30);
/// A snapshot waits 5 s for its market's next change before its place in time is known.
const ANCHORS: Duration = Duration::from_secs(9);
/// How often the roles are looked after.
const TEND_INTERVAL: Duration = Duration::from_millis(200);

/// What is running.
struct Platform<'a> {
    options: &'a Options,
    screen: &'a Arc<Screen>,
    ids: Vec<String>,
    exchange: Arc<Exchange>,
    clusters: Vec<Arc<Cluster>>,
    production: Arc<Cluster>,
    gatherers: Vec<Arc<Role>>,
    deduplicator: Arc<Role>,
    /// Of the gatherers' databases, in their order; the last is production's.
    migrations: Vec<Spec>,
    views: watch::Receiver<View>,
    /// Observer and nothing else: its end is the end of the run.
    _tasks: JoinSet<()>,
    _exchange_stop: DropGuard,
}

/// Runs the platform to its verdict. Whatever it started ends with `dir`.
///
/// # Errors
/// When a step fails, or a role does; then with the end of its log.
pub async fn run(
    options: &Options,
    seed: u64,
    started: Instant,
    postgres: Arc<Postgres>,
    dir: &RunDir,
    screen: &Arc<Screen>,
) -> Result<Report> {
    let length = {
        let options = options.clone();
        tokio::task::spawn_blocking(move || options.length()).await.context("read recordings")??
    };
    let platform = Platform::start(options, seed, postgres, dir, screen).await?;
    let flow = tokio::select! {
        flow = platform.flow(seed, length) => flow?,
        error = platform.tend() => return Err(error),
    };
    platform.judge(seed, started, flow).await
}

/// What remains to be told after the flow.
struct Flow {
    lasted: Duration,
    last: View,
    chaos: Vec<super::strikes::Struck>,
}

impl<'a> Platform<'a> {
    async fn start(
        options: &'a Options,
        seed: u64,
        postgres: Arc<Postgres>,
        dir: &RunDir,
        screen: &'a Arc<Screen>,
    ) -> Result<Self> {
        let ids: Vec<String> = (1..=options.gatherers).map(|n| format!("gatherer-{n}")).collect();
        for name in ["config", "journal", "logs"] {
            rundir::private_dir(&dir.path().join(name)).context("make a directory of the run")?;
        }
        let ports = Ports::default();
        screen.step("making the databases");
        let create = |name: String, kind| {
            let (postgres, ports) = (Arc::clone(&postgres), &ports);
            async move {
                let group = dir.postmaster_group();
                Cluster::create(postgres, dir.path(), &name, kind, group, ports).await.map(Arc::new)
            }
        };
        let (clusters, production) = tokio::try_join!(
            try_join_all(ids.iter().map(|id| create(id.clone(), cluster::Kind::Gatherer))),
            create("production".to_owned(), cluster::Kind::Production),
        )?;
        screen.step("starting the exchange");
        let stop = CancellationToken::new();
        let exchange_stop = stop.clone().drop_guard();
        let exchange = Arc::new(Exchange::start(exchange_config(options, seed), stop).await?);

        let server = || -> Result<Server> {
            let (health, metrics) = (ports.address()?, ports.address()?);
            Ok(Server { health, metrics })
        };
        let servers: Vec<Server> = ids.iter().map(|_| server()).collect::<Result<_>>()?;
        let own_server = server()?;
        let launcher = Launcher::new(dir, !options.chaos.is_empty())?;
        let mut gatherers = Vec::new();
        let mut migrations = Vec::new();
        for (index, (id, cluster)) in ids.iter().zip(&clusters).enumerate() {
            let Some(at) = servers.get(index) else { bail!("count servers") };
            let key = exchange.key(index);
            let journal = dir.path().join("journal").join(id);
            rundir::private_dir(&journal).context("make a journal's directory")?;
            let config = configs::write_gatherer(
                &launcher.configs,
                &configs::Gatherer {
                    id,
                    rest_url: &exchange.rest_url(),
                    ws_url: &exchange.ws_url(),
                    key_id: &key.id,
                    private_key_pem: &key.private_key_pem,
                    cluster,
                    journal: &journal,
                    connections: options.connections,
                    server: *at,
                },
            )?;
            migrations.push(launcher.spec(&format!("migrate-{id}"), "migrate", &config));
            gatherers.push(Arc::new(Role::new(launcher.spec(id, "gather", &config))));
        }
        let sources: Vec<(&str, &Cluster)> = ids
            .iter()
            .zip(&clusters)
            .map(|(id, cluster)| (id.as_str(), cluster.as_ref()))
            .collect();
        let config = configs::write_deduplicator(
            &launcher.configs,
            DEDUPLICATOR,
            &sources,
            &production,
            &exchange.rest_url(),
            options.archive.then(|| dir.path().join("archive")).as_deref(),
            own_server,
        )?;
        migrations.push(launcher.spec("migrate-production", "migrate", &config));
        let deduplicator = Arc::new(Role::new(launcher.spec(DEDUPLICATOR, "dedup", &config)));

        screen.step("migrating the databases");
        try_join_all(migrations.iter().map(Spec::run)).await?;
        let all = clusters.iter().chain([&production]);
        try_join_all(all.map(|cluster| cluster.set_passwords())).await?;
        screen.step("starting the roles");
        for role in gatherers.iter().chain([&deduplicator]) {
            role.start().await?;
        }
        let observed = servers.into_iter().zip(clusters.iter().cloned()).collect();
        let observer = Observer::new(Arc::clone(&exchange), observed, own_server, &production);
        let (sender, views) = watch::channel(View::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(observer.run(sender));
        Ok(Self {
            options,
            screen,
            ids,
            exchange,
            clusters,
            production,
            gatherers,
            deduplicator,
            migrations,
            views,
            _tasks: tasks,
            _exchange_stop: exchange_stop,
        })
    }

    fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.gatherers.iter().chain([&self.deduplicator])
    }

    /// Looks after the roles until one is beyond help.
    async fn tend(&self) -> anyhow::Error {
        loop {
            for role in self.roles() {
                if let Err(error) = role.tend().await {
                    return error;
                }
            }
            sleep(TEND_INTERVAL).await;
        }
    }

    /// From the first subscription until production holds what it will ever hold.
    async fn flow(&self, seed: u64, length: Duration) -> Result<Flow> {
        self.wait_until_ready().await?;
        let strikes = Arc::new(Strikes::new(
            Arc::clone(&self.exchange),
            self.targets(),
            Arc::clone(&self.deduplicator),
            Arc::clone(&self.production),
            self.views.clone(),
            Arc::clone(self.screen),
        ));
        let began = Instant::now();
        self.exchange.publish();
        self.screen.flow(began, length);
        let run =
            chaos::Run { gatherers: self.gatherers.len(), length, outage: self.options.outage };
        let schedule = chaos::schedule(&self.options.chaos, run, seed);
        let faults = carry_out(&strikes, schedule, began);
        let finished = async {
            self.exchange.finished().await;
            Ok(began.elapsed())
        };
        let both = async { tokio::try_join!(finished, faults) };
        let (lasted, ()) = self.showing(both).await?;
        self.screen.step(&format!("published everything in {:.1} s", lasted.as_secs_f64()));
        let anchors = sleep(ANCHORS);
        self.showing(async {
            let total = observe::published(&self.exchange);
            self.wait_until_still(|view| view.published == total && view.has_everything()).await;
            anchors.await;
        })
        .await;
        // The gatherers go first: what they write as they stop belongs into production too.
        self.screen.step("stopping the gatherers");
        try_join_all(self.gatherers.iter().map(|role| role.stop())).await?;
        self.wait_until_still(|view| view.is_merged(&self.ids)).await;
        self.screen.step("waiting until the markets are copied");
        if !metadata::wait_current(&self.production, Micros::now(), STALL).await {
            self.screen.note("the copy of the markets is behind the exchange");
        }
        let last = self.views.borrow().clone();
        self.screen.step("stopping the deduplicator");
        self.deduplicator.stop().await?;
        Ok(Flow { lasted, last, chaos: strikes.done() })
    }

    fn targets(&self) -> Vec<Target> {
        let parts = self.gatherers.iter().zip(&self.clusters).zip(&self.migrations);
        parts
            .map(|((role, cluster), migration)| {
                Target::new(Arc::clone(role), Arc::clone(cluster), migration.clone())
            })
            .collect()
    }

    /// Shows the views while something is awaited.
    async fn showing<T>(&self, until: impl Future<Output = T>) -> T {
        let mut views = self.views.clone();
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                done = &mut until => return done,
                changed = views.changed() => {
                    if changed.is_err() {
                        return until.await;
                    }
                    self.screen.show(&views.borrow_and_update());
                }
            }
        }
    }

    /// Waits until every gatherer takes every open market's book and all roles are up.
    async fn wait_until_ready(&self) -> Result<()> {
        self.screen.step("waiting until every market is subscribed");
        let mut views = self.views.clone();
        let is_up =
            |health: &Option<String>| health.as_deref().is_some_and(|health| health != "unhealthy");
        let ready = timeout(Duration::from_secs(READY_SECONDS_MAX), async {
            loop {
                views.changed().await.context("look at the roles")?;
                let view = views.borrow_and_update();
                let wanted = self.exchange.open_markets() * self.gatherers.len();
                let is_subscribed = wanted > 0 && self.exchange.subscribed_markets() >= wanted;
                let all_up = view.gatherers.iter().all(|gatherer| is_up(&gatherer.health))
                    && is_up(&view.production.health);
                if is_subscribed && all_up {
                    return anyhow::Ok(());
                }
            }
        })
        .await;
        if let Ok(done) = ready {
            return done;
        }
        let view = self.views.borrow();
        let mut text = format!(
            "wait until the roles are ready: after {READY_SECONDS_MAX} s {} of {} order books are \
             subscribed",
            self.exchange.subscribed_markets(),
            self.exchange.open_markets() * self.gatherers.len()
        );
        let healths = view.gatherers.iter().map(|gatherer| &gatherer.health);
        for (role, health) in self.roles().zip(healths.chain([&view.production.health])) {
            let health = health.as_deref().unwrap_or("not answering");
            let tail = rundir::tail(role.log(), 10);
            text.push_str(&format!("\n{} is {health}; the end of its log:\n{tail}", role.name()));
        }
        bail!(text)
    }

    /// Waits until `is_done`, or until nothing has moved for [`STALL`].
    async fn wait_until_still(&self, is_done: impl Fn(&View) -> bool) {
        let mut views = self.views.clone();
        let since = Instant::now();
        let mut moved = (views.borrow().progress(), since);
        while views.changed().await.is_ok() {
            let view = views.borrow_and_update();
            // A look that began before this call may be older than what is waited for.
            if view.at.is_some_and(|at| at >= since) && is_done(&view) {
                return;
            }
            let progress = view.progress();
            if progress != moved.0 {
                moved = (progress, Instant::now());
            } else if moved.1.elapsed() > STALL {
                self.screen.note("nothing moves any more, although not everything has arrived");
                return;
            }
        }
    }

    /// Compares production with the ledger.
    async fn judge(&self, seed: u64, started: Instant, flow: Flow) -> Result<Report> {
        self.screen.step("comparing production with the ledger");
        let client = self.production.connect().await.context("connect to production")?;
        let found = Found {
            deltas: rows::deltas(&client).await?,
            trades: rows::trades(&client).await?,
            tickers: rows::tickers(&client).await?,
            lifecycle: rows::lifecycle(&client).await?,
            snapshots: rows::snapshots(&client).await?,
        };
        let is_replay = !self.options.replay.is_empty();
        let ledger = self.exchange.ledger();
        let keys = self.ids.len();
        let (mut expected, unheard) =
            blocking(move || expected::from_ledger(&ledger, keys, is_replay)).await?;
        let (mut verdict, mut expected) = blocking(move || {
            let verdict = Verdict::new(&mut expected, found);
            (verdict, expected)
        })
        .await?;
        if verdict.published.total() == 0 || verdict.books.compared == 0 {
            bail!("compare production with the ledger: the exchange published nothing");
        }
        let listed = self.exchange.listed_markets(false);
        verdict.markets(metadata::compare(&client, &listed, EXAMPLES_MAX).await?);
        verdict.numbers("production", &rows::densities(&client).await?);
        for (key, (id, cluster)) in self.ids.iter().zip(&self.clusters).enumerate() {
            let client = cluster.connect().await.with_context(|| format!("connect to {id}"))?;
            verdict.numbers(id, &rows::densities(&client).await?);
            let (own, stretches) = (rows::deltas(&client).await?, rows::stretches(&client).await?);
            let id = id.clone();
            (verdict, expected) = blocking(move || {
                verdict.witness(&id, key, &expected, &own, &stretches);
                (verdict, expected)
            })
            .await?;
        }
        let mut restarts = 0;
        for role in self.roles() {
            restarts += role.failures().await;
        }
        let around = Circumstances {
            from_exchange: flow.last.from_exchange.clone(),
            from_socket: flow.last.from_socket.clone(),
            is_replay,
            took: started.elapsed(),
            flow: flow.lasted,
            seed,
            unheard,
            duplicates_skipped: flow.last.skipped,
            restarts,
            chaos: flow.chaos,
        };
        Ok(Report::new(verdict, around))
    }
}

/// Runs the events side by side; each keeps to its own time.
async fn carry_out(strikes: &Arc<Strikes>, schedule: Vec<Event>, began: Instant) -> Result<()> {
    let mut running = JoinSet::new();
    for event in schedule {
        let strikes = Arc::clone(strikes);
        running.spawn(async move { strikes.strike(event, began).await });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("carry out a fault")??;
    }
    Ok(())
}

/// Sorting millions of rows must not hold up the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("compare")
}

fn exchange_config(options: &Options, seed: u64) -> exchange::Config {
    let source = if options.replay.is_empty() {
        Source::Generated {
            markets: options.markets,
            multivariate: options.multivariate,
            rate: exchange::Pace { mean: options.rate, burst: options.burst },
            duration: Some(options.duration),
        }
    } else {
        Source::Replay { files: options.replay.clone(), speed: options.speed }
    };
    exchange::Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        seed,
        keys: options.gatherers,
        source,
        ping_interval: PING_INTERVAL,
    }
}

/// Makes the processes of a run.
struct Launcher {
    program: PathBuf,
    configs: PathBuf,
    logs: PathBuf,
    group: i32,
    restarts: bool,
}

impl Launcher {
    fn new(dir: &RunDir, restarts: bool) -> Result<Self> {
        Ok(Self {
            program: std::env::current_exe().context("find this executable")?,
            configs: dir.path().join("config"),
            logs: dir.path().join("logs"),
            group: dir.role_group(),
            restarts,
        })
    }

    fn spec(&self, name: &str, command: &str, config: &Path) -> Spec {
        Spec {
            name: name.to_owned(),
            program: self.program.clone(),
            args: vec![
                command.to_owned(),
                "--config".to_owned(),
                config.to_string_lossy().into_owned(),
            ],
            log: self.logs.join(format!("{name}.log")),
            group: self.group,
            restarts: self.restarts,
        }
    }
}
