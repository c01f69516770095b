//! An event in words for a program: the variables of its environment.
//!
//! Contract: plain data and pure functions.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use crate::config::hooks::Hook;
use crate::config::name::Nickname;
use crate::usb::DeviceInfo;
use crate::wire::types::BusId;

/// What the names of all variables begin with. Variables of the server with such names are not
/// passed on.
const PREFIX: &str = "USBFERRY_";

/// The facts of a device for its programs. Facts of the same device at another time differ by its
/// numbers, if the device was plugged in again meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// The name for clients.
    pub(crate) name: String,
    /// The place.
    pub(crate) busid: BusId,
    busnum: u8,
    devnum: u8,
    vendor: u16,
    product: u16,
    serial: String,
    description: String,
}

impl Facts {
    /// The facts of a device, which clients know by its nickname or its busid.
    pub(crate) fn new(info: &DeviceInfo, name: Option<Nickname>) -> Self {
        let busid = info.device.busid;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            name: name.map_or_else(|| busid.to_string(), |name| name.to_string()),
            busid,
            busnum: info.device.busnum,
            devnum: info.device.devnum,
            vendor: info.device.id_vendor,
            product: info.device.id_product,
            serial: text(&info.serial),
            description: text(&info.product),
        }
    }
}

/// An event of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) kind: Hook,
    pub(crate) facts: Facts,
    /// The client of an attach, a detach, a reset.
    pub(crate) client: Option<SocketAddr>,
    /// A word for the cause, one of the documented words.
    pub(crate) reason: &'static str,
}

impl Event {
    /// The address of the event's client.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.client.map(|client| client.ip().to_canonical())
    }

    /// The variables with their values. Each variable is always there, and empty without a fact.
    pub(super) fn variables(&self) -> [(&'static str, String); 11] {
        let Facts { name, busid, serial, description, .. } = &self.facts;
        let Facts { busnum, devnum, vendor, product, .. } = self.facts;
        let client = self.address().map(|address| address.to_string());
        [
            ("USBFERRY_EVENT", word(self.kind).to_owned()),
            ("USBFERRY_NAME", printable(name)),
            ("USBFERRY_BUSID", printable(&busid.to_string())),
            ("USBFERRY_BUSNUM", format!("{busnum:03}")),
            ("USBFERRY_DEVNUM", format!("{devnum:03}")),
            ("USBFERRY_VID", format!("{vendor:04x}")),
            ("USBFERRY_PID", format!("{product:04x}")),
            ("USBFERRY_SERIAL", printable(serial)),
            ("USBFERRY_PRODUCT", printable(description)),
            ("USBFERRY_CLIENT", client.unwrap_or_default()),
            ("USBFERRY_REASON", self.reason.to_owned()),
        ]
    }
}

/// What the names of variables begin with that a service manager has set for this process alone.
const MANAGERS: [&str; 4] = ["LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM"];

/// Variables of this process that no program gets.
pub(super) fn withheld() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    let begins = |name: &OsString, with: &str| name.as_encoded_bytes().starts_with(with.as_bytes());
    names.filter(move |name| {
        begins(name, PREFIX) || MANAGERS.into_iter().any(|manager| begins(name, manager))
    })
}

/// The event's word.
fn word(kind: Hook) -> &'static str {
    kind.key().trim_start_matches("on-")
}

/// A text of a device without characters that no reader can see, such as NUL, line breaks and
/// escape sequences.
fn printable(text: &str) -> String {
    let is_printable = |c: &char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
    text.chars().filter(is_printable).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An event of a device in place 1-1.
    pub(in crate::hooks) fn event(kind: Hook, busid: &str) -> Event {
        let facts = Facts {
            name: "stick".to_owned(),
            busid: BusId::new(busid).unwrap(),
            busnum: 1,
            devnum: 14,
            vendor: 0x0781,
            product: 0x5567,
            serial: "4C53\0; rm -rf /\n$(reboot)".to_owned(),
            description: "Cruzer \"Blade\"\u{1b}[31m \u{202e}\u{fc}".to_owned(),
        };
        let client = Some("[::ffff:192.0.2.7]:4000".parse().unwrap());
        Event { kind, facts, client, reason: "import" }
    }

    #[test]
    fn facts_are_values_without_invisible_characters() {
        let variables = event(Hook::Attach, "1-1").variables();
        let expected = [
            ("USBFERRY_EVENT", "attach"),
            ("USBFERRY_NAME", "stick"),
            ("USBFERRY_BUSID", "1-1"),
            ("USBFERRY_BUSNUM", "001"),
            ("USBFERRY_DEVNUM", "014"),
            ("USBFERRY_VID", "0781"),
            ("USBFERRY_PID", "5567"),
            ("USBFERRY_SERIAL", "4C53; rm -rf /$(reboot)"),
            ("USBFERRY_PRODUCT", "Cruzer \"Blade\"[31m \u{fc}"),
            ("USBFERRY_CLIENT", "192.0.2.7"),
            ("USBFERRY_REASON", "import"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_fact_that_is_not_known_is_an_empty_value() {
        let mut event = event(Hook::Arrive, "1-1");
        event.client = None;
        event.facts.serial.clear();
        let empty: Vec<_> = event.variables().into_iter().filter(|(_, v)| v.is_empty()).collect();
        let names: Vec<_> = empty.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["USBFERRY_SERIAL", "USBFERRY_CLIENT"]);
    }
}
