//! `archive verify`: proves that the archive holds what its manifests say and what production has.
//!
//! Every part is read again: its hash, its rows, their days, their places in the log. Spans have to
//! follow each other without a hole up to the cursor, and hold as many rows as their numbers say,
//! because logs are dense. Days are counted in production as far as it still has them, and some books
//! are folded from the parts alone and compared with production's.

mod books;

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio_postgres::Client;

use super::manifest::{self, Archive, Done, Manifest, Part};
use super::rows::{DAY, day_name};
use super::store::Store;
use super::table::{ALL, Table};
use super::{Config, read};
use crate::model::Micros;
use crate::ops::exit::DiscrepancyError;
use crate::pg::Options as Session;

/// Rows that are looked at together.
const BATCH_ROWS: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct Options {
    /// Only days that began within so long.
    pub since: Option<Duration>,
    /// How many books are folded.
    pub books: usize,
    /// Nothing is compared with production.
    pub offline: bool,
    pub json: bool,
}

/// What was looked at of one table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    pub table: String,
    pub days: u64,
    pub parts: u64,
    pub rows: u64,
    pub bytes: u64,
    /// The log is archived up to here; none in a table that is no log.
    pub through: Option<i64>,
    /// Rows that the retention had dropped before the archive began.
    pub missing: u64,
    /// Days whose rows production still has and that have been counted there.
    pub days_compared: u64,
}

/// All that was found. Keys are stable; more may come.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub ok: bool,
    pub url: String,
    pub tables: Vec<Seen>,
    pub books_compared: usize,
    pub problems: Vec<String>,
}

/// Verifies, prints, and says by its error what it found.
///
/// # Errors
/// `DiscrepancyError` when something is not as it should be; others when that could not be told.
pub async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let report = verify(config, options).await?;
    let text = if options.json {
        serde_json::to_string(&report).context("write JSON")? + "\n"
    } else {
        table_of(&report)
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("write to stdout")?;
    if report.ok {
        return Ok(());
    }
    let first = report.problems.first().map(String::as_str).unwrap_or_default();
    Err(DiscrepancyError(format!("{} problems in the archive: {first}", report.problems.len()))
        .into())
}

/// Looks at the whole archive, or at the days since a while.
///
/// # Errors
/// When the archive or production cannot be read.
pub async fn verify(config: &Config, options: &Options) -> anyhow::Result<Report> {
    let store = Store::open(&config.place)?;
    let archive = manifest::read::<Archive>(&store, manifest::ARCHIVE).await?;
    let archive = archive.with_context(|| format!("there is no archive at {}", store.root()))?;
    let session = if options.offline {
        None
    } else {
        let session = Session { read_only: true, ..Session::default() };
        Some(config.database.connect_with(session).await?)
    };
    let since = options.since.map(|since| {
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        day_name(Micros::now().0.saturating_sub(micros).div_euclid(DAY))
    });
    let mut report = Report { url: store.root().to_owned(), ..Report::default() };
    let mut through = BTreeMap::new();
    for table in ALL {
        let mut look = Look { store: &store, table, problems: Vec::new(), seen: Seen::default() };
        look.seen.table = table.name.to_owned();
        let manifests = look.manifests(since.as_deref()).await?;
        if table.log().is_some() {
            let log = archive.logs.get(table.name).context("a log that is new")?;
            let position = match &session {
                Some(session) => position(session, table).await?,
                None => 0,
            };
            look.chain(log.log_id, position, since.as_deref(), &manifests).await?;
        }
        look.parts(&manifests).await?;
        if let Some(session) = &session {
            look.counts(session, &manifests).await?;
        }
        through.insert(table.name, look.seen.through.unwrap_or_default());
        report.tables.push(look.seen);
        report.problems.extend(look.problems);
    }
    if let Some(session) = &session {
        let found = books::compare(&store, session, &through, since.as_deref(), options.books);
        let (compared, problems) = found.await?;
        report.books_compared = compared;
        report.problems.extend(problems);
    }
    report.ok = report.problems.is_empty();
    Ok(report)
}

/// How far production knows that a log is archived, by whichever consumer this user is.
async fn position(session: &Client, table: &Table) -> anyhow::Result<i64> {
    let sql = "SELECT position FROM consumers WHERE name = session_user AND table_name = $1";
    let row = session.query_opt(sql, &[&table.name]).await.context("read cursor")?;
    row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
}

struct Look<'a> {
    store: &'a Store,
    table: &'static Table,
    problems: Vec<String>,
    seen: Seen,
}

