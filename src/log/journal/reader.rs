//! The reading side: records in order from a position on, through sealed and open segments, and
//! then as they are written. What is damaged is stepped over and told.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::watch;

use super::record::{self, Kind, PAYLOAD_AT, Parsed, Record};
use super::segment;
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
    /// Base of the segment that is or was read last.
    base: Option<u64>,
    buffer: Bytes,
    /// Where what was stepped over begins, and in which file, until it is told.
    lost: Option<Lost>,
}

/// What comes next in the journal.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A record and where it begins.
    Record(Position, Record),
    /// Records are missing or damaged here.
    Hole(Hole),
}

/// A part of the journal that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    pub from: Position,
    /// Where the next whole record begins.
    pub to: Position,
    /// The segment in which it begins.
    pub path: PathBuf,
}

struct Lost {
    from: u64,
    path: PathBuf,
    /// Positions jumped between two segments, which is no loss when a process began behind them.
    only_jumped: bool,
}

enum Source {
    /// Between segments.
    None,
    /// The rest of a sealed segment is in the buffer. When it could not be decompressed to its end,
    /// places behind its first damage cannot be trusted.
    Sealed { path: PathBuf, whole: bool },
    /// An open segment: the file, and its base.
    Plain { file: File, base: u64, path: PathBuf },
}

enum Filled {
    More,
    /// Everything that was written has been read.
    End,
    /// The record can never become whole.
    Never,
}

impl Reader {
    /// A reader that starts at the first record at or after `from`.
    pub fn open(journal: &Journal, from: Position) -> Self {
        Self::over(journal.dir().to_owned(), journal.written(), from)
    }

    /// The same of a directory whose records are written up to `written`.
    pub(super) fn over(dir: PathBuf, written: watch::Receiver<u64>, from: Position) -> Self {
        Self {
            dir,
            written,
            at: from.0,
            source: Source::None,
            base: None,
            buffer: Bytes::new(),
            lost: None,
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

    /// Where the next record begins, or where it would. Before a hole that was not told yet.
    pub fn position(&self) -> Position {
        Position(self.lost.as_ref().map_or(self.at, |lost| lost.from))
    }

    /// Whether every written record has been read.
    #[cfg(test)]
    pub fn is_caught_up(&self) -> bool {
        self.at >= *self.written.borrow()
    }

    /// The next record or hole; none when every written record has been read.
    ///
    /// # Errors
    /// When a segment cannot be read at all, for instance for want of permission.
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            match record::parse(&self.buffer) {
                Parsed::Whole(head, len) => {
                    if let Some(hole) = self.hole_before(Some(head.kind)) {
                        return Ok(Some(Item::Hole(hole)));
                    }
                    let position = Position(self.at);
                    let payload = self.buffer.slice(PAYLOAD_AT..len);
                    self.advance(len);
                    let record::Head { kind, session, received_at } = head;
                    let record = Record { kind, session, received_at, payload };
                    return Ok(Some(Item::Record(position, record)));
                }
                Parsed::Short(needed) => match self.fill(needed)? {
                    Filled::More => {}
                    Filled::End => return Ok(self.hole_before(None).map(Item::Hole)),
                    Filled::Never => self.step_over(),
                },
                Parsed::Corrupt => self.step_over(),
            }
        }
    }

    /// The hole that ends here, if one does. A jump is one unless a process began behind it: the
    /// positions skipped at a start never held anything.
    fn hole_before(&mut self, next: Option<Kind>) -> Option<Hole> {
        if next.is_none() && self.lost.as_ref().is_some_and(|lost| lost.only_jumped) {
            return None;
        }
        let lost = self.lost.take()?;
        if lost.only_jumped && next == Some(Kind::Start) {
            return None;
        }
        Some(Hole { from: Position(lost.from), to: Position(self.at), path: lost.path })
    }

    fn advance(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        // A buffer is never longer than a file.
        self.at += u64::try_from(bytes).unwrap_or_default();
    }

