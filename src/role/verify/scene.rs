//! What all checks look at: where the databases are, how far each gatherer is, which markets and which
//! time are asked for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use super::ranges::Range;
use super::{Config, Options};
use crate::model::{Log, Micros};
use crate::ops::exit::chain;
use crate::pg::migrate::{self, Schema};
use crate::pg::{self, Target};

/// A gatherer that does not answer within this is told of as away.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a stretch that is still open proves ends this long before the newest row of its gatherer: a
/// dead subscription is noticed within half of it.
const UNPROVED_MICROS: i64 = 60_000_000;
/// A gatherer's own writing is this far behind its clock at most, when nothing is wrong.
pub const SETTLING_MICROS: i64 = 10_000_000;
/// Long queries stand on indexes whose order is asked for: a sort of a day's changes would fill disks.
/// Plans are never parallel: the work is divided here.
const ORDERED: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; \
     SET jit = off; SET max_parallel_workers_per_gather = 0";
const GROUPED: &str = "SET jit = off; SET max_parallel_workers_per_gather = 0";

/// The order in which a session is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plans {
    /// Along an index.
    Ordered,
    /// As the server likes.
    Free,
}

/// One log of a gatherer beside what production has of it.
#[derive(Debug, Clone)]
pub struct LogState {
    pub log_id: Uuid,
    pub head: i64,
    pub kept_from: i64,
    /// Production's cursor; none when there is none.
    pub position: Option<i64>,
    /// The gatherer's clock at the first row that is not merged.
    pub waits_since: Option<i64>,
    /// The gatherer's clock at the log's newest row, and how much of the journal is in it.
    pub newest: Option<i64>,
    pub journal_position: i64,
}

/// What a gatherer that answers says.
#[derive(Debug, Clone)]
pub struct Standing {
    pub logs: HashMap<Log, LogState>,
    /// Its clock at its newest row, of any log; none when it has no row.
    pub newest: Option<i64>,
    /// When these were asked for.
    pub asked_at: i64,
    /// Consumers that it keeps rows for: name, table, position.
    pub consumers: Vec<(String, String, i64)>,
    /// First beginning of a stretch that is open.
    pub open_from: Option<i64>,
}

impl Standing {
    /// Up to which time of its clock an open stretch is known to go on.
    pub fn open_until(&self) -> i64 {
        self.newest.map_or(i64::MIN, |newest| newest - UNPROVED_MICROS)
    }

    /// Up to which time of its clock production has all rows of a log. A log whose place in the journal
    /// is behind that of another lacks what the other may have already.
    pub fn merged_until(&self, log: Log) -> i64 {
        let furthest = self.logs.values().map(|state| state.journal_position).max();
        match self.logs.get(&log) {
            Some(LogState { waits_since: Some(clock), .. }) => clock - 1,
            Some(state) if Some(state.journal_position) < furthest => {
                state.newest.unwrap_or(i64::MIN)
            }
            _ => self.asked_at - SETTLING_MICROS,
        }
    }
}

/// A configured gatherer.
#[derive(Debug, Clone)]
pub struct Watched {
    pub id: String,
    pub target: Target,
    /// Its number in production; none when it has brought nothing yet.
    pub number: Option<i16>,
    /// What it says, or why it says nothing.
    pub standing: Result<Standing, String>,
}

/// All that a check needs to know before it begins.
#[derive(Debug)]
pub struct Scene {
    pub production: Target,
    pub gatherers: Vec<Watched>,
    /// Names by production's numbers.
    pub names: BTreeMap<i16, String>,
    /// Markets asked for; empty for all.
    pub markets: Vec<Range>,
    pub channel: Option<String>,
    /// Asked for, microseconds.
    pub since: i64,
    pub until: i64,
    pub now: i64,
    pub min_duration: i64,
    pub jobs: usize,
    pub options: Options,
    pub config: Config,
    /// When the first connection was opened whose rows are here; none when nothing is recorded.
    pub recorded_from: Option<i64>,
    pub kept_from: HashMap<String, i64>,
}

