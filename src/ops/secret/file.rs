//! Secrets in files: a plain one with nothing but the secret, and one of ours that holds versions, for
//! hosts without a secrets manager.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Place, Secret, SecretError, Version, Versions};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One line; its end of line is not part of it. The file may be shared with a group.
    Password,
    /// The whole file, for its owner only.
    PrivateKey,
}

/// A file that holds a secret and nothing else.
#[derive(Debug, Clone)]
pub struct PlainFile {
    pub path: PathBuf,
    pub kind: Kind,
    /// Whether only its reader can look into its directory, as into that of systemd's credentials, where
    /// the group's bits are the mask of the access list that lets it.
    pub is_private_directory: bool,
}

/// Far above any password or key; keeps a mistaken path from being read whole.
const FILE_BYTES_MAX: u64 = 64 * 1024;

impl PlainFile {
    /// What it holds now.
    ///
    /// # Errors
    /// A clause that follows the path: it cannot be read, or others than those it is for can read it.
    pub fn read(&self) -> Result<Secret, String> {
        let text = read_guarded(&self.path, self.kind, self.is_private_directory)?;
        Ok(match self.kind {
            Kind::Password => Secret::new(without_line_end(&text)),
            Kind::PrivateKey => Secret::new(text.as_str()),
        })
    }
}

/// The text without the end of its line.
pub fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn read_guarded(
    path: &Path,
    kind: Kind,
    is_private_directory: bool,
) -> Result<Zeroizing<String>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Asked before the file is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    let mode = metadata.permissions().mode();
    let (forbidden, whom, cure) = match kind {
        Kind::PrivateKey if !is_private_directory => (0o077, "others than its owner", "0400"),
        Kind::PrivateKey | Kind::Password => (0o007, "everybody", "0640"),
    };
    if mode & forbidden != 0 {
        return Err(format!(
            "is open to {whom} (mode {:04o}): run `chmod {cure} {}`",
            mode & 0o7777,
            path.display()
        ));
    }
    // Room for all of it from the start: a buffer that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or_default().saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(cannot)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A file of ours with the versions of one secret, as one JSON object. It is replaced as a whole, so a
/// reader sees the versions before a change or after it. A file with one plain line is read as a secret
/// that has had one version only.
#[derive(Debug, Clone)]
pub struct SecretFile {
    path: PathBuf,
}

/// The form of the file that this program writes.
const FORM: u32 = 1;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Document {
    kalshi_secret: u32,
    current: Option<Kept>,
    pending: Option<Kept>,
    previous: Option<Kept>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: String,
    created_at: i64,
    username: Option<String>,
    value: Secret,
}

#[derive(Serialize)]
struct Written<'a> {
    kalshi_secret: u32,
    current: Option<WrittenVersion<'a>>,
    pending: Option<WrittenVersion<'a>>,
    previous: Option<WrittenVersion<'a>>,
}

#[derive(Serialize)]
struct WrittenVersion<'a> {
    id: &'a str,
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    value: &'a str,
}

impl From<Kept> for Version {
    fn from(kept: Kept) -> Self {
        let Kept { id, created_at, username, value } = kept;
        Self { id, created_at, username, value }
    }
}

impl<'a> From<&'a Version> for WrittenVersion<'a> {
    fn from(version: &'a Version) -> Self {
        Self {
            id: &version.id,
            created_at: version.created_at,
            username: version.username.as_deref(),
            value: version.value.expose(),
        }
    }
}

fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

