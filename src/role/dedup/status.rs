//! `kalshi dedup --status`: how far every log of every gatherer is merged, who writes, and what
//! production keeps. Asks the databases alone, so it works whether the deduplicator runs or not, and
//! tells what it can when some of them do not answer.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use super::table::{self, Table};
use super::{Config, GathererTarget, partitions, status_text};
use crate::model::Micros;
use crate::ops::duration;
use crate::ops::exit::chain;
use crate::pg::migrate::{self, Schema, VersionError};
use crate::pg::{self, Class, Options, Target, writer};

/// One database has this long for all its answers.
const PATIENCE: Duration = Duration::from_secs(10);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A log less behind than this is being followed; where the lag stops being healthy.
const FOLLOWING_SECONDS: f64 = 5.0;

/// Everything that was found. Keys are stable; more may come.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Our clock, RFC 3339.
    pub at: String,
    pub production: Place,
    /// None while production does not answer.
    pub writer: Option<Writer>,
    pub gatherers: Vec<Gatherer>,
    pub tables: Vec<Log>,
}

/// A database and whether it answers.
#[derive(Debug, Serialize)]
pub struct Place {
    pub database: String,
    /// `connected`, `refused` (it answers, but not what is asked: rights, password, version) or `away`.
    pub state: &'static str,
    /// Why it is not connected.
    pub error: Option<String>,
}

/// Who may write to production.
#[derive(Debug, Serialize)]
pub struct Writer {
    /// The last that took the lock, also when it has gone.
    pub holder: String,
    pub epoch: i64,
    pub since: Option<String>,
    /// Whether a session holds the lock now.
    pub is_running: bool,
}

#[derive(Debug, Serialize)]
pub struct Gatherer {
    pub gatherer: String,
    #[serde(flatten)]
    pub place: Place,
    pub logs: Vec<Cursor>,
}

/// How far one log of a gatherer is merged.
#[derive(Debug, Serialize)]
pub struct Cursor {
    pub table: &'static str,
    pub log_id: Option<Uuid>,
    /// The last `log_seq` in production; none while production does not answer.
    pub position: Option<i64>,
    /// The log's newest; that of the last sync while the gatherer cannot be asked.
    pub head: Option<i64>,
    /// None while one of the two cannot be asked.
    pub lag_rows: Option<i64>,
    /// Age of the oldest row that waits, by the gatherer's clock; none like `lag_rows`.
    pub lag_seconds: Option<f64>,
    /// When the cursor last moved.
    pub synced_at: Option<String>,
    pub synced_seconds_ago: Option<f64>,
    /// Rows that were not written because the retention had dropped their time.
    pub past_retention: i64,
    /// `in sync`, `following` (less than 5 s behind, which a live log mostly is), `behind`, `never
    /// synced`, `put back` (the log ends before the cursor), `unknown`.
    pub state: &'static str,
}

/// One log of production.
#[derive(Debug, Serialize)]
pub struct Log {
    pub table: &'static str,
    pub head: i64,
    /// How many partitions; none for a plain table.
    pub partitions: Option<usize>,
    pub partitions_from: Option<String>,
    /// The first time that has no partition.
    pub partitions_to: Option<String>,
    /// None is for ever.
    pub retention_seconds: Option<u64>,
    /// Rows before this were dropped.
    pub kept_from: Option<String>,
    pub consumers: Vec<Consumer>,
}

#[derive(Debug, Serialize)]
pub struct Consumer {
    pub name: String,
    pub position: i64,
    pub lag_rows: i64,
}

/// A row of `sync_cursors`.
#[derive(Debug, Clone)]
struct Saved {
    log_id: Uuid,
    position: i64,
    head: i64,
    synced_at: i64,
    past_retention: i64,
}

/// What production says.
#[derive(Debug, Default)]
struct Production {
    writer: Option<Writer>,
    /// By gatherer and table, the one that moved last first.
    cursors: HashMap<(String, String), Vec<Saved>>,
    logs: Vec<Log>,
}

/// A log as its gatherer shows it.
#[derive(Debug, Clone, Copy)]
struct Shown {
    log_id: Uuid,
    head: i64,
}

/// Prints the status on stdout.
///
/// # Errors
/// When a database does not answer, after what the others say was printed; when stdout is closed.
pub async fn status(config: Config, json: bool) -> anyhow::Result<()> {
    use std::io::Write as _;
    let status = look(&config).await;
    let text = if json {
        serde_json::to_string(&status).context("write the status as JSON")?
    } else {
        status_text::text(&status)
    };
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("write to stdout")?,
    }
    let places =
        status.gatherers.iter().map(|gatherer| (gatherer.gatherer.as_str(), &gatherer.place));
    let silent: Vec<String> = std::iter::once(("production", &status.production))
        .chain(places)
        .filter_map(|(name, place)| Some(format!("{name}: {}", place.error.as_ref()?)))
        .collect();
    ensure!(silent.is_empty(), "not everything can be told: {}", silent.join("; "));
    Ok(())
}

