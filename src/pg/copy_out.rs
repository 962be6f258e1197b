//! Binary COPY out of the server: rows read one by one as they arrive. Never more than one message of
//! the server is kept, so the memory of reading a table does not depend on its size.

use std::fmt;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, CopyOutStream, Error};
use uuid::Uuid;

use super::describe;

/// What a binary COPY begins with, before flags and extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, and the length of the extension.
const HEADER_BYTES: usize = 19;

/// Why no further row can be read. `Display` is the whole reason.
#[derive(Debug)]
pub enum CopyOutError {
    Pg(Error),
    /// Not what a binary COPY of the columns that were asked for looks like.
    Malformed(&'static str),
}

impl From<Error> for CopyOutError {
    fn from(error: Error) -> Self {
        Self::Pg(error)
    }
}

impl fmt::Display for CopyOutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pg(error) => f.write_str(&describe(error)),
            Self::Malformed(what) => write!(f, "malformed binary row: {what}"),
        }
    }
}

impl std::error::Error for CopyOutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pg(error) => Some(error),
            Self::Malformed(_) => None,
        }
    }
}

/// The rows of one `COPY (...) TO STDOUT (FORMAT binary)`. The session is busy until the last is read;
/// dropping this makes the connection swallow the rest.
pub struct CopyOut {
    stream: Pin<Box<CopyOutStream>>,
    buffer: Bytes,
    row: Bytes,
    has_begun: bool,
    has_ended: bool,
}

impl CopyOut {
    /// Begins to read what a query gives.
    ///
    /// # Errors
    /// When the server refuses the query.
    pub async fn open(client: &Client, query: &str) -> Result<Self, CopyOutError> {
        let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        let stream = client.copy_out(sql.as_str()).await?;
        Ok(Self {
            stream: Box::pin(stream),
            buffer: Bytes::new(),
            row: Bytes::new(),
            has_begun: false,
            has_ended: false,
        })
    }

    /// Goes to the next row, which [`CopyOut::row`] then shows; false after the last.
    ///
    /// # Errors
    /// When the connection breaks, the server ends the query, or sends what is no row.
    pub async fn advance(&mut self) -> Result<bool, CopyOutError> {
        loop {
            if self.has_ended {
                return Ok(false);
            }
            if !self.has_begun {
                self.has_begun = self.skip_header()?;
            }
            if self.has_begun {
                match whole_row(&self.buffer)? {
                    // A message of the server is mostly one row.
                    Next::Row(length) if length == self.buffer.len() => {
                        self.row = std::mem::take(&mut self.buffer);
                        return Ok(true);
                    }
                    Next::Row(length) => {
                        self.row = self.buffer.split_to(length);
                        return Ok(true);
                    }
                    Next::End => {
                        // What follows is the server's word that the query ended well.
                        while self.stream.try_next().await?.is_some() {}
                        self.has_ended = true;
                        return Ok(false);
                    }
                    Next::Short => {}
                }
            }
            match self.stream.try_next().await? {
                Some(chunk) if self.buffer.is_empty() => self.buffer = chunk,
                Some(chunk) => {
                    let mut joined = BytesMut::with_capacity(self.buffer.len() + chunk.len());
                    joined.extend_from_slice(&self.buffer);
                    joined.extend_from_slice(&chunk);
                    self.buffer = joined.freeze();
                }
                None => return Err(CopyOutError::Malformed("it ends without a trailer")),
            }
        }
    }

    /// The fields of the row that [`CopyOut::advance`] went to.
    pub fn row(&self) -> Fields<'_> {
        Fields { rest: self.row.get(2..).unwrap_or_default() }
    }

    /// False while not all of it has arrived.
    fn skip_header(&mut self) -> Result<bool, CopyOutError> {
        let Some(header) = self.buffer.get(..HEADER_BYTES) else { return Ok(false) };
        if !header.starts_with(SIGNATURE) {
            return Err(CopyOutError::Malformed("no signature"));
        }
        let extension = header.get(HEADER_BYTES - 4..).and_then(|bytes| bytes.try_into().ok());
        let extension = extension.map(i32::from_be_bytes).and_then(|n| usize::try_from(n).ok());
        let extension = extension.ok_or(CopyOutError::Malformed("extension"))?;
        if self.buffer.len() < HEADER_BYTES + extension {
            return Ok(false);
        }
        drop(self.buffer.split_to(HEADER_BYTES + extension));
        Ok(true)
    }
}

enum Next {
    /// A row of so many bytes.
    Row(usize),
    End,
    Short,
}

fn whole_row(buffer: &[u8]) -> Result<Next, CopyOutError> {
    let Some((count, mut rest)) = buffer.split_first_chunk::<2>() else { return Ok(Next::Short) };
    let count = i16::from_be_bytes(*count);
    if count < 0 {
        return Ok(Next::End);
    }
    let mut length = 2;
    for _ in 0..count {
        let Some((size, behind)) = rest.split_first_chunk::<4>() else { return Ok(Next::Short) };
        let size = match i32::from_be_bytes(*size) {
            -1 => 0,
            size => usize::try_from(size).map_err(|_| CopyOutError::Malformed("field length"))?,
        };
        let Some(behind) = behind.get(size..) else { return Ok(Next::Short) };
        length += 4 + size;
        rest = behind;
    }
    Ok(Next::Row(length))
}

