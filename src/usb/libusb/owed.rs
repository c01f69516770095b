//! The debt for an open device: kernel drivers get their interfaces back, and the device its
//! configuration. A note in the `ledger` tells the next start, in case this process is killed.
//!
//! Contract: everything here blocks.

use usbferry_sys::libusb::device::DeviceId;
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::found::Found;
use super::ledger::{self, Debt, Note};
use crate::complaints::warn;
use crate::usb::Configuration;
use crate::wire::types::BusId;

/// The debt for a device.
pub(super) struct Owed {
    /// Interfaces that kernel drivers get back.
    drivers: Vec<u8>,
    /// Interfaces among these that Linux gives no driver before they are made anew.
    barred: Vec<u8>,
    /// The number of the configuration in which the device was found; `None` for none.
    configuration: Option<u8>,
    /// The note, which outlives this process; `None` before the first claim, and without a place
    /// for notes.
    note: Option<Note>,
}

impl Owed {
    /// For a device found in the configuration numbered `configuration`, or in none.
    pub(super) const fn new(configuration: Option<u8>) -> Self {
        Self { drivers: Vec::new(), barred: Vec::new(), configuration, note: None }
    }

    /// The debt of another process, noted in `note`.
    pub(super) const fn noted(configuration: Option<u8>, note: Note) -> Self {
        Self { drivers: Vec::new(), barred: Vec::new(), configuration, note: Some(note) }
    }

    /// Whether a kernel driver had the interface.
    pub(super) fn is_owed_to_driver(&self, interface: u8) -> bool {
        self.drivers.contains(&interface)
    }

    /// Notes a driver's interface that can't be set to 0. Linux sets an interface to 0 when the
    /// interface is taken from its owner, and after a failure once more before a driver is asked
    /// (`needs_altsetting0` in `usb_unbind_interface` and `usb_probe_interface` of
    /// `drivers/usb/core/driver.c`). No driver gets the interface before it is made anew.
    pub(super) fn bar(&mut self, interface: u8) {
        self.barred.push(interface);
    }

    /// The kernel has looked for drivers of all interfaces: nothing is owed to drivers.
    pub(super) fn forget_drivers(&mut self) {
        self.drivers.clear();
    }

    /// Adds interfaces of kernel drivers.
    pub(super) fn add_drivers(&mut self, interfaces: &[u8]) {
        let new = interfaces.iter().filter(|number| !self.drivers.contains(number));
        let new: Vec<u8> = new.copied().collect();
        self.drivers.extend(new);
    }

    /// Notes which interfaces kernel drivers have, before the drivers lose any.
    pub(super) fn note_drivers(
        &mut self,
        handle: &DeviceHandle,
        found: &Found,
        configuration: Option<&Configuration>,
    ) {
        let interfaces = configuration.iter().flat_map(|c| &c.interfaces);
        let numbers = interfaces.map(|interface| interface.number);
        let with_driver = numbers.filter(|&number| handle.has_kernel_driver_blocking(number));
        self.add_drivers(&with_driver.collect::<Vec<u8>>());
        let mut debt = debt_of(found.id, self.drivers.clone(), self.configuration);
        match &mut self.note {
            Some(note) => note.update(&debt),
            None => {
                self.note = ledger::note(&found.busid.to_string(), &mut debt);
                (self.drivers, self.configuration) = (debt.interfaces, debt.configuration);
            }
        }
    }

    /// Pays the debt for a device in `configuration`, whose interfaces are free.
    pub(super) fn give_back(
        mut self,
        handle: &mut DeviceHandle,
        busid: BusId,
        configuration: Option<&Configuration>,
    ) {
        self.give_back_configuration(handle, busid, configuration.map(|c| c.value));
        self.give_back_barred(handle, busid, configuration.map(|c| c.value));
        self.give_back_drivers(handle, busid);
    }