/// Asks all databases at once, production first for the gatherers' cursors.
pub async fn look(config: &Config) -> Status {
    let production = within(ask_production(config)).await;
    let (place, production) = match production {
        Ok(found) => (place(&config.production, None), Some(found)),
        Err(error) => (place(&config.production, Some(&error)), None),
    };
    let cursors = production.as_ref().map(|production| &production.cursors);
    let asked = config.gatherers.iter().map(|gatherer| gatherer_status(gatherer, cursors));
    let gatherers = futures_util::future::join_all(asked).await;
    let (writer, tables) =
        production.map_or((None, Vec::new()), |found| (found.writer, found.logs));
    Status { at: Micros::now().to_string(), production: place, writer, gatherers, tables }
}

fn place(target: &Target, error: Option<&anyhow::Error>) -> Place {
    let state = match error {
        None => "connected",
        Some(error) if is_refusal(error) => "refused",
        Some(_) => "away",
    };
    Place { database: target.to_string(), state, error: error.map(chain) }
}

/// Whether it was an answer, if not the one that was wanted.
fn is_refusal(error: &anyhow::Error) -> bool {
    if let Some(version) = error.downcast_ref::<VersionError>() {
        return version.class() != Class::Retry;
    }
    pg::error::classify_chain(error) != Class::Retry
}

async fn within<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", PATIENCE.as_secs()),
    }
}

async fn connect(target: &Target, schema: Schema) -> anyhow::Result<Client> {
    let options = Options {
        statement_timeout: Some(STATEMENT_TIMEOUT),
        read_only: true,
        ..Options::default()
    };
    let client = target.connect_with(options).await?;
    migrate::check(&client, schema).await?;
    Ok(client)
}

async fn ask_production(config: &Config) -> anyhow::Result<Production> {
    let client = connect(&config.production, Schema::Production).await?;
    let holder = writer::find_holder(&client, &config.production).await.context("find writer")?;
    let mut found = Production {
        writer: Some(Writer {
            holder: holder.name,
            epoch: holder.epoch,
            since: holder.since,
            is_running: holder.pid.is_some(),
        }),
        ..Production::default()
    };
    let sql = "SELECT gatherer, table_name, log_id, position, head, past_retention, \
                 (extract(epoch FROM synced_at) * 1e6)::bigint \
               FROM sync_cursors ORDER BY synced_at DESC";
    for row in client.query(sql, &[]).await.context("read cursors")? {
        let saved = Saved {
            log_id: row.try_get(2)?,
            position: row.try_get(3)?,
            head: row.try_get(4)?,
            past_retention: row.try_get(5)?,
            synced_at: row.try_get(6)?,
        };
        found.cursors.entry((row.try_get(0)?, row.try_get(1)?)).or_default().push(saved);
    }
    for table in table::ALL {
        found.logs.push(log_status(&client, config, table).await?);
    }
    Ok(found)
}

async fn log_status(client: &Client, config: &Config, table: &Table) -> anyhow::Result<Log> {
    let name = table.name();
    let sql = "SELECT head, kept_from FROM logs WHERE name = $1";
    let row = client.query_one(sql, &[&name]).await.context("read head")?;
    let (head, kept_from): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let partitions = partitions::list(client, table).await?;
    let sql = "SELECT name, position FROM consumers WHERE table_name = $1 ORDER BY name";
    let mut consumers = Vec::new();
    for row in client.query(sql, &[&name]).await.context("read consumers")? {
        let position: i64 = row.try_get(1)?;
        let lag_rows = head.saturating_sub(position).max(0);
        consumers.push(Consumer { name: row.try_get(0)?, position, lag_rows });
    }
    Ok(Log {
        table: name,
        head,
        partitions: table.partition_micros.map(|_| partitions.len()),
        partitions_from: partitions.first().map(|first| Micros(first.from).to_string()),
        partitions_to: partitions.last().map(|last| Micros(last.to).to_string()),
        retention_seconds: config.retention.of(table.log).map(|kept| kept.as_secs()),
        kept_from: kept_from.map(|time| Micros(time).to_string()),
        consumers,
    })
}

async fn gatherer_status(
    target: &GathererTarget,
    cursors: Option<&HashMap<(String, String), Vec<Saved>>>,
) -> Gatherer {
    let saved = |table: &Table| {
        let key = (target.id.clone(), table.name().to_owned());
        Some(cursors?.get(&key).map_or(&[][..], Vec::as_slice))
    };
    let asked = within(async {
        let client = connect(&target.database, Schema::Gatherer).await?;
        let mut logs = Vec::new();
        for table in table::ALL {
            logs.push(cursor(&client, table, saved(table)).await?);
        }
        Ok(logs)
    })
    .await;
    let (error, logs) = match asked {
        Ok(logs) => (None, logs),
        Err(error) => {
            let logs = table::ALL.iter().map(|table| judge(table, saved(table), None, None));
            (Some(error), logs.collect())
        }
    };
    let place = place(&target.database, error.as_ref());
    Gatherer { gatherer: target.id.clone(), place, logs }
}

