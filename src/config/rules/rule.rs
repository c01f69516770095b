//! A rule: which devices, under which name, for whom, on which terms.
//!
//! Contract: plain data and pure functions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::matching::{Ids, Match};
use crate::config::hooks::Hooks;
use crate::config::name::Nickname;
use crate::config::policy::Terms;
use crate::usb::DeviceInfo;

/// A rule about some devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The devices.
    pub matches: Match,
    /// The name that clients see and may ask for.
    pub name: Option<Nickname>,
    /// Whether the devices are exported.
    pub export: bool,
    /// The clients that may have the devices; `None` for every client that may connect.
    pub clients: Option<Clients>,
    /// The terms that differ from those of other devices.
    pub terms: Terms,
    /// Programs to run.
    pub hooks: Arc<Hooks>,
    /// Where the rule was written.
    pub origin: Origin,
}

impl Rule {
    /// A rule that exports devices to everybody on the usual terms.
    #[must_use]
    pub fn exporting(matches: Match, origin: Origin) -> Self {
        Self {
            matches,
            name: None,
            export: true,
            clients: None,
            terms: Terms::default(),
            hooks: Arc::default(),
            origin,
        }
    }

    /// A rule that keeps devices from being exported.
    #[must_use]
    pub fn excluding(matches: Match, origin: Origin) -> Self {
        Self { export: false, ..Self::exporting(matches, origin) }
    }

    /// Whether the rule decides about a device, if no rule before does. A device that came in over
    /// USB/IP is exported only where the device is named: else two servers that export everything
    /// to each other would do so in a circle.
    #[must_use]
    pub fn applies(&self, info: &DeviceInfo) -> bool {
        let is_meant = !info.imported || !self.export || self.matches.names_a_device();
        is_meant && self.matches.fits(info)
    }
}

impl Rule {
    /// Whether the rule is about a device that comes as several kinds.
    #[must_use]
    pub fn has_states(&self) -> bool {
        self.export && self.matches.ids.len() > 1
    }

    /// Whether a device is a state of the device `name` of this rule, if it has just come to the
    /// port where that device was: of a listed kind, whatever its serial number and drivers.
    #[must_use]
    pub(super) fn keeps(&self, info: &DeviceInfo, name: Nickname) -> bool {
        let Match { busid, ids, .. } = &self.matches;
        self.has_states()
            && self.name == Some(name)
            && !info.is_hub()
            && ids.contains(&Ids::of(info))
            && busid.is_none_or(|busid| info.device.busid == busid)
    }
}

/// Addresses of clients. Unlike [`Allowed`](super::Allowed), this machine itself must be listed,
/// too, as 127.0.0.1 or ::1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clients(pub Vec<IpNet>);

impl Clients {
    /// Whether the client at an address is among them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // A socket for both protocols shows IPv4 clients as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }
}

/// Where a rule was written, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An option of the command line, as typed.
    Flag(String),
    /// A line of a file.
    File {
        /// The file, as the user named the file.
        file: Arc<str>,
        /// Counted from one.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(text) => f.write_str(text),
            Self::File { file, line } => write!(f, "{file}:{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_those_listed_and_nobody_else() {
        let nets = ["192.168.4.0/24", "2001:db8::/32", "10.1.2.3/32"];
        let clients = Clients(nets.map(|net| net.parse().unwrap()).to_vec());
        for (address, expected) in [
            ("192.168.4.7", true),
            ("::ffff:192.168.4.7", true),
            ("2001:db8:1::1", true),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("2001:db9::1", false),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(clients.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!Clients::default().contains("127.0.0.1".parse().unwrap()));
    }
}
