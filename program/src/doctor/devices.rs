//! The USB devices of a machine, as sysfs shows them without opening any.
//!
//! Contract: reads files. Reading a serial number waits for the device's lock, as in
//! `usb::libusb::sysfs`.

use super::machine::Machine;
use crate::usb::{Bound, DeviceInfo};
use crate::wire::op::{UsbDevice, UsbInterface};
use crate::wire::types::{BusId, Speed};

/// Where sysfs has the devices and their interfaces.
const DEVICES: &str = "/sys/bus/usb/devices";

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) busid: BusId,
    pub(super) info: DeviceInfo,
    /// Megabits a second.
    pub(super) speed: u32,
    /// The driver of the whole device, mostly `usb`.
    pub(super) driver: Option<String>,
}

impl Device {
    /// The path of the node.
    pub(super) fn node(&self) -> String {
        self.info.node()
    }

    /// The numbers of vendor and product.
    pub(super) fn ids(&self) -> String {
        let UsbDevice { id_vendor, id_product, .. } = self.info.device;
        format!("{id_vendor:04x}:{id_product:04x}")
    }
}

/// All devices, hubs too. A device that goes meanwhile is left out.
pub(super) fn present(machine: &Machine) -> Vec<Device> {
    let names = machine.names(DEVICES);
    let is_device = |name: &&String| !name.contains(':');
    names.iter().filter(is_device).filter_map(|name| read(machine, name, &names)).collect()
}

fn read(machine: &Machine, name: &str, names: &[String]) -> Option<Device> {
    let text = |attribute: &str| machine.text(&format!("{DEVICES}/{name}/{attribute}"));
    let decimal = |attribute: &str| text(attribute)?.parse::<u32>().ok();
    let hex = |attribute: &str| u16::from_str_radix(&text(attribute)?, 16).ok();
    let byte = |attribute: &str| u8::try_from(hex(attribute)?).ok();
    let busid = BusId::new(name)?;
    let speed = text("speed")?.split('.').next()?.parse().ok()?;
    let prefix = format!("{name}:");
    let interfaces: Vec<&String> = names.iter().filter(|name| name.starts_with(&prefix)).collect();
    let path = machine.link(&format!("{DEVICES}/{name}")).unwrap_or_default();
    let device = UsbDevice {
        busid,
        busnum: u8::try_from(decimal("busnum")?).ok()?,
        devnum: u8::try_from(decimal("devnum")?).ok()?,
        speed: Speed::High,
        id_vendor: hex("idVendor")?,
        id_product: hex("idProduct")?,
        bcd_device: hex("bcdDevice").unwrap_or(0),
        device_class: byte("bDeviceClass")?,
        device_sub_class: byte("bDeviceSubClass").unwrap_or(0),
        device_protocol: byte("bDeviceProtocol").unwrap_or(0),
        configuration_value: text("bConfigurationValue")?.parse().unwrap_or(0),
        num_configurations: byte("bNumConfigurations").unwrap_or(1),
        interfaces: interfaces.iter().map(|name| interface(machine, name)).collect(),
        path: path.clone(),
    };
    let drivers = interfaces.iter().filter_map(|name| bound(machine, name)).collect();
    let info = DeviceInfo {
        device,
        manufacturer: None,
        product: None,
        serial: text("serial"),
        drivers,
        imported: path.contains("/vhci_hcd"),
    };
    let driver = machine.link_name(&format!("{DEVICES}/{name}/driver"));
    Some(Device { busid, info, speed, driver })
}

/// The class of an interface; zero where sysfs does not tell.
fn interface(machine: &Machine, name: &str) -> UsbInterface {
    let number = |attribute: &str| {
        let text = machine.text(&format!("{DEVICES}/{name}/{attribute}"))?;
        u8::from_str_radix(&text, 16).ok()
    };
    UsbInterface {
        class: number("bInterfaceClass").unwrap_or(0),
        sub_class: number("bInterfaceSubClass").unwrap_or(0),
        protocol: number("bInterfaceProtocol").unwrap_or(0),
    }
}

/// The driver of an interface, by the interface's name `BUSID:CONFIGURATION.INTERFACE`.
fn bound(machine: &Machine, name: &str) -> Option<Bound> {
    let interface = name.rsplit('.').next()?.parse().ok()?;
    let driver = machine.link_name(&format!("{DEVICES}/{name}/driver"))?;
    Some(Bound { interface, driver })
}
