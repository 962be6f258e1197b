//! Rows of one table in memory, column by column: filled from the bytes of a binary COPY, then sorted
//! into days.
//!
//! Reading is strict: what is not exactly what the query asked for is an error, and nothing of it is
//! used.

use std::fmt;

use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, Int64Array, TimestampMicrosecondArray};

use super::column::{Cursor, Values};
use super::table::Table;

/// What a binary COPY begins with; flags and the length of an extension follow.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const HEADER_BYTES: usize = 19;
/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// Why bytes are not the rows that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Rows before it.
    pub row: usize,
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed binary row {}: {}", self.row, self.what)
    }
}

impl std::error::Error for Malformed {}

/// Rows under way.
#[derive(Debug)]
pub struct Rows {
    table: &'static Table,
    columns: Vec<(Values, bool)>,
    rows: usize,
    /// Bytes of the fields so far.
    bytes: u64,
    /// The beginning of a row whose end has not come yet.
    rest: Vec<u8>,
    began: bool,
    ended: bool,
}

impl Rows {
    pub fn new(table: &'static Table) -> Self {
        let columns = table.columns.iter().map(|c| (Values::of(c.kind), c.nullable)).collect();
        Self { table, columns, rows: 0, bytes: 0, rest: Vec::new(), began: false, ended: false }
    }

    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Bytes of the fields so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A whole number of the last row, in a column that is never null; none before the first row.
    pub fn last(&self, name: &str) -> Option<i64> {
        match self.columns.get(self.table.position(name)?) {
            Some((Values::Long(values), _)) => values.values_slice().last().copied(),
            _ => None,
        }
    }

    /// The key of the last row; none before the first.
    pub fn last_key(&self) -> Option<&str> {
        match self.columns.first() {
            Some((Values::Word(words), _)) => words.last(),
            _ => None,
        }
    }

    /// Takes the rows so far for all there are: the COPY is not read to its end.
    pub fn cut(&mut self) {
        self.rest.clear();
        self.ended = true;
    }

    /// Takes the next bytes of the COPY; they may begin and end anywhere.
    ///
    /// # Errors
    /// When they are not rows of the table.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            let left = self.read(chunk)?;
            self.rest.extend_from_slice(chunk.get(chunk.len() - left..).unwrap_or_default());
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.rest);
        joined.extend_from_slice(chunk);
        let left = self.read(&joined)?;
        joined.drain(..joined.len() - left);
        self.rest = joined;
        Ok(())
    }

    /// Reads whole rows and says how many bytes are left behind them.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut bytes = Cursor(bytes);
        if !self.began {
            let Some((head, _)) = bytes.0.split_at_checked(HEADER_BYTES) else {
                return Ok(bytes.0.len());
            };
            // Without flags, and without an extension of the header.
            if head.strip_prefix(SIGNATURE) != Some(&[0; 8]) {
                return Err(self.malformed("no COPY signature"));
            }
            bytes.take(HEADER_BYTES);
            self.began = true;
        }
        loop {
            let left = bytes.0.len();
            if left == 0 {
                return Ok(0);
            }
            if self.ended {
                return Err(self.malformed("bytes behind the end"));
            }
            let Some(row) = whole(bytes.0) else { return Ok(left) };
            let mut fields = Cursor(bytes.take(row).unwrap_or_default());
            let count = fields.i16();
            if count == Some(-1) {
                self.ended = true;
                continue;
            }
            if count.and_then(|count| usize::try_from(count).ok()) != Some(self.columns.len()) {
                return Err(self.malformed("another number of fields"));
            }
            for (values, nullable) in &mut self.columns {
                let field = fields.field().flatten();
                let fits = (field.is_some() || *nullable).then(|| values.push(field)).flatten();
                if fits.is_none() {
                    return Err(self.malformed("a field of another type, or no value"));
                }
            }
            self.rows += 1;
            self.bytes += u64::try_from(row).unwrap_or_default();
        }
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { row: self.rows, what }
    }

    /// The rows, sorted by day, key and time; those of one time stay as they came.
    ///
    /// # Errors
    /// When the COPY did not come to its end.
    pub fn finish(self) -> anyhow::Result<Sorted> {
        if !self.ended || !self.rest.is_empty() {
            return Err(self.malformed("the rows end too early").into());
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for ((values, _), column) in self.columns.into_iter().zip(self.table.columns) {
            arrays.push(values.finish(column.kind)?);
        }
        Sorted::new(self.table, arrays, self.rows)
    }
}

/// The length of the row at the beginning, when all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut cursor = Cursor(bytes);
    let fields = cursor.i16()?;
    for _ in 0..fields.max(0) {
        cursor.field()?;
    }
    Some(bytes.len() - cursor.0.len())
}

/// Rows of one day: a stretch of [`Sorted::order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970.
    pub day: i64,
    pub order: std::ops::Range<usize>,
}

/// Rows that are complete, with the order in which they are written.
#[derive(Debug)]
pub struct Sorted {
    pub table: &'static Table,
    pub arrays: Vec<ArrayRef>,
    /// Row numbers of `arrays`.
    pub order: Vec<u32>,
    pub days: Vec<Day>,
}

