//! The reading side: records in order from a position on, through sealed and open segments, and
//! then as they are written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::record::{self, Parsed, Record};
use super::segment::{self, Segment};
use super::{Journal, Position};

/// Bytes read from an open segment at once.
const READ_BYTES: usize = 1 << 20;

/// A cursor over the journal. Blocking: it runs on a thread of its own.
pub struct Reader {
    dir: PathBuf,
    written: watch::Receiver<u64>,
    /// Where the next record begins.
    at: u64,
    source: Source,
    buffer: Bytes,
}

enum Source {
    /// Between segments.
    None,
    /// The rest of a sealed segment is in the buffer.
    Sealed,
    /// An open segment: the file, and its base.
    Plain(File, u64),
}

impl Reader {
    /// A reader that starts at the first record at or after `from`.
    pub fn open(journal: &Journal, from: Position) -> Self {
        Self {
            dir: journal.dir().to_owned(),
            written: journal.written(),
            at: from.0,
            source: Source::None,
            buffer: Bytes::new(),
        }
    }

    /// The beginning of the segment before the one that holds `position`: where a reader starts
    /// that must know what stood shortly before.
    ///
    /// # Errors
    /// When the journal cannot be listed.
    pub fn warm_up(journal: &Journal, position: Position) -> Result<Position> {
        let segments = segment::list(journal.dir())?;
        let holding = segments.iter().rposition(|segment| segment.base <= position.0);
        let start = segments.get(holding.unwrap_or_default().saturating_sub(1));
        Ok(start.map_or(position, |segment| Position(segment.base.min(position.0))))
    }

    /// Where the next record begins, or where it would.
    pub fn position(&self) -> Position {
        Position(self.at)
    }

    /// Whether every written record has been read.
    #[cfg(test)]
    pub fn is_caught_up(&self) -> bool {
        self.at >= *self.written.borrow()
    }

    /// The next record and where it begins, or none when every written one has been read.
    ///
    /// # Errors
    /// When a segment cannot be read or is damaged in its middle.
    pub fn next(&mut self) -> Result<Option<(Position, Record)>> {
        loop {
            match record::parse(&self.buffer) {
                Parsed::Whole(record, len) => {
                    let position = Position(self.at);
                    self.at += u64::try_from(len)?;
                    self.buffer = self.buffer.slice(len..);
                    return Ok(Some((position, record)));
                }
                Parsed::Short(needed) => {
                    if !self.fill(needed)? {
                        return Ok(None);
                    }
                }
                Parsed::Corrupt => bail!(
                    "journal {} is damaged at position {}: the checksum of the record is wrong",
                    self.dir.display(),
                    self.at
                ),
            }
        }
    }

    /// Brings at least `needed` bytes into the buffer, or moves to the next segment. False when
    /// nothing more has been written.
    fn fill(&mut self, needed: usize) -> Result<bool> {
        let written = *self.written.borrow_and_update();
        if self.at >= written {
            return Ok(false);
        }
        match &self.source {
            Source::Plain(file, base) => {
                let offset = self.at - base + u64::try_from(self.buffer.len())?;
                let want = needed.saturating_sub(self.buffer.len()).max(READ_BYTES);
                let mut bytes = BytesMut::with_capacity(self.buffer.len() + want);
                bytes.extend_from_slice(&self.buffer);
                let have = bytes.len();
                bytes.resize(have + want, 0);
                let into = bytes.get_mut(have..).unwrap_or_default();
                let read = file.read_at(into, offset).context("read journal")?;
                bytes.truncate(have + read);
                self.buffer = bytes.freeze();
                if read > 0 {
                    return Ok(true);
                }
                // The end of this segment: what follows, if anything, begins a later one.
                self.next_segment()
            }
            Source::Sealed | Source::None => self.next_segment(),
        }
    }

    /// Opens the segment that holds `self.at`, or the first one after it.
    fn next_segment(&mut self) -> Result<bool> {
        if !self.buffer.is_empty() {
            // A torn record in the middle of the journal: it was never written whole, and what
            // follows begins a segment of its own.
            self.at += u64::try_from(self.buffer.len())?;
            self.buffer = Bytes::new();
        }
        let segments = segment::list(&self.dir)?;
        let mut candidates: Vec<&Segment> = Vec::new();
        candidates.extend(segments.iter().rfind(|segment| segment.base <= self.at));
        candidates.extend(segments.iter().find(|segment| segment.base > self.at));
        for segment in candidates {
            let skip = self.at.saturating_sub(segment.base);
            if segment.sealed {
                let bytes = Bytes::from(
                    segment::read_whole(segment)
                        .with_context(|| format!("read segment {}", segment.path.display()))?,
                );
                if u64::try_from(bytes.len())? <= skip {
                    continue;
                }
                self.buffer = bytes.slice(usize::try_from(skip)?..);
                self.source = Source::Sealed;
            } else {
                let file = match File::open(&segment.path) {
                    Ok(file) => file,
                    // Sealed since the listing: list again.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(true);
                    }
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("open segment {}", segment.path.display()));
                    }
                };
                if file.metadata()?.len() <= skip {
                    continue;
                }
                self.source = Source::Plain(file, segment.base);
            }
            self.at = self.at.max(segment.base);
            return Ok(true);
        }
        Ok(false)
    }
}
