//! An open device, whose interfaces are claimed from kernel drivers and go back to the drivers.
//!
//! Interfaces go by the host's numbers. [`Claims::take`] claims the interfaces,
//! [`Claims::give_back`] gives interfaces back to kernel drivers, where there was a driver, and the
//! device its configuration. In between [`super::requests`] changes configurations and settings.
//!
//! Contract: everything here blocks.

use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use super::found::Found;
use super::ledger::{Debt, Note};
use super::owed::Owed;
use super::status::refusal_of;
use crate::complaints::warn;
use crate::usb::{Configuration, Interface};
use crate::wire::types::BusId;

/// Whose an interface is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Claim {
    /// Claimed: its endpoints take URBs.
    Ours,
    /// Released again.
    Free,
    /// The system did not let the interface be claimed.
    Refused(Error),
}

/// An open device with its interfaces.
pub(super) struct Claims {
    pub(super) handle: DeviceHandle,
    pub(super) found: Found,
    /// In force, with the client's settings; `None` while the device is not configured, or the host
    /// does not say.
    pub(super) configuration: Option<Configuration>,
    /// By interface number, of the configuration in force.
    states: Vec<(u8, Claim)>,
    owed: Owed,
}

impl Claims {
    /// Claims every interface of the configuration that the device is found in. An interface that
    /// can't be claimed is marked.
    ///
    /// # Errors
    /// The host does not say which configuration; then nothing is claimed.
    pub(super) fn take(handle: DeviceHandle, found: Found) -> Result<Self, Error> {
        let value = found.configuration_now(&handle)?;
        Ok(Self::claimed(handle, found, Owed::new(value), value))
    }

    /// Claims the interfaces for another process's session, and takes on the process's debt.
    ///
    /// # Errors
    /// As of [`Self::take`]; the note stays.
    pub(super) fn take_over(
        handle: DeviceHandle,
        found: Found,
        debt: Debt,
        note: Note,
    ) -> Result<Self, Error> {
        let value = found.configuration_now(&handle)?;
        let owed = Owed::noted(debt.configuration, note);
        let mut claims = Self::claimed(handle, found, owed, value);
        claims.owed.add_drivers(&debt.interfaces);
        Ok(claims)
    }

    fn claimed(handle: DeviceHandle, found: Found, owed: Owed, value: Option<u8>) -> Self {
        let mut claims = Self { handle, found, configuration: None, states: Vec::new(), owed };
        claims.claim(value);
        claims
    }

    pub(super) const fn busid_ref(&self) -> &BusId {
        &self.found.busid
    }

    pub(super) const fn busid(&self) -> BusId {
        self.found.busid
    }

    /// Number of the configuration in force.
    pub(super) fn value(&self) -> Option<u8> {
        self.configuration.as_ref().map(|configuration| configuration.value)
    }

