//! Open files of sysfs whose readers wait for a device's lock ([`locks`](crate::locks)).

use std::ffi::{CStr, OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::{device, locks, tree};

/// Descriptors that can be such files: those below this number.
const FDS_MAX: usize = 65_536;

/// One more than the place in [`locks`], 0 for all other files.
static OPEN: [AtomicU8; FDS_MAX] = [const { AtomicU8::new(0) }; FDS_MAX];

fn at(fd: c_int) -> Option<&'static AtomicU8> {
    OPEN.get(usize::try_from(fd).ok()?)
}

/// A file was opened; `path` is where it is in the tree, if it is.
pub(crate) fn opened(fd: c_int, path: Option<&CStr>) {
    let Some(place) = at(fd) else { return };
    let path = path.map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
    let lock = path.and_then(tree::lock_of).map_or(0, |lock| lock + 1);
    place.store(u8::try_from(lock).unwrap_or(0), Ordering::Relaxed);
}

/// A file is closed.
pub(crate) fn closed(fd: c_int) {
    if let Some(place) = at(fd) {
        place.store(0, Ordering::Relaxed);
    }
}

/// Waits for the lock that a reader of this file takes.
pub(crate) fn wait(fd: c_int) {
    let lock = at(fd).map_or(0, |place| usize::from(place.load(Ordering::Relaxed)));
    match lock.checked_sub(2) {
        Some(index) => drop(device::all().get(index).map(|device| device.lock())),
        None if lock == 1 => locks::wait(0),
        None => {}
    }
}
