//! What makes exports and imports fail on a machine, and what to type about each fault.
//!
//! - `machine`: the machine under examination: a root directory, and the system's answer to opening
//!   a device's node;
//! - `place`: whether the machine is a container, WSL2 or a virtual machine;
//! - `devices`: the devices that sysfs shows;
//! - checks for a server: `nodes`, `permissions`, `holders` (drivers, programs and mounted disks in
//!   the way), `memory` (of usbfs), `port`, `kernel`, `congestion`;
//! - checks for a client: `client` (vhci, the stock tool), `peer` (the way to a server);
//! - `finding`: what a check has found, and how bad that is.
//!
//! Each check is a plain function from the machine to findings, at least one each: a sound check
//! says so. Tests plant each fault in a directory of their own.
//!
//! Contract: *blocks*: reads files, opens and closes the nodes of devices, and asks a peer, if
//! named, for its exports. Changes nothing. Texts and lists of the system are bounded (`machine`).

#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod congestion;
#[cfg(target_os = "linux")]
mod devices;
mod finding;
#[cfg(target_os = "linux")]
mod holders;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod nodes;
mod peer;
#[cfg(target_os = "linux")]
mod permissions;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod port;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use crate::client::Server;
use crate::config::Settings;
pub use finding::{Finding, Level, Report};

/// What the machine is wanted for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The settings of the server.
    pub settings: Settings,
    /// Real devices are to be exported, not simulated devices only.
    pub has_devices: bool,
}

/// Examines this machine as a server. *Blocks.*
#[cfg(target_os = "linux")]
#[must_use]
pub fn examine_server(wanted: &Wanted) -> Report {
    server_findings(&machine::Machine::here(), wanted)
}

#[cfg(target_os = "linux")]
fn server_findings(machine: &machine::Machine, wanted: &Wanted) -> Report {
    let mut findings = Vec::new();
    let settings = &wanted.settings;
    if wanted.has_devices {
        let all = devices::present(machine);
        let exported = all.iter().filter(|device| settings.verdict(&device.info).is_offered());
        let exported: Vec<&devices::Device> = exported.collect();
        findings.extend(nodes::check(machine, &exported));
        findings.extend(permissions::check(machine, &exported));
        findings.extend(holders::check(machine, &exported));
        findings.extend(memory::check(machine, &exported, settings));
        findings.extend(kernel::check_server(&exported));
    }
    let listen: Vec<_> = settings.listen.iter().map(|listen| listen.address).collect();
    findings.extend(port::check(machine, &listen));
    findings.extend(congestion::check_server(machine));
    Report::of(findings)
}

/// Examines this machine as a client of a server, and the way there. *Blocks.*
#[cfg(target_os = "linux")]
#[must_use]
pub fn examine_client(server: &Server) -> Report {
    let machine = machine::Machine::here();
    let mut findings = client::check(&machine);
    findings.extend(kernel::check_client(&machine));
    findings.extend(congestion::check_client(&machine));
    let (exports, found) = peer::check(server);
    findings.extend(found);
    findings.extend(kernel::check_speeds(&machine, &exports));
    Report::of(findings)
}

/// Examines this machine as a server: nothing that a file would tell here.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn examine_server(wanted: &Wanted) -> Report {
    let addresses = wanted.settings.listen.iter().map(|listen| listen.address);
    Report::of(addresses.map(elsewhere::check_port).collect())
}

/// Examines the way to a server. *Blocks.*
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn examine_client(server: &Server) -> Report {
    Report::of(peer::check(server).1)
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::net::{SocketAddr, TcpListener};

    use super::Finding;
    use crate::words::reason;

    /// Whether an address can be listened on, by trying.
    pub(super) fn check_port(address: SocketAddr) -> Finding {
        match TcpListener::bind(address) {
            Ok(_) => Finding::ok("port", format!("{address} is free")).about(address),
            Err(error) => {
                let what = format!("can't listen on {address}: {}", reason(&error));
                let finding = Finding::problem("port", what).about(address);
                finding.advise(format!("lsof -nP -iTCP:{}", address.port()))
            }
        }
    }
}
