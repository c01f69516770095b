//! Finding devices where the system has no sysfs: what libusb lists, and what the devices say when
//! they are asked. On Linux nothing of this is built, and no device is asked.
//!
//! Contract: everything blocks, for the answers of devices too. A [`Discovery`] belongs to one
//! thread at a time.

use std::ptr;

use crate::libusb::context::{RawContext, RawList, device_descriptor};
use crate::libusb::device::DeviceId;
use crate::libusb::error::Error;
use crate::libusb::raw;

/// How long a device may take to tell a descriptor, in milliseconds: as long as libusb gives it for
/// those that it asks for itself.
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
    /// libusb's, when it can't list them. A single device that can't be read is left out.
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

/// A device as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundDevice {
    /// Which it is.
    pub id: DeviceId,
    /// Port numbers from the root hub to the device; empty for a root hub.
    pub ports: Vec<u8>,
    /// How fast it is.
    pub speed: DeviceSpeed,
    /// Its device descriptor, as it travels.
    pub device: [u8; 18],
    /// Its configurations by index, each with all that it returned; none of a device that can't be
    /// opened.
    pub configurations: Vec<Vec<u8>>,
    /// bConfigurationValue, or `None` when it is not configured.
    pub configuration: Option<u8>,
    /// Manufacturer, product and serial number, as far as it tells them.
    pub strings: [Option<String>; 3],
}

/// The longest port path that USB allows: seven tiers.
const PORTS_MAX: usize = 7;

/// Reads what libusb and the device say; `None` when there is not even a device descriptor.
fn describe(device: *mut raw::libusb_device) -> Option<FoundDevice> {
    let descriptor = device_descriptor(device)?;
    let mut ports = [0u8; PORTS_MAX];
    // SAFETY: the list holds a reference to the device.
    let bus = unsafe { raw::libusb_get_bus_number(device) };
    // SAFETY: as above.
    let address = unsafe { raw::libusb_get_device_address(device) };
    // SAFETY: as above.
    let speed = unsafe { raw::libusb_get_device_speed(device) };
    // SAFETY: as above, and `ports` has the room that is named.
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

/// The bytes that a device descriptor travels as.
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

/// Asks the device for what only it knows. It need not be opened exclusively for that.
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
    // SAFETY: opened above, nothing is in flight on it.
    unsafe { raw::libusb_close(handle) };
}

/// bConfigurationValue as the system has it, or `None` for an unconfigured device.
pub(crate) fn active_configuration(
    handle: *mut raw::libusb_device_handle,
) -> Result<Option<u8>, Error> {
    let mut value = 0;
    // SAFETY: the caller's handle is open; `value` is valid to write to.
    crate::libusb::error::check(unsafe { raw::libusb_get_configuration(handle, &raw mut value) })?;
    Ok(u8::try_from(value).ok().filter(|&value| value != 0))
}

/// The text of string descriptor `index`, for which the discovery context runs its own events.
fn string(handle: *mut raw::libusb_device_handle, index: u8) -> Option<String> {
    let mut text = [0u8; 256];
    if index == 0 {
        return None;
    }
    // SAFETY: the handle is open and `text` has the room that is named.
    let len =
        unsafe { raw::libusb_get_string_descriptor_ascii(handle, index, text.as_mut_ptr(), 256) };
    let len = usize::try_from(len).ok()?;
    Some(String::from_utf8_lossy(&text[..len.min(256)]).into_owned())
}

/// The configuration descriptor at `index` with all that belongs to it.
fn configuration(handle: *mut raw::libusb_device_handle, index: u8) -> Option<Vec<u8>> {
    let head = descriptor(handle, index, 9)?;
    let told = u16::from_le_bytes([*head.get(2)?, *head.get(3)?]);
    descriptor(handle, index, told.max(9))
}

/// The first `len` bytes of it, or as many as there are.
fn descriptor(handle: *mut raw::libusb_device_handle, index: u8, len: u16) -> Option<Vec<u8>> {
    const CONFIGURATION: u16 = 2 << 8;
    let mut bytes = vec![0; len.into()];
    let (room, value) = (bytes.as_mut_ptr(), CONFIGURATION | u16::from(index));
    // SAFETY: the handle is open and there is the room that is named.
    let read =
        unsafe { raw::libusb_control_transfer(handle, 0x80, 6, value, 0, room, len, PATIENCE) };
    bytes.truncate(usize::try_from(read).ok()?);
    Some(bytes)
}
