//! One record of the journal and its bytes on disk.
//!
//! `len: u32 | crc32: u32 | kind: u8 | session: i64 | received_at: i64 | payload`, little-endian; `len`
//! counts from `kind` on and the checksum covers the same bytes.

use bytes::Bytes;

use super::PAYLOAD_BYTES_MAX;
use crate::model::Micros;

/// Bytes of `len` and the checksum.
pub const HEADER_BYTES: usize = 8;
/// Bytes between the header and the payload.
const FIXED_BYTES: usize = 17;
/// Bytes before the payload.
pub const PAYLOAD_AT: usize = HEADER_BYTES + FIXED_BYTES;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A frame as it left the socket.
    Frame,
    /// Something that a session did, as JSON.
    Event,
    /// A process began to write here. Sessions before it are dead.
    Start,
    /// The session had to wait for the journal until now and read nothing from its socket
    /// meanwhile; the payload is the microseconds that it waited (`i64`). Its next record is the
    /// one that waited.
    Pause,
    /// A reply of REST, behind a line of ours.
    Poll,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Frame => 1,
            Self::Event => 2,
            Self::Start => 3,
            Self::Pause => 4,
            Self::Poll => 5,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Frame),
            2 => Some(Self::Event),
            3 => Some(Self::Start),
            4 => Some(Self::Pause),
            5 => Some(Self::Poll),
            _ => None,
        }
    }
}

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    /// The connection that it came from; 0 for [`Kind::Start`].
    pub session: i64,
    /// Our clock when the frame left the socket.
    pub received_at: Micros,
    pub payload: Bytes,
}

/// What stands before a record's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub session: i64,
    pub received_at: Micros,
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole record and its length in bytes; its payload begins at [`PAYLOAD_AT`].
    Whole(Head, usize),
    /// The bytes end before the record does; this many are needed at least.
    Short(usize),
    /// The bytes cannot be a record, or their checksum is wrong.
    Corrupt,
}

/// Appends a record's bytes to `out` and returns their length.
pub fn encode(
    out: &mut Vec<u8>,
    kind: Kind,
    session: i64,
    received_at: Micros,
    payload: &[u8],
) -> usize {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the socket's limit keeps payloads smaller");
    let begin = out.len();
    let len = u32::try_from(FIXED_BYTES + payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(kind.byte());
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&received_at.0.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(out.get(begin + HEADER_BYTES..).unwrap_or_default());
    if let Some(place) = out.get_mut(begin + 4..begin + HEADER_BYTES) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    out.len() - begin
}

/// Reads the record at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let Some((len, crc)) = header(bytes) else {
        return Parsed::Short(HEADER_BYTES);
    };
    if !(FIXED_BYTES..=FIXED_BYTES + PAYLOAD_BYTES_MAX).contains(&len) {
        return Parsed::Corrupt;
    }
    let whole = HEADER_BYTES + len;
    let Some(body) = bytes.get(HEADER_BYTES..whole) else {
        return Parsed::Short(whole);
    };
    if crc32fast::hash(body) != crc {
        return Parsed::Corrupt;
    }
    let number = |at: usize| {
        let bytes = body.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        bytes.map(i64::from_le_bytes)
    };
    let kind = body.first().copied().and_then(Kind::from_byte);
    let (Some(kind), Some(session), Some(received_at)) = (kind, number(1), number(9)) else {
        return Parsed::Corrupt;
    };
    Parsed::Whole(Head { kind, session, received_at: Micros(received_at) }, whole)
}

/// The length in bytes that the header at the beginning of `bytes` states, whatever follows it.
pub fn stated_len(bytes: &[u8]) -> Option<usize> {
    header(bytes).map(|(len, _)| HEADER_BYTES + len)
}

/// How far from the beginning of `bytes`, which is no record, the next place is that could be one
/// by its length and kind. The length of `bytes` when there is none.
///
/// No place inside a JSON text qualifies: as a length, four of its characters are far too large.
pub fn next_candidate(bytes: &[u8]) -> usize {
    // The highest byte of a length is at most 4, which nearly every byte of a frame exceeds.
    let highest = u8::try_from((FIXED_BYTES + PAYLOAD_BYTES_MAX) >> 24).unwrap_or(u8::MAX);
    let mut at = 1;
    while let Some(rest) = bytes.get(at..) {
        if rest.len() <= HEADER_BYTES {
            // Too short to be told: it may go on in bytes that are not here yet.
            return at.min(bytes.len());
        }
        let possible = rest.get(3).is_some_and(|byte| *byte <= highest)
            && rest.get(HEADER_BYTES).copied().and_then(Kind::from_byte).is_some()
            && header(rest).is_some_and(|(len, _)| {
                (FIXED_BYTES..=FIXED_BYTES + PAYLOAD_BYTES_MAX).contains(&len)
            });
        if possible {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

fn header(bytes: &[u8]) -> Option<(usize, u32)> {
    let len = <[u8; 4]>::try_from(bytes.get(..4)?).ok()?;
    let crc = <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?;
    Some((usize::try_from(u32::from_le_bytes(len)).ok()?, u32::from_le_bytes(crc)))
}
