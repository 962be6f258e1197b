//! What a target shows of itself, and what it asks the driver for.

use std::time::Duration;

use tokio_postgres::config::SslMode;

use super::super::{OWNER, Options, Target, TlsMode};
use crate::ops::secret::Secret;

fn target() -> Target {
    Target {
        host: "db.internal".into(),
        port: 5433,
        database: "kalshi_ts".into(),
        user: "gatherer".into(),
        password: Some(Secret::new("canary-91").into()),
        tls: TlsMode::VerifyFull,
        root_cert: None,
        application_name: "kalshi".into(),
    }
}

#[test]
fn a_target_is_shown_without_its_password() {
    let target = target();
    assert_eq!(target.to_string(), "gatherer@db.internal:5433/kalshi_ts");
    let shown = format!("{target:?} {target:#?}");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("VerifyFull"), "{shown}");
}

#[test]
fn options_become_startup_settings() {
    assert_eq!(Options::default().startup(), "");
    let options = Options {
        statement_timeout: Some(Duration::from_secs(20)),
        lock_timeout: Some(Duration::from_micros(10)),
        idle_in_transaction_timeout: Some(Duration::from_secs(60)),
        read_only: true,
        role: Some(OWNER),
    };
    assert_eq!(
        options.startup(),
        "-c statement_timeout=20000 -c lock_timeout=1 \
         -c idle_in_transaction_session_timeout=60000 -c default_transaction_read_only=on \
         -c role=kalshi_owner"
    );
}

#[test]
fn verification_is_left_to_rustls_and_a_socket_needs_none() {
    let mut target = target();
    assert_eq!(target.config(None, Options::default()).get_ssl_mode(), SslMode::Require);
    target.host = "/run/postgresql".into();
    assert_eq!(target.config(None, Options::default()).get_ssl_mode(), SslMode::Disable);
}
