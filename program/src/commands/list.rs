//! `usbferry list`: prints the devices of this machine or of a server, in the same form.
//!
//! Contract: *blocks* for the answers of devices, or for the time limit of [`client`].

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use super::CommandError;
use super::json::{self, DeviceJson, DevicesJson, IdsJson};
use super::lent::{Lent, Loans};
use super::network;
use crate::cli::List;
use crate::client::{self, Exported, Server};
use crate::names::Names;
use crate::programs::{OpenFiles, Program};
use crate::sorted::sort_by_key;
use crate::usb::libusb::{self, LibusbBackend};
use crate::usb::{
    Backend, Bound, Candidate, DRIVER_OF_PROGRAMS, DeviceInfo, NODES, OpenError, ScanError, class,
};
use crate::wire::types::BusId;
use crate::words::printable;

/// Programs with a device that are named; a person ends one after the other anyway.
const PROGRAMS_NAMED: usize = 4;

/// `usbferry list`.
pub(super) fn show(list: &List) -> Result<(), CommandError> {
    if let Some(form) = list.discover() {
        return network::show(form);
    }
    let server = list.server().map_err(CommandError::Usage)?;
    let rows = match &server {
        Some(server) => remote_rows(server)?,
        None => local_rows(&Loans::ask(list.asking.socket())?).map_err(CommandError::Scan)?,
    };
    if list.parsable {
        return printed(print_parsable(&rows));
    }
    if list.json {
        let devices = rows.into_iter().map(Row::into_json).collect();
        let host = server.map(|server| server.to_string());
        return printed(json::print(&DevicesJson::new(host, devices)));
    }
    let nothing = match server {
        Some(server) => format!("{server} exports nothing that is free now"),
        None => "there are no USB devices".to_owned(),
    };
    printed(print(&rows, &nothing))
}

/// The result of printing: an output closed early, as by `| head`, is no failure.
pub(super) fn printed(result: io::Result<()>) -> Result<(), CommandError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Print(error)),
        _ => Ok(()),
    }
}

fn remote_rows(server: &Server) -> Result<Vec<Row>, CommandError> {
    let exports = client::exports(server).map_err(CommandError::Client)?;
    Ok(exports.into_iter().map(Row::remote).collect())
}

/// The devices of this machine, of which a server may have lent some.
pub(super) fn local_rows(loans: &Loans) -> Result<Vec<Row>, ScanError> {
    let mut candidates = LibusbBackend::new()?.scan()?.devices;
    sort_by_key(&mut candidates, |candidate| candidate.info().device.busid);
    let in_use = candidates.iter().any(|candidate| candidate.info().is_in_use_by_programs());
    let is_node = |link: &str| in_use && link.starts_with(NODES);
    let files = OpenFiles::read(Path::new("/proc"), is_node);
    let row = |candidate: &libusb::LibusbCandidate| {
        let info = candidate.info();
        if let Some(lent) = loans.of(info) {
            return Row::lent(info, lent);
        }
        let obstacle = if info.is_hub() { None } else { candidate.obstacle() };
        let is_in_use = info.is_in_use_by_programs();
        let programs = if is_in_use { files.programs_with(&info.node()) } else { Vec::new() };
        Row::local(info, obstacle, &programs)
    };
    Ok(candidates.iter().map(row).collect())
}

/// The printed facts of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    busid: BusId,
    ids: (u16, u16),
    /// The device of this machine came in over USB/IP.
    imported: bool,
    speed: u32,
    class: u8,
    /// Classes of the interfaces, for a device whose own class says nothing.
    interface_classes: Vec<u8>,
    /// The device's own words, and its path at a server; as sent, not for a terminal.
    own: OwnWords,
    /// Whether the device can be exported; unknown at a server.
    exportable: Option<bool>,
    /// The loan, for a device of this machine that a server has lent.
    lent: Option<Lent>,
    /// Drivers, obstacles and advice, a line each.
    notes: Vec<String>,
}

