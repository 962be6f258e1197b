//! What must hold of any damage to any journal. Fuzzing looks for damage with which it does not.
//!
//! Its bytes are a script, so that most of them mean something and that inputs can be kept as text. A
//! letter is an operation; its numbers follow in hexadecimal, each in a fixed count of digits; all other
//! characters are passed over between operations, and blanks everywhere. `S` is a segment, `PPP` a place
//! in it; both are taken modulo what is there.
//!
//! | operation | does |
//! |---|---|
//! | `s` | begins a segment |
//! | `p` | begins one of another process |
//! | `rKLL` | appends a record of kind K with a payload of LL bytes |
//! | `zS` | seals |
//! | `xSPPPVV` | changes a byte by exclusive or |
//! | `cSPPP` | cuts |
//! | `iSPPPNVV..` | inserts N bytes |
//! | `dSPPPNN` | removes NN bytes |
//! | `wSPPPQQQNN` | swaps the NN bytes at two places |
//! | `lSPPP` | puts the right checksum to what stands there, were it a record |
//! | `mS` | removes the segment |
//! | `kS` | keeps it plain also beside its sealed form |
//! | `t` | leaves what a dead process had begun |
//! | `fPPPP` | reads from that place on |

use std::fs;
use std::path::Path;

use bytes::Bytes;
use tokio::sync::watch;

use super::reader::Hole;
use super::record::{self, HEADER_BYTES, Parsed};
use super::{Item, Kind, Position, RESTART_HOLE_BYTES, Reader, Record, segment};
use crate::model::Micros;

/// Makes the journal that a script describes, opens it as a process does, reads it, and checks what is
/// read.
///
/// # Panics
/// When it is not what it must be.
pub fn check(script: &[u8]) {
    let made = Made::by(script);
    // Memory where there is some: what a disk does is not what is tried.
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    let dir = dir.expect("a directory can be made");
    made.write(dir.path()).expect("segments can be written");
    let (end, _cut) = segment::recover(dir.path()).expect("a damaged journal opens");
    let again = segment::recover(dir.path()).expect("it opens again");
    assert_eq!(again, (end, 0), "what was cut is cut once");
    // A new process begins to write.
    let begin = end.map_or(0, |end| end + RESTART_HOLE_BYTES);
    let mut bytes = Vec::new();
    record::encode(&mut bytes, Kind::Start, 0, NOW, b"");
    fs::write(segment::plain_path(dir.path(), begin), &bytes).expect("a segment can be written");
    let written = begin + count(bytes.len());

    let stored = stored(dir.path());
    let from = if made.from < begin { made.from } else { 0 };
    let (_sender, announced) = watch::channel(written);
    let mut reader = Reader::over(dir.path().to_owned(), announced, Position(from));
    // No item without a byte of its own, or a hole that ends at one.
    let items_max: usize = 2 * stored.iter().map(|(_, bytes)| 1 + bytes.len()).sum::<usize>();
    let mut items = Vec::new();
    while let Some(item) = reader.next().expect("a damaged journal is read") {
        items.push(item);
        assert!(items.len() <= items_max, "reading does not end");
    }
    follows(&items, from, &stored);
    assert!(
        matches!(items.last(), Some(Item::Record(at, record)) if at.0 == begin && record.kind == Kind::Start),
        "what was written last is not what is read last: {:?}",
        items.last()
    );
    if made.is_whole {
        let given = items.iter().filter_map(|item| match item {
            Item::Record(at, _) if at.0 < begin => Some(at.0),
            _ => None,
        });
        let given: Vec<u64> = given.collect();
        // A place inside a record is where nobody stands: reading begins behind it.
        let wanted: Vec<u64> = made.records.iter().copied().filter(|at| *at >= from).collect();
        assert_eq!(given, wanted, "a journal without damage is read from {from} on");
    }
}

/// Nothing is given that is not there, nothing is passed over that is not told.
fn follows(items: &[Item], from: u64, stored: &[(u64, Bytes)]) {
    let mut at = from;
    for (number, item) in items.iter().enumerate() {
        let (begin, end, is_start) = match item {
            Item::Hole(Hole { from, to, .. }) => (from.0, to.0, false),
            Item::Record(position, record) => {
                let end = position.0 + is_stored(position.0, record, stored);
                (position.0, end, record.kind == Kind::Start)
            }
        };
        // Before the first there is nothing to miss; a process that begins leaves a jump.
        if number == 0 || is_start {
            at = at.max(begin);
        }
        assert!(begin == at && end > begin, "behind {at} comes {item:?}");
        at = end;
    }
}

