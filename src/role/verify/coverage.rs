//! Stretches of coverage: those that production has, in the order of markets, and those that it cannot
//! have yet, because they go on or are not merged.

use std::collections::HashMap;

use anyhow::Context as _;
use tokio_postgres::Client;

use super::intervals::{Span, holes, union};
use super::ranges::{Range, literal};
use super::scene::{Plans, Scene, connect};
use crate::model::{Channel, Log};
use crate::pg::copy_out::CopyOut;
use crate::pg::migrate::Schema;

/// No stretch is longer than an hour; one that began a day before is long over.
const LONGEST_MICROS: i64 = 86_400_000_000;
/// The exchange's times of a market that lie so far from our clock are of another day: a replay.
const REPLAY_MICROS: i64 = 86_400_000_000;
/// Clocks differ by less than this.
const CLOCKS_MICROS: i64 = 1_000_000;
/// So late a frame of a replay may be read.
const REPLAY_LATE_MICROS: i64 = 60_000_000;
/// What a stretch that goes on is ended by.
pub const OPEN: &str = "open";
const CONTINUES: &str = "continues";
const INTEGRITY: &str = "integrity";

/// A time in which a gatherer saw a market, or a channel, without a hole, by its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Which of the gatherers that are known here.
    pub gatherer: usize,
    pub session: i64,
    pub span: Span,
    pub records: Option<i64>,
    pub ended_by: String,
    pub detail: String,
    /// The exchange's times are of another day.
    pub is_replay: bool,
}

impl Stretch {
    /// Whether it says that nothing was missed. One that ended because the book was found to be wrong
    /// does not.
    pub fn proves(&self) -> bool {
        self.ended_by != INTEGRITY
    }

    /// Whether its end is an end: somebody saw it coming or noticed it.
    pub fn ends(&self) -> bool {
        self.ended_by != CONTINUES && self.ended_by != OPEN
    }
}

/// A market of a channel with its stretches, in no order.
#[derive(Debug, Default)]
pub struct Seen {
    pub ticker: String,
    pub channel: String,
    pub stretches: Vec<Stretch>,
}

/// Which gatherer is which: production's numbers, and the configured that it does not know yet.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    pub names: Vec<String>,
    pub by_number: HashMap<i16, usize>,
}

/// What `verify --repair` is called where a gatherer stands.
pub const REPAIR: &str = "repair";

impl Roster {
    pub fn of(scene: &Scene) -> Self {
        let mut roster = Self::default();
        for (number, name) in &scene.names {
            if name != REPAIR {
                roster.by_number.insert(*number, roster.names.len());
                roster.names.push(name.clone());
            }
        }
        for gatherer in &scene.gatherers {
            if gatherer.number.is_none() {
                roster.names.push(gatherer.id.clone());
            }
        }
        roster
    }

    fn of_number(&self, number: i16) -> Option<usize> {
        self.by_number.get(&number).copied()
    }

    fn of_name(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    pub fn name(&self, gatherer: usize) -> &str {
        self.names.get(gatherer).map_or("?", String::as_str)
    }
}

const COLUMNS: &str =
    "covered_from, covered_to, last_exchange_ts, records, ended_by, detail, session_id";

/// The stretches of a range in production, one market and channel after the other.
pub struct Stretches {
    rows: CopyOut,
    roster: Roster,
    next: Option<(String, String, Stretch)>,
    pub read: u64,
}

impl Stretches {
    /// Begins to read those that touch `span`; a session of its own.
    ///
    /// # Errors
    /// When production does not answer.
    pub async fn open(
        client: &Client,
        roster: Roster,
        range: &Range,
        channel: Option<&str>,
        span: Span,
    ) -> anyhow::Result<Self> {
        let channel =
            channel.map_or("true".to_owned(), |name| format!("channel = {}", literal(name)));
        let sql = format!(
            "SELECT ticker, channel, {COLUMNS}, gatherer_id FROM coverage \
             WHERE {} AND {channel} AND covered_from > {} AND covered_from < {} AND covered_to > {} \
             ORDER BY ticker, channel, covered_from",
            range.sql("ticker"),
            span.from.saturating_sub(LONGEST_MICROS),
            span.to,
            span.from.saturating_sub(LONGEST_MICROS)
        );
        let rows = CopyOut::open(client, &sql).await.context("read coverage")?;
        let mut stretches = Self { rows, roster, next: None, read: 0 };
        stretches.advance().await?;
        Ok(stretches)
    }

    async fn advance(&mut self) -> anyhow::Result<()> {
        self.next = None;
        while self.rows.advance().await.context("read coverage")? {
            self.read += 1;
            let mut row = self.rows.row();
            let (ticker, channel) = (row.text()?.to_owned(), row.text()?.to_owned());
            let mut stretch = read_stretch(&mut row)?;
            // A gatherer that production does not know cannot have brought a row.
            let Some(gatherer) = self.roster.of_number(row.i16()?) else { continue };
            stretch.gatherer = gatherer;
            self.next = Some((ticker, channel, stretch));
            break;
        }
        Ok(())
    }

