//! `usbferry list`: prints the devices of this machine or of a server, in the same form.
//!
//! Contract: *blocks* for the answers of devices, or for the time limit of [`client`].

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::CommandError;
use crate::cli::List;
use crate::client::{self, Exported};
use crate::usb::libusb::{self, LibusbBackend};
use crate::usb::{
    Backend, Bound, Candidate, DRIVER_OF_PROGRAMS, DeviceInfo, OpenError, ScanError, class,
};

/// `usbferry list`.
pub(super) fn show(list: &List) -> Result<(), CommandError> {
    let (rows, nothing) = match &list.remote {
        Some(host) => (remote_rows(host), format!("{host} exports nothing that is free now")),
        None => (local_rows().map_err(CommandError::Scan), "there are no USB devices".to_owned()),
    };
    match print(&rows?, &nothing) {
        // An output closed early, as by `| head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Print(error)),
        _ => Ok(()),
    }
}

fn remote_rows(host: &str) -> Result<Vec<Row>, CommandError> {
    let exports = client::exports(host).map_err(CommandError::Client)?;
    Ok(exports.into_iter().map(Row::remote).collect())
}

pub(super) fn local_rows() -> Result<Vec<Row>, ScanError> {
    let mut candidates = LibusbBackend::new()?.scan()?.devices;
    candidates.sort_by_key(|candidate| candidate.info().device.busid);
    let row = |candidate: &libusb::LibusbCandidate| {
        let info = candidate.info();
        let obstacle = if info.is_hub() { None } else { candidate.obstacle() };
        Row::local(info, obstacle)
    };
    Ok(candidates.iter().map(row).collect())
}

/// The printed facts of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    busid: String,
    id_vendor: u16,
    id_product: u16,
    speed: u32,
    class: u8,
    /// Classes of the interfaces, for a device whose own class says nothing.
    interface_classes: Vec<u8>,
    /// Names, serial number, path.
    description: String,
    /// Drivers, obstacles and advice, a line each.
    notes: Vec<String>,
}

impl Row {
    /// A device of this machine. `obstacle` is the reason why the device can't be exported, if any.
    #[must_use]
    pub(super) fn local(info: &DeviceInfo, obstacle: Option<OpenError>) -> Self {
        let device = &info.device;
        let names = [info.manufacturer.as_deref(), info.product.as_deref()];
        let mut description = names.into_iter().flatten().collect::<Vec<_>>().join(" ");
        if let Some(serial) = &info.serial {
            let _ = write!(description, " (serial {serial})");
        }
        Self {
            busid: device.busid.to_string(),
            id_vendor: device.id_vendor,
            id_product: device.id_product,
            speed: device.speed as u32,
            class: device.device_class,
            interface_classes: device.interfaces.iter().map(|i| i.class).collect(),
            // Devices choose their names: nothing unprintable reaches the terminal.
            description: description.trim().escape_debug().to_string(),
            notes: notes_on(info, obstacle),
        }
    }

    fn remote(exported: Exported) -> Self {
        let Exported { device, interface_classes } = exported;
        Self {
            busid: device.busid.to_string(),
            id_vendor: device.id_vendor,
            id_product: device.id_product,
            speed: device.speed,
            class: device.device_class[0],
            interface_classes,
            description: device.path.escape_debug().to_string(),
            notes: Vec::new(),
        }
    }
}

fn notes_on(info: &DeviceInfo, obstacle: Option<OpenError>) -> Vec<String> {
    let is_in_use = info.is_in_use_by_programs();
    let mut notes = driver_notes(&info.drivers, is_in_use);
    let busid = info.device.busid;
    notes.push(match obstacle {
        _ if info.is_hub() => "can't be exported: the device is a hub".to_owned(),
        Some(obstacle) => format!("can't be exported: {obstacle}"),
        None if is_in_use => {
            let programs = info.programs_named();
            format!(
                "can't be exported now: programs have all interfaces of the device; end the \
                 programs{programs}"
            )
        }
        None if info.imported => {
            format!("came in over USB/IP; exported only by name: --device {busid}")
        }
        None => format!("can be exported: --device {busid}"),
    });
    notes
}

/// A line for each driver, with the driver's interfaces. `is_in_use`: programs have all interfaces.
fn driver_notes(drivers: &[Bound], is_in_use: bool) -> Vec<String> {
    let mut of: Vec<(&str, Vec<String>)> = Vec::new();
    for Bound { interface, driver } in drivers {
        match of.iter_mut().find(|(known, _)| known == driver) {
            Some((_, interfaces)) => interfaces.push(interface.to_string()),
            None => of.push((driver, vec![interface.to_string()])),
        }
    }
    let note = |(driver, interfaces): (&str, Vec<String>)| {
        let plural = if interfaces.len() > 1 { "s" } else { "" };
        let interfaces = interfaces.join(", ");
        if driver == DRIVER_OF_PROGRAMS {
            let left = if is_in_use {
                String::new()
            } else {
                format!("; requests to the interface{plural} are refused, the rest works")
            };
            format!("interface{plural} {interfaces}: in use by a program{left}")
        } else {
            format!("interface{plural} {interfaces}: driver {driver}")
        }
    };
    of.into_iter().map(note).collect()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { busid, id_vendor, id_product, description, .. } = self;
        let speed = speed_name(self.speed);
        let class = self.class_name();
        write!(
            f,
            "{busid:10} {id_vendor:04x}:{id_product:04x}  {speed:10} {class:16} {description}"
        )?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{:12}{note}", ""))
    }
}

