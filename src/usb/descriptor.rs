//! Reads raw configuration descriptors (USB 2.0, section 9.6) into [`Configuration`]s.
//!
//! Only simulated devices need it: libusb parses those of real ones. Contract: nothing in here
//! panics on any input; whatever is malformed is left out.

use super::{Alternate, Configuration, Endpoint, Interface};
use crate::wire::types::{EndpointAddress, TransferType};

/// bDescriptorType of a configuration.
const CONFIGURATION: u8 = 2;
/// bDescriptorType of an interface.
const INTERFACE: u8 = 4;
/// bDescriptorType of an endpoint.
const ENDPOINT: u8 = 5;

/// Parses a whole configuration descriptor, all its interfaces in alternate setting 0.
#[must_use]
pub fn parse_configuration(bytes: &[u8]) -> Configuration {
    let mut configuration = Configuration::default();
    // The interface that endpoints belong to: the one whose descriptor came last.
    let mut current = None;
    let mut rest = bytes;
    while let Some((descriptor, tail)) = split_descriptor(rest) {
        rest = tail;
        match *descriptor {
            [_, CONFIGURATION, _, _, _, value, ..] => configuration.value = value,
            [_, INTERFACE, number, setting, _, class, sub_class, protocol, ..] => {
                let index = index_of(&mut configuration.interfaces, number);
                let endpoints = Vec::new();
                let alternate = Alternate { setting, class, sub_class, protocol, endpoints };
                configuration.interfaces[index].alternates.push(alternate);
                current = Some(index);
            }
            [_, ENDPOINT, address, attributes, size_low, size_high, ..] => {
                let interface = current.map(|index: usize| &mut configuration.interfaces[index]);
                if let Some(alternate) = interface.and_then(|i| i.alternates.last_mut()) {
                    alternate.endpoints.push(Endpoint {
                        address: EndpointAddress::from_byte(address),
                        transfer_type: TransferType::from_attributes(attributes),
                        max_packet_size: u16::from_le_bytes([size_low, size_high]),
                    });
                }
            }
            _ => {}
        }
    }
    configuration.interfaces.sort_by_key(|interface| interface.number);
    configuration
}

/// Where interface `number` is, which is added if it is new.
fn index_of(interfaces: &mut Vec<Interface>, number: u8) -> usize {
    interfaces.iter().position(|interface| interface.number == number).unwrap_or_else(|| {
        interfaces.push(Interface { number, current: 0, alternates: Vec::new(), refused: None });
        interfaces.len() - 1
    })
}

/// The first descriptor and what follows it; `None` at the end or where the length is wrong.
fn split_descriptor(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(*bytes.first()?);
    (len >= 2).then(|| bytes.split_at_checked(len))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interface 2, then interface 0 with two settings, the second with an isochronous endpoint.
    const BYTES: &[u8] = &[
        9, 2, 48, 0, 2, 7, 0, 0x80, 50, // configuration 7
        9, 4, 2, 0, 1, 3, 1, 1, 0, // interface 2
        7, 5, 0x81, 3, 8, 0, 10, // interrupt IN
        9, 4, 0, 0, 0, 1, 2, 0, 0, // interface 0
        5, 0x24, 1, 2, 3, // a class descriptor, left out
        9, 4, 0, 1, 1, 1, 2, 0, 0, // its alternate setting 1
        9, 5, 0x02, 1, 0xc0, 0x08, 1, 0, 0, // isochronous OUT, high bandwidth
    ];

    #[test]
    fn interfaces_come_by_number_with_their_settings_and_endpoints() {
        let configuration = parse_configuration(BYTES);
        assert_eq!(configuration.value, 7);
        let numbers: Vec<u8> = configuration.interfaces.iter().map(|i| i.number).collect();
        assert_eq!(numbers, [0, 2]);
        let audio = configuration.interface(0).unwrap();
        assert_eq!(audio.alternate().unwrap().endpoints, []);
        let endpoint = audio.alternates[1].endpoints[0];
        assert_eq!(endpoint.address.as_byte(), 0x02);
        assert_eq!(endpoint.transfer_type, TransferType::Isochronous);
        assert_eq!(endpoint.max_packet_size, 0x08c0);
        assert_eq!(configuration.interface(2).unwrap().alternates[0].endpoints.len(), 1);
    }

    #[test]
    fn any_cut_or_length_is_survived() {
        for end in 0..BYTES.len() {
            let _ = parse_configuration(&BYTES[..end]);
        }
        for position in 0..BYTES.len() {
            for value in [0, 1, 2, 255] {
                let mut bytes = BYTES.to_vec();
                bytes[position] = value;
                let _ = parse_configuration(&bytes);
            }
        }
    }
}
