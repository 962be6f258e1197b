//! Production's side: what the tables hold, and the transactions that change them. Rows, the versions
//! that they replace and the sync state commit together or not at all, under the writer's fence.
//!
//! Only rows that changed travel: their hashes are compared first.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, Transaction};

use super::kind::{Kind, LAST};
use super::row::Row;
use crate::model::{Micros, identity};
use crate::ops::crash;
use crate::pg::copy::{Rows, copy_in};
use crate::pg::migrate::{self, Schema};
use crate::pg::writer::Fence;
use crate::pg::{Options, Target};

const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The server ends a session of ours that was suspended in a transaction.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// As of the logs: no plan may follow from statistics that a new production does not have yet.
const SETTINGS: &str = "SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET max_parallel_workers_per_gather = 0; SET jit = off";
/// Rows that leave the lists are marked so many at a time.
const MARK_ROWS_MAX: usize = 5_000;

/// How far a table is copied: its row of `market_sync`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Every change up to here is in the table; none before the first complete list.
    pub synced_until: Option<Micros>,
    /// When the last list ended.
    pub synced_at: Option<Micros>,
    /// When the last complete list began.
    pub full_from: Option<Micros>,
    /// Keys in it.
    pub rows_listed: Option<i64>,
    /// Whether another complete list has to confirm it.
    pub to_confirm: bool,
    /// Where a first complete list is to go on.
    pub bookmark: Option<Bookmark>,
}

/// A place in a first complete list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// Which of the lists that together are complete.
    pub part: i16,
    /// The cursor of its next page; none is its beginning.
    pub cursor: Option<String>,
    /// When the whole began.
    pub from: Micros,
    /// Rows of the pages so far.
    pub rows: i64,
}

/// What a transaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub new: u64,
    pub changed: u64,
    /// Of the new ones, those that the exchange had not touched since the time asked about.
    pub old_news: u64,
}

/// One connection to production for the three tables.
#[derive(Debug)]
pub struct Store {
    client: Client,
    fence: Fence,
}

impl Store {
    /// Connects and makes the stages.
    pub async fn open(target: &Target, fence: Fence) -> anyhow::Result<Self> {
        let options = Options {
            statement_timeout: Some(STATEMENT_TIMEOUT),
            idle_in_transaction_timeout: Some(IDLE_IN_TRANSACTION_TIMEOUT),
            ..Options::default()
        };
        let client = target.connect_with(options).await?;
        migrate::check(&client, Schema::Production).await?;
        client.batch_execute(SETTINGS).await.context("set up session")?;
        for kind in Kind::ALL {
            let name = kind.name();
            let sql = format!("CREATE TEMP TABLE stage_{name} (LIKE {name}) ON COMMIT DELETE ROWS");
            client.batch_execute(&sql).await.context("create stage")?;
        }
        Ok(Self { client, fence })
    }

