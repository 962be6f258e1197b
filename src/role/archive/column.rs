//! The values of one column: taken from fields of a binary COPY, given as an array of Arrow.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array as _, ArrayRef, Decimal64Array, DictionaryArray, Int32Array, Int64Array, ListArray,
    StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};

use super::table::{CONTRACTS, DOLLARS, Kind, PRECISION};

/// The type of the elements of an int8[].
const INT8_OID: i32 = 20;

/// Bytes that are read from their beginning.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn i16(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take(8)?.try_into().ok().map(i64::from_be_bytes)
    }

    /// A field: none is NULL.
    pub fn field(&mut self) -> Option<Option<&'a [u8]>> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Some(None),
        }
    }
}

/// Texts of which there are few.
#[derive(Debug, Default)]
pub struct Words {
    keys: Int32Builder,
    known: HashMap<Box<str>, i32>,
    values: Vec<Box<str>>,
    /// Rows of one market often come together.
    last: Option<i32>,
}

impl Words {
    fn push(&mut self, word: Option<&str>) -> Option<()> {
        let Some(word) = word else {
            self.keys.append_null();
            return Some(());
        };
        let last = self.last.filter(|last| {
            usize::try_from(*last)
                .ok()
                .and_then(|at| self.values.get(at))
                .is_some_and(|w| **w == *word)
        });
        let key = match last.or_else(|| self.known.get(word).copied()) {
            Some(key) => key,
            None => {
                let key = i32::try_from(self.values.len()).ok()?;
                self.values.push(word.into());
                self.known.insert(word.into(), key);
                key
            }
        };
        self.last = Some(key);
        self.keys.append_value(key);
        Some(())
    }

    /// The last word that was taken, unless it was none.
    pub fn last(&self) -> Option<&str> {
        self.values.get(usize::try_from(self.last?).ok()?).map(|word| &**word)
    }

    /// The words in order, so that the order of keys is the order of words.
    fn finish(mut self) -> DictionaryArray<Int32Type> {
        let keys = self.keys.finish();
        let mut order: Vec<(&str, i32)> = self.values.iter().map(|word| &**word).zip(0..).collect();
        order.sort_unstable();
        let mut ranks = vec![0_i32; order.len()];
        for ((_, key), rank) in order.iter().zip(0..) {
            if let Some(place) = usize::try_from(*key).ok().and_then(|at| ranks.get_mut(at)) {
                *place = rank;
            }
        }
        let ranked = keys.values().iter().map(|key| {
            usize::try_from(*key).ok().and_then(|at| ranks.get(at)).copied().unwrap_or_default()
        });
        let ranked = Int32Array::new(ranked.collect::<ScalarBuffer<i32>>(), keys.nulls().cloned());
        let words = StringArray::from_iter_values(order.iter().map(|(word, _)| *word));
        DictionaryArray::new(ranked, Arc::new(words))
    }
}

/// Levels of books: one list of numbers a row.
#[derive(Debug)]
pub struct Levels {
    ends: Vec<i32>,
    values: Vec<i64>,
}

impl Levels {
    /// An int8[] of one dimension without NULLs, as PostgreSQL sends it.
    fn push(&mut self, field: &[u8]) -> Option<()> {
        let mut bytes = Cursor(field);
        let (dimensions, has_null, oid) = (bytes.i32()?, bytes.i32()?, bytes.i32()?);
        if has_null != 0 || oid != INT8_OID {
            return None;
        }
        let count = match dimensions {
            0 => 0,
            1 => {
                let count = bytes.i32()?;
                bytes.i32()?;
                count
            }
            _ => return None,
        };
        for _ in 0..count {
            if bytes.i32()? != 8 {
                return None;
            }
            self.values.push(bytes.i64()?);
        }
        self.ends.push(i32::try_from(self.values.len()).ok()?);
        bytes.0.is_empty().then_some(())
    }

    fn finish(self, scale: i8) -> anyhow::Result<ArrayRef> {
        let values = decimals(Int64Array::new(self.values.into(), None), scale)?;
        let field = Field::new("element", DataType::Decimal64(PRECISION, scale), false);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        Ok(Arc::new(ListArray::try_new(Arc::new(field), offsets, values, None)?))
    }
}

fn decimals(values: Int64Array, scale: i8) -> anyhow::Result<ArrayRef> {
    let (_, values, nulls) = values.into_parts();
    let decimals = Decimal64Array::try_new(values, nulls)?;
    Ok(Arc::new(decimals.with_precision_and_scale(PRECISION, scale)?))
}

/// The values of one column so far.
#[derive(Debug)]
pub enum Values {
    Long(Int64Builder),
    Int(Int32Builder),
    Flag(BooleanBuilder),
    Text(StringBuilder),
    Word(Words),
    Levels(Levels),
}

impl Values {
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Seq
            | Kind::Number
            | Kind::Hash
            | Kind::Micros
            | Kind::Dollars
            | Kind::Contracts => Self::Long(Int64Builder::new()),
            Kind::Small => Self::Int(Int32Builder::new()),
            Kind::Flag => Self::Flag(BooleanBuilder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Word => Self::Word(Words::default()),
            Kind::DollarsList | Kind::ContractsList => {
                Self::Levels(Levels { ends: vec![0], values: Vec::new() })
            }
        }
    }

    /// Takes a field; none when it is not what the column holds.
    pub fn push(&mut self, field: Option<&[u8]>) -> Option<()> {
        match self {
            Self::Long(values) => match field {
                Some(field) => values.append_value(i64::from_be_bytes(field.try_into().ok()?)),
                None => values.append_null(),
            },
            Self::Int(values) => match field {
                Some(field) => values.append_value(i32::from_be_bytes(field.try_into().ok()?)),
                None => values.append_null(),
            },
            Self::Flag(values) => match field {
                Some([flag]) => values.append_value(*flag != 0),
                Some(_) => return None,
                None => values.append_null(),
            },
            Self::Text(values) => match field {
                Some(field) => values.append_value(std::str::from_utf8(field).ok()?),
                None => values.append_null(),
            },
            Self::Word(words) => {
                let word = field.map(std::str::from_utf8).transpose().ok()?;
                words.push(word)?;
            }
            Self::Levels(levels) => levels.push(field?)?,
        }
        Some(())
    }

    pub fn finish(self, kind: Kind) -> anyhow::Result<ArrayRef> {
        Ok(match self {
            Self::Long(mut values) => {
                let values = values.finish();
                match kind {
                    Kind::Micros => {
                        let (_, values, nulls) = values.into_parts();
                        let times = TimestampMicrosecondArray::try_new(values, nulls)?;
                        Arc::new(times.with_timezone("UTC"))
                    }
                    Kind::Dollars => decimals(values, DOLLARS)?,
                    Kind::Contracts => decimals(values, CONTRACTS)?,
                    _ => Arc::new(values),
                }
            }
            Self::Int(mut values) => Arc::new(values.finish()),
            Self::Flag(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Word(words) => Arc::new(words.finish()),
            Self::Levels(levels) if kind == Kind::DollarsList => levels.finish(DOLLARS)?,
            Self::Levels(levels) => levels.finish(CONTRACTS)?,
        })
    }
}
