//! The merge: spans of several gatherers become one batch, in which each fact stands once.
//!
//! Pure. A row is skipped when its identity is certainly in production ([`Recent`]) or in the batch
//! that is being committed; of equal rows in one batch the copy that was received first stays, and of
//! those of one microsecond that of the gatherer configured first. Since a delta's identity holds its
//! occurrence, the union of identities is the multiset union.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use uuid::Uuid;

use super::contributions::{Alone, Tally};
use super::recent::{BuildHashed, Floor, Recent};
use super::span::{NO_TIME, Row, Span};
use super::table::Table;

/// How a cursor moves with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub gatherer: usize,
    pub log_id: Uuid,
    pub after: i64,
    pub through: i64,
    /// The newest head known of that log.
    pub head: i64,
    /// The gatherer's clock at the newest row merged.
    pub clock: i64,
    /// Rows whose time the retention has dropped: they are counted instead of written.
    pub past_retention: i64,
}

/// What became of a gatherer's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub read: u64,
    /// Production or another gatherer had them.
    pub skipped: u64,
    pub past_retention: u64,
    /// The gatherer had dropped them before they were read.
    pub dropped: u64,
}

/// A row of the batch: which span, which row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pick {
    span: u32,
    row: u32,
    /// More than one gatherer brought it.
    is_shared: bool,
}

/// A row that is to be written, with its span.
#[derive(Debug, Clone, Copy)]
pub struct Picked<'a> {
    pub span: &'a Span,
    pub row: &'a Row,
    /// More than one gatherer brought it within the batch.
    pub is_shared: bool,
}

impl Picked<'_> {
    /// Rows are written in this order: as they were received, whoever did.
    fn order(&self) -> (i64, usize) {
        (self.row.clock, self.span.gatherer)
    }
}

/// The rows of one transaction, and the cursors that move with them.
#[derive(Debug, Clone)]
pub struct Batch {
    spans: Vec<Span>,
    picks: Vec<Pick>,
    seen: HashMap<u128, u32, BuildHashed>,
    moves: Vec<Move>,
    counts: Vec<Counts>,
    bytes: usize,
    kept_from: i64,
    gatherer_ids: Arc<[i16]>,
    alone: Option<Alone>,
    tally: Tally,
    /// Rows of the batch that was being committed, of which another gatherer brought a copy.
    copied: HashMap<u128, i16, BuildHashed>,
}

impl Batch {
    /// Takes rows of every time; see [`Batch::keeping`].
    pub fn new(gatherers: usize) -> Self {
        Self {
            spans: Vec::new(),
            picks: Vec::new(),
            seen: HashMap::default(),
            moves: Vec::new(),
            counts: vec![Counts::default(); gatherers],
            bytes: 0,
            kept_from: i64::MIN,
            gatherer_ids: Arc::from([]),
            alone: None,
            tally: Tally::default(),
            copied: HashMap::default(),
        }
    }

    /// Counts what each gatherer contributes, by its number in production.
    pub fn counting(self, gatherer_ids: Arc<[i16]>, alone: Alone) -> Self {
        Self { gatherer_ids, alone: Some(alone), ..self }
    }

    /// Takes no rows before a time: what the retention has dropped can no longer be told from what
    /// is new, and landing again it would reach every consumer twice.
    pub fn keeping(self, kept_from: i64) -> Self {
        Self { kept_from, ..self }
    }

