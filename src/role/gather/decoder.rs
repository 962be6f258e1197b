//! The decoder: a thread that reads the journal and hands numbered, encoded rows to the appenders.
//!
//! It always reads the journal, so running live, catching up after an outage of the database and
//! starting again after a crash are one code path. Each log has its own place in the journal, which
//! commits with its rows; the thread starts before the lowest one and skips what a log has.

mod lane;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_postgres::Client;
use tracing::{error, info, warn};

use super::interpret::{Interpreter, Output};
use super::metrics::Metrics;
use super::streams::{OpenChange, OpenStretch};
use crate::kalshi::session::Resync;
use crate::log::chunk::Chunk;
use crate::log::journal::{Item, Journal, Kind, Position, Reader};
use crate::model::{Channel, Log, Micros, Record};
use crate::ops::crash;
use lane::Lane;

/// Chunks on the way to one appender. While the database is away a log holds these, one that is
/// being filled, and the batch and one chunk more of its appender: of about 1 MiB each with the
/// batch's 8 MiB, 18 MiB a log and 108 MiB for six. Then the decoder waits, and the journal holds
/// what comes.
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
pub type ResyncSenders = Arc<Mutex<HashMap<String, Arc<Resync>>>>;

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
    /// Runs it on a thread of its own, named so that its time can be told from that of others. The
    /// result comes when it ends; a thread that panicked drops the sender.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn spawn(self, places: Places) -> Result<oneshot::Receiver<Result<()>>> {
        let (sender, ended) = oneshot::channel();
        let runtime = Handle::current();
        let run = move || {
            // Nobody waits for it any more when the process is ending already.
            sender.send(self.run(places, &runtime)).ok();
        };
        std::thread::Builder::new()
            .name("decode".to_owned())
            .spawn(run)
            .context("start decoder thread")?;
        Ok(ended)
    }

    /// Reads until the journal's end is reached and said to be the end. Blocking.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn run(self, places: Places, runtime: &Handle) -> Result<()> {
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
                let Some(item) = reader.next()? else {
                    caught_up = true;
                    if reader.position() >= self.live_from {
                        let now = Micros(Micros::now().0 - ARRIVAL_MICROS);
                        interpreter.release(now, &mut output);
                        take_rows(&mut lanes, &mut output);
                    }
                    break;
                };
                let live = match item {
                    Item::Record(position, record) => {
                        // Exactly where the coverage log ends.
                        if position >= coverage_from
                            && let Some(open) = open.take()
                        {
                            interpreter.resume(open);
                        }
                        let live = position >= self.live_from;
                        if live && record.kind == Kind::Frame {
                            self.metrics.frame(record.payload.len());
                        }
                        crash::point("decode-before-parse");
                        interpreter.read(position, &record, &mut output);
                        live
                    }
                    Item::Hole(hole) => {
                        error!(
                            file = %hole.path.display(),
                            from = hole.from.0,
                            to = hole.to.0,
                            bytes = hole.to.0 - hole.from.0,
                            "journal is damaged: what stood there is lost, coverage ends before it"
                        );
                        // Damage behind the coverage log's place ends what is open there.
                        if hole.to > coverage_from
                            && let Some(open) = open.take()
                        {
                            interpreter.resume(open);
                        }
                        let position = hole.from.max(coverage_from.min(hole.to));
                        interpreter.hole(position, &mut output);
                        hole.to >= self.live_from
                    }
                };
                if live {
                    ask_for_snapshots(&interpreter, &mut output, &self.resync);
                    for (_, row) in &output.rows {
                        if let Record::Delta(delta) = row {
                            self.metrics.change(delta);
                        }
                    }
                }
                output.resync.clear();
                let mut large = take_rows(&mut lanes, &mut output);
                if let Some(lane) = lanes.get_mut(&Log::Coverage) {
                    for (position, change) in output.open.drain(..) {
                        lane.keep(position, change);
                    }
                    large |= lane.is_large();
                }
                if large {
                    break;
                }
            }
            if open.is_none() {
                self.metrics.interpreted(&interpreter.counts);
            }
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
                wait_for_more(runtime, &mut written, &self.end);
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
}

/// Asks the sessions for the books that the interpreter doubts.
fn ask_for_snapshots(interpreter: &Interpreter, output: &mut Output, sessions: &ResyncSenders) {
    if output.resync.is_empty() {
        return;
    }
    let sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
    for (session, ticker) in output.resync.drain(..) {
        // A session that ended asks for everything when it connects again.
        let slot = interpreter.slot(session);
        if let Some(resync) = slot.and_then(|slot| sessions.get(slot)) {
            resync.ask(ticker);
        }
    }
}

/// Hands rows to their logs. Returns whether one of them has enough to be sent.
fn take_rows(lanes: &mut BTreeMap<Log, Lane>, output: &mut Output) -> bool {
    let mut large = false;
    for (position, row) in output.rows.drain(..) {
        if let Some(lane) = lanes.get_mut(&row.log()) {
            lane.add(position, &row);
            large |= lane.is_large();
        }
    }
    large
}

/// Waits until the journal has more, the end is known, or a moment has passed.
fn wait_for_more(
    runtime: &Handle,
    written: &mut watch::Receiver<u64>,
    end: &watch::Receiver<Option<Position>>,
) {
    let mut end = end.clone();
    runtime.block_on(async {
        tokio::select! {
            _ = written.changed() => {}
            _ = end.changed() => {}
            () = tokio::time::sleep(POSITION_INTERVAL) => {}
        }
    });
}

#[cfg(test)]
mod tests;
