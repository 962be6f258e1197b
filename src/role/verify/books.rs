//! `verify books`: every market's changes replayed from snapshot to snapshot, in production over what
//! all gatherers brought, and in each gatherer over its own streams.
//!
//! Both are one merge of two streams in the order of markets and places; only the places differ. In
//! production a place is the exchange's time, by which the primary key already has the rows in order.
//! A gatherer's own order is that of its streams, for which its server has to sort: it does so on disk.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio_postgres::Client;

use super::coverage::{Roster, between, has_known_hole, of_book};
use super::intervals::{DAY, Span};
use super::ranges::{Part, Progress, divide, each};
use super::repair::record_lost;
use super::replay::{Fault, Replay, Stated, Tally};
use super::report::{Figures, Finding, Findings, Section};
use super::scene::{Plans, SETTLING_MICROS, Scene, Standing, Watched, clock_at, connect};
use crate::model::{Book, Log, Micros, Price, Side, Size};
use crate::pg::copy_out::CopyOut;
use crate::pg::migrate::Schema;

/// Faults of a part that are looked into; more are counted.
const FAULTS_MAX: usize = 1000;
/// Rows between two looks at the progress.
const TOLD_EACH: u64 = 20_000;

/// Where a row stands: (time, 0, 0) in production, (session, sid, seq) in a gatherer.
type Place = (i64, i64, i64);

/// A fault with its market.
#[derive(Debug)]
struct InMarket {
    ticker: String,
    fault: Fault,
}

/// What came of a part.
#[derive(Debug, Default)]
struct Found {
    findings: Findings,
    tally: Tally,
    /// Differences that coverage or a recorded loss explains.
    known_holes: u64,
    known_lost: u64,
    faults: Vec<InMarket>,
}

/// Changes in order. The ticker of a row is compared, not copied: most rows are of the market before.
struct Deltas {
    rows: CopyOut,
    with_stream: bool,
    ticker: String,
    place: Place,
    change: (Side, Price, Size),
    is_there: bool,
    read: u64,
}

impl Deltas {
    async fn open(client: &Client, sql: &str, with_stream: bool) -> anyhow::Result<Self> {
        let rows = CopyOut::open(client, sql).await.context("read changes")?;
        let mut deltas = Self {
            rows,
            with_stream,
            ticker: String::new(),
            place: (0, 0, 0),
            change: (Side::Yes, Price::default(), Size::default()),
            is_there: true,
            read: 0,
        };
        deltas.advance().await?;
        Ok(deltas)
    }

    /// Goes to the next change; true when it is one of the same market.
    async fn advance(&mut self) -> anyhow::Result<bool> {
        self.is_there = self.rows.advance().await.context("read changes")?;
        if !self.is_there {
            return Ok(false);
        }
        self.read += 1;
        let mut row = self.rows.row();
        let ticker = row.text()?;
        let is_same = ticker == self.ticker;
        if !is_same {
            ticker.clone_into(&mut self.ticker);
        }
        self.place = read_place(&mut row, self.with_stream)?;
        let side = if row.bool()? { Side::Yes } else { Side::No };
        let (price, size) = (Price::from_micros(row.i64()?), Size::from_hundredths(row.i64()?));
        self.change = (side, price, size);
        Ok(is_same)
    }
}

fn read_place(
    row: &mut crate::pg::copy_out::Fields<'_>,
    with_stream: bool,
) -> anyhow::Result<Place> {
    let first = row.i64()?;
    Ok(if with_stream { (first, row.i64()?, row.i64()?) } else { (first, 0, 0) })
}

/// Snapshots in order.
struct Snapshots {
    rows: CopyOut,
    with_stream: bool,
    scene: Arc<Scene>,
    owner: String,
    next: Option<(String, Place, Stated)>,
    arrays: [Vec<i64>; 4],
}

impl Snapshots {
    async fn open(
        client: &Client,
        sql: &str,
        scene: Arc<Scene>,
        owner: Option<&str>,
    ) -> anyhow::Result<Self> {
        let rows = CopyOut::open(client, sql).await.context("read snapshots")?;
        let (with_stream, owner) = (owner.is_some(), owner.unwrap_or_default().to_owned());
        let arrays = Default::default();
        let mut snapshots = Self { rows, with_stream, scene, owner, next: None, arrays };
        snapshots.advance().await?;
        Ok(snapshots)
    }