/// The words of a device and of its server about the device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct OwnWords {
    manufacturer: Option<String>,
    product: Option<String>,
    serial: Option<String>,
    path: Option<String>,
}

impl Row {
    /// A device of this machine. `obstacle` is the reason why the device can't be exported, if any.
    #[must_use]
    pub(super) fn local(
        info: &DeviceInfo,
        obstacle: Option<OpenError>,
        programs: &[&Program],
    ) -> Self {
        let device = &info.device;
        let is_in_the_way = obstacle.is_some() || info.is_hub() || info.is_in_use_by_programs();
        Self {
            busid: device.busid,
            ids: (device.id_vendor, device.id_product),
            imported: info.imported,
            speed: device.speed as u32,
            class: device.device_class,
            interface_classes: device.interfaces.iter().map(|i| i.class).collect(),
            own: OwnWords {
                manufacturer: info.manufacturer.clone(),
                product: info.product.clone(),
                serial: info.serial.clone(),
                path: None,
            },
            exportable: Some(!is_in_the_way),
            lent: None,
            notes: notes_on(info, obstacle, programs),
        }
    }

    /// A device of this machine that a server has lent.
    fn lent(info: &DeviceInfo, lent: Lent) -> Self {
        let notes = vec![lent.note()];
        let exportable = Some(false);
        Self { exportable, notes, lent: Some(lent), ..Self::local(info, None, &[]) }
    }

    pub(super) fn remote(exported: Exported) -> Self {
        let Exported { device, interface_classes } = exported;
        Self {
            busid: device.busid,
            ids: (device.id_vendor, device.id_product),
            imported: false,
            speed: device.speed,
            class: device.device_class[0],
            interface_classes,
            own: OwnWords { path: Some(device.path), ..OwnWords::default() },
            exportable: None,
            lent: None,
            notes: Vec::new(),
        }
    }

    pub(super) fn into_json(self) -> DeviceJson {
        let class =
            Some(self.class).filter(|class| !matches!(*class, PER_INTERFACE | MISCELLANEOUS));
        let mut classes: Vec<u8> = class.into_iter().chain(self.interface_classes).collect();
        classes.dedup();
        let (lent_to, lent_since) = self.lent.map(Lent::into_json).unwrap_or_default();
        DeviceJson {
            busid: json::name(self.busid),
            ids: IdsJson::new(self.ids),
            speed: speed_name(self.speed),
            classes,
            path: self.own.path,
            manufacturer: self.own.manufacturer,
            product_name: self.own.product,
            serial: self.own.serial,
            exportable: self.exportable,
            lent_to,
            lent_since,
            notes: self.notes,
        }
    }
}

impl Row {
    /// The device in the words of the stock tool's parsable list.
    fn parsable(&self) -> String {
        let Self { busid, ids: (vendor, product), .. } = self;
        format!("busid={busid}#usbid={vendor:04x}:{product:04x}#")
    }
}

impl OwnWords {
    /// The words on a line, if there are any, with nothing unprintable.
    fn line(&self) -> Option<String> {
        let Self { manufacturer, product, serial, path } = self;
        let names = [manufacturer, product, path].into_iter().flatten();
        let names = names.map(|name| name.trim()).filter(|name| !name.is_empty());
        let mut line = printable(&names.collect::<Vec<_>>().join(" "));
        if let Some(serial) = serial {
            let comma = if line.is_empty() { "" } else { ", " };
            line = format!("{line}{comma}serial {}", printable(serial));
        }
        if line.is_empty() { None } else { Some(line) }
    }
}

