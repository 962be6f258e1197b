//! The decoder: a thread that reads the journal and hands numbered, encoded rows to the appenders.
//!
//! It always reads the journal, so running live, catching up after an outage of the database and
//! starting again after a crash are one code path. Each log has its own place in the journal, which
//! commits with its rows; the thread starts before the lowest one and skips what a log has.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;
use tracing::{info, warn};

use super::interpret::{Interpreter, Output};
use super::metrics::Metrics;
use super::rows;
use super::streams::{OpenChange, OpenStretch};
use crate::kalshi::session::Resync;
use crate::log::chunk::{Chunk, Effect};
use crate::log::journal::{Journal, Kind, Position, Reader};
use crate::model::{Channel, Log, Micros, Record, Ticker};
use crate::pg::copy::Rows;

/// Rows after which a chunk is sent although more can be read at once.
const CHUNK_ROWS_MAX: u64 = 8192;
/// Bytes after which a chunk is sent.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Chunks on the way to one appender. Six logs of eight chunks of about 1 MiB: 48 MiB at most while
/// the database is away; then the journal holds what comes.
pub const CHUNKS_WAITING_MAX: usize = 8;
/// How often a log without rows says how far it is.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// How far behind our clock the journal may be at most: what a frame needs from the socket into it.
const ARRIVAL_MICROS: i64 = 500_000;
/// How long a stopping process goes on with what it has not decoded yet.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Records read between two looks at the clock.
const RECORDS_PER_ROUND: usize = 512;

/// Where each log stands when the decoder begins.
pub struct Places {
    logs: BTreeMap<Log, Place>,
    open: Vec<OpenChange>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    head: i64,
    position: Position,
}

impl Places {
    /// Reads the heads, the journal positions and the open stretches.
    ///
    /// # Errors
    /// When the database does not answer, or its contents are not ours.
    pub async fn load(client: &Client, journal: &Journal) -> Result<Self> {
        let mut logs = BTreeMap::new();
        let sql = "SELECT name, head, journal_id, journal_position FROM logs";
        for row in client.query(sql, &[]).await.context("read places of the logs")? {
            let name: String = row.try_get(0)?;
            let Some(log) = Log::from_name(&name) else { continue };
            let (head, id): (i64, Option<uuid::Uuid>) = (row.try_get(1)?, row.try_get(2)?);
            let position = match id {
                Some(id) if id == journal.id() => Position::from_i64(row.try_get(3)?),
                Some(id) => {
                    warn!(%log, was = %id, now = %journal.id(), "database was filled from another journal: reading this one from its beginning");
                    Position::default()
                }
                None => Position::default(),
            };
            logs.insert(log, Place { head, position });
        }
        anyhow::ensure!(logs.len() == Log::ALL.len(), "table logs lacks a log");
        let sql = "SELECT session_id, sid, ticker, channel, covered_from, first_exchange_ts \
                   FROM coverage_open";
        let mut open = Vec::new();
        for row in client.query(sql, &[]).await.context("read open stretches")? {
            let channel: String = row.try_get(3)?;
            let Some(channel) = Channel::from_name(&channel) else { continue };
            open.push(OpenChange {
                session: row.try_get(0)?,
                sid: row.try_get(1)?,
                ticker: row.try_get(2)?,
                open: Some(OpenStretch {
                    channel,
                    from: Micros(row.try_get(4)?),
                    first_exchange_ts: row.try_get::<_, Option<i64>>(5)?.map(Micros),
                }),
            });
        }
        Ok(Self { logs, open })
    }

    fn lowest(&self) -> Position {
        self.logs.values().map(|place| place.position).min().unwrap_or_default()
    }

    fn of(&self, log: Log) -> Place {
        let fresh = Place { head: 0, position: Position::default() };
        self.logs.get(&log).copied().unwrap_or(fresh)
    }
}

/// Where resynchronisation requests go: by the name of the session's slot.
pub type ResyncSenders = Arc<Mutex<HashMap<String, mpsc::Sender<Resync>>>>;

/// What the decoder works with.
pub struct Decoder {
    pub journal: Journal,
    /// Where this process began to write: sessions before it cannot be asked for anything.
    pub live_from: Position,
    pub senders: BTreeMap<Log, mpsc::Sender<Chunk>>,
    pub resync: ResyncSenders,
    pub metrics: Arc<Metrics>,
    /// The journal's last position, once no more is written.
    pub end: watch::Receiver<Option<Position>>,
}

