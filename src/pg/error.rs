//! What a database error asks for: one function from the error to what to do about it.
//!
//! Retrying is a short list of known conditions; everything else is fatal, because a batch that can
//! never commit must end the process loudly instead of being tried for ever.

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::tls::TlsError;
use super::{migrate, pool, tls, writer};
use crate::ops::secret::SecretError;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same work may succeed later: back off, reconnect, do the same batch again.
    Retry,
    /// Another process holds what this one needs, or has taken it over: stop.
    Held,
    /// The server refused who we are or what we may do, or does not have the database: retry slowly,
    /// a person or a rotation has to act.
    Auth,
    /// A unique key already has this row.
    Duplicate,
    /// A bug, a wrong schema or a missing right: end the process.
    Fatal,
}

/// The class of an error of the driver.
pub fn classify(error: &Error) -> Class {
    match error.code() {
        Some(state) => classify_sqlstate(state.code()),
        None => classify_driver(error),
    }
}

/// The class of a SQLSTATE; unknown ones are fatal.
pub fn classify_sqlstate(code: &str) -> Class {
    match code {
        // deadlock_detected, serialization_failure
        "40P01" | "40001"
        // read_only_sql_transaction: we reached a standby, or storage is full
        | "25006"
        // idle_in_transaction_session_timeout, transaction_timeout: the server ended a slow batch
        | "25P03" | "25P04"
        // query_canceled (statement_timeout), lock_not_available (lock_timeout)
        | "57014" | "55P03" => Class::Retry,
        // object_not_in_prerequisite_state: the database takes no connections at the moment
        "55000" => Class::Retry,
        // invalid_password, invalid_authorization_specification, insufficient_privilege, and
        // invalid_catalog_name (there is no such database)
        "28P01" | "28000" | "42501" | "3D000" => Class::Auth,
        // unique_violation
        "23505" => Class::Duplicate,
        // connection_exception, insufficient_resources, the server's shutdown and start
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("57P0") => {
            Class::Retry
        }
        _ => Class::Fatal,
    }
}

/// Errors that carry no SQLSTATE: the connection's are worth a retry, those that the program makes
/// itself (a wrong type, a missing column, a wrong number of parameters) are bugs.
fn classify_driver(error: &Error) -> Class {
    if error.is_closed() {
        return Class::Retry;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        // TLS failures arrive as I/O errors too: the server's certificate can be repaired while we
        // wait, and a silent downgrade is impossible either way.
        if cause.is::<io::Error>() || cause.is::<rustls::Error>() {
            return Class::Retry;
        }
        source = cause.source();
    }
    // The driver does not publish these two kinds; both come from the peer, before or instead of an
    // answer, so the next connection may well do better.
    match error.to_string().as_str() {
        "unexpected message from server" | "timeout waiting for server" => Class::Retry,
        "error performing TLS handshake" => Class::Retry,
        "authentication error" => Class::Auth,
        _ => Class::Fatal,
    }
}

/// The class of the first database error in a chain, fatal when there is none.
pub fn classify_chain(error: &anyhow::Error) -> Class {
    error.chain().find_map(class_of_cause).unwrap_or(Class::Fatal)
}

fn class_of_cause(cause: &(dyn StdError + 'static)) -> Option<Class> {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Some(classify(error));
    }
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return Some(error.class());
    }
    if let Some(error) = cause.downcast_ref::<writer::FenceError>() {
        return Some(error.class());
    }
    if let Some(error) = cause.downcast_ref::<writer::AcquireError>() {
        return Some(error.class());
    }
    if let Some(error) = cause.downcast_ref::<migrate::VersionError>() {
        return Some(error.class());
    }
    cause.downcast_ref::<pool::GetError>().map(|error| error.class)
}

/// The whole error in one line: the driver's words, the server's message, detail and hint, the
/// place, and the SQLSTATE. Never holds a password; a detail may quote a row's key.
pub fn describe(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return describe_db(db);
    }
    let mut text = error.to_string();
    let mut advice = None;
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        advice = advice.or_else(|| tls::advice(cause));
        source = cause.source();
    }
    if let Some(advice) = advice {
        text.push_str(&format!(" ({advice})"));
    }
    text
}

fn describe_db(db: &DbError) -> String {
    let mut text = format!("{}: {}", db.severity(), db.message());
    let parts = [
        ("detail", db.detail()),
        ("hint", db.hint()),
        ("table", db.table()),
        ("column", db.column()),
        ("constraint", db.constraint()),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            text.push_str(&format!("; {name}: {value}"));
        }
    }
    text.push_str(&format!(" (SQLSTATE {})", db.code().code()));
    text
}

