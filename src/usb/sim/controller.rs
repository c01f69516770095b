//! The rest of the host's side of a simulated bus: the configuration in force, the special
//! requests, and the planned faults.
//!
//! Contract: special requests sleep for a delay set by a test or by `fault=slow`; nothing else
//! blocks. Nothing panics on a client's input; special requests allocate, URBs do not.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::bus::{Plug, PortParts};
use super::descriptors::Descriptors;
use super::endpoint::{Endpoints, Plan};
use super::model::Model;
use super::spec::Fault;
use crate::usb::special::SpecialRequest;
use crate::usb::{Configuration, Performed};
use crate::wire::status::Status;
use crate::wire::types::{EndpointAddress, TransferType};

use super::transfer::Urb;

/// The host's side of a simulated device.
pub(super) struct Controller {
    pub(super) endpoints: Endpoints,
    pub(super) descriptors: Arc<Descriptors>,
    pub(super) configuration: Option<Configuration>,
    pub(super) plug: Arc<Plug>,
    /// The configuration at the time of opening.
    found_in: u8,
    pub(super) delays: Delays,
    /// Number of special requests still to fail.
    pub(super) refusals: u16,
    /// Performed special requests: SET_CONFIGURATION, SET_INTERFACE, CLEAR_HALT, resets.
    pub(super) performed: [u32; 4],
    fault: Option<Fault>,
    /// URBs submitted since the device was opened, without URBs of the default endpoint.
    urbs: u64,
}

/// The times of slow actions.
#[derive(Clone, Copy, Default)]
pub(super) struct Delays {
    /// Any URB.
    pub(super) urb: Duration,
    /// A control request, besides.
    pub(super) control: Duration,
    /// A special request.
    pub(super) special: Duration,
    /// Cancelling a URB.
    pub(super) cancel: Duration,
}

impl Controller {
    /// The host's side of an opening device, with queues for `urbs` URBs.
    pub(super) fn new(parts: &mut PortParts, urbs: usize) -> Self {
        let whole = parts.descriptors.parsed();
        let special = match parts.spec.fault {
            Some(Fault::Slow(delay)) => delay,
            _ => Duration::ZERO,
        };
        let mut controller = Self {
            endpoints: Endpoints::new(&whole, urbs),
            descriptors: Arc::clone(&parts.descriptors),
            configuration: None,
            plug: Arc::clone(&parts.plug),
            found_in: parts.plug.configuration(),
            delays: Delays { urb: parts.spec.delay, special, ..Delays::default() },
            refusals: 0,
            performed: [0; 4],
            fault: parts.spec.fault,
            urbs: 0,
        };
        controller.configure((parts.plug.configuration() == whole.value).then_some(whole));
        parts.taken.model().open();
        controller.reset(parts.taken.model());
        controller
    }

    /// Sets the configuration from the time of opening again.
    pub(super) fn give_back(&self) {
        self.plug.set_configuration(self.found_in);
    }

    /// Counts a URB, and returns the plan of the device's fault setting for the URB.
    pub(super) fn plan(&mut self, urb: &Urb) -> Plan {
        let Some(fault) = self.fault else {
            return Plan::None;
        };
        self.urbs += 1;
        let isochronous = urb.transfer_type == TransferType::Isochronous;
        let half_packet = urb.packets().first().map_or(0, |packet| packet.length() / 2);
        match fault {
            Fault::Stall(n) if n == self.urbs && isochronous => Plan::PacketLost(0),
            Fault::Stall(n) if n == self.urbs => Plan::Stall(0),
            Fault::Short(n) if n == self.urbs && isochronous => Plan::PacketsShort(half_packet),
            Fault::Short(n) if n == self.urbs => Plan::Short(urb.length / 2),
            Fault::Vanish(n) if n == self.urbs => {
                self.plug.pull();
                Plan::None
            }
            _ => Plan::None,
        }
    }

    /// Carries out a special request.
    pub(super) fn perform(&mut self, model: &mut Model, request: SpecialRequest) -> Performed {
        thread::sleep(self.delays.special);
        if !self.plug.is_present() {
            return Performed::Gone;
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return Performed::Failed(Status::EPIPE);
        }
        match request {
            SpecialRequest::SetConfiguration(value) => self.set_configuration(model, value),
            SpecialRequest::SetInterface { interface, alternate } => {
                self.set_interface(model, interface, alternate)
            }
            SpecialRequest::ClearHalt(endpoint) => self.clear_halt(model, endpoint),
            SpecialRequest::Reset => {
                self.performed[3] += 1;
                // As on Linux, the configuration and the settings are restored afterwards.
                self.reset(model);
                Performed::Done
            }
        }
    }

    fn set_configuration(&mut self, model: &mut Model, value: u8) -> Performed {
        let whole = self.descriptors.parsed();
        if value != 0 && value != whole.value {
            return Performed::Failed(Status::EPIPE);
        }
        self.performed[0] += 1;
        self.plug.set_configuration(value);
        self.configure((value != 0).then_some(whole));
        self.reset(model);
        Performed::Reconfigured { configuration: self.configuration.clone(), status: Status::OK }
    }

    fn set_interface(&mut self, model: &mut Model, number: u8, setting: u8) -> Performed {
        let mut configuration = self.configuration.take();
        let changed = configuration.as_mut().and_then(|c| self.select(model, c, number, setting));
        self.configure(configuration);
        if changed.is_none() {
            return Performed::Failed(Status::EPIPE);
        }
        self.performed[1] += 1;
        Performed::Reconfigured { configuration: self.configuration.clone(), status: Status::OK }
    }

    /// Selects an alternate setting and starts its endpoints anew; `None` for an unknown setting.
    fn select(
        &mut self,
        model: &mut Model,
        configuration: &mut Configuration,
        number: u8,
        setting: u8,
    ) -> Option<()> {
        let mut interfaces = configuration.interfaces.iter_mut();
        let interface = interfaces.find(|interface| interface.number == number)?;
        interface.alternates.iter().find(|a| a.setting == setting)?;
        interface.current = setting;
        for endpoint in interface.alternates.iter().flat_map(|a| &a.endpoints) {
            self.restart(model, endpoint.address);
        }
        Some(())
    }

    fn clear_halt(&mut self, model: &mut Model, endpoint: EndpointAddress) -> Performed {
        if endpoint.number() == 0 || !self.endpoints.is_active(endpoint) {
            return Performed::Forward;
        }
        self.performed[2] += 1;
        self.restart(model, endpoint);
        Performed::Done
    }

    fn restart(&mut self, model: &mut Model, endpoint: EndpointAddress) {
        let state = self.endpoints.state(endpoint);
        state.restart();
        state.period = model.period(endpoint);
        model.restart(endpoint);
    }

    fn configure(&mut self, configuration: Option<Configuration>) {
        self.endpoints.configure(configuration.as_ref());
        self.configuration = configuration;
    }

    /// Starts everything anew but the configuration.
    fn reset(&mut self, model: &mut Model) {
        model.reset();
        for address in 0..16 {
            for direction in [0, 0x80] {
                self.restart(model, EndpointAddress::from_byte(address | direction));
            }
        }
    }
}
