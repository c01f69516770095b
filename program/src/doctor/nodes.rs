//! Whether devices and their nodes in `/dev/bus/usb` are there.
//!
//! Contract: reads files.

use super::Finding;
use super::devices::Device;
use super::machine::Machine;
use super::place::Place;
use crate::usb::NODES;

const CHECK: &str = "nodes";

pub(super) fn check(machine: &Machine, exported: &[&Device]) -> Vec<Finding> {
    if machine.names(NODES).is_empty() {
        return vec![no_nodes(machine)];
    }
    if exported.is_empty() {
        return vec![no_devices(machine)];
    }
    let missing: Vec<Finding> = exported
        .iter()
        .filter(|device| !machine.exists(&device.node()))
        .map(|device| missing_node(machine, device))
        .collect();
    if missing.is_empty() {
        let devices = exported.len();
        return vec![Finding::ok(
            CHECK,
            format!("devices to export: {devices}, each with its node"),
        )];
    }
    missing
}

fn no_nodes(machine: &Machine) -> Finding {
    let place = Place::of(machine);
    let has_usb = machine.exists("/sys/bus/usb/devices");
    let (what, advice) = match place {
        Place::Bare if has_usb => (
            format!("there is no {NODES}, though this kernel has USB"),
            vec!["let devtmpfs make the nodes: sudo mount -t devtmpfs none /dev".to_owned()],
        ),
        Place::Bare => (
            format!("there is no {NODES}: this kernel shows no USB controller"),
            place.pass_through(),
        ),
        _ => (
            format!("there is no {NODES}: this is {}, and no USB is passed through", place.name()),
            place.pass_through(),
        ),
    };
    Finding::problem(CHECK, what).advise_all(advice)
}

/// Hubs do not count. Where devices must be passed through, the want of a device is the likely
/// fault.
fn no_devices(machine: &Machine) -> Finding {
    let place = Place::of(machine);
    let what = "no device to export is plugged in; hubs and devices from USB/IP do not count";
    if place == Place::Bare {
        return Finding::note(CHECK, what).advise("usbferry list");
    }
    let what = format!("{what}. This is {}: devices must be passed through", place.name());
    Finding::warning(CHECK, what).advise_all(place.pass_through())
}

fn missing_node(machine: &Machine, device: &Device) -> Finding {
    let what = format!("{} has no node {}", device.busid, device.node());
    let place = Place::of(machine);
    let finding = Finding::problem(CHECK, what).about(device.busid);
    match place {
        Place::Container(_) => finding.advise_all(place.pass_through()),
        _ => finding.advise("sudo udevadm trigger --subsystem-match=usb --action=add"),
    }
}
