//! Parses the command line, loads the configuration, runs the role, and maps its result to an exit
//! code.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod kalshi;
mod log;
mod model;
mod ops;
mod pg;
mod role;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use cli::Command;
use config::{ConfigErrors, Loaded};
use ops::exit::{Exit, UsageError};
use ops::hangup::Hangup;
use ops::shutdown::Shutdown;
use ops::telemetry::{self, Format};

/// For blocking work that is still under way when a role has ended; what it may not lose is on disk.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(code) => return code,
    };
    match run(command) {
        Ok(()) => Exit::Stopped.into(),
        Err(error) => {
            telemetry::report(&error);
            Exit::of(&error).into()
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    #[cfg(feature = "failpoints")]
    ops::crash::arm();
    // Another provider can only have been installed by a library, which none of ours does.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("worker")
        .build()
        .context("start runtime")?;
    let result = runtime.block_on(Box::pin(dispatch(command)));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    result
}

/// One arm a command: load, log, run.
async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Gather(arguments) if arguments.check => {
            let config = load(config::load_gatherer(&arguments.config), Output::Person)?;
            let as_json = matches!(arguments.format, cli::Format::Json);
            role::gather::check::run(config, as_json).await?;
            announce_fine(&arguments.config, as_json)
        }
        Command::Gather(arguments) if arguments.plan => {
            let config = load(config::load_gatherer(&arguments.config), Output::Person)?;
            let markets_max = arguments.markets_max.map(usize::try_from).transpose();
            let options = role::gather::forecast::Options {
                gatherers: arguments.gatherers,
                markets_max: markets_max.context("count markets")?,
                json: matches!(arguments.format, cli::Format::Json),
            };
            role::gather::forecast::run(config, options).await
        }
        Command::Gather(arguments) => {
            let config = load(config::load_gatherer(&arguments.config), Output::Configured)?;
            let file = arguments.config.clone();
            // A key that is kept elsewhere is fetched, which takes its time.
            let reload = Arc::new(move |why: role::gather::reload::Why| {
                let loaded = tokio::task::block_in_place(|| config::load_gatherer(&file));
                reload(loaded, why == role::gather::reload::Why::Asked)
            });
            let shutdown = Shutdown::listen().context("install signals")?;
            role::gather::run(config, reload, shutdown).await?;
            tracing::info!("stopped");
            Ok(())
        }
        Command::Dedup(arguments) if arguments.check => {
            let config = load(config::load_deduplicator(&arguments.config), Output::Person)?;
            let as_json = matches!(arguments.format, cli::Format::Json);
            let mut others = Vec::new();
            if let Some(archive) = archive_of(&arguments.config)? {
                let found = role::archive::check(&archive).await;
                others.push(("archive", archive.place_name(), found));
            }
            role::dedup::check(config, others, as_json).await?;
            announce_fine(&arguments.config, as_json)
        }
        Command::Dedup(arguments) if arguments.status => {
            let config = load(config::load_deduplicator(&arguments.config), Output::Person)?;
            role::dedup::status(config, matches!(arguments.format, cli::Format::Json)).await
        }
        Command::Dedup(arguments) if arguments.only == Some(cli::Part::Archive) => {
            let archive = load(config::load_archive(&arguments.config), Output::Configured)?;
            let config = archive.ok_or_else(|| no_archive(&arguments.config))?;
            let hangup = Hangup::listen().context("listen to SIGHUP")?;
            let file = arguments.config;
            tokio::spawn(follow_log_level(hangup, move || {
                reload(config::load_archive(&file), true).map(drop)
            }));
            role::archive::run(config, Shutdown::listen().context("install signals")?).await?;
            tracing::info!("stopped");
            Ok(())
        }
        Command::Dedup(arguments) => {
            let config = load(config::load_deduplicator(&arguments.config), Output::Configured)?;
            let archive = match arguments.only {
                Some(_) => None,
                None => archive_of(&arguments.config)?,
            };
            let hangup = Hangup::listen().context("listen to SIGHUP")?;
            let file = arguments.config;
            tokio::spawn(follow_log_level(hangup, move || {
                reload(config::load_deduplicator(&file), true).map(drop)
            }));
            let beside = archive.map(role::archive::companion);
            let shutdown = Shutdown::listen().context("install signals")?;
            role::dedup::run(config, beside, shutdown).await?;
            tracing::info!("stopped");
            Ok(())
        }
        Command::Migrate(arguments) => {
            let database = load(config::load_either(&arguments.config), Output::Person)?;
            let options = role::migrate::Options {
                status: arguments.status,
                dry_run: arguments.dry_run,
                engine: database.engine,
            };
            role::migrate::run(database.target, database.admin, database.schema, options).await
        }
        Command::Archive(arguments) => archive(arguments.command).await,
        Command::RotatePassword(arguments) => rotate_password(arguments).await,
        Command::Verify(arguments) => verify(arguments.check).await,
        Command::Sandbox(arguments) => sandbox(*arguments).await,
    }
}

