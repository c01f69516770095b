//! Real devices, through libusb: `usbferry-sys` as the traits of [`crate::usb`].
//!
//! What a device is, its host says: on Linux that is sysfs, read by our own parser. Neither
//! libusb's reading of the descriptors nor the device's own word counts, because the host goes by
//! neither.
//!
//! - `scan` looks for devices on Linux, by what `sysfs` reads; `elsewhere` asks libusb and the
//!   devices, where nobody else can be asked.
//! - `hotplug` says when to look again, on Linux.
//! - `found` is what a scan found, and what clients are told of that; `candidate` is how it is
//!   opened.
//! - `port` is an open device: submitting, reaping, cancelling.
//! - `claims` takes interfaces from their kernel drivers and gives them back, and performs the
//!   requests that change which interfaces there are.
//! - `memory` is the system's memory for transfers: what is mapped of it, and what can't be had;
//!   `share` is how much of it a device may have in flight.
//! - `ledger` remembers outside the process what was taken, and `repair` gives it back after a
//!   kill.
//! - `status` is the only place where libusb's statuses and errors become those of the wire.
//! - `patience` bounds how long a device is waited for that may not answer.
//!
//! Contract: calls of [`Port`](super::Port) that do not block are for the reactor, all else is for
//! workers.

mod candidate;
mod claims;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod found;
#[cfg(target_os = "linux")]
mod hotplug;
mod ledger;
mod memory;
mod patience;
mod port;
mod repair;
#[cfg(target_os = "linux")]
mod scan;
mod share;
mod status;
#[cfg(target_os = "linux")]
mod sysfs;

use super::{Backend, Hints, Scan, ScanError};
pub use candidate::LibusbCandidate;
#[cfg(not(target_os = "linux"))]
use elsewhere::Scanner;
pub use port::{LibusbPort, LibusbTransfer};
pub use repair::repair;
#[cfg(target_os = "linux")]
use scan::Scanner;

/// Finds real devices. Each scan looks anew, whatever hints say.
pub struct LibusbBackend(Scanner);

/// What a look at the bus found.
struct Sighted {
    scan: Scan<LibusbCandidate>,
    /// Bus and address of devices that are there and of which nothing is known.
    left_out: Vec<(u8, u8)>,
}

impl LibusbBackend {
    /// Starts looking for devices. *Blocks.*
    ///
    /// # Errors
    /// There is no USB here, or looking is forbidden.
    pub fn new() -> Result<Self, ScanError> {
        Scanner::new().map(Self)
    }
}

impl Backend for LibusbBackend {
    const EXACT_TIME: bool = false;

    type Candidate = LibusbCandidate;

    #[cfg(target_os = "linux")]
    fn hints(&mut self) -> Option<Box<dyn Hints>> {
        let hotplug = hotplug::Hotplug::open()?;
        Some(Box::new(hotplug))
    }

    fn scan(&mut self) -> Result<Scan<LibusbCandidate>, ScanError> {
        self.0.scan().map(|sighted| sighted.scan)
    }
}
