//! A device as a scan found it, and the record that clients get.
//!
//! Contract: plain data. Only [`Found::configuration_now`] blocks.

use usbferry_sys::libusb::device::DeviceId;
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::handle::DeviceHandle;

use crate::usb::descriptor::{Descriptors, Host};
use crate::usb::{Configuration, DeviceInfo};
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;

/// Facts that the host has of a device, the same as long as the device is plugged in.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: DeviceId,
    pub(super) busid: BusId,
    pub(super) host: Host,
    pub(super) descriptors: Descriptors,
}

impl Found {
    /// The configuration numbered `value`, as the host has made it. An unknown configuration is
    /// empty.
    pub(super) fn configuration(&self, value: u8) -> Configuration {
        let found = self.descriptors.configuration(value, self.host);
        found.unwrap_or_else(|| Configuration { value, interfaces: Vec::new() })
    }

    /// The device for clients, in the configuration numbered `value` or in none. The caller adds
    /// names and drivers.
    pub(super) fn info(&self, value: Option<u8>, path: Option<String>) -> DeviceInfo {
        DeviceInfo {
            device: self.record(value, path),
            manufacturer: None,
            product: None,
            serial: None,
            drivers: Vec::new(),
            imported: false,
        }
    }

    fn record(&self, value: Option<u8>, path: Option<String>) -> UsbDevice {
        let device = &self.descriptors.device;
        let configuration = value.map(|value| self.configuration(value));
        UsbDevice {
            path: path.unwrap_or_else(|| format!("/usb/{}", self.busid)),
            busid: self.busid,
            busnum: self.id.bus,
            devnum: self.id.address,
            speed: self.host.speed,
            id_vendor: device.id_vendor,
            id_product: device.id_product,
            bcd_device: device.bcd_device,
            device_class: device.class,
            device_sub_class: device.sub_class,
            device_protocol: device.protocol,
            configuration_value: value.unwrap_or(0),
            num_configurations: device.num_configurations,
            interfaces: configuration.map_or_else(Vec::new, |it| it.records()),
        }
    }

    /// bConfigurationValue as the host has it now, `None` when the device is not configured. Waits
    /// for the device's lock. *Blocks.*
    ///
    /// # Errors
    /// `NoDevice` when the device is gone; with any other error the system can't tell.
    #[cfg(target_os = "linux")]
    pub(super) fn configuration_now(&self, _: &DeviceHandle) -> Result<Option<u8>, Error> {
        let directory = std::path::Path::new(super::sysfs::DEVICES).join(self.busid.to_string());
        let read = super::sysfs::configuration(&directory);
        read.map_err(|error| {
            if usbferry_sys::os::limit::is_reached(&error) { Error::NoMem } else { Error::NoDevice }
        })
    }

    /// The same, by libusb.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn configuration_now(&self, handle: &DeviceHandle) -> Result<Option<u8>, Error> {
        handle.configuration_blocking()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usb::descriptor::Device;
    use crate::wire::types::Speed;

    /// Interface 2, then 0 in two settings, then 1, in configuration 0.
    const CONFIGURATION: &[u8] = &[
        9, 2, 45, 0, 3, 0, 0, 0x80, 50, // configuration 0
        9, 4, 2, 0, 0, 22, 0, 0, 0, //
        9, 4, 0, 1, 0, 99, 0, 0, 0, //
        9, 4, 0, 0, 0, 20, 0, 0, 0, //
        9, 4, 1, 3, 0, 21, 0, 0, 0,
    ];

    fn found() -> Found {
        let device = Device {
            bcd_usb: 0x0200,
            class: 0xef,
            sub_class: 2,
            protocol: 1,
            max_packet_size_0: 64,
            id_vendor: 1,
            id_product: 2,
            bcd_device: 3,
            strings: [0; 3],
            num_configurations: 1,
        };
        Found {
            id: DeviceId { bus: 3, address: 17, id_vendor: 1, id_product: 2 },
            busid: BusId::new("3-1.4").unwrap(),
            host: Host::at(Speed::High),
            descriptors: Descriptors { device, configurations: vec![CONFIGURATION.to_vec()] },
        }
    }

    /// Records by interface number, of the setting in force only.
    #[test]
    fn devlist_iface_order() {
        let record = found().info(Some(0), None).device;
        let classes: Vec<u8> = record.interfaces.iter().map(|i| i.class).collect();
        assert_eq!(classes, [20, 21, 22]);
        assert_eq!(record.configuration_value, 0);
    }

    #[test]
    fn devlist_unconfigured() {
        let record = found().info(None, None).device;
        assert_eq!((record.configuration_value, record.interfaces.len()), (0, 0));
    }

    /// The host is in a configuration without descriptors.
    #[test]
    fn an_unknown_configuration_is_empty() {
        let record = found().info(Some(7), None).device;
        assert_eq!((record.configuration_value, record.interfaces.len()), (7, 0));
    }

    #[test]
    fn speed_map() {
        for (speed, wire) in
            [(Speed::Low, 1), (Speed::Full, 2), (Speed::High, 3), (Speed::Super, 5)]
        {
            let found = Found { host: Host::at(speed), ..found() };
            assert_eq!(found.info(None, None).device.speed as u32, wire);
        }
    }
}
