//! What a scan found of a device, as the wire's record and as a [`Configuration`].
//!
//! Contract: pure functions.

use usbferry_sys::context::{DeviceSpeed, FoundAlternate, FoundConfiguration, FoundDevice};

use crate::usb::{Alternate, Configuration, Endpoint, Interface};
use crate::wire::op::{UsbDevice, UsbInterface};
use crate::wire::types::{BusId, EndpointAddress, Speed, TransferType};

/// The kernel's port path: `1-2.3` is port 3 of the hub at port 2 of bus 1.
pub(super) fn busid_of(found: &FoundDevice) -> String {
    let ports: Vec<String> = found.ports.iter().map(ToString::to_string).collect();
    match ports.as_slice() {
        [] => format!("usb{}", found.bus),
        ports => format!("{}-{}", found.bus, ports.join(".")),
    }
}

pub(super) fn record_of(found: &FoundDevice, busid: BusId, path: Option<String>) -> UsbDevice {
    let configuration = found.configuration.as_ref();
    let mut alternates: Vec<&FoundAlternate> =
        configuration.iter().flat_map(|c| &c.alternates).filter(|a| a.setting == 0).collect();
    alternates.sort_by_key(|alternate| alternate.interface);
    let interface = |alternate: &&FoundAlternate| UsbInterface {
        class: alternate.class,
        sub_class: alternate.sub_class,
        protocol: alternate.protocol,
    };
    UsbDevice {
        path: path.unwrap_or_else(|| format!("/usb/{busid}")),
        busid,
        busnum: found.bus,
        devnum: found.address,
        speed: speed_of(found.speed),
        id_vendor: found.id_vendor,
        id_product: found.id_product,
        bcd_device: found.bcd_device,
        device_class: found.device_class,
        device_sub_class: found.device_sub_class,
        device_protocol: found.device_protocol,
        configuration_value: configuration.map_or(0, |configuration| configuration.value),
        num_configurations: found.num_configurations,
        interfaces: alternates.iter().map(interface).collect(),
    }
}

/// The wire's speed. An unknown one is called high: a client refuses to attach "unknown".
const fn speed_of(speed: DeviceSpeed) -> Speed {
    match speed {
        DeviceSpeed::Low => Speed::Low,
        DeviceSpeed::Full => Speed::Full,
        DeviceSpeed::High | DeviceSpeed::Unknown => Speed::High,
        DeviceSpeed::Super => Speed::Super,
    }
}

pub(super) fn configuration_of(found: &FoundConfiguration) -> Configuration {
    let mut interfaces: Vec<Interface> = Vec::new();
    for alternate in &found.alternates {
        let number = alternate.interface;
        if !interfaces.iter().any(|interface| interface.number == number) {
            let of_this = found.alternates.iter().filter(|a| a.interface == number);
            let alternates = of_this.map(alternate_of).collect();
            interfaces.push(Interface { number, current: 0, alternates, refused: None });
        }
    }
    interfaces.sort_by_key(|interface| interface.number);
    Configuration { value: found.value, interfaces }
}

fn alternate_of(found: &FoundAlternate) -> Alternate {
    let endpoint = |endpoint: &usbferry_sys::context::FoundEndpoint| Endpoint {
        address: EndpointAddress::from_byte(endpoint.address),
        transfer_type: TransferType::from_attributes(endpoint.attributes),
        max_packet_size: endpoint.max_packet_size,
    };
    Alternate {
        setting: found.setting,
        class: found.class,
        sub_class: found.sub_class,
        protocol: found.protocol,
        endpoints: found.endpoints.iter().map(endpoint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usbferry_sys::context::FoundEndpoint;

    fn found() -> FoundDevice {
        let alternate = |interface, setting, class| FoundAlternate {
            interface,
            setting,
            class,
            sub_class: 0,
            protocol: 0,
            endpoints: vec![FoundEndpoint { address: 0x81, attributes: 1, max_packet_size: 192 }],
        };
        FoundDevice {
            bus: 3,
            address: 17,
            ports: vec![1, 4],
            speed: DeviceSpeed::Super,
            id_vendor: 1,
            id_product: 2,
            bcd_device: 3,
            device_class: 0xef,
            device_sub_class: 2,
            device_protocol: 1,
            num_configurations: 1,
            configuration: Some(FoundConfiguration {
                value: 1,
                alternates: vec![
                    alternate(2, 0, 22),
                    alternate(0, 0, 20),
                    alternate(0, 1, 20),
                    alternate(1, 0, 21),
                ],
            }),
            isochronous: true,
            strings: [const { None }; 3],
        }
    }

    #[test]
    fn busids_are_the_kernels() {
        assert_eq!(busid_of(&found()), "3-1.4");
        assert_eq!(busid_of(&FoundDevice { ports: vec![2], ..found() }), "3-2");
        assert_eq!(busid_of(&FoundDevice { ports: vec![], ..found() }), "usb3");
    }

    /// Conformance case 5: records by interface number, alternate setting 0 only.
    #[test]
    fn devlist_iface_order() {
        let record = record_of(&found(), BusId::new("3-1.4").unwrap(), None);
        let classes: Vec<u8> = record.interfaces.iter().map(|i| i.class).collect();
        assert_eq!(classes, [20, 21, 22]);
    }

    /// Conformance case 6.
    #[test]
    fn devlist_unconfigured() {
        let unconfigured = FoundDevice { configuration: None, ..found() };
        let record = record_of(&unconfigured, BusId::new("3-1.4").unwrap(), None);
        assert_eq!((record.configuration_value, record.interfaces.len()), (0, 0));
    }

    /// Conformance case 18.
    #[test]
    fn speed_map() {
        let all = [
            (DeviceSpeed::Low, 1),
            (DeviceSpeed::Full, 2),
            (DeviceSpeed::High, 3),
            (DeviceSpeed::Super, 5),
            (DeviceSpeed::Unknown, 3),
        ];
        for (speed, wire) in all {
            assert_eq!(speed_of(speed) as u32, wire);
        }
    }

    #[test]
    fn configurations_keep_their_settings_together() {
        let configuration = configuration_of(&found().configuration.unwrap());
        let settings: Vec<(u8, usize)> =
            configuration.interfaces.iter().map(|i| (i.number, i.alternates.len())).collect();
        assert_eq!(settings, [(0, 2), (1, 1), (2, 1)]);
        let endpoint = configuration.interfaces[0].alternates[1].endpoints[0];
        assert_eq!(endpoint.transfer_type, TransferType::Isochronous);
    }
}