/// The fields of a row, each taken once, in the order of the query's columns.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Option<&'a [u8]>, CopyOutError> {
        const SHORT: CopyOutError = CopyOutError::Malformed("fewer columns than were asked for");
        let (size, behind) = self.rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let size = i32::from_be_bytes(*size);
        if size == -1 {
            self.rest = behind;
            return Ok(None);
        }
        let size = usize::try_from(size).map_err(|_| CopyOutError::Malformed("field length"))?;
        let (field, rest) = behind.split_at_checked(size).ok_or(SHORT)?;
        self.rest = rest;
        Ok(Some(field))
    }

    fn given(&mut self) -> Result<&'a [u8], CopyOutError> {
        self.field()?.ok_or(CopyOutError::Malformed("a null where there is none"))
    }

    fn fixed<const N: usize>(field: &[u8]) -> Result<[u8; N], CopyOutError> {
        field.try_into().map_err(|_| CopyOutError::Malformed("a column of another type"))
    }

    pub fn i64(&mut self) -> Result<i64, CopyOutError> {
        Self::fixed(self.given()?).map(i64::from_be_bytes)
    }

    pub fn opt_i64(&mut self) -> Result<Option<i64>, CopyOutError> {
        self.field()?.map(|field| Self::fixed(field).map(i64::from_be_bytes)).transpose()
    }

    pub fn i16(&mut self) -> Result<i16, CopyOutError> {
        Self::fixed(self.given()?).map(i16::from_be_bytes)
    }

    pub fn bool(&mut self) -> Result<bool, CopyOutError> {
        Self::fixed::<1>(self.given()?).map(|byte| byte != [0])
    }

    pub fn uuid(&mut self) -> Result<Uuid, CopyOutError> {
        Self::fixed(self.given()?).map(Uuid::from_bytes)
    }

    pub fn text(&mut self) -> Result<&'a str, CopyOutError> {
        std::str::from_utf8(self.given()?).map_err(|_| CopyOutError::Malformed("text in UTF-8"))
    }

    /// A `bigint[]` of at most one dimension and without nulls, appended to `values`.
    pub fn i64s(&mut self, values: &mut Vec<i64>) -> Result<(), CopyOutError> {
        const WRONG: CopyOutError = CopyOutError::Malformed("an array of another form");
        let field = self.given()?;
        let (dimensions, behind) = field.split_first_chunk::<4>().ok_or(WRONG)?;
        match i32::from_be_bytes(*dimensions) {
            0 => return Ok(()),
            1 => {}
            _ => return Err(WRONG),
        }
        // Whether it has nulls, the type of its values, how many there are, and from which index.
        let mut rest = behind.get(16..).ok_or(WRONG)?;
        while let Some((size, behind)) = rest.split_first_chunk::<4>() {
            if i32::from_be_bytes(*size) != 8 {
                return Err(WRONG);
            }
            let (value, behind) = behind.split_first_chunk::<8>().ok_or(WRONG)?;
            values.push(i64::from_be_bytes(*value));
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(WRONG) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Cluster;
    use super::*;

    #[tokio::test]
    async fn rows_of_every_type_come_as_they_are() {
        let cluster = Cluster::start();
        let client = cluster.create("d").await.connect().await.unwrap();
        let query = "SELECT n::bigint, CASE WHEN n > 1 THEN n::bigint END, n::smallint, n = 2, \
                     'T' || n, \
                     CASE n WHEN 1 THEN '{}'::bigint[] ELSE ARRAY[n, -n]::bigint[] END, \
                     '00000000-0000-0000-0000-00000000000a'::uuid \
                     FROM generate_series(1, 3) AS g (n) ORDER BY g.n";
        let mut rows = CopyOut::open(&client, query).await.unwrap();
        for n in 1..=3_i64 {
            assert!(rows.advance().await.unwrap());
            let mut row = rows.row();
            assert_eq!(row.i64().unwrap(), n);
            assert_eq!(row.opt_i64().unwrap(), (n > 1).then_some(n));
            assert_eq!(i64::from(row.i16().unwrap()), n);
            assert_eq!(row.bool().unwrap(), n == 2);
            assert_eq!(row.text().unwrap(), format!("T{n}"));
            let mut values = Vec::new();
            row.i64s(&mut values).unwrap();
            assert_eq!(values, if n == 1 { vec![] } else { vec![n, -n] });
            assert_eq!(row.uuid().unwrap(), Uuid::from_u128(10));
            assert!(row.i64().is_err());
        }
        assert!(!rows.advance().await.unwrap());
        drop(rows);
        assert!(CopyOut::open(&client, "SELECT nothing").await.is_err());
        let mut none = CopyOut::open(&client, "SELECT 1 WHERE false").await.unwrap();
        assert!(!none.advance().await.unwrap());
    }

    #[tokio::test]
    async fn a_query_that_fails_on_its_way_is_no_end() {
        let cluster = Cluster::start();
        let client = cluster.create("d").await.connect().await.unwrap();
        let query = "SELECT 10 / (3 - n) FROM generate_series(1, 9) AS n";
        let mut rows = CopyOut::open(&client, query).await.unwrap();
        let mut count = 0;
        let error = loop {
            match rows.advance().await {
                Ok(true) => count += 1,
                Ok(false) => panic!("passed for whole after {count} rows"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("division by zero"), "{error}");
    }
}
