//! Reading keys out of the tree: each read that fails leaves a problem and the reading goes on.
//!
//! A read returns `None` when it left a problem, so that a whole configuration exists only when every
//! part of it is right.

use std::cell::RefCell;

use super::env::Environment;
use super::problem::{Problem, did_you_mean};
use super::raw::{Entry, Node, Place, Value};
use crate::ops::secret::SecretError;

/// What all sections of one file share.
pub struct Context<'a> {
    pub environment: &'a Environment,
    problems: RefCell<Vec<Problem>>,
    notices: RefCell<Vec<String>>,
}

impl<'a> Context<'a> {
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, problems: RefCell::default(), notices: RefCell::default() }
    }

    pub fn problem(&self, place: Place, key: impl Into<String>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(Some(place), key, message));
    }

    /// Something that the file asks for in vain: said when the process starts, no reason to stop.
    pub fn notice(&self, text: impl Into<String>) {
        self.notices.borrow_mut().push(text.into());
    }

    pub fn into_parts(self) -> (Vec<Problem>, Vec<String>) {
        (self.problems.into_inner(), self.notices.into_inner())
    }
}

/// A single value with its variables replaced.
pub struct Field {
    pub key: String,
    pub place: Place,
    pub text: String,
    /// As the file says it, before variables: this is what a message may quote.
    written: String,
}

impl Field {
    /// Leaves a problem that quotes the value.
    pub fn problem(&self, context: &Context<'_>, message: &str) {
        context.problem(self.place, &self.key, format!("`{}` {message}", quotable(&self.written)));
    }

    /// Leaves a problem that does not: for values that may be or hold a secret.
    pub fn secret_problem(&self, context: &Context<'_>, message: &str) {
        context.problem(self.place, &self.key, message);
    }

    /// Leaves what kept a secret from being fetched.
    pub fn fetch_problem(&self, context: &Context<'_>, error: &SecretError) {
        let problem = Problem::new(Some(self.place), &self.key, error.to_string());
        let problem = Problem { is_passing: error.is_passing, ..problem };
        context.problems.borrow_mut().push(problem);
    }

    /// Parses the value; the error of `parse` is a clause that follows the quoted value.
    pub fn parse<T>(
        &self,
        context: &Context<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&self.text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(context, &message);
                None
            }
        }
    }
}

