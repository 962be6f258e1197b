//! How a process is asked to stop, and the one place that ends it when it does not.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::systemd;

/// From the request to stop until the process is ended, drained or not. Below systemd's
/// `TimeoutStopSec`, so that we say ourselves what happened.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// How long the last acts of a process that is ended at once may take.
const LAST_ACTS_MAX: Duration = Duration::from_secs(2);

type Act = Box<dyn FnOnce() + Send>;

/// The request to stop: made by a signal, by the first task that fails, or by `request`. Clones share
/// it. Dropping it does nothing.
#[derive(Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    last_acts: Arc<Mutex<Vec<Act>>>,
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("requested", &self.token.is_cancelled()).finish()
    }
}

impl Shutdown {
    /// A request that only `request` makes: for tests, and for parts of a process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Installs SIGTERM and SIGINT. The first makes the request. From then on (whoever made it) a
    /// second signal, or 25 s, ends the process at once with 143 or 130, or with 1 when no signal was
    /// involved: what is journalled by then is not lost.
    ///
    /// Must be called inside the runtime, once. Fails when the signals cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Self::listen_with(DRAIN_DEADLINE)
    }

    /// As `listen`, with another deadline.
    pub fn listen_with(deadline: Duration) -> io::Result<Self> {
        let shutdown = Self::new();
        let signals = Signals::install()?;
        tokio::spawn(enforce(signals, shutdown.clone(), deadline));
        Ok(shutdown)
    }

    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Asks the process to stop. After `listen` the deadline runs from here: a part of a process that
    /// ends while the process goes on needs a child of `token` instead.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Has something done before the process is ended without a drain, for instance what was received
    /// made durable. All acts together have 2 s, on a thread of their own.
    pub fn before_forced_end(&self, act: impl FnOnce() + Send + 'static) {
        self.last_acts.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(act));
    }

    fn end_at_once(&self, code: i32) -> ! {
        let acts =
            std::mem::take(&mut *self.last_acts.lock().unwrap_or_else(PoisonError::into_inner));
        let (done, ended) = mpsc::channel();
        let run = move || {
            for act in acts {
                act();
            }
            // Nobody waits for it any more after LAST_ACTS_MAX.
            done.send(()).ok();
        };
        let started = std::thread::Builder::new().name("last-acts".to_owned()).spawn(run).is_ok();
        if started && ended.recv_timeout(LAST_ACTS_MAX).is_err() {
            tracing::error!("what had to be done before the end took too long");
        }
        std::process::exit(code)
    }

    /// Waits for the request.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }
}

/// A signal that asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Terminate,
    Interrupt,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// What a shell reports for a process that died of the signal: 128 and its number.
    fn exit_code(self) -> i32 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

