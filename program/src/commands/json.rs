//! The JSON of `--json`, with the schema of docs/json.md: each output is an object with the number
//! of the schema, on a line of its own.
//!
//! Contract: plain data. A field is never removed and never changes its meaning under the same
//! number; new fields may come.

use std::io::{self, Write};

use serde::Serialize;

use crate::names::Names;
use crate::wire::types::BusId;

/// The number of the schema.
pub(super) const SCHEMA: u32 = 1;

/// A running server's report or event, as the server has told it.
#[derive(Serialize)]
struct ReportJson<'a, R> {
    schema: u32,
    #[serde(flatten)]
    report: &'a R,
}

/// `usbferry list`.
#[derive(Serialize, Debug)]
pub(super) struct DevicesJson {
    schema: u32,
    /// The server, as typed; null for this machine.
    host: Option<String>,
    devices: Vec<DeviceJson>,
}

impl DevicesJson {
    pub(super) const fn new(host: Option<String>, devices: Vec<DeviceJson>) -> Self {
        Self { schema: SCHEMA, host, devices }
    }
}

/// `usbferry list --discover`.
#[derive(Serialize, Debug)]
pub(super) struct ExportersJson {
    schema: u32,
    exporters: Vec<ExporterJson>,
}

impl ExportersJson {
    pub(super) const fn new(exporters: Vec<ExporterJson>) -> Self {
        Self { schema: SCHEMA, exporters }
    }
}

/// A server on the network.
#[derive(Serialize, Debug)]
pub(super) struct ExporterJson {
    /// The name, as the server says.
    pub(super) name: String,
    /// Where clients reach the server, each as for `--remote`.
    pub(super) hosts: Vec<String>,
    /// The version of usbferry; null for another program.
    pub(super) version: Option<String>,
    /// The address of the metrics, if the server has metrics.
    pub(super) metrics: Option<String>,
    /// The exports; null for a server that does not answer.
    pub(super) devices: Option<Vec<DeviceJson>>,
    /// Why there is no answer.
    pub(super) error: Option<String>,
}

/// A group of targets, as Prometheus reads them from files and over HTTP.
#[derive(Serialize, Debug)]
pub(super) struct TargetJson {
    targets: [String; 1],
    labels: LabelsJson,
}

/// The labels of a target: those with `__meta_` are for Prometheus's configuration alone.
#[derive(Serialize, Debug)]
struct LabelsJson {
    exporter: String,
    #[serde(rename = "__meta_usbferry_version", skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

impl TargetJson {
    pub(super) const fn new(target: String, exporter: String, version: Option<String>) -> Self {
        Self { targets: [target], labels: LabelsJson { exporter, version } }
    }

    pub(super) fn into_target(self) -> String {
        let [target] = self.targets;
        target
    }
}

/// A device in the list.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct DeviceJson {
    pub(super) busid: String,
    #[serde(flatten)]
    pub(super) ids: IdsJson,
    pub(super) speed: &'static str,
    pub(super) classes: Vec<u8>,
    /// The device's place on its server, from a server.
    pub(super) path: Option<String>,
    /// The device's own words, for a device of this machine.
    pub(super) manufacturer: Option<String>,
    pub(super) product_name: Option<String>,
    pub(super) serial: Option<String>,
    /// Whether the device can be exported now, for a device of this machine.
    pub(super) exportable: Option<bool>,
    /// The client of a running usbferry, for a device of this machine that is lent.
    pub(super) lent_to: Option<String>,
    pub(super) lent_since: Option<String>,
    pub(super) notes: Vec<String>,
}

/// Vendor and product: four hexadecimal digits each, and the names of the repository.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct IdsJson {
    vid: String,
    pid: String,
    vendor: Option<String>,
    product: Option<String>,
}

impl IdsJson {
    pub(super) fn new(ids: (u16, u16)) -> Self {
        let Names { vendor, product } = Names::of(ids);
        Self { vid: format!("{:04x}", ids.0), pid: format!("{:04x}", ids.1), vendor, product }
    }
}

/// `usbferry port`.
#[cfg(target_os = "linux")]
#[derive(Serialize, Debug)]
pub(super) struct PortsJson {
    schema: u32,
    ports: Vec<PortJson>,
}

#[cfg(target_os = "linux")]
impl PortsJson {
    pub(super) const fn new(ports: Vec<PortJson>) -> Self {
        Self { schema: SCHEMA, ports }
    }
}

/// A port with a device.
#[cfg(target_os = "linux")]
#[derive(Serialize, Debug)]
pub(super) struct PortJson {
    pub(super) port: u32,
    pub(super) hub: &'static str,
    pub(super) state: &'static str,
    pub(super) speed: &'static str,
    /// The server, without its TCP port; null where nobody noted the origin.
    pub(super) host: Option<String>,
    pub(super) tcp_port: Option<String>,
    /// The device's name on the server.
    pub(super) name: Option<String>,
    pub(super) remote_bus: u32,
    pub(super) remote_address: u32,
    /// The device on this machine; null before the device has an address.
    pub(super) local: Option<LocalJson>,
}

/// An attached device on this machine.
#[cfg(target_os = "linux")]
#[derive(Serialize, Debug)]
pub(super) struct LocalJson {
    pub(super) busid: String,
    pub(super) bus: u32,
    pub(super) address: u32,
    #[serde(flatten)]
    pub(super) ids: IdsJson,
}

/// An event of `usbferry attach` or `usbferry detach`.
#[cfg(target_os = "linux")]
#[derive(Serialize, Debug)]
pub(super) struct EventJson {
    schema: u32,
    event: &'static str,
    host: Option<String>,
    name: Option<String>,
    port: u32,
}

#[cfg(target_os = "linux")]
impl EventJson {
    pub(super) fn new(
        event: &'static str,
        port: u32,
        host: Option<&str>,
        name: Option<&str>,
    ) -> Self {
        let [host, name] = [host, name].map(|text| text.map(str::to_owned));
        Self { schema: SCHEMA, event, host, name, port }
    }
}

/// A name of a device as the server sent the bytes; those that are no text are replaced.
pub(super) fn name(busid: BusId) -> String {
    String::from_utf8_lossy(busid.as_bytes()).into_owned()
}

/// Prints a value on a line of stdout.
///
/// # Errors
/// The output's.
pub(super) fn print(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Prints a running server's report or event.
///
/// # Errors
/// The output can't be written.
pub(super) fn print_report(report: &impl Serialize) -> io::Result<()> {
    print(&ReportJson { schema: SCHEMA, report })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::commands::list::tests::assert_fields_are_documented;

    #[test]
    fn an_event_in_json_has_the_fields_of_its_page() {
        let event = EventJson::new("attached", 3, Some("desk"), Some("stick"));
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"schema":1,"event":"attached","host":"desk","name":"stick","port":3}"#
        );
        assert_fields_are_documented(&["event", "host", "name", "port"]);
        let page = include_str!("../../../docs/json.md");
        for event in ["attached", "lost", "detached"] {
            assert!(page.contains(&format!("`{event}`")), "docs/json.md lacks {event}");
        }
    }
}
