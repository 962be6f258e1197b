//! A secret given as a value, as a file, or by the place where its versions are kept.

use std::path::{Path, PathBuf};

use super::read::{Field, Section};
use crate::ops::secret::{
    Kind, Password, Place, PlainFile, Secret, SecretError, Store, without_line_end,
};

/// The three keys of one secret.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    pub value: &'static str,
    pub file: &'static str,
    pub secret: &'static str,
    pub kind: Kind,
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

/// Not secret by itself, but it changes together with the private key.
pub const KEY_ID: Keys =
    Keys { value: "key_id", file: "key_id_file", secret: "key_id_secret", kind: Kind::Password };

/// A secret and the key of the file that gave it.
pub struct Found {
    pub secret: Secret,
    pub field: Field,
}

/// Said of a secret where none is read, see [`super::env::Environment::is_closed`].
const CLOSED: &str = "is not read here";

/// Where a secret is.
enum Source {
    Value(Secret),
    File(PlainFile, Secret),
    Store(Store),
}

/// What a section says of a secret.
pub enum Given {
    Nothing,
    /// As a value or in a plain file, under this key.
    Plain(String),
    /// Where its versions are.
    Kept(Place),
}

impl Keys {
    fn all(&self) -> [&'static str; 3] {
        [self.value, self.file, self.secret]
    }

    /// Makes the keys known without reading what they give.
    pub fn skip(&self, section: &Section<'_>) {
        section.skip(&self.all());
    }

    /// The secret itself: one that is kept elsewhere is fetched from there, which may take some seconds.
    /// The outer `None` means a problem, the inner one that none is given.
    pub fn read(&self, section: &Section<'_>) -> Option<Option<Found>> {
        let Some((source, field)) = self.find(section)? else { return Some(None) };
        let secret = match source {
            Source::Value(secret) | Source::File(_, secret) => secret,
            Source::Store(_) if section.context().environment.is_closed() => {
                field.problem(section.context(), CLOSED);
                return None;
            }
            Source::Store(store) => match fetch(&store) {
                Ok(secret) => secret,
                Err(error) => {
                    field.fetch_problem(section.context(), &error);
                    return None;
                }
            },
        };
        Some(Some(Found { secret, field }))
    }

    /// A password that is read again when a server refuses it. One that is kept elsewhere is not fetched
    /// yet: a daemon must start while that place is away.
    pub fn password(&self, section: &Section<'_>) -> Option<Option<Password>> {
        let found = self.find(section)?;
        Some(found.map(|(source, _)| match source {
            Source::Value(secret) => secret.into(),
            Source::File(file, secret) => Password::in_file(file, secret),
            Source::Store(store) => Password::in_store(store),
        }))
    }

    /// Where the secret is, without looking there.
    pub fn given(&self, section: &Section<'_>) -> Option<Given> {
        if section.has(self.secret) {
            let field = section.required(self.secret)?;
            return field.parse(section.context(), Place::parse).map(Given::Kept);
        }
        let plain = [self.value, self.file].into_iter().find(|key| section.has(key));
        Some(plain.map_or(Given::Nothing, |key| Given::Plain(section.path_of(key))))
    }

    fn find(&self, section: &Section<'_>) -> Option<Option<(Source, Field)>> {
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
            let field = section.required(self.secret)?;
            let place = field.parse(context, Place::parse)?;
            return Some(Some((Source::Store(Store::at(place)), field)));
        }
        let (field, source) = if section.has(self.file) {
            let field = section.required(self.file)?;
            let path = PathBuf::from(&field.text);
            let is_private_directory = context
                .environment
                .credentials_directory()
                .is_some_and(|directory| Path::new(&path).starts_with(directory));
            let file = PlainFile { path, kind: self.kind, is_private_directory };
            let is_closed = context.environment.is_closed();
            match if is_closed { Err(CLOSED.to_owned()) } else { file.read() } {
                Ok(secret) => (field, Source::File(file, secret)),
                Err(message) => {
                    field.problem(context, &message);
                    return None;
                }
            }
        } else {
            let field = section.text(self.value)??;
            let text = match self.kind {
                Kind::Password => without_line_end(&field.text),
                Kind::PrivateKey => &field.text,
            };
            let secret = Secret::new(text);
            (field, Source::Value(secret))
        };
        let (Source::Value(secret) | Source::File(_, secret)) = &source else { return None };
        if secret.expose().is_empty() {
            field.secret_problem(context, "gives an empty secret");
            return None;
        }
        if self.kind == Kind::Password && secret.expose().contains('\0') {
            field.secret_problem(context, "gives a secret with a NUL character in it");
            return None;
        }
        Some(Some((source, field)))
    }
}

/// The current version, on a thread of its own: who loads a configuration may or may not be within a
/// runtime, and what the client keeps belongs to the runtime that made it.
fn fetch(store: &Store) -> Result<Secret, SecretError> {
    let fetched = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime
                .map_err(|error| SecretError::passing(format!("start a runtime: {error}")))?;
            // A store of its own, for the same reason.
            runtime.block_on(Store::at(store.place().clone()).current())
        });
        fetching.join()
    });
    match fetched {
        Ok(version) => version.map(|version| version.value),
        Err(_panicked) => Err(SecretError::passing(format!("read {}: failed", store.place()))),
    }
}
