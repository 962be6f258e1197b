//! The outcome of a run, for people and for programs.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::display::grouped;
use super::scrape::Histogram;
use super::strikes::Struck;
use super::verdict::{Counts, Verdict, Witness};

/// Milliseconds; none when nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

impl Latency {
    /// From a histogram of seconds.
    pub fn of(histogram: &Histogram) -> Self {
        let millis = |q| histogram.quantile(q).map(|s: f64| (s * 1e6).round() / 1e3);
        Self { p50: millis(0.50), p99: millis(0.99) }
    }
}

/// The JSON object that a run ends with. Keys are stable; more may come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub verdict: &'static str,
    pub published: Counts,
    pub production: Counts,
    pub lost: u64,
    pub duplicated: u64,
    pub books_compared: u64,
    pub books_different: u64,
    pub markets_compared: u64,
    pub markets_different: u64,
    pub latency_ms: Latency,
    /// `exchange` in a generated run, `socket` in a replay, whose exchange times are old.
    pub latency_from: &'static str,
    /// Of the whole run, set-up and comparison included.
    pub seconds: f64,
    /// Of publishing alone.
    pub flow_seconds: f64,
    pub seed: u64,
    /// First changes of new markets that went out before anybody could subscribe.
    pub unheard: u64,
    pub logs_not_dense: Vec<String>,
    pub gatherers: Vec<Witness>,
    pub duplicates_skipped: f64,
    /// Roles that failed and were started again.
    pub restarts: u32,
    pub chaos: Vec<Struck>,
    /// The first of each kind of difference.
    pub examples: Vec<String>,
    #[serde(skip)]
    pub sentence: String,
}

/// What a report needs beside the verdict.
pub struct Circumstances {
    pub from_exchange: Histogram,
    pub from_socket: Histogram,
    pub is_replay: bool,
    pub took: Duration,
    pub flow: Duration,
    pub seed: u64,
    pub unheard: u64,
    pub duplicates_skipped: f64,
    pub restarts: u32,
    pub chaos: Vec<Struck>,
}

impl Report {
    pub fn new(verdict: Verdict, around: Circumstances) -> Self {
        let (latency_from, histogram) = if around.is_replay {
            ("socket", &around.from_socket)
        } else {
            ("exchange", &around.from_exchange)
        };
        let millis = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        Self {
            verdict: if verdict.is_complete() { "complete" } else { "incomplete" },
            sentence: verdict.sentence(),
            published: verdict.published,
            production: verdict.production,
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            books_compared: verdict.books.compared,
            books_different: verdict.books.different,
            markets_compared: verdict.markets.compared,
            markets_different: verdict.markets.different,
            latency_ms: Latency::of(histogram),
            latency_from,
            seconds: millis(around.took),
            flow_seconds: millis(around.flow),
            seed: around.seed,
            unheard: around.unheard,
            logs_not_dense: verdict.not_dense,
            gatherers: verdict.witnesses,
            duplicates_skipped: around.duplicates_skipped,
            restarts: around.restarts,
            chaos: around.chaos,
            examples: verdict.examples,
        }
    }

    pub fn is_complete(&self) -> bool {
        self.verdict == "complete"
    }

