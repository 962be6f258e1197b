//! Markets divided into ranges of about as many rows, and the work on them spread over the cores.
//!
//! Logs have no list of their markets, and one market may have as many rows as ten thousand others. So
//! the bounds come from a sample of the rows themselves: a quantile of their tickers, in the order of
//! the keys. A range reads along an index, and its memory is that of one market.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::scene::{Plans, Scene};

/// Rows of a sample over a whole table.
const SAMPLE_ROWS: i64 = 500_000;
/// A row with its place in the table, in bytes, roughly: only shares of a sample follow from it.
const ROW_BYTES: i64 = 110;
/// Fewer rows are not worth another connection.
const PART_ROWS_MIN: u64 = 50_000;
/// Ranges a worker: the last ones to end then wait for little.
const PARTS_PER_JOB: u64 = 16;
/// Between two lines where nobody sees a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
const BAR: &str = "{prefix} [{bar:40.green}] {percent}% {msg} {eta} left";

/// Tickers from one up to another, which is not in it, byte by byte; no bound where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    pub from: Option<String>,
    pub to: Option<String>,
}

impl Range {
    /// One market.
    pub fn of_market(ticker: &str) -> Self {
        // Tickers are printable ASCII: nothing printable stands before the next one.
        Self { from: Some(ticker.to_owned()), to: Some(format!("{ticker}\u{1}")) }
    }

    /// The markets of a series: KXGOLD has KXGOLD-..., and not KXGOLD15M-....
    pub fn of_series(series: &str) -> Self {
        Self { from: Some(format!("{series}-")), to: Some(format!("{series}.")) }
    }

    /// The condition that a column is in it.
    pub fn sql(&self, column: &str) -> String {
        let mut parts = Vec::new();
        if let Some(from) = &self.from {
            parts.push(format!("{column} >= {}", literal(from)));
        }
        if let Some(to) = &self.to {
            parts.push(format!("{column} < {}", literal(to)));
        }
        if parts.is_empty() { "true".to_owned() } else { parts.join(" AND ") }
    }
}

/// Text as SQL writes it. COPY takes no parameters.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A range and about how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub range: Range,
    pub rows: u64,
}

/// Divides the markets that are asked for by the rows of a partitioned table that fit `condition`.
///
/// # Errors
/// When production does not answer.
pub async fn divide(scene: &Scene, table: &str, condition: &str) -> anyhow::Result<Vec<Part>> {
    let client = scene.session(Plans::Free).await?;
    let sql = "SELECT coalesce(sum(pg_relation_size(relid)), 0)::bigint \
               FROM pg_partition_tree($1::text::regclass) WHERE isleaf";
    let row = client.query_one(sql, &[&table]).await.context("read size of table")?;
    let rows = row.try_get::<_, i64>(0)? / ROW_BYTES;
    // In millionths of the blocks, at least one.
    let share = (SAMPLE_ROWS.saturating_mul(1_000_000) / rows.max(1)).clamp(1, 1_000_000);
    let percent = format!("{}.{:04}", share / 10_000, share % 10_000);
    let whole = [Range::default()];
    let asked = if scene.markets.is_empty() { &whole[..] } else { &scene.markets };
    let mut parts = Vec::new();
    for range in asked {
        let sample = format!(
            "SELECT ticker FROM {table} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1) \
             WHERE {condition} AND {}",
            range.sql("ticker")
        );
        let count = client.query_one(&format!("SELECT count(*) FROM ({sample}) AS s"), &[]).await;
        let count: i64 = count.context("sample table")?.try_get(0)?;
        let rows = count.saturating_mul(1_000_000) / share;
        let rows = u64::try_from(rows).unwrap_or_default();
        let jobs = u64::try_from(scene.jobs).unwrap_or(1);
        let wanted = (rows / PART_ROWS_MIN).clamp(1, jobs.max(1) * PARTS_PER_JOB);
        let bounds: Vec<String> = if wanted > 1 {
            let sql = format!(
                "SELECT percentile_disc((SELECT array_agg(n::float8 / {wanted}) \
                   FROM generate_series(1, {wanted} - 1) AS n)) WITHIN GROUP (ORDER BY ticker) \
                 FROM ({sample}) AS s"
            );
            client.query_one(&sql, &[]).await.context("divide table")?.try_get(0)?
        } else {
            Vec::new()
        };
        parts.extend(cut(range, &bounds, rows / wanted));
    }
    Ok(parts)
}

/// A range at bounds in order, of which some may be the same: then a market has more rows than a part.
fn cut(range: &Range, bounds: &[String], rows: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut part = Part { range: Range { from: range.from.clone(), to: None }, rows };
    for bound in bounds {
        if part.range.from.as_ref() == Some(bound) {
            part.rows += rows;
            continue;
        }
        let next = Range { from: Some(bound.clone()), to: None };
        part.range.to = Some(bound.clone());
        parts.push(std::mem::replace(&mut part, Part { range: next, rows }));
    }
    part.range.to = range.to.clone();
    parts.push(part);
    parts
}

