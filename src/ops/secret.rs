//! A text that must never be printed: passwords and keys from the moment they are read; where they are
//! kept, and in which versions.

mod aws;
mod file;
mod password;
mod place;
mod store;

use std::fmt;
use std::sync::Arc;

use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

pub use file::{Kind, PlainFile, without_line_end};
pub use password::Password;
pub use place::Place;
pub use store::{SecretError, Store, Version, Versions};

/// A secret text. It has no `Display`, its `Debug` says only that it is one, it is wiped from memory
/// when the last clone is dropped, and every place that reads it is found by searching for `expose`.
#[derive(Clone)]
pub struct Secret(Arc<SecretString>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(SecretString::from(text.into())))
    }

    /// The text itself: for the call that needs it, never for a variable that lives on.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether both are the same text.
    pub fn is_same(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }

    /// A new one that nobody can guess: 40 letters and digits, which is 238 bits, and no character that a
    /// URL, a shell or a connection string would read as anything else.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, SecretError> {
        const LENGTH: usize = 40;
        const LETTERS: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = String::with_capacity(2 * LENGTH);
        while text.len() < LENGTH {
            let mut bytes = [0; LENGTH];
            aws_lc_rs::rand::fill(&mut bytes)
                .map_err(|_unspecified| SecretError::lasting("the system gave no randomness"))?;
            // The low six bits of a byte, again where they name no letter: each is as likely as any.
            let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte & 63)));
            text.extend(letters.map(|letter| char::from(*letter)));
            bytes.zeroize();
        }
        // Cut in place: a copy would stay behind unwiped.
        text.truncate(LENGTH);
        Ok(Self::new(text))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_redacts_and_expose_gives_the_text() {
        let secret = Secret::new("canary-7c1d");
        assert_eq!(secret.clone().expose(), "canary-7c1d");
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret)),
            "[redacted] Some(\n    [redacted],\n)"
        );
    }

    #[test]
    fn no_two_generated_ones_are_equal() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert!(!one.is_same(&two));
        for secret in [one, two] {
            let text = secret.expose();
            assert!(text.len() == 40 && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        }
    }
}
