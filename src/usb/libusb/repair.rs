//! Gives kernel drivers back that a killed usbferry had taken interfaces from, and devices the
//! configuration that they were in.
//!
//! Contract: blocks; for the start of the program, and for workers whose device was given up by a
//! panic, as by a kill. `is_given_back` and `debt_of` are for whoever closes a device, too.

use log::debug;
use usbferry_sys::error::Error;
use usbferry_sys::handle::{DeviceHandle, DeviceId};

use super::ledger::{self, Debt};
use super::{LibusbBackend, patience};
use crate::complaints::{info, warn};
use crate::usb::Configuration;
use crate::usb::libusb::found::Found;
use crate::wire::types::BusId;

/// Why anything is given back here.
const KILLED: &str = "which a usbferry that was killed had taken";
const LEFT: &str = "which a client of a usbferry that was killed had left";

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
        let found =
            found.find(|found| debt.is_of_same_device(&debt_of(found.id, Vec::new(), None)));
        // A device that was plugged in again since has its drivers.
        if found.is_none_or(|found| repair_device(found, &debt)) {
            entry.settle();
        }
    }
}

/// What is owed for a device.
pub(super) const fn debt_of(id: DeviceId, interfaces: Vec<u8>, configuration: Option<u8>) -> Debt {
    let DeviceId { bus, address, id_vendor, id_product } = id;
    Debt { bus, address, id_vendor, id_product, interfaces, configuration }
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
    let now = found.configuration_now(&handle);
    if let (Ok(now), Some(value)) = (now, debt.configuration)
        && now != Some(value)
    {
        return reconfigure(&mut handle, value, busid);
    }
    if let Ok(Some(value)) = now
        && has_barred(&found.configuration(value), &debt.interfaces)
    {
        match renew_interfaces(&mut handle, value) {
            Ok(()) => {
                info!("{busid}: it has its kernel drivers again, {KILLED}");
                return true;
            }
            Err(error) => debug!("{busid}: configuration {value} can't be set anew: {error}"),
        }
    }
    let mut is_settled = true;
    for &interface in &debt.interfaces {
        let attached = handle.attach_kernel_driver_blocking(interface);
        match attached {
            Ok(()) => {
                info!("{busid}: interface {interface} has its kernel driver again, {KILLED}");
            }
            Err(error) => debug!("{busid}: interface {interface}: {error}"),
        }
        is_settled &= is_given_back(attached);
    }
    is_settled
}

/// Whether the configuration `value`, from which a client had taken the device, is set again. The kernel
/// looks for drivers of all its interfaces then. *Blocks.*
fn reconfigure(handle: &mut DeviceHandle, value: u8, busid: BusId) -> bool {
    match handle.set_configuration_blocking(Some(value)) {
        Ok(()) => info!("{busid}: it is in configuration {value} again, {LEFT}"),
        Err(Error::NoDevice) => {}
        Err(error) => {
            warn!("{busid}: it does not go back to configuration {value} yet: {error}");
            return false;
        }
    }
    true
}

/// Whether Linux lets no driver have one of these interfaces again. It sets an interface to 0 when it
/// is taken from somebody, and where that fails again before a driver is asked
/// (`needs_altsetting0` in `usb_unbind_interface` and `usb_probe_interface` of
/// `drivers/usb/core/driver.c`); with an interface that has no setting 0 it always fails.
pub(super) fn has_barred(configuration: &Configuration, interfaces: &[u8]) -> bool {
    let mut taken = configuration.interfaces.iter().filter(|one| interfaces.contains(&one.number));
    cfg!(target_os = "linux") && taken.any(|interface| interface.first_setting() != 0)
}

/// Has Linux make the interfaces of the configuration `value`, which is set, anew, and look for
/// drivers of each. *Blocks.*
///
/// # Errors
/// `Busy` while anybody has one of them, which changes nothing (`proc_setconfig`). With any other
/// error the device is gone, or left unconfigured.
pub(super) fn renew_interfaces(handle: &mut DeviceHandle, value: u8) -> Result<(), Error> {
    let unconfigured = handle.set_configuration_blocking(None);
    // Else the host has unconfigured it, whatever the device said to that.
    if let Err(error @ (Error::Busy | Error::NoDevice)) = unconfigured {
        return Err(error);
    }
    handle.set_configuration_blocking(Some(value))
}

/// Whether an interface needs nothing more: a driver has it, or none can.
pub(super) const fn is_given_back(attached: Result<(), Error>) -> bool {
    use Error::{Busy, InvalidParam, NoDevice, NotFound};
    // The parameter is an interface that the device has no more.
    matches!(attached, Ok(()) | Err(Busy | InvalidParam | NoDevice | NotFound))
}
