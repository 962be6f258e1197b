//! What of a market's hours somebody saw, and what is a hole. Pure.

use std::collections::BTreeMap;

use super::coverage::{Roster, Seen, Stretch};
use super::intervals::{Depths, Span, add_depths, holes, union};
use super::report::{Finding, Findings};
use crate::model::Micros;

/// How long a market may wait for its first snapshot, after it opened or after recording began: 425,000
/// books need that long. Such waits are added up and told, one by one they are no findings.
const FIRST_SNAPSHOT_MICROS: i64 = 60_000_000;
/// How far from a hole the rate is taken that an estimate of missing rows follows from.
const RATE_MICROS: i64 = 3_600_000_000;

/// When a market could be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub ticker: String,
    pub open: i64,
    pub close: i64,
    pub is_open: bool,
    pub is_multivariate: bool,
}

/// What is judged of a market or channel.
pub struct Judge<'a> {
    pub roster: &'a Roster,
    /// The time that is looked at.
    pub whole: Span,
    pub recorded_from: i64,
    pub min_duration: i64,
    /// When the exchange said that it is away.
    pub maintenance: &'a [Span],
}

/// What came of it, of a range or of everything.
#[derive(Debug, Default)]
pub struct Found {
    pub findings: Findings,
    /// By channel.
    pub depths: BTreeMap<String, Depths>,
    /// By gatherer and cause: holes of its own, microseconds.
    pub own: BTreeMap<(usize, String), (u64, i128)>,
    pub markets: u64,
    pub never_seen: u64,
    pub late: u64,
    pub late_micros: i128,
    pub late_longest: i64,
    pub uncovered_micros: i128,
    pub excused_micros: i128,
    pub rows: u64,
}

impl Found {
    /// Adds what came of another range.
    pub fn append(&mut self, other: Self) {
        self.findings.append(other.findings);
        for (channel, depths) in other.depths {
            let sums = self.depths.entry(channel).or_default();
            for (day, micros) in depths {
                let sum = sums.entry(day).or_default();
                if sum.len() < micros.len() {
                    sum.resize(micros.len(), 0);
                }
                sum.iter_mut().zip(micros).for_each(|(sum, micros)| *sum += micros);
            }
        }
        for (key, (count, micros)) in other.own {
            let sum = self.own.entry(key).or_default();
            *sum = (sum.0 + count, sum.1 + micros);
        }
        self.markets += other.markets;
        self.never_seen += other.never_seen;
        self.late += other.late;
        self.late_micros += other.late_micros;
        self.late_longest = self.late_longest.max(other.late_longest);
        self.uncovered_micros += other.uncovered_micros;
        self.excused_micros += other.excused_micros;
        self.rows += other.rows;
    }
}

