//! What the archive says about itself, and under which names.
//!
//! ```text
//! v1/archive.json                                   whose archive this is
//! v1/<table>/dt=<day>/part-<log>-<after>-<through>.parquet
//! v1/<table>/dt=2021-01-01/part-empty.parquet       no row: the columns, for readers of the folder
//! v1/<table>/_spans/<log>-<after>.plan.json         which span is being archived
//! v1/<table>/_spans/<log>-<after>.done.json         which parts hold it
//! v1/<table>/_manifest/dt=<day>/<version>.json      all parts of a day; the last version counts
//! v1/symlink/<table>/dt=<day>/files.txt             the same as a list of addresses, for engines
//! v1/compact/<table>/dt=<day>/part-...-<version>.parquet
//! ```
//!
//! All but the lists are written once. A span is decided before anything of it is written, so whoever
//! repeats it writes the same names; with `done` it is in the archive, and manifests and lists follow
//! from it. The parts in `v1/<table>/dt=*` hold every row exactly once, for readers that list a
//! folder; manifests also know the large parts that were made of small ones.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::store::Store;
use super::table::Table;

/// The version of everything in this file.
pub const FORMAT: u32 = 1;

/// Whose archive it is: rows of two productions must not mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    pub format: u32,
    pub made_at: String,
    pub made_by: String,
    pub logs: BTreeMap<String, Beginning>,
}

/// A log when its archive began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    pub log_id: Uuid,
    pub head: i64,
    /// The retention had dropped rows before this time, in microseconds: of the rows up to `head`
    /// some may be missing, and how many is said with each span.
    pub kept_from: Option<i64>,
}

/// A span that is being archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub format: u32,
    pub table: String,
    pub log_id: Uuid,
    pub after: i64,
    pub through: i64,
    pub planned_at: String,
    pub planned_by: String,
}

/// Rows of one span, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub after: i64,
    pub through: i64,
    /// Rows of the span that are here.
    pub rows: u64,
}

/// A Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its day, as `2026-08-05`.
    pub dt: String,
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// Empty in a table that is no log.
    pub pieces: Vec<Piece>,
    /// Of the versions in it, for a table that is no log: their hashes added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// A span that is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub format: u32,
    pub table: String,
    pub log_id: Uuid,
    pub after: i64,
    pub through: i64,
    /// Rows that the retention had dropped before the archive began.
    pub missing: u64,
    pub parts: Vec<Part>,
}

/// All parts of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub table: String,
    pub dt: String,
    pub version: u64,
    pub made_at: String,
    pub made_by: String,
    pub rows: u64,
    pub bytes: u64,
    pub parts: Vec<Part>,
}

/// The first eight digits of a log's identity: enough to tell a few logs apart.
fn short(log_id: Uuid) -> String {
    let mut text = log_id.simple().to_string();
    text.truncate(8);
    text
}

pub const ARCHIVE: &str = "v1/archive.json";

pub fn spans_folder(table: &Table) -> String {
    format!("v1/{}/_spans", table.name)
}

pub fn plan_path(table: &Table, log_id: Uuid, after: i64) -> String {
    format!("{}/{}-{after:020}.plan.json", spans_folder(table), short(log_id))
}

pub fn done_path(table: &Table, log_id: Uuid, after: i64) -> String {
    format!("{}/{}-{after:020}.done.json", spans_folder(table), short(log_id))
}

pub fn part_path(plan: &Plan, dt: &str) -> String {
    let Plan { table, log_id, after, through, .. } = plan;
    format!("v1/{table}/dt={dt}/part-{}-{after:020}-{through:020}.parquet", short(*log_id))
}

/// In a day before the exchange opened, so that it is in nobody's way.
pub fn empty_path(table: &Table) -> String {
    format!("v1/{}/dt=2021-01-01/part-empty.parquet", table.name)
}

pub fn manifests_folder(table: &Table) -> String {
    format!("v1/{}/_manifest", table.name)
}

fn manifest_path(table: &Table, dt: &str, version: u64) -> String {
    format!("{}/dt={dt}/{version:08}.json", manifests_folder(table))
}

pub fn list_path(table: &Table, dt: &str) -> String {
    format!("v1/symlink/{}/dt={dt}/files.txt", table.name)
}

/// The clock and the program, as objects say who made them.
pub fn made() -> (String, String) {
    (crate::model::Micros::now().to_string(), format!("kalshi {}", crate::ops::VERSION))
}

/// An object as its value.
///
/// # Errors
/// Also when it cannot be understood, or is of another format.
pub async fn read<T: DeserializeOwned>(store: &Store, path: &str) -> anyhow::Result<Option<T>> {
    let Some(bytes) = store.read(path).await? else { return Ok(None) };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).with_context(|| format!("understand {path}"))?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    anyhow::ensure!(
        format == Some(u64::from(FORMAT)),
        "{path} has format {format:?}, this program knows {FORMAT}"
    );
    Ok(Some(serde_json::from_value(value).with_context(|| format!("understand {path}"))?))
}

/// A value as an object.
pub fn bytes(value: &impl Serialize) -> anyhow::Result<Bytes> {
    let mut text = serde_json::to_vec_pretty(value).context("write JSON")?;
    text.push(b'\n');
    Ok(text.into())
}