/// How far the work is, by rows. What is left is an estimate by the sample until each part is read,
/// and corrected then.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
    label: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    said: Instant,
    done: u64,
    all: u64,
}

impl Progress {
    /// Shown on a terminal, else told by a line now and then. `all` rows are expected.
    pub fn new(label: &'static str, all: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        let state = State { began: now, said: now, done: 0, all };
        Self { bar, label, state: Arc::new(Mutex::new(state)) }
    }

    /// So many rows more were read.
    pub fn rows(&self, rows: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += rows;
        state.all = state.all.max(state.done);
        self.show(&mut state);
    }

    /// A part is done that was expected to have `expected` rows and had `actual`.
    pub fn part(&self, expected: u64, actual: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.all = state.all.saturating_add(actual).saturating_sub(expected).max(state.done);
        self.show(&mut state);
    }

    fn show(&self, state: &mut State) {
        if let Some(bar) = &self.bar {
            bar.set_length(state.all);
            bar.set_position(state.done);
            bar.set_message(format!("{} of about {} rows", state.done, state.all));
            return;
        }
        if state.said.elapsed() < LINE_INTERVAL || state.done == 0 {
            return;
        }
        state.said = Instant::now();
        let (done, all) = (super::report::real(state.done), super::report::real(state.all));
        let left = state.began.elapsed().mul_f64((all / done - 1.0).max(0.0));
        let line = format!(
            "{}: {} of about {} rows, about {} left\n",
            self.label,
            state.done,
            state.all,
            HumanDuration(left)
        );
        // Nobody is left to tell when stderr is gone.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Works on all parts, as many at a time as there are jobs, each in a task of its own, and hands what
/// each gives to `merge`, in whatever order they end.
///
/// # Errors
/// The first error of a part; the others are given up.
pub async fn each<T, F>(
    jobs: usize,
    parts: Vec<Part>,
    work: impl Fn(Part) -> F,
    mut merge: impl FnMut(T),
) -> anyhow::Result<()>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let tasks = parts.into_iter().map(|part| {
        let work = Box::pin(work(part));
        // Spawned when its turn comes, since the stream polls so many at a time.
        async move { tokio::spawn(work).await.context("work on a range of markets")? }
    });
    let mut results =
        std::pin::pin!(futures_util::stream::iter(tasks).buffer_unordered(jobs.max(1)));
    while let Some(result) = results.next().await {
        merge(result?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: Option<&str>, to: Option<&str>) -> Range {
        Range { from: from.map(str::to_owned), to: to.map(str::to_owned) }
    }

    #[test]
    fn ranges_name_exactly_what_they_should() {
        let of = |range: Range, ticker: &str| {
            range.from.is_none_or(|from| *from <= *ticker)
                && range.to.is_none_or(|to| *ticker < *to)
        };
        assert!(
            of(Range::of_market("KXA-1"), "KXA-1") && !of(Range::of_market("KXA-1"), "KXA-1-T")
        );
        assert!(of(Range::of_series("KXA"), "KXA-1-T5") && !of(Range::of_series("KXA"), "KXA5-1"));
        assert_eq!(Range::default().sql("ticker"), "true");
        assert_eq!(range(Some("a'b"), Some("c")).sql("t"), "t >= 'a''b' AND t < 'c'");
    }

    #[test]
    fn a_market_larger_than_a_part_is_one_part() {
        let bounds = ["b", "d", "d", "d", "f"].map(str::to_owned);
        let parts = cut(&range(Some("a"), Some("z")), &bounds, 10);
        let expected = [
            (range(Some("a"), Some("b")), 10),
            (range(Some("b"), Some("d")), 10),
            (range(Some("d"), Some("f")), 30),
            (range(Some("f"), Some("z")), 10),
        ];
        assert_eq!(parts, expected.map(|(range, rows)| Part { range, rows }));
        let first = cut(&range(None, None), &["b".to_owned()], 1);
        assert_eq!(first[0].range, range(None, Some("b")));
        assert_eq!(first[1].range, range(Some("b"), None));
    }

    #[tokio::test]
    async fn every_part_is_worked_on_and_an_error_ends_all() {
        let parts: Vec<Part> = (0..40).map(|rows| Part { range: Range::default(), rows }).collect();
        let mut sum = 0;
        each(3, parts.clone(), |part| async move { Ok(part.rows) }, |n: u64| sum += n)
            .await
            .unwrap();
        assert_eq!(sum, 780);
        let work = |part: Part| async move {
            anyhow::ensure!(part.rows != 7, "seven");
            Ok(())
        };
        let error = each(3, parts, work, |()| {}).await.unwrap_err();
        assert_eq!(error.to_string(), "seven");
    }
}
