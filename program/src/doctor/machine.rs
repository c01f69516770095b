//! The machine under examination: files below a root directory, and the system's answer to opening
//! a device's node. A test has a root of its own.
//!
//! Contract: *blocks*: reads files. Whatever the system writes, at most [`TEXT_MAX`] bytes of a
//! file and [`NAMES_MAX`] names of a directory are read. A file that can't be read is no file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::sorted::sort_by;

/// Bytes read of a file at most: the list of sockets of a busy server has some megabytes.
const TEXT_MAX: u64 = 16 << 20;

/// Names read of a directory at most: as many as Linux has processes by default, with some to spare
/// (`PID_MAX_DEFAULT` of `include/linux/threads.h`).
const NAMES_MAX: usize = 1 << 16;

/// A machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
    /// Opens a node as an export does, and closes the node.
    open: fn(&Path) -> io::Result<()>,
}

impl Machine {
    /// This machine.
    pub(super) fn here() -> Self {
        Self::at(PathBuf::from("/"), open_node)
    }

    /// A machine with its files below `root`.
    pub(super) const fn at(root: PathBuf, open: fn(&Path) -> io::Result<()>) -> Self {
        Self { root, open }
    }

    /// The place of a file, given by its path on the machine.
    pub(super) fn path(&self, at: &str) -> PathBuf {
        self.root.join(at.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, at: &str) -> bool {
        self.path(at).exists()
    }

    /// The text of a file, without spaces at the ends.
    pub(super) fn text(&self, at: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(at)).ok()?;
        file.take(TEXT_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, at: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(at)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(NAMES_MAX).collect();
        sort_by(&mut names, Ord::cmp);
        names
    }

    /// The text of a symbolic link.
    pub(super) fn link(&self, at: &str) -> Option<String> {
        fs::read_link(self.path(at)).ok()?.into_os_string().into_string().ok()
    }

    /// The last part of a symbolic link: in sysfs, the name of a driver.
    pub(super) fn link_name(&self, at: &str) -> Option<String> {
        self.link(at)?.rsplit('/').next().map(str::to_owned)
    }

    /// Opens a device's node as an export does, and closes the node.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open_node(&self, at: &str) -> io::Result<()> {
        (self.open)(&self.path(at))
    }

    /// The kernel's release, such as `6.1.0-13-amd64`.
    pub(super) fn release(&self) -> String {
        self.text("/proc/sys/kernel/osrelease").unwrap_or_default()
    }

    /// The numbers behind a name in this process's status: `Uid` (the second is the effective user)
    /// and `Groups`.
    pub(super) fn status(&self, name: &str) -> Vec<u32> {
        let status = self.text("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let numbers = line.unwrap_or_default().split_whitespace();
        numbers.filter_map(|number| number.parse().ok()).collect()
    }

    /// Whether this process is root's.
    pub(super) fn is_root(&self) -> bool {
        self.status("Uid").get(1) == Some(&0)
    }
}

/// Opens a node for writing, which usbfs takes for no use of the device yet.
fn open_node(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}
