//! A span of one gatherer's log in memory: the bytes as PostgreSQL sent them, and per row the few
//! values that merging needs.
//!
//! Reading is strict. A log is dense, so the rows of (after, through] are exactly `through - after`
//! many, numbered without a hole; anything else is a broken law and none of it is used.

use std::fmt;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::table::{Table, Width};

/// What a binary COPY begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The time of a row that has none: before every other.
pub const NO_TIME: i64 = i64::MIN;

/// What merging needs of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where the body's fields begin and end in the span's data, lengths included.
    from: u32,
    to: u32,
    /// The gatherer's clock, microseconds since 1970.
    pub clock: i64,
    /// The time by which the identity is remembered; [`NO_TIME`] for none.
    pub time: i64,
    /// The exchange's clock; [`NO_TIME`] for none.
    pub exchange_ts: i64,
    /// 128 bits of the identity.
    pub identity: u128,
}

/// Rows (after, through] of a log of a gatherer.
#[derive(Debug, Clone)]
pub struct Span {
    /// Which of the configured gatherers.
    pub gatherer: usize,
    pub log_id: Uuid,
    pub after: i64,
    pub through: i64,
    /// The log's head when the span was asked for.
    pub head: i64,
    pub rows: Vec<Row>,
    data: Vec<u8>,
}

impl Span {
    /// The fields of the body, each with its length, as COPY wants them again.
    pub fn body(&self, row: &Row) -> &[u8] {
        let place = (usize::try_from(row.from), usize::try_from(row.to));
        let (Ok(from), Ok(to)) = place else { return &[] };
        self.data.get(from..to).unwrap_or_default()
    }

    /// Rows up to `through` that the gatherer has dropped: there is nothing to write of them, and the
    /// cursor moves over them.
    pub const fn dropped(request: Request) -> Self {
        let Request { gatherer, log_id, after, through, head, .. } = request;
        Self { gatherer, log_id, after, through, head, rows: Vec::new(), data: Vec::new() }
    }

    /// How many rows of it the gatherer had dropped before they were read.
    pub fn dropped_rows(&self) -> u64 {
        let rows = i64::try_from(self.rows.len()).unwrap_or(i64::MAX);
        u64::try_from(self.through - self.after - rows).unwrap_or_default()
    }

    /// Memory that it holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.rows.len() * size_of::<Row>()
    }
}

/// Which span is read and how its rows are identified.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub gatherer: usize,
    pub log_id: Uuid,
    pub after: i64,
    pub through: i64,
    pub head: i64,
    /// Makes identities of this process and table unforeseeable; see [`identity_seed`].
    pub seed: u64,
}

/// The seed of a gatherer's identities: its own where the gatherer is part of them.
pub fn identity_seed(table: &Table, seed: u64, gatherer: usize) -> u64 {
    let part = if table.per_gatherer { gatherer.wrapping_add(1) } else { 0 };
    seed.wrapping_add(u64::try_from(part).unwrap_or(u64::MAX).rotate_left(32))
}

/// Why bytes are not a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanError {
    /// A row is missing, or stands where it should not: the log's law of density is broken.
    Hole { expected: i64, found: i64 },
    /// The rows end before `through`.
    Short { expected: i64 },
    /// Not what binary COPY of these columns looks like.
    Malformed { at: usize, what: &'static str },
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole { expected, found } => {
                write!(f, "expected log_seq {expected}, found {found}")
            }
            Self::Short { expected } => write!(f, "expected log_seq {expected}, found no row"),
            Self::Malformed { at, what } => write!(f, "malformed binary row at byte {at}: {what}"),
        }
    }
}

impl std::error::Error for SpanError {}

/// Reads the answer to [`Table::read_sql`]. `whole` is false when the reading was stopped early for
/// its size; the span then ends at the last row that arrived.
pub fn parse(
    table: &Table,
    request: Request,
    data: Vec<u8>,
    whole: bool,
) -> Result<Span, SpanError> {
    let mut cut = Cut { data: &data, at: 0 };
    cut.header()?;
    let expected = usize::try_from(request.through - request.after).unwrap_or_default();
    let mut rows = Vec::with_capacity(expected.min(data.len() / 32));
    let mut next = request.after + 1;
    loop {
        if !whole && cut.at == data.len() {
            break;
        }
        let fields = cut.i16("field count")?;
        if fields == -1 {
            break;
        }
        if usize::try_from(fields) != Ok(table.fields_read()) {
            return Err(cut.malformed("another number of columns"));
        }
        let log_seq = cut.required_i64("log_seq")?;
        if log_seq != next || log_seq > request.through {
            return Err(SpanError::Hole { expected: next, found: log_seq });
        }
        rows.push(parse_row(table, request.seed, &mut cut)?);
        next += 1;
    }
    let through = next - 1;
    if through == request.after || (whole && through < request.through) {
        return Err(SpanError::Short { expected: next });
    }
    let Request { gatherer, log_id, after, head, .. } = request;
    Ok(Span { gatherer, log_id, after, through, head, rows, data })
}

