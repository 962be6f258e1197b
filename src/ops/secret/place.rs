//! Where a secret is kept, as a person writes it: `aws:NAME#key` or `file:PATH`.

use std::fmt;
use std::path::PathBuf;

/// A secret that has versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In AWS Secrets Manager, by name or ARN.
    Aws {
        name: String,
        /// The member of the JSON object that the secret holds; none when all of it is the secret.
        key: Option<String>,
    },
    /// A file of ours, which holds the versions.
    File(PathBuf),
}

/// The longest name that Secrets Manager gives, in an ARN with room to spare.
const NAME_BYTES_MAX: usize = 1024;

impl Place {
    /// Reads `aws:NAME`, `aws:NAME#key` or `file:/absolute/path`.
    ///
    /// # Errors
    /// A clause that follows the quoted text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("file:") {
            let path = PathBuf::from(path);
            let is_a_file = path.is_absolute() && path.file_name().is_some();
            return if is_a_file {
                Ok(Self::File(path))
            } else {
                Err("does not name a file by its whole path, as file:/etc/kalshi/NAME".to_owned())
            };
        }
        let Some(rest) = text.strip_prefix("aws:") else {
            return Err("begins neither with aws: nor with file:".to_owned());
        };
        let (name, key) = rest.split_once('#').map_or((rest, None), |(n, k)| (n, Some(k)));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-:".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(allowed) {
            return Err(
                "does not name a secret: its name has letters, digits and /_+=.@-".to_owned()
            );
        }
        if key.is_some_and(|key| key.is_empty() || key.contains(char::is_control)) {
            return Err("names no key of the secret behind its `#`".to_owned());
        }
        Ok(Self::Aws { name: name.to_owned(), key: key.map(str::to_owned) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws { name, key: None } => write!(f, "aws:{name}"),
            Self::Aws { name, key: Some(key) } => write!(f, "aws:{name}#{key}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "aws:kalshi/gatherer",
            "aws:kalshi/gatherer#password",
            "aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:kalshi/db-AbCdEf#pass word",
            "file:/etc/kalshi/gatherer.secret",
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in
            ["", "x", "aws:", "aws:#k", "aws:a b", "aws:a#", "file:", "file:x", "file:/", "vault:x"]
        {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
