//! The special requests, which the host's stack performs: SET_CONFIGURATION, SET_INTERFACE,
//! CLEAR_FEATURE(ENDPOINT_HALT) and resets.
//!
//! Contract: everything here blocks; no transfer of the interfaces concerned is in flight.

use log::debug;
use usbferry_sys::libusb::error::Error;

use super::claims::Claims;
use super::status::failed;
use crate::complaints::warn;
use crate::usb::special::SpecialRequest;
use crate::usb::{Configuration, Interface, Performed};
use crate::wire::status::Status;
use crate::wire::types::EndpointAddress;

impl Claims {
    /// Performs a special request.
    pub(super) fn perform(&mut self, request: SpecialRequest) -> Performed {
        debug!("{}: {request:?}", self.busid());
        match request {
            SpecialRequest::SetConfiguration(value) => self.set_configuration(value),
            SpecialRequest::SetInterface { interface, alternate } => {
                let found = self.configuration.as_ref().and_then(|c| c.interface(interface));
                if let Some(status) = found.and_then(|interface| interface.refused) {
                    return Performed::Failed(status);
                }
                let result = self.set_interface(interface, alternate);
                self.performed(result)
            }
            SpecialRequest::ClearHalt(endpoint) => self.clear_halt(endpoint),
            SpecialRequest::Reset => self.reset(),
        }
    }

    fn clear_halt(&mut self, endpoint: EndpointAddress) -> Performed {
        match self.handle.clear_halt_blocking(endpoint.as_byte()) {
            Ok(()) => Performed::Done,
            Err(Error::NoDevice) => Performed::Gone,
            // As the kernel's exporter does (see `special`): some devices don't know the request
            // and go on all the same, and some clients repeat the request until it succeeds.
            Err(error) => {
                debug!("{}: {endpoint} is left to the device: {error}", self.busid());
                Performed::Forward
            }
        }
    }

    fn set_configuration(&mut self, value: u8) -> Performed {
        // Zero is a number where a configuration has it (usb_set_configuration).
        let is_number = value != 0 || self.found.descriptors.has_configuration(0);
        let value = is_number.then_some(value);
        let is_refused = self.interfaces().any(|interface| interface.refused.is_some());
        if value == self.value() && is_refused {
            return self.reset_settings();
        }
        let before = self.configuration.clone();
        // usbfs refuses while anybody has an interface, this program included.
        self.release();
        let result = self.handle.set_configuration_blocking(value);
        if let Err(error) = self.claim_all() {
            warn!("{}: the system does not name the configuration: {error}", self.busid());
            return Performed::Gone;
        }
        if result.is_err() {
            self.restore_settings(before);
        }
        self.performed(result)
    }

    /// Does to the claimed interfaces what setting the current configuration again would do.
    fn reset_settings(&mut self) -> Performed {
        let ours = self.interfaces().filter(|interface| interface.refused.is_none());
        let first: Vec<_> = ours.map(|ours| (ours.number, ours.first_setting())).collect();
        let mut first = first.into_iter();
        let result = first.try_for_each(|(number, setting)| self.set_interface(number, setting));
        self.performed(result)
    }

    fn set_interface(&mut self, number: u8, setting: u8) -> Result<(), Error> {
        self.handle.set_interface_blocking(number, setting)?;
        for interface in self.interfaces_mut().filter(|interface| interface.number == number) {
            interface.current = setting;
        }
        Ok(())
    }

    /// Resets the device. libusb lets go of every interface meanwhile, and the kernel puts an
    /// interface that is released back to its first setting.
    fn reset(&mut self) -> Performed {
        let result = self.handle.reset_blocking();
        // The device came back as another, or an interface went to another owner.
        if result == Err(Error::NotFound) {
            return Performed::Gone;
        }
        let before = self.configuration.clone();
        for interface in self.interfaces_mut() {
            interface.current = interface.first_setting();
        }
        self.restore_settings(before);
        self.performed(result)
    }

    /// Puts interfaces that went back to their first setting to the client's settings.
    fn restore_settings(&mut self, before: Option<Configuration>) {
        let interfaces = before.into_iter().flat_map(|configuration| configuration.interfaces);
        let were_set =
            interfaces.filter(|interface| interface.current != interface.first_setting());
        for Interface { number, current, .. } in were_set {
            if let Err(error) = self.set_interface(number, current) {
                let busid = self.busid();
                warn!("{busid}: interface {number} is not set to {current} again: {error}");
            }
        }
    }

    /// The configuration in force after a request that may have changed the configuration.
    fn performed(&self, result: Result<(), Error>) -> Performed {
        let status = match result.map_err(failed) {
            Ok(()) => Status::OK,
            Err(Performed::Failed(status)) => status,
            Err(other) => return other,
        };
        Performed::Reconfigured { configuration: self.configuration.clone(), status }
    }
}
