//! `usbferry detach`: frees a port of `vhci_hcd`.
//!
//! Contract: calls of the file system only.

use std::fmt;
use std::path::Path;

use log::info;

use super::CommandError;
use super::json::{self, EventJson};
use super::list::printed;
use crate::cli::{Detach, Which};
use crate::vhci::{State, Vhci};
use crate::words::printable;

/// `usbferry detach`.
pub(super) fn detach(arguments: &Detach) -> Result<(), CommandError> {
    let vhci = Vhci::below(Path::new("/"));
    let port = detach_from(&vhci, arguments.which().map_err(CommandError::Usage)?)?;
    info!("port {port}: detached");
    if !arguments.json {
        return Ok(());
    }
    printed(json::print(&EventJson::new("detached", port, None, None)))
}

/// Detaches a device, and returns its port.
fn detach_from(vhci: &Vhci, which: Which<'_>) -> Result<u32, CommandError> {
    vhci.may_detach().map_err(CommandError::Vhci)?;
    let port = match which {
        Which::Port(port) => port,
        Which::Name(name) => port_of(vhci, name)?,
    };
    vhci.detach(port).map_err(CommandError::Vhci)?;
    Ok(port)
}

/// The port of the only device with a name on its server.
fn port_of(vhci: &Vhci, name: &str) -> Result<u32, CommandError> {
    let ports = vhci.ports().map_err(CommandError::Vhci)?;
    let used = ports.iter().filter(|port| port.state != State::Free).map(|port| port.number);
    let is_named = |port: &u32| vhci.origin(*port).is_some_and(|origin| origin.busid == name);
    let named: Vec<u32> = used.filter(is_named).collect();
    match named[..] {
        [port] => Ok(port),
        _ => Err(CommandError::Unnamed(Unnamed { name: name.to_owned(), ports: named })),
    }
}

/// A name that tells no attached device from others.
#[derive(Debug)]
pub struct Unnamed {
    /// The name.
    name: String,
    /// The ports of the devices with the name: none, or several.
    ports: Vec<u32>,
}

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = printable(&self.name);
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        match &ports[..] {
            [] => write!(
                f,
                "no attached device is named {name}: \"usbferry port\" shows the attached devices"
            ),
            several => write!(
                f,
                "several attached devices are named {name}: say which with --port, one of {}",
                several.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhci::Origin;
    use crate::vhci::fake::FakeKernel;

    fn note(kernel: &FakeKernel, port: u32, host: &str, busid: &str) {
        let origin =
            Origin { host: host.to_owned(), service: "3240".to_owned(), busid: busid.to_owned() };
        kernel.vhci().note(port, &origin).unwrap();
    }

    #[test]
    fn a_device_is_detached_by_port_or_by_its_name() {
        let kernel = FakeKernel::new();
        kernel.fill(0);
        kernel.fill(1);
        note(&kernel, 0, "desk", "stick");
        note(&kernel, 1, "desk", "programmer");
        assert_eq!(detach_from(&kernel.vhci(), Which::Name("programmer")).unwrap(), 1);
        assert_eq!(kernel.read("detach"), "1");
        kernel.empty(1);
        assert_eq!(detach_from(&kernel.vhci(), Which::Port(0)).unwrap(), 0);
        kernel.empty(0);
        let again = detach_from(&kernel.vhci(), Which::Port(0)).unwrap_err().to_string();
        assert_eq!(again, "nothing is attached to port 0");
    }

    #[test]
    fn a_name_of_none_or_of_several_devices_is_refused() {
        let kernel = FakeKernel::new();
        kernel.fill(0);
        kernel.fill(1);
        note(&kernel, 0, "desk", "1-2");
        note(&kernel, 1, "shelf", "1-2");
        // An old note of a free port means nothing.
        note(&kernel, 2, "shelf", "1-3");
        let error = |name| detach_from(&kernel.vhci(), Which::Name(name)).unwrap_err().to_string();
        assert!(error("1-2").contains("with --port, one of 0, 1"), "{}", error("1-2"));
        assert!(error("1-3").starts_with("no attached device is named 1-3"), "{}", error("1-3"));
        assert_eq!(kernel.read("detach"), "");
    }
}
