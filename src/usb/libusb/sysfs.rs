//! What Linux's sysfs says of a device beside its descriptors. Elsewhere there is none, and every
//! field is empty.
//!
//! Contract: reads files, so it is for workers; nothing in here fails, a file that can't be read is
//! a field without a value.

use std::fs;
use std::path::Path;

use crate::usb::Bound;
use crate::wire::types::BusId;

/// Where devices are, by busid.
const DEVICES: &str = "/sys/bus/usb/devices";

/// What sysfs says of a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Attributes {
    /// Its place in `/sys/devices`.
    pub(super) path: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) product: Option<String>,
    pub(super) serial: Option<String>,
    /// Drivers of its interfaces, in the order of the interfaces.
    pub(super) drivers: Vec<Bound>,
    /// It hangs off the virtual controller of a USB/IP client.
    pub(super) imported: bool,
}

/// Reads what there is of device `busid`.
pub(super) fn read(busid: &BusId) -> Attributes {
    let name = busid.to_string();
    let directory = Path::new(DEVICES).join(&name);
    let Ok(real) = fs::canonicalize(&directory) else { return Attributes::default() };
    let text = |attribute: &str| {
        let text = fs::read_to_string(directory.join(attribute)).ok()?;
        Some(text.trim_end().to_owned())
    };
    Attributes {
        manufacturer: text("manufacturer"),
        product: text("product"),
        serial: text("serial"),
        drivers: drivers(&real, &name),
        imported: real
            .components()
            .any(|part| part.as_os_str().to_str().is_some_and(|part| part.starts_with("vhci_hcd"))),
        path: real.to_str().map(str::to_owned),
    }
}

/// The drivers of a device's interfaces, whose directories lie in the device's own and are named
/// `busid:configuration.interface`.
fn drivers(directory: &Path, busid: &str) -> Vec<Bound> {
    let prefix = format!("{busid}:");
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let bound = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let (_, interface) = name.to_str()?.strip_prefix(&prefix)?.split_once('.')?;
        let driver = fs::canonicalize(entry.path().join("driver")).ok()?;
        let driver = driver.file_name()?.to_str()?.to_owned();
        Some(Bound { interface: interface.parse().ok()?, driver })
    };
    let mut drivers: Vec<_> = entries.filter_map(|entry| bound(entry.ok()?)).collect();
    drivers.sort_unstable_by_key(|bound| bound.interface);
    drivers
}
