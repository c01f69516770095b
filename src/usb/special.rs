//! Requests that the host's stack must perform, because the host keeps state of its own: a raw
//! SET_INTERFACE would change the device but not the endpoints known to the host.
//!
//! The kernel's exporter knows the same four requests (`drivers/usb/usbip/stub_rx.c`,
//! `tweak_special_requests`) and also compares the whole bmRequestType. If the host's call fails,
//! the kernel's exporter sends the request to the device unchanged and returns the device's answer.
//! Before 6.11 (6.1.109 of the stable series) the exporter did the same after a successful call, so
//! the device had each of the four requests twice.
//!
//! Here only a failed CLEAR_HALT goes to the device. The only state of the host at stake is then
//! the data toggle, and the endpoint's own client has asked for its reset. A raw SET_CONFIGURATION
//! or SET_INTERFACE would succeed after a refusal by the host, for want of bandwidth or because
//! another driver has the interface. The device would then have endpoints unknown to the host, and
//! the client would believe in these endpoints. So both requests keep the status of the failure, as
//! does a reset, which no device implements.
//!
//! Contract: plain data and a pure function, without allocation and without a panic on any request.

use crate::wire::setup::Setup;
use crate::wire::status::Status;
use crate::wire::types::EndpointAddress;

/// A request performed by the host's stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpecialRequest {
    /// SET_CONFIGURATION; zero unconfigures.
    SetConfiguration(u8),
    /// SET_INTERFACE.
    #[allow(missing_docs, reason = "bInterfaceNumber and bAlternateSetting")]
    SetInterface { interface: u8, alternate: u8 },
    /// CLEAR_FEATURE(ENDPOINT_HALT), which resets the host's data toggle too.
    ClearHalt(EndpointAddress),
    /// SET_FEATURE(PORT_RESET), in a hub's form: a reset of the device.
    Reset,
}

/// The way to treat a control request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Send the request to the device.
    Ordinary,
    /// Have the host perform the request.
    Special(SpecialRequest),
    /// Answer without the device, which must never see the request.
    Refuse(Status),
}

const TO_DEVICE: u8 = 0x00;
const TO_INTERFACE: u8 = 0x01;
const TO_ENDPOINT: u8 = 0x02;
const TO_HUB_PORT: u8 = 0x23;

const CLEAR_FEATURE: u8 = 1;
const SET_FEATURE: u8 = 3;
const SET_ADDRESS: u8 = 5;
const SET_CONFIGURATION: u8 = 9;
const SET_INTERFACE: u8 = 11;

const FEATURE_ENDPOINT_HALT: u16 = 0;
const FEATURE_TEST_MODE: u16 = 2;
const FEATURE_PORT_RESET: u16 = 4;

/// Sorts a control request.
#[must_use]
pub fn classify(setup: &Setup) -> Class {
    let [value_low, _] = setup.value.to_le_bytes();
    let [index_low, _] = setup.index.to_le_bytes();
    match (setup.request_type, setup.request) {
        (TO_ENDPOINT, CLEAR_FEATURE) if setup.value == FEATURE_ENDPOINT_HALT => {
            let endpoint = EndpointAddress::from_byte(index_low);
            // The default endpoint has no halt for a host to clear; usbfs refuses endpoint 0 here.
            if endpoint.number() == 0 {
                return Class::Ordinary;
            }
            Class::Special(SpecialRequest::ClearHalt(endpoint))
        }
        (TO_INTERFACE, SET_INTERFACE) => Class::Special(SpecialRequest::SetInterface {
            interface: index_low,
            alternate: value_low,
        }),
        (TO_DEVICE, SET_CONFIGURATION) => {
            Class::Special(SpecialRequest::SetConfiguration(value_low))
        }
        (TO_HUB_PORT, SET_FEATURE) if setup.value == FEATURE_PORT_RESET => {
            Class::Special(SpecialRequest::Reset)
        }
        // A new address would hide the device from its own host; a test mode lasts until the device
        // loses power.
        (TO_DEVICE, SET_ADDRESS) => Class::Refuse(Status::EPIPE),
        (TO_DEVICE, SET_FEATURE) if setup.value == FEATURE_TEST_MODE => {
            Class::Refuse(Status::EPIPE)
        }
        _ => Class::Ordinary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(bytes: [u8; 8]) -> Class {
        classify(&Setup::from_bytes(&bytes))
    }

    #[test]
    fn the_four_special_requests_are_found() {
        use Class::Special;
        assert_eq!(class([0, 9, 3, 0, 0, 0, 0, 0]), Special(SpecialRequest::SetConfiguration(3)));
        assert_eq!(
            class([1, 11, 2, 0, 1, 0, 0, 0]),
            Special(SpecialRequest::SetInterface { interface: 1, alternate: 2 })
        );
        assert_eq!(
            class([2, 1, 0, 0, 0x81, 0, 0, 0]),
            Special(SpecialRequest::ClearHalt(EndpointAddress::from_byte(0x81)))
        );
        assert_eq!(class([0x23, 3, 4, 0, 1, 0, 0, 0]), Special(SpecialRequest::Reset));
    }

    #[test]
    fn dangerous_requests_stay_here() {
        assert_eq!(class([0, 5, 7, 0, 0, 0, 0, 0]), Class::Refuse(Status::EPIPE));
        assert_eq!(class([0, 3, 2, 0, 0, 4, 0, 0]), Class::Refuse(Status::EPIPE));
    }

    #[test]
    fn everything_else_goes_to_the_device() {
        for bytes in [
            [0x80, 6, 0, 1, 0, 0, 18, 0], // GET_DESCRIPTOR
            [2, 1, 0, 0, 0x00, 0, 0, 0],  // halt of the default endpoint
            [2, 1, 0, 0, 0x80, 0, 0, 0],  // the same, IN
            [2, 3, 0, 0, 0x81, 0, 0, 0],  // SET_FEATURE(ENDPOINT_HALT)
            [0x21, 11, 0, 0, 0, 0, 0, 0], // a class request with the number of SET_INTERFACE
            [0x40, 9, 0, 0, 0, 0, 0, 0],  // a vendor request with that of SET_CONFIGURATION
            [0x23, 3, 8, 0, 1, 0, 0, 0],  // another port feature
            [0, 3, 1, 0, 0, 0, 0, 0],     // remote wakeup
        ] {
            assert_eq!(class(bytes), Class::Ordinary, "{bytes:02x?}");
        }
    }
}
