//! The steps of one rotation: create, set, test, finish; and where a run that died before left it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use uuid::Uuid;

use super::account::{Account, Ended};
use super::database::{Login, Refused, Run, Session, asks_no_password, login};
use super::{Action, Database, Job, Options, Strategy};
use crate::ops::crash;
use crate::ops::exit::chain;
use crate::ops::secret::{Secret, Version, Versions};

/// A command that is given does not run longer.
const RELOAD_MAX: Duration = Duration::from_secs(120);

/// How far a rotation came, as the secret alone shows.
#[derive(Debug)]
enum Standing {
    /// None is under way.
    Settled,
    /// A new version is pending; the database has this one or the current one.
    Unfinished(Version),
    /// The previous version is pending: it is to become current again.
    RollingBack(Version),
    /// The pending version is current already: only the end is missing.
    Promoted(Version),
}

impl Standing {
    fn of(versions: &Versions) -> Self {
        let is = |other: &Option<Version>, id: &str| other.as_ref().is_some_and(|v| v.id == id);
        match &versions.pending {
            None => Self::Settled,
            Some(pending) if is(&versions.current, &pending.id) => Self::Promoted(pending.clone()),
            Some(pending) if is(&versions.previous, &pending.id) => {
                Self::RollingBack(pending.clone())
            }
            Some(pending) => Self::Unfinished(pending.clone()),
        }
    }
}

/// Does what is asked of one job.
///
/// # Errors
/// The text says what failed, whether something was changed, and what to do.
pub async fn run(job: &Job, options: Options, account: &mut Account) -> Result<()> {
    let versions = job.store.versions().await;
    let versions = versions.map_err(|error| anyhow!("{error}. Nothing was changed"))?;
    let current = versions.current.as_ref().and_then(|version| version.username.as_ref());
    if let (Strategy::Single, Some(login)) = (job.strategy, current.filter(|it| **it != job.role)) {
        bail!(
            "{} is the password of {login}, not of {}. Nothing was changed",
            job.store.place(),
            job.role
        );
    }
    let mut rotation = Rotation {
        job,
        options,
        account,
        versions,
        sessions: Vec::new(),
        run: Run { id: Uuid::new_v4(), secret: job.store.place().to_string(), done_by: done_by() },
        is_changed: false,
    };
    match Box::pin(rotation.run()).await {
        Ok(()) => Ok(()),
        // Whoever holds the lock goes on, and the text says so.
        Err(error) if error.is::<crate::ops::exit::HeldError>() => Err(error),
        Err(error) if rotation.is_changed => Err(anyhow!(
            "{}. The rotation of {} is not finished: whoever reads {} again gets in with its current or \
             its pending version. The same command completes it, with --rollback it is undone",
            chain(&error),
            job.role,
            job.store.place()
        )),
        Err(error) => Err(anyhow!("{}. Nothing was changed", chain(&error))),
    }
}

/// Who did it, for the audit log.
fn done_by() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    format!("{host} (process {})", std::process::id())
}

struct Rotation<'a> {
    job: &'a Job,
    options: Options,
    account: &'a mut Account,
    versions: Versions,
    /// One for each database, each with the lock.
    sessions: Vec<Session>,
    run: Run,
    /// From the first change of the secret or a database until all is over or undone.
    is_changed: bool,
}

