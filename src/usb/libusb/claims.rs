//! Which interfaces are ours, and whose they were: claiming them from kernel drivers, giving them
//! back, and the requests that change which there are.
//!
//! Interfaces go by the numbers that the host has given them. Kernel drivers are detached when a
//! device is opened and given back when it is closed, but only where there was one.
//!
//! Contract: everything here blocks.

use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::ledger;
use super::port::LibusbPort;
use super::repair::{debt_of, has_barred, is_given_back, renew_interfaces};
use super::status::{failed, refusal_of};
use crate::complaints::warn;
use crate::usb::{Configuration, Interface, Performed};
use crate::wire::status::Status;
use crate::wire::types::BusId;

impl LibusbPort {
    /// Claims every interface of the configuration that the device is found in.
    ///
    /// # Errors
    /// See [`Self::claim_all`].
    pub(super) fn claim_found(&mut self) -> Result<Option<Configuration>, Error> {
        self.found_in = self.found.configuration_now(&self.handle)?;
        Ok(self.claim(self.found_in))
    }

    /// Claims every interface of the active configuration, none of which is ours now; what can't
    /// be claimed is marked.
    ///
    /// # Errors
    /// The host does not say which configuration that is; then none is known, and nothing claimed.
    pub(super) fn claim_all(&mut self) -> Result<Option<Configuration>, Error> {
        let value = self.found.configuration_now(&self.handle);
        let value = value.inspect_err(|_| self.configuration = None)?;
        Ok(self.claim(value))
    }

    fn claim(&mut self, value: Option<u8>) -> Option<Configuration> {
        let old_value = self.configuration.take().map(|configuration| configuration.value);
        let mut configuration = value.map(|value| self.found.configuration(value));
        // Another configuration has other interfaces, which the kernel has just probed.
        if old_value != configuration.as_ref().map(|configuration| configuration.value) {
            self.driven.clear();
        }
        self.note_drivers(configuration.as_ref());
        // Platforms that have no kernel drivers to detach refuse; claiming then tells.
        let _ = self.handle.set_auto_detach(true);
        let mut refused = Vec::new();
        for interface in configuration.iter_mut().flat_map(|c| &mut c.interfaces) {
            match self.handle.claim_blocking(interface.number) {
                Ok(()) => {
                    self.claims.push(interface.number);
                    enable(&mut self.handle, interface, self.busid);
                }
                Err(error) => {
                    refused.push((interface.number, error));
                    interface.refused = Some(refusal_of(error));
                }
            }
        }
        self.tell_refused(&refused);
        self.configuration.clone_from(&configuration);
        configuration
    }

    /// Tells the log which interfaces could not be claimed, and what that leaves.
    fn tell_refused(&self, refused: &[(u8, Error)]) {
        let left = if self.claims.is_empty() { "" } else { ", the rest works" };
        for (number, error) in refused {
            warn!(
                "{}: interface {number} can't be claimed ({error}): its endpoints are refused{left}",
                self.busid
            );
        }
    }

    /// Notes which interfaces kernel drivers have. Before the first is claimed, because one driver
    /// can have several interfaces and lets go of all when it loses one.
    fn note_drivers(&mut self, configuration: Option<&Configuration>) {
        for interface in configuration.iter().flat_map(|c| &c.interfaces) {
            let number = interface.number;
            if self.handle.has_kernel_driver_blocking(number) && !self.driven.contains(&number) {
                self.driven.push(number);
            }
        }
        self.note_debt();
    }

    /// Writes down what is owed to the kernel's drivers before it is taken from them.
    fn note_debt(&mut self) {
        let mut debt = debt_of(self.found.id, self.driven.clone(), self.found_in);
        match &mut self.entry {
            Some(entry) => entry.update(&debt),
            None => {
                self.entry = ledger::note(&self.busid.to_string(), &mut debt);
                (self.driven, self.found_in) = (debt.interfaces, debt.configuration);
            }
        }
    }

    /// Why no interface at all could be claimed, where there are any.
    pub(super) fn all_refused(&self) -> Option<Status> {
        let first = self.configuration.as_ref()?.interfaces.first()?.refused?;
        self.claims.is_empty().then_some(first)
    }

    /// Releases every interface, without giving it to a kernel driver yet.
    pub(super) fn release_all(&mut self) {
        let _ = self.handle.set_auto_detach(false);
        for interface in self.claims.drain(..) {
            match self.handle.release_blocking(interface) {
                // Gone with the device, or already released by a reset.
                Ok(()) | Err(Error::NoDevice | Error::NotFound) => {}
                Err(error) => warn!("{}: releasing interface {interface}: {error}", self.busid),
            }
        }
    }

    /// Sets the configuration again that the device had before a client set another, or none.
    pub(super) fn give_back_configuration(&mut self) {
        let value = self.configuration.as_ref().map(|configuration| configuration.value);
        if value == self.found_in {
            return;
        }
        match self.handle.set_configuration_blocking(self.found_in) {
            // The kernel has looked for drivers of all its interfaces.
            Ok(()) => self.driven.clear(),
            Err(Error::NoDevice) => {}
            Err(error) => match self.found_in {
                Some(value) => {
                    warn!("{}: it does not go back to configuration {value}: {error}", self.busid);
                }
                None => warn!("{}: it can't be unconfigured again: {error}", self.busid),
            },
        }
    }