    /// The ticker and channel of the next market, without going on.
    pub fn peek(&self) -> Option<(&str, &str)> {
        self.next.as_ref().map(|(ticker, channel, _)| (ticker.as_str(), channel.as_str()))
    }

    /// All stretches of the next market and channel.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn take(&mut self) -> anyhow::Result<Option<Seen>> {
        let Some((ticker, channel, stretch)) = self.next.take() else { return Ok(None) };
        let mut seen = Seen { ticker, channel, stretches: vec![stretch] };
        self.advance().await?;
        while let Some((ticker, channel, stretch)) = self.next.take() {
            if ticker != seen.ticker || channel != seen.channel {
                self.next = Some((ticker, channel, stretch));
                break;
            }
            seen.stretches.push(stretch);
            self.advance().await?;
        }
        Ok(Some(seen))
    }
}

fn read_stretch(row: &mut crate::pg::copy_out::Fields<'_>) -> anyhow::Result<Stretch> {
    let span = Span::new(row.i64()?, row.i64()?);
    let last_exchange_ts = row.opt_i64()?;
    let far = |ts: i64| is_of_another_day(ts, span.to);
    Ok(Stretch {
        gatherer: 0,
        span,
        records: row.opt_i64()?,
        ended_by: row.text()?.to_owned(),
        detail: row.text()?.to_owned(),
        session: row.i64()?,
        is_replay: last_exchange_ts.is_some_and(far),
    })
}

/// Stretches that production does not have: of a market and channel, in the gatherers that answer.
pub type Tails = HashMap<(String, String), Vec<Stretch>>;

/// Asks the gatherers for what is behind production's cursors and for what goes on, in a range.
///
/// # Errors
/// When one that answered before does not any more.
pub async fn tails(scene: &Scene, roster: &Roster, range: &Range) -> anyhow::Result<Tails> {
    let mut tails = Tails::new();
    for watched in &scene.gatherers {
        let Ok(standing) = &watched.standing else { continue };
        let (Some(gatherer), Some(state)) =
            (roster.of_name(&watched.id), standing.logs.get(&Log::Coverage))
        else {
            continue;
        };
        let client = connect(&watched.target, Schema::Gatherer, Plans::Free).await?;
        // Tickers are in the server's order there, not in that of bytes.
        let here = range.sql("ticker COLLATE \"C\"");
        let sql = format!(
            "SELECT ticker, channel, {COLUMNS} FROM coverage WHERE log_seq > {} AND {here} \
             UNION ALL \
             SELECT ticker, channel, covered_from, greatest(covered_from, {}), first_exchange_ts, \
                    NULL, '{OPEN}', '', session_id \
             FROM coverage_open WHERE {here}",
            state.position.unwrap_or(0),
            standing.open_until()
        );
        let mut rows = CopyOut::open(&client, &sql).await.context("read open stretches")?;
        while rows.advance().await.context("read open stretches")? {
            let mut row = rows.row();
            let key = (row.text()?.to_owned(), row.text()?.to_owned());
            let mut stretch = read_stretch(&mut row)?;
            stretch.gatherer = gatherer;
            tails.entry(key).or_default().push(stretch);
        }
    }
    Ok(tails)
}

/// The stretches of one market's book around a time, from production and from the gatherers.
///
/// # Errors
/// When a database does not answer.
pub async fn of_book(
    scene: &Scene,
    client: &Client,
    roster: &Roster,
    ticker: &str,
    span: Span,
) -> anyhow::Result<Vec<Stretch>> {
    let channel = Channel::OrderbookDelta.name();
    let range = Range::of_market(ticker);
    let mut rows = Stretches::open(client, roster.clone(), &range, Some(channel), span).await?;
    let mut stretches = rows.take().await?.unwrap_or_default().stretches;
    let mut tails = tails(scene, roster, &range).await?;
    stretches.extend(tails.remove(&(ticker.to_owned(), channel.to_owned())).unwrap_or_default());
    Ok(stretches)
}

/// The time around a row in which coverage tells whether its neighbours were seen. Stretches begin when
/// a snapshot is received and end where the exchange's time of a frame proves them, so it is that
/// between both times of the row, and a second for the clocks. Times of a replay say nothing of ours:
/// there it is a minute.
pub fn around(exchange_ts: i64, received_at: i64) -> Span {
    let (from, to) = (exchange_ts.min(received_at), exchange_ts.max(received_at));
    let (from, to, more) = if is_of_another_day(exchange_ts, received_at) {
        (received_at, received_at, REPLAY_LATE_MICROS)
    } else {
        (from, to, CLOCKS_MICROS)
    };
    Span::new(from.saturating_sub(more), to.saturating_add(more))
}

/// Whether the exchange's time and ours are those of a replay.
fn is_of_another_day(exchange_ts: i64, received_at: i64) -> bool {
    exchange_ts.abs_diff(received_at) > REPLAY_MICROS.unsigned_abs()
}

/// A snapshot's two times: its anchor, which is the exchange's, and ours when it came.
pub type Placed = (i64, i64);