impl SecretFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn error(&self, clause: impl std::fmt::Display) -> SecretError {
        SecretError::lasting(format!("{} {clause}", Place::File(self.path.clone())))
    }

    /// Its versions; none at all where there is no such file.
    pub fn read(&self) -> Result<Versions, SecretError> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Versions::default());
            }
            _ => {}
        }
        let text = read_guarded(&self.path, Kind::Password, false).map_err(|e| self.error(e))?;
        if !text.trim_start().starts_with('{') {
            return self.plain(&text);
        }
        // The parser's own words may quote what it found.
        let document: Document = serde_json::from_str(&text)
            .map_err(|error| self.error(format!("is damaged at line {}", error.line())))?;
        if document.kalshi_secret != FORM {
            return Err(self.error("was written by another version of this program"));
        }
        Ok(Versions {
            current: document.current.map(Version::from),
            pending: document.pending.map(Version::from),
            previous: document.previous.map(Version::from),
        })
    }

    fn plain(&self, text: &str) -> Result<Versions, SecretError> {
        let line = without_line_end(text);
        if line.is_empty() || line.contains(['\n', '\0']) {
            return Err(
                self.error("holds neither versions of a secret nor one line with a password")
            );
        }
        let modified = fs::metadata(&self.path).ok().map_or(0, |metadata| {
            metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1000)
        });
        let version = Version {
            id: "plain".to_owned(),
            created_at: modified,
            username: None,
            value: Secret::new(line),
        };
        Ok(Versions { current: Some(version), ..Versions::default() })
    }

    pub fn put_pending(
        &self,
        value: &Secret,
        username: Option<&str>,
    ) -> Result<Version, SecretError> {
        let version = Version {
            id: Uuid::new_v4().to_string(),
            created_at: now_micros(),
            username: username.map(str::to_owned),
            value: value.clone(),
        };
        self.change(|versions| {
            versions.pending = Some(version.clone());
            Ok(())
        })?;
        Ok(version)
    }

    pub fn stage_previous(&self) -> Result<(), SecretError> {
        self.change(|versions| {
            let previous = versions.previous.clone();
            versions.pending = Some(previous.ok_or("has no previous version")?);
            Ok(())
        })
    }

    pub fn promote(&self, pending: &Version) -> Result<(), SecretError> {
        self.change(|versions| match &versions.pending {
            Some(found) if found.id == pending.id => {
                if versions.current.as_ref().is_none_or(|current| current.id != pending.id) {
                    versions.previous = versions.current.replace(pending.clone());
                }
                Ok(())
            }
            _ => Err("was changed by somebody else meanwhile"),
        })
    }

    pub fn settle(&self) -> Result<(), SecretError> {
        self.change(|versions| {
            versions.pending = None;
            Ok(())
        })
    }

    /// Replaces the file, whole and durably, while nobody else does. It keeps its owner, group and mode;
    /// a new one is its owner's and, to read, its directory's group's.
    fn change(
        &self,
        change: impl FnOnce(&mut Versions) -> Result<(), &'static str>,
    ) -> Result<(), SecretError> {
        let cannot = |error: std::io::Error| self.error(format!("cannot be written: {error}"));
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let held = File::open(directory).map_err(cannot)?;
        flock(&held, FlockOperation::LockExclusive).map_err(|error| cannot(error.into()))?;
        let mut versions = self.read()?;
        change(&mut versions).map_err(|clause| self.error(clause))?;
        let written = Written {
            kalshi_secret: FORM,
            current: versions.current.as_ref().map(WrittenVersion::from),
            pending: versions.pending.as_ref().map(WrittenVersion::from),
            previous: versions.previous.as_ref().map(WrittenVersion::from),
        };
        let mut text = Zeroizing::new(Vec::with_capacity(8192));
        serde_json::to_writer_pretty(&mut *text, &written)
            .map_err(|error| self.error(format!("cannot be written: {error}")))?;
        text.push(b'\n');
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = directory.join(name);
        let result = self.replace(&new, &held, &text);
        if result.is_err() {
            // What is left would be overwritten by the next change anyway.
            let _removed = fs::remove_file(&new);
        }
        result.map_err(cannot)
    }

    fn replace(&self, new: &Path, directory: &File, text: &[u8]) -> std::io::Result<()> {
        let (mode, uid, gid) = match fs::metadata(&self.path) {
            Ok(found) => (found.mode() & 0o7777, Some(found.uid()), found.gid()),
            Err(_) => (0o640, None, directory.metadata()?.gid()),
        };
        // What a process that died left behind has another's rights, perhaps.
        let _removed = fs::remove_file(new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        let made = file.metadata()?;
        if uid.is_some_and(|uid| uid != made.uid()) || gid != made.gid() {
            fchown(&file, uid, Some(gid))?;
        }
        file.write_all(text)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(new, &self.path)?;
        directory.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir) -> SecretFile {
        SecretFile::new(dir.path().join("role.secret"))
    }

    fn shown(file: &SecretFile) -> [Option<String>; 3] {
        let Versions { current, pending, previous } = file.read().unwrap();
        [current, pending, previous].map(|v| v.map(|v| v.value.expose().to_owned()))
    }

    fn texts(all: [&str; 3]) -> [Option<String>; 3] {
        all.map(|text| (text != "-").then(|| text.to_owned()))
    }

    #[test]
    fn versions_move_in_their_order_and_none_is_ever_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        assert_eq!(shown(&file), texts(["-", "-", "-"]));
        let first = file.put_pending(&Secret::new("one"), None).unwrap();
        assert_eq!(shown(&file), texts(["-", "one", "-"]));
        file.promote(&first).unwrap();
        assert_eq!(shown(&file), texts(["one", "one", "-"]));
        file.promote(&first).unwrap();
        file.settle().unwrap();
        assert_eq!(shown(&file), texts(["one", "-", "-"]));
        let second = file.put_pending(&Secret::new("two"), Some("role_b")).unwrap();
        assert!(file.promote(&first).unwrap_err().reason.contains("somebody else"));
        file.promote(&second).unwrap();
        file.settle().unwrap();
        assert_eq!(shown(&file), texts(["two", "-", "one"]));
        assert_eq!(file.read().unwrap().current.unwrap().username.as_deref(), Some("role_b"));
        file.stage_previous().unwrap();
        assert_eq!(shown(&file), texts(["two", "one", "one"]));
        file.promote(&first).unwrap();
        file.settle().unwrap();
        assert_eq!(shown(&file), texts(["one", "-", "two"]));
        let mode = fs::metadata(&file.path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o640);
    }

    #[test]
    fn a_plain_line_is_a_first_version_and_its_rights_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        fs::write(&file.path, "canary-1\n").unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("is open to everybody (mode 0644): run `chmod 0640 "), "{error}");
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(shown(&file), texts(["canary-1", "-", "-"]));
        file.put_pending(&Secret::new("two"), None).unwrap();
        assert_eq!(shown(&file), texts(["canary-1", "two", "-"]));
        let mode = fs::metadata(&file.path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        for text in [
            "{\"kalshi_secret\":1,\"current\":\"canary-2\"}",
            "{\"kalshi_secret\":2}",
            "{canary-2",
            "a\ncanary-2\n",
            "",
        ] {
            fs::write(&file.path, text).unwrap();
            fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = file.read().map(|_| ()).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("canary"), "{error}");
            assert!(error.to_string().starts_with("file:/"), "{error}");
            assert!(file.put_pending(&Secret::new("x"), None).is_err());
            assert_eq!(fs::read_to_string(&file.path).unwrap(), text, "nothing is changed");
        }
    }
}
