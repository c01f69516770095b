//! Descriptors that a service manager has passed to this process (sd_listen_fds(3)).
//!
//! Contract: nothing blocks.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of the first passed descriptor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Takes over the passed descriptors, by the variables `LISTEN_PID` and `LISTEN_FDS`, up to `most`;
/// programs that this process starts do not inherit the descriptors. A number without a descriptor
/// is left out. Empty for a process that was passed nothing, and at a second call.
///
/// To be called before the process opens files of its own: the variables alone say whose the
/// descriptors are.
#[must_use]
pub fn take_descriptors(most: usize) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let is_for_us = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0);
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let count = RawFd::try_from(count).unwrap_or(RawFd::MAX - FIRST);
    let count = count.min(RawFd::try_from(most).unwrap_or(RawFd::MAX - FIRST));
    (FIRST..FIRST + count).filter_map(take_one).collect()
}

fn take_one(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: changes a flag of the descriptor, or fails where there is none.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and the service manager's variables say that the descriptor
    // is passed to this process: nobody else here owns the descriptor, and it is taken once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
