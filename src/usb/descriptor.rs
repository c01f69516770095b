//! Reads a device's raw descriptors (USB 2.0, section 9.6) with the leniency of Linux.
//!
//! A server exports a device as its host has read the device, and `drivers/usb/core/config.c`
//! accepts with a notice much that a strict reader refuses. So this module reads like Linux 6.1;
//! the rules stand beside each constant, and `docs/descriptors.md` has a table. Simulated devices
//! are read by the same rules, as are devices of a system that does not reveal its own reading.
//!
//! Contract: pure functions. No bytes cause a panic or a long run.

use super::isochronous::IsochronousSettings;
use super::{Alternate, Configuration, Endpoint, Interface};
use crate::sorted::sort_by_key;
use crate::wire::types::{Direction, EndpointAddress, Speed, TransferType};

/// bDescriptorType of a configuration, an interface, an endpoint.
pub const CONFIGURATION: u8 = 2;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;

/// Bytes of a device descriptor.
pub const DEVICE_LEN: usize = 18;
/// Bytes of a configuration descriptor at least; a longer descriptor is valid.
const CONFIGURATION_LEN: usize = 9;
/// Bytes of an interface descriptor at least.
const INTERFACE_LEN: usize = 9;
/// Bytes of an endpoint descriptor at least.
const ENDPOINT_LEN: usize = 7;

/// Configurations of a device at most (`USB_MAXCONFIG`).
pub const CONFIGURATIONS_MAX: usize = 8;
/// Interfaces of a configuration at most: the first 32 interface numbers (`USB_MAXINTERFACES`).
pub const INTERFACES_MAX: usize = 32;
/// Settings of an interface at most (`USB_MAXALTSETTING`).
pub const SETTINGS_MAX: usize = 128;
/// Endpoints of a setting at most (`USB_MAXENDPOINTS`).
pub const ENDPOINTS_MAX: usize = 30;

/// The bits of wMaxPacketSize with the number of packets a microframe (`USB_EP_MAXP_MULT_MASK`).
const PACKETS_PER_MICROFRAME: u16 = 0x1800;

/// The host's knowledge of a device apart from the descriptors, as far as the reading depends on
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// The speed of the device.
    pub speed: Speed,
    /// Interface descriptors beyond bNumInterfaces do not count
    /// (`USB_QUIRK_HONOR_BNUMINTERFACES`).
    pub honors_interface_count: bool,
    /// Endpoints that the host leaves out, by interface number and address.
    pub ignored: &'static [(u8, u8)],
}

impl Host {
    /// A host without quirks for the device.
    #[must_use]
    pub const fn at(speed: Speed) -> Self {
        Self { speed, honors_interface_count: false, ignored: &[] }
    }
}

/// A device descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are those of USB 2.0, table 9-8")]
pub struct Device {
    pub bcd_usb: u16,
    pub class: u8,
    pub sub_class: u8,
    pub protocol: u8,
    pub max_packet_size_0: u8,
    pub id_vendor: u16,
    pub id_product: u16,
    pub bcd_device: u16,
    /// iManufacturer, iProduct and iSerialNumber.
    pub strings: [u8; 3],
    pub num_configurations: u8,
}

impl Device {
    /// Reads a device descriptor.
    #[must_use]
    pub const fn parse(bytes: &[u8; DEVICE_LEN]) -> Self {
        Self {
            bcd_usb: u16::from_le_bytes([bytes[2], bytes[3]]),
            class: bytes[4],
            sub_class: bytes[5],
            protocol: bytes[6],
            max_packet_size_0: bytes[7],
            id_vendor: u16::from_le_bytes([bytes[8], bytes[9]]),
            id_product: u16::from_le_bytes([bytes[10], bytes[11]]),
            bcd_device: u16::from_le_bytes([bytes[12], bytes[13]]),
            strings: [bytes[14], bytes[15], bytes[16]],
            num_configurations: bytes[17],
        }
    }

