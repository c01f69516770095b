//! The kernel's reading of a device's descriptors: `usb_get_configuration()` and its callees in
//! `drivers/usb/core/config.c` of Linux 6.1. Of the quirks of single devices only two matter here:
//! on the number of interfaces, and on ignored endpoints.
//!
//! Written from the kernel's source for this library alone, so that no mistake in usbferry's own
//! reading of descriptors can hide behind the same mistake here.
//!
//! Contract: any bytes in, no panic; a device given up by the kernel is an error.

/// `struct usb_device_descriptor`.
pub(crate) const DEVICE_LEN: usize = 18;

/// Size of `descriptors` in sysfs.
const SYSFS_MAX: usize = DEVICE_LEN + 65_535;

const CONFIGURATION_LEN: usize = 9;
const INTERFACE_LEN: usize = 9;
const ENDPOINT_LEN: usize = 7;
const SS_COMPANION_LEN: usize = 6;
const SSP_COMPANION_LEN: usize = 8;

/// `USB_DT_*`.
const CONFIGURATION: u8 = 2;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
const SS_COMPANION: u8 = 0x30;
const SSP_COMPANION: u8 = 0x31;

/// `USB_MAXCONFIG`, `USB_MAXINTERFACES`, `USB_MAXALTSETTING`, `USB_MAXENDPOINTS`.
const CONFIGURATIONS_MAX: usize = 8;
const INTERFACES_MAX: usize = 32;
const SETTINGS_MAX: usize = 128;
const ENDPOINTS_MAX: usize = 30;

/// The types of endpoints, in the bits of `bmAttributes`.
pub(crate) const CONTROL: u8 = 0;
pub(crate) const ISOCHRONOUS: u8 = 1;
pub(crate) const BULK: u8 = 2;
pub(crate) const INTERRUPT: u8 = 3;

/// `USB_QUIRK_HONOR_BNUMINTERFACES`: interface descriptors beyond as many as are said don't count.
const HONOR_INTERFACES: u32 = 1 << 5;

/// `USB_QUIRK_ENDPOINT_IGNORE`: endpoints of [`IGNORED`] are skipped.
const IGNORE_ENDPOINTS: u32 = 1 << 15;

/// `usb_endpoint_ignore` of `drivers/usb/core/quirks.c`: vendor, product, interface, address.
const IGNORED: [(u16, u16, u8, u8); 4] = [
    (0x06f8, 0xb000, 5, 0x01),
    (0x06f8, 0xb000, 5, 0x81),
    (0x0926, 0x0202, 1, 0x85),
    (0x0926, 0x0208, 1, 0x85),
];

/// The kernel's knowledge of a device apart from its configurations.
#[derive(Clone, Copy)]
struct Known {
    speed: Speed,
    quirks: u32,
    vendor: u16,
    product: u16,
}

impl Known {
    /// `usb_endpoint_is_ignored`.
    fn ignores(self, interface: u8, address: u8) -> bool {
        let this = (self.vendor, self.product, interface, address);
        self.quirks & IGNORE_ENDPOINTS != 0 && IGNORED.contains(&this)
    }
}

/// `enum usb_device_speed`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Speed {
    Low = 1,
    Full = 2,
    High = 3,
    Super = 5,
    SuperPlus = 6,
}

/// A device as seen by the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    /// The device descriptor, with the number of configurations below.
    pub(crate) device: [u8; DEVICE_LEN],
    pub(crate) configurations: Vec<Configuration>,
}

/// A configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Configuration {
    /// `bConfigurationValue`.
    pub(crate) value: u8,
    /// The bytes returned by the device.
    pub(crate) raw: Vec<u8>,
    /// Bytes used by the kernel: the configuration's own `wTotalLength`.
    pub(crate) kept: usize,
    /// In the order in which their first setting comes.
    pub(crate) interfaces: Vec<Interface>,
}

/// An interface with its settings, in the order of the descriptors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Interface {
    pub(crate) number: u8,
    pub(crate) settings: Vec<Setting>,
}

