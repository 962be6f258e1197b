//! `verify gaps`: what no gatherer saw while it could be seen, by coverage, and how many of them saw
//! the rest.
//!
//! Three streams in the order of tickers are joined: the markets, production's stretches of coverage,
//! and what the gatherers have beyond these. Of a range only one market is held at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio_postgres::Client;

use super::coverage::{Roster, Seen, Stretches, Tails, tails};
use super::intervals::{DAY, Span, day_of};
use super::judge::{Found, Judge, Listed};
use super::ranges::{Part, Progress, Range, divide, each};
use super::report::{Figures, Finding, Findings, Section, real, share, whole_seconds};
use super::scene::{Plans, Scene};
use crate::model::{Channel, Micros};
use crate::ops::duration::seconds;
use crate::pg::copy_out::CopyOut;

/// Stretches are written within an hour; coverage that ends longer ago has ended.
const SILENT_MICROS: i64 = 75 * 60_000_000;
/// Channels of all markets that are always recorded.
const ALWAYS: [Channel; 3] = [Channel::Trade, Channel::Ticker, Channel::Lifecycle];

/// The markets of a range, in the order of their tickers.
struct Markets {
    rows: CopyOut,
    next: Option<Listed>,
}

impl Markets {
    async fn open(client: &Client, range: &Range, whole: Span) -> anyhow::Result<Self> {
        let sql = format!(
            "SELECT ticker, coalesce(open_ts, 0), \
               least(close_ts, settlement_ts, CASE WHEN status IN ('closed', 'settled') THEN valid_from END), \
               status IS NOT DISTINCT FROM 'open', mve_collection_ticker IS NOT NULL \
             FROM markets WHERE {} AND (close_ts IS NULL OR close_ts > {}) ORDER BY ticker",
            range.sql("ticker"),
            whole.from.saturating_sub(DAY)
        );
        let rows = CopyOut::open(client, &sql).await.context("read markets")?;
        let mut markets = Self { rows, next: None };
        markets.advance().await?;
        Ok(markets)
    }