/// The length of a record that was given, which must stand at its place with its checksum.
fn is_stored(at: u64, record: &Record, stored: &[(u64, Bytes)]) -> u64 {
    let Record { kind, session, received_at, payload } = record;
    let mut bytes = Vec::new();
    record::encode(&mut bytes, *kind, *session, *received_at, payload);
    let is_there = stored.iter().any(|(base, segment)| {
        let offset = at.checked_sub(*base).and_then(|offset| usize::try_from(offset).ok());
        let rest = offset.and_then(|offset| segment.get(offset..));
        rest.is_some_and(|rest| rest.starts_with(&bytes))
    });
    assert!(is_there, "a record at {at} that is in no segment: {record:?}");
    count(bytes.len())
}

/// The bytes of all segments as they can be read.
fn stored(dir: &Path) -> Vec<(u64, Bytes)> {
    let segments = segment::list(dir).expect("a journal can be listed");
    let read = |segment: &segment::Segment| match segment.sealed {
        true => segment::read_sealed(segment).map(|(bytes, _)| bytes),
        false => fs::read(&segment.path),
    };
    let bytes = |segment: &segment::Segment| read(segment).expect("a segment can be read");
    segments.iter().map(|segment| (segment.base, Bytes::from(bytes(segment)))).collect()
}

const NOW: Micros = Micros(1_785_901_541_000_000);

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A segment before it is a file.
struct Segment {
    base: u64,
    bytes: Vec<u8>,
    /// The same plain, once it is sealed.
    plain: Option<Vec<u8>>,
    is_twice: bool,
}

/// What a script makes.
struct Made {
    segments: Vec<Segment>,
    /// Where records begin.
    records: Vec<u64>,
    /// Where the next record begins.
    end: u64,
    /// Whether nothing was damaged.
    is_whole: bool,
    leaves_half: bool,
    from: u64,
}

impl Made {
    fn by(script: &[u8]) -> Self {
        let mut made = Self {
            segments: Vec::new(),
            records: Vec::new(),
            end: 0,
            is_whole: true,
            leaves_half: false,
            from: 0,
        };
        let mut script = Script { rest: script };
        while let Some((operation, rest)) = script.rest.split_first() {
            script.rest = rest;
            if made.run(*operation, &mut script).is_none() {
                break;
            }
        }
        made
    }

    /// One operation; none at the end of the script.
    fn run(&mut self, operation: u8, script: &mut Script<'_>) -> Option<()> {
        match operation {
            b's' => self.begin(),
            b'p' => {
                self.end = if self.segments.is_empty() { 0 } else { self.end + RESTART_HOLE_BYTES };
                self.begin();
                self.append(Kind::Start, 0);
            }
            b'r' => {
                let kinds = [Kind::Frame, Kind::Event, Kind::Pause, Kind::Poll, Kind::Start];
                let kind = *kinds.get(script.number(1)? % kinds.len())?;
                let len = script.number(2)?;
                if self.segments.last().is_none_or(|segment| segment.plain.is_some()) {
                    self.begin();
                }
                self.append(kind, len);
            }
            b't' => self.leaves_half = true,
            b'f' => self.from = count(script.number(4)?),
            b'z' | b'k' | b'm' => {
                let place = script.number(1)?.checked_rem(self.segments.len());
                match (operation, place) {
                    (_, None) => {}
                    (b'z', Some(at)) => self.segments.get_mut(at)?.seal(),
                    (b'k', Some(at)) => self.segments.get_mut(at)?.is_twice = true,
                    (_, Some(at)) => {
                        self.segments.remove(at);
                        self.is_whole = false;
                    }
                }
            }
            b'x' | b'c' | b'i' | b'd' | b'w' | b'l' => {
                let place = script.number(1)?.checked_rem(self.segments.len());
                let at = script.number(3)?;
                // What is said to an empty segment is read and does nothing.
                let nowhere = &mut Vec::new();
                let segment = place.and_then(|place| self.segments.get_mut(place));
                let bytes = segment.map_or(nowhere, |segment| &mut segment.bytes);
                self.is_whole = false;
                damage(operation, bytes, at, script)?;
            }
            _ => {}
        }
        Some(())
    }

