//! The descriptions of simulated devices: builders for their descriptors (USB 2.0, section 9.6).
//!
//! Contract: building allocates; answering a request does not. Nothing panics on a client's input,
//! or blocks.

use super::replay::script::Script;
use crate::usb::Configuration as Parsed;
use crate::usb::descriptor::{Host, parse_configuration};
use crate::wire::types::Speed;

const DEVICE: u8 = 1;
const CONFIGURATION: u8 = 2;
const STRING: u8 = 3;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
const DEVICE_QUALIFIER: u8 = 6;

/// The vendor of all simulated devices: pid.codes, whose first products are for tests.
pub(super) const ID_VENDOR: u16 = 0x1209;

/// bConfigurationValue of the only configuration of each simulated device.
pub(super) const CONFIGURATION_VALUE: u8 = 1;

/// English (United States), the only language of the strings.
const LANGUAGE: u16 = 0x0409;

const MANUFACTURER_INDEX: u8 = 1;
const PRODUCT_INDEX: u8 = 2;
const SERIAL_INDEX: u8 = 3;

/// Bytes of the largest string descriptor.
const STRING_LEN_MAX: usize = 255;

/// All descriptors of a device.
pub(super) struct Descriptors {
    pub(super) speed: Speed,
    pub(super) device: [u8; 18],
    /// The whole configuration, with the descriptors behind its own.
    pub(super) configuration: Vec<u8>,
    pub(super) strings: Strings,
}

/// The texts of a device's string descriptors.
#[derive(Clone, Default)]
pub(super) struct Strings {
    pub(super) manufacturer: Option<String>,
    pub(super) product: Option<String>,
    pub(super) serial: Option<String>,
}

/// The manufacturer of all devices.
pub(super) const MANUFACTURER: &str = "usbferry";

impl Descriptors {
    /// The descriptors of a device with its class in the interfaces. `parts` are the descriptors
    /// behind the configuration's own.
    pub(super) fn new(
        speed: Speed,
        id_product: u16,
        product: &'static str,
        serial: String,
        parts: &[&[u8]],
    ) -> Self {
        let [vendor_low, vendor_high] = ID_VENDOR.to_le_bytes();
        let [product_low, product_high] = id_product.to_le_bytes();
        #[rustfmt::skip]
        let device = [
            18, DEVICE,
            0x00, 0x02, // bcdUSB
            0, 0, 0, // class, subclass, protocol: see the interfaces
            64, // bMaxPacketSize0
            vendor_low, vendor_high, product_low, product_high,
            0x00, 0x01, // bcdDevice
            MANUFACTURER_INDEX, PRODUCT_INDEX, SERIAL_INDEX,
            1, // bNumConfigurations
        ];
        let strings = Strings {
            manufacturer: Some(MANUFACTURER.to_owned()),
            product: Some(product.to_owned()),
            serial: Some(serial),
        };
        Self { speed, device, configuration: configuration(parts), strings }
    }

    /// The descriptors of a recorded device.
    pub(super) fn of_script(script: &Script) -> Self {
        let [manufacturer, product, serial] =
            [14, 15, 16].map(|place: usize| script.string(script.device[place]));
        Self {
            speed: script.speed,
            device: script.device,
            configuration: script.configuration.clone(),
            strings: Strings { manufacturer, product, serial },
        }
    }

    /// bConfigurationValue of the configuration.
    pub(super) fn configuration_value(&self) -> u8 {
        self.configuration[5]
    }

    /// The configuration, read as by a host.
    pub(super) fn parsed(&self) -> Parsed {
        parse_configuration(&self.configuration, Host::at(self.speed))
            .expect("simulated devices have a configuration that can be read")
    }

    /// Answers GET_DESCRIPTOR with as many bytes as there are and `data` has room for; `None` is a
    /// stall.
    pub(super) fn get(&self, kind: u8, index: u8, data: &mut [u8]) -> Option<usize> {
        match (kind, index) {
            (DEVICE, 0) => Some(put(data, &self.device)),
            (CONFIGURATION, 0) => Some(put(data, &self.configuration)),
            (DEVICE_QUALIFIER, 0) => self.device_qualifier(data),
            (STRING, index) => self.string(index, data),
            _ => None,
        }
    }

    /// A device of full speed stalls; a device of high speed answers that no configuration exists
    /// for the other speed.
    fn device_qualifier(&self, data: &mut [u8]) -> Option<usize> {
        if self.speed != Speed::High {
            return None;
        }
        let mut qualifier = [0; 10];
        qualifier[..8].copy_from_slice(&self.device[..8]);
        qualifier[..2].copy_from_slice(&[10, DEVICE_QUALIFIER]);
        Some(put(data, &qualifier))
    }