/// The paths of the last manifests of all days, by day.
pub async fn latest_paths(
    store: &Store,
    table: &Table,
) -> anyhow::Result<BTreeMap<String, String>> {
    let folder = manifests_folder(table);
    let mut latest = BTreeMap::new();
    for listed in store.list(&folder).await? {
        let day = listed.path.get(folder.len()..).and_then(|rest| rest.strip_prefix("/dt="));
        let day = day.and_then(|rest| rest.split_once('/'));
        if let Some((day, name)) = day
            && is_version(name)
        {
            // The listing is in order, so the last version stays.
            latest.insert(day.to_owned(), listed.path.clone());
        }
    }
    Ok(latest)
}

fn is_version(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

/// The last manifest of a day; none when the day has none.
pub async fn latest(store: &Store, table: &Table, dt: &str) -> anyhow::Result<Option<Manifest>> {
    let folder = format!("{}/dt={dt}", manifests_folder(table));
    let listed = store.list(&folder).await?;
    let last =
        listed.iter().rev().find(|listed| listed.path.rsplit('/').next().is_some_and(is_version));
    let Some(last) = last else { return Ok(None) };
    read(store, &last.path).await
}

impl Manifest {
    /// The next version of a day, with other parts.
    fn next(last: Option<&Self>, table: &Table, dt: &str, parts: Vec<Part>) -> Self {
        let (made_at, made_by) = made();
        Self {
            format: FORMAT,
            table: table.name.to_owned(),
            dt: dt.to_owned(),
            version: last.map_or(1, |last| last.version + 1),
            made_at,
            made_by,
            rows: parts.iter().map(|part| part.rows).sum(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            parts,
        }
    }

    /// Whether every row of a part is in it, whichever part has them now.
    pub fn has(&self, part: &Part) -> bool {
        if part.pieces.is_empty() {
            return self.parts.iter().any(|known| known.sha256 == part.sha256);
        }
        part.pieces.iter().all(|piece| {
            self.parts.iter().flat_map(|known| &known.pieces).any(|known| known == piece)
        })
    }

    /// What the list for engines says.
    pub fn list(&self, store: &Store) -> String {
        self.parts.iter().map(|part| store.url(&part.path) + "\n").collect()
    }
}

/// Makes a new version of a day's manifest, by the change that `change` makes to the parts of the last
/// one, and the list beside it. Whoever else writes one at the same time goes first or after, never
/// over it. Without a change only the list is looked after.
pub async fn revise(
    store: &Store,
    table: &Table,
    dt: &str,
    change: impl Fn(Option<&Manifest>) -> Option<Vec<Part>>,
) -> anyhow::Result<()> {
    /// Each time somebody else was faster; there is no more than one at all but for a moment.
    const ATTEMPTS_MAX: u32 = 20;
    for _ in 0..ATTEMPTS_MAX {
        let last = latest(store, table, dt).await?;
        let Some(parts) = change(last.as_ref()) else {
            if let Some(last) = last {
                publish(store, table, &last).await?;
            }
            return Ok(());
        };
        let next = Manifest::next(last.as_ref(), table, dt, parts);
        let path = manifest_path(table, dt, next.version);
        if store.create(&path, bytes(&next)?).await? {
            crate::ops::crash::point("archive.manifested");
            return publish(store, table, &next).await;
        }
    }
    anyhow::bail!(
        "the manifest of {} {dt} changes all the time: is a second archiver at work?",
        table.name
    )
}

/// Writes the list of a day, unless it is right already.
async fn publish(store: &Store, table: &Table, manifest: &Manifest) -> anyhow::Result<()> {
    let path = list_path(table, &manifest.dt);
    let text = manifest.list(store);
    if store.read(&path).await?.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    store.replace(&path, text).await?;
    crate::ops::crash::point("archive.listed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::Place;
    use super::*;

    fn part(dt: &str, after: i64, through: i64) -> Part {
        Part {
            dt: dt.to_owned(),
            path: format!("v1/trades/dt={dt}/part-{after}-{through}.parquet"),
            rows: 5,
            bytes: 10,
            sha256: format!("{after}-{through}"),
            pieces: vec![Piece { after, through, rows: 5 }],
            fingerprint: None,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Place::Directory(directory.path().to_owned())).unwrap();
        (directory, store)
    }

    #[tokio::test]
    async fn versions_follow_each_other_and_none_is_lost_between_two_writers() {
        let (_directory, store) = store();
        let table = Table::named("trades").unwrap();
        let dt = "2026-08-05";
        let add = async |new: Part| {
            revise(&store, table, dt, |last| {
                let mut parts = last.map(|last| last.parts.clone()).unwrap_or_default();
                (!last.is_some_and(|last| last.has(&new))).then(|| {
                    parts.push(new.clone());
                    parts
                })
            })
            .await
            .unwrap();
        };
        futures_util::future::join_all((0..8).map(|n| add(part(dt, n * 10, n * 10 + 10)))).await;
        add(part(dt, 0, 10)).await;
        let last = latest(&store, table, dt).await.unwrap().unwrap();
        assert_eq!((last.version, last.rows, last.parts.len()), (8, 40, 8));
        let list = store.read(&list_path(table, dt)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&list).lines().count(), 8);
        let days = latest_paths(&store, table).await.unwrap();
        assert!(days[dt].ends_with("/00000008.json"), "{days:?}");
    }

    #[tokio::test]
    async fn what_is_of_another_format_is_not_guessed_at() {
        let (_directory, store) = store();
        store.replace("v1/x.json", "{\"format\": 2}").await.unwrap();
        let error = read::<Plan>(&store, "v1/x.json").await.unwrap_err();
        assert!(error.to_string().contains("format Some(2)"), "{error}");
        assert_eq!(read::<Plan>(&store, "v1/y.json").await.unwrap(), None);
    }
}
