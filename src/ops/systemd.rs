//! What a daemon tells systemd about itself; nothing happens where systemd did not start it.

use sd_notify::NotifyState;

/// Start-up is over: units ordered after this one may start.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "could not notify systemd");
    }
}