impl Scene {
    /// Asks production and every gatherer.
    ///
    /// # Errors
    /// When production does not answer; a gatherer that does not is noted in its place.
    pub async fn look(config: Config, options: Options) -> anyhow::Result<Self> {
        let now = Micros::now().0;
        // Gatherers first: what production is then said to lack it cannot have had yet.
        let asked = config.gatherers.iter().map(|gatherer| ask(&gatherer.database));
        let answers = futures_util::future::join_all(asked).await;
        let client = connect(&config.production, Schema::Production, Plans::Free).await?;
        let names = read_names(&client).await?;
        let positions = read_positions(&client).await?;
        let mut kept_from = HashMap::new();
        let sql = "SELECT name, kept_from FROM logs WHERE kept_from IS NOT NULL";
        for row in client.query(sql, &[]).await.context("read kept_from")? {
            kept_from.insert(row.try_get(0)?, row.try_get(1)?);
        }
        let sql = "SELECT min(session_id) FROM (SELECT session_id FROM coverage ORDER BY log_seq \
                   LIMIT 10000) AS first";
        let row = client.query_one(sql, &[]).await.context("read first coverage")?;
        let first: Option<i64> = row.try_get(0)?;
        let mut gatherers = Vec::new();
        for (gatherer, answer) in config.gatherers.iter().zip(answers) {
            let number = names.iter().find(|(_, name)| **name == gatherer.id).map(|(n, _)| *n);
            let standing = match answer {
                Ok((client, standing)) => {
                    let known = positions.get(&gatherer.id);
                    complete(&client, standing, known).await.map_err(|error| chain(&error))
                }
                Err(error) => Err(chain(&error)),
            };
            let (id, target) = (gatherer.id.clone(), gatherer.database.clone());
            gatherers.push(Watched { id, target, number, standing });
        }
        let open = gatherers.iter().filter_map(|g| g.standing.as_ref().ok()?.open_from).min();
        let recorded_from = first.into_iter().chain(open).min();
        let markets = options.ranges();
        Ok(Self {
            production: config.production.clone(),
            gatherers,
            names,
            markets,
            channel: options.channel.clone(),
            since: options.since,
            until: options.until.unwrap_or(now).min(now),
            now,
            min_duration: options.min_duration,
            jobs: options.jobs,
            recorded_from,
            kept_from,
            options,
            config,
        })
    }

    /// A session with production that can change nothing.
    ///
    /// # Errors
    /// When production does not answer, or has another schema.
    pub async fn session(&self, plans: Plans) -> anyhow::Result<Client> {
        connect(&self.production, Schema::Production, plans).await
    }

    /// Gatherers that did not answer, in words.
    pub fn away(&self) -> Vec<String> {
        let away = self.gatherers.iter().filter_map(|gatherer| {
            let why = gatherer.standing.as_ref().err()?;
            Some(format!("{} was not asked: {why}", gatherer.id))
        });
        away.collect()
    }

    /// Up to which time of the gatherers' clocks production has every row of a log that the gatherer that
    /// is furthest has.
    pub fn merged_until(&self, log: Log) -> i64 {
        let standings = self.gatherers.iter().filter_map(|g| g.standing.as_ref().ok());
        let until = standings.map(|standing| standing.merged_until(log)).max();
        until.unwrap_or(self.now - SETTLING_MICROS)
    }

    /// A gatherer's name by production's number.
    pub fn name(&self, number: i16) -> String {
        self.names.get(&number).cloned().unwrap_or_else(|| format!("gatherer number {number}"))
    }
}

/// A read-only session with a database of the right schema.
///
/// # Errors
/// When it does not answer, refuses us, or has another schema.
pub async fn connect(target: &Target, schema: Schema, plans: Plans) -> anyhow::Result<Client> {
    let options = pg::Options { read_only: true, ..pg::Options::default() };
    let client = target.connect_with(options).await?;
    migrate::check(&client, schema).await?;
    let settings = if plans == Plans::Ordered { ORDERED } else { GROUPED };
    client.batch_execute(settings).await.context("set up session")?;
    Ok(client)
}