impl Look<'_> {
    fn problem(&mut self, text: String) {
        tracing::debug!(problem = text, "found");
        self.problems.push(text);
    }

    /// The last manifest of each day.
    async fn manifests(&self, since: Option<&str>) -> anyhow::Result<BTreeMap<String, Manifest>> {
        let mut manifests = BTreeMap::new();
        for (dt, path) in manifest::latest_paths(self.store, self.table).await? {
            if since.is_some_and(|since| dt.as_str() < since) {
                continue;
            }
            if let Some(manifest) = manifest::read::<Manifest>(self.store, &path).await? {
                manifests.insert(dt, manifest);
            }
        }
        Ok(manifests)
    }

    /// Spans follow each other up to the cursor, and what each holds is in the manifests.
    async fn chain(
        &mut self,
        log_id: uuid::Uuid,
        position: i64,
        since: Option<&str>,
        manifests: &BTreeMap<String, Manifest>,
    ) -> anyhow::Result<()> {
        let name = self.table.name;
        let folder = manifest::spans_folder(self.table);
        let mut known = HashMap::new();
        for listed in self.store.list(&folder).await? {
            known.insert(listed.path.clone(), listed.bytes);
        }
        let mut at = 0;
        loop {
            let path = manifest::done_path(self.table, log_id, at);
            if known.remove(&path).is_none() {
                break;
            }
            known.remove(&manifest::plan_path(self.table, log_id, at));
            let Some(done) = manifest::read::<Done>(self.store, &path).await? else { break };
            if done.after != at || done.through <= at {
                self.problem(format!("{path} is of span {} to {}", done.after, done.through));
                break;
            }
            let rows: u64 = done.parts.iter().map(|part| part.rows).sum();
            if i64::try_from(rows + done.missing).ok() != Some(done.through - done.after) {
                self.problem(format!(
                    "{name}: the span from {} to {} has {rows} rows and {} missing ones",
                    done.after, done.through, done.missing
                ));
            }
            for part in &done.parts {
                if since.is_some_and(|since| part.dt.as_str() < since) {
                    continue;
                }
                if !manifests.get(&part.dt).is_some_and(|manifest| manifest.has(part)) {
                    // The last span may be on its way there.
                    if done.after < position {
                        self.problem(format!("{} is in no manifest", part.path));
                    }
                }
            }
            self.seen.missing += done.missing;
            at = done.through;
        }
        self.seen.through = Some(at);
        if at < position {
            self.problem(format!(
                "{name} is archived up to {at}, and its cursor in production is at {position}"
            ));
        }
        known.retain(|path, _| path.ends_with(".done.json"));
        for path in known.keys() {
            self.problem(format!("{path} follows no other span"));
        }
        Ok(())
    }

    /// Every part, read again.
    async fn parts(&mut self, manifests: &BTreeMap<String, Manifest>) -> anyhow::Result<()> {
        let total: u64 = manifests.values().map(|manifest| manifest.bytes).sum();
        let bar = progress(self.table.name, total);
        for (dt, manifest) in manifests {
            self.seen.days += 1;
            let list = self.store.read(&manifest::list_path(self.table, dt)).await?;
            if list.as_deref() != Some(manifest.list(self.store).as_bytes()) {
                let path = manifest::list_path(self.table, dt);
                self.problem(format!("{path} does not name the parts of the last manifest"));
            }
            for part in &manifest.parts {
                self.part(part, dt).await?;
                bar.inc(part.bytes);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn part(&mut self, part: &Part, dt: &str) -> anyhow::Result<()> {
        self.seen.parts += 1;
        self.seen.rows += part.rows;
        self.seen.bytes += part.bytes;
        let file = match read::fetch(self.store, part).await? {
            Ok(file) => file,
            Err(damage) => {
                self.problem(format!("{} {damage}", part.path));
                return Ok(());
            }
        };
        let (table, of, dt) = (self.table, part.clone(), dt.to_owned());
        let read = tokio::task::spawn_blocking(move || inspect(table, file, &of, &dt));
        if let Err(error) = read.await.context("read a part")? {
            self.problem(format!("{}: {}", part.path, crate::ops::exit::chain(&error)));
        }
        Ok(())
    }

    /// Counts days in production, those that it has as a whole.
    async fn counts(
        &mut self,
        session: &Client,
        manifests: &BTreeMap<String, Manifest>,
    ) -> anyhow::Result<()> {
        let (Some(log), Some(through)) = (self.table.log(), self.seen.through) else {
            return Ok(());
        };
        let Some(first) = manifests.keys().next() else { return Ok(()) };
        let sql = "SELECT coalesce(kept_from, 0) FROM logs WHERE name = $1";
        let kept_from: i64 =
            session.query_one(sql, &[&log.name()]).await.context("read kept_from")?.try_get(0)?;
        let sql = format!(
            "SELECT {day}, count(*) FROM {} WHERE log_seq <= $1 \
             AND coalesce({}) >= extract(epoch FROM $2::text::date)::bigint * 1000000 GROUP BY 1",
            self.table.name,
            self.table.day_by.join(", "),
            day = self.table.day_sql(),
        );
        let rows = session.query(&sql, &[&through, first]).await;
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for row in rows.with_context(|| format!("count {}", self.table.name))? {
            let (day, count): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            // What was dropped in part cannot be compared. Where a row's day is not that of its
            // partition, a week is certain to be enough.
            let margin = if self.table.day_by.len() > 1 { 7 } else { 0 };
            if kept_from > 0 && (day - margin) * DAY < kept_from {
                continue;
            }
            counted.insert(day_name(day), u64::try_from(count)?);
        }
        for (dt, count) in counted {
            self.seen.days_compared += 1;
            let archived = manifests.get(&dt).map_or(0, |manifest| manifest.rows);
            if archived != count {
                self.problem(format!(
                    "{} has {count} rows of {dt} in production and {archived} in the archive",
                    self.table.name
                ));
            }
        }
        Ok(())
    }
}

/// Looks at every row of a part.
fn inspect(table: &Table, file: std::fs::File, part: &Part, dt: &str) -> anyhow::Result<()> {
    let mut rows = 0_u64;
    // A bit for each number of each span: 2 MiB for the longest.
    let mut found: Vec<Vec<u64>> = Vec::with_capacity(part.pieces.len());
    for piece in &part.pieces {
        let words = usize::try_from(piece.through - piece.after)?.div_ceil(64);
        found.push(vec![0; words]);
    }
    for batch in read::batches(table, file, BATCH_ROWS)? {
        let batch = batch.context("read Parquet")?;
        rows += u64::try_from(batch.num_rows())?;
        let days = read::times(table, &batch)?;
        if let Some(other) = days.iter().find(|time| day_name(time.div_euclid(DAY)) != dt) {
            anyhow::bail!("it has a row of {}", Micros(*other));
        }
        if table.log().is_some() {
            for seq in read::longs(&batch, "log_seq")? {
                let seq = seq.context("a row without a place in the log")?;
                let piece = part.pieces.iter().position(|p| seq > p.after && seq <= p.through);
                let piece = piece.with_context(|| format!("row {seq} is of none of its spans"))?;
                let after = part.pieces.get(piece).map_or(0, |piece| piece.after);
                let place = usize::try_from(seq - after - 1)?;
                let word = found.get_mut(piece).and_then(|bits| bits.get_mut(place / 64));
                let (word, bit) = (word.context("a span without end")?, 1_u64 << (place % 64));
                anyhow::ensure!(*word & bit == 0, "row {seq} is there twice");
                *word |= bit;
            }
        }
    }
    anyhow::ensure!(rows == part.rows, "it has {rows} rows, its manifest says {}", part.rows);
    for (piece, found) in part.pieces.iter().zip(found) {
        let found: u64 = found.iter().map(|word| u64::from(word.count_ones())).sum();
        anyhow::ensure!(
            found == piece.rows,
            "it has {found} rows of the span from {} to {}, its manifest says {}",
            piece.after,
            piece.through,
            piece.rows
        );
    }
    Ok(())
}

fn progress(name: &'static str, bytes: u64) -> indicatif::ProgressBar {
    if bytes == 0 || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style =
        "{msg:22} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let bar = indicatif::ProgressBar::new(bytes).with_message(name);
    match indicatif::ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The report for people.
fn table_of(report: &Report) -> String {
    use comfy_table::{CellAlignment, Table as Printed};
    let mut printed = Printed::new();
    printed.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    printed.set_header(["table", "days", "parts", "rows", "bytes", "through", "days compared"]);
    for seen in &report.tables {
        printed.add_row([
            seen.table.clone(),
            seen.days.to_string(),
            seen.parts.to_string(),
            seen.rows.to_string(),
            seen.bytes.to_string(),
            seen.through.map_or_else(String::new, |through| through.to_string()),
            seen.days_compared.to_string(),
        ]);
    }
    for column in printed.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{printed}\nbooks: {} compared\n", report.books_compared);
    for problem in &report.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    let missing: u64 = report.tables.iter().map(|seen| seen.missing).sum();
    if missing > 0 {
        text.push_str(&format!("{missing} rows had been dropped before the archive began\n"));
    }
    text.push_str(if report.ok { "the archive holds\n" } else { "the archive does not hold\n" });
    text
}