/// A configuration that was not read, for whoever starts the process again: it helps when a place of
/// secrets was away, and does not when the file is wrong.
fn refused(errors: ConfigErrors) -> anyhow::Error {
    if errors.is_passing() {
        return errors.into();
    }
    UsageError(errors.to_string()).into()
}

/// What a deduplicator's file says about the archive, beside what else was loaded from it.
fn archive_of(file: &Path) -> anyhow::Result<Option<role::archive::Config>> {
    let loaded = config::load_archive(file).map_err(refused)?;
    Ok(loaded.config)
}

fn no_archive(file: &Path) -> UsageError {
    UsageError(format!("{}: archive: is required, and not switched off", file.display()))
}

/// The archive of a deduplicator's file, for a command about it.
fn archive_there(file: &Path) -> anyhow::Result<role::archive::Config> {
    let archive = load(config::load_archive(file), Output::Person)?;
    Ok(archive.ok_or_else(|| no_archive(file))?)
}

async fn verify_archive(arguments: cli::ArchiveVerify) -> anyhow::Result<()> {
    let options = role::archive::verify::Options {
        since: arguments.since,
        books: arguments.books,
        offline: arguments.offline,
        json: matches!(arguments.format, cli::Format::Json),
    };
    role::archive::verify::run(&archive_there(&arguments.config)?, &options).await
}

/// Reads and tends the archive.
async fn archive(command: cli::ArchiveCommand) -> anyhow::Result<()> {
    use std::io::Write as _;
    match command {
        cli::ArchiveCommand::Ddl(arguments) => {
            let url = match arguments.url {
                Some(url) => url,
                None => archive_there(&arguments.config)?.place_name(),
            };
            let script = role::archive::ddl::script(arguments.engine, url.trim_end_matches('/'));
            std::io::stdout().write_all(script.as_bytes()).context("write to stdout")
        }
        cli::ArchiveCommand::Verify(arguments) => verify_archive(arguments).await,
        cli::ArchiveCommand::Compact(arguments) => {
            let made = role::archive::compact(&archive_there(&arguments.config)?).await?;
            writeln!(std::io::stdout(), "{made} small parts are now in larger ones")
                .context("write to stdout")
        }
    }
}

/// Translates the arguments of `rotate-password` and runs it.
async fn rotate_password(arguments: cli::RotatePassword) -> anyhow::Result<()> {
    use role::rotate_password::{Action, Options, Strategy, run};
    let wanted = match arguments.role {
        None => config::Wanted::All,
        Some(name) => config::Wanted::Role {
            name,
            secret: arguments.secret,
            strategy: match arguments.strategy {
                cli::Strategy::Single => Strategy::Single,
                cli::Strategy::Alternating => Strategy::Alternating,
            },
            reload: arguments.reload,
        },
    };
    let jobs = load(config::load_rotation(&arguments.config, &wanted), Output::Person)?;
    let action = match arguments.check_age {
        Some(max) => Action::CheckAge(max),
        None if arguments.rollback => Action::Rollback,
        None if arguments.dry_run => Action::DryRun,
        None => Action::Rotate,
    };
    let json = matches!(arguments.format, cli::Format::Json);
    run(jobs, Options { action, force: arguments.force, json }).await
}

/// Translates the arguments of `verify` and runs it.
async fn verify(check: cli::VerifyCheck) -> anyhow::Result<()> {
    use cli::{Against, VerifyCheck};
    use role::verify::{Check, Options};
    let (file, options) = match check {
        VerifyCheck::Gaps(cli::Gaps { scope, channel, min_duration }) => {
            let min_duration = min_duration.map_or(Ok(0), |it| i64::try_from(it.as_micros()))?;
            let (file, options) = asked(Check::Gaps, scope)?;
            (file, Options { channel, min_duration, ..options })
        }
        VerifyCheck::Books(cli::Books { scope, repair }) => {
            let (file, options) = asked(Check::Books, scope)?;
            (file, Options { repair, ..options })
        }
        VerifyCheck::Trades(cli::Trades { scope, against, repair }) => {
            let Against { against_exchange } = against;
            let (file, options) = asked(Check::Trades, scope)?;
            (file, Options { against_exchange, repair, ..options })
        }
        VerifyCheck::Counts(cli::Counts { checked }) => {
            asked(Check::Counts, cli::Scope { checked, markets: cli::Markets::default() })?
        }
        VerifyCheck::Archive(arguments) => return verify_archive(arguments).await,
        VerifyCheck::All(cli::All { scope, against }) => {
            let Against { against_exchange } = against;
            let (file, options) = asked(Check::All, scope)?;
            (file, Options { against_exchange, ..options })
        }
    };
    role::verify::run(load(config::load_verify(&file), Output::Person)?, options).await
}

/// What every check of `verify` is told, and where the configuration is.
fn asked(
    check: role::verify::Check,
    scope: cli::Scope,
) -> anyhow::Result<(std::path::PathBuf, role::verify::Options)> {
    let cli::Scope { checked, markets } = scope;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = role::verify::Options {
        check,
        since: checked.since.micros(),
        until: checked.until.map(cli::Moment::micros),
        market: markets.market,
        series: markets.series,
        channel: None,
        min_duration: 0,
        against_exchange: false,
        repair: false,
        json: matches!(checked.format, cli::Format::Json),
        textfile: checked.textfile,
        jobs: checked.jobs.map_or(cores, usize::from),
    };
    if options.until.is_some_and(|until| until <= options.since) {
        return Err(UsageError("--until is not after --since".to_owned()).into());
    }
    Ok((checked.config, options))
}

