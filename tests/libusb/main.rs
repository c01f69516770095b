//! The server on the real libusb, as a process of its own, on the simulated usbfs of
//! `testkit/usbfs`.
//!
//! A binary beside `conformance`, since `tests/memory-check` runs the server of these tests under a
//! memory checker, and since the tests need Linux.
#![cfg(target_os = "linux")]

mod descriptors;
mod hardware;
mod hotplug;
mod lent;
mod long_reads;
mod memory;
mod readings;
mod refused;
mod requests;
mod sessions;
#[allow(dead_code, reason = "conformance uses the rest")]
#[path = "../support/mod.rs"]
mod support;
mod terms;
mod trouble;
#[cfg(feature = "vendored")]
mod wraps;
