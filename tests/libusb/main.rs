//! The server on the real libusb, as a process of its own, on the simulated usbfs of
//! `testkit/usbfs`.
//!
//! A binary beside `conformance`, since `tests/memory-check` runs the server of these tests under a
//! memory checker, and since the tests need Linux.
//!
//! | module | shows |
//! | --- | --- |
//! | `hardware` | the program and the simulated hardware, for all tests here |
//! | `sessions` | transfers, drivers given back also after a kill, unplugging, memory, the log |
//! | `requests` | special requests: results after a failure, and SUBMITs behind them |
//! | `descriptors` | odd descriptors; `readings`: random descriptors, as the kernel reads them |
//! | `long_reads` | control reads of more bytes than libusb moves at once |
//! | `memory` | usbfs's memory between devices, and the memory of the server |
//! | `hotplug` | devices that are known before a client asks |
//! | `trouble` | devices that are locked, slow, or gone meanwhile |
//! | `refused` | failed imports, which leave the device unchanged |
//! | `terms` | the terms of a rule that concern opening |
//! | `lent` | `usbferry list` beside a running server |
//! | `wraps` | the program as it is linked, with `usbferry-wraps` |
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