    /// Sets the device's configuration again after a client has set another, or none.
    fn give_back_configuration(
        &mut self,
        handle: &mut DeviceHandle,
        busid: BusId,
        value: Option<u8>,
    ) {
        if value == self.configuration {
            return;
        }
        match handle.set_configuration_blocking(self.configuration) {
            // The kernel has looked for drivers of all interfaces.
            Ok(()) => self.forget_drivers(),
            Err(Error::NoDevice) => {}
            Err(error) => match self.configuration {
                Some(value) => {
                    warn!("{busid}: the device does not go back to configuration {value}: {error}");
                }
                None => warn!("{busid}: the device can't be unconfigured again: {error}"),
            },
        }
    }

    /// Has Linux make the interfaces anew where an interface is barred. Linux then looks for
    /// drivers of all interfaces.
    fn give_back_barred(&mut self, handle: &mut DeviceHandle, busid: BusId, value: Option<u8>) {
        let Some(value) = value.filter(|_| value == self.configuration) else { return };
        if !self.barred.iter().any(|interface| self.drivers.contains(interface)) {
            return;
        }
        match renew_interfaces(handle, value) {
            Ok(()) => self.forget_drivers(),
            Err(Error::NoDevice) => {}
            Err(Error::Busy) => warn!(
                "{busid}: an interface that can't be set to 0 gets its kernel driver again only \
                 when configuration {value} is set anew, and another of its interfaces is in use"
            ),
            Err(error) => {
                warn!(
                    "{busid}: configuration {value} can't be set anew: {error}. Plug the device in \
                     again"
                )
            }
        }
    }

    /// Gives interfaces back to the kernel drivers that had them. All interfaces are free by then,
    /// because a driver of several interfaces takes all with the first.
    fn give_back_drivers(&mut self, handle: &mut DeviceHandle, busid: BusId) {
        let mut is_paid = true;
        for interface in self.drivers.drain(..) {
            let attached = handle.attach_kernel_driver_blocking(interface);
            is_paid &= is_given_back(attached);
            match attached {
                // Busy: the driver took the interface along with another.
                Ok(()) | Err(Error::Busy | Error::NoDevice) => {}
                Err(error) => {
                    warn!("{busid}: no kernel driver took interface {interface} back: {error}");
                }
            }
        }
        if let Some(note) = self.note.take_if(|_| is_paid) {
            note.remove();
        }
    }
}

/// A debt, to be noted.
pub(super) const fn debt_of(id: DeviceId, interfaces: Vec<u8>, configuration: Option<u8>) -> Debt {
    let DeviceId { bus, address, id_vendor, id_product } = id;
    Debt { bus, address, id_vendor, id_product, interfaces, configuration }
}

/// Whether an interface of these has no setting 0, and is always barred (see [`Owed::bar`]).
pub(super) fn has_barred(configuration: &Configuration, interfaces: &[u8]) -> bool {
    let mut taken = configuration.interfaces.iter().filter(|one| interfaces.contains(&one.number));
    cfg!(target_os = "linux") && taken.any(|interface| !interface.has_setting_0())
}

/// Has Linux make the interfaces of the configuration `value`, which is set, anew, and look for
/// drivers of each. *Blocks.*
///
/// # Errors
/// `Busy` while a program or a driver has an interface, which changes nothing (`proc_setconfig`).
/// After any other error the device is gone, or left unconfigured.
pub(super) fn renew_interfaces(handle: &mut DeviceHandle, value: u8) -> Result<(), Error> {
    let unconfigured = handle.set_configuration_blocking(None);
    // After other errors the host has unconfigured the device, despite the device's answer.
    if let Err(error @ (Error::Busy | Error::NoDevice)) = unconfigured {
        return Err(error);
    }
    handle.set_configuration_blocking(Some(value))
}

/// Whether an interface needs nothing more: a driver has it, or none can.
pub(super) const fn is_given_back(attached: Result<(), Error>) -> bool {
    use Error::{Busy, InvalidParam, NoDevice, NotFound};
    // InvalidParam: the interface is gone from the device.
    matches!(attached, Ok(()) | Err(Busy | InvalidParam | NoDevice | NotFound))
}