/// An alternate setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Setting {
    /// `bAlternateSetting`.
    pub(crate) number: u8,
    /// Class, subclass and protocol.
    pub(crate) class: [u8; 3],
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An endpoint, repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: u8,
    /// [`CONTROL`] or another type.
    pub(crate) kind: u8,
    /// `wMaxPacketSize`, the transactions of a microframe included.
    pub(crate) max_packet: u16,
    /// Bytes of an isochronous packet at most.
    pub(crate) packet_max: u32,
}

/// A descriptor's length and type.
fn head(bytes: &[u8]) -> (usize, u8) {
    (bytes[0].into(), bytes[1])
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a device from the answers to its configurations' requests (`usb_get_configuration`). A
/// missing configuration stalls.
pub(crate) fn read(
    device: [u8; DEVICE_LEN],
    answers: &[Vec<u8>],
    (speed, quirks): (Speed, u32),
) -> Result<Host, String> {
    let mut host = Host { device, configurations: Vec::new() };
    let said = usize::from(device[17]).min(CONFIGURATIONS_MAX);
    if said == 0 {
        return Err("no configurations".to_owned());
    }
    let (vendor, product) = (word(&device, 8), word(&device, 10));
    let known = Known { speed, quirks, vendor, product };
    for answer in answers.iter().take(said) {
        host.configurations.push(Configuration::read(answer, known)?);
    }
    host.device[17] = u8::try_from(host.configurations.len()).unwrap_or(u8::MAX);
    Ok(host)
}

impl Host {
    /// `descriptors` in sysfs (`read_descriptors`), limited to the longest possible configuration
    /// (`dev_bin_attr_descriptors`).
    pub(crate) fn sysfs(&self) -> Vec<u8> {
        let kept = self.configurations.iter().flat_map(|one| &one.raw[..one.kept]);
        self.device.iter().chain(kept).copied().take(SYSFS_MAX).collect()
    }

    /// Reads a device node from `position` on (`usbdev_read`), and returns the number of read
    /// bytes. Each configuration has its claimed length; bytes missing in the kernel are left
    /// unchanged in `room`. Words of the device descriptor are in the host's order.
    pub(crate) fn read_node(&self, position: usize, room: &mut [u8]) -> usize {
        let mut device = self.device;
        for at in [2, 8, 10, 12] {
            let native = word(&device, at).to_ne_bytes();
            device[at..at + 2].copy_from_slice(&native);
        }
        let parts = std::iter::once((DEVICE_LEN, device.as_slice())).chain(
            self.configurations.iter().map(|one| (word(&one.raw, 2).into(), &one.raw[..one.kept])),
        );
        let (mut start, mut done) = (0, 0);
        for (len, bytes) in parts {
            let from = (position + done).saturating_sub(start);
            if from < len && done < room.len() {
                let len = (len - from).min(room.len() - done);
                let there = bytes.get(from..).unwrap_or_default();
                let there = &there[..there.len().min(len)];
                room[done..done + there.len()].copy_from_slice(there);
                done += len;
            }
            start += len;
        }
        done
    }
}

impl Configuration {
    fn read(answer: &[u8], known: Known) -> Result<Self, String> {
        // The first request is for the head, the second for the length in the head; missing bytes
        // are zero.
        if answer.len() < 4 {
            return Err(format!("a configuration descriptor of {} bytes", answer.len()));
        }
        let len = usize::from(word(answer, 2)).max(CONFIGURATION_LEN).min(answer.len());
        let mut raw = answer[..len].to_vec();
        raw.resize(len.max(CONFIGURATION_LEN), 0);
        let (own_len, kind) = head(&raw);
        if kind != CONFIGURATION || own_len < CONFIGURATION_LEN || own_len > len {
            return Err(format!("a configuration of type {kind:#x}, length {own_len}"));
        }
        let kept = own_len + whole_descriptors(&raw[own_len..len]);
        let mut configuration = Self { value: raw[5], raw, kept, interfaces: Vec::new() };
        configuration.parse(own_len, known);
        Ok(configuration)
    }

    fn parse(&mut self, start: usize, known: Known) {
        let bytes = std::mem::take(&mut self.raw);
        let mut rest = &bytes[start..self.kept];
        let said = if known.quirks & HONOR_INTERFACES == 0 { usize::MAX } else { bytes[4].into() };
        let mut room = count_settings(rest, said);
        rest = skip_to(rest, &[INTERFACE]);
        while !rest.is_empty() {
            let (own, behind) = rest.split_at(head(rest).0);
            let end = behind.len() - skip_to(behind, &[INTERFACE]).len();
            let (inside, next) = behind.split_at(end);
            self.parse_interface(own, inside, &mut room, known);
            rest = next;
        }
        self.raw = bytes;
    }

    /// `usb_parse_interface`: an interface descriptor, and everything up to the next.
    fn parse_interface(
        &mut self,
        own: &[u8],
        inside: &[u8],
        room: &mut [(u8, usize)],
        known: Known,
    ) {
        if own.len() < INTERFACE_LEN {
            return;
        }
        let (number, alternate) = (own[2], own[3]);
        let Some(index) = room.iter().position(|&(of, _)| of == number) else { return };
        let interface = match self.interfaces.iter().position(|one| one.number == number) {
            Some(index) => index,
            None => {
                self.interfaces.push(Interface { number, settings: Vec::new() });
                self.interfaces.len() - 1
            }
        };
        let settings = &self.interfaces[interface].settings;
        if settings.len() >= room[index].1 || settings.iter().any(|one| one.number == alternate) {
            return;
        }
        let setting =
            Setting { number: alternate, class: [own[5], own[6], own[7]], endpoints: Vec::new() };
        self.interfaces[interface].settings.push(setting);
        let endpoints_max = usize::from(own[4]).min(ENDPOINTS_MAX);
        let mut rest = skip_to(inside, &[ENDPOINT]);
        while !rest.is_empty() {
            let (own, behind) = rest.split_at(head(rest).0);
            if let Some(endpoint) = Endpoint::read(own, behind, known.speed)
                && !known.ignores(number, endpoint.address)
            {
                self.add_endpoint((interface, alternate), endpoint, endpoints_max);
            }
            rest = skip_to(behind, &[ENDPOINT]);
        }
    }

    fn add_endpoint(&mut self, (interface, alternate): (usize, u8), new: Endpoint, max: usize) {
        let of = self.interfaces[interface].number;
        let is_elsewhere = |one: &Interface, setting: &Setting| {
            (one.number != of || setting.number == alternate)
                && setting.endpoints.iter().any(|other| other.is_duplicate(new))
        };
        let is_duplicate = self
            .interfaces
            .iter()
            .any(|one| one.settings.iter().any(|setting| is_elsewhere(one, setting)));
        let setting = self.interfaces[interface].settings.last_mut();
        if let Some(setting) = setting.filter(|setting| setting.endpoints.len() < max)
            && !is_duplicate
        {
            setting.endpoints.push(new);
        }
    }
}

/// Bytes of the complete descriptors; the first malformed descriptor ends the count.
fn whole_descriptors(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let [own, _, ..] = bytes[len..] {
        if own < 2 || usize::from(own) > bytes.len() - len {
            break;
        }
        len += usize::from(own);
    }
    len
}

/// Interface numbers in the order of the descriptors, with the number of allowed settings each.
/// After `said` interfaces no further number counts.
fn count_settings(mut bytes: &[u8], said: usize) -> Vec<(u8, usize)> {
    let mut counts: Vec<(u8, usize)> = Vec::new();
    while !bytes.is_empty() {
        let (len, kind) = head(bytes);
        if kind == INTERFACE && len >= INTERFACE_LEN && counts.len() < said {
            if let Some((_, count)) = counts.iter_mut().find(|(number, _)| *number == bytes[2]) {
                *count = (*count + 1).min(SETTINGS_MAX);
            } else if counts.len() < INTERFACES_MAX {
                counts.push((bytes[2], 1));
            }
        }
        bytes = &bytes[len..];
    }
    counts
}

/// The bytes from the next descriptor of any of the types on (`find_next_descriptor`).
fn skip_to<'a>(mut bytes: &'a [u8], kinds: &[u8]) -> &'a [u8] {
    while !bytes.is_empty() && !kinds.contains(&head(bytes).1) {
        bytes = &bytes[head(bytes).0..];
    }
    bytes
}

