//! Devices as described by Linux's sysfs.
//!
//! Reading some attributes takes the lock of the device (`usb_lock_device_interruptible` in
//! `drivers/usb/core/sysfs.c`). A reader then waits for any other holder: while the device ignores
//! a request, or is being enumerated. [`present`] and [`links`] read no such attribute.
//! [`locked_attributes`] and [`configuration`] do, and `scan` bounds the wait.
//!
//! Contract: reads files, so it is for workers.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use usbferry_sys::libusb::device::DeviceId;
use usbferry_sys::os::limit;

use crate::sorted::sort_by_key;
use crate::usb::descriptor::{Descriptors, Device};
use crate::usb::{Bound, class};
use crate::wire::types::{BusId, Speed};

/// Where devices are, by busid.
pub(super) const DEVICES: &str = "/sys/bus/usb/devices";

/// Bytes of an attribute at most (`sysfs_kf_seq_show`: a page). The standard library would ask for
/// the length first, which sysfs does not know.
const ATTRIBUTE_LEN_MAX: usize = 4096;

/// `USB_QUIRK_HONOR_BNUMINTERFACES` and `USB_QUIRK_ENDPOINT_IGNORE` of `linux/usb/quirks.h`.
const HONOR_INTERFACE_COUNT: u32 = 1 << 5;
const IGNORE_ENDPOINTS: u32 = 1 << 15;

/// The identity of a device: a device in the same place later has another number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    pub(super) busid: BusId,
    pub(super) bus: u8,
    pub(super) address: u8,
}

/// A device, as far as readable without a lock.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) identity: Identity,
    /// `None` for a word of the kernel unknown here.
    pub(super) speed: Option<Speed>,
    pub(super) honors_interface_count: bool,
    pub(super) ignores_endpoints: bool,
    /// The device descriptor of a hub. Nothing else of a hub is read, since a hub's lock is held
    /// while a device plugged into the hub is enumerated.
    pub(super) hub: Option<Device>,
}

/// Attributes with a lock: strings, and bConfigurationValue, empty and so `None` for an
/// unconfigured device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LockedAttributes {
    pub(super) configuration: Option<u8>,
    /// Manufacturer, product and serial number.
    pub(super) strings: [Option<String>; 3],
}

/// Facts from the place of a device and its interfaces, read without a lock.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Links {
    /// The device's place in `/sys/devices`.
    pub(super) path: Option<String>,
    /// The configuration in the names of the interfaces.
    pub(super) configuration: Option<u8>,
    /// Drivers of the interfaces, in the order of the interfaces.
    pub(super) drivers: Vec<Bound>,
    /// Whether the device hangs off the virtual controller of a USB/IP client.
    pub(super) imported: bool,
}

/// All present devices. Of a device that is among the `known`, in the order of busids, only the
/// identity is read anew.
///
/// # Errors
/// The system's directory is unreadable. A single unreadable device is left out.
pub(super) fn present(devices: &Path, known: &[Present]) -> io::Result<Vec<Present>> {
    let mut present = Vec::new();
    for entry in fs::read_dir(devices)? {
        let name = entry?.file_name();
        // Names with a colon are interfaces.
        let name = name.to_str().filter(|name| !name.contains(':'));
        let Some(busid) = name.and_then(BusId::new) else { continue };
        let at = known.binary_search_by_key(&busid, |device| device.identity.busid);
        let known = at.ok().map(|at| &known[at]);
        match Present::read(&devices.join(busid.to_string()), busid, known) {
            Ok(found) => present.push(found),
            Err(error) if limit::is_reached(&error) => return Err(error),
            // The device disappeared meanwhile, or is not readable for this process.
            Err(_) => {}
        }
    }
    sort_by_key(&mut present, |device| device.identity.busid);
    Ok(present)
}

impl Present {
    fn read(directory: &Path, busid: BusId, known: Option<&Self>) -> io::Result<Self> {
        let address = number(directory, "devnum", 10)?;
        // The busid has the number of the bus.
        if let Some(known) = known.filter(|known| known.identity.address == address) {
            return Ok(known.clone());
        }
        let bus = number(directory, "busnum", 10)?;
        let quirks = text(directory, "quirks").unwrap_or_default();
        let quirks = u32::from_str_radix(quirks.trim_start_matches("0x"), 16).unwrap_or(0);
        let is_hub =
            number(directory, "bDeviceClass", 16).is_ok_and(|found: u8| found == class::HUB);
        Ok(Self {
            identity: Identity { busid, bus, address },
            speed: speed_of(&text(directory, "speed")?),
            honors_interface_count: quirks & HONOR_INTERFACE_COUNT != 0,
            ignores_endpoints: quirks & IGNORE_ENDPOINTS != 0,
            hub: if is_hub { Some(device_of(directory)?) } else { None },
        })
    }
}

/// The device descriptor, from its attributes.
fn device_of(directory: &Path) -> io::Result<Device> {
    let version = text(directory, "version").unwrap_or_default();
    let version: String = version.chars().filter(char::is_ascii_digit).collect();
    Ok(Device {
        bcd_usb: u16::from_str_radix(&version, 16).unwrap_or(0),
        class: number(directory, "bDeviceClass", 16)?,
        sub_class: number(directory, "bDeviceSubClass", 16)?,
        protocol: number(directory, "bDeviceProtocol", 16)?,
        max_packet_size_0: number(directory, "bMaxPacketSize0", 10)?,
        id_vendor: number(directory, "idVendor", 16)?,
        id_product: number(directory, "idProduct", 16)?,
        bcd_device: number(directory, "bcdDevice", 16)?,
        // No attributes, and nobody asks about a hub's.
        strings: [0; 3],
        num_configurations: number(directory, "bNumConfigurations", 10)?,
    })
}

