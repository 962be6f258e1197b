//! What a run found, as it is told: findings, figures, and what could not be told. Keys of the JSON
//! are stable; more may come.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::Micros;
use crate::ops::duration::seconds;

/// Findings of one check that are listed; all are counted.
pub const LISTED_MAX: usize = 1000;

/// One thing that is not as it should be, and where.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Finding {
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gatherer: Option<String>,
    /// RFC 3339, and the same in microseconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_ts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Rows that are missing (negative: too many); of a hole an estimate by the rate around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// A trade's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trade_id: Option<String>,
    pub detail: String,
}

impl Finding {
    pub fn new(kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            market: None,
            channel: None,
            table: None,
            gatherer: None,
            from: None,
            to: None,
            from_ts: None,
            to_ts: None,
            seconds: None,
            rows: None,
            cause: None,
            trade_id: None,
            detail: detail.into(),
        }
    }

    pub fn market(mut self, market: &str) -> Self {
        self.market = (!market.is_empty()).then(|| market.to_owned());
        self
    }

    pub fn channel(mut self, channel: &str) -> Self {
        self.channel = Some(channel.to_owned());
        self
    }

    pub fn table(mut self, table: &str) -> Self {
        self.table = Some(table.to_owned());
        self
    }

    pub fn gatherer(mut self, gatherer: &str) -> Self {
        self.gatherer = Some(gatherer.to_owned());
        self
    }

    pub fn from(mut self, at: i64) -> Self {
        (self.from, self.from_ts) = (Some(Micros(at).to_string()), Some(at));
        self
    }

    /// Up to a time; call it behind [`Finding::from`].
    pub fn to(mut self, at: i64) -> Self {
        (self.to, self.to_ts) = (Some(Micros(at).to_string()), Some(at));
        self.seconds = self.from_ts.map(|from| seconds(at.saturating_sub(from)));
        self
    }

    pub fn rows(mut self, rows: Option<i64>) -> Self {
        self.rows = rows;
        self
    }

    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

/// Findings as they come: the first are kept, all are counted.
#[derive(Debug, Default)]
pub struct Findings {
    pub total: u64,
    pub listed: Vec<Finding>,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        self.total += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(finding);
        }
    }

    pub fn append(&mut self, other: Self) {
        self.total += other.total;
        let room = LISTED_MAX.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(room));
    }
}

/// A table of figures for people; the same figures are in the section's JSON.
#[derive(Debug, Clone)]
pub struct Figures {
    pub title: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// What one check found.
#[derive(Debug, Serialize)]
pub struct Section {
    pub check: &'static str,
    /// `holds`, `discrepancy`, or `unknown` when it could not be told.
    pub status: &'static str,
    pub findings_total: u64,
    pub findings: Vec<Finding>,
    pub figures: Value,
    /// What was not looked at, and why; what a person should know beside the findings.
    pub notes: Vec<String>,
    /// Why it could not be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    pub elapsed_seconds: f64,
    #[serde(skip)]
    pub tables: Vec<Figures>,
}

impl Section {
    pub fn new(check: &'static str) -> Self {
        Self {
            check,
            status: "holds",
            findings_total: 0,
            findings: Vec::new(),
            figures: json!({}),
            notes: Vec::new(),
            errors: Vec::new(),
            elapsed_seconds: 0.0,
            tables: Vec::new(),
        }
    }

    /// Takes the findings over, in order.
    pub fn found(&mut self, mut findings: Findings) {
        findings.listed.sort_by(|a, b| {
            (&a.market, &a.channel, &a.table, a.from_ts, a.kind)
                .cmp(&(&b.market, &b.channel, &b.table, b.from_ts, b.kind))
        });
        self.findings_total += findings.total;
        self.findings.append(&mut findings.listed);
    }

    /// Settles the status once everything is known. What was found stands before what could not be told.
    pub fn settled(mut self) -> Self {
        self.status = match (self.findings_total, self.errors.is_empty()) {
            (0, true) => "holds",
            (0, false) => "unknown",
            _ => "discrepancy",
        };
        self
    }
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Our clock, RFC 3339.
    pub at: String,
    pub since: String,
    pub until: String,
    /// As in the sections; the worst of them.
    pub status: &'static str,
    pub findings_total: u64,
    pub checks: Vec<Section>,
}

/// A count as a number with a point, exact up to 2^53.
pub fn real(count: u64) -> f64 {
    Duration::from_secs(count).as_secs_f64()
}

/// Whole seconds of a sum of microseconds.
pub fn whole_seconds(micros: i128) -> u64 {
    u64::try_from(micros / 1_000_000).unwrap_or(u64::MAX)
}

/// `part` of `whole` as a share from 0 to 1; 1 when there is nothing.
pub fn share(part: i128, whole: i128) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    // In millionths of a millionth, so that one missing second of a year of many markets shows.
    let scaled = part.saturating_mul(1_000_000_000_000) / whole;
    real(u64::try_from(scaled).unwrap_or(u64::MAX)) / 1e12
}
