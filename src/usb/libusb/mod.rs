//! Real devices, through libusb: `usbferry-sys` as the traits of [`crate::usb`].
//!
//! - `candidate` is a device that a scan found, and how it is opened; `found` is what the scan says
//!   of it, as the wire has it, and `sysfs` what Linux adds to that.
//! - `port` is an open device: submitting, reaping, cancelling.
//! - `claims` takes interfaces from their kernel drivers and gives them back, and performs the
//!   requests that change which interfaces there are.
//! - `ledger` remembers outside the process what was taken, and `repair` gives it back after a kill.
//! - `status` is the only place where libusb's statuses and errors become those of the wire.
//!
//! Contract: calls of [`Port`](super::Port) that do not block are for the reactor, all else is for
//! workers.

mod candidate;
mod claims;
mod found;
mod ledger;
mod port;
mod repair;
mod status;
mod sysfs;

use usbferry_sys::context::Discovery;

use super::Backend;
pub use candidate::LibusbCandidate;
pub use port::{LibusbPort, LibusbTransfer};
pub use repair::repair;

/// Finds real devices. Each scan looks anew, with a context of its own: what hotplug events would
/// keep up to date can be wrong where they do not arrive, as in containers without a udev daemon.
pub struct LibusbBackend(());

impl LibusbBackend {
    /// Starts looking for devices. *Blocks.*
    ///
    /// # Errors
    /// There is no USB here, or looking is forbidden; a sentence that says so.
    pub fn new() -> Result<Self, String> {
        Discovery::new().map_err(|error| {
            format!(
                "libusb can't look for devices: {error}. Does this machine have USB, and may this \
                 user see it? On Linux that is /dev/bus/usb"
            )
        })?;
        Ok(Self(()))
    }
}

impl Backend for LibusbBackend {
    const EXACT_TIME: bool = false;

    type Candidate = LibusbCandidate;

    fn scan(&mut self) -> Result<Vec<LibusbCandidate>, String> {
        let found = Discovery::new().and_then(|mut discovery| discovery.devices());
        let found = found.map_err(|error| format!("libusb can't list the devices: {error}"))?;
        Ok(found.into_iter().filter_map(LibusbCandidate::new).collect())
    }
}
