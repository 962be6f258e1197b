//! The rules of the house, checked like everything else: who may import whom, how files begin and
//! how long they grow, what is never written and never committed.
//!
//! It reads text, not syntax, which is enough to keep honest people from slipping.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by unwrapping it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file longer than this holds more than one idea.
const LINES_MAX: usize = 550;
const LINES_WARN: usize = 500;

/// Who may import whom, by module; a path like `pg::Target` allows that item only. A module may
/// always import itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli", "config", "role", "ops"]),
    ("cli", &["role", "ops", "model"]),
    // A role's configuration is made of these, so whoever builds one has to name them.
    (
        "config",
        &[
            "role",
            "model",
            "ops",
            "kalshi::Api",
            "kalshi::auth",
            "log::journal",
            "pg::Target",
            "pg::TlsMode",
            "pg::engine::Choice",
            "pg::migrate::Schema",
        ],
    ),
    ("role", &["log", "kalshi", "pg", "ops", "model"]),
    ("log", &["pg", "model", "ops"]),
    ("kalshi", &["model", "ops"]),
    ("pg", &["ops"]),
    ("ops", &[]),
    ("model", &[]),
];

/// Places that may read the environment, with what for.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("src/config/", "the configuration"),
    ("src/ops/telemetry.rs", "NO_COLOR, before there is a configuration"),
    ("src/pg/testing.rs", "where a test finds PostgreSQL"),
    ("src/role/sandbox/exchange/tests/", "where a test finds the recorded frames"),
    ("build.rs", "what Cargo passes"),
    ("tests/", "what a test is told"),
    ("benches/", "what a benchmark is told"),
];

/// Names that say nothing about what a thing does.
const EMPTY_TYPE_WORDS: &[&str] = &["Manager", "Handler", "Helper", "Utils"];
const EMPTY_MODULE_NAMES: &[&str] =
    &["manager", "handler", "helper", "helpers", "util", "utils", "common", "types", "misc"];

struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The program without line comments and without the tests at its end.
    fn code(&self) -> String {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        strip_comments(&self.text[..end])
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the repository, in order of its path.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for top in ["src", "tests", "benches", "fuzz", "build.rs"] {
        collect(&root().join(top), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 20, "only {} Rust files found", paths.len());
    paths
        .into_iter()
        .map(|path| Source {
            path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect()
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), into);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
}

/// The text without what follows `//` on a line. A string that holds `//` loses its rest too, which
/// hides nothing that is looked for here.
fn strip_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets at which `word` stands on its own.
fn occurrences<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let starts_word = word.starts_with(is_word);
        !(starts_word && text[..*at].chars().next_back().is_some_and(is_word))
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn verdict(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}\n", problems.join("\n  "));
}

/// The paths of a use tree (or of any path), from just behind its first `::`.
/// `pg::{Target, migrate::{self, Schema}}` gives pg::Target, pg::migrate and pg::migrate::Schema.
fn expand(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    expand_into(text, "", &mut paths);
    paths
}

/// Reads one tree, gives what is left of the text.
fn expand_into<'a>(text: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            let before = rest.len();
            rest = expand_into(rest, prefix, paths);
            if rest.len() == before {
                return rest;
            }
        }
    }
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = match (prefix, name) {
        (_, "self" | "") => prefix.to_owned(),
        ("", _) => name.to_owned(),
        _ => format!("{prefix}::{name}"),
    };
    if let Some(deeper) = rest.strip_prefix("::") {
        return expand_into(deeper, &path, paths);
    }
    paths.push(path);
    rest
}

/// What a file imports of ours, as (line, path), written as `crate::...` or reached by `super`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let text = strip_comments(&source.text);
    let mut found = Vec::new();
    for at in occurrences(&text, "crate::") {
        let rest = &text[at + "crate::".len()..];
        // `$crate::` in a macro and `pub(in crate::x)` are paths like any other.
        found.extend(expand(rest).into_iter().map(|path| (line_of(&text, at), path)));
    }
    let tops: Vec<&str> = IMPORTS.iter().map(|(name, _)| *name).collect();
    let depth = module(&source.path).split("::").count();
    let chain = "super::".repeat(depth);
    for at in occurrences(&text, &chain) {
        if text[..at].ends_with("super::") {
            continue;
        }
        for path in expand(&text[at + chain.len()..]) {
            let top = path.split("::").next().unwrap_or_default();
            if tops.contains(&top) && top != module(&source.path).split("::").next().unwrap() {
                found.push((line_of(&text, at), path));
            }
        }
    }
    if source.path == "src/main.rs" {
        // The root names its modules without `crate::`.
        for top in tops {
            for at in occurrences(&text, &format!("{top}::")) {
                if !text[..at].ends_with("::") {
                    found.extend(expand(&text[at..]).into_iter().map(|p| (line_of(&text, at), p)));
                }
            }
        }
    }
    found
}

