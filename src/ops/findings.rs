//! What a `--check` found, thing by thing: lines for people, or one JSON object.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use super::exit::{self, chain};

/// One thing that was tried. Keys are stable; more may come.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    /// Where it is.
    target: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What is no error and yet worth a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Serialize)]
struct Whole<'a> {
    ok: bool,
    checks: &'a [Finding],
}

/// All of them, in the order in which they were tried.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    problems: Vec<anyhow::Error>,
}

impl Findings {
    /// Takes what came of one thing; `Ok` may carry a note.
    pub fn add(&mut self, name: &str, target: &str, result: anyhow::Result<Option<String>>) {
        let (error, note) = match result {
            Ok(note) => (None, note),
            Err(error) => {
                let text = chain(&error);
                self.problems.push(error.context(name.to_owned()));
                (Some(text), None)
            }
        };
        let (name, target) = (name.to_owned(), target.to_owned());
        self.list.push(Finding { name, target, ok: error.is_none(), error, note });
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { name, target, error, note, .. } in &self.list {
            let found = error.as_deref().unwrap_or("ok");
            text.push_str(&format!("{name}: {target}: {found}\n"));
            if let Some(note) = note {
                text.push_str(&format!("  note: {note}\n"));
            }
        }
        text
    }

    fn json(&self) -> anyhow::Result<String> {
        let whole = Whole { ok: self.problems.is_empty(), checks: &self.list };
        Ok(format!("{}\n", serde_json::to_string(&whole).context("write JSON")?))
    }

    /// Prints everything to stdout.
    ///
    /// # Errors
    /// All that failed together, with the exit code of the first that has one of its own.
    pub fn report(self, as_json: bool) -> anyhow::Result<()> {
        let text = if as_json { self.json()? } else { self.text() };
        io::stdout().lock().write_all(text.as_bytes()).context("write to stdout")?;
        exit::all(self.problems)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::super::exit::{Exit, UsageError};
    use super::*;

    #[test]
    fn everything_is_told_whatever_failed_first() {
        let mut findings = Findings::default();
        findings.add("one", "a", Err(UsageError("wrong".to_owned()).into()));
        findings.add("two", "b", Err(anyhow!("down").context("connect")));
        findings.add("three", "c", Ok(None));
        findings.add("four", "d", Ok(Some("too much".to_owned())));
        let text = findings.text();
        assert_eq!(
            text,
            "one: a: wrong\ntwo: b: connect: down\nthree: c: ok\nfour: d: ok\n  note: too much\n"
        );
        let json: serde_json::Value = serde_json::from_str(&findings.json().unwrap()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][1]["error"], "connect: down");
        assert_eq!(
            json["checks"][2],
            serde_json::json!({"name": "three", "target": "c", "ok": true})
        );
        let error = findings.report(true).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(error.to_string().contains("one: wrong") && error.to_string().contains("two: "));
    }

    #[test]
    fn nothing_wrong_is_no_error() {
        let mut findings = Findings::default();
        findings.add("one", "a", Ok(None));
        assert!(findings.json().unwrap().starts_with(r#"{"ok":true,"#));
        findings.report(false).unwrap();
    }
}
