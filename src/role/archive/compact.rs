//! Small parts of past days into large ones. The small ones stay where they are, for readers that list
//! folders; the manifest names the large one instead of them, from one version to the next, so that
//! whoever reads by manifests sees the rows once at any moment.
//!
//! Parts are sorted, so they are merged: in memory is a batch of each, whatever their size.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, ensure};
use arrow_array::{Array as _, RecordBatch};
use arrow_select::concat::concat_batches;
use aws_lc_rs::digest;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::manifest::{self, Archive, Manifest, Part};
use super::rows::{DAY, day_name};
use super::span::Work;
use super::store::Store;
use super::table::Table;
use super::{Config, part, read};
use crate::model::Micros;
use crate::ops::crash;

/// Parts below this are small.
const SMALL_BYTES: u64 = 128 * 1024 * 1024;
/// What small ones are made into, at most.
const LARGE_BYTES: u64 = 512 * 1024 * 1024;
/// Of one merge: each takes a file and a batch.
const SOURCES_MAX: usize = 100;
const BATCH_ROWS: usize = 8 * 1024;
/// Rows that are handed to the writer at once.
const WRITE_ROWS: usize = 64 * 1024;
/// A day is past so long after its end: most of what comes late has come.
const GRACE: i64 = 2 * 3_600_000_000;

/// Makes larger parts of the small ones of all past days, once.
///
/// # Errors
/// When the archive is not there, or does not hold what its manifests say.
pub async fn run(config: &Config) -> anyhow::Result<u64> {
    let store = Store::open(&config.place)?;
    let found = manifest::read::<Archive>(&store, manifest::ARCHIVE).await?;
    ensure!(found.is_some(), "there is no archive at {}", store.root());
    let mut made = 0;
    for table in super::table::ALL {
        made += days(&store, table, Micros::now(), config.compression_level).await?;
    }
    Ok(made)
}

/// The same for one table, by the archiver.
pub async fn past_days(work: &Work<'_>, table: &'static Table, now: Micros) -> anyhow::Result<u64> {
    days(work.store, table, now, work.level).await
}

/// How many small parts were made into larger ones.
pub async fn days(
    store: &Store,
    table: &'static Table,
    now: Micros,
    level: i32,
) -> anyhow::Result<u64> {
    // Versions are written as whole days anyway.
    if table.log().is_none() {
        return Ok(0);
    }
    let today = day_name((now.0 - GRACE).div_euclid(DAY));
    let mut made = 0;
    for (dt, path) in manifest::latest_paths(store, table).await? {
        // Days are in the order of their names.
        if dt >= today {
            break;
        }
        let Some(day) = manifest::read::<Manifest>(store, &path).await? else { continue };
        for group in groups(&day) {
            made += u64::try_from(group.len()).unwrap_or_default();
            merge_group(store, table, &day, group, level).await?;
        }
    }
    Ok(made)
}

