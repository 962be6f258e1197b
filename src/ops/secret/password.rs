//! A password that may be rotated while the process runs: what was accepted last, and where to look when
//! it no longer is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{PlainFile, Secret, SecretError, Store};

/// After a look in vain the next one waits, longer each time: whoever connects has a retry of its own,
/// and each look may be a paid request.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(15);

/// The password of a login. Clones share what they learn, so that of many sessions only one looks.
#[derive(Clone)]
pub struct Password(Arc<Shared>);

struct Shared {
    source: Source,
    /// What was read or accepted last.
    known: Mutex<Option<Secret>>,
    /// Held while somebody looks, so that nobody looks twice for one change.
    looks: tokio::sync::Mutex<Looks>,
}

enum Source {
    /// Given once and for all.
    Value,
    File(PlainFile),
    Store(Store),
}

#[derive(Default)]
struct Looks {
    wait: Duration,
    next: Option<Instant>,
    /// What the last look found: for whoever waited for it, while it is being tried.
    found: Vec<Secret>,
}

impl From<Secret> for Password {
    fn from(secret: Secret) -> Self {
        Self::new(Source::Value, Some(secret))
    }
}

impl Password {
    fn new(source: Source, known: Option<Secret>) -> Self {
        let known = Mutex::new(known);
        Self(Arc::new(Shared { source, known, looks: tokio::sync::Mutex::default() }))
    }

    /// One that stands in a file, which was read already.
    pub fn in_file(file: PlainFile, read: Secret) -> Self {
        Self::new(Source::File(file), Some(read))
    }

    /// One that is read when it is first needed.
    pub fn in_store(store: Store) -> Self {
        Self::new(Source::Store(store), None)
    }

    /// Where its versions are kept, if it has any.
    #[cfg(test)]
    pub fn store(&self) -> Option<&Store> {
        match &self.0.source {
            Source::Store(store) => Some(store),
            Source::Value | Source::File(_) => None,
        }
    }

    fn known(&self) -> Option<Secret> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, secret: &Secret) {
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret.clone());
    }

    /// What to log in with.
    ///
    /// # Errors
    /// When it was never read and cannot be now.
    pub async fn get(&self) -> Result<Secret, SecretError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _looking = self.0.looks.lock().await;
        match (self.known(), &self.0.source) {
            (Some(known), _) => Ok(known),
            (None, Source::Store(store)) => {
                let secret = store.current().await?.value;
                self.learn(&secret);
                Ok(secret)
            }
            (None, Source::Value | Source::File(_)) => {
                Err(SecretError::lasting("there is no password"))
            }
        }
    }

    /// The server took this one: the next session begins with it.
    pub async fn accepted(&self, secret: &Secret) {
        if self.known().is_some_and(|known| known.is_same(secret)) {
            return;
        }
        self.learn(secret);
        *self.0.looks.lock().await = Looks::default();
    }

    /// What else the password may be, now that the server refuses `refused`: the version that is current
    /// by now, then the one that is pending. When somebody looked a moment ago, that is what he found;
    /// nothing when there is nothing else.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub async fn others(&self, refused: &Secret) -> Result<Vec<Secret>, SecretError> {
        let mut looks = self.0.looks.lock().await;
        let is_new = |secret: &Secret| !secret.is_same(refused);
        // Somebody else may have found it while this one waited.
        if let Some(known) = self.known().filter(is_new) {
            return Ok(vec![known]);
        }
        let now = Instant::now();
        if looks.next.is_some_and(|next| now < next) {
            return Ok(looks.found.iter().filter(|secret| is_new(secret)).cloned().collect());
        }
        let found = match &self.0.source {
            Source::Value => Ok(Vec::new()),
            Source::File(file) => {
                let path = file.path.display();
                file.read()
                    .map(|secret| vec![secret])
                    .map_err(|clause| SecretError::passing(format!("{path} {clause}")))
            }
            Source::Store(store) => store.candidates().await.map(|versions| {
                let versions = [versions.current, versions.pending];
                versions.into_iter().flatten().map(|version| version.value).collect()
            }),
        };
        looks.wait = looks.wait.saturating_mul(2).clamp(WAIT_FIRST, WAIT_MAX);
        looks.next = Some(now + looks.wait);
        looks.found = found?;
        Ok(looks.found.iter().filter(|secret| is_new(secret)).cloned().collect())
    }

    /// The text of one that is given as a value or in a plain file.
    #[cfg(test)]
    pub fn expose(&self) -> String {
        self.known().unwrap().expose().to_owned()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.source {
            Source::Value | Source::File(_) => f.write_str("[redacted]"),
            Source::Store(store) => write!(f, "[redacted, in {}]", store.place()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{Kind, Place};
    use super::*;

    fn exposed(secrets: Vec<Secret>) -> Vec<String> {
        secrets.iter().map(|secret| secret.expose().to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_is_asked_once_and_again_when_the_server_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("role.secret");
        let store = Store::at(Place::File(path.clone()));
        let password = Password::in_store(store.clone());
        assert!(password.get().await.unwrap_err().to_string().contains("no current version"));
        let first = store.put_pending(&Secret::new("one"), None).await.unwrap();
        store.promote(&first).await.unwrap();
        store.settle().await.unwrap();
        let one = password.get().await.unwrap();
        assert_eq!(one.expose(), "one");
        assert!(password.others(&one).await.unwrap().is_empty());

        // A rotation has begun; whoever looked in vain just now waits a little.
        let second = store.put_pending(&Secret::new("two"), None).await.unwrap();
        assert!(password.others(&one).await.unwrap().is_empty());
        tokio::time::advance(WAIT_FIRST).await;
        assert_eq!(exposed(password.others(&one).await.unwrap()), ["two"]);
        // Another session that is refused while the first one still tries what it found.
        assert_eq!(exposed(password.others(&one).await.unwrap()), ["two"]);
        assert_eq!(password.get().await.unwrap().expose(), "one", "not accepted yet");
        password.accepted(&Secret::new("two")).await;
        assert_eq!(password.get().await.unwrap().expose(), "two");
        // Another session, which tried the first one before, needs no look.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(exposed(password.others(&one).await.unwrap()), ["two"]);
        assert_eq!(second.value.expose(), "two");
        assert!(!format!("{password:?}").contains("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_file_is_read_again_and_a_value_has_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("one\n");
        let file =
            PlainFile { path: path.clone(), kind: Kind::Password, is_private_directory: false };
        let read = file.read().unwrap();
        let password = Password::in_file(file, read.clone());
        write("two\n");
        assert_eq!(exposed(password.others(&read).await.unwrap()), ["two"]);
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(WAIT_FIRST).await;
        let error = password.others(&read).await.unwrap_err();
        assert!(error.is_passing && error.to_string().contains("cannot be read"), "{error}");

        let fixed = Password::from(Secret::new("x"));
        assert!(fixed.others(&Secret::new("x")).await.unwrap().is_empty());
    }
}
