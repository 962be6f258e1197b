//! A secret with its versions, wherever it is kept: the current one, the one that is to become it, and
//! the one before.
//!
//! The words and the order are those of AWS Secrets Manager's rotations: a new version is first pending,
//! then current *and* pending, then only current; at no moment is there none that is current.

use std::fmt;

use super::aws::AwsSecret;
use super::file::SecretFile;
use super::{Place, Secret};

/// One version of a secret.
#[derive(Debug, Clone)]
pub struct Version {
    /// Names the version within its secret.
    pub id: String,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
    /// Who logs in with it, where the secret says so.
    pub username: Option<String>,
    pub value: Secret,
}

/// The versions that a secret has now.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    pub current: Option<Version>,
    /// What a rotation that is under way is about to make current. The same version as `current` once it
    /// did, until the rotation is over.
    pub pending: Option<Version>,
    /// What was current before.
    pub previous: Option<Version>,
}

/// Why a secret could not be read or changed. `Display` is the whole reason; it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretError {
    /// Whether the same may succeed later without anybody's help.
    pub is_passing: bool,
    pub reason: String,
}

impl SecretError {
    pub fn passing(reason: impl Into<String>) -> Self {
        Self { is_passing: true, reason: reason.into() }
    }

    pub fn lasting(reason: impl Into<String>) -> Self {
        Self { is_passing: false, reason: reason.into() }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for SecretError {}

/// A secret by its place. Clones share the connection to where it is.
#[derive(Debug, Clone)]
pub struct Store {
    place: Place,
    kept: Kept,
}

#[derive(Debug, Clone)]
enum Kept {
    Aws(AwsSecret),
    File(SecretFile),
}

impl Store {
    /// Touches nothing yet.
    pub fn at(place: Place) -> Self {
        let kept = match &place {
            Place::Aws { name, key } => Kept::Aws(AwsSecret::new(name.clone(), key.clone())),
            Place::File(path) => Kept::File(SecretFile::new(path.clone())),
        };
        Self { place, kept }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The current version.
    ///
    /// # Errors
    /// Also when there is none.
    pub async fn current(&self) -> Result<Version, SecretError> {
        let version = match &self.kept {
            Kept::Aws(secret) => secret.current().await?,
            Kept::File(file) => file.read()?.current,
        };
        version
            .ok_or_else(|| SecretError::lasting(format!("{} has no current version", self.place)))
    }

    /// The current and the pending version: all that a login may have to try.
    ///
    /// # Errors
    /// When the secret cannot be read.
    pub async fn candidates(&self) -> Result<Versions, SecretError> {
        match &self.kept {
            Kept::Aws(secret) => secret.candidates().await,
            Kept::File(file) => file.read(),
        }
    }

    /// All versions; none where the secret exists without one, or a file does not exist yet.
    ///
    /// # Errors
    /// When the secret cannot be read, or is not there.
    pub async fn versions(&self) -> Result<Versions, SecretError> {
        match &self.kept {
            Kept::Aws(secret) => secret.versions().await,
            Kept::File(file) => file.read(),
        }
    }

    /// Keeps a new version as the pending one, durably. What else the secret holds stays as it is.
    ///
    /// # Errors
    /// When it could not be kept; then it may or may not be there.
    pub async fn put_pending(
        &self,
        value: &Secret,
        username: Option<&str>,
    ) -> Result<Version, SecretError> {
        match &self.kept {
            Kept::Aws(secret) => secret.put_pending(value, username).await,
            Kept::File(file) => file.put_pending(value, username),
        }
    }

    /// Marks the previous version as the pending one.
    ///
    /// # Errors
    /// When there is none, or the secret cannot be changed.
    pub async fn stage_previous(&self) -> Result<(), SecretError> {
        match &self.kept {
            Kept::Aws(secret) => secret.stage_previous().await,
            Kept::File(file) => file.stage_previous(),
        }
    }

    /// Makes the pending version current and the current one previous, in one step. It stays marked as
    /// pending until [`Store::settle`].
    ///
    /// # Errors
    /// When another version is pending by now, or the secret cannot be changed.
    pub async fn promote(&self, pending: &Version) -> Result<(), SecretError> {
        match &self.kept {
            Kept::Aws(secret) => secret.promote(pending).await,
            Kept::File(file) => file.promote(pending),
        }
    }

    /// Takes the mark from the pending version: the end of a rotation, or of one that was given up.
    ///
    /// # Errors
    /// When the secret cannot be changed.
    pub async fn settle(&self) -> Result<(), SecretError> {
        match &self.kept {
            Kept::Aws(secret) => secret.settle().await,
            Kept::File(file) => file.settle(),
        }
    }
}
