//! Pays the debts of a killed usbferry: kernel drivers get their interfaces back, and devices their
//! configuration.
//!
//! Contract: blocks; for the start of the program, and for workers whose device was given up by a
//! panic, as by a kill.

use std::time::Duration;

use log::debug;
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::claims::Claims;
use super::found::Found;
use super::ledger::{self, Debt, Note};
use super::owed::{debt_of, has_barred, is_given_back, renew_interfaces};
use super::{LibusbBackend, patience};
use crate::complaints::{info, warn};
use crate::wire::types::BusId;

/// The reason, in messages.
const KILLED: &str = "which a usbferry that was killed had taken";

/// Time to wait for a device to be opened, before any client is served.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// Pays the debts that earlier usbferries left because they were killed. A debt that can't be paid
/// now is left for the next start. *Blocks.*
pub fn repair() {
    let debts = ledger::debts();
    if debts.is_empty() {
        return;
    }
    let sighted = match LibusbBackend::new().and_then(|mut backend| backend.scanner.scan()) {
        Ok(sighted) => sighted,
        Err(error) => {
            return warn!(
                "kernel drivers can't have their interfaces back: no list of devices: {error}"
            );
        }
    };
    for (debt, note) in debts {
        if sighted.left_out.contains(&(debt.bus, debt.address)) {
            continue;
        }
        let mut found = sighted.scan.devices.iter().map(|candidate| &candidate.found);
        match found.find(|found| debt.is_of_same_device(&debt_of(found.id, Vec::new(), None))) {
            Some(found) => repair_device(found, debt, note),
            // The device was plugged in again since, and has its drivers.
            None => note.remove(),
        }
    }
}

/// Pays the debt for a device; `note` stays while a part of the debt can't be paid.
fn repair_device(found: &Found, debt: Debt, note: Note) {
    let (id, busid) = (found.id, found.busid);
    let opened = patience::answer(OPEN_PATIENCE, move || DeviceHandle::open_blocking(id, 0, None));
    let mut handle = match opened.unwrap_or(Err(Error::Timeout)) {
        Ok(handle) => handle,
        Err(Error::NoDevice) => return note.remove(),
        Err(error) => {
            return warn!(
                "{busid}: the kernel drivers can't have their interfaces back yet: {error}"
            );
        }
    };
    let now = found.configuration_now(&handle);
    if debt.configuration.is_some() && now.is_ok_and(|now| now != debt.configuration) {
        return end_session(handle, found, debt, note);
    }
    if let Ok(Some(value)) = now
        && has_barred(&found.configuration(value), &debt.interfaces)
    {
        match renew_interfaces(&mut handle, value) {
            Ok(()) => {
                info!("{busid}: the device has its kernel drivers again, {KILLED}");
                return note.remove();
            }
            Err(error) => debug!("{busid}: configuration {value} can't be set anew: {error}"),
        }
    }
    if give_back(&mut handle, busid, &debt.interfaces) {
        note.remove();
    }
}

/// Gives interfaces back to their drivers, and returns whether all are given back.
fn give_back(handle: &mut DeviceHandle, busid: BusId, interfaces: &[u8]) -> bool {
    let mut is_paid = true;
    for &interface in interfaces {
        let attached = handle.attach_kernel_driver_blocking(interface);
        match attached {
            Ok(()) => {
                info!("{busid}: interface {interface} has its kernel driver again, {KILLED}");
            }
            Err(error) => debug!("{busid}: interface {interface}: {error}"),
        }
        is_paid &= is_given_back(attached);
    }
    is_paid
}

/// Ends the session of a client that has set another configuration, or none, as the killed process
/// would have. Drivers may have interfaces of the client's configuration by now, and would keep the
/// configuration set (`proc_setconfig`).
fn end_session(handle: DeviceHandle, found: &Found, debt: Debt, note: Note) {
    let busid = found.busid;
    match Claims::take_over(handle, found.clone(), debt, note) {
        Ok(claims) => {
            claims.give_back();
            info!("{busid}: the session of a killed usbferry is over");
        }
        Err(error) => warn!("{busid}: the system does not name the configuration: {error}"),
    }
}
