//! The lock that the kernel has for each device (`usb_lock_device`): held while a call of usbfs
//! works, but not while it waits for a URB; also by attributes in sysfs that look at the
//! configuration or at strings ([`TAKEN_BY`]).
//!
//! Somebody else may hold it as well, as the kernel does while it has trouble with a device: who
//! runs the program says so in `locks`, a file of the tree's root in which byte N is not zero while
//! the lock of 1-N is held, and byte 0 for the root hub. It may be written at any time, before the
//! program starts too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crate::options::DEVICES_MAX;
use crate::record;

/// Attributes of a device whose reader waits for the lock: `usb_lock_device_interruptible` in
/// `drivers/usb/core/sysfs.c` of Linux 6.1. Kernels before 6.1.16 take it for `descriptors` as
/// well.
pub(crate) const TAKEN_BY: [&str; 8] = [
    "bConfigurationValue",
    "bNumInterfaces",
    "bmAttributes",
    "bMaxPower",
    "configuration",
    "manufacturer",
    "product",
    "serial",
];

/// How often to look whether a lock is still held.
const LOOK: Duration = Duration::from_millis(1);

/// Waits while somebody else holds the lock of the device at this place, 0 for the root hub.
pub(crate) fn wait(place: usize) {
    while held()[place].load(Ordering::Relaxed) != 0 {
        thread::sleep(LOOK);
    }
}

/// Whether somebody else holds it.
pub(crate) fn is_held(place: usize) -> bool {
    held()[place].load(Ordering::Relaxed) != 0
}

fn held() -> &'static [AtomicU8] {
    static HELD: OnceLock<&'static [AtomicU8]> = OnceLock::new();
    HELD.get_or_init(|| record::map("locks", DEVICES_MAX + 1))
}
