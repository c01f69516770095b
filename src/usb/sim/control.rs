//! The standard requests (USB 2.0, section 9.4), answered alike by all simulated devices.
//!
//! SET_CONFIGURATION, SET_INTERFACE and CLEAR_FEATURE(ENDPOINT_HALT) are missing, since the host
//! performs these requests, see [`super::port`]. As ordinary requests they are stalled, because
//! they would change the device without the host's knowledge.
//!
//! Contract: nothing panics on any request, allocates or blocks.

use super::descriptors::{Descriptors, put};
use super::endpoint::Endpoints;
use crate::usb::Configuration;
use crate::wire::setup::Setup;

const FROM_DEVICE: u8 = 0x80;
const FROM_INTERFACE: u8 = 0x81;
const FROM_ENDPOINT: u8 = 0x82;
const TO_ENDPOINT: u8 = 0x02;

const GET_STATUS: u8 = 0;
const CLEAR_FEATURE: u8 = 1;
const SET_FEATURE: u8 = 3;
const GET_DESCRIPTOR: u8 = 6;
const GET_CONFIGURATION: u8 = 8;
const GET_INTERFACE: u8 = 10;

const FEATURE_ENDPOINT_HALT: u16 = 0;

/// Bits 5 and 6 of bmRequestType: zero for a standard request.
const TYPE_MASK: u8 = 0x60;

/// Whether all devices answer the request alike.
pub(super) const fn is_standard(setup: &Setup) -> bool {
    setup.request_type & TYPE_MASK == 0
}

/// Carries out a standard request. Returns the moved bytes of the data stage; `None` is a stall.
pub(super) fn answer(
    setup: &Setup,
    data: &mut [u8],
    descriptors: &Descriptors,
    configuration: Option<&Configuration>,
    endpoints: &mut Endpoints,
) -> Option<usize> {
    let [index_low, _] = setup.index.to_le_bytes();
    let [value_low, value_high] = setup.value.to_le_bytes();
    match (setup.request_type, setup.request) {
        (FROM_DEVICE, GET_DESCRIPTOR) => descriptors.get(value_high, value_low, data),
        (FROM_DEVICE, GET_CONFIGURATION) => {
            let value = configuration.map_or(0, |configuration| configuration.value);
            Some(put(data, &[value]))
        }
        (FROM_DEVICE, GET_STATUS) => Some(put(data, &[0, 0])),
        (FROM_INTERFACE, GET_INTERFACE) => {
            let interface = configuration?.interface(index_low)?;
            Some(put(data, &[interface.current]))
        }
        (FROM_INTERFACE, GET_STATUS) => {
            configuration?.interface(index_low)?;
            Some(put(data, &[0, 0]))
        }
        (FROM_ENDPOINT, GET_STATUS) if index_low & 0x7f == 0 => Some(put(data, &[0, 0])),
        (FROM_ENDPOINT, GET_STATUS) => {
            let halted = endpoints.named(setup.index)?.halted;
            Some(put(data, &[u8::from(halted), 0]))
        }
        (TO_ENDPOINT, SET_FEATURE) if setup.value == FEATURE_ENDPOINT_HALT => {
            endpoints.named_haltable(setup.index)?.halted = true;
            Some(0)
        }
        // The default endpoint is never halted, so clearing its halt always succeeds.
        (TO_ENDPOINT, CLEAR_FEATURE) if index_low & 0x7f == 0 && setup.value == 0 => Some(0),
        _ => None,
    }
}
