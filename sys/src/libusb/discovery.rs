//! Finding devices on a system without sysfs: libusb's list, and the devices' own answers. On Linux
//! this module is not built, and no device is asked.
//!
//! Contract: everything blocks, also for the answers of devices. A [`Discovery`] belongs to one
//! thread at a time.

use std::ptr;

use crate::libusb::context::{RawContext, RawList, address_of, device_descriptor};
use crate::libusb::device::DeviceId;
use crate::libusb::error::Error;
use crate::libusb::raw;

/// The time for a device's descriptor, in milliseconds: the same as libusb's own limit.
const PATIENCE: libc::c_uint = 1000;

/// Looks for devices.
pub struct Discovery(RawContext);

impl Discovery {
    /// Starts looking. *Blocks.*
    ///
    /// # Errors
    /// libusb's, when the platform has no USB or forbids looking.
    pub fn new() -> Result<Self, Error> {
        RawContext::with_discovery().map(Self)
    }

    /// All devices present now, hubs included. *Blocks.*
    ///
    /// # Errors
    /// libusb's, without a list. A single unreadable device is left out.
    pub fn devices(&mut self) -> Result<Vec<FoundDevice>, Error> {
        let list = RawList::new(&self.0)?;
        Ok(list.iter().filter_map(describe).collect())
    }
}

/// `enum libusb_speed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are libusb's")]
pub enum DeviceSpeed {
    Unknown,
    Low,
    Full,
    High,
    /// SUPER, SUPER_PLUS and SUPER_PLUS_X2.
    Super,
}

/// A found device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundDevice {
    /// The device's bus and address.
    pub id: DeviceId,
    /// Port numbers from the root hub to the device; empty for a root hub.
    pub ports: Vec<u8>,
    /// The device's speed.
    pub speed: DeviceSpeed,
    /// The device descriptor, in the device's byte order.
    pub device: [u8; 18],
    /// The configurations by index, each with all bytes returned by the device; none if the device
    /// can't be opened.
    pub configurations: Vec<Vec<u8>>,
    /// bConfigurationValue, or `None` for an unconfigured device.
    pub configuration: Option<u8>,
    /// Manufacturer, product and serial number, as far as known.
    pub strings: [Option<String>; 3],
}

/// The longest port path of USB: seven tiers.
const PORTS_MAX: usize = 7;

/// Reads a device from libusb and the device itself; `None` without even a device descriptor.
fn describe(device: *mut raw::libusb_device) -> Option<FoundDevice> {
    let descriptor = device_descriptor(device)?;
    let mut ports = [0u8; PORTS_MAX];
    let (bus, address) = address_of(device);
    // SAFETY: the list holds a reference to the device.
    let speed = unsafe { raw::libusb_get_device_speed(device) };
    // SAFETY: as above, and `ports` has the stated room.
    let depth = unsafe { raw::libusb_get_port_numbers(device, ports.as_mut_ptr(), 7) };
    let depth = usize::try_from(depth).unwrap_or(0).min(PORTS_MAX);
    let mut found = FoundDevice {
        id: DeviceId {
            bus,
            address,
            id_vendor: descriptor.idVendor,
            id_product: descriptor.idProduct,
        },
        ports: ports[..depth].to_vec(),
        speed: match speed {
            1 => DeviceSpeed::Low,
            2 => DeviceSpeed::Full,
            3 => DeviceSpeed::High,
            4.. => DeviceSpeed::Super,
            _ => DeviceSpeed::Unknown,
        },
        device: bytes_of(&descriptor),
        configurations: Vec::new(),
        configuration: None,
        strings: [const { None }; 3],
    };
    ask(device, &descriptor, &mut found);
    Some(found)
}

/// The bytes of a device descriptor on the bus.
const fn bytes_of(raw: &raw::libusb_device_descriptor) -> [u8; 18] {
    let usb = raw.bcdUSB.to_le_bytes();
    let vendor = raw.idVendor.to_le_bytes();
    let product = raw.idProduct.to_le_bytes();
    let version = raw.bcdDevice.to_le_bytes();
    [
        raw.bLength,
        raw.bDescriptorType,
        usb[0],
        usb[1],
        raw.bDeviceClass,
        raw.bDeviceSubClass,
        raw.bDeviceProtocol,
        raw.bMaxPacketSize0,
        vendor[0],
        vendor[1],
        product[0],
        product[1],
        version[0],
        version[1],
        raw.iManufacturer,
        raw.iProduct,
        raw.iSerialNumber,
        raw.bNumConfigurations,
    ]
}

/// Asks the device itself for the rest. Opening need not be exclusive.
fn ask(
    device: *mut raw::libusb_device,
    descriptor: &raw::libusb_device_descriptor,
    found: &mut FoundDevice,
) {
    let mut handle = ptr::null_mut();
    // SAFETY: the list holds a reference to the device; `handle` is valid to write to.
    if unsafe { raw::libusb_open(device, &raw mut handle) } != 0 {
        return;
    }
    found.strings = [descriptor.iManufacturer, descriptor.iProduct, descriptor.iSerialNumber]
        .map(|index| string(handle, index));
    let indexes = 0..descriptor.bNumConfigurations;
    found.configurations = indexes.map_while(|index| configuration(handle, index)).collect();
    found.configuration = active_configuration(handle).ok().flatten();
    // SAFETY: opened above, with nothing in flight.
    unsafe { raw::libusb_close(handle) };
}

/// The system's bConfigurationValue, or `None` for an unconfigured device.
pub(crate) fn active_configuration(
    handle: *mut raw::libusb_device_handle,
) -> Result<Option<u8>, Error> {
    let mut value = 0;
    // SAFETY: the caller's handle is open; `value` is valid to write to.
    crate::libusb::error::check(unsafe { raw::libusb_get_configuration(handle, &raw mut value) })?;
    Ok(u8::try_from(value).ok().filter(|&value| value != 0))
}

/// The text of string descriptor `index`. The discovery context runs its own events meanwhile.
fn string(handle: *mut raw::libusb_device_handle, index: u8) -> Option<String> {
    let mut text = [0u8; 256];
    if index == 0 {
        return None;
    }
    // SAFETY: the handle is open and `text` has the stated room.
    let len =
        unsafe { raw::libusb_get_string_descriptor_ascii(handle, index, text.as_mut_ptr(), 256) };
    let len = usize::try_from(len).ok()?;
    Some(String::from_utf8_lossy(&text[..len.min(256)]).into_owned())
}

/// The whole configuration at `index`, with the descriptors behind its own.
fn configuration(handle: *mut raw::libusb_device_handle, index: u8) -> Option<Vec<u8>> {
    let head = descriptor(handle, index, 9)?;
    let told = u16::from_le_bytes([*head.get(2)?, *head.get(3)?]);
    descriptor(handle, index, told.max(9))
}

/// The first `len` bytes of a configuration, or fewer at its end.
fn descriptor(handle: *mut raw::libusb_device_handle, index: u8, len: u16) -> Option<Vec<u8>> {
    const CONFIGURATION: u16 = 2 << 8;
    let mut bytes = vec![0; len.into()];
    let (room, value) = (bytes.as_mut_ptr(), CONFIGURATION | u16::from(index));
    // SAFETY: the handle is open and there is the stated room.
    let read =
        unsafe { raw::libusb_control_transfer(handle, 0x80, 6, value, 0, room, len, PATIENCE) };
    bytes.truncate(usize::try_from(read).ok()?);
    Some(bytes)
}
