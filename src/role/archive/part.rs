//! Parquet: what a part looks like, written and read.
//!
//! Whoever reads a part may be of any engine, so it has nothing that only some understand: data pages
//! of the first version, zstd, decimals as 64-bit integers, timestamps of microseconds, no types of
//! Arrow's own. Positions and times are packed as differences, what repeats is a dictionary.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context as _;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::take::take;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::rows::{Day, Sorted};
use super::table::{Kind, Table};

/// Rows that are put in order and handed to the writer at once.
const BATCH_ROWS: usize = 64 * 1024;
/// Rows of a row group: a reader that wants one market of a day reads one or two.
const GROUP_ROWS: usize = 1024 * 1024;
/// Bytes of a page before compression.
const PAGE_BYTES: usize = 1024 * 1024;
/// A dictionary above this gives way to plain values.
const DICTIONARY_BYTES: usize = 1024 * 1024;
/// How often the bloom filter of the key says yes in vain.
const BLOOM_FPP: f64 = 0.01;

/// How a table's parts are written. The same rows give the same bytes.
pub fn properties(table: &Table, level: i32, keys: u64) -> anyhow::Result<WriterProperties> {
    let zstd = ZstdLevel::try_new(level).context("zstd level")?;
    let sorted = [table.position(table.key), table.day_by.first().and_then(|n| table.position(n))];
    let sorted = sorted.into_iter().flatten().map(|at| SortingColumn {
        column_idx: i32::try_from(at).unwrap_or_default(),
        descending: false,
        nulls_first: false,
    });
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(format!("kalshi version {}", crate::ops::VERSION))
        .set_compression(Compression::ZSTD(zstd))
        .set_dictionary_enabled(false)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_data_page_row_count_limit(GROUP_ROWS)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "kalshi.table".to_owned(),
            table.name.to_owned(),
        )]));
    // Books without an anchor are sorted by when they were received, so that order is no column's.
    if table.day_by.len() == 1 {
        properties = properties.set_sorting_columns(Some(sorted.collect()));
    }
    for column in table.columns {
        let path = match column.kind {
            Kind::DollarsList | Kind::ContractsList => {
                ColumnPath::new(vec![column.name.into(), "list".into(), "element".into()])
            }
            _ => ColumnPath::from(column.name),
        };
        properties = match column.kind {
            Kind::Seq | Kind::Micros => {
                properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
            }
            Kind::Hash | Kind::Flag | Kind::Text => {
                properties.set_column_encoding(path, Encoding::PLAIN)
            }
            Kind::Number
            | Kind::Small
            | Kind::Dollars
            | Kind::Contracts
            | Kind::Word
            | Kind::DollarsList
            | Kind::ContractsList => properties.set_column_dictionary_enabled(path, true),
        };
    }
    let key = ColumnPath::from(table.key);
    Ok(properties
        .set_column_bloom_filter_enabled(key.clone(), true)
        .set_column_bloom_filter_fpp(key.clone(), BLOOM_FPP)
        .set_column_bloom_filter_max_ndv(key, keys.max(1))
        .build())
}

/// A writer of one part.
pub fn writer<W: Write + Send>(
    table: &Table,
    schema: SchemaRef,
    level: i32,
    keys: u64,
    to: W,
) -> anyhow::Result<ArrowWriter<W>> {
    let options = ArrowWriterOptions::new()
        .with_properties(properties(table, level, keys)?)
        // With it some readers would see dictionaries where others see text.
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(to, schema, options).context("begin Parquet")
}

/// Writes the rows of one day.
///
/// # Errors
/// Only when the program's own columns do not fit its schema.
pub fn encode(rows: &Sorted, day: &Day, level: i32) -> anyhow::Result<Vec<u8>> {
    let order = rows.order.get(day.order.clone()).context("order of a day")?;
    let schema = rows.table.schema();
    let keys = distinct(rows, order);
    let mut writer = writer(rows.table, Arc::clone(&schema), level, keys, Vec::new())?;
    for chunk in order.chunks(BATCH_ROWS) {
        let places = UInt32Array::from(chunk.to_vec());
        let columns: Result<Vec<ArrayRef>, _> =
            rows.arrays.iter().map(|array| take(array, &places, None)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.context("order rows")?);
        writer.write(&batch.context("make batch")?).context("write Parquet")?;
    }
    writer.into_inner().context("end Parquet")
}

/// A part without a row, which tells readers of a folder the columns of a table that has none yet.
pub fn empty(table: &Table) -> anyhow::Result<Vec<u8>> {
    writer(table, table.plain_schema(), 1, 1, Vec::new())?.into_inner().context("end Parquet")
}

/// How many keys there are among sorted rows.
fn distinct(rows: &Sorted, order: &[u32]) -> u64 {
    use arrow_array::types::Int32Type;
    use arrow_array::{Array as _, DictionaryArray};
    let words = rows.arrays.first().and_then(|array| {
        array.as_any().downcast_ref::<DictionaryArray<Int32Type>>().map(DictionaryArray::keys)
    });
    let Some(words) = words else { return 1 };
    let keys = order
        .iter()
        .filter_map(|at| usize::try_from(*at).ok().and_then(|at| words.values().get(at)).copied());
    let (mut count, mut last) = (0, None);
    for key in keys {
        if last != Some(key) {
            count += 1;
            last = Some(key);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    use super::super::rows::tests::{copy, delta, table};
    use super::super::rows::{DAY, Rows};
    use super::*;

    fn part(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut found = Rows::new(table());
        found.feed(&copy(rows)).unwrap();
        let sorted = found.finish().unwrap();
        encode(&sorted, &sorted.days[0], 3).unwrap()
    }

    #[test]
    fn a_part_says_what_it_holds_and_is_the_same_each_time() {
        let rows: Vec<Vec<u8>> = (1..=1_000)
            .map(|n| delta(n, &format!("KX-{}", n % 7), DAY + n, 10_000 * (n % 50)))
            .collect();
        let bytes = part(&rows);
        assert_eq!(bytes, part(&rows));
        let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.file_metadata().num_rows(), 1_000);
        let group = metadata.row_group(0);
        assert!(group.column(0).bloom_filter_offset().is_some());
        assert!(group.column(0).statistics().is_some_and(|s| s.min_bytes_opt() == Some(b"KX-0")));
        assert!(group.columns().iter().all(|c| matches!(c.compression(), Compression::ZSTD(_))));
        let mut schema = Vec::new();
        let root = metadata.file_metadata().schema_descr().root_schema();
        parquet::schema::printer::print_schema(&mut schema, root);
        let schema = String::from_utf8(schema).unwrap();
        for line in [
            "REQUIRED BYTE_ARRAY ticker (STRING)",
            "REQUIRED INT64 exchange_ts (TIMESTAMP(MICROS,true))",
            "REQUIRED INT64 price (DECIMAL(18,6))",
            "REQUIRED INT64 size_delta (DECIMAL(18,2))",
            "REQUIRED INT32 occurrence;",
        ] {
            assert!(schema.contains(line), "{line} in {schema}");
        }

        let options = ArrowReaderOptions::new().with_schema(table().schema());
        let found =
            ParquetRecordBatchReaderBuilder::try_new_with_options(Bytes::from(bytes), options);
        let batches: Vec<RecordBatch> =
            found.unwrap().build().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1_000);
        assert_eq!(batches[0].schema(), table().schema());
    }
}
