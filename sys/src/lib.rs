//! The thin layer between usbferry and libusb.
pub mod arena;
pub mod handle;
