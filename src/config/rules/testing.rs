//! Devices for the tests of rules.
//!
//! Contract: tests only.

use crate::usb::DeviceInfo;
use crate::wire::op::UsbDevice;
use crate::wire::types::{BusId, Speed};

/// A stick, 0781:5567, with the serial number `ab:c`.
pub(crate) fn info(busid: &str, class: u8, imported: bool) -> DeviceInfo {
    DeviceInfo {
        device: UsbDevice {
            path: String::new(),
            busid: BusId::new(busid).unwrap(),
            busnum: 1,
            devnum: 1,
            speed: Speed::High,
            id_vendor: 0x0781,
            id_product: 0x5567,
            bcd_device: 0,
            device_class: class,
            device_sub_class: 0,
            device_protocol: 0,
            configuration_value: 1,
            num_configurations: 1,
            interfaces: Vec::new(),
        },
        manufacturer: None,
        product: None,
        serial: Some("ab:c".to_owned()),
        drivers: Vec::new(),
        imported,
    }
}