impl Judge<'_> {
    /// The time in which a market should have been seen.
    fn expected(&self, listed: Option<&Listed>, stretches: &[Stretch]) -> Span {
        let recorded = Span::new(self.whole.from.max(self.recorded_from), self.whole.to);
        match listed {
            Some(listed) if !stretches.iter().any(|stretch| stretch.is_replay) => {
                recorded.within(Span::new(listed.open, listed.close))
            }
            // A market that is in no list, or whose hours are those of another day: what can be said
            // is that nothing is missing between its first and its last moment.
            _ => {
                let from = stretches.iter().map(|s| s.span.from).min().unwrap_or(i64::MAX);
                let to = stretches.iter().map(|s| s.span.to).max().unwrap_or(i64::MIN);
                recorded.within(Span::new(from, to))
            }
        }
    }

    /// Judges one market, or one channel of all markets.
    pub fn judge(&self, seen: &Seen, listed: Option<&Listed>, found: &mut Found) {
        let Seen { ticker, channel, stretches } = seen;
        let expected = if ticker.is_empty() {
            Span::new(self.whole.from.max(self.recorded_from), self.whole.to)
        } else {
            self.expected(listed, stretches)
        };
        found.markets += u64::from(!ticker.is_empty());
        if expected.is_empty() {
            return;
        }
        let of = |gatherer: usize| {
            let own = stretches.iter().filter(|s| s.gatherer == gatherer && s.proves());
            union(own.map(|stretch| stretch.span).collect())
        };
        let views: Vec<Vec<Span>> = (0..self.roster.names.len()).map(of).collect();
        add_depths(expected, &views, found.depths.entry(channel.clone()).or_default());
        for (gatherer, view) in views.iter().enumerate() {
            for hole in holes(expected, view) {
                let cause = cause(stretches, gatherer, hole).map_or("not subscribed", |s| named(s));
                let sum = found.own.entry((gatherer, cause.to_owned())).or_default();
                *sum = (sum.0 + 1, sum.1 + i128::from(hole.micros()));
            }
        }
        let never = stretches.iter().all(|stretch| stretch.span.within(expected).is_empty());
        for hole in holes(expected, &union(views.concat())) {
            found.uncovered_micros += i128::from(hole.micros());
            if self.is_late(hole, expected, never) {
                found.late += 1;
                found.late_micros += i128::from(hole.micros());
                found.late_longest = found.late_longest.max(hole.micros());
                continue;
            }
            if self.maintenance.iter().any(|m| m.from <= hole.from && hole.to <= m.to)
                || left(stretches, hole, expected, listed)
            {
                found.excused_micros += i128::from(hole.micros());
                continue;
            }
            if hole.micros() >= self.min_duration {
                found.never_seen += u64::from(never);
                found.findings.push(self.finding(seen, hole, never));
            }
        }
    }

    /// The wait for the first snapshot. Recording begins anew with each, so that only what ends with a
    /// snapshot is a wait; a market that closed within a minute of the first connection had no time
    /// for one.
    ///
    /// Nor is the edge of what is judged a hole: sessions that stop together had their last frames at
    /// different times, and a market may have closed in between. What lies behind it is judged by the
    /// next run.
    fn is_late(&self, hole: Span, expected: Span, never: bool) -> bool {
        let to_edge = self.whole.to.saturating_sub(hole.from);
        if !never && hole.to == expected.to && to_edge <= FIRST_SNAPSHOT_MICROS {
            return true;
        }
        let begins = hole.from == expected.from && expected.from > self.whole.from;
        let first = expected.from == self.recorded_from;
        begins
            && hole.micros() <= FIRST_SNAPSHOT_MICROS
            && (!never || first || hole.to == self.whole.to)
    }

    fn finding(&self, seen: &Seen, hole: Span, never: bool) -> Finding {
        let Seen { ticker, channel, stretches } = seen;
        let mut ends: Vec<(usize, &Stretch)> = (0..self.roster.names.len())
            .filter_map(|gatherer| Some((gatherer, cause(stretches, gatherer, hole)?)))
            .collect();
        ends.sort_by_key(|(_, stretch)| stretch.span.to);
        // Who saw it last tells why nobody does.
        let cause = ends.last().map_or("not subscribed", |(_, stretch)| named(stretch));
        let told = (0..self.roster.names.len()).map(|gatherer| {
            let name = self.roster.name(gatherer);
            match ends.iter().find(|(of, _)| *of == gatherer) {
                None => format!("{name}: not subscribed"),
                Some((_, stretch)) => {
                    let (end, at) = (named(stretch), Micros(stretch.span.to));
                    let mark = if stretch.detail.is_empty() { "" } else { ": " };
                    format!("{name}: {end} at {at}{mark}{}", stretch.detail)
                }
            }
        });
        let detail = told.collect::<Vec<_>>().join("; ");
        Finding::new(if never { "never_covered" } else { "gap" }, detail)
            .market(ticker)
            .channel(channel)
            .from(hole.from)
            .to(hole.to)
            .rows(missing(stretches, hole))
            .cause(cause)
    }
}

/// The stretch of a gatherer whose end made the hole.
fn cause(stretches: &[Stretch], gatherer: usize, hole: Span) -> Option<&Stretch> {
    let own = stretches.iter().filter(|stretch| stretch.gatherer == gatherer);
    // One that proves nothing lies in its own hole.
    own.filter(|s| s.span.to <= hole.from || (!s.proves() && s.span.from < hole.to))
        .max_by_key(|stretch| stretch.span.to)
}

/// Why a stretch ended, in the words of an operator.
fn named(stretch: &Stretch) -> &str {
    match stretch.ended_by.as_str() {
        "gap" | "reset" => "gap",
        "stop" | "crash" => "restart",
        "terminal_error" => "terminal error",
        "decode_error" => "decode error",
        "journal_damage" => "journal damage",
        "integrity" => "wrong book",
        // Nothing ended, and nothing more was written.
        "continues" | super::coverage::OPEN => "silent since",
        other => other,
    }
}

/// Whether the market had left: every gatherer that saw it ended its subscription, nobody came back,
/// and it does not trade any more, whatever its hours were to be.
fn left(stretches: &[Stretch], hole: Span, expected: Span, listed: Option<&Listed>) -> bool {
    let last = |gatherer: usize| {
        stretches.iter().filter(|s| s.gatherer == gatherer).max_by_key(|stretch| stretch.span.to)
    };
    let mut gatherers: Vec<usize> = stretches.iter().map(|stretch| stretch.gatherer).collect();
    gatherers.sort_unstable();
    gatherers.dedup();
    hole.to == expected.to
        && listed.is_some_and(|listed| !listed.is_open)
        && !gatherers.is_empty()
        && gatherers.into_iter().filter_map(last).all(|s| s.ended_by == "unsubscribed")
}

/// How many rows a hole has cost, by the rate of the stretches around it.
fn missing(stretches: &[Stretch], hole: Span) -> Option<i64> {
    let around =
        Span::new(hole.from.saturating_sub(RATE_MICROS), hole.to.saturating_add(RATE_MICROS));
    let (mut records, mut micros) = (0_i128, 0_i128);
    for stretch in stretches {
        let Some(count) = stretch.records else { continue };
        if !stretch.span.within(around).is_empty() {
            records += i128::from(count);
            micros += i128::from(stretch.span.micros());
        }
    }
    (micros > 0).then(|| {
        let estimate = records * i128::from(hole.micros()) / micros;
        i64::try_from(estimate).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
