//! Segment files: their names, their listing, their sealing, and the cut of a torn tail.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tracing::warn;

use super::record::{self, Parsed};

/// Level 1 compresses frames about eight times at several hundred MB/s; higher levels cost far
/// more than they save.
const ZSTD_LEVEL: i32 = 1;
const PLAIN: &str = "journal";
const SEALED: &str = "journal.zst";

/// A file of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Position of its first record.
    pub base: u64,
    pub sealed: bool,
    pub path: PathBuf,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// When it was last written.
    pub modified: std::time::SystemTime,
}

/// The path of an open segment.
pub fn plain_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.{PLAIN}"))
}

fn sealed_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.{SEALED}"))
}

/// All segments, oldest first. A segment that is there twice (sealed, but the process died before
/// it removed the plain file) is listed sealed, because the rename happens last.
pub fn list(dir: &Path) -> Result<Vec<Segment>> {
    // The kernel tells a long directory in pieces. A segment that is sealed between two of them may be
    // in neither: its new name came behind the reader, its old one went before it. A second look finds
    // the new one.
    let mut bases = BTreeSet::new();
    for _ in 0..2 {
        for entry in fs::read_dir(dir).with_context(|| format!("list journal {}", dir.display()))? {
            let name = entry?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('.'));
            let named = parts.filter(|(_, suffix)| [PLAIN, SEALED].contains(suffix));
            bases.extend(named.and_then(|(base, _)| base.parse::<u64>().ok()));
        }
    }
    let found = bases.into_iter().filter_map(|base| find(dir, base).transpose());
    found.collect::<io::Result<_>>().context("look at a journal segment")
}

/// A segment under the name that it has now; none when it was pruned.
fn find(dir: &Path, base: u64) -> io::Result<Option<Segment>> {
    let (plain, sealed) = (plain_path(dir, base), sealed_path(dir, base));
    // One that is not sealed at first and not plain then was sealed in between.
    for (is_sealed, path) in [(true, &sealed), (false, &plain), (true, &sealed)] {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        return Ok(Some(Segment {
            base,
            sealed: is_sealed,
            path: path.clone(),
            disk_bytes: metadata.len(),
            modified: metadata.modified()?,
        }));
    }
    Ok(None)
}

/// The bytes of all files of the directory: segments, also while they are being sealed, and what
/// little there is beside them.
pub fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("list journal {}", dir.display()))? {
        match entry?.metadata() {
            Ok(metadata) => sum += metadata.len(),
            // Sealed or pruned since its name was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("look at a file of the journal"),
        }
    }
    Ok(sum)
}

/// The records' bytes of a sealed segment, and whether that is all of them: one that is damaged
/// gives what stands before the damage.
pub fn read_sealed(segment: &Segment) -> io::Result<(Vec<u8>, bool)> {
    let file = File::open(&segment.path)?;
    let mut bytes = Vec::new();
    // Bytes that are no zstd at all are as damaged as those that stop being it.
    let whole = zstd::Decoder::new(file).and_then(|mut d| d.read_to_end(&mut bytes)).is_ok();
    Ok((bytes, whole))
}

/// Compresses a full segment and removes the plain file. Killed at any moment, it leaves either;
/// what it had begun is removed when it fails, for instance on a full disk.
pub fn seal(dir: &Path, base: u64) -> Result<()> {
    let plain = plain_path(dir, base);
    let sealed = sealed_path(dir, base);
    let temporary = sealed.with_extension("zst.tmp");
    let run = || -> io::Result<()> {
        let mut source = File::open(&plain)?;
        let mut encoder = zstd::Encoder::new(File::create(&temporary)?, ZSTD_LEVEL)?;
        encoder.include_checksum(true)?;
        io::copy(&mut source, &mut encoder)?;
        let mut file = encoder.finish()?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&temporary, &sealed)?;
        sync_dir(dir)?;
        fs::remove_file(&plain)
    };
    let result = run();
    if result.is_err() {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, path = %temporary.display(), "remove a half sealed segment");
            }
            _ => {}
        }
    }
    result.with_context(|| format!("seal journal segment {}", plain.display()))
}

/// Makes renames and new files of a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes what a dead process left half done, and cuts the torn tail of the last segment.
/// Returns the position after the last whole record, none without a segment, and the bytes cut.
pub fn recover(dir: &Path) -> Result<(Option<u64>, u64)> {
    for entry in fs::read_dir(dir).with_context(|| format!("list journal {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    let segments = list(dir)?;
    for segment in segments.iter().filter(|segment| segment.sealed) {
        let plain = plain_path(dir, segment.base);
        if plain.exists() {
            fs::remove_file(&plain).with_context(|| format!("remove {}", plain.display()))?;
        }
    }
    let Some(last) = segments.last() else {
        return Ok((None, 0));
    };
    let read = || -> io::Result<Vec<u8>> {
        if last.sealed { Ok(read_sealed(last)?.0) } else { fs::read(&last.path) }
    };
    let bytes = read().with_context(|| format!("read segment {}", last.path.display()))?;
    let whole = whole_bytes(&bytes);
    let mut cut = u64::try_from(bytes.len() - whole)?;
    if last.sealed {
        // Readers tell what a damaged one lacks; nothing is appended to it.
        cut = 0;
    } else if cut > 0 {
        let file = File::options().write(true).open(&last.path)?;
        file.set_len(u64::try_from(whole)?)?;
        file.sync_all().with_context(|| format!("cut {}", last.path.display()))?;
    }
    // A process that was killed may have left it to the kernel; from now on it is no longer the last.
    let file = File::open(&last.path)?;
    file.sync_all().with_context(|| format!("flush {}", last.path.display()))?;
    Ok((Some(last.base + u64::try_from(whole)?), cut))
}

/// The bytes of a segment up to the end of its last whole record. Damage before that stays: readers
/// step over it.
fn whole_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut whole = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match record::parse(rest) {
            Parsed::Whole(_, len) => {
                at += len;
                whole = at;
            }
            Parsed::Short(_) | Parsed::Corrupt => at += record::next_candidate(rest),
        }
    }
    whole
}
