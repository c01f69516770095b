//! libusb with owners. The layer adds to `libusb1-sys` the rules of who may use an object, and
//! when.
//!
//! A [`transfer::Transfer`] owns its buffer while in flight and refuses access meanwhile. A
//! [`handle::DeviceHandle`] is exclusive, so that nobody submits to a device or reaps from a device
//! while another thread is inside a blocking call on the device. The layer knows nothing of USB/IP.
//! Its errors are libusb's, except for a lack of memory and permission, which libusb calls by other
//! names.
//!
//! - `context`: libusb's contexts; `discovery`: finding devices without sysfs.
//! - [`device`]: the name of a device to open, and an open device.
//! - [`handle`]: an open device with a libusb context of its own.
//! - [`pass`]: what a pass over the device's events is about.
//! - `usbfs`: requests to Linux that libusb cannot make.
//! - [`transfer`]: asynchronous transfers and their completions.
//! - `completion`: the indexes of ended transfers.
//! - [`error`]: libusb's error and status codes.
//! - [`version`]: the linked version of libusb.
//! - `capture`: the ownership of a device on macOS, where libusb takes the whole device from its
//!   drivers.
//! - `raw`: libusb's functions and types; in tests the functions of `fake`.
//!
//! libusb's synchronous calls are not wrapped, because they run the event loop inside, and would
//! deliver completions of other transfers on the calling thread. The exceptions are the requests of
//! `discovery`, which never run beside transfers.

pub mod device;
#[cfg(not(any(test, target_os = "linux")))]
pub mod discovery;
pub mod error;
pub mod handle;
pub mod pass;
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
#[cfg(test)]
mod tests;