    /// Interfaces of the configuration in force.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &Interface> + Clone {
        self.configuration.iter().flat_map(|configuration| &configuration.interfaces)
    }

    pub(super) fn interfaces_mut(&mut self) -> impl Iterator<Item = &mut Interface> {
        self.configuration.iter_mut().flat_map(|configuration| &mut configuration.interfaces)
    }

    /// Why no interface at all could be claimed, where there are any.
    pub(super) fn refusal(&self) -> Option<Error> {
        if self.has_any() {
            return None;
        }
        match self.states.first()?.1 {
            Claim::Refused(error) => Some(error),
            Claim::Ours | Claim::Free => None,
        }
    }

    fn has_any(&self) -> bool {
        self.states.iter().any(|(_, state)| *state == Claim::Ours)
    }

    /// Claims every interface of the active configuration, none of which is claimed now.
    ///
    /// # Errors
    /// The host does not say which configuration; then none is known, and nothing claimed.
    pub(super) fn claim_all(&mut self) -> Result<(), Error> {
        let value = self.found.configuration_now(&self.handle);
        let value = value.inspect_err(|_| self.configuration = None)?;
        self.claim(value);
        Ok(())
    }

    fn claim(&mut self, value: Option<u8>) {
        let mut configuration = value.map(|value| self.found.configuration(value));
        // Another configuration has other interfaces, which the kernel has just probed.
        if self.value() != value {
            self.owed.forget_drivers();
        }
        // Before the first interface is claimed, because a driver can have several interfaces and
        // lets go of all when it loses one.
        self.owed.note_drivers(&self.handle, &self.found, configuration.as_ref());
        // Platforms without kernel drivers to detach refuse; claiming then tells.
        let _ = self.handle.set_auto_detach(true);
        self.states.clear();
        for interface in configuration.iter_mut().flat_map(|c| &mut c.interfaces) {
            let state = claim(&mut self.handle, interface, self.found.busid);
            self.states.push((interface.number, state));
        }
        self.configuration = configuration;
        self.tell_refused();
    }

    /// Tells the log which interfaces could not be claimed, and whether the others work.
    fn tell_refused(&self) {
        let left = if self.has_any() { ", the rest works" } else { "" };
        let busid = self.busid();
        for (number, state) in &self.states {
            if let Claim::Refused(error) = state {
                warn!(
                    "{busid}: interface {number} can't be claimed ({error}): its endpoints are \
                     refused{left}"
                );
            }
        }
    }

    /// Releases every interface, without giving any to a kernel driver yet.
    pub(super) fn release(&mut self) {
        let _ = self.handle.set_auto_detach(false);
        let busid = self.busid();
        for (number, state) in self.states.iter_mut().filter(|(_, state)| *state == Claim::Ours) {
            *state = Claim::Free;
            match self.handle.release_blocking(*number) {
                // Gone with the device, or already released by a reset.
                Ok(()) | Err(Error::NoDevice | Error::NotFound) => {}
                Err(error) => warn!("{busid}: releasing interface {number}: {error}"),
            }
        }
    }

    /// Releases every interface before the device goes back, and notes which of them Linux gives no
    /// driver (see [`Owed::bar`]).
    pub(super) fn end(&mut self) {
        let ours = self.states.iter().filter(|(_, state)| *state == Claim::Ours);
        let ours: Vec<u8> = ours.map(|(number, _)| *number).collect();
        for number in ours {
            if self.owed.is_owed_to_driver(number) && self.is_barred(number) {
                self.owed.bar(number);
            }
        }
        self.release();
    }

    /// Whether a claimed interface can't be set to 0. The request is the one that Linux makes at
    /// the release, and makes no second time after a success.
    fn is_barred(&mut self, number: u8) -> bool {
        let interface = self.configuration.as_ref().and_then(|c| c.interface(number));
        let Some(interface) = interface.filter(|_| cfg!(target_os = "linux")) else { return false };
        if !interface.has_setting_0() {
            return true;
        }
        if interface.current == 0 {
            return false;
        }
        let set = self.handle.set_interface_blocking(number, 0);
        !matches!(set, Ok(()) | Err(Error::NoDevice))
    }

    /// Leaves the device as it was found: its interfaces free or with their kernel drivers, its
    /// configuration set again.
    pub(super) fn give_back(mut self) {
        self.end();
        self.owed.give_back(&mut self.handle, self.found.busid, self.configuration.as_ref());
    }
}

/// Claims an interface, or marks the interface with the answer to its URBs.
fn claim(handle: &mut DeviceHandle, interface: &mut Interface, busid: BusId) -> Claim {
    match handle.claim_blocking(interface.number) {
        Ok(()) => {
            enable(handle, interface, busid);
            Claim::Ours
        }
        Err(error) => {
            interface.refused = Some(refusal_of(error));
            Claim::Refused(error)
        }
    }
}

/// Has the endpoints of a claimed interface take URBs. Linux has disabled them where the interface
/// was taken from its owner and could not be set to 0, because it has no such setting
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
