//! The database's side of a rotation: who holds the lock, whether the password can be set at all, setting
//! it, and a real login with it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::Database;
use crate::ops::exit::HeldError;
use crate::ops::secret::{Secret, Version, Versions};
use crate::pg::advisory::{self, Lock};
use crate::pg::{ConnectError, Options, Target, describe, quoted};

const PATIENCE: Duration = Duration::from_secs(10);
/// A session of whoever may set the password, with the lock.
pub struct Session {
    client: Client,
    /// The database as the role sees it.
    pub name: String,
    login: String,
    /// Who sets the password, for messages.
    by: String,
}

/// What the audit log is told of every step of a run.
#[derive(Debug)]
pub struct Run {
    pub id: Uuid,
    /// The secret's place.
    pub secret: String,
    /// Who does it.
    pub done_by: String,
}

impl Run {
    /// What is told of a step with this version of the secret.
    pub fn note<'a>(&'a self, version: &'a str) -> Note<'a> {
        Note { run: self, version }
    }
}

/// What the audit log is told of a step.
#[derive(Debug, Clone, Copy)]
pub struct Note<'a> {
    run: &'a Run,
    version: &'a str,
}

/// What the server says of the role before anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    pub exists: bool,
    /// None where that may not be asked.
    pub has_password: Option<bool>,
}

impl Session {
    /// Logs in as the administrator, or as `login` itself with whichever version of the secret opens the
    /// database, and takes the lock.
    ///
    /// # Errors
    /// [`HeldError`] when another rotation has the lock.
    pub async fn open(database: &Database, login: &str, versions: &Versions) -> Result<Self> {
        let options = Options {
            statement_timeout: Some(PATIENCE),
            lock_timeout: Some(PATIENCE),
            idle_in_transaction_timeout: Some(PATIENCE),
            ..Options::default()
        };
        let client = match &database.admin {
            Some(admin) => admin.connect_with(options).await.context("log in as administrator")?,
            None => open_as_itself(database, login, versions, options).await?,
        };
        let name = database.target.to_string();
        let by = database.admin.as_ref().map_or(login, |admin| admin.user.as_str()).to_owned();
        let session = Self { client, name, login: login.to_owned(), by };
        session.lock().await?;
        Ok(session)
    }

    async fn lock(&self) -> Result<()> {
        let taken = advisory::take_within(&self.client, Lock::Rotate, advisory::LINGER).await;
        if self.told(taken, "take the lock of rotations")? {
            return Ok(());
        }
        let holder = advisory::holder(&self.client, Lock::Rotate).await;
        let mut text = format!("another rotation is under way in {}", self.name);
        if let Some(holder) = self.told(holder, "ask who rotates")? {
            text.push_str(&format!(": {holder}"));
        }
        text.push_str("; wait for its end, nothing was changed");
        Err(HeldError(text).into())
    }