/// What the stretches of a market say of the time from one of its snapshots to another, when what the
/// snapshots themselves prove is added to them; and that time.
///
/// A stretch begins when its first snapshot is received, but that snapshot and what follows it say all
/// from its anchor on. And it ends at its last proof, which no snapshot is, so that the last one may
/// have come behind it: all up to it came in sequence, unless another stretch begins with it.
pub fn between(stretches: &mut [Stretch], from: Placed, to: Option<Placed>, now: i64) -> Span {
    let (anchor, clock) = from;
    let begin = if is_of_another_day(anchor, clock) { clock } else { anchor.min(clock) };
    for stretch in stretches.iter_mut().filter(|stretch| stretch.span.from == clock) {
        stretch.span.from = begin;
    }
    let end = to.map_or(now, |(_, clock)| clock);
    let is_beginning = stretches.iter().any(|stretch| stretch.span.from == end);
    if to.is_some() && !is_beginning {
        let before = stretches.iter_mut().filter(|s| s.span.from < end && s.proves());
        if let Some(last) = before.max_by_key(|stretch| stretch.span.to) {
            last.span.to = last.span.to.max(end);
        }
    }
    Span::new(begin, end.max(begin.saturating_add(1)))
}

/// Whether a time has a hole that is known: nobody saw it, and somebody noticed.
pub fn has_known_hole(stretches: &[Stretch], span: Span) -> bool {
    let proving = stretches.iter().filter(|stretch| stretch.proves());
    let seen = union(proving.map(|stretch| stretch.span).collect());
    holes(span, &seen).into_iter().any(|hole| {
        // Behind the last row of a stretch that was only cut, nothing is said yet.
        let ended = |s: &&Stretch| s.span.to <= hole.from && (s.ends() || !s.proves());
        let resumed = |s: &&Stretch| s.span.from >= hole.to;
        let wrong = |s: &&Stretch| !s.proves() && !s.span.within(hole).is_empty();
        let never = !stretches.iter().any(|s| s.span.from < hole.to);
        never
            || stretches.iter().any(|s| ended(&s) || wrong(&s))
            || stretches.iter().any(|s| resumed(&s))
    })
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A stretch of a test.
    pub fn stretch(gatherer: usize, from: i64, to: i64, ended_by: &str) -> Stretch {
        Stretch {
            gatherer,
            session: 1,
            span: Span::new(from, to),
            records: Some(10),
            ended_by: ended_by.to_owned(),
            detail: String::new(),
            is_replay: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::stretch;
    use super::*;

    #[test]
    fn a_hole_is_known_only_where_somebody_noticed_it() {
        let whole = Span::new(10, 20);
        let known = |stretches: &[Stretch]| has_known_hole(stretches, whole);
        assert!(!known(&[stretch(0, 0, 30, "gap")]));
        assert!(!known(&[stretch(0, 0, 15, "gap"), stretch(1, 15, 30, "stop")]));
        assert!(known(&[stretch(0, 0, 15, "gap")]));
        assert!(known(&[stretch(0, 0, 15, "gap"), stretch(0, 16, 30, "continues")]));
        assert!(!known(&[stretch(0, 0, 15, "continues")]), "the next row is not written yet");
        assert!(known(&[stretch(0, 0, 30, "integrity")]), "it was found to be wrong");
        assert!(known(&[]), "nobody looked");
        assert!(known(&[stretch(0, 15, 30, "stop")]));
    }

    #[test]
    fn a_row_is_looked_for_between_its_two_times() {
        const SECOND: i64 = 1_000_000;
        assert_eq!(around(10 * SECOND, 15 * SECOND), Span::new(9 * SECOND, 16 * SECOND));
        assert_eq!(around(15 * SECOND, 10 * SECOND), Span::new(9 * SECOND, 16 * SECOND));
        let replayed = around(0, REPLAY_MICROS + 61 * SECOND);
        assert_eq!(replayed, Span::new(REPLAY_MICROS + SECOND, REPLAY_MICROS + 121 * SECOND));
    }

    #[test]
    fn snapshots_say_what_lies_behind_the_last_proof_and_before_the_first_receipt() {
        let known = |mut stretches: Vec<Stretch>, from, to| {
            let span = between(&mut stretches, from, to, 100);
            has_known_hole(&stretches, span)
        };
        // The first snapshot of a stretch is as old as its anchor; the last may be behind the proof.
        assert!(!known(vec![stretch(0, 10, 30, "stop")], (8, 10), Some((20, 25))));
        assert!(!known(vec![stretch(0, 10, 30, "stop")], (12, 14), Some((33, 35))));
        // One that begins a stretch says nothing of what was before it.
        let resumed = || vec![stretch(0, 10, 30, "gap"), stretch(0, 35, 50, "stop")];
        assert!(known(resumed(), (12, 14), Some((33, 35))));
        assert!(!known(resumed(), (33, 35), Some((50, 52))));
        // A snapshot that was read late lies behind the hole after it.
        let late = vec![stretch(0, 2, 11, "disconnect"), stretch(1, 12, 50, "stop")];
        assert!(known(late, (10, 15), Some((40, 41))));
        assert!(known(vec![stretch(0, 10, 30, "stop")], (8, 10), None));
    }
}
