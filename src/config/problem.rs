//! What is wrong with a configuration file: every problem with its place and its key.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use super::raw::Place;

/// One thing to change. Quotes what the file says, never what a variable or a secret holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// None for the file as a whole.
    pub place: Option<Place>,
    /// As `gatherers[0].database.port`; empty for the file as a whole.
    pub key: String,
    pub message: String,
    /// Whether it may be over later without anybody's help: a place of secrets that is away.
    pub is_passing: bool,
}

impl Problem {
    /// One that the file has until somebody changes it.
    pub fn new(place: Option<Place>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, key: key.into(), message: message.into(), is_passing: false }
    }
}

/// All problems of one file, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigErrors {
    pub fn new(file: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { file: file.to_owned(), problems }
    }

    /// A problem with the file as a whole.
    pub fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self::new(file, vec![Problem::new(None, "", message)])
    }

    /// Whether all of it may be over later without anybody's help.
    pub fn is_passing(&self) -> bool {
        self.problems.iter().all(|problem| problem.is_passing)
    }

    #[cfg(any(test, fuzzing))]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn line(&self, problem: &Problem, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = problem.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if !problem.key.is_empty() {
            write!(f, ": {}", problem.key)?;
        }
        write!(f, ": {}", problem.message)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => self.line(only, f),
            many => {
                write!(f, "{} has {} problems", self.file.display(), many.len())?;
                for problem in many {
                    f.write_str("\n  ")?;
                    self.line(problem, f)?;
                }
                Ok(())
            }
        }
    }
}

impl Error for ConfigErrors {}

/// The known key that was probably meant: the nearest, when it is near.
pub fn did_you_mean<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let written = plain(written);
    let (distance, nearest) =
        known.iter().map(|key| (edits(&written, &plain(key)), *key)).min_by_key(|(d, _)| *d)?;
    let bound = (written.chars().count() / 3).clamp(1, 3);
    (distance <= bound).then_some(nearest)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (row, a_char) in a.chars().enumerate() {
        let mut current = vec![row.saturating_add(1)];
        let mut previous_b = None;
        for (column, b_char) in b.iter().copied().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX);
            let replaced = at(&last, column).saturating_add(usize::from(a_char != b_char));
            let inserted = at(&current, column).saturating_add(1);
            let deleted = at(&last, column.saturating_add(1)).saturating_add(1);
            let mut best = replaced.min(inserted).min(deleted);
            let swapped = previous_a == Some(b_char) && previous_b == Some(a_char);
            if let Some(two_back) = column.checked_sub(1)
                && swapped
            {
                best = best.min(at(&before_last, two_back).saturating_add(1));
            }
            current.push(best);
            previous_b = Some(b_char);
        }
        before_last = last;
        last = current;
        previous_a = Some(a_char);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested_when_it_is_near() {
        let known = ["password", "password_file", "port", "host", "max_bytes"];
        assert_eq!(did_you_mean("pasword", &known), Some("password"));
        assert_eq!(did_you_mean("passwordfile", &known), Some("password_file"));
        assert_eq!(did_you_mean("max-bytes", &known), Some("max_bytes"));
        assert_eq!(did_you_mean("Host", &known), Some("host"));
        assert_eq!(did_you_mean("prot", &known), Some("port"));
        assert_eq!(did_you_mean("elephant", &known), None);
        assert_eq!(did_you_mean("x", &[]), None);
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "abc", 3),
            ("prot", "port", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(a, b), count, "{a} {b}");
        }
    }

    #[test]
    fn one_problem_is_one_line_and_several_are_a_list() {
        let problem =
            |line, key: &str| Problem::new(Some(Place { line, column: 3 }), key, "is required");
        let file = Path::new("g.yaml");
        let one = ConfigErrors::new(file, vec![problem(4, "api.key_id")]);
        assert_eq!(one.to_string(), "g.yaml:4:3: api.key_id: is required");
        let two = ConfigErrors::new(file, vec![problem(4, "b"), problem(2, "a"), problem(4, "b")]);
        assert_eq!(
            two.to_string(),
            "g.yaml has 2 problems\n  g.yaml:2:3: a: is required\n  g.yaml:4:3: b: is required"
        );
        assert_eq!(ConfigErrors::whole(file, "is empty").to_string(), "g.yaml: is empty");
    }
}
