//! A text that must never be printed: passwords and keys from the moment they are read.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

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
}
