//! The private directory of one run, and the warden that outlives the run.
//!
//! Whatever ends this process (return, panic, signal, kill -9), the warden, a small shell that
//! waits for the end of a pipe held here, ends every process of the run and removes the directory.
//! The processes are found by their process group, which the kernel sets before each one's first
//! instruction, so there is no moment at which one could be missed.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How long a drop waits for the warden. It gives PostgreSQL 5 s to stop and then kills.
const WARDEN_SECONDS_MAX: u64 = 20;

/// `$1` directory, `$2` group of the roles, `$3` group of the postmasters. A line `keep` on its
/// input keeps the directory. Signals of a terminal must not end it before its work is done.
const WARDEN: &str = r#"
trap '' INT TERM HUP QUIT PIPE
keep=
while read -r line; do [ "$line" = keep ] && keep=1; done
kill -s KILL -- "-$2" 2>/dev/null
kill -s QUIT -- "-$3" 2>/dev/null
tries=50
while [ "$tries" -gt 0 ]; do
    found=
    for file in "$1"/*/data/postmaster.pid; do [ -e "$file" ] && found=1; done
    [ -z "$found" ] && break
    sleep 0.1
    tries=$((tries - 1))
done
kill -s KILL -- "-$3" 2>/dev/null
[ -n "$keep" ] && exit 0
tries=50
while [ "$tries" -gt 0 ] && ! rm -rf -- "$1" 2>/dev/null; do
    sleep 0.1
    tries=$((tries - 1))
done
"#;

/// A process that only holds a process group open, and ends with its pipe.
#[derive(Debug)]
struct Anchor {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Anchor {
    fn start() -> io::Result<Self> {
        let mut process = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    fn group(&self) -> i32 {
        // A process id fits: the kernel's own type is a signed 32-bit integer.
        i32::try_from(self.process.id()).unwrap_or(i32::MAX)
    }

    fn end(&mut self) {
        self.pipe = None;
        if let Err(error) = self.process.wait() {
            tracing::debug!(%error, "wait for process group");
        }
    }
}

/// The directory of a run. Dropping it ends every process started in its groups and removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    roles: Anchor,
    postmasters: Anchor,
    warden: Child,
    pipe: Option<ChildStdin>,
}

impl RunDir {
    /// Makes a new directory under `parent` (or the system's place for temporary files).
    ///
    /// # Errors
    /// When the directory cannot be made or the warden cannot be started.
    pub fn create(parent: Option<&Path>) -> Result<Self> {
        let parent = match parent {
            Some(parent) => parent.to_path_buf(),
            None => std::env::temp_dir(),
        };
        fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
        let parent =
            parent.canonicalize().with_context(|| format!("resolve {}", parent.display()))?;
        let path = make_unique(&parent)
            .with_context(|| format!("make a directory in {}", parent.display()))?;
        let started = start_processes(&path);
        let (roles, postmasters, mut warden) = match started {
            Ok(started) => started,
            Err(error) => {
                fs::remove_dir_all(&path).context("remove the directory of the run")?;
                return Err(error).context("start the warden of the run (needs sh and cat)");
            }
        };
        let pipe = warden.stdin.take();
        Ok(Self { path, roles, postmasters, warden, pipe })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process group for the roles: ended by SIGKILL.
    pub fn role_group(&self) -> i32 {
        self.roles.group()
    }

    /// The process group for postmasters: ended by SIGQUIT, which frees their shared memory.
    pub fn postmaster_group(&self) -> i32 {
        self.postmasters.group()
    }

    /// Keeps the directory (the processes still end with this one).
    ///
    /// # Errors
    /// When the warden is gone.
    pub fn keep(&mut self) -> io::Result<()> {
        let Some(pipe) = self.pipe.as_mut() else { return Ok(()) };
        pipe.write_all(b"keep\n")?;
        pipe.flush()
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The anchors stay until the warden is done: while they live, no other process can come
        // to own the groups that it signals.
        self.pipe = None;
        let deadline = Instant::now() + Duration::from_secs(WARDEN_SECONDS_MAX);
        while let Ok(None) = self.warden.try_wait() {
            if Instant::now() > deadline {
                tracing::warn!(dir = %self.path.display(), "the run is not cleaned up yet");
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.roles.end();
        self.postmasters.end();
    }
}

fn start_processes(path: &Path) -> io::Result<(Anchor, Anchor, Child)> {
    let roles = Anchor::start()?;
    let postmasters = Anchor::start()?;
    let warden = Command::new("sh")
        .arg("-c")
        .arg(WARDEN)
        .arg("kalshi-sandbox-warden")
        .arg(path)
        .arg(roles.group().to_string())
        .arg(postmasters.group().to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok((roles, postmasters, warden))
}

/// Others may pass through it (the owner of the clusters must, when that is another user) but not
/// list it; what is private inside is protected by its own mode.
fn make_unique(parent: &Path) -> io::Result<PathBuf> {
    loop {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(6).collect();
        // Short, because the path of a unix socket may not exceed 107 bytes.
        let path = parent.join(format!("kalshi-sandbox-{name}"));
        match DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a directory that only its owner may enter.
///
/// # Errors
/// When it exists already or cannot be made.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// When it exists already or cannot be written.
pub fn private_file(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

/// The last lines of a log, for an error that must explain itself.
pub fn tail(path: &Path, lines: usize) -> String {
    let Ok(content) = fs::read(path) else { return String::new() };
    let text = String::from_utf8_lossy(&content);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(group: i32) -> Child {
        Command::new("sleep").arg("600").process_group(group).spawn().unwrap()
    }

    #[test]
    fn dropping_a_run_ends_its_processes_and_removes_its_directory() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(Some(parent.path())).unwrap();
        let mut role = sleeper(run.role_group());
        let mut postmaster = sleeper(run.postmaster_group());
        private_file(&run.path().join("secret"), "x").unwrap();
        drop(run);
        assert!(!role.wait().unwrap().success());
        assert!(!postmaster.wait().unwrap().success());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    /// Not a test: the process that the next one kills.
    #[test]
    #[ignore = "run by killing_the_run_leaves_nothing in a process of its own"]
    fn victim() {
        let mut parent = String::new();
        io::stdin().read_line(&mut parent).unwrap();
        if parent.trim().is_empty() {
            return;
        }
        let run = RunDir::create(Some(Path::new(parent.trim()))).unwrap();
        let mut role = sleeper(run.role_group());
        let mut postmaster = sleeper(run.postmaster_group());
        let pids = format!("{} {}", role.id(), postmaster.id());
        fs::write(run.path().join("pids"), pids).unwrap();
        fs::rename(run.path().join("pids"), run.path().join("ready")).unwrap();
        role.wait().unwrap();
        postmaster.wait().unwrap();
    }

    #[test]
    fn killing_the_run_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let module = module_path!().split_once("::").unwrap().1;
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::victim"), "--ignored"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = victim.stdin.take().unwrap();
        writeln!(told, "{}", parent.path().display()).unwrap();
        let patience = || Instant::now() + Duration::from_secs(30);
        let until = patience();
        let pids = loop {
            let entry = fs::read_dir(parent.path()).unwrap().flatten().next();
            if let Some(text) =
                entry.and_then(|entry| fs::read_to_string(entry.path().join("ready")).ok())
            {
                break text;
            }
            assert!(Instant::now() < until, "the victim did not start");
            std::thread::sleep(Duration::from_millis(10));
        };
        victim.kill().unwrap();
        victim.wait().unwrap();
        let is_alive = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let until = patience();
        while fs::read_dir(parent.path()).unwrap().count() > 0 || pids.split(' ').any(is_alive) {
            assert!(Instant::now() < until, "something was left behind");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_kept_directory_stays_while_its_processes_end() {
        let parent = tempfile::tempdir().unwrap();
        let mut run = RunDir::create(Some(parent.path())).unwrap();
        run.keep().unwrap();
        let path = run.path().to_path_buf();
        let mut role = sleeper(run.role_group());
        drop(run);
        assert!(!role.wait().unwrap().success());
        assert!(path.is_dir());
    }

    #[test]
    fn a_tail_is_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "b\nc");
        assert_eq!(tail(&path, 20), "a\nb\nc");
        assert_eq!(tail(&dir.path().join("none"), 2), "");
    }
}
