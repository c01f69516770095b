//! usbferry, a USB/IP server.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;
pub mod session;
pub mod usb;
pub mod wire;