/// Who reads stderr.
#[derive(Clone, Copy)]
enum Output {
    /// A daemon's log, in the form that the configuration says.
    Configured,
    /// Whoever typed the command: text, and only what is wrong.
    Person,
}

/// Takes the configuration out of what was loaded, and starts the log as it says.
fn load<T>(loaded: Result<Loaded<T>, ConfigErrors>, output: Output) -> anyhow::Result<T> {
    let loaded = loaded.map_err(refused)?;
    let log = match output {
        Output::Configured => loaded.telemetry,
        Output::Person => telemetry::Config { level: "warn".to_owned(), format: Format::Text },
    };
    telemetry::init(&log)?;
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    Ok(loaded.config)
}

/// As [`load`], while the process runs; the log level is taken over where it was asked for.
fn reload<T>(loaded: Result<Loaded<T>, ConfigErrors>, with_level: bool) -> anyhow::Result<T> {
    let loaded = loaded.map_err(refused)?;
    if with_level {
        telemetry::set_level(&loaded.telemetry.level)?;
    }
    Ok(loaded.config)
}

/// Takes the log level of a file over at each SIGHUP, for the life of the process.
async fn follow_log_level(mut hangup: Hangup, read: impl Fn() -> anyhow::Result<()>) {
    loop {
        hangup.next().await;
        let taken = read();
        hangup.answered(taken.is_ok());
        match taken {
            Ok(()) => tracing::info!(
                "the log level is taken over; what else differs is, at the next start"
            ),
            Err(failure) => tracing::error!(
                error = ops::exit::chain(&failure),
                "the configuration is not taken over: what was in force stays"
            ),
        }
    }
}

/// The last line for people; a program has read that all is well.
fn announce_fine(file: &Path, as_json: bool) -> anyhow::Result<()> {
    use std::io::Write as _;
    if as_json {
        return Ok(());
    }
    writeln!(std::io::stdout(), "{}: configuration and connections are fine", file.display())
        .context("write to stdout")
}

/// Translates the arguments of `sandbox` and runs it.
async fn sandbox(arguments: cli::Sandbox) -> anyhow::Result<()> {
    use role::sandbox::{ChaosKind, Format as Verdict, Options, Pace, Source};
    telemetry::init(&telemetry::Config { level: "warn".to_owned(), format: Format::Text })?;
    let shutdown = Shutdown::listen().context("install signals")?;
    if let Some(cli::SandboxCommand::Exchange(alone)) = arguments.command {
        let flow = alone.flow;
        let source = if alone.idle {
            Source::Idle
        } else if flow.replay.is_empty() {
            let markets = usize::try_from(flow.markets).context("count markets")?;
            let multivariate = usize::try_from(flow.multivariate).context("count markets")?;
            let rate = Pace { mean: flow.rate, burst: flow.burst };
            Source::Generated { markets, multivariate, rate, duration: flow.duration }
        } else {
            Source::Replay { files: flow.replay, speed: flow.speed.unwrap_or(1.0) }
        };
        return role::sandbox::exchange_only(alone.listen, source, flow.seed, shutdown).await;
    }
    let flow = arguments.flow;
    let mut chaos = Vec::new();
    for choice in arguments.chaos {
        let kinds = match choice {
            cli::Chaos::All => {
                ChaosKind::fitting(usize::from(arguments.gatherers), !flow.replay.is_empty())
            }
            cli::Chaos::One(kind) => vec![kind],
        };
        chaos.extend(kinds);
    }
    let outages = [ChaosKind::StopPostgres, ChaosKind::StopProduction];
    if arguments.outage.is_some() && !outages.iter().any(|kind| chaos.contains(kind)) {
        let text = "--outage is for --chaos stop-postgres or stop-production: neither is asked for";
        return Err(UsageError(text.to_owned()).into());
    }
    let defaults = Options::default();
    let options = Options {
        markets: usize::try_from(flow.markets).context("count markets")?,
        multivariate: usize::try_from(flow.multivariate).context("count markets")?,
        rate: flow.rate,
        burst: flow.burst,
        gatherers: usize::from(arguments.gatherers),
        connections: arguments.connections,
        duration: flow.duration.unwrap_or(defaults.duration),
        speed: flow.speed.unwrap_or(defaults.speed),
        seed: flow.seed,
        replay: flow.replay,
        chaos,
        outage: arguments.outage.unwrap_or(defaults.outage),
        format: match arguments.format {
            cli::Format::Table => Verdict::Table,
            cli::Format::Json => Verdict::Json,
        },
        archive: arguments.archive,
        keep: arguments.keep,
        postgres: arguments.postgres,
        dir: arguments.dir,
    };
    Box::pin(role::sandbox::run(options, shutdown)).await
}