    /// Has Linux make the interfaces anew where it would not let a driver have its own again, which
    /// also looks for drivers of all of them.
    pub(super) fn give_back_barred(&mut self) {
        let Some(configuration) = &self.configuration else { return };
        let value = configuration.value;
        let ours = configuration.interfaces.iter().filter(|interface| interface.refused.is_none());
        let ours = ours.map(|interface| interface.number);
        let taken: Vec<u8> = ours.filter(|number| self.driven.contains(number)).collect();
        if Some(value) != self.found_in || !has_barred(configuration, &taken) {
            return;
        }
        match renew_interfaces(&mut self.handle, value) {
            Ok(()) => self.driven.clear(),
            Err(Error::NoDevice) => {}
            Err(Error::Busy) => warn!(
                "{}: an interface without setting 0 gets its kernel driver again only when \
                 configuration {value} is set anew, and another of its interfaces is in use",
                self.busid
            ),
            Err(error) => warn!(
                "{}: configuration {value} can't be set anew: {error}. Plug it in again",
                self.busid
            ),
        }
    }

    /// Gives interfaces back to the kernel drivers that had them. All are free by then, because a
    /// driver that wants several takes the others with the first.
    pub(super) fn give_back_drivers(&mut self) {
        let mut is_settled = true;
        for interface in self.driven.drain(..) {
            let attached = self.handle.attach_kernel_driver_blocking(interface);
            is_settled &= is_given_back(attached);
            match attached {
                // Busy: the driver took it along with another.
                Ok(()) | Err(Error::Busy | Error::NoDevice) => {}
                Err(error) => warn!(
                    "{}: no kernel driver took interface {interface} back: {error}",
                    self.busid
                ),
            }
        }
        if let Some(entry) = self.entry.take_if(|_| is_settled) {
            entry.settle();
        }
    }

    pub(super) fn set_configuration(&mut self, value: u8) -> Performed {
        let current = self.configuration.as_ref().map(|configuration| configuration.value);
        // Zero is a number where a configuration has it (usb_set_configuration).
        let is_number = value != 0 || self.found.descriptors.has_configuration(0);
        let value = is_number.then_some(value);
        let all_ours = self.configuration.iter().flat_map(|c| &c.interfaces);
        if value == current && all_ours.clone().any(|interface| interface.refused.is_some()) {
            return self.reset_settings();
        }
        let before = self.configuration.clone();
        // usbfs refuses while anybody has an interface, even ourselves.
        self.release_all();
        let result = self.handle.set_configuration_blocking(value);
        if let Err(error) = self.claim_all() {
            warn!("{}: the system does not say what it is set to: {error}", self.busid);
            return Performed::Gone;
        }
        if result.is_err() {
            self.restore_settings(before);
        }
        self.performed(result)
    }

    /// What setting the current configuration again does to the device, as far as it is ours.
    fn reset_settings(&mut self) -> Performed {
        let interfaces = self.configuration.iter().flat_map(|c| &c.interfaces);
        let ours = interfaces.filter(|interface| interface.refused.is_none());
        let first: Vec<_> = ours.map(|ours| (ours.number, ours.first_setting())).collect();
        let mut first = first.into_iter();
        let result = first.try_for_each(|(number, setting)| self.set_interface(number, setting));
        self.performed(result)
    }

    pub(super) fn set_interface(&mut self, number: u8, setting: u8) -> Result<(), Error> {
        self.handle.set_interface_blocking(number, setting)?;
        let interfaces = self.configuration.iter_mut().flat_map(|c| &mut c.interfaces);
        for interface in interfaces.filter(|interface| interface.number == number) {
            interface.current = setting;
        }
        Ok(())
    }

    /// Resets the device. libusb lets go of every interface meanwhile, and the kernel puts one that
    /// is released back to its first setting.
    pub(super) fn reset(&mut self) -> Performed {
        let result = self.handle.reset_blocking();
        // It came back as another device, or lost an interface to somebody else.
        if result == Err(Error::NotFound) {
            return Performed::Gone;
        }
        let before = self.configuration.clone();
        for interface in self.configuration.iter_mut().flat_map(|c| &mut c.interfaces) {
            interface.current = interface.first_setting();
        }
        self.restore_settings(before);
        self.performed(result)
    }

    /// Puts interfaces that were set back to their first setting to what a client has set them to.
    fn restore_settings(&mut self, before: Option<Configuration>) {
        let interfaces = before.into_iter().flat_map(|configuration| configuration.interfaces);
        let were_set =
            interfaces.filter(|interface| interface.current != interface.first_setting());
        for Interface { number, current, .. } in were_set {
            if let Err(error) = self.set_interface(number, current) {
                warn!("{}: interface {number} is not set to {current} again: {error}", self.busid);
            }
        }
    }

    /// What is in force after a request that may have changed it.
    pub(super) fn performed(&self, result: Result<(), Error>) -> Performed {
        let status = match result.map_err(failed) {
            Ok(()) => Status::OK,
            Err(Performed::Failed(status)) => status,
            Err(other) => return other,
        };
        Performed::Reconfigured { configuration: self.configuration.clone(), status }
    }
}

/// Has the endpoints of a claimed interface take URBs. Linux has disabled them where it took the
/// interface from somebody and could not set it to 0, because it has no such setting
/// (`usb_unbind_interface` of `drivers/usb/core/driver.c`).
fn enable(handle: &mut DeviceHandle, interface: &Interface, busid: BusId) {
    let first = interface.first_setting();
    if !cfg!(target_os = "linux") || first == 0 {
        return;
    }
    if let Err(error) = handle.set_interface_blocking(interface.number, first) {
        warn!("{busid}: interface {} can't be set to {first}: {error}", interface.number);
    }
}
