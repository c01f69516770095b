//! Signals that interrupt waits for a device, as often as `options` demand.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{node, options};

/// Whether a signal interrupts this wait for the given descriptors.
pub(crate) fn is_due(fds: *const libc::pollfd, count: libc::nfds_t) -> bool {
    static WAITS: AtomicU64 = AtomicU64::new(0);
    let count = usize::try_from(count).unwrap_or(0);
    if fds.is_null() || !(0..count).any(|index| node::of(descriptor(fds, index)).is_some()) {
        return false;
    }
    let every = options::get().eintr;
    every.is_some_and(|every| (WAITS.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every))
}

fn descriptor(fds: *const libc::pollfd, index: usize) -> c_int {
    // SAFETY: below the number passed by the program.
    let entry = unsafe { fds.add(index) };
    // SAFETY: the program passed the entry for reading.
    unsafe { (*entry).fd }
}
