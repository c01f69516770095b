//! Looks for devices where there is no sysfs: by libusb's list, and by asking the devices.
//!
//! Contract: blocks, for the answers of devices too.

use usbferry_sys::libusb::discovery::{DeviceSpeed, Discovery, FoundDevice};

use super::Sighted;
use super::candidate::LibusbCandidate;
use super::found::Found;
use crate::usb::descriptor::{CONFIGURATIONS_MAX, Descriptors, Device, Host};
use crate::usb::{Scan, ScanError};
use crate::wire::types::{BusId, Speed};

/// Looks for devices, each time with a context of its own.
pub(super) struct Scanner(());

impl Scanner {
    pub(super) fn new() -> Result<Self, ScanError> {
        Discovery::new().map_err(ScanError::NoLibusb)?;
        Ok(Self(()))
    }

    pub(super) fn scan(&mut self) -> Result<Sighted, ScanError> {
        let found = Discovery::new().and_then(|mut discovery| discovery.devices());
        let found = found.map_err(ScanError::LibusbList)?;
        let devices = found.into_iter().filter_map(candidate).collect();
        Ok(Sighted { scan: Scan { devices, is_whole: true }, left_out: Vec::new() })
    }
}

/// `None` for what has no name a client could use.
fn candidate(found: FoundDevice) -> Option<LibusbCandidate> {
    let device = Device::parse(&found.device);
    let mut configurations = found.configurations;
    configurations.truncate(CONFIGURATIONS_MAX);
    let host = Host::at(match found.speed {
        DeviceSpeed::Low => Speed::Low,
        DeviceSpeed::Full => Speed::Full,
        DeviceSpeed::High => Speed::High,
        DeviceSpeed::Super => Speed::Super,
        DeviceSpeed::Unknown => device.speed(),
    });
    let ports: Vec<String> = found.ports.iter().map(ToString::to_string).collect();
    let name = match ports.as_slice() {
        [] => format!("usb{}", found.id.bus),
        ports => format!("{}-{}", found.id.bus, ports.join(".")),
    };
    let descriptors = Descriptors { device, configurations };
    let device = Found { id: found.id, busid: BusId::new(&name)?, host, descriptors };
    let mut info = device.info(found.configuration, None);
    [info.manufacturer, info.product, info.serial] = found.strings;
    Some(LibusbCandidate::new(device, info))
}
