//! usbferry, a USB/IP server.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
mod handshake;
pub mod limits;
pub mod list;
pub mod reactor;
pub mod rules;
mod session;
pub mod usb;
pub mod wire;
mod worker;
