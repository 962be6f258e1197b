//! Parts read back: into a temporary file first, so that a part of any size takes no memory, and with
//! the hash that the manifest knows.

use std::fs::File;

use anyhow::Context as _;
use arrow_array::{
    Array as _, Decimal64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::manifest::Part;
use super::store::Store;
use super::table::Table;

/// Why a part is not what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    Lost,
    Differs { bytes: u64, sha256: String },
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost => f.write_str("is not there"),
            Self::Differs { bytes, sha256 } => {
                write!(f, "has {bytes} bytes with sha256 {sha256}, not those of its manifest")
            }
        }
    }
}

/// Brings a part here; the damage when it is not what its manifest says.
pub async fn fetch(store: &Store, part: &Part) -> anyhow::Result<Result<File, Damage>> {
    let file = tempfile::tempfile().context("make a temporary file")?;
    let copy = file.try_clone().context("share a temporary file")?;
    Ok(match store.fetch(&part.path, copy).await? {
        None => Err(Damage::Lost),
        Some((bytes, sha256)) if bytes == part.bytes && sha256 == part.sha256 => Ok(file),
        Some((bytes, sha256)) => Err(Damage::Differs { bytes, sha256 }),
    })
}

/// The rows of a part, with plain texts.
pub fn batches(
    table: &Table,
    file: File,
    batch_rows: usize,
) -> anyhow::Result<ParquetRecordBatchReader> {
    let options = ArrowReaderOptions::new().with_schema(table.plain_schema());
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
    let reader = reader.context("understand Parquet")?.with_batch_size(batch_rows).build();
    reader.context("read Parquet")
}

/// A column of texts.
pub fn texts<'a>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a StringArray> {
    let array = batch.column_by_name(name).and_then(|a| a.as_any().downcast_ref());
    array.with_context(|| format!("{name} is no text"))
}

/// A column of whole numbers, times or decimals, as production has them; null is none.
pub fn longs(batch: &RecordBatch, name: &str) -> anyhow::Result<Vec<Option<i64>>> {
    let array = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    let any = array.as_any();
    if let Some(array) = any.downcast_ref::<Int64Array>() {
        return Ok(array.iter().collect());
    }
    if let Some(array) = any.downcast_ref::<Decimal64Array>() {
        return Ok(array.iter().collect());
    }
    let array = any.downcast_ref::<TimestampMicrosecondArray>();
    Ok(array.with_context(|| format!("{name} is no number"))?.iter().collect())
}

/// The time that decides about each row's day.
pub fn times(table: &Table, batch: &RecordBatch) -> anyhow::Result<Vec<i64>> {
    let mut times = vec![i64::MIN; batch.num_rows()];
    for name in table.day_by.iter().rev() {
        for (time, value) in times.iter_mut().zip(longs(batch, name)?) {
            *time = value.unwrap_or(*time);
        }
    }
    Ok(times)
}
