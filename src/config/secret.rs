//! A secret given as a value or as a file, and whether that file is safe enough to use.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::env::Environment;
use super::read::{Field, Section};
use crate::ops::secret::Secret;

/// The three keys of one secret.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    pub value: &'static str,
    pub file: &'static str,
    pub secret: &'static str,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One line; its end of line is not part of it. The file may be shared with a group.
    Password,
    /// The whole file, for its owner only.
    PrivateKey,
}

pub const PASSWORD: Keys = Keys {
    value: "password",
    file: "password_file",
    secret: "password_secret",
    kind: Kind::Password,
};

pub const PRIVATE_KEY: Keys = Keys {
    value: "private_key",
    file: "private_key_file",
    secret: "private_key_secret",
    kind: Kind::PrivateKey,
};

/// A secret and the key of the file that gave it.
pub struct Found {
    pub secret: Secret,
    pub field: Field,
}

impl Keys {
    fn all(&self) -> [&'static str; 3] {
        [self.value, self.file, self.secret]
    }

    /// Makes the keys known without reading what they give.
    pub fn skip(&self, section: &Section<'_>) {
        section.skip(&self.all());
    }

    /// The secret. The outer `None` means a problem, the inner one that none is given.
    pub fn read(&self, section: &Section<'_>) -> Option<Option<Found>> {
        let given: Vec<&str> = self.all().into_iter().filter(|key| section.has(key)).collect();
        match given.as_slice() {
            [] => return Some(None),
            [_] => {}
            [first, .., last] => {
                section.problem(last, format!("is given beside `{first}`: keep one of them"));
                return None;
            }
        }
        let context = section.context();
        if section.has(self.secret) {
            let message = format!(
                "secrets from a cloud provider are not available in this version: use `{}`",
                self.file
            );
            section.problem(self.secret, message);
            return None;
        }
        let (field, text) = if section.has(self.file) {
            let field = section.required(self.file)?;
            match read_file(Path::new(&field.text), self.kind, context.environment) {
                Ok(text) => (field, text),
                Err(message) => {
                    field.problem(context, &message);
                    return None;
                }
            }
        } else {
            let field = section.text(self.value)??;
            let text = field.text.clone();
            (field, text)
        };
        let text = match self.kind {
            Kind::Password => without_line_end(text),
            Kind::PrivateKey => text,
        };
        if text.is_empty() {
            field.secret_problem(context, "gives an empty secret");
            return None;
        }
        if self.kind == Kind::Password && text.contains('\0') {
            field.secret_problem(context, "gives a secret with a NUL character in it");
            return None;
        }
        Some(Some(Found { secret: Secret::new(text), field }))
    }
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Far above any password or key; keeps a mistaken path from being read whole.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The error is a clause that follows the quoted path.
fn read_file(path: &Path, kind: Kind, environment: &Environment) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Asked before the file is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    let mode = metadata.permissions().mode();
    // Where systemd keeps a unit's credentials only the unit can look, and the group bits are the
    // mask of the access list that lets it.
    let in_credentials = environment
        .credentials_directory()
        .is_some_and(|directory: PathBuf| path.starts_with(directory));
    let (forbidden, whom, cure) = match kind {
        Kind::PrivateKey if !in_credentials => (0o077, "others than its owner", "0400"),
        Kind::PrivateKey | Kind::Password => (0o007, "everybody", "0640"),
    };
    if mode & forbidden != 0 {
        return Err(format!(
            "is open to {whom} (mode {:04o}): run `chmod {cure} {}`",
            mode & 0o7777,
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}