    /// Adds a span. `committing` is the batch that is being committed and not in `recent` yet.
    pub fn absorb(
        &mut self,
        table: &Table,
        recent: &Recent,
        committing: Option<&Self>,
        span: Span,
    ) {
        self.advance(&span);
        let (gatherer, place) = (span.gatherer, self.spans.len());
        self.count(gatherer, |counts| {
            counts.read += length(span.rows.len());
            counts.dropped += span.dropped_rows();
        });
        self.spans.push(span);
        let (mut skipped, mut past, picks_before) = (0, 0_u32, self.picks.len());
        let Some(span) = self.spans.get(place) else { return };
        let id = self.gatherer_ids.get(gatherer).copied();
        let mut copies = Vec::new();
        for (index, row) in span.rows.iter().enumerate() {
            if row.time < self.kept_from {
                past += 1;
                continue;
            }
            if let Some(id) = id {
                self.tally.offered(id, row);
            }
            let known = recent.contains(row.time, table.tolerance_micros, row.identity);
            let pending = committing.filter(|_| !known).and_then(|b| b.bringer(row.identity));
            if known || pending.is_some() {
                skipped += 1;
                if let Some(id) = id {
                    self.tally.duplicate(id, row);
                    match pending {
                        // Whether it stands alone is known when that batch is committed.
                        Some(first) if first != gatherer => {
                            self.copied.insert(row.identity, id);
                        }
                        Some(_) => {}
                        None => copies.push((row.identity, id)),
                    }
                }
                continue;
            }
            let pick = Pick { span: index_u32(place), row: index_u32(index), is_shared: false };
            match self.seen.entry(row.identity) {
                Entry::Vacant(vacant) => {
                    vacant.insert(index_u32(self.picks.len()));
                    self.picks.push(pick);
                }
                Entry::Occupied(occupied) => {
                    let Some(first) = usize::try_from(*occupied.get())
                        .ok()
                        .and_then(|index| self.picks.get_mut(index))
                    else {
                        continue;
                    };
                    let mut loser = (gatherer, *row);
                    if let Some(rival) = picked(&self.spans, *first) {
                        let is_shared = first.is_shared || rival.span.gatherer != gatherer;
                        first.is_shared = is_shared;
                        if (Picked { span, row, is_shared }).order() < rival.order() {
                            loser = (rival.span.gatherer, *rival.row);
                            *first = Pick { is_shared, ..pick };
                        }
                    }
                    if let Some(id) = self.gatherer_ids.get(loser.0) {
                        self.tally.duplicate(*id, &loser.1);
                    }
                    if loser.0 == gatherer {
                        skipped += 1;
                    } else if let Some(counts) = self.counts.get_mut(loser.0) {
                        counts.skipped += 1;
                    }
                }
            }
        }
        if let Some(alone) = &self.alone {
            alone.copies(copies.into_iter(), &mut self.tally);
        }
        if let Some(moved) = self
            .moves
            .iter_mut()
            .rfind(|moved| moved.gatherer == gatherer && moved.log_id == span.log_id && past > 0)
        {
            moved.past_retention += i64::from(past);
        }
        self.count(gatherer, |counts| {
            counts.skipped += skipped;
            counts.past_retention += u64::from(past);
        });
        let replaced = self.picks.iter().any(|pick| pick.span == index_u32(place));
        if self.picks.len() == picks_before && !replaced {
            // Nothing of it is written: only the cursor moves.
            self.spans.pop();
        } else if let Some(span) = self.spans.get(place) {
            self.bytes += span.bytes();
        }
    }

    /// Whose copy of a row of this batch is written.
    fn bringer(&self, identity: u128) -> Option<usize> {
        let pick = self.picks.get(usize::try_from(*self.seen.get(&identity)?).ok()?)?;
        Some(self.spans.get(usize::try_from(pick.span).ok()?)?.gatherer)
    }

    /// The figures of what was read, once the batch before is committed. What becomes of the rows to
    /// be written is not in them.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        if let Some(alone) = &self.alone {
            let copied = self.copied.iter().map(|(identity, gatherer)| (*identity, *gatherer));
            alone.copies(copied, &mut tally);
        }
        tally
    }

    fn advance(&mut self, span: &Span) {
        let clock = span.rows.iter().map(|row| row.clock).max().unwrap_or(NO_TIME);
        let known = self.moves.iter_mut().find(|known| {
            known.gatherer == span.gatherer
                && known.log_id == span.log_id
                && known.through == span.after
        });
        if let Some(known) = known {
            known.through = span.through;
            known.head = known.head.max(span.head);
            known.clock = known.clock.max(clock);
            return;
        }
        self.moves.push(Move {
            gatherer: span.gatherer,
            log_id: span.log_id,
            after: span.after,
            through: span.through,
            head: span.head,
            clock,
            past_retention: 0,
        });
    }

    fn count(&mut self, gatherer: usize, change: impl FnOnce(&mut Counts)) {
        if let Some(counts) = self.counts.get_mut(gatherer) {
            change(counts);
        }
    }

    /// Whether there is nothing to commit, not even a cursor.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Rows to write.
    pub fn rows(&self) -> usize {
        self.picks.len()
    }

    /// Memory of the spans that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// By gatherer. Rows that the stage finds in production are not among the skipped.
    pub fn counts(&self) -> &[Counts] {
        &self.counts
    }

    /// Times and identities, for [`Recent::remember`] after the commit.
    pub fn identities(&self) -> impl Iterator<Item = (i64, u128)> {
        self.picked().map(|picked| (picked.row.time, picked.row.identity))
    }

    fn picked(&self) -> impl Iterator<Item = Picked<'_>> {
        self.picks.iter().filter_map(|pick| picked(&self.spans, *pick))
    }

    /// Rows that are certainly new, and rows that the unique key has to decide, each in the order in
    /// which they were received. Only right with the floor after every batch before this one was
    /// remembered.
    pub fn split(&self, table: &Table, floor: Floor) -> (Vec<Picked<'_>>, Vec<Picked<'_>>) {
        let mut ordered: Vec<Picked<'_>> = self.picked().collect();
        // Each gatherer's rows are nearly in order already, which a stable sort makes use of.
        ordered.sort_by_key(Picked::order);
        if !table.provable {
            return (Vec::new(), ordered);
        }
        ordered
            .into_iter()
            .partition(|picked| floor.proves_new(picked.row.time, table.tolerance_micros))
    }
}