/// `src/log/journal/mod.rs` is log::journal.
fn module(path: &str) -> String {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

fn is_within(path: &str, scope: &str) -> bool {
    path == scope || path.strip_prefix(scope).is_some_and(|rest| rest.starts_with("::"))
}

fn may_import(importer: &str, path: &str) -> bool {
    let top = importer.split("::").next().unwrap_or_default();
    let target = path.split("::").next().unwrap_or_default();
    if top == "role" && target == "role" {
        // A role is role::x with everything below it; what roles share is in the core.
        let role = |path: &str| path.split("::").nth(1).map(str::to_owned);
        return role(importer).is_none() || role(importer) == role(path);
    }
    if target == top {
        return true;
    }
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == top) else {
        return false;
    };
    // An item of the crate's root (a macro, a constant) belongs to nobody.
    let known = IMPORTS.iter().any(|(name, _)| *name == target);
    // `pg::{self}` or a glob reaches what `pg::Target` alone does not.
    !known || allowed.iter().any(|scope| is_within(path, scope))
}

#[test]
fn imports_follow_the_table() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        let importer = module(&source.path);
        for (line, path) in imports(source) {
            if !may_import(&importer, &path) {
                problems.push(format!("{}:{line}: {importer} imports {path}", source.path));
            }
        }
    }
    problems.dedup();
    verdict("a module imports what the table in tests/tidy.rs does not give it", &problems);
}

#[test]
fn every_top_module_is_in_the_table() {
    let mut problems = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".rs").unwrap_or(&name);
        if !IMPORTS.iter().any(|(known, _)| *known == name) {
            problems.push(format!("src/{name}"));
        }
    }
    verdict("a module of the first level that the import table does not know", &problems);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let problems: Vec<String> = sources()
        .iter()
        .filter(|source| {
            let first = source.text.lines().next().unwrap_or_default();
            first.strip_prefix("//!").is_none_or(|purpose| purpose.trim().len() < 10)
        })
        .map(|source| source.path.clone())
        .collect();
    verdict("a file must begin with //! and what it is for", &problems);
}

#[test]
fn no_file_outgrows_one_idea() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{}: {lines} lines", source.path));
        } else if lines > LINES_WARN {
            println!("{}: {lines} lines, more than {LINES_WARN}", source.path);
        }
    }
    verdict(&format!("a file of more than {LINES_MAX} lines"), &problems);
}

/// Reports every place of `words` in files for which `applies`.
fn find_words(words: &[&str], applies: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources() {
        if source.path == "tests/tidy.rs" || !applies(&source.path) {
            continue;
        }
        let code = source.code();
        for word in words {
            for at in occurrences(&code, word) {
                problems.push(format!("{}:{}: {word}", source.path, line_of(&code, at)));
            }
        }
    }
    problems
}

#[test]
fn tests_wait_for_conditions_and_never_sleep() {
    let problems = find_words(&["sleep("], |path| path.starts_with("tests/"));
    verdict("a test must not sleep: wait for what it needs", &problems);
}

#[test]
fn only_main_and_the_stop_end_the_process() {
    let problems = find_words(&["process::exit(", "process::abort("], |path| {
        path.starts_with("src/")
            && !["src/main.rs", "src/ops/shutdown.rs", "src/ops/crash.rs"].contains(&path)
    });
    verdict(
        "the process ends in main, in ops::shutdown when it must, or at a crash point of a test",
        &problems,
    );
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let words = ["env::var(", "env::var_os(", "env::vars(", "env::vars_os(", "option_env!("];
    let problems = find_words(&words, |path| {
        !ENVIRONMENT.iter().any(|(allowed, _)| path.starts_with(allowed))
    });
    verdict("the environment is read by src/config alone", &problems);
}

#[test]
fn names_say_what_a_thing_does() {
    let mut problems = Vec::new();
    for source in sources() {
        let code = strip_comments(&source.text);
        for keyword in ["struct ", "enum ", "trait ", "type ", "union "] {
            for at in occurrences(&code, keyword) {
                let name: String =
                    code[at + keyword.len()..].chars().take_while(|c| is_word(*c)).collect();
                if EMPTY_TYPE_WORDS.iter().any(|word| has_camel_word(&name, word)) {
                    problems.push(format!("{}:{}: {name}", source.path, line_of(&code, at)));
                }
            }
        }
        let path = source.path.trim_end_matches(".rs");
        for part in path.split('/') {
            if EMPTY_MODULE_NAMES.contains(&part) {
                problems.push(source.path.clone());
            }
        }
        for at in occurrences(&code, "mod ") {
            let name: String = code[at + 4..].chars().take_while(|c| is_word(*c)).collect();
            if EMPTY_MODULE_NAMES.contains(&name.as_str()) {
                problems.push(format!("{}:{}: mod {name}", source.path, line_of(&code, at)));
            }
        }
    }
    verdict("a name that says nothing", &problems);
}

fn has_camel_word(name: &str, word: &str) -> bool {
    name.match_indices(word)
        .any(|(at, _)| !name[at + word.len()..].starts_with(|c: char| c.is_lowercase()))
}

/// What git has, or would have after `git add --all`; empty outside a checkout.
fn committed() -> Vec<String> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        eprintln!("not checked: no git here, or not a checkout");
        return Vec::new();
    };
    let list = String::from_utf8(output.stdout).unwrap();
    list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