impl Rotation<'_> {
    async fn run(&mut self) -> Result<()> {
        let is_dry = self.options.action == Action::DryRun;
        let standing = Standing::of(&self.versions);
        self.is_changed = !matches!(standing, Standing::Settled);
        if is_dry && self.is_changed {
            let detail = match standing {
                Standing::Promoted(_) => "end a rotation whose new password is current already",
                Standing::RollingBack(_) => "complete a rollback that was left half way",
                _ => "complete a rotation that was left half way",
            };
            self.account.step("resume", None, Ended::WouldDo, detail);
            self.account.outcome("would complete");
            return Ok(());
        }
        match (self.options.action, standing) {
            (Action::Rollback, Standing::Unfinished(_)) => self.give_up().await,
            (Action::Rollback, Standing::RollingBack(version)) => {
                self.account.step("resume", None, Ended::Already, "a rollback is under way");
                self.open(&version).await?;
                self.carry_out(&version, "rolled back").await
            }
            (Action::Rollback, Standing::Promoted(_) | Standing::Settled) => self.roll_back().await,
            (_, Standing::Promoted(version)) => {
                let detail = "the new password is current, the end is missing";
                self.account.step("resume", None, Ended::Already, detail);
                self.open(&version).await?;
                self.carry_out(&version, "completed").await
            }
            (_, Standing::RollingBack(version)) => {
                self.account.step("resume", None, Ended::Already, "a rollback is under way");
                self.open(&version).await?;
                self.carry_out(&version, "rolled back").await
            }
            (_, Standing::Unfinished(version)) => {
                let detail = "a new password is pending in the secret";
                self.account.step("resume", None, Ended::Already, detail);
                self.open(&version).await?;
                self.rehearse(&version.value, self.login_of(&version)).await?;
                self.carry_out(&version, "completed").await
            }
            (_, Standing::Settled) => self.begin().await,
        }
    }

    /// A rotation from its start: everything is tried before anything is changed.
    async fn begin(&mut self) -> Result<()> {
        let login = self.next_login();
        let secret = Secret::generate()?;
        self.open_for(&login).await?;
        self.probe().await?;
        self.rehearse(&secret, login.clone()).await?;
        if self.options.action == Action::DryRun {
            for (step, detail) in [
                ("create", "keep a new password as the pending version of the secret"),
                ("set", "give the role that password"),
                ("test", "log in with it"),
                ("finish", "make it the current version, and keep the one before"),
            ] {
                self.account.step(step, None, Ended::WouldDo, detail);
            }
            self.account.outcome("would rotate");
            return Ok(());
        }
        let username = (self.job.strategy == Strategy::Alternating).then_some(login.as_str());
        let put = self.job.store.put_pending(&secret, username).await;
        let version = put.context("keep the new password")?;
        self.is_changed = true;
        self.account.step(
            "create",
            None,
            Ended::Done,
            format!("version {} is pending", version.id),
        );
        crash::point("rotate-created");
        self.carry_out(&version, "rotated").await
    }

    /// Makes the previous version pending and goes on as with a new one.
    async fn roll_back(&mut self) -> Result<()> {
        let place = self.job.store.place().to_string();
        let Some(previous) = self.versions.previous.clone() else {
            bail!("{place} has no previous version to go back to");
        };
        self.open(&previous).await?;
        self.rehearse(&previous.value, self.login_of(&previous)).await?;
        self.job.store.stage_previous().await?;
        self.is_changed = true;
        let detail = format!("version {}, the previous one, is pending", previous.id);
        self.account.step("create", None, Ended::Done, detail);
        crash::point("rotate-created");
        self.carry_out(&previous, "rolled back").await
    }

    /// Undoes a rotation that is not finished: the current version is the password again.
    async fn give_up(&mut self) -> Result<()> {
        let Some(pending) = self.versions.pending.clone() else { return Ok(()) };
        let login = self.login_of(&pending);
        self.account.step("resume", None, Ended::Already, "a rotation is half way: it is given up");
        self.open_for(&login).await?;
        self.undo(&pending, false).await
    }

    /// Set, test, finish: each finds out whether it was done already.
    async fn carry_out(&mut self, version: &Version, outcome: &'static str) -> Result<()> {
        let login = self.login_of(version);
        for (session, database) in self.sessions.iter_mut().zip(&self.job.databases) {
            let note = self.run.note(&version.id);
            let name = Some(session.name.clone());
            // A server that asks for no password takes any: only setting it makes sure.
            if is_accepted(database, &login, &version.value).await
                && !asks_no_password(database, &login).await?
            {
                self.account.step("set", name, Ended::Already, format!("role {login}"));
                continue;
            }
            let role = session.inspect().await?;
            let group = group(self.job, &login, role.exists);
            session.set(&version.value, group, "set", note).await?;
            self.account.step("set", name, Ended::Done, format!("role {login}"));
            crash::point("rotate-set");
        }
        if let Err(error) = self.test(version, &login).await {
            self.account.step("test", None, Ended::Failed, chain(&error));
            if let Err(failure) = self.undo(version, true).await {
                bail!("{}; and it could not be undone: {}", chain(&error), chain(&failure));
            }
            bail!("{}; it was undone", chain(&error));
        }
        crash::point("rotate-tested");
        self.job.store.promote(version).await.context("make the new password current")?;
        let detail = format!("version {} is current", version.id);
        self.account.step("finish", None, Ended::Done, detail);
        crash::point("rotate-promoted");
        self.note_finish(version).await;
        self.reload().await?;
        self.job.store.settle().await.context("end the rotation")?;
        self.is_changed = false;
        self.account.outcome(outcome);
        crash::point("rotate-settled");
        Ok(())
    }

    async fn test(&mut self, version: &Version, login_name: &str) -> Result<()> {
        for database in &self.job.databases {
            let name = database.target.to_string();
            match login(database, login_name, &version.value).await? {
                Login::Refused(error) => bail!("the new password does not work: {error}"),
                Login::Accepted => {}
            }
            let detail = if asks_no_password(database, login_name).await? {
                "logged in, but the server asks for no password here: it proves nothing"
            } else {
                "logged in"
            };
            self.account.step("test", Some(name), Ended::Done, detail);
        }
        Ok(())
    }

    /// The password is that of the version before again, in every database; then nothing is pending.
    /// `is_set` says that the databases have this one for sure.
    async fn undo(&mut self, undone: &Version, is_set: bool) -> Result<()> {
        let login_name = &self.login_of(undone);
        let Versions { current, previous, .. } = &self.versions;
        let before = [current, previous].into_iter().flatten();
        let mut before = before.filter(|version| self.login_of(version) == *login_name);
        if let Some(version) = before.next().cloned() {
            for (session, database) in self.sessions.iter_mut().zip(&self.job.databases) {
                let note = self.run.note(&version.id);
                session.set(&version.value, None, "undo", note).await?;
                let name = Some(session.name.clone());
                if !is_accepted(database, login_name, &version.value).await {
                    bail!("the password of before does not open {} again", session.name);
                }
                self.account.step("undo", name, Ended::Done, format!("role {login_name}"));
                crash::point("rotate-undone");
            }
        } else {
            // The secret never had another of this login: it gets none. One that was set by hand and is
            // still there stays, whoever uses it.
            for (session, database) in self.sessions.iter_mut().zip(&self.job.databases) {
                let is_ours = is_set
                    || is_accepted(database, login_name, &undone.value).await
                        && !asks_no_password(database, login_name).await?;
                if !is_ours {
                    continue;
                }
                session.close(self.run.note("")).await?;
                let name = Some(session.name.clone());
                let detail = format!("role {login_name} has no password");
                self.account.step("undo", name, Ended::Done, detail);
                crash::point("rotate-undone");
            }
        }
        self.job.store.settle().await.context("forget the pending password")?;
        self.account.step("undo", None, Ended::Done, "no version is pending");
        self.is_changed = false;
        self.account.outcome("undone");
        Ok(())
    }

    /// The last line of the audit log. The rotation is over without it.
    async fn note_finish(&mut self, version: &Version) {
        for session in &mut self.sessions {
            let note = self.run.note(&version.id);
            if let Err(error) = session.note("finish", note).await {
                let name = Some(session.name.clone());
                self.account.step("audit", name, Ended::Failed, chain(&error));
            }
        }
    }

    async fn reload(&mut self) -> Result<()> {
        let Some(command) = &self.job.reload else { return Ok(()) };
        let mut child = tokio::process::Command::new("sh");
        child.arg("-c").arg(command).stdin(Stdio::null()).kill_on_drop(true);
        if self.options.json {
            // Stdout is for one JSON object.
            child.stdout(Stdio::null());
        }
        let ended = tokio::time::timeout(RELOAD_MAX, child.status()).await;
        let text = format!("the new password is current, but the reload command {command:?}");
        let status = match ended {
            Err(_) => bail!("{text} took more than {} s", RELOAD_MAX.as_secs()),
            Ok(status) => status.with_context(|| format!("{text} does not run"))?,
        };
        anyhow::ensure!(status.success(), "{text} failed: {status}");
        self.account.step("reload", None, Ended::Done, command.clone());
        Ok(())
    }

    async fn open(&mut self, version: &Version) -> Result<()> {
        let login = self.login_of(version);
        self.open_for(&login).await
    }

    /// A session and the lock in each database.
    async fn open_for(&mut self, login: &str) -> Result<()> {
        for database in &self.job.databases {
            self.sessions.push(Session::open(database, login, &self.versions).await?);
        }
        Ok(())
    }

    /// Whether the secret's password is the one that the databases have: if not, somebody uses one that
    /// the secret does not hold, and would be locked out.
    async fn probe(&mut self) -> Result<()> {
        let place = self.job.store.place().to_string();
        let versions = self.versions.clone();
        let login_name = versions.current.as_ref().map(|version| self.login_of(version));
        for (session, database) in self.sessions.iter().zip(&self.job.databases) {
            let role = session.inspect().await?;
            let (name, force) = (Some(session.name.clone()), self.options.force);
            let (Some(current), Some(login_name)) = (&versions.current, &login_name) else {
                if role.has_password == Some(true) && !force {
                    bail!(
                        "{place} holds no password, and the role has one in {}: whoever uses it would be \
                         locked out. Put it into the secret first; or go on with --force",
                        session.name
                    );
                }
                self.account.step("probe", name, Ended::Done, "the first password of the role");
                continue;
            };
            let is_missing = self.job.strategy == Strategy::Single && !role.exists;
            anyhow::ensure!(!is_missing, "there is no role {login_name} in {}", session.name);
            match login(database, login_name, &current.value).await? {
                Login::Accepted => {
                    self.account.step("probe", name, Ended::Done, "the current password opens it");
                }
                Login::Refused(_) if force => {
                    let detail = "the current password does not open it: going on, as asked";
                    self.account.step("probe", name, Ended::Failed, detail);
                }
                Login::Refused(error) => bail!(
                    "the current version of {place} is not the password that the database has, so \
                     whoever uses that one would be locked out ({error}). Put it into the secret; or go \
                     on with --force"
                ),
            }
        }
        Ok(())
    }

    async fn rehearse(&mut self, secret: &Secret, login: String) -> Result<()> {
        for session in &mut self.sessions {
            let role = session.inspect().await?;
            let group = group(self.job, &login, role.exists);
            if !role.exists && group.is_none() {
                bail!("there is no role {login} in {}", session.name);
            }
            let name = Some(session.name.clone());
            let note = self.run.note("");
            match session.rehearse(secret, group, note).await {
                Ok(()) => self.account.step("rehearse", name, Ended::Done, "it can be set"),
                Err(error) if error.is::<Refused>() && self.is_changed => {
                    return Err(error.context(
                        "the database refuses the password that is pending; with --rollback it is dropped",
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn login_of(&self, version: &Version) -> String {
        version.username.clone().unwrap_or_else(|| self.job.role.clone())
    }

    /// Whose password is new after this rotation.
    fn next_login(&self) -> String {
        let role = &self.job.role;
        if self.job.strategy == Strategy::Single {
            return role.clone();
        }
        let (first, second) = (format!("{role}_a"), format!("{role}_b"));
        let used = self.versions.current.as_ref().and_then(|version| version.username.as_ref());
        if used == Some(&first) { second } else { first }
    }
}

/// The role that a login is to be made a member of, if it is to be made.
fn group<'a>(job: &'a Job, login: &str, exists: bool) -> Option<&'a str> {
    let is_to_be_made = job.strategy == Strategy::Alternating && !exists && login != job.role;
    is_to_be_made.then_some(job.role.as_str())
}

/// Whatever goes wrong is told by the step that needs it.
async fn is_accepted(database: &Database, login_name: &str, secret: &Secret) -> bool {
    matches!(login(database, login_name, secret).await, Ok(Login::Accepted))
}
