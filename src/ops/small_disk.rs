//! A small file system of its own, for tests of full disks.

use std::path::Path;
use std::process::Command;

/// A file system in memory with a fixed size, unmounted at the end.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounting needs root, as the machines of continuous integration give it.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(mib: u32) -> Self {
        let disk = Self { dir: tempfile::tempdir().expect("a directory") };
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "test"]);
        disk
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives it another size, without losing what is on it.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn resize(&self, mib: u32) {
        self.run("mount", &["-o", &format!("remount,size={mib}m")]);
    }

    /// Makes another user the owner.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn give(&self, user: &str) {
        self.run("chown", &[user]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).arg(self.path()).status();
        let done = status.is_ok_and(|status| status.success());
        assert!(done, "{program} {arguments:?}: a small disk needs root");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "unmount {:?}", self.path());
    }
}