/// Why no session could be opened. `Display` is the whole reason, so there is no source to add.
#[derive(Debug)]
pub enum ConnectError {
    /// No answer within this time.
    Timeout { target: String, after: Duration },
    /// The TLS settings cannot be used: nothing was sent.
    Tls { target: String, source: TlsError },
    /// The network, the handshake or the server refused.
    Pg { target: String, source: Error },
    /// The password could not be read from where it is kept: at first, or again after the server had
    /// refused the one that was known.
    Secret { target: String, refused: bool, source: SecretError },
}

impl ConnectError {
    /// Whether to try again, slowly, or not at all.
    pub fn class(&self) -> Class {
        match self {
            Self::Timeout { .. } => Class::Retry,
            // A root certificate may be put in place or repaired while we wait.
            Self::Tls { source, .. } => source.class(),
            Self::Pg { source, .. } => classify(source),
            Self::Secret { source, .. } if source.is_passing => Class::Retry,
            Self::Secret { .. } => Class::Auth,
        }
    }

    /// Whether the server does not know the password: another one may be right.
    pub fn is_refused_password(&self) -> bool {
        matches!(self, Self::Pg { source, .. } if source.code() == Some(&SqlState::INVALID_PASSWORD))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { target, after } => {
                write!(f, "connect to {target}: no answer within {} s", after.as_secs())
            }
            Self::Tls { target, source } => write!(f, "connect to {target}: {source}"),
            Self::Pg { target, source } => write!(f, "connect to {target}: {}", describe(source)),
            Self::Secret { target, refused: false, source } => {
                write!(f, "connect to {target}: read the password: {source}")
            }
            Self::Secret { target, refused: true, source } => write!(
                f,
                "connect to {target}: the server refuses the password, and it could not be read \
                 again: {source}"
            ),
        }
    }
}

impl StdError for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_have_their_class() {
        let table = [
            ("08000", Class::Retry),     // connection_exception
            ("08006", Class::Retry),     // connection_failure
            ("08P01", Class::Retry),     // protocol_violation
            ("25006", Class::Retry),     // read_only_sql_transaction
            ("25P03", Class::Retry),     // idle_in_transaction_session_timeout
            ("40001", Class::Retry),     // serialization_failure
            ("40P01", Class::Retry),     // deadlock_detected
            ("53100", Class::Retry),     // disk_full
            ("53200", Class::Retry),     // out_of_memory
            ("53300", Class::Retry),     // too_many_connections
            ("55P03", Class::Retry),     // lock_not_available
            ("57014", Class::Retry),     // query_canceled
            ("57P01", Class::Retry),     // admin_shutdown
            ("57P02", Class::Retry),     // crash_shutdown
            ("57P03", Class::Retry),     // cannot_connect_now
            ("57P05", Class::Retry),     // idle_session_timeout
            ("28000", Class::Auth),      // invalid_authorization_specification
            ("28P01", Class::Auth),      // invalid_password
            ("23505", Class::Duplicate), // unique_violation
            ("22021", Class::Fatal),     // character_not_in_repertoire
            ("22P02", Class::Fatal),     // invalid_text_representation
            ("23502", Class::Fatal),     // not_null_violation
            ("23514", Class::Fatal),     // check_violation
            ("25P02", Class::Fatal),     // in_failed_sql_transaction
            ("3D000", Class::Auth),      // invalid_catalog_name
            ("42501", Class::Auth),      // insufficient_privilege
            ("55000", Class::Retry),     // object_not_in_prerequisite_state
            ("42703", Class::Fatal),     // undefined_column
            ("42P01", Class::Fatal),     // undefined_table
            ("57000", Class::Fatal),     // operator_intervention
            ("XX000", Class::Fatal),     // internal_error
            ("XX001", Class::Fatal),     // data_corrupted
            ("ZZ999", Class::Fatal),     // nobody's
            ("", Class::Fatal),
        ];
        for (code, class) in table {
            assert_eq!(classify_sqlstate(code), class, "{code}");
        }
    }

    #[test]
    fn a_chain_without_a_database_error_is_fatal() {
        assert_eq!(classify_chain(&anyhow::anyhow!("parse row").context("merge")), Class::Fatal);
        let lost =
            ConnectError::Timeout { target: "u@h:1/d".into(), after: Duration::from_secs(5) };
        let chain = anyhow::Error::new(lost).context("read head of trades");
        assert_eq!(classify_chain(&chain), Class::Retry);
        let behind = migrate::VersionError::Behind {
            database: "d".into(),
            schema: migrate::Schema::Production,
            version: 0,
            needed: 1,
        };
        assert_eq!(classify_chain(&anyhow::Error::new(behind).context("start")), Class::Fatal);
        assert_eq!(
            format!("{chain:#}"),
            "read head of trades: connect to u@h:1/d: no answer within 5 s"
        );
    }
}
