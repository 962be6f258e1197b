//! The inputs that fuzzing begins with, and those that it once found something by: tests replay them.

use std::fs;
use std::path::Path;

/// Gives each file of a folder of the repository to `check`, which panics at one that it refuses.
pub fn replay(folder: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_file());
    assert!(!paths.is_empty(), "no input in {}", folder.display());
    paths.sort();
    for path in paths {
        // The last one that is named is the one that failed.
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
    }
}