#[test]
fn no_keys_binaries_or_build_output_are_committed() {
    let mut problems = Vec::new();
    for path in committed() {
        let Ok(content) = fs::read(root().join(&path)) else {
            continue; // deleted, or a link to nowhere
        };
        if path.split('/').any(|part| part == "target") {
            problems.push(format!("{path}: build output"));
        }
        let extension = Path::new(&path).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if ["pem", "key", "p12", "pfx", "der", "jks"].contains(&extension) {
            problems.push(format!("{path}: looks like a key"));
        }
        if content.contains(&0) {
            problems.push(format!("{path}: not text"));
        } else if holds_private_key(&String::from_utf8_lossy(&content)) {
            problems.push(format!("{path}: holds a private key"));
        }
    }
    verdict("what must never be in the repository", &problems);
}

/// The targets of fuzz/ compile the program's modules, and nothing builds them beside `make fuzz`.
#[test]
fn fuzzing_depends_on_what_the_program_depends_on() {
    let dependencies = |path: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let (_, list) = text.split_once("\n[dependencies]\n").unwrap();
        let (list, _) = list.split_once("\n[").unwrap();
        list.lines().filter(|line| line.contains(" = ")).map(str::to_owned).collect()
    };
    let (program, mut fuzzing) = (dependencies("Cargo.toml"), dependencies("fuzz/Cargo.toml"));
    fuzzing.retain(|line| !line.starts_with("libfuzzer-sys "));
    let differences: Vec<String> = program.symmetric_difference(&fuzzing).cloned().collect();
    verdict("a dependency that only one of Cargo.toml and fuzz/Cargo.toml has", &differences);
}

/// Whoever installs from a lock file uses the registry that they trust or can reach.
#[test]
fn lock_files_name_no_host() {
    let mut problems = Vec::new();
    for path in committed().into_iter().filter(|path| path.ends_with("package-lock.json")) {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
        for at in text.match_indices("\"resolved\"").map(|(at, _)| at) {
            problems.push(format!("{path}:{}: resolved", line_of(&text, at)));
        }
    }
    verdict("a lock file that says where a package was downloaded", &problems);
}

/// A PEM header of a private key with the beginning of a key behind it. The header alone is what a
/// program that reads or makes keys has to name.
fn holds_private_key(text: &str) -> bool {
    const KEY_CHARS_MIN: usize = 40;
    text.match_indices("PRIVATE KEY-----").any(|(at, header)| {
        let begins = text[..at]
            .rfind("-----")
            .is_some_and(|dashes| text[dashes..at].starts_with("-----BEGIN ") && at - dashes < 40);
        let body = text[at + header.len()..].trim_start_matches([' ', '\n', '\r', '\t', '"', '\\']);
        // "\n" in a string literal leaves its n in front of the key, which is base64 like the rest.
        let length = body.chars().take_while(|c| c.is_ascii_alphanumeric() || "+/=".contains(*c));
        begins && length.count() >= KEY_CHARS_MIN
    })
}

#[test]
fn the_rules_see_what_they_look_for() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let found = |path: &str, text: &str| -> Vec<String> {
        imports(&source(path, text)).into_iter().map(|(_, path)| path).collect()
    };
    assert_eq!(
        found(
            "src/pg/pool.rs",
            "use crate::pg::{Target, migrate::{self, Schema}}; crate::ops::x();"
        ),
        ["pg::Target", "pg::migrate", "pg::migrate::Schema", "ops::x"]
    );
    assert_eq!(
        found("src/pg/pool.rs", "// crate::model\nuse super::super::model::Side;"),
        ["model::Side"]
    );
    assert_eq!(found("src/pg/pool.rs", "use super::error;"), Vec::<String>::new());
    assert_eq!(
        found("src/main.rs", "mod pg;\nuse config::load;\nfn f() { role::gather::run() }"),
        ["config::load", "role::gather::run"]
    );

    assert!(may_import("role::gather::plan", "role::gather::Config"));
    assert!(!may_import("role::gather::plan", "role::dedup"));
    assert!(!may_import("role::gather", "config"));
    assert!(may_import("config::checked", "pg::Target"));
    assert!(!may_import("config::checked", "pg::writer"));
    assert!(!may_import("config::checked", "pg"));
    assert!(!may_import("pg", "model::Price"));
    assert!(!may_import("model::book", "ops"));
    assert!(!may_import("main", "pg::migrate"));

    assert!(has_camel_word("SessionManager", "Manager") && has_camel_word("HandlerSet", "Handler"));
    assert!(!has_camel_word("Handlerless", "Handler") && !has_camel_word("Manage", "Manager"));
    assert_eq!(occurrences("pg_sleep(1); sleep(2)", "sleep(").count(), 1);

    let key = format!("-----BEGIN {}PRIVATE KEY-----\n{}", "RSA ", "Ab3/".repeat(20));
    assert!(holds_private_key(&key) && holds_private_key(&key.replace('\n', "\\n")));
    assert!(!holds_private_key("format!(\"-----BEGIN PRIVATE KEY-----\\n{body}\")"));
    assert!(!holds_private_key("expected BEGIN PRIVATE KEY"));
}