fn parse_row(table: &Table, seed: u64, cut: &mut Cut<'_>) -> Result<Row, SpanError> {
    let body_from = cut.at;
    let (mut clock, mut time, mut exchange_ts) = (None, None, None);
    let (mut identity_from, mut identity_to) = (body_from, body_from);
    for (index, column) in table.body.iter().enumerate() {
        if index == table.identity.start {
            identity_from = cut.at;
        }
        let field = cut.field(column.width)?;
        if index == 0 {
            clock = field.and_then(as_i64);
        }
        if index == table.time {
            time = field.and_then(as_i64);
        }
        if Some(index) == table.exchange_ts {
            exchange_ts = field.and_then(as_i64);
        }
        if index + 1 == table.identity.end {
            identity_to = cut.at;
        }
    }
    let identity = cut.data.get(identity_from..identity_to).unwrap_or_default();
    let place = (u32::try_from(body_from), u32::try_from(cut.at));
    let (Ok(from), Ok(to)) = place else { return Err(cut.malformed("span above 4 GiB")) };
    Ok(Row {
        from,
        to,
        clock: clock.ok_or_else(|| cut.malformed("no clock"))?,
        time: time.unwrap_or(NO_TIME),
        exchange_ts: exchange_ts.unwrap_or(NO_TIME),
        identity: xxh3_128_with_seed(identity, seed),
    })
}

fn as_i64(field: &[u8]) -> Option<i64> {
    field.try_into().ok().map(i64::from_be_bytes)
}

/// What is left to read.
struct Cut<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cut<'a> {
    fn malformed(&self, what: &'static str) -> SpanError {
        SpanError::Malformed { at: self.at, what }
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], SpanError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.data.get(self.at..end));
        let taken = taken.ok_or_else(|| self.malformed(what))?;
        self.at += len;
        Ok(taken)
    }

    fn i16(&mut self, what: &'static str) -> Result<i16, SpanError> {
        let bytes = self.take(2, what)?;
        bytes.try_into().map(i16::from_be_bytes).map_err(|_| self.malformed(what))
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, SpanError> {
        let bytes = self.take(4, what)?;
        bytes.try_into().map(i32::from_be_bytes).map_err(|_| self.malformed(what))
    }

    fn header(&mut self) -> Result<(), SpanError> {
        if self.take(SIGNATURE.len(), "signature")? != SIGNATURE {
            return Err(self.malformed("signature"));
        }
        let _flags = self.i32("flags")?;
        let extension = self.i32("extension")?;
        let extension = usize::try_from(extension).map_err(|_| self.malformed("extension"))?;
        self.take(extension, "extension")?;
        Ok(())
    }

    /// A field's value; none for null.
    fn field(&mut self, width: Width) -> Result<Option<&'a [u8]>, SpanError> {
        let len = self.i32("field length")?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| self.malformed("field length"))?;
        if let Width::Fixed(width) = width
            && width != len
        {
            return Err(self.malformed("a column of another type"));
        }
        self.take(len, "field").map(Some)
    }

    fn required_i64(&mut self, what: &'static str) -> Result<i64, SpanError> {
        let field = self.field(Width::Fixed(8))?;
        field.and_then(as_i64).ok_or_else(|| self.malformed(what))
    }
}

#[cfg(test)]
pub mod testing {
    //! Builds what PostgreSQL would send, for tests without one.

    use super::*;

    /// A delta as a test writes it.
    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct TestDelta {
        pub received_at: i64,
        pub exchange_ts: i64,
        pub ticker: String,
        pub price: i64,
        pub occurrence: i32,
    }

    fn put(out: &mut Vec<u8>, field: &[u8]) {
        out.extend_from_slice(&i32::try_from(field.len()).unwrap().to_be_bytes());
        out.extend_from_slice(field);
    }

    impl Row {
        /// A row of no span.
        pub fn for_test(clock: i64, time: i64, identity: u128) -> Self {
            Self { from: 0, to: 0, clock, time, exchange_ts: time, identity }
        }
    }

    pub fn copy_header() -> Vec<u8> {
        [SIGNATURE, &[0; 8]].concat()
    }

    /// Rows numbered from `first` with the trailer, as a whole answer.
    pub fn encode_deltas(first: i64, deltas: &[TestDelta]) -> Vec<u8> {
        let mut out = copy_header();
        for (log_seq, delta) in (first..).zip(deltas) {
            out.extend_from_slice(&8_i16.to_be_bytes());
            put(&mut out, &log_seq.to_be_bytes());
            put(&mut out, &delta.received_at.to_be_bytes());
            put(&mut out, &delta.exchange_ts.to_be_bytes());
            put(&mut out, delta.ticker.as_bytes());
            put(&mut out, &[1]);
            put(&mut out, &delta.price.to_be_bytes());
            put(&mut out, &100_i64.to_be_bytes());
            put(&mut out, &delta.occurrence.to_be_bytes());
        }
        out.extend_from_slice(&(-1_i16).to_be_bytes());
        out
    }