/// One mapping of the file, or of nothing where the file leaves it out.
pub struct Section<'a> {
    context: &'a Context<'a>,
    /// Empty for the whole file.
    path: String,
    place: Place,
    entries: &'a [Entry],
    /// Set when the file has something else in its place: the problem is told already.
    broken: bool,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The node as a mapping; `path` is its key and `place` that of the key.
    pub fn of(context: &'a Context<'a>, path: String, place: Place, node: &'a Node) -> Self {
        let (entries, broken): (&[Entry], bool) = match &node.value {
            Value::Map(entries) => (entries, false),
            Value::Null => (&[], false),
            Value::Text(_) | Value::List(_) => {
                context.problem(place, &path, format!("must be a mapping, not {}", node.kind()));
                (&[], true)
            }
        };
        Self { context, path, place, entries, broken, asked: RefCell::default() }
    }

    pub fn context(&self) -> &'a Context<'a> {
        self.context
    }

    /// The full name of a key of this section.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Leaves a problem with a key of this section, at its place or, where it is missing, the section's.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        if !self.broken {
            let place = self.find(key).map_or(self.place, |entry| entry.place);
            self.context.problem(place, self.path_of(key), message);
        }
    }

    /// Whether the file gives the key a value.
    pub fn has(&self, key: &'static str) -> bool {
        self.ask(key).is_some()
    }

    /// Whether the file gives the key a single value.
    pub fn is_text(&self, key: &'static str) -> bool {
        self.ask(key).is_some_and(|entry| matches!(entry.node.value, Value::Text(_)))
    }

    fn find(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The entry, unless it is missing or holds nothing. From here on the key is known.
    fn ask(&self, key: &'static str) -> Option<&'a Entry> {
        self.asked.borrow_mut().push(key);
        self.find(key).filter(|entry| !matches!(entry.node.value, Value::Null))
    }

    /// The value of a key that may be missing. The outer `None` means a problem.
    pub fn text(&self, key: &'static str) -> Option<Option<Field>> {
        match self.ask(key) {
            None => Some(None),
            Some(entry) => {
                field(self.context, self.path_of(key), entry.place, &entry.node).map(Some)
            }
        }
    }

    /// The value of a key that must be there and hold something.
    pub fn required(&self, key: &'static str) -> Option<Field> {
        let Some(field) = self.text(key)? else {
            self.problem(key, "is required");
            return None;
        };
        if field.text.trim().is_empty() {
            field.secret_problem(self.context, "is empty");
            return None;
        }
        Some(field)
    }

    /// The parsed value of a key, or its default.
    pub fn get<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.text(key)? {
            None => Some(default),
            Some(field) => field.parse(self.context, parse),
        }
    }

    /// The parsed value of a key that must be there.
    pub fn require<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.required(key)?.parse(self.context, parse)
    }

    /// The mapping under a key; an empty one where it is missing.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        match self.ask(key) {
            Some(entry) => Section::of(self.context, self.path_of(key), entry.place, &entry.node),
            None => Section {
                context: self.context,
                path: self.path_of(key),
                place: self.find(key).map_or(self.place, |entry| entry.place),
                entries: &[],
                broken: self.broken,
                asked: RefCell::default(),
            },
        }
    }

    /// The mappings of a list; empty where it is missing.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        self.items(key)
            .map(|(path, node)| Section::of(self.context, path, node.place, node))
            .collect()
    }

    /// The values of a list; empty where it is missing. `None` when one of them is wrong.
    pub fn texts(&self, key: &'static str) -> Option<Vec<Field>> {
        let fields: Vec<_> = self
            .items(key)
            .map(|(path, node)| field(self.context, path, node.place, node))
            .collect();
        fields.into_iter().collect()
    }

    fn items(&self, key: &'static str) -> impl Iterator<Item = (String, &'a Node)> + use<'a> {
        let list: &[Node] = match self.ask(key) {
            None => &[],
            Some(entry) => match &entry.node.value {
                Value::List(list) => list,
                _ => {
                    self.problem(key, format!("must be a list, not {}", entry.node.kind()));
                    &[]
                }
            },
        };
        let path = self.path_of(key);
        list.iter().enumerate().map(move |(index, node)| (format!("{path}[{index}]"), node))
    }

    /// Accepts keys without reading them: those of other versions, or of no use to this command.
    pub fn skip(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend_from_slice(keys);
    }

    /// Leaves a problem for every key that nobody asked for: call it when all reads are done.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for entry in self.entries {
            if asked.contains(&entry.key.as_str()) {
                continue;
            }
            let hint = match did_you_mean(&entry.key, &asked) {
                Some(key) => format!("is not a known key: did you mean `{key}`?"),
                None => "is not a known key".to_owned(),
            };
            self.context.problem(entry.place, self.path_of(&quotable(&entry.key)), hint);
        }
    }
}

fn field(context: &Context<'_>, key: String, place: Place, node: &Node) -> Option<Field> {
    // A list item that holds nothing has no key to be missing from.
    let Value::Text(written) = &node.value else {
        context.problem(place, key, format!("must be a single value, not {}", node.kind()));
        return None;
    };
    match context.environment.expand(written) {
        Ok(text) => Some(Field { key, place, text, written: written.clone() }),
        Err(errors) => {
            for error in errors {
                context.problem(place, &key, error);
            }
            None
        }
    }
}

/// A value as a message may show it: on one line and not long.
fn quotable(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String =
        text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
