//! Finds the machine's PostgreSQL, and the user that may run it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// The oldest major version that the program supports.
const MAJOR_MIN: u32 = 15;
/// Where distributions keep the server's programs, which they leave off the PATH.
const PLACES: [&str; 3] = ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt"];

/// The programs of one installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub initdb: PathBuf,
    pub postgres: PathBuf,
    pub major: u32,
    /// Whether gatherers' databases are to be divided by TimescaleDB.
    pub has_timescaledb: bool,
    /// Whom to run it as: PostgreSQL refuses to run as root. None when we are not root.
    pub owner: Option<Owner>,
}

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Finds PostgreSQL in the given directory of programs, where TimescaleDB is used if it is beside them;
/// without one on the PATH, else the highest version where distributions install it.
///
/// # Errors
/// When there is none of version 15 or later, or when we are root and there is no user `postgres`
/// or `nobody`.
pub async fn find(programs: Option<&Path>) -> Result<Postgres> {
    let (initdb, postgres, major) = match programs {
        Some(dir) => given_programs(dir).await?,
        None => find_programs().await?,
    };
    let has_timescaledb = programs.is_some_and(|dir| dir.join("../lib/timescaledb.so").exists());
    let owner = if rustix::process::geteuid().is_root() { Some(find_owner().await?) } else { None };
    Ok(Postgres { initdb, postgres, major, has_timescaledb, owner })
}

async fn given_programs(dir: &Path) -> Result<(PathBuf, PathBuf, u32)> {
    let (initdb, postgres) = (dir.join("initdb"), dir.join("postgres"));
    match (major_of(&initdb).await, major_of(&postgres).await) {
        (Some(_), Some(major)) if major >= MAJOR_MIN => Ok((initdb, postgres, major)),
        _ => bail!("there is no PostgreSQL of version {MAJOR_MIN} or later in {}", dir.display()),
    }
}

async fn find_programs() -> Result<(PathBuf, PathBuf, u32)> {
    let on_path = (PathBuf::from("initdb"), PathBuf::from("postgres"));
    let mut seen = Vec::new();
    let mut best: Option<(PathBuf, PathBuf, u32)> = None;
    for (initdb, postgres) in std::iter::once(on_path).chain(installed()) {
        let (Some(major), Some(_)) = (major_of(&postgres).await, major_of(&initdb).await) else {
            continue;
        };
        seen.push(format!("{} (version {major})", postgres.display()));
        let is_on_path = postgres.components().count() == 1;
        if major >= MAJOR_MIN && best.as_ref().is_none_or(|(_, _, found)| major > *found) {
            best = Some((initdb, postgres, major));
            if is_on_path {
                break;
            }
        }
    }
    let Some(best) = best else {
        let found = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
        bail!(
            "PostgreSQL {MAJOR_MIN} or later is needed and was not found (on PATH and in \
             /usr/lib/postgresql/*/bin there is {found}): install Debian's package with \
             `apt-get install postgresql`"
        );
    };
    Ok(best)
}

/// Every pair of programs in the places where distributions install them.
fn installed() -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for place in PLACES {
        let place = Path::new(place);
        // `/usr/lib/postgresql/15`, `/usr/pgsql-16`, `/opt/homebrew/opt/postgresql@17`.
        let (parent, prefix) = match place.file_name().and_then(|name| name.to_str()) {
            Some("pgsql") => (place.parent().unwrap_or(place), "pgsql-"),
            Some("opt") => (place, "postgresql@"),
            _ => (place, ""),
        };
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let bin = entry.path().join("bin");
                found.push((bin.join("initdb"), bin.join("postgres")));
            }
        }
    }
    found
}

/// The major version that a program reports, when it runs at all.
async fn major_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().await.ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`, also `17beta1`.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

async fn find_owner() -> Result<Owner> {
    for name in ["postgres", "nobody"] {
        if let (Some(uid), Some(gid)) = (id("-u", name).await, id("-g", name).await) {
            return Ok(Owner { uid, gid });
        }
    }
    bail!(
        "find a user to run PostgreSQL as: it refuses root, and neither postgres nor nobody exists"
    )
}

/// Asks the system's own program, which knows every source of users, not just /etc/passwd.
async fn id(option: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").arg(option).arg(name).output().await.ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

impl Postgres {
    /// A command that runs as the owner, in its group of processes, away from our terminal.
    pub fn command(&self, program: &Path, group: i32) -> Command {
        let mut command = Command::new(program);
        command.process_group(group).stdin(std::process::Stdio::null());
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    /// Gives a file or directory to the owner.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn give(&self, path: &Path) -> Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("give {} to the user of PostgreSQL", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        let debian = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n";
        assert_eq!(parse_major(debian), Some(15));
        assert_eq!(parse_major("initdb (PostgreSQL) 17beta1"), Some(17));
        assert_eq!(parse_major("something else"), None);
    }

    #[tokio::test]
    async fn this_machine_has_postgresql() {
        let found = find(None).await.unwrap();
        assert!(found.major >= MAJOR_MIN);
        assert_eq!(found.owner.is_some(), rustix::process::geteuid().is_root());
        assert!(!found.has_timescaledb, "only where it is asked for");
        let nowhere = find(Some(Path::new("/nowhere"))).await.unwrap_err();
        assert!(nowhere.to_string().ends_with("in /nowhere"), "{nowhere}");
    }
}
