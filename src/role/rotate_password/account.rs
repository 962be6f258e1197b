//! What a run did, step by step: a line each while it goes, or one JSON object at its end.

use std::io::{self, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Job;
use crate::ops::exit;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Done,
    /// It was so already.
    Already,
    /// A dry run would do it.
    WouldDo,
    Failed,
}

impl Ended {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Already => "already",
            Self::WouldDo => "would do",
            Self::Failed => "FAILED",
        }
    }
}

#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    ended: Ended,
    detail: String,
    /// Since the step before.
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Role {
    role: String,
    secret: String,
    strategy: &'static str,
    /// What the whole came to, in a word: `rotated`, `completed`, `rolled back`, `undone`, `would rotate`,
    /// `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    steps: Vec<Step>,
}

#[derive(Debug)]
pub struct Account {
    json: bool,
    roles: Vec<Role>,
    last: Instant,
}

impl Account {
    pub fn new(json: bool) -> Self {
        Self { json, roles: Vec::new(), last: Instant::now() }
    }

    pub fn begin(&mut self, job: &Job) {
        self.last = Instant::now();
        let (secret, strategy) = (job.store.place().to_string(), job.strategy.name());
        self.say(&format!("{} in {secret}", job.role));
        self.roles.push(Role {
            role: job.role.clone(),
            secret,
            strategy,
            outcome: "failed",
            error: None,
            steps: Vec::new(),
        });
    }

    /// A step is over. `database` is the one that it was about, if it was about one.
    pub fn step(
        &mut self,
        step: &'static str,
        database: Option<String>,
        ended: Ended,
        detail: impl Into<String>,
    ) {
        let detail = detail.into();
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let place = database.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        let word = ended.word();
        self.say(&format!("  {step:<8} {word:<8} {detail}{place} ({seconds:.1} s)"));
        if let Some(role) = self.roles.last_mut() {
            let seconds = (seconds * 1000.0).round() / 1000.0;
            role.steps.push(Step { step, database, ended, detail, seconds });
        }
    }

    /// What the job came to, unless it fails.
    pub fn outcome(&mut self, outcome: &'static str) {
        if let Some(role) = self.roles.last_mut() {
            role.outcome = outcome;
        }
    }

    pub fn end(&mut self, result: &Result<()>) {
        let Some(role) = self.roles.last_mut() else { return };
        if let Err(error) = result {
            role.outcome = "failed";
            role.error = Some(exit::chain(error));
        }
        let text = format!("  {}", role.outcome);
        self.say(&text);
    }

    /// A closed stdout is no reason to leave a rotation half way.
    fn say(&self, line: &str) {
        if !self.json {
            let _said = writeln!(io::stdout(), "{line}");
        }
    }

    /// # Errors
    /// When stdout is closed.
    pub fn print(&self) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::json!({ "roles": self.roles });
        writeln!(io::stdout(), "{text}").context("write to stdout")
    }
}
