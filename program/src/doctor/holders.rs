//! Drivers, programs and mounted disks in the way of an export.
//!
//! Drivers of the kernel's give their devices up, with one exception: `usbip-host` is the kernel's
//! own exporter. A disk in use would be lost to its file system.
//!
//! Contract: reads files.

use super::Finding;
use super::devices::Device;
use super::machine::Machine;
use crate::programs::{OpenFiles, Program};
use crate::usb::{DRIVER_OF_PROGRAMS, NODES};

const CHECK: &str = "holders";

/// The driver of the kernel's own exporter.
const USBIP_HOST: &str = "usbip-host";

pub(super) fn check(machine: &Machine, exported: &[&Device]) -> Vec<Finding> {
    let files = OpenFiles::read(&machine.path("/proc"), |link| link.starts_with(NODES));
    let disks = Disks::read(machine);
    let of_device = |device: &&Device| {
        let held = held_by_kernel(device).or_else(|| held_by_programs(device, &files));
        held.into_iter().chain(disks.mounted(device))
    };
    let findings: Vec<Finding> = exported.iter().flat_map(of_device).collect();
    if findings.is_empty() {
        return vec![Finding::ok(CHECK, "no driver, program or mounted disk is in the way")];
    }
    findings
}

fn held_by_kernel(device: &Device) -> Option<Finding> {
    let busid = device.busid;
    let is_bound = device.driver.as_deref() == Some(USBIP_HOST);
    let what = format!("{busid}: the kernel's own exporter ({USBIP_HOST}) has the device");
    let finding = || Finding::problem(CHECK, what).about(busid);
    is_bound.then(|| finding().advise(format!("sudo usbip unbind -b {busid}")))
}

/// Programs with interfaces of the device: a problem if of all interfaces, else a warning. The
/// device of a running usbferry is lent, which is no fault.
fn held_by_programs(device: &Device, files: &OpenFiles) -> Option<Finding> {
    let (busid, node) = (device.busid, device.node());
    let drivers = &device.info.drivers;
    if !drivers.iter().any(|bound| bound.driver == DRIVER_OF_PROGRAMS) {
        return None;
    }
    let programs = files.programs_with(&node);
    if programs.iter().any(|program| program.name == "usbferry") {
        let what = format!("{busid}: lent to a client by {}", listed(&programs));
        return Some(Finding::note(CHECK, what).about(busid));
    }
    let who = match programs.as_slice() {
        [] => "a program of another user".to_owned(),
        programs => listed(programs),
    };
    let finding = if device.info.is_in_use_by_programs() {
        Finding::problem(CHECK, format!("{busid}: all interfaces are in use by {who}"))
    } else {
        Finding::warning(CHECK, format!("{busid}: some interfaces are in use by {who}"))
    };
    let finding = finding.about(busid);
    Some(match programs.first() {
        Some(program) => finding.advise(format!("end the program: sudo kill {}", program.pid)),
        None => finding.advise(format!("sudo fuser -v {node}")),
    })
}

/// Programs in a list, with commas.
pub(super) fn listed(programs: &[&Program]) -> String {
    programs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Disks and what is mounted of them.
struct Disks {
    /// The name of each block device, and its place in sysfs.
    places: Vec<(String, String)>,
    /// The text of `/proc/mounts`.
    mounts: String,
}

impl Disks {
    fn read(machine: &Machine) -> Self {
        let names = machine.names("/sys/block").into_iter();
        let place = |name: String| Some((machine.link(&format!("/sys/block/{name}"))?, name));
        let places = names.filter_map(place).map(|(place, name)| (name, place)).collect();
        Self { places, mounts: machine.text("/proc/mounts").unwrap_or_default() }
    }

    /// A warning for each mounted part of the device.
    fn mounted(&self, device: &Device) -> Vec<Finding> {
        let part = format!("/{}/", device.busid);
        let of_device = self.places.iter().filter(|(_, place)| place.contains(&part));
        of_device.flat_map(|(name, _)| self.mounts_of(device, name)).collect()
    }

    fn mounts_of(&self, device: &Device, disk: &str) -> Vec<Finding> {
        let prefix = format!("/dev/{disk}");
        let mut found = Vec::new();
        for line in self.mounts.lines() {
            let mut fields = line.split(' ');
            let (Some(source), Some(at)) = (fields.next(), fields.next()) else { continue };
            let is_part = source
                .strip_prefix(&prefix)
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'p'));
            if is_part {
                // The kernel writes spaces and the like as octal numbers already.
                let at = at.escape_debug();
                let what = format!(
                    "{}: {source} is mounted at {at}; an import takes the disk away from under \
                     the file system",
                    device.busid
                );
                let finding = Finding::warning(CHECK, what).about(device.busid);
                found.push(finding.advise(format!("sudo umount {source}")));
            }
        }
        found
    }
}
