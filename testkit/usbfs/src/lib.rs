//! A simulated usbfs, preloaded into a program that uses libusb (`LD_PRELOAD`). The library answers
//! the program's calls on `/dev/bus/usb` and its sysfs tree. So the real libusb, and everything
//! above libusb, runs at native speed without hardware and without privileges.
//!
//! How the simulation works:
//! - Paths below `/dev/bus/usb`, `/sys/bus/usb` and the simulated controller's place in
//!   `/sys/devices` lead into a real directory tree (`tree`, `paths`). `files` has the C library's
//!   functions for paths and descriptors, which call the `real` functions in the end. Some
//!   attributes wait for a device's lock, and no read gets more than a page (`attributes`,
//!   `locks`). A program that asks libudev instead gets its answers from `udev`.
//! - The descriptor of an opened device node is the write end of a pipe with a single slot. As with
//!   usbfs, the descriptor polls writable when a URB can be reaped: the pipe is full otherwise. The
//!   descriptor never polls readable. The read end stays in the library; closing the read end gives
//!   the POLLERR of an unplug (`node`).
//! - `ioctl` on such a descriptor is answered in `control`, with the kernel's structures and
//!   numbers (`abi`). `node` has the URBs, `transfers` their data, and `device` the effects of all
//!   other calls on the host's view of the device. A signal may interrupt waits (`interrupts`).
//!   `mmap` gives zeroed memory, committed from the start, up to usbfs's limit (`memory`).
//! - A netlink socket for uevents hears the changes of the tree (`uevents`).
//! - The bytes returned by a device differ from the host's result. The result is computed like the
//!   kernel's (`descriptors`), and calls, sysfs and reads of the node follow the result.
//!
//! By default each device is a vendor specific device of high speed with sources, sinks and silent
//! endpoints (`standard`), and knows a few control `requests`; `options` describe other devices. By
//! default a URB ends as soon as submitted, and IN data is only a counter in the first eight bytes:
//! measurements are of the program.
//!
//! `USBFERRY_USBFS_ROOT` names an empty directory for the tree. The directory also gets a `log` of
//! all calls except transfers, `counters` of the transfers, and the control `requests` that reach
//! devices (`record`). Its file `locks` sets holders of locks. The owner of the directory removes
//! the directory. `USBFERRY_USBFS` has the `options`.
//!
//! Contract: where the library differs from Linux 6.1, Linux is right. Each device has a mutex, the
//! kernel's lock of the device, and each open node another; neither is contended by a program that
//! hands its devices over. No allocation for a URB. A program's mistake gets the kernel's errno.
//! Wrong options end the process with a message, since a test on the wrong device proves nothing.

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
mod uevents;

/// Sets errno and returns a C function's value for failure.
fn fail(errno: libc::c_int) -> libc::c_int {
    // SAFETY: the C library's errno of the current thread always exists.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; no other thread has this errno.
    unsafe { *place = errno };
    -1
}

/// Ends the process: the options can't be simulated.
fn refuse(message: &str) -> ! {
    eprintln!("usbferry-usbfs: {message}");
    std::process::abort()
}