impl Endpoint {
    /// `usb_parse_endpoint`: an endpoint descriptor, and the descriptors behind.
    fn read(own: &[u8], behind: &[u8], speed: Speed) -> Option<Self> {
        let number = own.get(2)? & 0x7f;
        if own.len() < ENDPOINT_LEN || number == 0 || number >= 16 {
            return None;
        }
        let mut kind = own[3] & 3;
        let mut max_packet = word(own, 4);
        if speed == Speed::Low && kind == BULK {
            kind = INTERRUPT;
            if max_packet & 0x7ff > 8 {
                max_packet = 8;
            }
        }
        max_packet = repair(max_packet, kind, speed);
        let packet_max = u32::from(max_packet & 0x7ff) * packets(max_packet, kind, speed, behind);
        let packet_max = ssp_interval(kind, speed, behind).unwrap_or(packet_max);
        Some(Self { address: own[2] & 0x8f, kind, max_packet, packet_max })
    }

    /// `endpoint_is_duplicate`.
    const fn is_duplicate(self, other: Self) -> bool {
        let has_control = self.kind == CONTROL || other.kind == CONTROL;
        self.address == other.address || has_control && (self.address ^ other.address) & 0x0f == 0
    }
}

/// Cuts a `wMaxPacketSize` to its type's limit.
fn repair(max_packet: u16, kind: u8, speed: Speed) -> u16 {
    let periodic = kind == ISOCHRONOUS || kind == INTERRUPT;
    let transactions = if speed == Speed::High && periodic { max_packet & 0x1800 } else { 0 };
    let max = match (speed, kind) {
        (Speed::Low, CONTROL | INTERRUPT) => 8,
        (Speed::Low, _) => 0,
        (Speed::Full, ISOCHRONOUS) => 1023,
        (Speed::Full, _) | (Speed::High, CONTROL) => 64,
        (Speed::Super | Speed::SuperPlus, CONTROL) => 512,
        _ => 1024,
    };
    if max_packet & !transactions > max { transactions | max } else { max_packet }
}