    /// The descriptor's bytes.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; DEVICE_LEN] {
        let [usb_low, usb_high] = self.bcd_usb.to_le_bytes();
        let [vendor_low, vendor_high] = self.id_vendor.to_le_bytes();
        let [product_low, product_high] = self.id_product.to_le_bytes();
        let [device_low, device_high] = self.bcd_device.to_le_bytes();
        let [manufacturer, product, serial] = self.strings;
        #[rustfmt::skip]
        let bytes = [
            18, 1, usb_low, usb_high,
            self.class, self.sub_class, self.protocol, self.max_packet_size_0,
            vendor_low, vendor_high, product_low, product_high, device_low, device_high,
            manufacturer, product, serial, self.num_configurations,
        ];
        bytes
    }

    /// Endpoints left out by a host with the quirk `USB_QUIRK_ENDPOINT_IGNORE` for the device
    /// (`usb_endpoint_ignore` of `drivers/usb/core/quirks.c`, the same in Linux 5.10, 6.1 and
    /// 6.12). The devices are sound cards, and in each the address rightly belongs to another
    /// interface.
    #[must_use]
    pub const fn ignored_endpoints(&self) -> &'static [(u8, u8)] {
        match (self.id_vendor, self.id_product) {
            // Guillemot Hercules DJ Console.
            (0x06f8, 0xb000) => &[(5, 0x01), (5, 0x81)],
            // Sound Devices USBPre2 and MixPre-D.
            (0x0926, 0x0202 | 0x0208) => &[(1, 0x85)],
            _ => &[],
        }
    }

    /// The speed of a device for an unknown word of the host. A high-speed device has a default
    /// endpoint of 64 bytes, a super-speed device an endpoint of 2 to the 9th (USB 3.2, table
    /// 9-11), and devices of standards before 2.0 have neither. The default is full and not low
    /// speed, since low speed forbids bulk endpoints.
    #[must_use]
    pub const fn speed(&self) -> Speed {
        match (self.bcd_usb, self.max_packet_size_0) {
            (0x0300.., 9) => Speed::Super,
            (0x0200.., 64) => Speed::High,
            _ => Speed::Full,
        }
    }
}

/// All descriptors of a device, as read by the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptors {
    /// The device descriptor.
    pub device: Device,
    /// The configurations by index, each with its interfaces and endpoints. A host cuts
    /// configurations at the end of the data, regardless of wTotalLength.
    pub configurations: Vec<Vec<u8>>,
}

impl Descriptors {
    /// Splits the contents of sysfs's `descriptors` (`read_descriptors` of
    /// `drivers/usb/core/sysfs.c`): the device descriptor, followed by the configurations, each cut
    /// to its complete descriptors. `None` without a device descriptor.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<Self> {
        let (device, rest) = bytes.split_first_chunk()?;
        let device = Device::parse(device);
        let count = usize::from(device.num_configurations).min(CONFIGURATIONS_MAX);
        Some(Self { device, configurations: split_configurations(rest, count) })
    }

    /// Whether a configuration has the number `value`.
    #[must_use]
    pub fn has_configuration(&self, value: u8) -> bool {
        self.configurations.iter().any(|bytes| bytes.get(5) == Some(&value))
    }

    /// Whether a configuration claims to be shorter than its own descriptor.
    #[must_use]
    pub fn has_impossible_length(&self) -> bool {
        let mut configurations = self.configurations.iter();
        configurations.any(|bytes| matches!(bytes[..], [_, _, 0..9, 0, ..]))
    }

    /// The configuration numbered `value`: the first, as for `usb_set_configuration`.
    #[must_use]
    pub fn configuration(&self, value: u8, host: Host) -> Option<Configuration> {
        let mut configurations = self.configurations.iter();
        let bytes = configurations.find(|bytes| bytes.get(5) == Some(&value))?;
        parse_configuration(bytes, host)
    }

    /// Which endpoints are isochronous, in all settings of all configurations.
    #[must_use]
    pub fn isochronous(&self, host: Host) -> IsochronousSettings {
        let configurations = self.configurations.iter();
        let parsed = configurations.filter_map(|bytes| parse_configuration(bytes, host));
        IsochronousSettings::of(&parsed.collect::<Vec<_>>())
    }
}

/// Consecutive descriptors, up to the first incomplete descriptor.
struct Chain<'a>(&'a [u8]);

impl<'a> Iterator for Chain<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(*self.0.first()?);
        let (descriptor, rest) = self.0.split_at_checked(len).filter(|_| len >= 2)?;
        self.0 = rest;
        Some(descriptor)
    }
}