/// Which small parts of a day become one.
fn groups(day: &Manifest) -> Vec<Vec<Part>> {
    let mut groups: Vec<Vec<Part>> = Vec::new();
    let mut bytes = 0;
    for part in day.parts.iter().filter(|part| part.bytes < SMALL_BYTES) {
        match groups.last_mut() {
            Some(last) if bytes + part.bytes <= LARGE_BYTES && last.len() < SOURCES_MAX => {
                bytes += part.bytes;
                last.push(part.clone());
            }
            _ => {
                bytes = part.bytes;
                groups.push(vec![part.clone()]);
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

async fn merge_group(
    store: &Store,
    table: &'static Table,
    day: &Manifest,
    group: Vec<Part>,
    level: i32,
) -> anyhow::Result<()> {
    let mut files = Vec::with_capacity(group.len());
    for part in &group {
        let file = read::fetch(store, part).await?;
        files.push(file.map_err(|damage| anyhow::anyhow!("{} {damage}", part.path))?);
    }
    let rows: u64 = group.iter().map(|part| part.rows).sum();
    let merged = tokio::task::spawn_blocking(move || merge(table, files, level));
    let merged = merged.await.context("merge parts")??;
    ensure!(
        merged.rows == rows,
        "{} of {} gave {} rows, not {rows}",
        table.name,
        day.dt,
        merged.rows
    );
    let pieces: Vec<_> = group.iter().flat_map(|part| part.pieces.clone()).collect();
    let after = pieces.iter().map(|piece| piece.after).min().unwrap_or_default();
    let through = pieces.iter().map(|piece| piece.through).max().unwrap_or_default();
    let made = Part {
        dt: day.dt.clone(),
        // The hash in the name, so that whoever else merges the same parts writes the same object.
        path: format!(
            "v1/compact/{}/dt={}/part-{after:020}-{through:020}-{}.parquet",
            table.name,
            day.dt,
            merged.sha256.get(..8).unwrap_or_default()
        ),
        rows,
        bytes: merged.bytes,
        sha256: merged.sha256,
        pieces,
        fingerprint: None,
    };
    store.upload(&made.path, merged.file).await?;
    if let Err(damage) = read::fetch(store, &made).await? {
        anyhow::bail!("{} {damage}, just after it was uploaded", made.path);
    }
    crash::point("archive.compacted");
    manifest::revise(store, table, &day.dt, |last| {
        let last = last?;
        // Somebody else may have merged them meanwhile.
        let all = group.iter().all(|small| last.parts.iter().any(|p| p.path == small.path));
        all.then(|| {
            let mut parts = last.parts.clone();
            parts.retain(|part| group.iter().all(|small| small.path != part.path));
            parts.insert(0, made.clone());
            parts
        })
    })
    .await?;
    tracing::info!(
        table = table.name,
        dt = day.dt,
        rows,
        parts = group.len(),
        "made a larger part"
    );
    Ok(())
}

struct Merged {
    file: File,
    rows: u64,
    bytes: u64,
    sha256: String,
}

/// What rows are sorted by.
type Key<'a> = (&'a str, i64, i64);
type OwnedKey = (String, i64, i64);

/// A part that is being read.
struct Source {
    table: &'static Table,
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    times: Vec<i64>,
    seqs: Vec<i64>,
    at: usize,
}

impl Source {
    /// None when it has no row.
    fn open(table: &'static Table, file: File) -> anyhow::Result<Option<Self>> {
        let reader = read::batches(table, file, BATCH_ROWS)?;
        let batch = RecordBatch::new_empty(table.plain_schema());
        let mut source = Self { table, reader, batch, times: Vec::new(), seqs: Vec::new(), at: 0 };
        Ok(source.refill()?.then_some(source))
    }

    /// Reads the next batch; false when there is none.
    fn refill(&mut self) -> anyhow::Result<bool> {
        loop {
            let Some(batch) = self.reader.next() else { return Ok(false) };
            self.batch = batch.context("read Parquet")?;
            if self.batch.num_rows() > 0 {
                break;
            }
        }
        self.times = read::times(self.table, &self.batch)?;
        let seqs = read::longs(&self.batch, "log_seq")?;
        self.seqs = seqs.into_iter().map(Option::unwrap_or_default).collect();
        self.at = 0;
        Ok(true)
    }

    fn key(&self, at: usize) -> Option<Key<'_>> {
        let keys = read::texts(&self.batch, self.table.key).ok()?;
        (at < keys.len()).then(|| {
            let number = |of: &[i64]| of.get(at).copied().unwrap_or_default();
            (keys.value(at), number(&self.times), number(&self.seqs))
        })
    }

    /// How many rows from here on come before another's first.
    fn run(&self, other: Option<&OwnedKey>) -> usize {
        let rest = self.batch.num_rows() - self.at;
        let Some((key, time, seq)) = other else { return rest };
        let other = (key.as_str(), *time, *seq);
        let (mut low, mut high) = (1, rest);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(self.at + middle).is_some_and(|key| key < other) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn owned(key: Key<'_>) -> OwnedKey {
    (key.0.to_owned(), key.1, key.2)
}

/// Merges sorted parts into one.
fn merge(table: &'static Table, files: Vec<File>, level: i32) -> anyhow::Result<Merged> {
    let mut sources = Vec::new();
    for file in files {
        sources.extend(Source::open(table, file)?);
    }
    let schema = table.plain_schema();
    let mut file = tempfile::tempfile().context("make a temporary file")?;
    let to = file.try_clone().context("share a temporary file")?;
    // As many keys as there may be; a filter is at most as large as 2^17 of them ask for.
    let mut writer = part::writer(table, schema.clone(), level, 1 << 17, to)?;
    let mut heap: BinaryHeap<Reverse<(OwnedKey, usize)>> = BinaryHeap::new();
    for (number, source) in sources.iter().enumerate() {
        heap.extend(source.key(0).map(|key| Reverse((owned(key), number))));
    }
    let (mut pieces, mut held, mut rows) = (Vec::new(), 0, 0_u64);
    while let Some(Reverse((_, number))) = heap.pop() {
        let Some(source) = sources.get_mut(number) else { continue };
        let run = source.run(heap.peek().map(|Reverse((key, _))| key));
        pieces.push(source.batch.slice(source.at, run));
        source.at += run;
        held += run;
        let has_more = source.at < source.batch.num_rows() || source.refill()?;
        if has_more {
            heap.extend(source.key(source.at).map(|key| Reverse((owned(key), number))));
        }
        if held >= WRITE_ROWS || heap.is_empty() {
            let batch = concat_batches(&schema, &pieces).context("join batches")?;
            writer.write(&batch).context("write Parquet")?;
            rows += u64::try_from(held).context("count rows")?;
            pieces.clear();
            held = 0;
        }
    }
    writer.close().context("end Parquet")?;
    let (bytes, sha256) = hash(&mut file)?;
    Ok(Merged { file, rows, bytes, sha256 })
}

/// Length and hash of a file, which is at its beginning afterwards.
fn hash(file: &mut File) -> anyhow::Result<(u64, String)> {
    use std::fmt::Write as _;
    file.seek(SeekFrom::Start(0)).context("read a temporary file")?;
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut buffer, mut length) = (vec![0; 1024 * 1024], 0);
    loop {
        let count = file.read(&mut buffer).context("read a temporary file")?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
        context.update(piece);
        length += u64::try_from(count).context("count bytes")?;
    }
    file.seek(SeekFrom::Start(0)).context("read a temporary file")?;
    let mut sha256 = String::new();
    for byte in context.finish().as_ref() {
        write!(sha256, "{byte:02x}")?;
    }
    Ok((length, sha256))
}