impl Row {
    /// The device's class, or the classes of the interfaces where the device's class says nothing.
    fn class_name(&self) -> String {
        const PER_INTERFACE: u8 = 0;
        const MISCELLANEOUS: u8 = 0xef;
        if self.class != PER_INTERFACE && self.class != MISCELLANEOUS {
            return class::name(self.class).to_owned();
        }
        let mut names: Vec<&str> = Vec::new();
        for name in self.interface_classes.iter().map(|&class| class::name(class)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() { "-".to_owned() } else { names.join("+") }
    }
}

/// `enum usb_device_speed`, as servers send it.
const fn speed_name(speed: u32) -> &'static str {
    match speed {
        1 => "low",
        2 => "full",
        3 => "high",
        4 => "wireless",
        5 => "super",
        6 => "super-plus",
        _ => "unknown",
    }
}

/// Prints rows on stdout; `nothing` where there are none.
///
/// # Errors
/// The output's.
pub(super) fn print(rows: &[Row], nothing: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if rows.is_empty() {
        return writeln!(out, "{nothing}");
    }
    rows.iter().try_for_each(|row| writeln!(out, "{row}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(class: u8, interface_classes: &[u8]) -> Row {
        Row {
            busid: "1-2".to_owned(),
            id_vendor: 0x0781,
            id_product: 0x5567,
            speed: 3,
            class,
            interface_classes: interface_classes.to_vec(),
            description: "SanDisk Cruzer".to_owned(),
            notes: driver_notes(&[bound(0, "usb-storage")], false),
        }
    }

    #[test]
    fn rows_show_what_a_user_needs() {
        let text = row(0, &[8]).to_string();
        for part in
            ["1-2 ", "0781:5567", "high", "storage", "SanDisk Cruzer", "\n", "driver usb-storage"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    fn bound(interface: u8, driver: &str) -> Bound {
        Bound { interface, driver: driver.to_owned() }
    }

    #[test]
    fn each_interface_is_listed_with_who_has_it() {
        let sound = [bound(0, "snd-usb-audio"), bound(1, "snd-usb-audio"), bound(2, "usbfs")];
        let notes = driver_notes(&sound, false);
        assert_eq!(notes[0], "interfaces 0, 1: driver snd-usb-audio");
        let held = "interface 2: in use by a program; requests to the interface are refused";
        assert!(notes[1].starts_with(held), "{notes:?}");
        assert_eq!(notes.len(), 2);
        let notes = driver_notes(&[bound(0, "usbfs"), bound(2, "usbfs")], false);
        let held = "interfaces 0, 2: in use by a program; requests to the interfaces are refused";
        assert!(notes[0].starts_with(held), "{notes:?}");
    }

    /// The first simulated device, which has one interface, with drivers of it.
    fn device(drivers: Vec<Bound>) -> DeviceInfo {
        use crate::usb::sim::{SimBackend, bus::SimBus, spec::Spec};
        use crate::usb::{Backend, Candidate};
        let bus = SimBus::with(&Spec::parse_list("disk").unwrap());
        let found = SimBackend::new(bus).scan().unwrap().devices;
        let disk = found.iter().map(Candidate::info).find(|info| !info.is_hub()).unwrap();
        DeviceInfo { drivers, ..disk.clone() }
    }

    #[test]
    fn a_device_wholly_in_use_is_not_offered() {
        let notes = notes_on(&device(vec![bound(0, "usbfs")]), None);
        assert_eq!(notes[0], "interface 0: in use by a program");
        assert!(notes[1].starts_with("can't be exported now: programs have all"), "{notes:?}");
        let says_who = notes[1].contains("(fuser -v /dev/bus/usb/001/002 names them)");
        assert_eq!(says_who, cfg!(target_os = "linux"), "{notes:?}");
        // A driver gives up what it has, and of two interfaces one is enough.
        let mut composite = device(vec![bound(0, "usbfs")]);
        composite.device.interfaces.push(composite.device.interfaces[0]);
        let unconfigured = device(Vec::new());
        for free in [device(vec![bound(0, "usb-storage")]), composite, unconfigured] {
            let notes = notes_on(&free, None);
            assert!(notes.last().unwrap().starts_with("can be exported"), "{notes:?}");
        }
    }

    #[test]
    fn a_composite_device_is_named_by_its_interfaces() {
        assert_eq!(row(0xef, &[1, 1, 3]).class_name(), "audio+input");
        assert_eq!(row(9, &[9]).class_name(), "hub");
        assert_eq!(row(0, &[]).class_name(), "-");
    }
}
