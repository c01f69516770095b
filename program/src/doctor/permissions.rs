//! Whether this user may write to the nodes of devices.
//!
//! Contract: opens and closes nodes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::Finding;
use super::devices::Device;
use super::machine::Machine;
use super::place::Place;
use crate::wire::op::UsbDevice;
use crate::words::reason;

const CHECK: &str = "permissions";

/// The group that Debian and its derivatives have for such devices.
const GROUP: &str = "plugdev";

/// `EPERM`: refused by other rules than the mode of the node, for which there is `EACCES`.
const NOT_PERMITTED: i32 = 1;

pub(super) fn check(machine: &Machine, exported: &[&Device]) -> Vec<Finding> {
    let there: Vec<&&Device> =
        exported.iter().filter(|device| machine.exists(&device.node())).collect();
    if there.is_empty() {
        return vec![Finding::ok(CHECK, "there is no node to be opened")];
    }
    let failed = |device: &&&Device| {
        let error = machine.open_node(&device.node()).err()?;
        Some(explain(machine, device, &error))
    };
    let findings: Vec<Finding> = there.iter().filter_map(failed).collect();
    if findings.is_empty() {
        return vec![Finding::ok(CHECK, format!("nodes that may be opened: all {}", there.len()))];
    }
    findings
}

fn explain(machine: &Machine, device: &Device, error: &io::Error) -> Finding {
    let (busid, node) = (device.busid, device.node());
    if error.raw_os_error() == Some(NOT_PERMITTED) {
        return forbidden(machine, device);
    }
    if error.kind() != io::ErrorKind::PermissionDenied {
        let what = format!("{busid}: {node} can't be opened: {}", reason(error));
        return Finding::warning(CHECK, what).about(busid).advise("plug the device in again");
    }
    let finding = Finding::problem(CHECK, format!("{busid}: this user may not write to {node}"));
    let finding = finding.about(busid);
    match group_to_join(machine, &node) {
        Some(group) => finding
            .advise(format!("sudo usermod -aG {group} {}", user(machine)))
            .advise("then log in again"),
        None => finding.advise_all(udev_rule(machine, device)),
    }
}

/// Refused in spite of the node's mode.
fn forbidden(machine: &Machine, device: &Device) -> Finding {
    let (busid, node) = (device.busid, device.node());
    let what = format!("{busid}: a sandbox or a security policy forbids {node}");
    let finding = Finding::problem(CHECK, what).about(busid);
    match Place::of(machine) {
        place @ Place::Container(_) => finding.advise_all(place.pass_through()),
        _ => finding.advise("in a systemd unit: DeviceAllow=char-usb_device rw"),
    }
}

/// The group that may write to the node, and that this user is not in.
fn group_to_join(machine: &Machine, node: &str) -> Option<String> {
    const GROUP_READS_AND_WRITES: u32 = 0o060;
    let metadata = fs::metadata(machine.path(node)).ok()?;
    let may = metadata.mode() & GROUP_READS_AND_WRITES == GROUP_READS_AND_WRITES;
    let is_in = machine.status("Groups").contains(&metadata.gid());
    let name = name_in(machine, "/etc/group", metadata.gid())?;
    (may && !is_in && name != "root").then_some(name)
}

/// The name with a number in `/etc/group` or `/etc/passwd`: `NAME:PASSWORD:NUMBER:…`.
fn name_in(machine: &Machine, file: &str, number: u32) -> Option<String> {
    let text = machine.text(file)?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, of_name) = (fields.next()?, fields.nth(1)?);
        (of_name.parse() == Ok(number)).then(|| name.to_owned())
    })
}

/// The name of this user, for a command.
fn user(machine: &Machine) -> String {
    let id = machine.status("Uid").get(1).copied();
    id.and_then(|id| name_in(machine, "/etc/passwd", id)).unwrap_or_else(|| "$USER".to_owned())
}

/// A rule for this very device, installed and in force.
fn udev_rule(machine: &Machine, device: &Device) -> Vec<String> {
    let UsbDevice { id_vendor, id_product, .. } = device.info.device;
    let groups = machine.text("/etc/group").unwrap_or_default();
    let has_group = groups.lines().any(|line| line.starts_with(&format!("{GROUP}:")));
    let mut lines = vec![format!(
        "echo 'SUBSYSTEM==\"usb\", ATTR{{idVendor}}==\"{id_vendor:04x}\", \
         ATTR{{idProduct}}==\"{id_product:04x}\", MODE=\"0660\", GROUP=\"{GROUP}\"' | \
         sudo tee /etc/udev/rules.d/60-usbferry-{id_vendor:04x}-{id_product:04x}.rules"
    )];
    if !has_group {
        lines.insert(0, format!("sudo groupadd --system {GROUP}"));
    }
    lines.push(format!("sudo usermod -aG {GROUP} {}", user(machine)));
    lines.push(
        "sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=usb".to_owned(),
    );
    lines.push("then log in again; or run usbferry as root".to_owned());
    lines
}
