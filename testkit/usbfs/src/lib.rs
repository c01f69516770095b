//! A simulated usbfs: preloaded into a program that uses libusb (`LD_PRELOAD`), it answers that
//! program's calls on `/dev/bus/usb` and its sysfs tree, so that the real libusb and all that is
//! built on it run at native speed with no hardware and no privileges.
//!
//! How it works:
//! - Paths below `/dev/bus/usb`, `/sys/bus/usb` and the simulated controller's place in
//!   `/sys/devices` lead into a real directory tree (`tree`, `paths`): `files` has the C library's
//!   functions that take paths and descriptors, which call the `real` ones in the end. Some
//!   attributes wait for a device's lock, and none gets more than a page at once (`attributes`,
//!   `locks`). A program that asks libudev instead gets its answers from `udev`.
//! - The descriptor of an opened device node is the write end of a pipe with one slot: full while
//!   there is nothing to reap, so that it polls writable when there is, as usbfs has it; it never
//!   polls readable. The read end stays here, and closing it gives the POLLERR of an unplug
//!   (`node`).
//! - `ioctl` on such a descriptor is answered in `control`, by the kernel's structures and numbers
//!   (`abi`): URBs are the `node`'s, and their data that of `transfers`; what other calls do to the
//!   host's view of the device is in `device`. Who waits may be interrupted by a signal
//!   (`interrupts`). `mmap` gives zeroed memory that is there from the start, as far as usbfs's
//!   limit goes (`memory`).
//! - What a device returns and what the host makes of that are two things: the latter is worked out
//!   as the kernel does (`descriptors`), and calls, sysfs and reads of the node follow it.
//!
//! Each device is a vendor specific one of high speed whose endpoints are sources, sinks and
//! silence (`standard`) and which knows a few control `requests`, unless `options` describe
//! another. A URB ends as soon as it is submitted unless they say otherwise, and IN data is not
//! written but for a counter in its first eight bytes: what is measured is the program.
//!
//! `USBFERRY_USBFS_ROOT` names an empty directory for the tree; it also gets a `log` of all calls
//! that are not transfers, `counters` of those that are, and the control `requests` that reach
//! devices (`record`); who holds `locks` can be said in it. Whoever made the directory removes it.
//! `USBFERRY_USBFS` has the `options`.
//!
//! Contract: Linux 6.1 is right where this differs from it. One mutex for each device, which is the
//! kernel's lock of it, and one for each open node, neither contended by a program that hands its
//! devices over; no allocation for a URB. What a program gets wrong gets the errno that the kernel
//! has for it. Wrong options end the process with a message: a test on the wrong device proves
//! nothing.

#![cfg(target_os = "linux")]

mod abi;
mod attributes;
mod control;
mod descriptors;
mod device;
mod files;
mod interrupts;
mod locks;
mod memory;
mod node;
mod options;
mod paths;
mod real;
mod record;
mod requests;
mod standard;
mod transfers;
mod tree;
mod udev;

/// Sets errno and returns the value with which a C function says so.
fn fail(errno: libc::c_int) -> libc::c_int {
    // SAFETY: the C library's errno of this thread is always there.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else has this thread's errno.
    unsafe { *place = errno };
    -1
}

/// Ends the process: what was asked for can't be simulated.
fn refuse(message: &str) -> ! {
    eprintln!("usbferry-usbfs: {message}");
    std::process::abort()
}