fn notes_on(info: &DeviceInfo, obstacle: Option<OpenError>, programs: &[&Program]) -> Vec<String> {
    let is_in_use = info.is_in_use_by_programs();
    let mut notes = driver_notes(&info.drivers, is_in_use);
    let busid = info.device.busid;
    notes.push(match obstacle {
        _ if info.is_hub() => "can't be exported: the device is a hub".to_owned(),
        Some(obstacle) => format!("can't be exported: {obstacle}"),
        None if is_in_use => in_use_note(info, programs),
        None if info.imported => {
            format!("came in over USB/IP; exported only by name: --device {busid}")
        }
        None => format!("can be exported: --device {busid}"),
    });
    notes
}

/// Who has all interfaces of a device.
fn in_use_note(info: &DeviceInfo, programs: &[&Program]) -> String {
    let named: Vec<String> =
        programs.iter().take(PROGRAMS_NAMED).map(ToString::to_string).collect();
    let more = match programs.len().saturating_sub(PROGRAMS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match &named[..] {
        [] => format!(
            "can't be exported now: programs have all interfaces of the device; end the programs{}",
            info.programs_named()
        ),
        [program] => format!(
            "can't be exported now: {program} has all interfaces of the device; end the program"
        ),
        several => format!(
            "can't be exported now: {}{more} have all interfaces of the device; end the programs",
            several.join(", ")
        ),
    }
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
        let Self { busid, ids, .. } = self;
        let (vendor, product) = ids;
        let speed = speed_name(self.speed);
        let class = self.class_name();
        let names = Names::of(*ids);
        write!(f, "{busid:10} {vendor:04x}:{product:04x}  {speed:10} {class:16} {names}")?;
        let lines = self.own.line().into_iter().chain(self.notes.iter().cloned());
        lines.into_iter().try_for_each(|line| write!(f, "\n{:12}{line}", ""))
    }
}

/// bDeviceClass of a device with a class for each interface.
const PER_INTERFACE: u8 = 0;

/// bDeviceClass of a composite device.
const MISCELLANEOUS: u8 = 0xef;