    pub fn delta_span(gatherer: usize, after: i64, deltas: &[TestDelta]) -> Span {
        let through = after + i64::try_from(deltas.len()).unwrap();
        let request =
            Request { gatherer, log_id: Uuid::nil(), after, through, head: through, seed: 7 };
        let data = encode_deltas(after + 1, deltas);
        parse(&super::super::table::ORDERBOOK_DELTAS, request, data, true).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::{COVERAGE, ORDERBOOK_DELTAS};
    use super::testing::{TestDelta, copy_header, delta_span, encode_deltas};
    use super::*;

    fn delta(n: i64) -> TestDelta {
        TestDelta {
            received_at: 1000 + n,
            exchange_ts: 500 + n,
            ticker: "KXGOLD-T1".into(),
            price: 480_000,
            occurrence: 1,
        }
    }

    fn request(after: i64, through: i64) -> Request {
        Request { gatherer: 0, log_id: Uuid::nil(), after, through, head: through, seed: 7 }
    }

    #[test]
    fn a_row_keeps_its_bytes_and_shows_its_times() {
        let span = delta_span(2, 10, &[delta(0), delta(1)]);
        assert_eq!((span.gatherer, span.after, span.through), (2, 10, 12));
        let row = span.rows[1];
        assert_eq!((row.clock, row.time, row.exchange_ts), (1001, 501, 501));
        let body = span.body(&row);
        assert_eq!(body[..4], 8_i32.to_be_bytes());
        assert_eq!(body[4..12], 1001_i64.to_be_bytes());
        assert_eq!(body[body.len() - 4..], 1_i32.to_be_bytes());
    }

    #[test]
    fn the_clock_is_no_part_of_an_identity_and_everything_else_is() {
        let same = |a: &TestDelta, b: &TestDelta| {
            let span = delta_span(0, 0, &[a.clone(), b.clone()]);
            span.rows[0].identity == span.rows[1].identity
        };
        let one = delta(0);
        assert!(same(&one, &TestDelta { received_at: 9, ..one.clone() }));
        assert!(!same(&one, &TestDelta { exchange_ts: 9, ..one.clone() }));
        assert!(!same(&one, &TestDelta { ticker: "KXGOLD-T2".into(), ..one.clone() }));
        assert!(!same(&one, &TestDelta { price: 9, ..one.clone() }));
        assert!(!same(&one, &TestDelta { occurrence: 2, ..one.clone() }));
    }

    #[test]
    fn a_hole_is_never_stepped_over() {
        let table = &ORDERBOOK_DELTAS;
        let rows = [delta(0), delta(1)];
        let hole = parse(table, request(4, 7), encode_deltas(6, &rows), true);
        assert_eq!(hole.unwrap_err(), SpanError::Hole { expected: 5, found: 6 });
        let short = parse(table, request(4, 7), encode_deltas(5, &rows), true);
        assert_eq!(short.unwrap_err(), SpanError::Short { expected: 7 });
        let empty = parse(table, request(4, 7), encode_deltas(5, &[]), true);
        assert_eq!(empty.unwrap_err(), SpanError::Short { expected: 5 });
        let past = parse(table, request(4, 5), encode_deltas(5, &rows), true);
        assert_eq!(past.unwrap_err(), SpanError::Hole { expected: 6, found: 6 });
    }

    #[test]
    fn a_read_that_was_stopped_ends_at_its_last_row() {
        let mut data = encode_deltas(5, &[delta(0), delta(1)]);
        data.truncate(data.len() - 2);
        let span = parse(&ORDERBOOK_DELTAS, request(4, 90), data, false).unwrap();
        assert_eq!((span.through, span.rows.len()), (6, 2));
    }

    #[test]
    fn another_schema_is_refused() {
        let result = parse(&COVERAGE, request(4, 5), encode_deltas(5, &[delta(0)]), true);
        assert!(matches!(result, Err(SpanError::Malformed { .. })));
        let result = parse(&COVERAGE, request(4, 5), copy_header(), true);
        assert!(matches!(result, Err(SpanError::Malformed { .. })));
    }

    #[test]
    fn gatherers_share_identities_only_where_they_should() {
        assert_eq!(identity_seed(&ORDERBOOK_DELTAS, 5, 0), identity_seed(&ORDERBOOK_DELTAS, 5, 1));
        assert_ne!(identity_seed(&COVERAGE, 5, 0), identity_seed(&COVERAGE, 5, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut tail in prop::collection::vec(any::<u8>(), 0..300), header: bool) {
            let mut data = if header { copy_header() } else { Vec::new() };
            data.append(&mut tail);
            let _result = parse(&ORDERBOOK_DELTAS, request(0, 3), data, true);
        }

        #[test]
        fn no_truncation_passes_as_whole(keep in 0usize..190) {
            let mut data = encode_deltas(1, &[delta(0), delta(1)]);
            data.truncate(keep.min(data.len() - 1));
            prop_assert!(parse(&ORDERBOOK_DELTAS, request(0, 2), data, true).is_err());
        }
    }
}
