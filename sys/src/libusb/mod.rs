//! libusb with owners: what the layer adds to `libusb1-sys` is who may use what, and when.
//!
//! A [`transfer::Transfer`] owns its buffer while it is in flight and refuses to be touched then; a
//! [`handle::DeviceHandle`] is exclusive, so that nobody submits to a device or reaps from it while
//! another thread is inside a blocking call on it. The layer knows nothing of USB/IP, and its errors
//! are libusb's, one to one.
//!
//! - `context`: libusb's contexts; [`discovery`]: finding devices where there is no sysfs.
//! - [`device`]: which device to open, and a device while it is open.
//! - [`handle`]: an open device with a libusb context of its own.
//! - `usbfs`: what libusb has no way to ask Linux for.
//! - [`transfer`]: asynchronous transfers and their completions.
//! - `completion`: which transfers have ended.
//! - [`error`]: libusb's error and status codes.
//! - [`version`]: which libusb is linked.
//! - `capture`: whose a device is on macOS, where libusb takes all of it from its drivers.
//! - `raw`: libusb's functions and types; in tests the functions are those of `fake`.
//!
//! libusb's synchronous calls are not wrapped: they run the event loop inside, and completions of
//! other transfers would be delivered on whatever thread called them.

pub mod device;
#[cfg(not(any(test, target_os = "linux")))]
pub mod discovery;
pub mod error;
pub mod handle;
pub mod transfer;
pub mod version;

#[cfg(any(test, target_os = "macos"))]
mod capture;
mod completion;
mod context;
mod raw;
#[cfg(target_os = "linux")]
mod usbfs;

#[cfg(test)]
mod fake;