    /// What keeps a password from being set here, and what is known of the role.
    pub async fn inspect(&self) -> Result<Role> {
        let sql = "SELECT current_setting('transaction_read_only')::boolean, pg_is_in_recovery(), \
                          EXISTS (SELECT FROM pg_proc WHERE proname = 'rotation_noted'), \
                          r.rolname IS NOT NULL, coalesce(r.rolcanlogin, false), \
                          coalesce(r.rolvaliduntil < now(), false), \
                          has_table_privilege('pg_authid', 'SELECT') \
                   FROM (SELECT 1) one LEFT JOIN pg_roles r ON r.rolname = $1";
        let row = self.client.query_one(sql, &[&self.login]).await;
        let row = self.told(row, "ask about the role")?;
        let (read_only, standby, has_audit): (bool, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (exists, can_login, is_expired): (bool, bool, bool) =
            (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let (name, login) = (&self.name, &self.login);
        if standby {
            bail!("{name} is a standby: rotate on its primary");
        } else if read_only {
            bail!("{name} is read only (default_transaction_read_only, or its disk is full)");
        } else if !has_audit {
            bail!("{name} has no audit log of rotations: run kalshi migrate first");
        } else if exists && !can_login {
            bail!("role {login} of {name} may not log in: nobody uses its password");
        } else if is_expired {
            bail!(
                "role {login} of {name} has expired: ALTER ROLE {} VALID UNTIL 'infinity'",
                quoted(login)
            );
        }
        let may_look: bool = row.try_get(6)?;
        let has_password = if may_look && exists {
            let sql = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = $1";
            let row = self.client.query_one(sql, &[login]).await;
            Some(self.told(row, "ask whether the role has a password")?.try_get(0)?)
        } else {
            None
        };
        Ok(Role { exists, has_password })
    }

    /// Does what [`Session::set`] does and takes it back: rights, policies and a full disk show here,
    /// before anything is changed.
    pub async fn rehearse(
        &mut self,
        secret: &Secret,
        group: Option<&str>,
        note: Note<'_>,
    ) -> Result<()> {
        self.change(secret, group, "rehearse", note, Outcome::TakenBack).await
    }

    /// Sets the password, as a verifier that is made here: what the server gets to see, and to log, opens
    /// nothing. The line of the audit log commits with it.
    ///
    /// # Errors
    /// With [`Refused`] in the chain when the server said no; otherwise the outcome is unknown.
    pub async fn set(
        &mut self,
        secret: &Secret,
        group: Option<&str>,
        step: &str,
        note: Note<'_>,
    ) -> Result<()> {
        self.change(secret, group, step, note, Outcome::Kept).await
    }

    async fn change(
        &mut self,
        secret: &Secret,
        group: Option<&str>,
        step: &str,
        note: Note<'_>,
        outcome: Outcome,
    ) -> Result<()> {
        let sql = statements(&self.login, secret, group);
        self.run(&sql, step, note, outcome).await
    }

    /// Takes the role's password away: it cannot log in by one. Nothing, when there is no such role.
    pub async fn close(&mut self, note: Note<'_>) -> Result<()> {
        if !self.inspect().await?.exists {
            return Ok(());
        }
        let sql = format!("ALTER ROLE {} PASSWORD NULL", quoted(&self.login));
        self.run(&sql, "undo", note, Outcome::Kept).await
    }

    async fn run(&mut self, sql: &str, step: &str, note: Note<'_>, outcome: Outcome) -> Result<()> {
        let login = self.login.clone();
        let changed = async {
            let tx = self.client.transaction().await?;
            // What the secret says next must not be undone by a crash of the server.
            tx.batch_execute("SET LOCAL synchronous_commit = on").await?;
            tx.batch_execute(sql).await?;
            noted(&tx, &login, step, note).await?;
            match outcome {
                Outcome::Kept => tx.commit().await,
                Outcome::TakenBack => tx.rollback().await,
            }
        };
        let changed = changed.await;
        self.told(changed, &format!("set the password of {login}"))
    }

    /// Adds a line to the audit log.
    pub async fn note(&mut self, step: &str, note: Note<'_>) -> Result<()> {
        let login = self.login.clone();
        let added = async {
            let tx = self.client.transaction().await?;
            noted(&tx, &login, step, note).await?;
            tx.commit().await
        };
        let added = added.await;
        self.told(added, "add to the audit log")
    }

    fn told<T>(&self, result: Result<T, Error>, what: &str) -> Result<T> {
        result.map_err(|error| {
            let mut text = format!("{what} in {} as {}: {}", self.name, self.by, describe(&error));
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                text.push_str(
                    "; give an administrator's access, `admin` in the configuration, to somebody who \
                     may alter this role",
                );
            }
            match error.code() {
                Some(_) => anyhow::Error::new(Refused(text)),
                None => anyhow::Error::msg(text),
            }
        })
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Kept,
    TakenBack,
}

/// The server answered, and did nothing.
#[derive(Debug)]
pub struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

async fn noted(
    tx: &tokio_postgres::Transaction<'_>,
    login: &str,
    step: &str,
    note: Note<'_>,
) -> Result<(), Error> {
    let Note { run: Run { id, secret, done_by }, version } = note;
    let sql = "SELECT rotation_noted($1, $2, $3, $4, $5, $6)";
    tx.execute(sql, &[&id, &login, &step, &secret, &version, &done_by]).await.map(drop)
}

/// A verifier has no character that would end the quotes.
fn statements(login: &str, secret: &Secret, group: Option<&str>) -> String {
    let verifier = scram_sha_256(secret.expose().as_bytes());
    let login = quoted(login);
    match group {
        Some(group) => {
            format!("CREATE ROLE {login} LOGIN IN ROLE {} PASSWORD '{verifier}'", quoted(group))
        }
        None => format!("ALTER ROLE {login} PASSWORD '{verifier}'"),
    }
}

async fn open_as_itself(
    database: &Database,
    login: &str,
    versions: &Versions,
    options: Options,
) -> Result<Client> {
    let Versions { current, pending, previous } = versions;
    let known = [current, pending, previous].into_iter().flatten();
    let mut refused = None;
    for version in known.filter(|version| is_for(version, login, &database.target.user)) {
        let target = as_login(&database.target, login, &version.value);
        match target.connect_with(options).await {
            Ok(client) => return Ok(client),
            Err(error) if error.is_refused_password() => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let target = &database.target;
    let Some(error) = refused else {
        bail!(
            "the secret holds no password of {login} yet: the first one is set by an administrator, \
             `admin` in the configuration of {target}"
        );
    };
    bail!(
        "no version of the secret opens {target}: an administrator has to set the password, `admin` in \
         the configuration ({error})"
    )
}

/// Whose password a version is; one that does not say is the role's.
fn is_for(version: &Version, login: &str, role: &str) -> bool {
    version.username.as_deref().unwrap_or(role) == login
}

/// How a login with one password reaches the database.
fn as_login(target: &Target, login: &str, secret: &Secret) -> Target {
    Target { user: login.to_owned(), password: Some(secret.clone().into()), ..target.clone() }
}

/// What a login showed.
#[derive(Debug)]
pub enum Login {
    Accepted,
    Refused(ConnectError),
}

/// Logs in once.
///
/// # Errors
/// When the server cannot be asked, or refuses for another reason than the password.
pub async fn login(database: &Database, login: &str, secret: &Secret) -> Result<Login> {
    let target = as_login(&database.target, login, secret);
    let client = match target.connect().await {
        Ok(client) => client,
        Err(error) if error.is_refused_password() => return Ok(Login::Refused(error)),
        Err(error) => return Err(error.into()),
    };
    let row =
        client.query_one("SELECT session_user::text", &[]).await.context("ask who logged in")?;
    let found: String = row.try_get(0)?;
    anyhow::ensure!(
        found == login,
        "{target} logs in as {found}: a proxy stands before the server"
    );
    Ok(Login::Accepted)
}

/// Whether the server lets anybody in who only says who he is: then a login proves nothing.
pub async fn asks_no_password(database: &Database, login_name: &str) -> Result<bool> {
    let wrong = Secret::generate()?;
    // Whatever else goes wrong is told by the login that matters.
    Ok(matches!(login(database, login_name, &wrong).await, Ok(Login::Accepted)))
}
