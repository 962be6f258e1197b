//! The official TypeScript client, as it is published: scripts of `tests/clients/typescript` beside its
//! packages.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a client's sources are.
pub fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a command to its end and gives its output.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(out).expect("text")
}

/// Where what the package manager installs is kept between runs, outside of the repository.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    set.map_or_else(home, PathBuf::from).join("kalshi-tests")
}

/// The packages of the lock file, installed once for each content of it.
fn node_modules(source: &Path) -> PathBuf {
    for program in ["node", "npm"] {
        let found = Command::new(program).arg("--version").output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "{program} is missing: .ci/install test installs it (Debian: nodejs, npm)"
        );
    }
    let files = ["package.json", "package-lock.json", ".npmrc"];
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(source.join(file)).expect("read what is to be installed").hash(&mut hasher);
    }
    let kept = cache().join(format!("typescript-{:016x}", hasher.finish()));
    if !kept.is_dir() {
        // Made beside and renamed, so that what is there is complete.
        fs::create_dir_all(cache()).expect("make the cache");
        let fresh = tempfile::tempdir_in(cache()).expect("make a directory");
        for file in files {
            fs::copy(source.join(file), fresh.path().join(file)).expect("copy");
        }
        output(Command::new("npm").arg("ci").current_dir(fresh.path()));
        // Somebody else may have been faster.
        let renamed = fs::rename(fresh.path(), &kept);
        assert!(renamed.is_ok() || kept.is_dir(), "{renamed:?}");
    }
    kept.join("node_modules")
}

/// A directory of this run's own with the scripts and the packages: scripts find these beside
/// themselves.
pub fn typescript() -> tempfile::TempDir {
    let source = client("typescript");
    let folder = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(node_modules(&source), folder.path().join("node_modules"))
        .expect("link the packages");
    for file in ["package.json", "check.mjs", "declared.mjs", "trades.mjs"] {
        fs::copy(source.join(file), folder.path().join(file)).expect("copy");
    }
    folder
}
