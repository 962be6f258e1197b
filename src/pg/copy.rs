//! Binary COPY: rows encoded straight into one reusable buffer, and that buffer sent.
//!
//! The format is that of PostgreSQL's manual, "COPY, Binary Format": a signature, then per row the
//! number of fields and each field as length and bytes, then -1.

use bytes::{BufMut, Bytes};
use futures_util::SinkExt as _;
use tokio_postgres::{Error, ToStatement, Transaction};
use uuid::Uuid;

use crate::ops::crash;

/// Signature, flags (none) and length of the header's extension (none).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const NULL: i32 = -1;
/// The version byte that a jsonb value starts with.
const JSONB_VERSION: u8 = 1;
/// The type of an int8[] value's elements.
const INT8_OID: i32 = 20;
/// Bytes handed to the connection at once; it copies what it is given, so a batch of many megabytes
/// is never in memory twice.
const CHUNK: usize = 256 * 1024;

/// Encodes rows for `COPY ... FROM STDIN (FORMAT binary)`.
///
/// Each row is [`Rows::begin`] and then exactly as many fields as it announced, in the order of the
/// statement's columns. A wrong number of fields is a bug in the program, not in its input, and
/// panics: such a batch must not reach the server.
#[derive(Debug, Default)]
pub struct Rows {
    buffer: Vec<u8>,
    rows: u64,
    fields_due: i16,
}

impl Rows {
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows begun since the last [`Rows::finish`].
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes encoded since the last [`Rows::finish`].
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Starts a row of `fields` fields.
    pub fn begin(&mut self, fields: i16) {
        assert!(self.fields_due == 0, "the row before lacks {} fields", self.fields_due);
        assert!(fields > 0, "a row has at least one field");
        if self.buffer.is_empty() {
            self.buffer.put_slice(HEADER);
        }
        self.buffer.put_i16(fields);
        self.fields_due = fields;
        self.rows += 1;
    }

    pub fn null(&mut self) {
        self.field();
        self.buffer.put_i32(NULL);
    }

    pub fn i64(&mut self, value: i64) {
        self.field();
        self.buffer.extend_from_slice(&sized_i64(value));
    }

    pub fn opt_i64(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.i64(value),
            None => self.null(),
        }
    }

    pub fn i32(&mut self, value: i32) {
        self.field();
        self.buffer.put_i32(4);
        self.buffer.put_i32(value);
    }

    pub fn bool(&mut self, value: bool) {
        self.field();
        self.buffer.put_i32(1);
        self.buffer.put_u8(u8::from(value));
    }

    pub fn opt_bool(&mut self, value: Option<bool>) {
        match value {
            Some(value) => self.bool(value),
            None => self.null(),
        }
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.field();
        self.buffer.put_i32(16);
        self.buffer.put_slice(value.as_bytes());
    }

    /// A text. PostgreSQL's text cannot hold U+0000; one from outside becomes U+FFFD, since a batch
    /// with it could never commit and the frame is in the journal as it came.
    pub fn text(&mut self, value: &str) {
        self.field();
        if value.contains('\0') {
            self.sized(value.replace('\0', "\u{fffd}").as_bytes());
        } else {
            self.sized(value.as_bytes());
        }
    }

    /// A `jsonb`, given as valid JSON text. PostgreSQL's jsonb cannot hold the escape of U+0000; it
    /// becomes that of U+FFFD, for the reason that [`Rows::text`] has.
    pub fn jsonb(&mut self, json: &str) {
        self.field();
        let storable = without_nul_escapes(json);
        let json = storable.as_deref().unwrap_or(json);
        self.buffer.put_i32(length(json.len() + 1));
        self.buffer.put_u8(JSONB_VERSION);
        self.buffer.put_slice(json.as_bytes());
    }

    /// A `bigint[]` of one dimension, without nulls.
    pub fn i64_array(&mut self, values: impl ExactSizeIterator<Item = i64>) {
        self.field();
        let count = values.len();
        if count == 0 {
            // An empty array has no dimension.
            self.buffer.put_i32(12);
            self.buffer.put_i32(0);
            self.buffer.put_i32(0);
            self.buffer.put_i32(INT8_OID);
            return;
        }
        self.buffer.put_i32(length(20 + 12 * count));
        self.buffer.put_i32(1); // dimensions
        self.buffer.put_i32(0); // no nulls
        self.buffer.put_i32(INT8_OID);
        self.buffer.put_i32(length(count));
        self.buffer.put_i32(1); // lower bound
        let mut written = 0;
        for value in values {
            self.buffer.extend_from_slice(&sized_i64(value));
            written += 1;
        }
        assert!(written == count, "an array of {count} gave {written} values");
    }

    /// Ends the batch and gives it out; the next row starts another. The bytes are cheap to clone,
    /// so a batch that failed is sent again as it was.
    pub fn finish(&mut self) -> Bytes {
        assert!(self.fields_due == 0, "the last row lacks {} fields", self.fields_due);
        if self.buffer.is_empty() {
            self.buffer.put_slice(HEADER);
        }
        self.buffer.put_i16(TRAILER);
        self.rows = 0;
        // Room for as much again and a little more: batches of one log are of a size.
        let capacity = self.buffer.len() + self.buffer.len() / 8;
        std::mem::replace(&mut self.buffer, Vec::with_capacity(capacity)).into()
    }

    fn field(&mut self) {
        assert!(self.fields_due > 0, "the row has more fields than it announced");
        self.fields_due -= 1;
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.buffer.put_i32(length(bytes.len()));
        self.buffer.put_slice(bytes);
    }
}

/// A `bigint` field with its length in front, as one piece: rows have many of them.
fn sized_i64(value: i64) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    [0, 0, 0, 8, a, b, c, d, e, f, g, h]
}

/// A field's length as the format has it. Frames are bounded far below 2 GiB, so a longer field is a
/// broken law of ours.
fn length(bytes: usize) -> i32 {
    let Ok(length) = i32::try_from(bytes) else {
        panic!("a field of {bytes} bytes");
    };
    length
}

/// The text with every escape `\u0000` replaced, or none when there is none. An escaped backslash
/// followed by `u0000` is not one.
fn without_nul_escapes(json: &str) -> Option<String> {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return None;
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = escape.strip_prefix(NUL) {
            out.push_str("\\ufffd");
            rest = after;
        } else {
            // The backslash and what it escapes; in valid JSON there is always such a character.
            let end = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
            let (pair, after) = escape.split_at(end);
            out.push_str(pair);
            rest = after;
        }
    }
    out.push_str(rest);
    Some(out)
}

/// Sends one finished batch through a `COPY ... FROM STDIN (FORMAT binary)` statement and gives the
/// number of rows that the server took. Dropping the future aborts the COPY and with it the
/// transaction's effect.
pub async fn copy_in<S>(tx: &Transaction<'_>, statement: &S, mut batch: Bytes) -> Result<u64, Error>
where
    S: ?Sized + ToStatement,
{
    let sink = tx.copy_in::<_, Bytes>(statement).await?;
    let mut sink = std::pin::pin!(sink);
    while !batch.is_empty() {
        let chunk = batch.split_to(batch.len().min(CHUNK));
        sink.feed(chunk).await?;
    }
    crash::point("copy-before-end");
    sink.as_mut().finish().await
}