struct Signals {
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

async fn enforce(mut signals: Signals, shutdown: Shutdown, deadline: Duration) {
    let mut asked_by = tokio::select! {
        signal = signals.next() => Some(signal),
        () = shutdown.requested() => None,
    };
    if let Some(signal) = asked_by {
        tracing::info!(signal = signal.name(), "stopping");
    }
    systemd::stopping();
    shutdown.request();
    let end = tokio::time::sleep(deadline);
    tokio::pin!(end);
    loop {
        tokio::select! {
            signal = signals.next() => {
                if asked_by.is_some() {
                    tracing::warn!(signal = signal.name(), "asked again: ending before the drain is over");
                    shutdown.end_at_once(signal.exit_code());
                }
                // The process was draining because of a failure: this is the first time that somebody asks.
                asked_by = Some(signal);
            }
            () = &mut end => {
                tracing::error!(deadline_s = deadline.as_secs(), "drain not over at its deadline: ending");
                shutdown.end_at_once(asked_by.map_or(1, Signal::exit_code));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use rustix::process::{Pid, Signal as Kill, kill_process};

    use super::*;

    #[tokio::test]
    async fn clones_share_the_request() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        assert!(!other.token().is_cancelled());
        shutdown.request();
        other.requested().await;
        assert!(other.token().is_cancelled());
    }

    // Not tests of their own: the processes that the tests below send signals to.

    #[test]
    #[ignore = "started by the tests below"]
    fn child_that_drains_at_once() {
        child(Duration::from_secs(60), |_| {}, async {});
    }

    #[test]
    #[ignore = "started by the tests below"]
    fn child_that_never_drains() {
        child(Duration::from_secs(60), |_| {}, std::future::pending());
    }

    #[test]
    #[ignore = "started by the tests below"]
    fn child_that_flushes() {
        let begin = |shutdown: &Shutdown| shutdown.before_forced_end(|| println!("\nflushed"));
        child(Duration::from_secs(60), begin, std::future::pending());
    }

    #[test]
    #[ignore = "started by the tests below"]
    fn child_that_hangs_to_the_last() {
        let begin = |shutdown: &Shutdown| {
            shutdown.before_forced_end(|| {
                loop {
                    std::thread::park()
                }
            })
        };
        child(Duration::from_secs(60), begin, std::future::pending());
    }

    #[test]
    #[ignore = "started by the tests below"]
    fn child_that_misses_its_deadline() {
        child(Duration::from_millis(200), |_| {}, std::future::pending());
    }

    #[test]
    #[ignore = "started by the tests below"]
    fn child_that_fails() {
        child(Duration::from_secs(2), Shutdown::request, std::future::pending());
    }

    fn child(deadline: Duration, begin: impl Fn(&Shutdown), drain: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shutdown = Shutdown::listen_with(deadline).unwrap();
            println!("\nlistening");
            begin(&shutdown);
            shutdown.requested().await;
            println!("\nrequested");
            drain.await;
        });
    }

    struct Process {
        child: Child,
        lines: Box<dyn Iterator<Item = String>>,
    }

    impl Process {
        fn start(name: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--ignored", "--nocapture"])
                .arg(format!("ops::shutdown::tests::child_that_{name}"))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            let mut process = Self { child, lines: Box::new(out.lines().map_while(Result::ok)) };
            process.until("listening");
            process
        }

        fn until(&mut self, line: &str) {
            assert!(self.lines.any(|l| l == line), "the child ended before it said {line:?}");
        }

        fn send(&self, signal: Kill) {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        }

        fn code(&mut self) -> Option<i32> {
            let status = self.child.wait().unwrap();
            assert_eq!(status.signal(), None, "it ends by itself, not by the signal");
            status.code()
        }
    }

    #[test]
    fn a_signal_asks_and_a_drain_in_time_ends_well() {
        for signal in [Kill::TERM, Kill::INT] {
            let mut process = Process::start("drains_at_once");
            process.send(signal);
            process.until("requested");
            assert_eq!(process.code(), Some(0));
        }
    }

    #[test]
    fn a_second_signal_ends_it_at_once() {
        for (second, code) in [(Kill::TERM, 143), (Kill::INT, 130)] {
            let mut process = Process::start("never_drains");
            process.send(Kill::TERM);
            process.until("requested");
            process.send(second);
            assert_eq!(process.code(), Some(code));
        }
    }

    #[test]
    fn what_has_to_be_done_before_the_end_is_done_and_bounded() {
        for name in ["flushes", "hangs_to_the_last"] {
            let mut process = Process::start(name);
            process.send(Kill::TERM);
            process.until("requested");
            process.send(Kill::TERM);
            if name == "flushes" {
                process.until("flushed");
            }
            assert_eq!(process.code(), Some(143), "{name}");
        }
    }

    #[test]
    fn the_deadline_ends_it_too() {
        let mut process = Process::start("misses_its_deadline");
        let asked = Instant::now();
        process.send(Kill::INT);
        assert_eq!(process.code(), Some(130));
        assert!(asked.elapsed() >= Duration::from_millis(190));
        assert_eq!(Process::start("fails").code(), Some(1));
    }

    #[test]
    fn the_first_signal_after_a_failure_is_not_the_second() {
        let mut process = Process::start("fails");
        process.until("requested");
        let asked = Instant::now();
        process.send(Kill::TERM);
        assert_eq!(process.code(), Some(143));
        assert!(asked.elapsed() >= Duration::from_millis(1_000), "the drain had its time");
    }
}
