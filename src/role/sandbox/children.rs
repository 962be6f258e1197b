//! The roles as child processes of the same executable: started, killed, stopped and, as an init
//! system would, started again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::cluster::end;
use super::rundir;

/// How long a role may take to drain after SIGTERM: its own deadline is 25 s.
const DRAIN_SECONDS_MAX: u64 = 40;
/// How long a migration may take.
const MIGRATE_SECONDS_MAX: u64 = 120;
/// The pause before a role that failed is started again.
const RESTART_SECONDS: u64 = 1;
/// Failures of one role, each answered by a restart, after which the run is given up: more than an
/// outage of the usual length has seconds.
const FAILURES_MAX: u32 = 200;
/// Bad usage or configuration: a restart does not cure it.
const EXIT_USAGE: i32 = 64;
const LOG_LINES_SHOWN: usize = 20;

/// What a role runs as.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub log: PathBuf,
    pub group: i32,
    /// Whether a failure is cured by a restart, as under an init system. Without faults being
    /// injected a failure ends the run instead.
    pub restarts: bool,
}

impl Spec {
    fn spawn(&self) -> Result<Child> {
        self.spawn_with(&[])
    }

    fn spawn_with(&self, environment: &[(&str, &str)]) -> Result<Child> {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log)
                .with_context(|| format!("open the log of {}", self.name))
        };
        Command::new(&self.program)
            .args(&self.args)
            // The roles share one machine with their databases and the exchange: a pool of threads for
            // each would mostly hand work from one to the other.
            .env("TOKIO_WORKER_THREADS", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::from(open()?))
            .stderr(Stdio::from(open()?))
            .process_group(self.group)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.name))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it fails, with the end of its log, or takes longer than two minutes.
    pub async fn run(&self) -> Result<()> {
        let mut child = self.spawn()?;
        let status = timeout(Duration::from_secs(MIGRATE_SECONDS_MAX), child.wait())
            .await
            .with_context(|| format!("wait for {}", self.name))?
            .with_context(|| format!("wait for {}", self.name))?;
        if !status.success() {
            return Err(self.failure(status));
        }
        Ok(())
    }

    fn failure(&self, status: ExitStatus) -> anyhow::Error {
        let tail = rundir::tail(&self.log, LOG_LINES_SHOWN);
        anyhow!("{} ended with {status}; the end of {}:\n{tail}", self.name, self.log.display())
    }
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Whether it should run: its end is then a failure.
    wanted: bool,
    failures: u32,
    restart_at: Option<Instant>,
}

/// One role of the run.
#[derive(Debug)]
pub struct Role {
    spec: Spec,
    state: Mutex<State>,
}

impl Role {
    pub fn new(spec: Spec) -> Self {
        Self { spec, state: Mutex::default() }
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// Starts it. Nothing happens when it runs.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub async fn start(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.wanted = true;
        if state.child.is_none() {
            state.child = Some(self.spec.spawn()?);
            state.restart_at = None;
        }
        Ok(())
    }