    async fn advance(&mut self) -> anyhow::Result<()> {
        self.next = None;
        if !self.rows.advance().await.context("read snapshots")? {
            return Ok(());
        }
        let mut row = self.rows.row();
        let ticker = row.text()?.to_owned();
        let place = read_place(&mut row, self.with_stream)?;
        let received_at = row.i64()?;
        for values in &mut self.arrays {
            values.clear();
            row.i64s(values)?;
        }
        let origin = if self.with_stream {
            format!(
                "{} at {} session {} sid {} seq {}",
                self.owner,
                Micros(received_at),
                place.0,
                place.1,
                place.2
            )
        } else {
            let (session, sid, seq, gatherer) = (row.i64()?, row.i64()?, row.i64()?, row.i16()?);
            let name = self.scene.name(gatherer);
            format!("snapshot of {name}, session {session} sid {sid} seq {seq}")
        };
        let [yes_prices, yes_sizes, no_prices, no_sizes] = &self.arrays;
        let levels = |prices: &[i64], sizes: &[i64]| -> Vec<(Price, Size)> {
            let sizes = sizes.iter().map(|size| Size::from_hundredths(*size));
            prices.iter().map(|price| Price::from_micros(*price)).zip(sizes).collect()
        };
        let book = Book::from_levels(&levels(yes_prices, yes_sizes), &levels(no_prices, no_sizes));
        let at = if self.with_stream { received_at } else { place.0 };
        self.next = Some((ticker, place, Stated { at, received_at, origin, book }));
        Ok(())
    }
}

/// Replays all markets of two streams.
async fn replay(
    mut deltas: Deltas,
    mut snapshots: Snapshots,
    progress: &Progress,
) -> anyhow::Result<(Tally, Vec<InMarket>, u64)> {
    let mut replay = Replay::default();
    let mut faults = Vec::new();
    let mut told = 0;
    while deltas.is_there || snapshots.next.is_some() {
        let snapshot = snapshots.next.as_ref().map(|(ticker, _, _)| ticker.as_str());
        let delta = deltas.is_there.then_some(deltas.ticker.as_str());
        let ticker = snapshot.into_iter().chain(delta).min().unwrap_or_default().to_owned();
        let mut stream = None;
        loop {
            let until = match &snapshots.next {
                Some((of, place, _)) if *of == ticker => Some(*place),
                _ => None,
            };
            // In production a snapshot stands behind the changes of its microsecond; in a stream no
            // two frames have one place.
            while deltas.is_there
                && deltas.ticker == ticker
                && until.is_none_or(|until| deltas.place <= until)
            {
                if deltas.with_stream {
                    let of = (deltas.place.0, deltas.place.1);
                    if stream != Some(of) {
                        replay.forget();
                        stream = Some(of);
                    }
                }
                let (side, price, size) = deltas.change;
                // By number rather than by clock: only the order matters for a stream.
                let at = if deltas.with_stream { deltas.place.2 } else { deltas.place.0 };
                replay.delta(at, side, price, size);
                deltas.advance().await?;
                if deltas.read >= told + TOLD_EACH {
                    progress.rows(deltas.read - told);
                    told = deltas.read;
                }
            }
            if until.is_none() {
                break;
            }
            if let Some((_, place, stated)) = snapshots.next.take() {
                if snapshots.with_stream && stream != Some((place.0, place.1)) {
                    replay.forget();
                    stream = Some((place.0, place.1));
                }
                replay.snapshot(stated);
            }
            snapshots.advance().await?;
        }
        faults.extend(
            replay.end().into_iter().map(|fault| InMarket { ticker: ticker.clone(), fault }),
        );
    }
    progress.rows(deltas.read - told);
    Ok((replay.tally, faults, deltas.read))
}

/// What all ranges share.
struct Common {
    scene: Arc<Scene>,
    roster: Roster,
    progress: Progress,
    /// Which snapshots production has all changes before, by gatherer, as a condition.
    merged: String,
}