impl Sorted {
    fn new(table: &'static Table, arrays: Vec<ArrayRef>, rows: usize) -> anyhow::Result<Self> {
        let times = times(table, &arrays, rows)?;
        let keys = arrays.first().and_then(|array| {
            array.as_any().downcast_ref::<DictionaryArray<Int32Type>>().map(|words| words.keys())
        });
        let Some(keys) = keys else { anyhow::bail!("{} has no key", table.name) };
        // Day and key in one number; a key is the rank of its word.
        let mut order: Vec<(i64, i32, i64, u32)> = Vec::with_capacity(rows);
        for ((row, time), key) in (0_u32..).zip(&times).zip(keys.values()) {
            order.push((time.div_euclid(DAY), *key, *time, row));
        }
        order.sort_unstable();
        let mut days: Vec<Day> = Vec::new();
        for (at, (day, ..)) in order.iter().enumerate() {
            match days.last_mut() {
                Some(last) if last.day == *day => last.order.end = at + 1,
                _ => days.push(Day { day: *day, order: at..at + 1 }),
            }
        }
        let order = order.into_iter().map(|(.., row)| row).collect();
        Ok(Self { table, arrays, order, days })
    }

    /// The values of a column of whole numbers of 64 bits.
    pub fn longs(&self, name: &str) -> Option<&Int64Array> {
        let array = self.arrays.get(self.table.position(name)?)?;
        array.as_any().downcast_ref()
    }
}

/// The time that decides about each row's day.
fn times(table: &Table, arrays: &[ArrayRef], rows: usize) -> anyhow::Result<Vec<i64>> {
    let mut times = vec![i64::MIN; rows];
    for name in table.day_by.iter().rev() {
        let array = table.position(name).and_then(|at| arrays.get(at));
        let array = array.and_then(|a| a.as_any().downcast_ref::<TimestampMicrosecondArray>());
        let Some(array) = array else { anyhow::bail!("{} has no time {name}", table.name) };
        for (time, value) in times.iter_mut().zip(array.iter()) {
            *time = value.unwrap_or(*time);
        }
    }
    Ok(times)
}

/// `2026-08-05`, of a number of days since 1970.
pub fn day_name(day: i64) -> String {
    let mut name = crate::model::Micros(day.saturating_mul(DAY)).to_string();
    name.truncate(10);
    name
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn table() -> &'static Table {
        Table::named("orderbook_deltas").unwrap()
    }

    /// A delta as a binary COPY has it.
    pub fn delta(seq: i64, ticker: &str, ts: i64, price: i64) -> Vec<u8> {
        let mut row = 9_i16.to_be_bytes().to_vec();
        let mut field = |bytes: &[u8]| {
            row.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
            row.extend_from_slice(bytes);
        };
        field(ticker.as_bytes());
        field(&ts.to_be_bytes());
        field(&(ts + 5_000).to_be_bytes());
        field(&[1]);
        field(&price.to_be_bytes());
        field(&100_i64.to_be_bytes());
        field(&1_i32.to_be_bytes());
        field(&2_i32.to_be_bytes());
        field(&seq.to_be_bytes());
        row
    }

    pub fn copy(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        bytes.extend(rows.concat());
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    #[test]
    fn rows_are_the_same_wherever_the_bytes_are_cut() {
        let rows: Vec<Vec<u8>> = (1..=20)
            .map(|n| delta(n, ["B", "A"][usize::try_from(n % 2).unwrap()], DAY + n / 3, n))
            .collect();
        let bytes = copy(&rows);
        for cut in 1..40 {
            let mut found = Rows::new(table());
            for chunk in bytes.chunks(cut) {
                found.feed(chunk).unwrap();
            }
            assert_eq!(found.len(), 20);
            let sorted = found.finish().unwrap();
            assert_eq!(sorted.days, [Day { day: 1, order: 0..20 }]);
            let seqs = sorted.longs("log_seq").unwrap();
            let order: Vec<i64> =
                sorted.order.iter().map(|at| seqs.value(usize::try_from(*at).unwrap())).collect();
            // By ticker, then time, then as they came.
            let wanted: Vec<i64> =
                (1..=20).filter(|n| n % 2 == 1).chain((1..=20).filter(|n| n % 2 == 0)).collect();
            assert_eq!(order, wanted);
        }
    }

    #[test]
    fn rows_of_two_days_are_told_apart() {
        let rows =
            [delta(1, "A", 2 * DAY, 1), delta(2, "A", 2 * DAY - 1, 1), delta(3, "B", DAY, 1)];
        let mut found = Rows::new(table());
        found.feed(&copy(&rows)).unwrap();
        let sorted = found.finish().unwrap();
        assert_eq!(sorted.days, [Day { day: 1, order: 0..2 }, Day { day: 2, order: 2..3 }]);
        assert_eq!((day_name(1), day_name(20_670)), ("1970-01-02".into(), "2026-08-05".into()));
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let whole = copy(&[delta(1, "A", 1, 1)]);
        let mut short = Rows::new(table());
        short.feed(&whole[..whole.len() - 2]).unwrap();
        assert!(short.finish().is_err(), "without its end");
        for broken in [
            [b"PGCOPX".to_vec(), whole[6..].to_vec()].concat(),
            [whole.clone(), vec![0, 9]].concat(),
            copy(&[[7_i16.to_be_bytes().to_vec(), delta(1, "A", 1, 1)[2..].to_vec()].concat()]),
            copy(&[delta(1, "A", 1, 1)
                .iter()
                .map(|b| if *b == b'A' { 0xff } else { *b })
                .collect()]),
            // A NULL where there must be a value.
            copy(&[[
                9_i16.to_be_bytes().to_vec(),
                (-1_i32).to_be_bytes().to_vec(),
                delta(1, "A", 1, 1)[7..].to_vec(),
            ]
            .concat()]),
        ] {
            let mut rows = Rows::new(table());
            assert!(rows.feed(&broken).is_err() || rows.finish().is_err(), "{broken:?}");
        }
    }
}
