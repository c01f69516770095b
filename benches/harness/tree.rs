//! The simulated usbfs of `testkit/usbfs` under a server: its directory and its counters. Linux
//! only; benches include the file by its path.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::harness::measure::Usbfs;

/// A file system in memory, as sysfs, usbfs and `/run` are; on a disk, the server's note of an open
/// device would cost a write to the disk.
const MEMORY: &str = "/dev/shm";

/// A directory with the tree of a simulated usbfs; gone with the bench.
pub(crate) struct Tree {
    root: PathBuf,
    /// The plugged devices, in the form of `testkit/usbfs`'s options.
    devices: &'static str,
}

impl Tree {
    /// An empty directory for a server's simulated usbfs.
    pub(crate) fn new(scratch: &Path, name: &str, devices: &'static str) -> Result<Self, String> {
        let memory = Path::new(MEMORY);
        let place = if memory.is_dir() { memory } else { scratch };
        let root = place.join(format!("usbferry-bench-{name}-{}", std::process::id()));
        make(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(Self { root, devices })
    }

    /// The environment variables for the start of a server.
    pub(crate) fn environment(&self, library: &Path) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", library.into()),
            ("RUNTIME_DIRECTORY", self.root.join("run").into()),
            ("USBFERRY_USBFS_ROOT", self.root.clone().into()),
            ("USBFERRY_USBFS", self.devices.into()),
        ]
    }
}

/// Makes the directory, and in it a directory for the server's notes, which no other user may write
/// in.
fn make(root: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join("run"))
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A directory left over is empty memory, or below target.
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Usbfs for Tree {
    /// The counters of `testkit/usbfs/src/record.rs`: five kinds of calls, then the system
    /// calls of the simulation.
    fn counted(&self) -> [u64; 2] {
        let counters = fs::read(self.root.join("counters")).unwrap_or_default();
        let nodes = counters.as_chunks::<64>().0;
        let word = |node: &[u8; 64], index: usize| u64::from_le_bytes(node.as_chunks().0[index]);
        let calls = nodes.iter().map(|node| (0..5).map(|i| word(node, i)).sum::<u64>()).sum();
        [calls, nodes.iter().map(|node| word(node, 5)).sum()]
    }
}