/// Splits `count` configurations. wTotalLength is right for a configuration not cut by the host;
/// behind a cut configuration the next begins earlier, with a configuration descriptor.
fn split_configurations(bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut position = 0;
    let mut starts = Vec::new();
    for descriptor in Chain(bytes) {
        if descriptor[1] == CONFIGURATION && descriptor.len() >= CONFIGURATION_LEN {
            starts.push(position);
        }
        position += descriptor.len();
    }
    let mut configurations = Vec::new();
    let mut starts = starts.as_slice();
    while let Some((&start, later)) = starts.split_first()
        && configurations.len() < count
    {
        let end = start + total_length(&bytes[start..]);
        starts = match count - configurations.len() - 1 {
            0 => &[],
            missing => &later[next_start(later, end, missing)..],
        };
        let end = starts.first().map_or(bytes.len(), |&next| next);
        configurations.push(bytes[start..end].to_vec());
    }
    configurations
}

/// The index in `later` of the descriptor that begins the next configuration, with `missing`
/// configurations still to come. `later` may be longer, since a configuration descriptor inside a
/// configuration is no error.
fn next_start(later: &[usize], end: usize, missing: usize) -> usize {
    let told = later.iter().position(|&start| start == end);
    told.filter(|told| later.len() > missing && later.len() - told >= missing).unwrap_or(0)
}

/// wTotalLength, at least the descriptor's own length: the host reads no fewer bytes.
fn total_length(bytes: &[u8]) -> usize {
    let told = bytes.get(2..4).map_or(0, |told| u16::from_le_bytes([told[0], told[1]]));
    usize::from(told).max(CONFIGURATION_LEN)
}

/// Reads a configuration with its interfaces and endpoints, each interface in its setting after
/// SET_CONFIGURATION. `None` if a host would refuse the whole device.
#[must_use]
pub fn parse_configuration(bytes: &[u8], host: Host) -> Option<Configuration> {
    let bytes = &bytes[..bytes.len().min(total_length(bytes))];
    let header = Chain(bytes).next().filter(|header| header.len() >= CONFIGURATION_LEN)?;
    let &[_, CONFIGURATION, _, _, count, value, ..] = header else { return None };
    let body = &bytes[header.len()..];
    let mut interfaces = count_settings(body, count, host);
    let mut current = None;
    for descriptor in Chain(body) {
        match descriptor[1] {
            INTERFACE => current = begin_setting(&mut interfaces, descriptor),
            ENDPOINT => {
                if let Some(current) = &mut current {
                    add_endpoint(&mut interfaces, current, descriptor, host);
                }
            }
            _ => {}
        }
    }
    let mut interfaces: Vec<Interface> =
        interfaces.into_iter().map(Parsed::into_interface).collect();
    sort_by_key(&mut interfaces, |interface| interface.number);
    Some(Configuration { value, interfaces })
}

/// An interface during the reading.
struct Parsed {
    number: u8,
    /// The number of settings that count.
    settings: usize,
    alternates: Vec<Alternate>,
    /// Endpoints of any setting, a bit each.
    endpoints: u32,
}

/// The setting of the following endpoints, from the last interface descriptor.
struct Current {
    /// The index of the interface.
    interface: usize,
    /// Room for endpoints: bNumEndpoints, cut to the limit.
    room: usize,
    /// Endpoints of the setting, a bit each.
    endpoints: u32,
}

impl Parsed {
    fn into_interface(self) -> Interface {
        let Self { number, alternates, .. } = self;
        let interface = Interface { number, current: 0, alternates, refused: None };
        Interface { current: interface.first_setting(), ..interface }
    }
}

/// The interfaces and their numbers of settings, without the settings themselves.
fn count_settings(body: &[u8], count: u8, host: Host) -> Vec<Parsed> {
    let mut interfaces: Vec<Parsed> = Vec::new();
    for descriptor in Chain(body) {
        let &[_, INTERFACE, number, ..] = descriptor else { continue };
        let is_surplus = host.honors_interface_count && interfaces.len() >= count.into();
        if descriptor.len() < INTERFACE_LEN || is_surplus {
            continue;
        }
        let known = interfaces.iter().position(|interface| interface.number == number);
        if let Some(interface) = known.map(|index| &mut interfaces[index]) {
            interface.settings = (interface.settings + 1).min(SETTINGS_MAX);
        } else if interfaces.len() < INTERFACES_MAX {
            let alternates = Vec::new();
            interfaces.push(Parsed { number, settings: 1, alternates, endpoints: 0 });
        }
    }
    interfaces
}