/// The condition on a gatherer's snapshots: those before which all its changes are in production.
fn merged(scene: &Scene) -> String {
    let limit = |watched: &Watched| {
        let number = watched.number?;
        let standing = watched.standing.as_ref().ok()?;
        let until = standing.merged_until(Log::OrderbookDeltas);
        Some(format!("NOT (gatherer_id = {number} AND received_at > {until})"))
    };
    let mut conditions: Vec<String> = scene.gatherers.iter().filter_map(limit).collect();
    conditions.push(format!("received_at <= {}", scene.merged_until(Log::OrderbookDeltas)));
    conditions.join(" AND ")
}

async fn work(common: Arc<Common>, part: Part) -> anyhow::Result<Found> {
    let Common { scene, roster, progress, merged } = common.as_ref();
    let here = part.range.sql("ticker");
    let (since, until) = (scene.since, scene.until);
    // Every column is in the primary key, and in its order.
    let deltas = format!(
        "SELECT ticker, exchange_ts, side, price, size_delta FROM orderbook_deltas \
         WHERE {here} AND exchange_ts > {since} AND exchange_ts <= {until} ORDER BY ticker, exchange_ts"
    );
    // Snapshots are partitioned by our clock. Where that is not the exchange's, all are looked at.
    let is_live = scene.recorded_from.is_some_and(|from| since >= from.saturating_sub(DAY));
    let clock = if is_live {
        format!("received_at > {} AND received_at < {}", since - DAY, until + DAY)
    } else {
        "true".to_owned()
    };
    let snapshots = format!(
        "SELECT ticker, anchor_ts, received_at, yes_prices, yes_sizes, no_prices, no_sizes, \
           session_id, sid, seq, gatherer_id FROM orderbook_snapshots \
         WHERE {here} AND anchor_ts >= {since} AND anchor_ts <= {until} AND {clock} AND {merged} \
         ORDER BY ticker, anchor_ts"
    );
    let (one, other) =
        tokio::try_join!(scene.session(Plans::Ordered), scene.session(Plans::Ordered))?;
    let snapshots = Snapshots::open(&one, &snapshots, scene.clone(), None).await?;
    let deltas = Deltas::open(&other, &deltas, false).await?;
    let (tally, faults, read) = replay(deltas, snapshots, progress).await?;
    let mut found = Found { tally, ..Found::default() };
    let over = faults.len().saturating_sub(FAULTS_MAX);
    for InMarket { ticker, fault } in faults.into_iter().take(FAULTS_MAX) {
        if is_recorded_as_lost(&one, &ticker, fault.from, fault.to.unwrap_or(until)).await? {
            found.known_lost += 1;
        } else if production_knew(scene, &one, roster, &ticker, &fault).await? {
            found.known_holes += 1;
        } else {
            found.findings.push(finding(&ticker, &fault, until));
        }
    }
    found.findings.total += u64::try_from(over).unwrap_or_default();
    progress.part(part.rows, read);
    Ok(found)
}

/// Whether somebody noticed that nobody saw the market between the fault's snapshots.
async fn production_knew(
    scene: &Scene,
    client: &Client,
    roster: &Roster,
    ticker: &str,
    fault: &Fault,
) -> anyhow::Result<bool> {
    let to_clock = fault.to_clock.unwrap_or(scene.now);
    let clocks = Span::new(fault.from_clock, to_clock.max(fault.from_clock + 1));
    let mut seen = of_book(scene, client, roster, ticker, clocks).await?;
    let span =
        between(&mut seen, (fault.from, fault.from_clock), fault.to.zip(fault.to_clock), scene.now);
    Ok(has_known_hole(&seen, span))
}

fn finding(ticker: &str, fault: &Fault, until: i64) -> Finding {
    let kind = if fault.differs { "book_differs" } else { "below_zero" };
    Finding::new(kind, fault.detail.clone())
        .market(ticker)
        .from(fault.from)
        .to(fault.to.unwrap_or(until))
}

/// Whether `--repair` has noted that rows of this time are lost.
async fn is_recorded_as_lost(
    client: &Client,
    ticker: &str,
    from: i64,
    to: i64,
) -> anyhow::Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM lost WHERE ticker = $1 AND channel = 'orderbook_delta' \
                 AND from_ts <= $2 AND to_ts >= $3)";
    let row = client.query_one(sql, &[&ticker, &from, &to]).await.context("read what is lost")?;
    Ok(row.try_get(0)?)
}