fn picked(spans: &[Span], pick: Pick) -> Option<Picked<'_>> {
    let span = spans.get(usize::try_from(pick.span).ok()?)?;
    let row = span.rows.get(usize::try_from(pick.row).ok()?)?;
    Some(Picked { span, row, is_shared: pick.is_shared })
}

/// A batch holds far fewer rows than 2^32; see `BATCH_ROWS_MAX`.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::span::Request;
    use super::super::span::testing::{TestDelta, delta_span};
    use super::super::table::ORDERBOOK_DELTAS;
    use super::*;

    fn nothing_known() -> Recent {
        Recent::new(i64::MIN, 1_000_000)
    }

    /// What a batch would write, as (clock, gatherer, exchange_ts, identity).
    fn rows(batch: &Batch) -> Vec<(i64, usize, i64, u128)> {
        let (direct, staged) = batch.split(&ORDERBOOK_DELTAS, nothing_known().floor());
        assert!(staged.is_empty());
        direct
            .iter()
            .map(|p| (p.row.clock, p.span.gatherer, p.row.exchange_ts, p.row.identity))
            .collect()
    }

    /// A delta of a small world, so that equal ones are frequent: `n` tells apart what happened,
    /// `occurrence` identical changes.
    fn delta(n: i64, occurrence: i32, received_at: i64) -> TestDelta {
        TestDelta {
            received_at,
            // Steps of half a stretch of the memory, which then has something to forget.
            exchange_ts: (n / 3) << 17,
            ticker: format!("T{}", n % 3),
            price: 10,
            occurrence,
        }
    }

    #[test]
    fn the_copy_received_first_stays_then_the_gatherer_configured_first() {
        let mut batch = Batch::new(3);
        let recent = nothing_known();
        for (gatherer, received_at) in [(2, 50), (0, 60), (1, 50)] {
            let span = delta_span(gatherer, 0, &[delta(1, 1, received_at)]);
            batch.absorb(&ORDERBOOK_DELTAS, &recent, None, span);
        }
        let rows = rows(&batch);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].0, rows[0].1), (50, 1));
        let skipped: Vec<u64> = batch.counts().iter().map(|counts| counts.skipped).collect();
        assert_eq!(skipped, [1, 0, 1]);
    }

    #[test]
    fn identical_changes_of_one_stream_all_count() {
        let mut batch = Batch::new(2);
        let recent = nothing_known();
        let both = [delta(1, 1, 50), delta(1, 2, 50)];
        batch.absorb(&ORDERBOOK_DELTAS, &recent, None, delta_span(0, 0, &both));
        batch.absorb(&ORDERBOOK_DELTAS, &recent, None, delta_span(1, 7, &both));
        assert_eq!(batch.rows(), 2);
    }

    #[test]
    fn spans_of_one_log_move_its_cursor_once() {
        let mut batch = Batch::new(1);
        let recent = nothing_known();
        let span = |after| delta_span(0, after, &[delta(after, 1, 1), delta(after + 1, 1, 2)]);
        batch.absorb(&ORDERBOOK_DELTAS, &recent, None, span(4));
        batch.absorb(&ORDERBOOK_DELTAS, &recent, None, span(6));
        let moves = batch.moves();
        assert_eq!(moves.len(), 1);
        assert_eq!((moves[0].after, moves[0].through, moves[0].head), (4, 8, 8));
    }

    #[test]
    fn a_batch_of_duplicates_moves_cursors_and_holds_no_memory() {
        let (recent, rows) = (nothing_known(), [delta(1, 1, 50), delta(2, 1, 51)]);
        let mut committing = Batch::new(2);
        committing.absorb(&ORDERBOOK_DELTAS, &recent, None, delta_span(0, 0, &rows));
        let mut next = Batch::new(2);
        next.absorb(&ORDERBOOK_DELTAS, &recent, Some(&committing), delta_span(1, 0, &rows));
        assert_eq!((next.rows(), next.bytes(), next.is_empty()), (0, 0, false));
        assert_eq!(next.moves()[0].through, 2);
        assert_eq!(next.counts()[1], Counts { read: 2, skipped: 2, ..Counts::default() });
    }

    #[test]
    fn rows_that_were_dropped_move_the_cursor_and_are_counted() {
        let (recent, table) = (nothing_known(), &ORDERBOOK_DELTAS);
        let mut batch = Batch::new(1);
        let (gatherer, log_id) = (0, Uuid::nil());
        let gone = Request { gatherer, log_id, after: 4, through: 90, head: 91, seed: 7 };
        batch.absorb(table, &recent, None, Span::dropped(gone));
        batch.absorb(table, &recent, None, delta_span(0, 90, &[delta(1, 1, 50)]));
        assert_eq!((batch.rows(), batch.moves().len()), (1, 1));
        let moved = &batch.moves()[0];
        assert_eq!((moved.after, moved.through, moved.clock), (4, 91, 50));
        assert_eq!(batch.counts()[0], Counts { read: 1, dropped: 86, ..Counts::default() });
    }

    /// Streams of gatherers that each saw a part of what happened, cut into spans.
    fn streams() -> impl Strategy<Value = Vec<Vec<Vec<TestDelta>>>> {
        let seen = (0_i64..40, 1_i32..3, 0_i64..100).prop_map(|(n, o, at)| delta(n, o, at));
        let span = prop::collection::vec(seen, 1..12);
        prop::collection::vec(prop::collection::vec(span, 0..6), 1..4)
    }

    /// What a fact is, without who saw it when.
    fn fact(delta: &TestDelta) -> TestDelta {
        TestDelta { received_at: 0, ..delta.clone() }
    }

    proptest! {
        /// Production, modelled as a map by identity, holds each fact once with its first copy of the
        /// batch that brought it, whatever the interleaving, batch size and memory; proofs never lie.
        #[test]
        fn production_is_the_multiset_union(
            streams in streams(),
            order in prop::collection::vec(0_usize..3, 0..40),
            per_batch in 1_usize..6,
            cost_max in 0_usize..60,
            replay: bool,
        ) {
            let table = &ORDERBOOK_DELTAS;
            let mut production: BTreeMap<u128, TestDelta> = BTreeMap::new();
            let mut expected: BTreeMap<TestDelta, ()> = BTreeMap::new();
            let mut queue = Vec::new();
            let mut next = vec![(0_usize, 0_i64); streams.len()];
            let all: usize = streams.iter().map(Vec::len).sum();
            for turn in order.into_iter().chain((0..3).cycle()).take(40 + 3 * all) {
                let gatherer = turn % streams.len();
                let (index, after) = next[gatherer];
                if let Some(deltas) = streams[gatherer].get(index) {
                    queue.push((gatherer, after, deltas.clone()));
                    next[gatherer] = (index + 1, after + i64::try_from(deltas.len()).unwrap());
                }
            }
            if replay {
                // The process was killed and starts over from cursors of long ago.
                queue.extend(queue.clone());
            }
            let mut recent = Recent::new(i64::MIN, cost_max);
            let mut committing: Option<Batch> = None;
            for spans in queue.chunks(per_batch) {
                let mut batch = Batch::new(streams.len());
                let mut facts = BTreeMap::new();
                for (gatherer, after, deltas) in spans {
                    let span = delta_span(*gatherer, *after, deltas);
                    for (row, delta) in span.rows.iter().zip(deltas) {
                        expected.insert(fact(delta), ());
                        facts.insert(row.identity, fact(delta));
                    }
                    batch.absorb(table, &recent, committing.as_ref(), span);
                }
                // The batch before commits while this one is merged.
                if let Some(done) = committing.take() {
                    recent.remember(done.identities());
                }
                let (direct, staged) = batch.split(table, recent.floor());
                for picked in direct {
                    let fact = facts[&picked.row.identity].clone();
                    let before = production.insert(picked.row.identity, fact);
                    prop_assert!(before.is_none(), "a row proven new was there");
                }
                for picked in staged {
                    let fact = facts[&picked.row.identity].clone();
                    production.entry(picked.row.identity).or_insert(fact);
                }
                let counts = batch.counts();
                let read: u64 = counts.iter().map(|c| c.read).sum();
                let skipped: u64 = counts.iter().map(|c| c.skipped).sum();
                prop_assert_eq!(read - skipped, length(batch.rows()));
                committing = Some(batch);
            }
            let facts: Vec<TestDelta> = expected.into_keys().collect();
            let mut found: Vec<TestDelta> = production.into_values().collect();
            found.sort();
            prop_assert_eq!(found, facts);
        }
    }
}