/// Takes an interface descriptor; `None` if the descriptor does not count, nor the endpoints
/// behind.
fn begin_setting(interfaces: &mut [Parsed], descriptor: &[u8]) -> Option<Current> {
    let &[_, _, number, setting, count, class, sub_class, protocol, _, ..] = descriptor else {
        return None;
    };
    let index = interfaces.iter().position(|interface| interface.number == number)?;
    let alternates = &mut interfaces[index].alternates;
    let is_known = alternates.iter().any(|alternate| alternate.setting == setting);
    if is_known || alternates.len() >= interfaces[index].settings {
        return None;
    }
    let endpoints = Vec::new();
    let alternate = Alternate { setting, class, sub_class, protocol, endpoints };
    interfaces[index].alternates.push(alternate);
    let room = usize::from(count).min(ENDPOINTS_MAX);
    Some(Current { interface: index, room, endpoints: 0 })
}

/// Takes an endpoint descriptor, if the descriptor counts.
fn add_endpoint(interfaces: &mut [Parsed], current: &mut Current, descriptor: &[u8], host: Host) {
    let &[_, _, address, attributes, size_low, size_high, interval, ..] = descriptor else {
        return;
    };
    // Bits 4 to 6 are reserved; with any of the bits set the number is too large.
    if descriptor.len() < ENDPOINT_LEN || !matches!(address & 0x7f, 1..=15) {
        return;
    }
    let address = EndpointAddress::from_byte(address);
    let told = TransferType::from_attributes(attributes);
    let claims = places_of(address, told);
    // Another setting of the same interface may have the same endpoint, another interface not.
    let others = interfaces.iter().enumerate().filter(|&(index, _)| index != current.interface);
    let taken = others.fold(current.endpoints, |taken, (_, other)| taken | other.endpoints);
    let parsed = &mut interfaces[current.interface];
    if host.ignored.contains(&(parsed.number, address.as_byte())) {
        return;
    }
    let Some(alternate) = parsed.alternates.last_mut() else { return };
    if alternate.endpoints.len() >= current.room || taken & claims != 0 {
        return;
    }
    current.endpoints |= claims;
    parsed.endpoints |= claims;
    let size = u16::from_le_bytes([size_low, size_high]);
    let (transfer_type, max_packet_size) = correct(host.speed, told, size);
    alternate.endpoints.push(Endpoint { address, transfer_type, max_packet_size, interval });
}

/// The addresses in use by an endpoint, a bit each: a control endpoint has both directions.
pub(super) const fn places_of(address: EndpointAddress, transfer_type: TransferType) -> u32 {
    let number = address.number();
    match transfer_type {
        TransferType::Control => {
            EndpointAddress::new(number, Direction::Out).bit()
                | EndpointAddress::new(number, Direction::In).bit()
        }
        _ => address.bit(),
    }
}

/// Type and wMaxPacketSize of an endpoint, corrected like the host's.
fn correct(speed: Speed, told: TransferType, size: u16) -> (TransferType, u16) {
    use TransferType::{Bulk, Control, Interrupt, Isochronous};
    // Low speed has no bulk endpoints, so the host polls.
    let transfer_type = if (speed, told) == (Speed::Low, Bulk) { Interrupt } else { told };
    let most = match (speed, transfer_type) {
        (Speed::Low, Control | Interrupt) => 8,
        (Speed::Low, Bulk | Isochronous) => 0,
        (Speed::Full, Control | Bulk | Interrupt) => 64,
        (Speed::Full, Isochronous) => 1023,
        (Speed::High, Control) => 64,
        (Speed::Super, Control) => 512,
        // Bulk endpoints of high speed should have 512, and some have 1024.
        (Speed::High | Speed::Super, _) => 1024,
    };
    let repeats = match (speed, transfer_type) {
        (Speed::High, Isochronous | Interrupt) => size & PACKETS_PER_MICROFRAME,
        _ => 0,
    };
    (transfer_type, (size & !repeats).min(most) | repeats)
}

#[cfg(test)]
mod tests;
