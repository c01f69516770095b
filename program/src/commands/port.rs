//! `usbferry port`: shows the attached devices, in the words of the stock `usbip port`
//! (`usbip_vhci_imported_device_dump` of `vhci_driver.c`), which scripts read.
//!
//! Contract: calls of the file system only.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use super::CommandError;
use super::json::{self, IdsJson, LocalJson, PortJson, PortsJson};
use super::list::{printed, speed_name};
use crate::cli;
use crate::names::Names;
use crate::vhci::{LocalDevice, Origin, Port, State, Vhci, VhciError};
use crate::words::printable;

/// `usbferry port`.
pub(super) fn show(arguments: &cli::Port) -> Result<(), CommandError> {
    let rows = rows(&Vhci::below(Path::new("/"))).map_err(CommandError::Vhci)?;
    if arguments.json {
        let ports = rows.into_iter().map(Row::into_json).collect();
        return printed(json::print(&PortsJson::new(ports)));
    }
    printed(print(&rows))
}

/// A port with a device.
struct Row {
    port: Port,
    origin: Option<Origin>,
    device: Option<LocalDevice>,
}

/// The ports that are not free.
fn rows(vhci: &Vhci) -> Result<Vec<Row>, VhciError> {
    let is_shown = |port: &Port| matches!(port.state, State::Used | State::Failed);
    let ports = vhci.ports()?.into_iter().filter(is_shown);
    let row = |port: Port| Row {
        origin: vhci.origin(port.number),
        device: port.local.as_deref().and_then(|name| vhci.device(name)),
        port,
    };
    Ok(ports.map(row).collect())
}

fn print(rows: &[Row]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Imported USB devices\n====================")?;
    rows.iter().try_for_each(|row| writeln!(out, "{row}"))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, origin, device } = self;
        let (number, state) = (port.number, port.state.words());
        writeln!(f, "Port {number:02}: <{state}> at {}", speed_words(port.speed))?;
        if let Some(LocalDevice { ids, .. }) = device {
            writeln!(f, "       {} ({:04x}:{:04x})", Names::of(*ids), ids.0, ids.1)?;
        }
        let local = port.local.as_deref().unwrap_or("-");
        match origin {
            Some(Origin { host, service, busid }) => {
                let [host, service, busid] = [host, service, busid].map(|text| printable(text));
                writeln!(f, "{local:>10} -> usbip://{host}:{service}/{busid}")?;
            }
            None => writeln!(f, "{local:>10} -> unknown host, remote port and remote busid")?,
        }
        let (bus, address) = (port.devid.0 >> 16, port.devid.0 & 0xffff);
        write!(f, "{:>10} -> remote bus/dev {bus:03}/{address:03}", "")
    }
}

impl Row {
    fn into_json(self) -> PortJson {
        let Self { port, origin, device } = self;
        let (host, tcp_port, name) = match origin {
            Some(Origin { host, service, busid }) => (Some(host), Some(service), Some(busid)),
            None => (None, None, None),
        };
        let local = port.local.zip(device).map(|(busid, device)| LocalJson {
            busid,
            bus: device.bus,
            address: device.address,
            ids: IdsJson::new(device.ids),
        });
        PortJson {
            port: port.number,
            hub: port.hub.name(),
            state: port.state.name(),
            speed: speed_name(port.speed),
            host,
            tcp_port,
            name,
            remote_bus: port.devid.0 >> 16,
            remote_address: port.devid.0 & 0xffff,
            local,
        }
    }
}

/// The words of the stock tool (`usbip_speed_string` of `usbip_common.c`).
const fn speed_words(speed: u32) -> &'static str {
    match speed {
        1 => "Low Speed(1.5Mbps)",
        2 => "Full Speed(12Mbps)",
        3 => "High Speed(480Mbps)",
        4 => "Wireless",
        5 => "Super Speed(5000Mbps)",
        6 => "Super Speed Plus(10000Mbps)",
        _ => "Unknown Speed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::list::tests::assert_fields_are_documented;
    use crate::vhci::fake::FakeKernel;

    /// A stick from `desk` at port 0, a device of unknown origin at port 1.
    fn kernel() -> FakeKernel {
        let kernel = FakeKernel::new();
        kernel.fill(0);
        kernel.fill(1);
        kernel.enumerate("9-1", "1d6b", "0104");
        let origin =
            Origin { host: "desk".into(), service: "3241".into(), busid: "stick\u{1b}".into() };
        kernel.vhci().note(0, &origin).unwrap();
        kernel
    }

    #[test]
    fn ports_are_shown_in_the_words_of_the_stock_tool() {
        let rows = rows(&kernel().vhci()).unwrap();
        let text: Vec<String> = rows.iter().map(ToString::to_string).collect();
        assert_eq!(
            text[0],
            "Port 00: <Port in Use> at High Speed(480Mbps)\n       \
             Linux Foundation : Multifunction Composite Gadget (1d6b:0104)\n       \
             9-1 -> usbip://desk:3241/stick\\u{1b}\n           \
             -> remote bus/dev 001/002"
        );
        assert_eq!(
            text[1],
            "Port 01: <Port in Use> at High Speed(480Mbps)\n       \
             9-2 -> unknown host, remote port and remote busid\n           \
             -> remote bus/dev 001/002"
        );
    }

    /// The schema of docs/json.md.
    #[test]
    fn ports_in_json_have_the_fields_of_their_page() {
        let ports = rows(&kernel().vhci()).unwrap().into_iter().map(Row::into_json).collect();
        let value = serde_json::to_value(PortsJson::new(ports)).unwrap();
        assert_eq!(value["schema"], 1);
        let (first, second) = (&value["ports"][0], &value["ports"][1]);
        assert_eq!((&first["port"], &first["hub"]), (&0.into(), &"hs".into()));
        assert_eq!((&first["host"], &first["tcp_port"]), (&"desk".into(), &"3241".into()));
        assert_eq!((&first["state"], &first["name"]), (&"used".into(), &"stick\u{1b}".into()));
        assert_eq!(first["local"]["pid"], "0104");
        assert_eq!((&second["host"], &second["local"]), (&().into(), &().into()));
        for object in [first, &first["local"]] {
            let fields: Vec<&str> =
                object.as_object().unwrap().keys().map(String::as_str).collect();
            assert_fields_are_documented(&fields);
        }
    }
}
