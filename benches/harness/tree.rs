//! The simulated usbfs of `testkit/usbfs` under a server: its directory and its counters. Linux
//! only; benches include the file by its path.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::measure::Usbfs;

/// A directory with the tree of a simulated usbfs; gone with the bench.
pub(crate) struct Tree {
    root: PathBuf,
    /// The plugged devices, in the form of `testkit/usbfs`'s options.
    devices: &'static str,
}

impl Tree {
    /// An empty directory for a server's simulated usbfs.
    pub(crate) fn new(scratch: &Path, name: &str, devices: &'static str) -> Result<Self, String> {
        let root = scratch.join(format!("usbfs-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(Self { root, devices })
    }

    /// The environment variables for the start of a server.
    pub(crate) fn environment(&self, library: &Path) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", library.into()),
            ("USBFERRY_USBFS_ROOT", self.root.clone().into()),
            ("USBFERRY_USBFS", self.devices.into()),
        ]
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Files left over are below target.
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