    /// Starts it so that it ends itself at a crash point, and waits for that: whether it did.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub async fn start_to_crash(&self, place: &str, within: Duration) -> Result<bool> {
        let mut state = self.state.lock().await;
        // Its end is no failure.
        state.wanted = false;
        let child = state.child.insert(self.spec.spawn_with(&[("FAILPOINTS", place)])?);
        match timeout(within, child.wait()).await {
            Ok(ended) => {
                ended.with_context(|| format!("wait for {}", self.name()))?;
                state.child = None;
                Ok(true)
            }
            Err(_elapsed) => Ok(false),
        }
    }

    /// Ends it as a power failure would: SIGKILL, nothing is saved.
    pub async fn kill(&self) {
        let mut state = self.state.lock().await;
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            end(&mut child, Signal::KILL, Duration::from_secs(5)).await;
        }
    }

    /// SIGTERM; it drains and ends with code 0.
    ///
    /// # Errors
    /// When it ends otherwise, or had to be killed after 40 s, with the end of its log.
    pub async fn stop(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.wanted = false;
        let Some(mut child) = state.child.take() else { return Ok(()) };
        let status = end(&mut child, Signal::TERM, Duration::from_secs(DRAIN_SECONDS_MAX)).await;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.spec.failure(status).context("stop by SIGTERM")),
            None => bail!("stop {}: its end was not seen", self.name()),
        }
    }

    /// How often it failed and was started again.
    pub async fn failures(&self) -> u32 {
        self.state.lock().await.failures
    }

    /// Looks after it, to be called a few times a second: starts it again when it failed.
    ///
    /// # Errors
    /// When it failed and a restart is not allowed, would not help, or did not help for the 200th
    /// time.
    pub async fn tend(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if !state.wanted {
            return Ok(());
        }
        if let Some(child) = state.child.as_mut() {
            let Some(status) = child.try_wait().context("watch a role")? else { return Ok(()) };
            state.child = None;
            state.failures += 1;
            let hopeless = !self.spec.restarts
                || status.code() == Some(EXIT_USAGE)
                || state.failures >= FAILURES_MAX;
            if hopeless {
                return Err(self.spec.failure(status));
            }
            tracing::info!(role = self.name(), %status, "role ended and is started again");
            state.restart_at = Some(Instant::now() + Duration::from_secs(RESTART_SECONDS));
        }
        if state.restart_at.is_some_and(|at| Instant::now() >= at) {
            state.child = Some(self.spec.spawn()?);
            state.restart_at = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rundir::RunDir;
    use super::*;

    fn role(run: &RunDir, script: &str, restarts: bool) -> Role {
        Role::new(Spec {
            name: "gatherer-1".to_owned(),
            program: PathBuf::from("sh"),
            args: vec!["-c".to_owned(), script.to_owned()],
            log: run.path().join("gatherer-1.log"),
            group: run.role_group(),
            restarts,
        })
    }

    fn run_dir() -> (tempfile::TempDir, RunDir) {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(Some(parent.path())).unwrap();
        (parent, run)
    }

    /// Tends the role until something is decided about it.
    async fn tend_until_error(role: &Role) -> String {
        for _ in 0..500 {
            if let Err(error) = role.tend().await {
                return format!("{error:#}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no error within 5 s");
    }

    #[tokio::test]
    async fn a_failure_shows_the_end_of_the_log() {
        let (_parent, run) = run_dir();
        let role = role(&run, "for i in $(seq 30); do echo line $i; done; exit 3", false);
        role.start().await.unwrap();
        let error = tend_until_error(&role).await;
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("line 11\n") && error.ends_with("line 30"), "{error}");
        assert!(!error.contains("line 10\n"), "{error}");
    }

    #[tokio::test]
    async fn a_bad_configuration_is_not_tried_again() {
        let (_parent, run) = run_dir();
        let role = role(&run, "exit 64", true);
        role.start().await.unwrap();
        assert!(tend_until_error(&role).await.contains("exit status: 64"));
        assert_eq!(role.failures().await, 1);
    }

    #[tokio::test]
    async fn a_failed_role_is_started_again() {
        let (_parent, run) = run_dir();
        let marker = run.path().join("marker");
        let script = format!("[ -e {0} ] && exec sleep 600; touch {0}; exit 1", marker.display());
        let role = role(&run, &script, true);
        role.start().await.unwrap();
        for _ in 0..300 {
            role.tend().await.unwrap();
            let state = role.state.lock().await;
            if state.failures == 1 && state.child.is_some() {
                break;
            }
            drop(state);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(role.failures().await, 1);
        assert!(role.stop().await.is_err(), "sleep does not end with 0 on SIGTERM");
    }

    #[tokio::test]
    async fn a_killed_role_is_not_a_failure_and_starts_again() {
        let (_parent, run) = run_dir();
        let role = role(&run, "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", false);
        role.start().await.unwrap();
        role.kill().await;
        role.tend().await.unwrap();
        std::fs::remove_file(role.log()).unwrap();
        role.start().await.unwrap();
        role.tend().await.unwrap();
        // Not before it has set its trap.
        while rundir::tail(role.log(), 1) != "up" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        role.stop().await.unwrap();
        assert_eq!(role.failures().await, 0);
    }
}
