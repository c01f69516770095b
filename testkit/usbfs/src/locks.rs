//! The kernel's lock of each device (`usb_lock_device`). A call of usbfs holds the lock while
//! working, but not while waiting for a URB. Attributes in sysfs that look at the configuration or
//! at strings hold the lock too ([`TAKEN_BY`]).
//!
//! The kernel itself may also hold the lock, while it has trouble with a device. To simulate this,
//! the user of the program writes to `locks`, a file of the tree's root: byte N is not zero while
//! the lock of 1-N is held, and byte 0 stands for the root hub. The file may be written at any
//! time, also before the program starts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crate::options::DEVICES_MAX;
use crate::record;

/// Attributes of a device with the lock for readers: `usb_lock_device_interruptible` in
/// `drivers/usb/core/sysfs.c` of Linux 6.1. Kernels before 6.1.16 also take the lock for
/// `descriptors`.
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

/// Waits while another holder has the lock of the device at the place, 0 for the root hub.
pub(crate) fn wait(place: usize) {
    while held()[place].load(Ordering::Relaxed) != 0 {
        thread::sleep(LOOK);
    }
}

/// Whether another holder has the lock.
pub(crate) fn is_held(place: usize) -> bool {
    held()[place].load(Ordering::Relaxed) != 0
}

fn held() -> &'static [AtomicU8] {
    static HELD: OnceLock<&'static [AtomicU8]> = OnceLock::new();
    HELD.get_or_init(|| record::map("locks", DEVICES_MAX + 1))
}
