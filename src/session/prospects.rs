//! Which endpoints requests under way may make isochronous, as far as reading the stream depends on
//! the answer.
//!
//! A SUBMIT has packet descriptors at its end only if the endpoint is isochronous. While
//! SET_INTERFACE or SET_CONFIGURATION is performed, or waits behind another request, nobody knows
//! which setting will be in force: the client may have sent the SUBMIT for the setting asked for
//! or, should the request be refused, for the setting before. Meanwhile an endpoint may be
//! isochronous if the setting in force says so or any setting asked for does, and number_of_packets
//! is believed there. Anywhere else clients leave anything in the field.
//!
//! Contract: plain state; nothing allocates, blocks or panics.

use crate::usb::isochronous::IsochronousSettings;
use crate::usb::special::SpecialRequest;
use crate::wire::types::EndpointAddress;

/// The settings asked for since nothing was under way. A client which does not wait has not read,
/// either, how the earlier requests ended.
pub(super) struct Prospects {
    settings: IsochronousSettings,
    /// Some setting was asked for.
    open: bool,
    /// Another configuration than the present was asked for.
    configuration: bool,
    /// Endpoints isochronous in any setting asked for, a bit each.
    isochronous: u32,
}

impl Prospects {
    pub(super) const fn new(settings: IsochronousSettings) -> Self {
        Self { settings, open: false, configuration: false, isochronous: 0 }
    }

    /// Notes an end of everything under way.
    pub(super) const fn clear(&mut self) {
        (self.open, self.configuration, self.isochronous) = (false, false, 0);
    }

    /// Notes a request to be performed, with `current` being the configuration in force. A second
    /// note of the same request changes nothing.
    pub(super) fn note(&mut self, request: SpecialRequest, current: Option<u8>) {
        self.isochronous |= match request {
            SpecialRequest::SetConfiguration(value) => {
                self.configuration |= current != Some(value);
                self.settings.of_configuration(value)
            }
            SpecialRequest::SetInterface { interface, alternate } => {
                // Of which configuration the interface will be is open, too, then.
                let configuration = current.filter(|_| !self.configuration);
                self.settings.of_setting(configuration, interface, alternate)
            }
            SpecialRequest::ClearHalt(_) | SpecialRequest::Reset => return,
        };
        self.open = true;
    }

    /// Whether a setting was asked for, and more than the setting in force counts.
    pub(super) const fn are_open(&self) -> bool {
        self.open
    }

    /// Whether the device has an endpoint and no setting makes the endpoint isochronous.
    pub(super) const fn is_never_isochronous(&self, endpoint: EndpointAddress) -> bool {
        self.settings.is_never(endpoint)
    }

    /// Whether a setting asked for may make an endpoint isochronous.
    pub(super) const fn may_be_isochronous(&self, endpoint: EndpointAddress) -> bool {
        self.isochronous & endpoint.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usb::descriptor::{Host, parse_configuration};
    use crate::wire::types::Speed;
    use SpecialRequest::{ClearHalt, Reset, SetConfiguration, SetInterface};

    const ENDPOINTS: [EndpointAddress; 3] = [
        EndpointAddress::from_byte(0x81),
        EndpointAddress::from_byte(0x02),
        EndpointAddress::from_byte(0x03),
    ];

    /// Configuration 1 has 0x81 in interface 0, setting 1; configuration 2 has 0x02 there, and 0x03
    /// in interface 1, setting 0.
    fn prospects() -> Prospects {
        let first = [
            9, 2, 34, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 255, 0, 0, 0, // interface 0
            9, 4, 0, 1, 1, 255, 0, 0, 0, 7, 5, 0x81, 1, 64, 0, 1, // its setting 1
        ];
        let second = [
            9, 2, 50, 0, 2, 2, 0, 0x80, 50, 9, 4, 0, 0, 0, 255, 0, 0, 0, // interface 0
            9, 4, 0, 1, 1, 255, 0, 0, 0, 7, 5, 0x02, 1, 64, 0, 1, // its setting 1
            9, 4, 1, 0, 1, 255, 0, 0, 0, 7, 5, 0x03, 1, 64, 0, 1, // interface 1
        ];
        let parse = |bytes: &[u8]| parse_configuration(bytes, Host::at(Speed::High));
        let configurations = [parse(&first), parse(&second)];
        Prospects::new(IsochronousSettings::of(configurations.iter().flatten()))
    }

    #[test]
    fn endpoints_that_requests_in_a_row_may_make_isochronous() {
        let set = |interface, alternate| SetInterface { interface, alternate };
        let clear_halt = ClearHalt(ENDPOINTS[0]);
        // In configuration 1: the requests, whether a setting is open, and the endpoints.
        let rows: [(&[SpecialRequest], bool, [bool; 3]); 10] = [
            (&[], false, [false, false, false]),
            (&[clear_halt, Reset], false, [false, false, false]),
            (&[set(0, 0)], true, [false, false, false]),
            (&[set(0, 1)], true, [true, false, false]),
            (&[set(0, 1), set(0, 0)], true, [true, false, false]),
            (&[set(1, 0)], true, [false, false, false]),
            (&[SetConfiguration(1), set(0, 1)], true, [true, false, false]),
            (&[SetConfiguration(2)], true, [false, false, true]),
            (&[SetConfiguration(2), set(0, 1)], true, [true, true, true]),
            (&[SetConfiguration(0), Reset], true, [false, false, false]),
        ];
        for (requests, open, expected) in rows {
            let mut prospects = prospects();
            for &request in requests {
                (0..2).for_each(|_| prospects.note(request, Some(1)));
            }
            let may_be = ENDPOINTS.map(|endpoint| prospects.may_be_isochronous(endpoint));
            assert_eq!((prospects.are_open(), may_be), (open, expected), "{requests:?}");
            prospects.clear();
            assert!(!prospects.are_open() && !prospects.may_be_isochronous(ENDPOINTS[0]));
        }
    }
}
