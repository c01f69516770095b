//! Real devices, through libusb: `usbferry-sys` as the traits of [`crate::usb`].
//!
//! The host says how a device is set up: on Linux by sysfs, read by our own parser. Neither
//! libusb's reading of the descriptors nor the device's own word counts, because the host goes by
//! neither.
//!
//! Finding devices:
//! - `scan` looks for devices on Linux, by files that `sysfs` reads; `elsewhere` asks libusb and
//!   the devices, on systems without sysfs.
//! - `hotplug` says on Linux when to scan again.
//! - `found` is a device as a scan found it; `candidate` opens the device for a client.
//! - `ahead` makes the context of the next open device before a client waits.
//! - `patience` bounds the wait for a device that may not answer.
//!
//! An open device:
//! - `port` submits, reaps and cancels transfers; `pieces` counts their requests to the system, and
//!   `presence` knows whether the device is still there.
//! - `claims` takes interfaces from their kernel drivers; `requests` performs the special requests,
//!   which change the interfaces there are; `owed` gives drivers and configuration back.
//! - `memory` is the system's memory for transfers, mapped and not; `share` is the part of it that
//!   a device may have in flight.
//! - `ledger` keeps a note of what is owed outside the process, and `repair` pays after a kill.
//! - `status` is the only place where libusb's statuses and errors become those of the wire.
//!
//! Contract: calls of [`Port`](super::Port) that do not block are for the reactor, all other calls
//! for workers.

mod ahead;
mod candidate;
mod claims;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod found;
#[cfg(target_os = "linux")]
mod hotplug;
mod ledger;
mod memory;
mod owed;
mod patience;
mod pieces;
mod port;
mod presence;
mod repair;
mod requests;
#[cfg(target_os = "linux")]
mod scan;
mod share;
mod status;
#[cfg(target_os = "linux")]
mod sysfs;

#[cfg(target_os = "linux")]
use super::Hints;
use super::{Backend, Scan, ScanError};
use crate::wire::op::UsbDevice;
use ahead::Ahead;
pub use candidate::LibusbCandidate;
#[cfg(not(target_os = "linux"))]
use elsewhere::Scanner;
use ledger::Debt;
pub use port::{LibusbPort, LibusbTransfer};
pub use repair::repair;
#[cfg(target_os = "linux")]
use scan::Scanner;

/// Finds real devices. Each scan looks anew, whatever hints say.
pub struct LibusbBackend {
    scanner: Scanner,
    ahead: Ahead,
}

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
        Ok(Self { scanner: Scanner::new()?, ahead: Ahead::default() })
    }
}

/// Whether a running usbferry has a device of this machine open for a client, as far as this user
/// may know. Reads files.
pub fn is_lent(device: &UsbDevice) -> bool {
    let debt = Debt {
        bus: device.busnum,
        address: device.devnum,
        id_vendor: device.id_vendor,
        id_product: device.id_product,
        interfaces: Vec::new(),
        configuration: None,
    };
    ledger::is_noted(&device.busid.to_string(), &debt)
}

impl Backend for LibusbBackend {
    type Candidate = LibusbCandidate;

    fn needs_exact_time(&self) -> bool {
        false
    }

    #[cfg(target_os = "linux")]
    fn hints(&mut self) -> Option<Box<dyn Hints>> {
        let hotplug = hotplug::Hotplug::open()?;
        self.ahead.begin();
        Some(Box::new(hotplug))
    }

    fn scan(&mut self) -> Result<Scan<LibusbCandidate>, ScanError> {
        let scan = self.scanner.scan()?.scan;
        Ok(scan.map(|candidate| candidate.with_ahead(self.ahead.clone())))
    }

    fn prepare_open(&mut self) {
        self.ahead.prepare();
    }
}
