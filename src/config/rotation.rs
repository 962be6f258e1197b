//! Which passwords `kalshi rotate-password` works on: one role, or the list `rotation` of the file.
//!
//! A role's databases are those that the file logs in to as that role; what nobody logs in to with this
//! file is the file's own database.

use std::path::Path;

use super::env::Environment;
use super::read::Section;
use super::secret::{Given, PASSWORD};
use super::{
    ConfigErrors, Kind, Loaded, Root, database, deduplicator, gatherer, load, shared, units,
};
use crate::ops::secret::{Place, Store};
use crate::ops::telemetry;
use crate::pg::Target;
use crate::role::rotate_password::{Database, Job, Strategy};

/// What the command line says.
#[derive(Debug, Clone)]
pub enum Wanted {
    Role {
        name: String,
        secret: Option<String>,
        strategy: Strategy,
        reload: Option<String>,
    },
    /// Every entry of `rotation`.
    All,
}

const APPLICATION: &str = "kalshi rotate-password";

/// A database of the file.
struct Known {
    target: Target,
    given: Given,
    /// The gatherer whose it is, in a deduplicator's file.
    gatherer: Option<String>,
}

/// What a job is made of, from the command line or from an entry of the list.
struct Entry<'a> {
    role: String,
    secret: Option<Place>,
    strategy: Strategy,
    reload: Option<String>,
    /// By name, in place of those that the role logs in to.
    gatherers: Vec<String>,
    /// Its place in the file, which may have an `admin` of its own.
    at: Option<Section<'a>>,
}

/// Loads what is wanted out of either kind of file.
pub fn load_rotation(path: &Path, wanted: &Wanted) -> Result<Loaded<Vec<Job>>, ConfigErrors> {
    load(path, &Environment::process(), |root| read(root, wanted))
}

pub fn read(root: Root<'_>, wanted: &Wanted) -> Option<(Vec<Job>, telemetry::Config)> {
    let Some(kind) = root.kind else {
        root.section.problem("gatherer_id", "or `deduplicator_id` is required");
        return None;
    };
    let section = root.section;
    match kind {
        Kind::Gatherer => section.skip(&gatherer::KEYS),
        Kind::Deduplicator => section.skip(&deduplicator::KEYS),
    }
    let known = databases(&section, kind);
    let logging = shared::logging(&section);
    let entries = match wanted {
        Wanted::All => listed(&section),
        Wanted::Role { name, secret, strategy, reload } => {
            command_line(&section, name, secret.as_deref()).map(|secret| {
                vec![Entry {
                    role: name.clone(),
                    secret,
                    strategy: *strategy,
                    reload: reload.clone(),
                    gatherers: Vec::new(),
                    at: None,
                }]
            })
        }
    };
    let (known, entries) = (known?, entries?);
    let mut jobs = Vec::new();
    for entry in entries {
        jobs.push(job(&section, &known, entry));
    }
    section.finish();
    // Collected behind the loop, so that the first wrong one does not hide the next.
    Some((jobs.into_iter().collect::<Option<_>>()?, logging?))
}

/// Checks the keys of the list, for a process that never uses it.
pub fn skip(root: &Section<'_>) {
    for section in root.sections("rotation") {
        section.skip(&["role", "secret", "strategy", "reload", "gatherers", "admin"]);
        section.finish();
    }
}

fn command_line(section: &Section<'_>, name: &str, secret: Option<&str>) -> Option<Option<Place>> {
    if let Err(clause) = database::name(name) {
        section.problem("rotation", format!("--role {clause}"));
        return None;
    }
    let Some(text) = secret else { return Some(None) };
    match Place::parse(text) {
        Ok(place) => Some(Some(place)),
        Err(clause) => {
            section.problem("rotation", format!("--secret {text:?} {clause}"));
            None
        }
    }
}

fn databases(root: &Section<'_>, kind: Kind) -> Option<Vec<Known>> {
    let one = |section: Section<'_>, gatherer: Option<String>| {
        let given = PASSWORD.given(&section);
        let target = database::place(section, APPLICATION.to_owned());
        Some(Known { target: target?, given: given?, gatherer })
    };
    if kind == Kind::Gatherer {
        return Some(vec![one(root.section("database"), None)?]);
    }
    let mut all = vec![one(root.section("production"), None)];
    for section in root.sections("gatherers") {
        let id = section.require("id", units::id);
        let known = one(section.section("database"), id);
        section.finish();
        all.push(known);
    }
    all.into_iter().collect()
}