impl Decoder {
    /// Reads until the journal's end is reached and said to be the end. Blocking.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn run(self, places: Places) -> Result<()> {
        // Positions are never used twice, so none can lie past where this process began.
        for log in Log::ALL {
            anyhow::ensure!(
                places.of(log).position <= self.live_from,
                "the log {log} is ahead of journal {}: journal.dir was restored from an older copy; \
                 give the gatherer an empty one",
                self.journal.dir().display()
            );
        }
        let from = Reader::warm_up(&self.journal, places.lowest())?;
        let mut reader = Reader::open(&self.journal, from);
        let mut written = self.journal.written();
        let mut interpreter = Interpreter::default();
        let coverage_from = places.of(Log::Coverage).position;
        let mut open = Some(places.open.clone());
        let mut lanes: BTreeMap<Log, Lane> = Log::ALL
            .into_iter()
            .filter_map(|log| {
                let sender = self.senders.get(&log)?.clone();
                Some((log, Lane::new(log, places.of(log), sender)))
            })
            .collect();
        info!(from = from.0, end = self.journal.end().0, "reading the journal");
        let mut output = Output::default();
        let mut said_at = Instant::now();
        let mut drain_by = None;
        loop {
            let mut caught_up = false;
            for _ in 0..RECORDS_PER_ROUND {
                // Looked at before the record is taken: exactly at the coverage log's place.
                if open.is_some() && reader.position() >= coverage_from {
                    interpreter.resume(open.take().unwrap_or_default());
                }
                let Some((position, record)) = reader.next()? else {
                    caught_up = true;
                    if reader.position() >= self.live_from {
                        let now = Micros(Micros::now().0 - ARRIVAL_MICROS);
                        interpreter.release(now, &mut output);
                        take_rows(&mut lanes, &mut output);
                    }
                    break;
                };
                if open.is_some() && position >= coverage_from {
                    interpreter.resume(open.take().unwrap_or_default());
                }
                if record.kind == Kind::Frame && position >= self.live_from {
                    self.metrics.frame(record.payload.len());
                }
                interpreter.read(position, &record, &mut output);
                if position >= self.live_from {
                    self.ask_for_snapshots(&interpreter, &mut output);
                }
                output.resync.clear();
                for (position, row) in &output.rows {
                    if let (Record::Delta(delta), true) = (row, *position >= self.live_from) {
                        self.metrics.change(delta.exchange_ts, delta.received_at);
                    }
                }
                take_rows(&mut lanes, &mut output);
                if let Some(lane) = lanes.get_mut(&Log::Coverage) {
                    for (position, change) in output.open.drain(..) {
                        lane.keep(position, change);
                    }
                }
            }
            self.metrics.interpreted(&interpreter.counts);
            let reached = reader.position();
            let say = said_at.elapsed() >= POSITION_INTERVAL;
            if say {
                said_at = Instant::now();
            }
            for (log, lane) in &mut lanes {
                // Snapshots leave in journal order, so none before the oldest waiting is missing.
                let waiting = if *log == Log::OrderbookSnapshots {
                    interpreter.oldest_waiting()
                } else {
                    None
                };
                let position = waiting.unwrap_or(reached);
                if (caught_up || lane.is_large()) && lane.has_rows() || say {
                    // Waits while the appender has enough to do: the journal holds the rest.
                    if !lane.send(position) {
                        info!(%log, "appender ended: the rest stays in the journal");
                        return Ok(());
                    }
                }
            }
            if self.end.borrow().is_some() {
                // A long backlog is left to the next process: its sockets are closed meanwhile.
                let by = *drain_by.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
                if Instant::now() >= by {
                    info!(position = reached.0, "stopping with a backlog: it stays in the journal");
                    break;
                }
            } else if self.end.has_changed().is_err() {
                // The sessions' task failed before it could say where the journal ends.
                break;
            }
            if caught_up {
                if self.end.borrow().is_some_and(|end| reader.position() >= end) {
                    break;
                }
                wait_for_more(&mut written, &self.end);
            }
        }
        for lane in lanes.values_mut() {
            // Snapshots that still wait are read again by the next process, which knows more.
            let waiting = (lane.log == Log::OrderbookSnapshots)
                .then(|| interpreter.oldest_waiting())
                .flatten();
            lane.send(waiting.unwrap_or(reader.position()));
        }
        Ok(())
    }

    fn ask_for_snapshots(&self, interpreter: &Interpreter, output: &mut Output) {
        for (session, ticker) in output.resync.drain(..) {
            let Some(slot) = interpreter.slot(session) else { continue };
            let Ok(ticker) = Ticker::parse(&ticker) else { continue };
            let senders = self.resync.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(sender) = senders.get(slot) else { continue };
            if sender.try_send(Resync { ticker }).is_err() {
                // The session asks for every book it lacks on its own timer as well.
                warn!(slot, "too many snapshots asked for at once");
            }
        }
    }
}

/// Hands rows to their logs.
fn take_rows(lanes: &mut BTreeMap<Log, Lane>, output: &mut Output) {
    for (position, row) in output.rows.drain(..) {
        if let Some(lane) = lanes.get_mut(&row.log()) {
            lane.add(position, &row);
        }
    }
}

