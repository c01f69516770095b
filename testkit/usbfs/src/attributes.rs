//! Open files of sysfs: some of their readers wait for a device's lock ([`locks`](crate::locks)),
//! and none gets more than a page at once.

use std::ffi::{CStr, OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{device, locks, paths, tree};

/// Descriptors of attributes have to be below this number.
const FDS_MAX: usize = 65_536;

/// Bytes of a read at most (`kernfs_file_read_iter`).
const READ_MAX: usize = 4096;

/// Marks a descriptor of any other file, and a descriptor of an attribute without a lock. Any other
/// value is a place in [`locks`].
const OTHER: u16 = u16::MAX;
const FREE: u16 = u16::MAX - 1;

static OPEN: [AtomicU16; FDS_MAX] = [const { AtomicU16::new(OTHER) }; FDS_MAX];

fn at(fd: c_int) -> Option<&'static AtomicU16> {
    OPEN.get(usize::try_from(fd).ok()?)
}

/// Notes an opened file; `path` is its place in the tree, if any.
pub(crate) fn opened(fd: c_int, path: Option<&CStr>) {
    let Some(place) = at(fd) else { return };
    let path = path.map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
    let kept = path.filter(|path| paths::is_attribute(path)).map_or(OTHER, |path| {
        tree::lock_of(path).and_then(|lock| u16::try_from(lock).ok()).unwrap_or(FREE)
    });
    place.store(kept, Ordering::Relaxed);
}

/// A file is closed.
pub(crate) fn closed(fd: c_int) {
    if let Some(place) = at(fd) {
        place.store(OTHER, Ordering::Relaxed);
    }
}

/// Waits for the lock of the file's readers, and returns the part of `len` bytes for the read.
pub(crate) fn wait(fd: c_int, len: usize) -> usize {
    match at(fd).map_or(OTHER, |place| place.load(Ordering::Relaxed)) {
        OTHER => return len,
        FREE => {}
        0 => locks::wait(0),
        lock => drop(device::all().get(usize::from(lock) - 1).map(|device| device.lock())),
    }
    len.min(READ_MAX)
}