/// Replays the streams of a gatherer in its own database.
async fn in_gatherer(
    scene: Arc<Scene>,
    watched: Watched,
    standing: Standing,
    progress: Progress,
) -> anyhow::Result<Found> {
    let source = connect(&watched.target, Schema::Gatherer, Plans::Free).await?;
    let other = connect(&watched.target, Schema::Gatherer, Plans::Free).await?;
    let here: Vec<String> =
        scene.markets.iter().map(|range| range.sql("ticker COLLATE \"C\"")).collect();
    let here = if here.is_empty() { "true".to_owned() } else { format!("({})", here.join(" OR ")) };
    let (since, until) = (scene.since, scene.until);
    // A snapshot is written seconds after the changes before it, so the changes say where both end.
    let deltas = span_of(&source, &standing, Log::OrderbookDeltas, since).await?;
    let snapshots = span_of(&source, &standing, Log::OrderbookSnapshots, since).await?;
    let order = "ORDER BY ticker COLLATE \"C\", session_id, sid, seq";
    let deltas = format!(
        "SELECT ticker, session_id, sid, seq, side, price, size_delta FROM orderbook_deltas \
         WHERE {deltas} AND received_at >= {since} AND received_at <= {until} AND {here} {order}"
    );
    let settled = standing.asked_at - SETTLING_MICROS;
    let snapshots = format!(
        "SELECT ticker, session_id, sid, seq, received_at, yes_prices, yes_sizes, no_prices, no_sizes \
         FROM orderbook_snapshots \
         WHERE {snapshots} AND received_at >= {since} AND received_at <= {} AND source = 'ws' \
           AND {here} {order}",
        until.min(settled)
    );
    let snapshots = Snapshots::open(&source, &snapshots, scene.clone(), Some(&watched.id)).await?;
    let deltas = Deltas::open(&other, &deltas, true).await?;
    let (tally, faults, _) = replay(deltas, snapshots, &progress).await?;
    let mut found = Found { tally, ..Found::default() };
    let over = faults.len().saturating_sub(FAULTS_MAX);
    for InMarket { ticker, fault } in faults.into_iter().take(FAULTS_MAX) {
        if gatherer_knew(&source, &ticker, &fault).await? {
            found.known_holes += 1;
        } else {
            found.faults.push(InMarket { ticker, fault });
        }
    }
    found.findings.total = u64::try_from(over).unwrap_or_default();
    Ok(found)
}

/// Whether one of the gatherer's own stretches of the market ended between the two snapshots. It ends at
/// its last proof, which may be older than a snapshot behind it.
async fn gatherer_knew(client: &Client, ticker: &str, fault: &Fault) -> anyhow::Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM coverage WHERE ticker = $1 AND channel = 'orderbook_delta' \
                 AND covered_to >= $2 AND covered_to <= $3 AND ended_by <> 'continues')";
    let to = fault.to_clock.unwrap_or(i64::MAX);
    let from = fault.from_clock.saturating_sub(SETTLING_MICROS);
    let row = client.query_one(sql, &[&ticker, &from, &to]).await;
    Ok(row.context("read coverage of gatherer")?.try_get(0)?)
}

/// The part of a gatherer's log since a time, as a condition on its key: rows stand about in the order
/// of its clock, so a search that halves finds the place.
async fn span_of(
    client: &Client,
    standing: &Standing,
    log: Log,
    since: i64,
) -> anyhow::Result<String> {
    let Some(state) = standing.logs.get(&log) else { return Ok("false".to_owned()) };
    let from = first_since(client, log, state.kept_from, state.head, since).await?;
    Ok(format!("log_seq >= {from} AND log_seq <= {}", state.head))
}

/// The first row of a log whose clock is not before a time, less some: anchors make snapshots wait.
pub async fn first_since(
    client: &Client,
    log: Log,
    kept_from: i64,
    head: i64,
    since: i64,
) -> anyhow::Result<i64> {
    const SETTLED_MICROS: i64 = 120_000_000;
    let since = since.saturating_sub(SETTLED_MICROS);
    let (mut low, mut high) = (kept_from, head.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        match clock_at(client, log, middle).await? {
            Some(clock) if clock >= since => high = middle,
            Some(_) => low = middle + 1,
            // A hole in the log: everything from its beginning is read, which shows it.
            None => return Ok(kept_from),
        }
    }
    Ok(low)
}