/// Waits until the journal has more, the end is known, or a moment has passed.
fn wait_for_more(written: &mut watch::Receiver<u64>, end: &watch::Receiver<Option<Position>>) {
    let mut end = end.clone();
    let handle = tokio::runtime::Handle::current();
    handle.block_on(async {
        tokio::select! {
            _ = written.changed() => {}
            _ = end.changed() => {}
            () = tokio::time::sleep(POSITION_INTERVAL) => {}
        }
    });
}

/// The rows of one log that are not sent yet.
struct Lane {
    log: Log,
    sender: mpsc::Sender<Chunk>,
    /// Rows of records before this place are in the database.
    skip_before: Position,
    next_seq: i64,
    first_seq: i64,
    rows: Rows,
    oldest: Option<Micros>,
    open: BTreeMap<(i64, i64, String), Option<OpenStretch>>,
}

impl Lane {
    fn new(log: Log, place: Place, sender: mpsc::Sender<Chunk>) -> Self {
        Self {
            log,
            sender,
            skip_before: place.position,
            next_seq: place.head + 1,
            first_seq: place.head + 1,
            rows: Rows::new(),
            oldest: None,
            open: BTreeMap::new(),
        }
    }

    fn add(&mut self, position: Position, record: &Record) {
        if position < self.skip_before {
            return;
        }
        rows::encode(&mut self.rows, self.next_seq, record);
        self.next_seq += 1;
        let received_at = match record {
            Record::Delta(delta) => Some(delta.received_at),
            Record::Trade(trade) => Some(trade.received_at),
            Record::Ticker(update) => Some(update.received_at),
            Record::Lifecycle(lifecycle) => Some(lifecycle.received_at),
            // These wait by design; they say nothing of the path's latency.
            Record::Snapshot(_) | Record::Coverage(_) => None,
        };
        self.oldest = match (self.oldest, received_at) {
            (Some(oldest), Some(at)) => Some(oldest.min(at)),
            (oldest, at) => oldest.or(at),
        };
    }

    fn keep(&mut self, position: Position, change: OpenChange) {
        if position >= self.skip_before {
            self.open.insert((change.session, change.sid, change.ticker), change.open);
        }
    }

    fn has_rows(&self) -> bool {
        !self.rows.is_empty() || !self.open.is_empty()
    }

    fn is_large(&self) -> bool {
        self.rows.rows() >= CHUNK_ROWS_MAX || self.rows.bytes() >= CHUNK_BYTES_MAX
    }

    /// Sends what there is, with the position reached. False when nobody takes it any more.
    fn send(&mut self, position: Position) -> bool {
        let rows = self.next_seq - self.first_seq;
        let chunk = Chunk {
            first_seq: self.first_seq,
            rows,
            copy: if rows > 0 { self.rows.finish() } else { bytes::Bytes::new() },
            // A log that is ahead of the reader stays where it is.
            position: position.max(self.skip_before),
            oldest: self.oldest.take(),
            effects: self.effects(),
        };
        self.first_seq = self.next_seq;
        self.sender.blocking_send(chunk).is_ok()
    }

    /// The changes of the open stretches as two statements over arrays.
    fn effects(&mut self) -> Vec<Effect> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let mut closed = (Vec::new(), Vec::new(), Vec::new());
        let mut opened = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((session, sid, ticker), open) in std::mem::take(&mut self.open) {
            match open {
                None => {
                    closed.0.push(session);
                    closed.1.push(sid);
                    closed.2.push(ticker);
                }
                Some(open) => {
                    opened.0.push(session);
                    opened.1.push(sid);
                    opened.2.push(ticker);
                    opened.3.push(open.channel.name());
                    opened.4.push(open.from.0);
                    opened.5.push(open.first_exchange_ts.map(|at| at.0));
                }
            }
        }
        let mut effects = Vec::new();
        if !closed.0.is_empty() {
            effects.push(Effect {
                sql: "DELETE FROM coverage_open o \
                      USING unnest($1::bigint[], $2::bigint[], $3::text[]) c (session, sid, ticker) \
                      WHERE (o.session_id, o.sid, o.ticker) = (c.session, c.sid, c.ticker)",
                params: vec![Box::new(closed.0), Box::new(closed.1), Box::new(closed.2)],
            });
        }
        if !opened.0.is_empty() {
            effects.push(Effect {
                sql: "INSERT INTO coverage_open \
                      (session_id, sid, ticker, channel, covered_from, first_exchange_ts) \
                      SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], \
                                           $5::bigint[], $6::bigint[]) \
                      ON CONFLICT (session_id, sid, ticker) DO UPDATE \
                      SET channel = excluded.channel, covered_from = excluded.covered_from, \
                          first_exchange_ts = excluded.first_exchange_ts",
                params: vec![
                    Box::new(opened.0),
                    Box::new(opened.1),
                    Box::new(opened.2),
                    Box::new(opened.3),
                    Box::new(opened.4),
                    Box::new(opened.5),
                ],
            });
        }
        effects
    }
}
