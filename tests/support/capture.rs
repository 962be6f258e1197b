//! The recorded windows of the real exchange, which tests and benchmarks replay.

use std::path::{Path, PathBuf};

/// The windows' files in order: from the directory that `KALSHI_CAPTURE` names, else from the one beside
/// the checkout.
///
/// # Panics
/// When there are none: what lacks its real input has shown nothing.
pub fn windows() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/kxgold15m");
    let named = std::env::var_os("KALSHI_CAPTURE").filter(|dir| !dir.is_empty());
    let dir = named.map_or(beside, PathBuf::from);
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".ndjson.gz"));
    files.sort();
    let place = dir.display();
    assert!(
        !files.is_empty(),
        "no recorded windows in {place}: KALSHI_CAPTURE says where they are"
    );
    files
}
