//! What every daemon needs and no domain word belongs to: secrets, stopping, tasks, health,
//! metrics, logs, exit codes, backoff.
//!
//! Knows nothing of markets, databases or configuration files; imports nothing else of ours.

pub mod backoff;
pub mod companion;
#[cfg(test)]
pub mod corpus;
pub mod crash;
pub mod duration;
pub mod exit;
pub mod findings;
pub mod hangup;
pub mod health;
pub mod http;
pub mod metrics;
pub mod once;
pub mod process;
pub mod secret;
pub mod shutdown;
#[cfg(test)]
pub mod small_disk;
pub mod systemd;
pub mod tasks;
pub mod telemetry;

/// The program's version, from Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, or "unknown" when built outside a repository.
pub const COMMIT: &str = env!("KALSHI_COMMIT");
