//! Whether this machine can attach devices: Linux's virtual controller, and the stock tool.
//!
//! Contract: reads files.

use super::Finding;
use super::machine::Machine;
use super::place::Place;
use crate::vhci::{State, Vhci, VhciError};

const CHECK: &str = "vhci";

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![controller(machine)];
    findings.extend(tool(machine));
    findings
}

fn controller(machine: &Machine) -> Finding {
    let ports = match Vhci::below(&machine.path("/")).ports() {
        Ok(ports) => ports,
        Err(VhciError::NoModule) => return missing(machine),
        Err(error) => return Finding::note(CHECK, format!("vhci_hcd is loaded, but: {error}")),
    };
    let free = ports.iter().filter(|port| port.state == State::Free).count();
    match (ports.len(), free) {
        (ports, 0) => {
            let what = format!("all {ports} ports of vhci_hcd are taken");
            Finding::problem(CHECK, what).advise("usbip port, then usbip detach -p PORT")
        }
        (ports, free) => Finding::ok(CHECK, format!("ports of vhci_hcd: {ports}, free: {free}")),
    }
}

fn missing(machine: &Machine) -> Finding {
    let release = machine.release();
    let folder = format!("/lib/modules/{release}");
    let list = machine.text(&format!("{folder}/modules.dep")).unwrap_or_default();
    let finding =
        Finding::problem(CHECK, "vhci_hcd, the driver for imported devices, is not loaded");
    if let Place::Container(_) = Place::of(machine) {
        return finding.advise("on the container's host: sudo modprobe vhci-hcd");
    }
    if list.contains("vhci-hcd.ko") {
        return finding.advise("sudo modprobe vhci-hcd").advise(
            "and at each start: echo vhci-hcd | sudo tee /etc/modules-load.d/vhci-hcd.conf",
        );
    }
    let package = if machine.text("/etc/os-release").is_some_and(|text| text.contains("ubuntu")) {
        format!("sudo apt-get install linux-modules-extra-{release}")
    } else {
        "install a kernel with CONFIG_USBIP_VHCI_HCD, such as the distribution's standard kernel \
         instead of a cloud kernel"
            .to_owned()
    };
    finding.advise(package).advise("then: sudo modprobe vhci-hcd")
}

/// Ubuntu's `usbip` is a script that needs the tools of the very kernel that runs.
fn tool(machine: &Machine) -> Option<Finding> {
    let script = machine.text("/usr/bin/usbip").filter(|text| text.starts_with("#!"))?;
    let release = machine.release();
    let is_there = machine.exists(&format!("/usr/lib/linux-tools/{release}/usbip"));
    if is_there || !script.contains("linux-tools") {
        return None;
    }
    let what = format!("/usr/bin/usbip has no tool for the running kernel, {release}");
    let finding = Finding::warning("tool", what);
    Some(finding.advise(format!("sudo apt-get install linux-tools-{release}")))
}