/// The protocol's speed for a text of `speed_show`, in megabits a second.
fn speed_of(text: &str) -> Option<Speed> {
    match text.split('.').next()?.parse().ok()? {
        1 => Some(Speed::Low),
        12 => Some(Speed::Full),
        480 => Some(Speed::High),
        5000_u32.. => Some(Speed::Super),
        _ => None,
    }
}

/// An attribute's text without the newline at the end.
fn text(directory: &Path, attribute: &str) -> io::Result<String> {
    let text = attribute_text(&directory.join(attribute))?;
    Ok(text.trim().to_owned())
}

/// The text of the attribute or parameter with a path. A single call reads a whole text, which has
/// a page at most (`sysfs_emit`).
///
/// # Errors
/// The file is missing or unreadable, or the text is not UTF-8.
pub(super) fn attribute_text(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut room = [0; ATTRIBUTE_LEN_MAX];
    loop {
        match file.read(&mut room) {
            // A signal in the wait for the lock.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            len => {
                let text = str::from_utf8(&room[..len?]);
                return Ok(text.map_err(|_| io::ErrorKind::InvalidData)?.to_owned());
            }
        }
    }
}

/// A numeric attribute.
fn number<T: TryFrom<u32>>(directory: &Path, attribute: &str, radix: u32) -> io::Result<T> {
    let number = u32::from_str_radix(&text(directory, attribute)?, radix).ok();
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The descriptors of a device. *Waits* for the device's lock before Linux 6.3 and the stable
/// kernels of that time, whatever sysfs is asked for later.
///
/// # Errors
/// The device is gone, or the attribute is unreadable.
pub(super) fn descriptors(directory: &Path) -> io::Result<Descriptors> {
    let bytes = fs::read(directory.join("descriptors"))?;
    Descriptors::split(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// bConfigurationValue, `None` for an unconfigured device. *Waits* for the device's lock.
///
/// # Errors
/// The device is gone, or the attribute is unreadable.
pub(super) fn configuration(directory: &Path) -> io::Result<Option<u8>> {
    let text = text(directory, "bConfigurationValue")?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The other attributes with a lock. *Waits* for the lock.
///
/// # Errors
/// As [`configuration`].
pub(super) fn locked_attributes(directory: &Path) -> io::Result<LockedAttributes> {
    let configuration = configuration(directory)?;
    // The kernel shows no attribute for a missing string.
    let strings = ["manufacturer", "product", "serial"].map(|name| text(directory, name).ok());
    Ok(LockedAttributes { configuration, strings })
}

/// The facts besides the attributes, without a lock.
pub(super) fn links(devices: &Path, busid: BusId) -> Links {
    let name = busid.to_string();
    let Some(real) = place(devices, &name) else { return Links::default() };
    let mut links = Links {
        imported: real
            .components()
            .any(|part| part.as_os_str().to_str().is_some_and(|part| part.starts_with("vhci_hcd"))),
        path: real.to_str().map(str::to_owned),
        ..Links::default()
    };
    let prefix = format!("{name}:");
    // The directories of interfaces lie in the device's own and are named
    // `busid:configuration.interface`.
    for entry in fs::read_dir(&real).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.split_once('.'));
        let Some((configuration, interface)) = numbers else { continue };
        links.configuration = links.configuration.or_else(|| configuration.parse().ok());
        let driver = fs::read_link(entry.path().join("driver")).ok();
        let driver = driver.as_deref().and_then(|path| path.file_name()?.to_str());
        if let (Some(driver), Ok(interface)) = (driver, interface.parse()) {
            links.drivers.push(Bound { interface, driver: driver.to_owned() });
        }
    }
    sort_by_key(&mut links.drivers, |bound| bound.interface);
    links
}

/// The place of a device in `/sys/devices`, by the relative link in the directory of devices. The
/// kernel has no further links on the way, so that a single call finds the place. `None` for a
/// device that has left.
fn place(devices: &Path, name: &str) -> Option<PathBuf> {
    let target = match fs::read_link(devices.join(name)) {
        Ok(target) => target,
        // No link, in a directory made by a test.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => name.into(),
        Err(_) => return None,
    };
    let mut place = devices.to_owned();
    for component in target.components() {
        match component {
            Component::ParentDir => drop(place.pop()),
            component => place.push(component),
        }
    }
    Some(place)
}

impl Identity {
    /// The device to open, with its known descriptor.
    pub(super) const fn id(&self, device: &Device) -> DeviceId {
        DeviceId {
            bus: self.bus,
            address: self.address,
            id_vendor: device.id_vendor,
            id_product: device.id_product,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_the_kernels_words() {
        let all = [
            ("1.5", Some(Speed::Low)),
            ("12", Some(Speed::Full)),
            ("480", Some(Speed::High)),
            ("5000", Some(Speed::Super)),
            ("10000", Some(Speed::Super)),
            ("20000", Some(Speed::Super)),
            ("80000", Some(Speed::Super)),
            ("unknown", None),
            ("53", None),
            ("", None),
        ];
        for (text, speed) in all {
            assert_eq!(speed_of(text), speed, "{text}");
        }
    }
}
