//! What usbferry needs of libusb and of the system beneath the standard library: everything unsafe,
//! and nothing else.
//!
//! - [`libusb`]: open devices, transfers and their completions, as owners of what libusb lends.
//! - [`arena`]: buffer memory of a device, cut into blocks. Knows neither libusb nor USB.
//! - [`os`]: clock, heap, limits, sockets and signals. Knows none of the above.
//!
//! Callers may rely on this:
//! - No call is unsafe. A buffer is never reachable while the kernel may write into the buffer, and
//!   memory mapped from a device is given back before the device is closed.
//! - No call ends the process or panics because of what a device, a driver or a peer says. A panic
//!   here is a mistake of the caller, and the functions say which.
//! - Calls that may sleep are everything in `libusb::context` and `libusb::discovery`, opening and
//!   dropping a [`libusb::handle::DeviceHandle`], and methods whose names end in `_blocking`. All
//!   other calls return at once.
//! - Types are `Send`; no type is made for use from two threads at a time.

#![warn(missing_docs)]

pub mod arena;
pub mod libusb;
pub mod os;