    /// Moves to the next place that could be a record.
    fn step_over(&mut self) {
        let path = match &self.source {
            Source::Sealed { path, .. } | Source::Plain { path, .. } => path.clone(),
            Source::None => self.dir.clone(),
        };
        let lost = self.lost.get_or_insert(Lost { from: self.at, path, only_jumped: false });
        lost.only_jumped = false;
        let bytes = match &self.source {
            Source::Sealed { whole: false, .. } => self.buffer.len(),
            _ => record::next_candidate(&self.buffer),
        };
        self.advance(bytes);
    }

    /// Brings at least `needed` bytes into the buffer, or moves to the next segment.
    fn fill(&mut self, needed: usize) -> Result<Filled> {
        let written = *self.written.borrow_and_update();
        let Some(left) = written.checked_sub(self.at).filter(|left| *left > 0) else {
            return Ok(Filled::End);
        };
        if u64::try_from(needed)? > left {
            // What was written are whole records, so a length that reaches past it is wrong.
            return Ok(Filled::Never);
        }
        match &self.source {
            Source::Plain { file, base, .. } => {
                let have = self.buffer.len();
                let offset = self.at - base + u64::try_from(have)?;
                let left = usize::try_from(left).unwrap_or(usize::MAX).saturating_sub(have);
                let want = left.min(READ_BYTES).max(needed.saturating_sub(have));
                let mut bytes = BytesMut::zeroed(have + want);
                let (old, new) = bytes.split_at_mut(have);
                old.copy_from_slice(&self.buffer);
                let read = file.read_at(new, offset).context("read journal")?;
                if read > 0 {
                    bytes.truncate(have + read);
                    self.buffer = bytes.freeze();
                    return Ok(Filled::More);
                }
                if have > 0 { Ok(Filled::Never) } else { self.next_segment() }
            }
            Source::Sealed { .. } if !self.buffer.is_empty() => Ok(Filled::Never),
            Source::Sealed { .. } | Source::None => self.next_segment(),
        }
    }

    /// Opens the segment that holds `self.at`, or the first one after what was read.
    fn next_segment(&mut self) -> Result<Filled> {
        let cut_short = matches!(self.source, Source::Sealed { whole: false, .. });
        let segments = segment::list(&self.dir)?;
        let holding = match self.base {
            Some(_) => None,
            None => segments.iter().rfind(|segment| segment.base <= self.at),
        };
        let after = self.base.unwrap_or(self.at);
        let later = segments.iter().filter(|segment| segment.base > after);
        for segment in holding.into_iter().chain(later) {
            let skip = self.at.saturating_sub(segment.base);
            if segment.sealed {
                let (bytes, whole) = match segment::read_sealed(segment) {
                    Ok(read) => read,
                    // Removed since the listing: list again.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Filled::More);
                    }
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("read segment {}", segment.path.display()));
                    }
                };
                let mut bytes = Bytes::from(bytes);
                if u64::try_from(bytes.len())? <= skip {
                    self.base = Some(segment.base);
                    continue;
                }
                bytes.advance(usize::try_from(skip)?);
                self.buffer = bytes;
                self.source = Source::Sealed { path: segment.path.clone(), whole };
            } else {
                let file = match File::open(&segment.path) {
                    Ok(file) => file,
                    // Sealed since the listing: list again.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Filled::More);
                    }
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("open segment {}", segment.path.display()));
                    }
                };
                if file.metadata()?.len() <= skip {
                    self.base = Some(segment.base);
                    continue;
                }
                let path = segment.path.clone();
                self.source = Source::Plain { file, base: segment.base, path };
            }
            let knows_before = self.base.is_some() || self.at > 0;
            if segment.base > self.at && knows_before {
                let path = segment.path.clone();
                self.lost.get_or_insert(Lost { from: self.at, path, only_jumped: !cut_short });
            }
            self.at = self.at.max(segment.base);
            self.base = Some(segment.base);
            return Ok(Filled::More);
        }
        Ok(Filled::End)
    }
}