impl Row {
    /// The device's class, or the classes of the interfaces where the device's class says nothing.
    fn class_name(&self) -> String {
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
pub(super) const fn speed_name(speed: u32) -> &'static str {
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

/// Prints rows on stdout as `usbip list -p` does, for scripts (`print_device` of `usbip_list.c`): a
/// line each, without hubs and without devices that came in over USB/IP.
fn print_parsable(rows: &[Row]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let shown = rows.iter().filter(|row| row.class != class::HUB && !row.imported);
    shown.map(Row::parsable).try_for_each(|line| writeln!(out, "{line}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn row(class: u8, interface_classes: &[u8]) -> Row {
        Row {
            busid: BusId::new("1-2").unwrap(),
            ids: (0x0781, 0x5567),
            imported: false,
            speed: 3,
            class,
            interface_classes: interface_classes.to_vec(),
            own: OwnWords {
                product: Some("Cruzer \"7\"\u{1b}".to_owned()),
                serial: Some("4C53".to_owned()),
                ..OwnWords::default()
            },
            exportable: Some(true),
            lent: None,
            notes: driver_notes(&[bound(0, "usb-storage")], false),
        }
    }

    #[test]
    fn rows_show_what_a_user_needs() {
        let text = row(0, &[8]).to_string();
        for part in [
            "1-2 ",
            "0781:5567",
            "high",
            "storage",
            "SanDisk Corp. : Cruzer Blade\n",
            "Cruzer \"7\"\\u{1b}, serial 4C53\n",
            "driver usb-storage",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let mut nameless = row(0, &[8]);
        nameless.own = OwnWords::default();
        nameless.notes.clear();
        assert_eq!(nameless.to_string().lines().count(), 1);
    }

    /// As the stock tool prints a device, for scripts that read the lines.
    #[test]
    fn a_parsable_row_is_that_of_the_stock_tool() {
        assert_eq!(row(0, &[8]).parsable(), "busid=1-2#usbid=0781:5567#");
    }

    /// JSON has a server's names as they came, and text shows nothing unprintable.
    #[test]
    fn a_name_with_control_characters_is_escaped_in_text_alone() {
        let hostile = "st\"i\u{1b}]0;ck";
        let mut remote = row(0, &[8]);
        remote.busid = BusId::new(hostile).unwrap();
        remote.own = OwnWords { path: Some(hostile.to_owned()), ..OwnWords::default() };
        for text in [remote.to_string(), remote.parsable()] {
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
        let value = serde_json::to_value(remote.into_json()).unwrap();
        assert_eq!((&value["busid"], &value["path"]), (&hostile.into(), &hostile.into()));
    }

    /// Whether docs/json.md has the names of all fields.
    pub(in crate::commands) fn assert_fields_are_documented(fields: &[&str]) {
        let page = include_str!("../../../docs/json.md");
        for field in fields {
            assert!(page.contains(&format!("| `{field}` |")), "docs/json.md lacks {field}");
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
        let notes = notes_on(&device(vec![bound(0, "usbfs")]), None, &[]);
        assert_eq!(notes[0], "interface 0: in use by a program");
        assert!(notes[1].starts_with("can't be exported now: programs have all"), "{notes:?}");
        let says_who = notes[1].contains("(fuser -v /dev/bus/usb/001/002 names them)");
        assert_eq!(says_who, cfg!(target_os = "linux"), "{notes:?}");
        // A driver gives up what it has, and of two interfaces one is enough.
        let mut composite = device(vec![bound(0, "usbfs")]);
        composite.device.interfaces.push(composite.device.interfaces[0]);
        let unconfigured = device(Vec::new());
        for free in [device(vec![bound(0, "usb-storage")]), composite, unconfigured] {
            let notes = notes_on(&free, None, &[]);
            assert!(notes.last().unwrap().starts_with("can be exported"), "{notes:?}");
        }
    }

    #[test]
    fn the_programs_with_a_device_are_named() {
        let programs = |count: u32| {
            let program = |pid| Program { pid, name: "pcscd".to_owned() };
            (1..=count).map(program).collect::<Vec<_>>()
        };
        let taken = device(vec![bound(0, "usbfs")]);
        let note = |count| {
            let programs = programs(count);
            notes_on(&taken, None, &programs.iter().collect::<Vec<_>>()).pop().unwrap()
        };
        assert!(note(1).starts_with("can't be exported now: pcscd (pid 1) has all"), "{}", note(1));
        assert!(note(2).contains("now: pcscd (pid 1), pcscd (pid 2) have all"), "{}", note(2));
        assert!(note(6).contains("pcscd (pid 4) and 2 more have all"), "{}", note(6));
    }

    /// The schema of docs/json.md.
    #[test]
    fn a_list_in_json_has_the_fields_of_its_page() {
        let local = Row::local(&device(vec![bound(0, "usbfs")]), None, &[]).into_json();
        let value = serde_json::to_value(DevicesJson::new(None, vec![local])).unwrap();
        assert_eq!((&value["schema"], &value["host"]), (&1.into(), &serde_json::Value::Null));
        let device = &value["devices"][0];
        assert_eq!(device["busid"], "1-1");
        assert_eq!((&device["vid"], &device["pid"]), (&"1209".into(), &"0002".into()));
        assert_eq!((&device["speed"], &device["classes"][0]), (&"high".into(), &8.into()));
        assert_eq!((&device["exportable"], &device["path"]), (&false.into(), &().into()));
        let fields: Vec<&str> = device.as_object().unwrap().keys().map(String::as_str).collect();
        assert_fields_are_documented(&fields);
    }

    #[test]
    fn a_composite_device_is_named_by_its_interfaces() {
        assert_eq!(row(0xef, &[1, 1, 3]).class_name(), "audio+input");
        assert_eq!(row(9, &[9]).class_name(), "hub");
        assert_eq!(row(0, &[]).class_name(), "-");
    }
}
