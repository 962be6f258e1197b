//! Configuration files: read as written, then checked into what the roles use.
//!
//! `raw` is the file with the place of every node, `read` takes keys out of it and collects what is
//! wrong, the rest knows the keys. The only reader of the environment for settings; knows no role's
//! work.

mod archive;
mod database;
mod deduplicator;
mod env;
mod gatherer;
mod market_sync;
mod problem;
mod raw;
mod read;
mod rotation;
mod secret;
mod shared;
mod units;
mod url;
mod verify;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

pub use problem::ConfigErrors;
pub use rotation::{Wanted, load_rotation};

use crate::ops::telemetry;
use crate::pg::Target;
use crate::pg::engine::Choice;
use crate::pg::migrate::Schema;
use crate::role::{self, archive as archive_role, dedup, gather};
use env::Environment;
use problem::Problem;
use raw::{Node, Place, Value};
use read::{Context, Section};

/// A configuration that is right as a whole.
#[derive(Debug)]
pub struct Loaded<T> {
    pub config: T,
    pub telemetry: telemetry::Config,
    /// What the file asks for in vain in this version; for the log.
    pub notices: Vec<String>,
}

/// The database that a file is about, whichever kind of file it is.
#[derive(Debug)]
pub struct Database {
    pub target: Target,
    /// The access of whoever migrates it, when that is another.
    pub admin: Option<Target>,
    pub schema: Schema,
    /// What is to divide the logs of a gatherer's database.
    pub engine: Choice,
}

/// Loads `gatherer.yaml`.
pub fn load_gatherer(path: &Path) -> Result<Loaded<gather::Config>, ConfigErrors> {
    load(path, &Environment::process(), |root| {
        root.expect_kind(Kind::Gatherer)?;
        gatherer::read(root.section)
    })
}

/// Loads `deduplicator.yaml`.
pub fn load_deduplicator(path: &Path) -> Result<Loaded<dedup::Config>, ConfigErrors> {
    load(path, &Environment::process(), |root| {
        root.expect_kind(Kind::Deduplicator)?;
        deduplicator::read(root.section)
    })
}

/// Loads what `deduplicator.yaml` says about the archive, and nothing else; none when there is none.
pub fn load_archive(path: &Path) -> Result<Loaded<Option<archive_role::Config>>, ConfigErrors> {
    load(path, &Environment::process(), |root| {
        root.expect_kind(Kind::Deduplicator)?;
        archive::read_alone(root.section)
    })
}

/// Loads what `verify` needs out of `deduplicator.yaml`.
pub fn load_verify(path: &Path) -> Result<Loaded<role::verify::Config>, ConfigErrors> {
    load(path, &Environment::process(), |root| {
        root.expect_kind(Kind::Deduplicator)?;
        verify::read(root.section)
    })
}

/// Loads the database out of either file, and nothing else: who migrates it has no exchange key.
pub fn load_either(path: &Path) -> Result<Loaded<Database>, ConfigErrors> {
    load(path, &Environment::process(), either)
}

fn either(root: Root<'_>) -> Option<(Database, telemetry::Config)> {
    let Some(kind) = root.kind else {
        root.section.problem("gatherer_id", "or `deduplicator_id` is required");
        return None;
    };
    let section = root.section;
    let (key, schema) = match kind {
        Kind::Gatherer => {
            section.skip(&gatherer::KEYS);
            ("database", Schema::Gatherer)
        }
        Kind::Deduplicator => {
            section.skip(&deduplicator::KEYS);
            ("production", Schema::Production)
        }
    };
    let (own, name) = (section.section(key), "kalshi migrate".to_owned());
    let found = if section.has("admin") {
        let target = database::place(own, name);
        let admin = database::admin(section.section("admin"), target.as_ref());
        target.zip(admin).map(|(target, admin)| (target, Some(admin)))
    } else {
        database::target(own, name).map(|target| (target, None))
    };
    let engine = match kind {
        Kind::Gatherer => gatherer::storage(section.section("storage")).map(|it| it.engine),
        Kind::Deduplicator => Some(Choice::default()),
    };
    let logging = shared::logging(&section);
    section.finish();
    let (target, admin) = found?;
    Some((Database { target, admin, schema, engine: engine? }, logging?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gatherer,
    Deduplicator,
}

/// A whole file, about to be read.
struct Root<'a> {
    kind: Option<Kind>,
    section: Section<'a>,
}

impl Root<'_> {
    /// Stops at a file of the other kind, of which every key would be unknown.
    fn expect_kind(&self, expected: Kind) -> Option<()> {
        match (self.kind, expected) {
            (Some(Kind::Deduplicator), Kind::Gatherer) => {
                let message = "is the key of a deduplicator's file: a gatherer's has `gatherer_id`";
                self.section.problem("deduplicator_id", message);
                None
            }
            (Some(Kind::Gatherer), Kind::Deduplicator) => {
                let message =
                    "is the key of a gatherer's file: a deduplicator's has `deduplicator_id`";
                self.section.problem("gatherer_id", message);
                None
            }
            _ => Some(()),
        }
    }
}

/// Far above any configuration; keeps a mistaken path from being read whole.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn load<T>(
    path: &Path,
    environment: &Environment,
    read: impl FnOnce(Root<'_>) -> Option<(T, telemetry::Config)>,
) -> Result<Loaded<T>, ConfigErrors> {
    let source = read_file(path).map_err(|message| ConfigErrors::whole(path, message))?;
    parse(path, &source, environment, read)
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

fn parse<T>(
    path: &Path,
    source: &str,
    environment: &Environment,
    read: impl FnOnce(Root<'_>) -> Option<(T, telemetry::Config)>,
) -> Result<Loaded<T>, ConfigErrors> {
    let node = raw::parse(source).map_err(|syntax| {
        let problem = Problem::new(syntax.place, "", syntax.message);
        ConfigErrors::new(path, vec![problem])
    })?;
    if matches!(node.value, Value::Null) {
        return Err(ConfigErrors::whole(path, "is empty"));
    }
    let context = Context::new(environment);
    let start = Place { line: 1, column: 1 };
    let root =
        Root { kind: kind(&node), section: Section::of(&context, String::new(), start, &node) };
    let result = read(root);
    let (problems, notices) = context.into_parts();
    match result {
        Some((config, telemetry)) if problems.is_empty() => {
            Ok(Loaded { config, telemetry, notices })
        }
        // A read that fails without a problem would be our own mistake; it must not pass for a success.
        _ if problems.is_empty() => Err(ConfigErrors::whole(path, "could not be understood")),
        _ => Err(ConfigErrors::new(path, problems)),
    }
}

fn kind(node: &Node) -> Option<Kind> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find_map(|entry| match entry.key.as_str() {
        "gatherer_id" => Some(Kind::Gatherer),
        "deduplicator_id" => Some(Kind::Deduplicator),
        _ => None,
    })
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