/// The number of packets of the largest size in an isochronous packet (`usb_submit_urb`).
fn packets(max_packet: u16, kind: u8, speed: Speed, behind: &[u8]) -> u32 {
    if kind != ISOCHRONOUS {
        return 1;
    }
    match (speed, behind.first_chunk::<SS_COMPANION_LEN>()) {
        (Speed::High, _) => u32::from(max_packet >> 11 & 3) + 1,
        (Speed::Super | Speed::SuperPlus, Some([_, SS_COMPANION, burst, attributes, ..])) => {
            let is_ssp = attributes & 0x80 != 0;
            let mult = if !is_ssp && attributes & 3 == 3 { 3 } else { (attributes & 3) + 1 };
            (u32::from(*burst.min(&15)) + 1) * u32::from(mult)
        }
        _ => 1,
    }
}

/// `dwBytesPerInterval`, if a companion has the value (`usb_parse_ssp_isoc_endpoint_companion`).
fn ssp_interval(kind: u8, speed: Speed, behind: &[u8]) -> Option<u32> {
    let [len, SS_COMPANION, _, attributes, ..] = *behind.first_chunk::<SS_COMPANION_LEN>()? else {
        return None;
    };
    if kind != ISOCHRONOUS || speed != Speed::SuperPlus || attributes & 0x80 == 0 {
        return None;
    }
    match behind.get(len.into()..)?.first_chunk::<SSP_COMPANION_LEN>() {
        Some([_, SSP_COMPANION, _, _, low @ ..]) => Some(u32::from_le_bytes(*low)),
        // The kernel keeps zeroes, and takes no packet with data.
        _ => Some(0),
    }
}
