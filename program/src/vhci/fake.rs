//! A kernel of files, for tests: the files of `vhci_hcd` below a directory of its own.
//!
//! Contract: tests only.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Vhci;

/// Ports 0 and 1 for USB 2, 2 and 3 for USB 3, all free; the test does the kernel's part.
pub(crate) struct FakeKernel(TempDir);

impl FakeKernel {
    pub(crate) fn new() -> Self {
        let kernel = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(kernel.controller()).unwrap();
        fs::create_dir_all(kernel.root().join("var/run")).unwrap();
        let free = |(port, hub)| format!("{hub}  {port:04} 004 000 00000000 000000 0-0\n");
        let ports = [(0, "hs"), (1, "hs"), (2, "ss"), (3, "ss")].map(free).concat();
        kernel.write("status", &format!("hub port sta spd dev      sockfd local_busid\n{ports}"));
        kernel.write("attach", "");
        kernel.write("detach", "");
        kernel
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn vhci(&self) -> Vhci {
        Vhci::below(self.root())
    }

    fn controller(&self) -> PathBuf {
        self.root().join("sys/devices/platform/vhci_hcd.0")
    }

    /// A file of the module.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.controller().join(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.controller().join(name), text).unwrap();
    }

    /// Has a high-speed device at a port, as `9-` and the port plus one.
    pub(crate) fn fill(&self, port: u32) {
        self.change(port, &format!("006 003 00010002 000003 9-{}", port + 1));
    }

    /// Has a port free.
    pub(crate) fn empty(&self, port: u32) {
        self.change(port, "004 000 00000000 000000 0-0");
    }

    fn change(&self, port: u32, rest: &str) {
        let number = format!("{port:04}");
        let change = |line: &str| match line.split_whitespace().nth(1) {
            Some(found) if found == number => format!("{}  {number} {rest}\n", &line[..2]),
            _ => format!("{line}\n"),
        };
        let status: String = self.read("status").lines().map(change).collect();
        // A reader sees the old status or the new, as in sysfs.
        self.write("status.new", &status);
        let [new, old] = ["status.new", "status"].map(|name| self.controller().join(name));
        fs::rename(new, old).unwrap();
    }

    /// Has sysfs describe a device of this machine.
    pub(crate) fn enumerate(&self, name: &str, vendor: &str, product: &str) {
        let directory = self.root().join("sys/bus/usb/devices").join(name);
        fs::create_dir_all(&directory).unwrap();
        let bus = name.split('-').next().unwrap();
        for (attribute, value) in
            [("idVendor", vendor), ("idProduct", product), ("busnum", bus), ("devnum", "2")]
        {
            fs::write(directory.join(attribute), format!("{value}\n")).unwrap();
        }
    }
}
