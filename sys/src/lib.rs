//! The thin layer between usbferry and libusb: everything unsafe, and nothing else.
//!
//! What it adds to `libusb1-sys` is ownership. A [`transfer::Transfer`] owns its buffer while it is
//! in flight and refuses to be touched then; a [`handle::DeviceHandle`] is exclusive, so that
//! nobody submits to a device or reaps from it while another thread is inside a blocking call on
//! it; memory mapped from a device is given back before the device can be closed. It knows nothing
//! of USB/IP, and its errors are libusb's, one to one.
//!
//! - [`arena`]: buffer memory of a device, cut into blocks.
//! - [`clock`]: a clock that is cheap to read.
//! - `context`: libusb's contexts; `discovery`: finding devices where there is no sysfs.
//! - [`handle`]: an open device with a libusb context of its own.
//! - `usbfs`: what libusb has no way to ask Linux for.
//! - [`transfer`]: asynchronous transfers and their completions.
//! - [`error`]: libusb's error and status codes.
//! - [`heap`]: memory that may be refused, and what becomes of memory that is freed.
//! - [`limit`]: the process's limit of open files.
//! - [`signal`]: signals that are ignored.
//! - [`tcp`]: whether a silent peer is still there.
//! - [`user`]: whose files are made.
//! - [`version`]: which libusb is linked.
//! - `capture`: whose a device is on macOS, where libusb takes all of it from its drivers.
//! - `raw`: libusb's functions and types; in tests the functions are those of `fake`.
//!
//! Which calls block: everything in `context` and `discovery`, opening and dropping a
//! [`handle::DeviceHandle`], and its methods whose names end in `_blocking`. All else returns at
//! once, though usbfs takes the device's mutex in each call: see `docs` of the handle.
//!
//! libusb's synchronous calls are not wrapped: they run the event loop inside, and completions of
//! other transfers would be delivered on whatever thread called them.

#![warn(missing_docs)]

pub mod arena;
pub mod clock;
#[cfg(not(any(test, target_os = "linux")))]
pub mod discovery;
pub mod error;
pub mod handle;
pub mod heap;
pub mod limit;
pub mod signal;
pub mod tcp;
pub mod transfer;
pub mod user;
pub mod version;

#[cfg(any(test, target_os = "macos"))]
mod capture;
mod context;
mod raw;
#[cfg(target_os = "linux")]
mod usbfs;

#[cfg(test)]
mod fake;
