//! Devices, as sysfs shows them, and their records in replies.
//!
//! Contract: reads files; allocates.

use std::fs;
use std::path::{Path, PathBuf};

use usbferry_sys::libusb::device::DeviceId;
use usbferry_sys::libusb::transfer::TransferKind;

const SYSFS: &str = "/sys/bus/usb/devices";

/// Bytes of a device descriptor, which `descriptors` starts with.
const DEVICE_LEN: usize = 18;

const HUB: u8 = 9;

/// A device.
pub(crate) struct Found {
    pub(crate) busid: String,
    directory: PathBuf,
    bus: u32,
    number: u32,
    speed: u32,
    /// The device descriptor, and the configurations behind.
    descriptors: Vec<u8>,
    configuration: u8,
}

/// An interface's setting: numbers, class, subclass and protocol, and the endpoints.
pub(crate) struct Setting {
    pub(crate) interface: u8,
    pub(crate) setting: u8,
    class: [u8; 3],
    endpoints: Vec<(u8, TransferKind)>,
}

impl Found {
    /// All devices except hubs.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir(SYSFS).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let devices = names.iter().filter_map(|name| Self::read(name));
        devices.filter(|device| device.descriptors[4] != HUB).collect()
    }

    /// The device with a busid.
    pub(crate) fn read(busid: &str) -> Option<Self> {
        is_port(busid).then_some(())?;
        let directory = Path::new(SYSFS).join(busid);
        let text = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let number = |name| text(name)?.trim().parse::<u32>().ok();
        let descriptors = fs::read(directory.join("descriptors")).ok()?;
        (descriptors.len() >= DEVICE_LEN).then_some(())?;
        Some(Self {
            busid: busid.to_owned(),
            bus: number("busnum")?,
            number: number("devnum")?,
            speed: match text("speed")?.trim() {
                "1.5" => 1,
                "12" => 2,
                "480" => 3,
                "5000" => 5,
                _ => 6,
            },
            configuration: text("bConfigurationValue")?.trim().parse().unwrap_or(0),
            descriptors,
            directory,
        })
    }

    pub(crate) fn id(&self) -> Option<DeviceId> {
        Some(DeviceId {
            bus: self.bus.try_into().ok()?,
            address: self.number.try_into().ok()?,
            id_vendor: self.word(8),
            id_product: self.word(10),
        })
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.descriptors[at], self.descriptors[at + 1]])
    }

    /// All settings of the active configuration.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::new();
        let mut is_active = false;
        let mut rest = &self.descriptors[DEVICE_LEN..];
        while let [len, kind, ..] = *rest
            && let Some((one, behind)) = rest.split_at_checked(usize::from(len).max(2))
        {
            rest = behind;
            match (kind, one) {
                (2, [_, _, _, _, _, value, ..]) => is_active = *value == self.configuration,
                (4, [_, _, interface, setting, _, class @ ..]) if is_active && class.len() >= 3 => {
                    settings.push(Setting {
                        interface: *interface,
                        setting: *setting,
                        class: [class[0], class[1], class[2]],
                        endpoints: Vec::new(),
                    });
                }
                (5, [_, _, address, attributes, ..]) if is_active => {
                    if let Some(setting) = settings.last_mut() {
                        setting.endpoints.push((*address, kind_of(*attributes)));
                    }
                }
                _ => {}
            }
        }
        settings
    }

    /// The record of a reply to IMPORT.
    pub(crate) fn record(&self) -> Vec<u8> {
        let mut record = vec![0; 256 + 32];
        let path = self.directory.to_string_lossy();
        record[..path.len()].copy_from_slice(path.as_bytes());
        record[256..][..self.busid.len()].copy_from_slice(self.busid.as_bytes());
        for number in [self.bus, self.number, self.speed] {
            record.extend(number.to_be_bytes());
        }
        for at in [8, 10, 12] {
            record.extend(self.word(at).to_be_bytes());
        }
        record.extend(&self.descriptors[4..7]);
        let settings = self.settings();
        let interfaces = settings.iter().filter(|setting| setting.setting == 0).count();
        record.extend([self.configuration, self.descriptors[17]]);
        record.push(u8::try_from(interfaces).unwrap_or(u8::MAX));
        record
    }

    /// The record of a reply to DEVLIST, which has the interfaces too.
    pub(crate) fn listed(&self) -> Vec<u8> {
        let mut record = self.record();
        for setting in self.settings().iter().filter(|setting| setting.setting == 0) {
            record.extend(setting.class);
            record.push(0);
        }
        record
    }
}

/// Whether a name is a port's, as in `1-1.2`, and not an interface's or a root hub's.
fn is_port(busid: &str) -> bool {
    busid.contains('-') && busid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'.'))
}

const fn kind_of(attributes: u8) -> TransferKind {
    match attributes & 3 {
        0 => TransferKind::Control,
        1 => TransferKind::Isochronous,
        2 => TransferKind::Bulk,
        _ => TransferKind::Interrupt,
    }
}

/// The types of the endpoints with the given settings of interfaces chosen, 0 unless stated.
pub(crate) fn endpoints(settings: &[Setting], chosen: &[(u8, u8)]) -> Vec<(u8, TransferKind)> {
    let is_chosen = |one: &&Setting| {
        let of_it = chosen.iter().rfind(|(interface, _)| *interface == one.interface);
        of_it.map_or(0, |(_, setting)| *setting) == one.setting
    };
    settings.iter().filter(is_chosen).flat_map(|one| one.endpoints.iter().copied()).collect()
}
