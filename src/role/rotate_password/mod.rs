//! `kalshi rotate-password`: gives a role another password, without an outage and without a moment in
//! which nobody could say what the password is.
//!
//! The order is what makes it safe. The new password is in the secret, as its pending version, before the
//! database knows it; whoever is refused reads the secret again and tries what is current and what is
//! pending; and only after a real login with it does the pending version become the current one. So the
//! password that the database has is at every moment one of the two, and a run that died anywhere is
//! completed or undone by the next one, which sees from the secret alone how far it came.

mod account;
mod age;
mod database;
mod steps;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Result;

use crate::ops::secret::Store;
use crate::pg::Target;
use account::Account;

/// One role's password: the secret that holds it, and every database that it opens.
#[derive(Debug)]
pub struct Job {
    pub role: String,
    pub store: Store,
    pub strategy: Strategy,
    /// At least one.
    pub databases: Vec<Database>,
    /// For programs that are not ours: run by the shell when the new version is current.
    pub reload: Option<String>,
}

/// A database that the role logs in to.
#[derive(Debug)]
pub struct Database {
    /// As the role; its password is the secret's.
    pub target: Target,
    /// Who may set the role's password; without one the role does so itself.
    pub admin: Option<Target>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// One login, whose password changes: for whoever reads the secret again when it is refused.
    Single,
    /// Two logins that are members of the role and take turns, so that the one before stays valid until
    /// the next rotation: for whoever cannot.
    Alternating,
}

impl Strategy {
    fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Alternating => "alternating",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Rotates, or completes what is under way.
    Rotate,
    /// Makes the previous version current again, or undoes what is under way.
    Rollback,
    /// Tries everything that can be tried without changing anything.
    DryRun,
    /// Compares the age of each password with this.
    CheckAge(Duration),
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub action: Action,
    /// Goes on where the secret does not hold the password that the database has now.
    pub force: bool,
    /// One JSON object at the end in place of a line for each step.
    pub json: bool,
}

/// Runs the jobs one after the other, up to the first that fails.
///
/// # Errors
/// When a job fails: the text says whether something was changed and what to do. `HeldError` when another
/// rotation is under way, `DiscrepancyError` when a password is older than it may be.
pub async fn run(jobs: Vec<Job>, options: Options) -> Result<()> {
    if let Action::CheckAge(max) = options.action {
        return age::check(&jobs, max, options.json).await;
    }
    let mut account = Account::new(options.json);
    let mut result = Ok(());
    for job in &jobs {
        account.begin(job);
        result = Box::pin(steps::run(job, options, &mut account)).await;
        account.end(&result);
        if result.is_err() {
            break;
        }
    }
    account.print()?;
    result
}
