//! Gives kernel drivers back that a killed usbferry had taken interfaces from.
//!
//! Contract: blocks; for the start of the program. `is_given_back` and `debt_of` are for whoever
//! closes a device, too.

use log::debug;
use usbferry_sys::error::Error;
use usbferry_sys::handle::{DeviceHandle, DeviceId};

use super::ledger::{self, Debt};
use super::{LibusbBackend, patience};
use crate::complaints::{info, warn};
use crate::usb::libusb::found::Found;

/// Gives interfaces back to kernel drivers that an earlier usbferry took them from and, because it
/// was killed, did not give back. What can't be done now is left for the next start. *Blocks.*
pub fn repair() {
    let debts = ledger::debts();
    if debts.is_empty() {
        return;
    }
    let scan = match LibusbBackend::new().and_then(|mut backend| backend.0.scan()) {
        Ok(scan) => scan,
        Err(error) => return warn!("drivers can't be given back: no list of devices: {error}"),
    };
    for (debt, entry) in debts {
        if scan.left_out.contains(&(debt.bus, debt.address)) {
            continue;
        }
        let mut found = scan.candidates.iter().map(|candidate| &candidate.found);
        let found = found.find(|found| debt.is_of_same_device(&debt_of(found.id, Vec::new())));
        // A device that was plugged in again since has its drivers.
        if found.is_none_or(|found| repair_device(found, &debt)) {
            entry.settle();
        }
    }
}

/// What is owed for a device.
pub(super) const fn debt_of(id: DeviceId, interfaces: Vec<u8>) -> Debt {
    let DeviceId { bus, address, id_vendor, id_product } = id;
    Debt { bus, address, id_vendor, id_product, interfaces }
}

/// Whether nothing is left to do for it.
fn repair_device(found: &Found, debt: &Debt) -> bool {
    let (id, busid) = (found.id, found.busid);
    let opened = patience::answer(move || DeviceHandle::open_blocking(id, 0));
    let mut handle = match opened.unwrap_or(Err(Error::Timeout)) {
        Ok(handle) => handle,
        Err(Error::NoDevice) => return true,
        Err(error) => {
            warn!("{busid}: its kernel drivers can't be given back yet: {error}");
            return false;
        }
    };
    let mut is_settled = true;
    for &interface in &debt.interfaces {
        let attached = handle.attach_kernel_driver_blocking(interface);
        match attached {
            Ok(()) => info!(
                "{busid}: interface {interface} has its kernel driver again, which a usbferry \
                 that was killed had taken"
            ),
            Err(error) => debug!("{busid}: interface {interface}: {error}"),
        }
        is_settled &= is_given_back(attached);
    }
    is_settled
}

/// Whether an interface needs nothing more: a driver has it, or none can.
pub(super) const fn is_given_back(attached: Result<(), Error>) -> bool {
    use Error::{Busy, InvalidParam, NoDevice, NotFound};
    // The parameter is an interface that the device has no more.
    matches!(attached, Ok(()) | Err(Busy | InvalidParam | NoDevice | NotFound))
}