/// Runs the check.
///
/// # Errors
/// When production does not answer, or a gatherer that did a moment ago does not any more.
pub async fn check(scene: Arc<Scene>) -> anyhow::Result<Section> {
    let mut section = Section::new("books");
    section.errors = scene.away();
    let condition = format!("exchange_ts > {} AND exchange_ts <= {}", scene.since, scene.until);
    let parts = divide(&scene, "orderbook_deltas", &condition).await?;
    let rows = parts.iter().map(|part| part.rows).sum::<u64>();
    let progress = Progress::new("books", rows);
    let (roster, merged) = (Roster::of(&scene), merged(&scene));
    let common = Arc::new(Common { scene: scene.clone(), roster, progress, merged });
    let mut found = Found::default();
    let run = |part| work(common.clone(), part);
    each(scene.jobs, parts, run, |part: Found| {
        found.tally.add(&part.tally);
        found.known_holes += part.known_holes;
        found.known_lost += part.known_lost;
        found.findings.append(part.findings);
    })
    .await?;
    common.progress.end();
    if found.tally.two_sided >= 20 && found.tally.two_sided_crossed * 2 > found.tally.two_sided {
        let detail = "most books that the exchange stated are crossed: it seems to ignore \
                      use_yes_price, so the prices of the no side mean something else";
        found.findings.push(Finding::new("crossed", detail));
    }
    let mut table = Figures {
        title: "books replayed".to_owned(),
        header: [
            "where",
            "markets",
            "unchecked",
            "changes",
            "compared",
            "equal",
            "closes",
            "in known holes",
            "crossed moments",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: vec![row("production", &found)],
    };
    let production = found.tally.clone();
    let mut gatherers = Vec::new();
    let mut healed = Vec::new();
    let wrong: HashSet<String> =
        found.findings.listed.iter().filter_map(|finding| finding.market.clone()).collect();
    let answering = scene.gatherers.iter().filter(|watched| watched.standing.is_ok()).count();
    let all = rows.saturating_mul(u64::try_from(answering).unwrap_or_default());
    let progress = Progress::new("books of gatherers", all);
    let asked = scene.gatherers.iter().filter_map(|watched| {
        let standing = watched.standing.as_ref().ok()?.clone();
        let run = in_gatherer(scene.clone(), watched.clone(), standing, progress.clone());
        Some(async move {
            let found = tokio::spawn(Box::pin(run)).await.context("replay a gatherer's streams");
            (watched.id.clone(), found)
        })
    });
    let replayed = futures_util::future::join_all(asked).await;
    progress.end();
    for (id, own) in replayed {
        let own = own?.with_context(|| format!("replay the streams of {id}"))?;
        table.rows.push(row(&id, &own));
        gatherers
            .push(json!({"gatherer": id, "replayed": own.tally, "known_holes": own.known_holes}));
        for InMarket { ticker, fault } in &own.faults {
            let finding = finding(ticker, fault, scene.until).gatherer(&id);
            if wrong.contains(ticker) {
                // Production is wrong too, and says where.
                section.notes.push(format!("{ticker} is wrong in {id} as well: {}", fault.detail));
            } else {
                section.notes.push(format!(
                    "{id} lacks or has too much of {ticker} between {} and {}; the others have it, and \
                     production is right: {}",
                    Micros(fault.from),
                    Micros(fault.to.unwrap_or(scene.until)),
                    fault.detail
                ));
                healed.push(finding);
            }
        }
    }
    section.tables.push(table);
    section.figures = json!({
        "production": production,
        "known_holes": found.known_holes,
        "known_lost": found.known_lost,
        "gatherers": gatherers,
        "healed": healed,
    });
    section.found(found.findings);
    if scene.options.repair {
        let lost = record_lost(&scene, &section.findings).await?;
        section.notes.push(format!(
            "the exchange tells no change twice: {lost} intervals are recorded as lost (table lost), and \
             book_at says so of every book in them"
        ));
    }
    Ok(section)
}

fn row(name: &str, found: &Found) -> Vec<String> {
    let Tally { markets, markets_unchecked, deltas, compared, equal, closes, crossed, .. } =
        &found.tally;
    let mut row = vec![name.to_owned()];
    let known = found.known_holes + found.known_lost;
    let numbers = [markets, markets_unchecked, deltas, compared, equal, closes, &known, crossed];
    row.extend(numbers.map(u64::to_string));
    row
}