    /// How far a table is copied.
    pub async fn state(&self, kind: Kind) -> anyhow::Result<State> {
        let sql = "SELECT synced_until, synced_at, full_from, rows_listed, to_confirm, part, cursor, \
                   cursor_from, cursor_rows FROM market_sync WHERE table_name = $1";
        let row = self.client.query_one(sql, &[&kind.name()]).await.context("read sync state")?;
        let time = |column: usize| -> Result<Option<Micros>, tokio_postgres::Error> {
            Ok(row.try_get::<_, Option<i64>>(column)?.map(Micros))
        };
        let bookmark = match (row.try_get(5)?, time(7)?) {
            (Some(part), Some(from)) => Some(Bookmark {
                part,
                cursor: row.try_get(6)?,
                from,
                rows: row.try_get::<_, Option<i64>>(8)?.unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(State {
            synced_until: time(0)?,
            synced_at: time(1)?,
            full_from: time(2)?,
            rows_listed: row.try_get(3)?,
            to_confirm: row.try_get(4)?,
            bookmark,
        })
    }

    /// Rows of a table, and those of them that the exchange lists.
    pub async fn count(&self, kind: Kind) -> anyhow::Result<(i64, i64)> {
        let name = kind.name();
        let sql =
            format!("SELECT count(*), count(*) FILTER (WHERE presence = 'listed') FROM {name}");
        let row =
            self.client.query_one(&sql, &[]).await.with_context(|| format!("count {name}"))?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Writes what changed of a page that was received `at`. `known_since` is the time for
    /// [`Written::old_news`]; a bookmark is saved with the rows.
    pub async fn write(
        &mut self,
        kind: Kind,
        rows: &[Row],
        at: Micros,
        known_since: Option<Micros>,
        bookmark: Option<&Bookmark>,
    ) -> anyhow::Result<Written> {
        let name = kind.name();
        let tx = self.client.transaction().await.context("begin")?;
        self.fence.check(&tx).await?;
        let changed = changed(&tx, kind, rows).await?;
        let mut written = Written::default();
        if !changed.is_empty() {
            let mut batch = Rows::new();
            for row in rows.iter().filter(|row| changed.contains(row.key.as_str())) {
                row.encode(&mut batch, "listed", at);
            }
            let staged = batch.rows();
            let sql = format!("COPY stage_{name} FROM STDIN (FORMAT binary)");
            let copied = copy_in(&tx, &sql, batch.finish()).await.context("stage rows")?;
            ensure!(copied == staged, "production took {copied} of {staged} rows of {name}");
            crash::point("markets-before-merge");
            let since = known_since.map_or(i64::MIN, |since| since.0);
            let row = tx.query_one(&merge_sql(kind), &[&since]).await.context("merge rows")?;
            let count = |column: usize| -> anyhow::Result<u64> {
                Ok(u64::try_from(row.try_get::<_, i64>(column)?)?)
            };
            let (all, new, old_news) = (count(0)?, count(1)?, count(2)?);
            written = Written { new, changed: all - new, old_news };
        }
        if let Some(bookmark) = bookmark {
            let Bookmark { part, cursor, from, rows } = bookmark;
            let sql = "UPDATE market_sync SET part = $2, cursor = $3, cursor_from = $4, \
                       cursor_rows = $5 WHERE table_name = $1";
            tx.execute(sql, &[&name, part, cursor, &from.0, rows]).await.context("save cursor")?;
        }
        crash::point("markets-before-commit");
        tx.commit().await.context("commit")?;
        crash::point("markets-after-commit");
        Ok(written)
    }

    /// Forgets the place in a first complete list: the exchange does not know its cursor any more.
    pub async fn forget_bookmark(&mut self, kind: Kind) -> anyhow::Result<()> {
        let tx = self.client.transaction().await.context("begin")?;
        self.fence.check(&tx).await?;
        let sql = "UPDATE market_sync SET part = NULL, cursor = NULL, cursor_from = NULL, \
                   cursor_rows = NULL WHERE table_name = $1";
        tx.execute(sql, &[&kind.name()]).await.context("forget cursor")?;
        tx.commit().await.context("commit")
    }

    /// A list of changes that began at `from` has ended.
    pub async fn changes_ended(&mut self, kind: Kind, from: Micros) -> anyhow::Result<()> {
        let tx = self.client.transaction().await.context("begin")?;
        self.fence.check(&tx).await?;
        let sql = "UPDATE market_sync SET synced_until = greatest(synced_until, $2), synced_at = $3 \
                   WHERE table_name = $1";
        tx.execute(sql, &[&kind.name(), &from.0, &Micros::now().0])
            .await
            .context("save sync state")?;
        tx.commit().await.context("commit")
    }

    /// A complete list that began at `from` and showed `rows` keys has ended. Rows of `gone` are
    /// marked as archived when they were settled before `cutoff`, else as missing.
    pub async fn full_ended(
        &mut self,
        kind: Kind,
        from: Micros,
        rows: i64,
        to_confirm: bool,
        gone: &[String],
        cutoff: Micros,
    ) -> anyhow::Result<u64> {
        let tx = self.client.transaction().await.context("begin")?;
        self.fence.check(&tx).await?;
        let now = Micros::now();
        let mut marked = 0;
        for keys in gone.chunks(MARK_ROWS_MAX) {
            marked +=
                tx.execute(&gone_sql(kind), &[&keys, &now.0, &cutoff.0]).await.context("mark")?;
        }
        let sql = "UPDATE market_sync SET synced_until = greatest(synced_until, $2), synced_at = $3, \
                   full_from = $2, full_ended = $3, rows_listed = $4, to_confirm = $5, part = NULL, \
                   cursor = NULL, cursor_from = NULL, cursor_rows = NULL WHERE table_name = $1";
        tx.execute(sql, &[&kind.name(), &from.0, &now.0, &rows, &to_confirm])
            .await
            .context("save sync state")?;
        tx.commit().await.context("commit")?;
        Ok(marked)
    }

    /// The listed keys whose hash is not among those seen.
    pub async fn unseen(&self, kind: Kind, seen: &HashSet<u64>) -> anyhow::Result<Vec<String>> {
        let (name, key) = (kind.name(), kind.key());
        let sql = format!("SELECT {key} FROM {name} WHERE presence = 'listed'");
        let none: [i64; 0] = [];
        let rows = self.client.query_raw(&sql, none).await.context("read keys")?;
        let mut rows = std::pin::pin!(rows);
        let mut unseen = Vec::new();
        while let Some(row) = rows.try_next().await.context("read keys")? {
            let key: &str = row.try_get(0)?;
            if !seen.contains(&key_hash(key)) {
                unseen.push(key.to_owned());
            }
        }
        Ok(unseen)
    }

    /// Listed markets whose time to open or to close has passed since they were read, the latest
    /// first: the exchange may not count that as a change.
    pub async fn overdue(&self, now: Micros, limit: i64) -> anyhow::Result<Vec<String>> {
        let sql = "SELECT ticker FROM ( \
                SELECT ticker, close_ts AS due FROM markets WHERE status = 'open' \
                    AND presence = 'listed' AND close_ts <= $1 AND valid_from <= close_ts \
                UNION ALL \
                SELECT ticker, open_ts AS due FROM markets WHERE status = 'unopened' \
                    AND presence = 'listed' AND open_ts <= $1 AND valid_from <= open_ts \
            ) late ORDER BY due DESC LIMIT $2";
        let rows = self.client.query(sql, &[&now.0, &limit]).await.context("find overdue")?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// A key as it is remembered while a complete list is read. Two keys of one hash would only hide that
/// one of them left the list.
pub fn key_hash(key: &str) -> u64 {
    identity::text_content(key).cast_unsigned()
}

/// The keys of rows that the table does not have as they are.
async fn changed(
    tx: &Transaction<'_>,
    kind: Kind,
    rows: &[Row],
) -> anyhow::Result<HashSet<String>> {
    let (name, key) = (kind.name(), kind.key());
    let sql = format!(
        "SELECT u.key FROM unnest($1::text[], $2::bigint[]) u (key, hash) \
         LEFT JOIN {name} t ON t.{key} = u.key \
         WHERE t.{key} IS NULL OR t.content_hash <> u.hash OR t.presence <> 'listed'"
    );
    let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let hashes: Vec<i64> = rows.iter().map(|row| row.hash).collect();
    let found = tx.query(&sql, &[&keys, &hashes]).await.context("compare rows")?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Takes the stage over: what it replaces goes into the past with the time at which it was replaced,
/// which is the new version's `valid_from`. A clock that was set back makes no empty or negative
/// stretch.
fn merge_sql(kind: Kind) -> String {
    let (name, key) = (kind.name(), kind.key());
    let set: Vec<String> = kind
        .columns()
        .iter()
        .map(|column| column.name)
        .chain(LAST)
        .filter(|column| *column != "valid_from")
        .map(|column| format!("{column} = EXCLUDED.{column}"))
        .collect();
    format!(
        "WITH past AS ( \
            INSERT INTO {name}_past SELECT t.*, greatest(s.valid_from, t.valid_from + 1) \
            FROM stage_{name} s JOIN {name} t ON t.{key} = s.{key} \
         ), put AS ( \
            INSERT INTO {name} SELECT * FROM stage_{name} ON CONFLICT ({key}) DO UPDATE SET {set}, \
            valid_from = greatest(EXCLUDED.valid_from, {name}.valid_from + 1) \
            RETURNING xmax = 0 AS is_new, updated_ts \
         ) SELECT count(*), count(*) FILTER (WHERE is_new), \
            count(*) FILTER (WHERE is_new AND coalesce(updated_ts, 0) < $1) FROM put",
        set = set.join(", ")
    )
}

/// Marks rows that left the lists.
fn gone_sql(kind: Kind) -> String {
    let (name, key) = (kind.name(), kind.key());
    let presence = match kind {
        Kind::Markets => {
            "CASE WHEN status = 'settled' AND coalesce(settlement_ts, close_ts) < $3 \
             THEN 'archived' ELSE 'missing' END"
        }
        // The exchange keeps series and events in its lists; the comparison only types $3.
        Kind::Series | Kind::Events => "CASE WHEN $3::bigint IS NULL THEN '' ELSE 'missing' END",
    };
    format!(
        "WITH gone AS ( \
            SELECT t.* FROM unnest($1::text[]) k (key) JOIN {name} t ON t.{key} = k.key \
            WHERE t.presence = 'listed' \
         ), past AS ( \
            INSERT INTO {name}_past SELECT g.*, greatest($2, g.valid_from + 1) FROM gone g \
         ) UPDATE {name} SET presence = {presence}, valid_from = greatest($2, valid_from + 1) \
         WHERE {key} IN (SELECT {key} FROM gone)"
    )
}