async fn cursor(client: &Client, table: &Table, saved: Option<&[Saved]>) -> anyhow::Result<Cursor> {
    let name = table.name();
    let sql = "SELECT log_id, head FROM logs WHERE name = $1";
    let row = client.query_one(sql, &[&name]).await.context("read head")?;
    let shown = Shown { log_id: row.try_get(0)?, head: row.try_get(1)? };
    let known = saved.and_then(|saved| saved.iter().find(|saved| saved.log_id == shown.log_id));
    let position = known.map_or(0, |known| known.position);
    let mut waits_since = None;
    if position < shown.head {
        let clock = table.body.first().map_or("received_at", |column| column.name);
        let sql = format!("SELECT {clock} FROM {name} WHERE log_seq = $1");
        let next = position.saturating_add(1);
        let row = client.query_opt(&sql, &[&next]).await.context("read next row")?;
        waits_since = row.map(|row| row.try_get(0)).transpose()?;
    }
    Ok(judge(table, saved, Some(shown), waits_since))
}

/// Puts together what production and the gatherer say; `waits_since` is the clock of the first row
/// that is not merged.
fn judge(
    table: &Table,
    saved: Option<&[Saved]>,
    shown: Option<Shown>,
    waits_since: Option<i64>,
) -> Cursor {
    let now = Micros::now();
    // Of an away gatherer the log that moved last is the one it had.
    let known = saved.and_then(|saved| match shown {
        Some(shown) => saved.iter().find(|saved| saved.log_id == shown.log_id),
        None => saved.first(),
    });
    let head = shown.map(|shown| shown.head).or(known.map(|known| known.head));
    let position = saved.and(Some(known.map_or(0, |known| known.position)));
    let shown_head = shown.map(|shown| shown.head);
    let lag_rows = shown_head.zip(position).map(|(head, position)| head.saturating_sub(position));
    let seconds = |micros: i64| duration::seconds(now.since(Micros(micros)).max(0));
    let waits_seconds = waits_since.map(seconds);
    let state = match (shown, known, lag_rows) {
        (None, ..) | (_, _, None) => "unknown",
        (Some(_), _, Some(lag)) if lag < 0 => "put back",
        (Some(shown), None, _) if shown.head > 0 => "never synced",
        (Some(_), _, Some(0)) => "in sync",
        (Some(_), _, Some(_)) if waits_seconds.is_some_and(|s| s < FOLLOWING_SECONDS) => {
            "following"
        }
        (Some(_), _, Some(_)) => "behind",
    };
    Cursor {
        table: table.name(),
        log_id: shown.map(|shown| shown.log_id).or(known.map(|known| known.log_id)),
        position,
        head,
        lag_rows: lag_rows.map(|lag| lag.max(0)),
        lag_seconds: match (state, waits_seconds) {
            ("in sync", _) => Some(0.0),
            (_, waits) => waits.filter(|_| saved.is_some()),
        },
        synced_at: known.map(|known| Micros(known.synced_at).to_string()),
        synced_seconds_ago: known.map(|known| seconds(known.synced_at)),
        past_retention: known.map_or(0, |known| known.past_retention),
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::TRADES;
    use super::*;

    fn saved(log_id: u128, position: i64) -> Saved {
        let (log_id, synced_at) = (Uuid::from_u128(log_id), Micros::now().0 - 5_000_000);
        Saved { log_id, position, head: position + 3, synced_at, past_retention: 2 }
    }

    fn shown(log_id: u128, head: i64) -> Option<Shown> {
        Some(Shown { log_id: Uuid::from_u128(log_id), head })
    }

    #[test]
    fn every_state_is_told() {
        let cursors = [saved(2, 10), saved(1, 500)];
        for (saved, shown, waits, state, lag_rows) in [
            (Some(&cursors[..]), shown(2, 10), 1, "in sync", Some(0)),
            (Some(&cursors[..]), shown(2, 17), 1, "following", Some(7)),
            (Some(&cursors[..]), shown(2, 17), 6, "behind", Some(7)),
            (Some(&cursors[..]), shown(2, 9), 1, "put back", Some(0)),
            (Some(&cursors[..]), shown(3, 9), 1, "never synced", Some(9)),
            (Some(&[][..]), shown(3, 0), 1, "in sync", Some(0)),
            (Some(&cursors[..]), None, 1, "unknown", None),
            (None, shown(2, 10), 1, "unknown", None),
        ] {
            let cursor = judge(&TRADES, saved, shown, Some(Micros::now().0 - waits * 1_000_000));
            assert_eq!((cursor.state, cursor.lag_rows), (state, lag_rows), "{shown:?}");
            let lag = cursor.lag_seconds;
            match (state, saved) {
                ("in sync", _) => assert_eq!(lag, Some(0.0)),
                (_, Some(_)) => assert!(lag.is_some_and(|lag| lag > 0.9), "{lag:?}"),
                (_, None) => assert_eq!(lag, None),
            }
        }
    }
}
