//! Shows a run while it goes on: a few live lines on a terminal, plain lines now and then elsewhere.
//! Everything goes to stderr; stdout is the verdict's.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::observe::View;

/// Between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Rates are means over this much, so that they can be read.
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Styles disappear by themselves under NO_COLOR.
const LIVE: &str = "{spinner:.green} {prefix} [{bar:40.green}] {msg}";

/// Where a run is shown.
pub struct Screen {
    started: Instant,
    live: Option<ProgressBar>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When publishing began, and how long it will last.
    flow: Option<(Instant, Duration)>,
    last_line: Option<Instant>,
    earlier: Option<View>,
    rates: Rates,
}

/// Rows a second.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rates {
    published: f64,
    gatherers: Vec<Option<f64>>,
    production: f64,
}

impl Screen {
    /// The terminal that stderr is, or plain lines.
    pub fn new() -> Self {
        let live = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(LIVE) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { started: Instant::now(), live, state: Mutex::default() }
    }

    /// One line that stays: a step, a fault, a path.
    pub fn note(&self, text: &str) {
        let line = format!("{:7.1}s  {text}", self.started.elapsed().as_secs_f64());
        match &self.live {
            Some(bar) => bar.suspend(|| print_line(&line)),
            None => print_line(&line),
        }
    }

    /// Says what is being done now; it stays on plain output, and is overwritten on a terminal.
    pub fn step(&self, text: &str) {
        match &self.live {
            Some(bar) => {
                bar.set_prefix(text.to_owned());
                bar.set_message("");
            }
            None => self.note(text),
        }
    }

    /// The exchange has begun to publish.
    pub fn flow(&self, began: Instant, length: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.flow = Some((began, length));
    }

    /// Shows how everything stands.
    pub fn show(&self, view: &View) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((began, length)) = state.flow else { return };
        state.update_rates(view);
        let elapsed = began.elapsed();
        match &self.live {
            Some(bar) => {
                let share = elapsed.as_secs_f64() / length.as_secs_f64().max(1e-3);
                bar.set_position(thousandths(share));
                bar.set_prefix(clock(elapsed, length));
                bar.set_message(live_text(view, &state.rates));
            }
            None => {
                if state.last_line.is_some_and(|last| last.elapsed() < LINE_INTERVAL) {
                    return;
                }
                state.last_line = Some(Instant::now());
                let line = plain_text(view, &state.rates);
                drop(state);
                self.note(&line);
            }
        }
    }

    /// Clears what is live.
    pub fn end(&self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn update_rates(&mut self, view: &View) {
        let (Some(at), Some(earlier)) = (view.at, &self.earlier) else {
            self.earlier = Some(view.clone());
            return;
        };
        let Some(before) = earlier.at else { return };
        if at < before + RATE_WINDOW {
            return;
        }
        let seconds = (at - before).as_secs_f64();
        self.rates = Rates {
            published: rate(earlier.published.total(), view.published.total(), seconds),
            gatherers: earlier
                .gatherers
                .iter()
                .zip(&view.gatherers)
                .map(|(was, is)| Some(rate(was.rows()?, is.rows()?, seconds)))
                .collect(),
            production: rate(earlier.produced().total(), view.produced().total(), seconds),
        };
        self.earlier = Some(view.clone());
    }
}

fn print_line(line: &str) {
    // A closed stderr must not end the run: its verdict is on stdout.
    if writeln!(std::io::stderr(), "{line}").is_err() {
        tracing::debug!("stderr is closed");
    }
}

fn rate(before: u64, after: u64, seconds: f64) -> f64 {
    as_f64(after.saturating_sub(before)) / seconds
}

/// Exact up to 2^53, which no count of rows reaches.
fn as_f64(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xFFFF_FFFF).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

fn thousandths(share: f64) -> u64 {
    // From a float only by comparison: a lossy cast is not worth having for a bar.
    (0..1000_u32).take_while(|step| f64::from(*step) / 1000.0 < share).count() as u64
}

fn clock(elapsed: Duration, length: Duration) -> String {
    let left = length.saturating_sub(elapsed);
    if left.is_zero() {
        return format!("{} draining", minutes(elapsed));
    }
    format!("{} elapsed, {} left", minutes(elapsed), minutes(left))
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// `12,345,678`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plain_text(view: &View, rates: &Rates) -> String {
    let published = view.published.total();
    let mut text = format!("published {} ({:.0}/s)", grouped(published), rates.published);
    for (index, gatherer) in view.gatherers.iter().enumerate() {
        let rows = gatherer.rows().map_or("database away".to_owned(), grouped);
        text.push_str(&format!("  g{} {rows}", index + 1));
    }
    let produced = view.produced().total();
    text.push_str(&format!("  production {} ({:.0}/s)", grouped(produced), rates.production));
    text.push_str(&format!("  {}", tail_text(view)));
    text
}

fn tail_text(view: &View) -> String {
    let lag = view.production.lag_seconds.map_or("?".to_owned(), |lag| format!("{lag:.1} s"));
    let journal: f64 = view.gatherers.iter().filter_map(|gatherer| gatherer.journal_bytes).sum();
    format!("lag {lag}  skipped {:.0}  journals {:.1} MB", view.skipped, journal / 1e6)
}

fn live_text(view: &View, rates: &Rates) -> String {
    let mut text = String::new();
    let mut line = |name: &str, rows: &str, rate: Option<f64>, note: &str| {
        let rate = rate.map_or(String::new(), |rate| format!("{rate:.0}/s"));
        // Writing to a string cannot fail.
        write!(text, "\n  {name:<12} {rows:>14} {rate:>10}  {note}").is_ok()
    };
    line("published", &grouped(view.published.total()), Some(rates.published), "");
    for (index, gatherer) in view.gatherers.iter().enumerate() {
        let rows = gatherer.rows().map_or("database away".to_owned(), grouped);
        let health = gatherer.health.as_deref().unwrap_or("process away");
        let rate = rates.gatherers.get(index).copied().flatten();
        line(&format!("gatherer-{}", index + 1), &rows, rate, health);
    }
    let health = view.production.health.as_deref().unwrap_or("process away");
    let rows = grouped(view.produced().total());
    line("production", &rows, Some(rates.production), health);
    line("", &tail_text(view), None, "");
    text
}

#[cfg(test)]
mod tests {
    use super::super::observe::GathererView;
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn a_bar_is_full_at_the_end_and_never_over() {
        assert_eq!(thousandths(0.0), 0);
        assert_eq!(thousandths(0.5), 500);
        assert_eq!(thousandths(7.0), 1000);
    }

    #[test]
    fn what_is_away_is_said_so() {
        let view = View { gatherers: vec![GathererView::default()], ..View::default() };
        assert!(plain_text(&view, &Rates::default()).contains("g1 database away"));
        assert!(live_text(&view, &Rates::default()).contains("process away"));
        ProgressStyle::with_template(LIVE).unwrap();
    }
}