    /// The table for people, with the verdict as its last line.
    pub fn table(&self) -> String {
        let number = |count: u64| Cell::new(grouped(count)).set_alignment(CellAlignment::Right);
        let mut facts = Table::new();
        facts.load_style(presets::UTF8_BORDERS_ONLY);
        facts.set_header(["", "published", "production"]);
        let (published, production) = (&self.published, &self.production);
        for (name, wanted, there) in [
            ("order-book deltas", published.orderbook_deltas, production.orderbook_deltas),
            ("trades", published.trades, production.trades),
            ("tickers", published.tickers, production.tickers),
            ("lifecycle", published.market_lifecycle, production.market_lifecycle),
        ] {
            facts.add_row([Cell::new(name), number(wanted), number(there)]);
        }
        let mut gatherers = Table::new();
        gatherers.load_style(presets::UTF8_BORDERS_ONLY);
        gatherers.set_header([
            "gatherer",
            "deltas received",
            "missed",
            "of them never sent",
            "missed where covered",
            "invented",
        ]);
        for witness in &self.gatherers {
            gatherers.add_row([
                Cell::new(&witness.id),
                number(witness.received),
                number(witness.missed),
                number(witness.unsent),
                number(witness.coverage_violations),
                number(witness.invented),
            ]);
        }
        let mut lines = vec![facts.to_string(), gatherers.to_string()];
        lines.push(format!(
            "books: {} compared, {} different",
            grouped(self.books_compared),
            grouped(self.books_different)
        ));
        lines.push(format!(
            "markets: {} compared, {} different",
            grouped(self.markets_compared),
            grouped(self.markets_different)
        ));
        let millis = |value: Option<f64>| value.map_or("?".to_owned(), |ms| format!("{ms:.0} ms"));
        lines.push(format!(
            "{} to production: p50 {}, p99 {}",
            self.latency_from,
            millis(self.latency_ms.p50),
            millis(self.latency_ms.p99)
        ));
        for struck in &self.chaos {
            lines.push(struck_text(struck));
        }
        if self.restarts > 0 {
            lines.push(format!("roles started again after a failure: {}", self.restarts));
        }
        if self.unheard > 0 {
            let unheard = grouped(self.unheard);
            lines.push(format!("published before anybody could subscribe: {unheard} deltas"));
        }
        lines.push(format!(
            "seed {}, {:.1} s of flow, {:.1} s in all",
            self.seed, self.flow_seconds, self.seconds
        ));
        lines.extend(self.examples.iter().cloned());
        lines.push(self.sentence.clone());
        lines.join("\n")
    }

    /// The object for programs.
    ///
    /// # Errors
    /// Never in practice: every value has a JSON form.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

fn struck_text(struck: &Struck) -> String {
    let Struck { at_seconds, kind, target, lasted_seconds, .. } = struck;
    if struck.skipped {
        return format!("fault at {at_seconds:.1} s: {kind} {target}, left out");
    }
    let after = struck
        .caught_up_seconds
        .map_or(String::new(), |seconds| format!(", caught up {seconds:.1} s after its return"));
    format!("fault at {at_seconds:.1} s: {kind} {target} for {lasted_seconds:.1} s{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Circumstances {
        Circumstances {
            from_exchange: Histogram::default(),
            from_socket: Histogram::default(),
            is_replay: false,
            took: Duration::from_millis(61_234),
            flow: Duration::from_secs(60),
            seed: 7,
            unheard: 0,
            duplicates_skipped: 0.0,
            restarts: 0,
            chaos: vec![Struck {
                at_seconds: 1.0,
                kind: "cut",
                target: "gatherer-1".to_owned(),
                lasted_seconds: 2.0,
                caught_up_seconds: None,
                skipped: false,
            }],
        }
    }

    #[test]
    fn the_object_has_every_promised_key() {
        let report = Report::new(Verdict::default(), around());
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        for pointer in [
            "/published/orderbook_deltas",
            "/published/trades",
            "/published/tickers",
            "/published/market_lifecycle",
            "/production/orderbook_deltas",
            "/lost",
            "/duplicated",
            "/books_compared",
            "/books_different",
            "/latency_ms/p50",
            "/latency_ms/p99",
            "/seconds",
            "/gatherers",
            "/chaos/0/at_seconds",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer}");
        }
        assert_eq!(json.pointer("/verdict").unwrap(), "complete");
        assert!(!report.json().unwrap().contains('\n'));
    }

    #[test]
    fn the_table_ends_with_the_verdict() {
        let verdict = Verdict { lost: 3, ..Verdict::default() };
        let report = Report::new(verdict, around());
        let table = report.table();
        assert!(table.lines().last().unwrap().starts_with("incomplete: "), "{table}");
        assert!(table.contains("fault at 1.0 s: cut gatherer-1 for 2.0 s"));
    }
}