    fn begin(&mut self) {
        // Two of one name are one file: an empty one makes way.
        self.segments.pop_if(|last| last.base == self.end);
        let (bytes, plain) = (Vec::new(), None);
        self.segments.push(Segment { base: self.end, bytes, plain, is_twice: false });
    }

    /// Appends a record to the last segment.
    fn append(&mut self, kind: Kind, len: usize) {
        let Some(segment) = self.segments.last_mut() else { return };
        let text = br#"{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"T"}}"#;
        let payload: Vec<u8> = text.iter().copied().cycle().take(len).collect();
        self.records.push(self.end);
        let session = i64::from(kind != Kind::Start);
        self.end += count(record::encode(&mut segment.bytes, kind, session, NOW, &payload));
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        for segment in &self.segments {
            let plain = segment::plain_path(dir, segment.base);
            let Some(bytes) = &segment.plain else {
                fs::write(plain, &segment.bytes)?;
                continue;
            };
            fs::write(plain.with_extension("journal.zst"), &segment.bytes)?;
            if segment.is_twice {
                fs::write(plain, bytes)?;
            }
        }
        if self.leaves_half {
            let half = segment::plain_path(dir, self.end).with_extension("journal.zst.tmp");
            fs::write(half, b"half")?;
            fs::write(dir.join("notes.journal"), b"no segment")?;
        }
        Ok(())
    }
}

impl Segment {
    /// As [`segment::seal`] does.
    fn seal(&mut self) {
        if self.plain.is_some() {
            return;
        }
        let encode = || -> std::io::Result<Vec<u8>> {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
            encoder.include_checksum(true)?;
            std::io::Write::write_all(&mut encoder, &self.bytes)?;
            encoder.finish()
        };
        let sealed = encode().expect("memory takes what is written");
        self.plain = Some(std::mem::replace(&mut self.bytes, sealed));
    }
}

/// Changes bytes at a place; none at the end of the script.
fn damage(operation: u8, bytes: &mut Vec<u8>, at: usize, script: &mut Script<'_>) -> Option<()> {
    let len = bytes.len();
    let at = at.checked_rem(len).unwrap_or_default();
    match operation {
        b'x' => {
            let value = u8::try_from(script.number(2)?).ok()?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        b'c' => bytes.truncate(at),
        b'i' => {
            let new: Option<Vec<u8>> = (0..script.number(1)?)
                .map(|_| script.number(2).and_then(|value| u8::try_from(value).ok()))
                .collect();
            bytes.splice(at..at, new?);
        }
        b'd' => {
            let end = at.saturating_add(script.number(2)?).min(len);
            bytes.drain(at..end);
        }
        b'w' => {
            let other = script.number(3)?.checked_rem(len).unwrap_or_default();
            for offset in 0..script.number(2)? {
                let (one, two) = (at + offset, other + offset);
                if one < len && two < len {
                    bytes.swap(one, two);
                }
            }
        }
        _ => sum(bytes, at),
    }
    Some(())
}

/// Writes the checksum that the record at a place would have, as long as it says to be.
fn sum(bytes: &mut [u8], at: usize) {
    let Some(rest) = bytes.get_mut(at..) else { return };
    let Some(body) = record::stated_len(rest).and_then(|end| rest.get(HEADER_BYTES..end)) else {
        return;
    };
    let crc = crc32fast::hash(body).to_le_bytes();
    if let Some(place) = rest.get_mut(4..HEADER_BYTES) {
        place.copy_from_slice(&crc);
    }
    // Whatever it is now, reading it ends.
    let is_short = matches!(record::parse(rest), Parsed::Short(_));
    assert!(!is_short, "a record that is there is not short");
}

/// What is left of a script.
struct Script<'a> {
    rest: &'a [u8],
}

impl Script<'_> {
    /// The next digits as a number; none when there are too few. What is no digit counts by its low bits,
    /// so that no byte is wrong.
    fn number(&mut self, digits: u32) -> Option<usize> {
        let mut number = 0;
        for _ in 0..digits {
            let digit = loop {
                let (first, rest) = self.rest.split_first()?;
                self.rest = rest;
                if !first.is_ascii_whitespace() {
                    break *first;
                }
            };
            let value = char::from(digit).to_digit(16).unwrap_or(u32::from(digit) & 15);
            number = number * 16 + usize::try_from(value).ok()?;
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::ops::corpus;

    #[test]
    fn what_fuzzing_begins_with_holds() {
        corpus::replay("fuzz/corpus/journal", check);
    }
}