async fn read_names(client: &Client) -> anyhow::Result<BTreeMap<i16, String>> {
    let rows = client.query("SELECT gatherer_id, name FROM gatherers", &[]).await;
    let rows = rows.context("read gatherers")?;
    let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(pair).collect()
}

/// Production's cursors, by gatherer: table, log, position.
type Positions = HashMap<String, Vec<(String, Uuid, i64)>>;

async fn read_positions(client: &Client) -> anyhow::Result<Positions> {
    let sql = "SELECT gatherer, table_name, log_id, position FROM sync_cursors";
    let mut positions = Positions::new();
    for row in client.query(sql, &[]).await.context("read cursors")? {
        let of = positions.entry(row.try_get(0)?).or_default();
        of.push((row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    }
    Ok(positions)
}

async fn ask(target: &Target) -> anyhow::Result<(Client, Standing)> {
    match timeout(PATIENCE, look_at(target)).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", PATIENCE.as_secs()),
    }
}

async fn look_at(target: &Target) -> anyhow::Result<(Client, Standing)> {
    let client = connect(target, Schema::Gatherer, Plans::Free).await?;
    let mut standing = Standing {
        logs: HashMap::new(),
        newest: None,
        asked_at: Micros::now().0,
        consumers: Vec::new(),
        open_from: None,
    };
    // Consumers before heads and before production's cursors: each of these is ahead of the one before.
    let sql = "SELECT name, table_name, position FROM consumers";
    for row in client.query(sql, &[]).await.context("read consumers")? {
        standing.consumers.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    let row = client.query_one("SELECT min(covered_from) FROM coverage_open", &[]).await;
    standing.open_from = row.context("read open stretches")?.try_get(0)?;
    let sql = "SELECT name, log_id, head, kept_from, journal_position FROM logs";
    for row in client.query(sql, &[]).await.context("read heads")? {
        let name: String = row.try_get(0)?;
        let Some(log) = Log::from_name(&name) else { continue };
        let (log_id, head, kept_from) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let newest = clock_at(&client, log, head).await?;
        let state = LogState {
            log_id,
            head,
            kept_from,
            position: None,
            waits_since: None,
            newest,
            journal_position: row.try_get(4)?,
        };
        standing.newest = standing.newest.max(newest);
        standing.logs.insert(log, state);
    }
    Ok((client, standing))
}

/// What the standing lacks until production's cursors are known.
async fn complete(
    client: &Client,
    mut standing: Standing,
    known: Option<&Vec<(String, Uuid, i64)>>,
) -> anyhow::Result<Standing> {
    for (log, state) in &mut standing.logs {
        let mut cursors = known.into_iter().flatten();
        let own = cursors.find(|(table, id, _)| table == log.name() && *id == state.log_id);
        state.position = own.map(|(_, _, position)| *position);
        let next = state.position.unwrap_or(0).max(state.kept_from - 1) + 1;
        if next <= state.head {
            let clock = clock_at(client, *log, next).await?;
            // A row that is missing waits since ever.
            state.waits_since = Some(clock.unwrap_or(i64::MIN + 1));
        }
    }
    Ok(standing)
}

/// The column with the gatherer's clock.
pub const fn clock_column(log: Log) -> &'static str {
    match log {
        Log::Coverage => "covered_to",
        _ => "received_at",
    }
}

/// The gatherer's clock at a row of its log; none when there is no such row.
pub async fn clock_at(client: &Client, log: Log, log_seq: i64) -> anyhow::Result<Option<i64>> {
    let sql = format!("SELECT {} FROM {log} WHERE log_seq = $1", clock_column(log));
    let row = client.query_opt(&sql, &[&log_seq]).await;
    let row = row.with_context(|| format!("read row {log_seq} of {log}"))?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