    fn string(&self, index: u8, data: &mut [u8]) -> Option<usize> {
        match index {
            0 => Some(put_string(data, [LANGUAGE].into_iter())),
            MANUFACTURER_INDEX => put_text(data, self.strings.manufacturer.as_ref()),
            PRODUCT_INDEX => put_text(data, self.strings.product.as_ref()),
            SERIAL_INDEX => put_text(data, self.strings.serial.as_ref()),
            _ => None,
        }
    }
}

/// Copies as much of `bytes` as fits and returns the number of copied bytes.
pub(super) fn put(data: &mut [u8], bytes: &[u8]) -> usize {
    let len = bytes.len().min(data.len());
    data[..len].copy_from_slice(&bytes[..len]);
    len
}

fn put_text(data: &mut [u8], text: Option<&String>) -> Option<usize> {
    text.map(|text| put_string(data, text.encode_utf16()))
}

fn put_string(data: &mut [u8], units: impl Iterator<Item = u16>) -> usize {
    let mut descriptor = [0; STRING_LEN_MAX];
    let (pairs, _) = descriptor[2..].as_chunks_mut();
    let mut len = 2;
    for (pair, unit) in pairs.iter_mut().zip(units) {
        *pair = unit.to_le_bytes();
        len += 2;
    }
    descriptor[0] = u8::try_from(len).expect("a string descriptor has 254 bytes at most");
    descriptor[1] = STRING;
    put(data, &descriptor[..len])
}

/// The configuration's descriptor, followed by `parts`.
fn configuration(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let total = u16::try_from(9 + body.len()).expect("a simulated device is small");
    let [total_low, total_high] = total.to_le_bytes();
    let is_interface = |part: &&&[u8]| matches!(part, [_, INTERFACE, _, 0, ..]);
    let interfaces = parts.iter().filter(is_interface).count();
    #[rustfmt::skip]
    let mut bytes = vec![
        9, CONFIGURATION, total_low, total_high,
        u8::try_from(interfaces).expect("a simulated device is small"),
        CONFIGURATION_VALUE,
        0, // no name
        0x80, // powered by the bus
        50, // 100 mA
    ];
    bytes.extend(body);
    bytes
}

/// An interface descriptor.
pub(super) const fn interface(
    number: u8,
    alternate: u8,
    endpoints: u8,
    [class, sub_class, protocol]: [u8; 3],
) -> [u8; 9] {
    #[rustfmt::skip]
    let descriptor = [
        9, INTERFACE, number, alternate, endpoints, class, sub_class, protocol, 0,
    ];
    descriptor
}

/// An endpoint descriptor.
pub(super) const fn endpoint(
    address: u8,
    attributes: u8,
    max_packet_size: u16,
    interval: u8,
) -> [u8; 7] {
    let [size_low, size_high] = max_packet_size.to_le_bytes();
    #[rustfmt::skip]
    let descriptor = [7, ENDPOINT, address, attributes, size_low, size_high, interval];
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(speed: Speed) -> Descriptors {
        let first = interface(0, 0, 1, [0xff, 0, 0]);
        let other_setting = interface(0, 1, 0, [0xff, 0, 0]);
        let bulk = endpoint(0x81, 2, 512, 0);
        let parts: [&[u8]; 3] = [&first, &bulk, &other_setting];
        Descriptors::new(speed, 7, "Product", "S1".to_owned(), &parts)
    }

    #[test]
    fn lengths_and_counts_match_the_parts() {
        let configuration = descriptors(Speed::High).configuration;
        assert_eq!(configuration[..6], [9, 2, 34, 0, 1, 1]);
        assert_eq!(configuration.len(), 34);
    }

    #[test]
    fn strings_are_utf_16_and_cut_to_the_requested_length() {
        let mut data = [0xa5; 64];
        let descriptors = descriptors(Speed::Full);
        assert_eq!(descriptors.get(STRING, 0, &mut data), Some(4));
        assert_eq!(data[..4], [4, 3, 0x09, 0x04]);
        assert_eq!(descriptors.get(STRING, 3, &mut data), Some(6));
        assert_eq!(data[..7], [6, 3, b'S', 0, b'1', 0, 0xa5]);
        assert_eq!(descriptors.get(STRING, 2, &mut data[..2]), Some(2));
        assert_eq!(data[0], 16, "the length is that of the whole string");
        assert_eq!(descriptors.get(STRING, 4, &mut data), None);
    }

    #[test]
    fn only_high_speed_has_a_qualifier() {
        let mut data = [0xa5; 64];
        let qualifier = descriptors(Speed::High).get(DEVICE_QUALIFIER, 0, &mut data);
        assert_eq!(qualifier, Some(10));
        assert_eq!(data[..11], [10, 6, 0, 2, 0, 0, 0, 64, 0, 0, 0xa5]);
        let qualifier = descriptors(Speed::Full).get(DEVICE_QUALIFIER, 0, &mut data);
        assert_eq!(qualifier, None);
    }
}
