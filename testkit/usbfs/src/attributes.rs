//! Open files of sysfs: some of their readers wait for a device's lock ([`locks`](crate::locks)),
//! and none gets more than a page at once.

use std::ffi::{CStr, OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{device, locks, paths, tree};

/// Descriptors that can be such files: those below this number.
const FDS_MAX: usize = 65_536;

/// What one read gets at most (`kernfs_file_read_iter`).
const READ_MAX: usize = 4096;

/// What is kept of a descriptor that is no such file, and of one whose readers wait for nothing;
/// else it is the place in [`locks`].
const OTHER: u16 = u16::MAX;
const FREE: u16 = u16::MAX - 1;

static OPEN: [AtomicU16; FDS_MAX] = [const { AtomicU16::new(OTHER) }; FDS_MAX];

fn at(fd: c_int) -> Option<&'static AtomicU16> {
    OPEN.get(usize::try_from(fd).ok()?)
}

/// A file was opened; `path` is where it is in the tree, if it is.
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

/// Waits for the lock that a reader of this file takes; how much of `len` bytes it gets then.
pub(crate) fn wait(fd: c_int, len: usize) -> usize {
    match at(fd).map_or(OTHER, |place| place.load(Ordering::Relaxed)) {
        OTHER => return len,
        FREE => {}
        0 => locks::wait(0),
        lock => drop(device::all().get(usize::from(lock) - 1).map(|device| device.lock())),
    }
    len.min(READ_MAX)
}