    async fn advance(&mut self) -> anyhow::Result<()> {
        self.next = None;
        if self.rows.advance().await.context("read markets")? {
            let mut row = self.rows.row();
            self.next = Some(Listed {
                ticker: row.text()?.to_owned(),
                open: row.i64()?,
                close: row.opt_i64()?.unwrap_or(i64::MAX),
                is_open: row.bool()?,
                is_multivariate: row.bool()?,
            });
        }
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<Listed>> {
        let listed = self.next.take();
        if listed.is_some() {
            self.advance().await?;
        }
        Ok(listed)
    }
}

/// What all ranges share.
struct Common {
    scene: Arc<Scene>,
    roster: Roster,
    whole: Span,
    maintenance: Vec<Span>,
    progress: Progress,
}

/// Judges the markets and channels of a range.
async fn work(common: Arc<Common>, part: Part) -> anyhow::Result<Found> {
    let Common { scene, roster, whole, maintenance, progress } = common.as_ref();
    let judge = Judge {
        roster,
        whole: *whole,
        recorded_from: scene.recorded_from.unwrap_or(i64::MAX),
        min_duration: scene.min_duration,
        maintenance,
    };
    let range = &part.range;
    let mut found = Found::default();
    let mut tails = tails(scene, roster, range).await?;
    let (one, other) =
        tokio::try_join!(scene.session(Plans::Ordered), scene.session(Plans::Ordered))?;
    let mut markets = Markets::open(&one, range, *whole).await?;
    let channel = scene.channel.as_deref();
    let mut stretches = Stretches::open(&other, roster.clone(), range, channel, *whole).await?;
    let books = Channel::OrderbookDelta.name();
    let wants_books = channel.is_none_or(|channel| channel == books);
    let mut told = 0;
    let mut channels: HashMap<String, Seen> = HashMap::new();
    loop {
        let listed = markets.next.as_ref().map(|listed| listed.ticker.as_str());
        let ticker = match (listed, stretches.peek()) {
            (None, None) => break,
            (Some(listed), Some((seen, _))) => listed.min(seen),
            (Some(listed), None) => listed,
            (None, Some((seen, _))) => seen,
        }
        .to_owned();
        let listed = if markets.next.as_ref().is_some_and(|listed| listed.ticker == ticker) {
            markets.take().await?
        } else {
            None
        };
        let mut book =
            Seen { ticker: ticker.clone(), channel: books.to_owned(), stretches: vec![] };
        while stretches.peek().is_some_and(|(seen, _)| seen == ticker) {
            let Some(seen) = stretches.take().await? else { break };
            if ticker.is_empty() {
                channels.insert(seen.channel.clone(), seen);
            } else if seen.channel == books {
                book = seen;
            }
        }
        if !ticker.is_empty() && wants_books {
            add_tail(&mut book, &mut tails);
            // Nobody records markets that combine others unless told to.
            let is_wanted = listed.as_ref().is_none_or(|l| !l.is_multivariate);
            if is_wanted || !book.stretches.is_empty() {
                judge.judge(&book, listed.as_ref(), &mut found);
            }
        }
        if stretches.read > told + 1000 {
            progress.rows(stretches.read - told);
            told = stretches.read;
        }
    }
    // What only the gatherers have seen so far, and is in no list.
    let first = range.from.is_none();
    for (ticker, channel) in tails.keys().cloned().collect::<Vec<_>>() {
        let mut seen = Seen { ticker, channel, stretches: Vec::new() };
        if seen.ticker.is_empty() {
            channels.entry(seen.channel.clone()).or_insert(seen);
        } else if seen.channel == books && wants_books {
            add_tail(&mut seen, &mut tails);
            judge.judge(&seen, None, &mut found);
        }
    }
    if first && scene.markets.is_empty() {
        for name in ALWAYS.map(Channel::name) {
            if channel.is_none_or(|channel| channel == name) {
                let seen = Seen { channel: name.to_owned(), ..Seen::default() };
                channels.entry(name.to_owned()).or_insert(seen);
            }
        }
        for mut seen in channels.into_values() {
            if channel.is_some_and(|channel| channel != seen.channel) {
                continue;
            }
            add_tail(&mut seen, &mut tails);
            judge.judge(&seen, None, &mut found);
        }
    }
    found.rows = stretches.read;
    progress.rows(stretches.read - told);
    progress.part(part.rows, stretches.read);
    Ok(found)
}

fn add_tail(seen: &mut Seen, tails: &mut Tails) {
    let key = (seen.ticker.clone(), seen.channel.clone());
    seen.stretches.extend(tails.remove(&key).unwrap_or_default());
}

/// Up to when coverage can be judged, by the gatherers' clocks, and what limits it.
///
/// The flag says that it ends where gatherers that do not answer may know more.
async fn judged_until(scene: &Scene, notes: &mut Vec<String>) -> anyhow::Result<(i64, bool)> {
    let client = scene.session(Plans::Free).await?;
    let sql = "SELECT gatherer_id, max(covered_to) FROM (SELECT gatherer_id, covered_to FROM coverage \
                 WHERE covered_from > $1 ORDER BY log_seq DESC LIMIT 20000) AS last GROUP BY 1";
    let since = scene.until.saturating_sub(2 * DAY);
    let mut merged = BTreeMap::new();
    for row in client.query(sql, &[&since]).await.context("read last coverage")? {
        merged.insert(scene.name(row.try_get(0)?), row.try_get::<_, i64>(1)?);
    }
    // The latest that anybody can say anything about.
    let mut known = merged.values().copied().max().unwrap_or(i64::MIN);
    for watched in &scene.gatherers {
        match (&watched.standing, merged.get(&watched.id)) {
            (Ok(standing), _) if standing.open_from.is_some() => {
                known = known.max(standing.open_until());
            }
            (Err(_), Some(last)) => {
                let until = last.saturating_sub(SILENT_MICROS);
                if until < scene.until {
                    notes.push(format!(
                        "{} does not answer, so only what it covered until {} is known; later times \
                         are not judged",
                        watched.id,
                        Micros(until)
                    ));
                    return Ok((known.min(until).min(scene.until), true));
                }
            }
            _ => {}
        }
    }
    Ok((known.min(scene.until), false))
}

/// Windows in which the exchange said that it is away, as far as it still says so.
async fn maintenance(scene: &Scene, notes: &mut Vec<String>) -> Vec<Span> {
    let Some(rest) = scene.config.rest() else { return Vec::new() };
    let windows = match rest {
        Ok(rest) => rest.maintenance_windows().await,
        Err(error) => Err(error),
    };
    match windows {
        Ok(windows) => windows.iter().map(|w| Span::new(w.from.0, w.to.0)).collect(),
        Err(error) => {
            notes.push(format!("the exchange's schedule of maintenance is not known: {error}"));
            Vec::new()
        }
    }
}

/// Runs the check.
///
/// # Errors
/// When production does not answer.
pub async fn check(scene: Arc<Scene>) -> anyhow::Result<Section> {
    let mut section = Section::new("gaps");
    section.errors = scene.away();
    let mut findings = Findings::default();
    let (until, is_cut) = judged_until(&scene, &mut section.notes).await?;
    let whole = Span::new(scene.since, until);
    if scene.recorded_from.is_none() {
        findings.push(Finding::new("no_coverage", "no gatherer has ever covered anything"));
        section.found(findings);
        return Ok(section);
    }
    if !is_cut && until > i64::MIN && scene.until.saturating_sub(until) > SILENT_MICROS {
        let detail = "no gatherer has covered anything since; nothing later is judged";
        findings.push(Finding::new("silent", detail).from(until).to(scene.until));
    }
    if scene.recorded_from.is_some_and(|from| until <= from.max(scene.since)) {
        section.notes.push(
            "nothing is judged: what is open is known a minute later, and production is told within \
             an hour"
                .to_owned(),
        );
    }
    let roster = Roster::of(&scene);
    let maintenance = maintenance(&scene, &mut section.notes).await;
    let condition = format!(
        "covered_from > {} AND covered_from < {}",
        whole.from.saturating_sub(DAY),
        whole.to
    );
    let parts =
        if whole.is_empty() { Vec::new() } else { divide(&scene, "coverage", &condition).await? };
    let progress = Progress::new("gaps", parts.iter().map(|part| part.rows).sum());
    let common = Arc::new(Common { scene: scene.clone(), roster, whole, maintenance, progress });
    let mut found = Found { findings, ..Found::default() };
    let run = |part| work(common.clone(), part);
    each(scene.jobs, parts, run, |part| found.append(part)).await?;
    common.progress.end();
    tell(&mut section, &scene, &common.roster, whole, found);
    Ok(section)
}

/// Figures and tables.
fn tell(section: &mut Section, scene: &Scene, roster: &Roster, whole: Span, found: Found) {
    if found.late > 0 {
        section.notes.push(format!(
            "{} times a market or channel waited for its first snapshot, or lay at the end of what is \
             judged, {:.3} s in all and {:.3} s at most: no findings",
            found.late,
            real(whole_seconds(found.late_micros * 1000)) / 1000.0,
            seconds(found.late_longest)
        ));
    }
    let depth = roster.names.len();
    let header = |first: &str| {
        let mut header = vec!["channel".to_owned(), first.to_owned()];
        header.extend((0..=depth).map(|n| format!("by {n}")));
        header.push("covered".to_owned());
        header
    };
    let mut table = Figures {
        title: "seconds covered by so many gatherers".to_owned(),
        header: header("day"),
        rows: vec![],
    };
    let mut completeness = Vec::new();
    for (channel, days) in &found.depths {
        let mut total = vec![0_i128; depth + 1];
        let rows = days.iter().map(|(day, micros)| (Some(*day), micros.clone()));
        for (_, micros) in rows.clone() {
            total.iter_mut().zip(micros).for_each(|(sum, micros)| *sum += micros);
        }
        for (day, micros) in rows.chain([(None, total)]) {
            let all: i128 = micros.iter().sum();
            let covered = all - micros.first().copied().unwrap_or_default();
            let name = day.map_or("total".to_owned(), |day| {
                Micros(day_of(day)).to_string().chars().take(10).collect()
            });
            let by: Vec<u64> = micros.iter().map(|sum| whole_seconds(*sum)).collect();
            let mut row = vec![channel.clone(), name.clone()];
            row.extend(by.iter().map(u64::to_string));
            row.push(format!("{:.6} %", share(covered, all) * 100.0));
            table.rows.push(row);
            completeness.push(json!({
                "channel": channel,
                "day": name,
                "seconds_by_gatherers": by,
                "covered": share(covered, all),
            }));
        }
    }
    let mut own = Figures {
        title: "what each gatherer missed, and why".to_owned(),
        header: ["gatherer", "cause", "times", "seconds"].map(str::to_owned).to_vec(),
        rows: Vec::new(),
    };
    let mut down = Vec::new();
    for ((gatherer, cause), (times, micros)) in &found.own {
        let (name, lost) = (roster.name(*gatherer), whole_seconds(micros * 1000));
        let text = format!("{:.3}", real(lost) / 1000.0);
        own.rows.push(vec![name.to_owned(), cause.clone(), times.to_string(), text]);
        down.push(json!({
            "gatherer": name, "cause": cause, "times": times, "seconds": real(lost) / 1000.0,
        }));
    }
    section.figures = json!({
        "judged_from": Micros(whole.from.max(scene.recorded_from.unwrap_or(whole.from))).to_string(),
        "judged_until": Micros(whole.to).to_string(),
        "markets": found.markets,
        "markets_never_covered": found.never_seen,
        "completeness": completeness,
        "gatherers": down,
        "uncovered_seconds": real(whole_seconds(found.uncovered_micros * 1000)) / 1000.0,
        "excused_seconds": real(whole_seconds(found.excused_micros * 1000)) / 1000.0,
        "first_snapshots": {
            "markets": found.late,
            "seconds": real(whole_seconds(found.late_micros * 1000)) / 1000.0,
            "longest_seconds": seconds(found.late_longest),
        },
        "stretches": found.rows,
    });
    section.tables.extend([table, own]);
    section.found(found.findings);
}