fn listed<'a>(root: &Section<'a>) -> Option<Vec<Entry<'a>>> {
    let sections = root.sections("rotation");
    if sections.is_empty() {
        let message = "lists no role: --all works on the roles that stand there";
        root.problem("rotation", message);
        return None;
    }
    let entry = |section: Section<'a>| {
        let role = section.require("role", database::name);
        let secret = section.get("secret", None, |text| Place::parse(text).map(Some));
        let strategy = section.get("strategy", Strategy::Single, |text| match text.trim() {
            "single" => Ok(Strategy::Single),
            "alternating" => Ok(Strategy::Alternating),
            _ => Err("is not one of single, alternating".to_owned()),
        });
        let reload = section.get("reload", None, |text| Ok(Some(text.to_owned())));
        let gatherers = section.texts("gatherers");
        section.skip(&["admin"]);
        let gatherers = gatherers?.into_iter().map(|field| field.text).collect();
        let (role, secret, strategy, reload) = (role?, secret?, strategy?, reload?);
        Some(Entry { role, secret, strategy, reload, gatherers, at: Some(section) })
    };
    sections.into_iter().map(entry).collect::<Vec<_>>().into_iter().collect()
}

fn job(root: &Section<'_>, known: &[Known], entry: Entry<'_>) -> Option<Job> {
    let Entry { role, secret, strategy, reload, gatherers, at } = entry;
    let own_admin = at.as_ref().filter(|at| at.has("admin"));
    let problem = |message: String| -> Option<Job> {
        root.problem("rotation", message);
        None
    };
    let own = known.first()?;
    let mut chosen: Vec<&Known> = Vec::new();
    if gatherers.is_empty() {
        // Those with another secret have another password.
        let is_other = |found: &Known| match (&found.given, &secret) {
            (Given::Kept(place), Some(secret)) => place != secret,
            _ => false,
        };
        chosen.extend(known.iter().filter(|found| found.target.user == role && !is_other(found)));
        if chosen.is_empty() {
            chosen.push(own);
        }
    }
    for name in &gatherers {
        let Some(found) = known.iter().find(|found| found.gatherer.as_ref() == Some(name)) else {
            return problem(format!(
                "names a gatherer {name:?} for {role}, which `gatherers` does not"
            ));
        };
        chosen.push(found);
    }
    // What a process of this file reads its password from has to follow the rotation.
    for found in chosen.iter().filter(|found| found.target.user == role) {
        match (&found.given, strategy) {
            (Given::Plain(key), Strategy::Single) => {
                return problem(format!(
                    "the password of {role} stands in `{key}` of this file, where a rotation cannot \
                     change it: give `password_secret` there instead, with the password that is in \
                     force, and restart the service"
                ));
            }
            (Given::Kept(_), Strategy::Alternating) => {
                return problem(format!(
                    "services of this file log in as {role} and read the secret again by themselves: \
                     alternating would give them the password of another login"
                ));
            }
            _ => {}
        }
    }
    let mut places: Vec<&Place> = chosen
        .iter()
        .filter(|found| found.target.user == role)
        .filter_map(|found| match &found.given {
            Given::Kept(place) => Some(place),
            Given::Plain(_) | Given::Nothing => None,
        })
        .collect();
    places.sort();
    places.dedup();
    let place = match (secret, places.as_slice()) {
        (Some(place), _) => place,
        (None, [only]) => (*only).clone(),
        (None, []) => {
            return problem(format!(
                "says not where the password of {role} is kept: give --secret, or `secret` in its entry"
            ));
        }
        (None, [..]) => {
            return problem(format!(
                "{role} has several secrets in this file: say which, with --secret, or `secret` in its entry"
            ));
        }
    };
    let is_own = |found: &Known| found.gatherer.is_none();
    let mut databases = Vec::new();
    for found in chosen {
        let target = Target { user: role.clone(), ..found.target.clone() };
        let admin = match own_admin {
            Some(at) => Some(database::admin(at.section("admin"), Some(&target))?),
            None if is_own(found) && root.has("admin") => {
                Some(database::admin(root.section("admin"), Some(&target))?)
            }
            None => None,
        };
        databases.push(Database { target, admin });
    }
    if let Some(at) = at {
        at.finish();
    }
    Some(Job { role, store: Store::at(place), strategy, databases, reload })
}
