//! What a daemon tells systemd about itself; nothing happens where systemd did not start it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Start-up is over: units ordered after this one may start.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says twice in each `WatchdogSec` of the unit, until `stop`, that the runtime still gives tasks their
/// turn: systemd ends and restarts a process that has come to a halt. Where no unit asks for it, this
/// only waits. It says nothing about databases or the exchange, which no restart would cure.
///
/// # Errors
/// Never: a result makes it a task like the others.
pub async fn watchdog(stop: CancellationToken) -> anyhow::Result<()> {
    let asked = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
    let Some(within) = asked else {
        stop.cancelled().await;
        return Ok(());
    };
    let mut ticks = tokio::time::interval((within / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => tell(&[NotifyState::Watchdog]),
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "could not notify systemd");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};

    use super::*;

    const WITHIN: Duration = Duration::from_millis(100);

    /// Not a test of its own: the process that the one below listens to. Its only worker stops when a
    /// byte comes, and the process ends with its input.
    #[test]
    #[ignore = "started by the test below"]
    fn child_that_is_watched() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(watchdog(CancellationToken::new()));
        let mut byte = [0];
        std::io::stdin().read_exact(&mut byte).unwrap();
        runtime.spawn(async {
            let (_sender, nothing) = std::sync::mpsc::channel::<()>();
            nothing.recv().ok();
        });
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        runtime.shutdown_background();
    }

    #[test]
    fn a_runtime_that_has_come_to_a_halt_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "ops::systemd::tests::child_that_is_watched"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WITHIN.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = || {
            let mut text = [0; 64];
            let length = systemd.recv(&mut text).ok()?;
            Some(String::from_utf8_lossy(&text[..length]).trim().to_owned())
        };
        for _ in 0..3 {
            assert_eq!(told().as_deref(), Some("WATCHDOG=1"));
        }
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"x").unwrap();
        // What was under way still comes; then nothing does for many times the interval.
        systemd.set_read_timeout(Some(10 * WITHIN)).unwrap();
        let late = std::iter::from_fn(told).take(20).count();
        assert!(late < 20, "it goes on although its worker stands still");
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}
