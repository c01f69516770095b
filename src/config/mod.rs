//! The settings of a server as plain data: where to listen, which clients may connect, which
//! devices are exported, and on which terms.
//!
//! - `listen`: where to listen, as typed;
//! - `rules`: which clients may connect, and which devices are exported to whom;
//! - `name`: the nickname of a device;
//! - `file`: the file of settings;
//! - `asked`: the device that a client asks for;
//! - `hooks`: programs that run at events of a device;
//! - `meaning`: the meaning of the rules for the devices that are there, in words;
//! - `takeover`: when a client may take a device from another client;
//! - `policy`: the terms on which one device is lent;
//! - `udev`: the rules as rules of udev;
//! - `shares`: the share of the server that an address may have;
//! - `socket`: the socket of operators;
//! - `value`: the values that settings may have, as typed.
//!
//! The command line fills [`Settings`] and the reactor follows them; this part of the crate knows
//! neither.
//!
//! Contract: plain data and pure functions.

pub mod asked;
pub mod file;
pub mod hooks;
pub mod listen;
pub mod meaning;
pub mod name;
pub mod policy;
pub mod rules;
mod shares;
pub mod socket;
mod takeover;
pub mod udev;
pub mod value;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::{BUSY_POLL_DEFAULT, CONNECTIONS_MAX, IDLE_AFTER, PEER_TIMEOUT_DEFAULT};
use crate::usb::DeviceInfo;
use name::Nickname;
pub use policy::Policy;
use rules::{Allowed, Rule, Rules, Verdict};
pub use shares::Shares;
pub use socket::OperatorSocket;
pub use takeover::TakeOver;
pub use value::ValueError;

/// The networks of this machine's own clients, who may always connect.
const LOOPBACK: [IpNet; 2] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];

/// Where to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// A machine without this protocol is no error.
    pub optional: bool,
}

impl Listen {
    /// Whether clients of a network can reach the address: `[::]` takes clients over IPv4, too.
    fn is_reached_from(&self, network: &IpNet) -> bool {
        let address = self.address.ip();
        match network {
            IpNet::V4(_) if address == Ipv6Addr::UNSPECIFIED => true,
            IpNet::V4(_) => address.is_ipv4() && !address.is_loopback(),
            IpNet::V6(_) => address.is_ipv6() && !address.is_loopback(),
        }
    }
}

/// The web server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Http {
    /// Addresses to listen on; none without a web server.
    pub listen: Vec<Listen>,
    /// The name of this machine in the settings, by which clients may ask.
    pub name: Option<String>,
}

/// The capture of all URBs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capturing {
    /// The file, or the FIFO.
    pub path: PathBuf,
    /// Bytes of the capture; without a value the file grows.
    pub size: Option<u64>,
    /// The most bytes of data of a URB in the capture.
    pub snap_len: usize,
}

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file of settings, as the user named the file, if there is a file.
    pub file: Option<Arc<str>>,
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Clients that may connect beside this machine itself.
    pub allowed: Allowed,
    /// The devices to export.
    pub rules: Rules,
    /// The terms on which a device is lent, where its rule says nothing else.
    pub policy: Policy,
    /// Bytes of each buffer of a client's socket; `None` leaves the size to the system.
    pub socket_buffer: Option<usize>,
    /// The time to look for work before sleeping, where looking pays.
    pub busy_poll: Duration,
    /// The time without a sign of life, or with no byte accepted, after which a client is dropped.
    pub peer_timeout: Duration,
    /// The time without input after which a session gives memory back; users have no setting.
    pub idle_after: Duration,
    /// The capture of all URBs, if wanted.
    pub capture: Option<Capturing>,
    /// Recordings that simulated devices play, into which no capture writes.
    pub recordings: Vec<PathBuf>,
    /// Clients at once.
    pub connections: usize,
    /// The most that an address may have.
    pub shares: Shares,
    /// The socket of operators.
    pub operators: OperatorSocket,
    /// The web server.
    pub http: Http,
    /// Announce the server on its networks.
    pub advertise: bool,
}

impl Default for Settings {
    /// A server without an address and without exports, with the default tuning.
    fn default() -> Self {
        Self {
            file: None,
            listen: Vec::new(),
            allowed: Allowed::default(),
            rules: Rules::default(),
            policy: Policy::default(),
            socket_buffer: None,
            busy_poll: BUSY_POLL_DEFAULT,
            peer_timeout: PEER_TIMEOUT_DEFAULT,
            idle_after: IDLE_AFTER,
            capture: None,
            recordings: Vec::new(),
            connections: CONNECTIONS_MAX,
            shares: Shares::default(),
            operators: OperatorSocket::default(),
            http: Http::default(),
            advertise: false,
        }
    }
}

impl Settings {
    /// The networks of `--allow` from which no client can reach an address to listen on. This
    /// machine itself needs no `--allow` and can always reach an address.
    #[must_use]
    pub fn idle_networks(&self) -> Vec<IpNet> {
        let networks = self.allowed.0.iter().filter(|network| !network.addr().is_loopback());
        let is_idle = |network: &&IpNet| !self.listen.iter().any(|l| l.is_reached_from(network));
        networks.filter(is_idle).copied().collect()
    }

    /// The networks in the `clients` of rules from which no client may connect at all, each with
    /// its rule: whoever has a device must be among the clients of `--allow`, too.
    pub fn shut_out(&self) -> impl Iterator<Item = (&Rule, IpNet)> {
        let overlap = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
        let may_connect = move |network: &IpNet| {
            let mut open = LOOPBACK.iter().chain(&self.allowed.0);
            open.any(|allowed| overlap(allowed, network))
        };
        let exporting = self.rules.iter().filter(|rule| rule.export);
        exporting.flat_map(move |rule| {
            let networks = rule.clients.iter().flat_map(|clients| &clients.0);
            networks.filter(move |net| !may_connect(net)).map(move |&network| (rule, network))
        })
    }

    /// What the rules say about a device.
    #[must_use]
    pub fn verdict(&self, device: &DeviceInfo) -> Verdict {
        self.verdict_in_place(device, None)
    }

    /// What the rules say about a device, in the port where the device called `before` was a moment
    /// ago.
    #[must_use]
    pub fn verdict_in_place(&self, device: &DeviceInfo, before: Option<Nickname>) -> Verdict {
        self.rules.judge_in_place(device, before, self.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::FileSettings;

    #[test]
    fn clients_of_a_rule_that_may_not_connect_are_known() {
        let file = "allow = [\"10.0.0.0/8\", \"fd00::5\"]\n[[rule]]\nclients = [\"127.0.0.1\", \
                    \"::1\", \"10.1.0.0/16\", \"0.0.0.0/0\", \"fd00::/8\"]\n[[rule]]\nclients = \
                    [\"192.168.1.0/24\", \"10.0.0.1\", \"fe80::/64\"]\n[[rule]]\nexport = false\n\
                    clients = \"192.168.1.0/24\"\n[[rule]]\n";
        let file = FileSettings::read("f", file).unwrap();
        let (rules, allowed) = (Rules::new(file.rules), Allowed(file.allow.unwrap()));
        let settings = Settings { rules, allowed, ..Settings::default() };
        let found = settings.shut_out().map(|(rule, net)| format!("{} {net}", rule.origin));
        assert_eq!(found.collect::<Vec<_>>(), ["f:4 192.168.1.0/24", "f:4 fe80::/64"]);
    }

    #[test]
    fn a_network_is_idle_where_no_address_can_be_reached_from_there() {
        let (v4, v6) = ("192.168.1.0/24", "fd00::/8");
        let own = ["127.0.0.1:3240", "[::1]:3240"];
        for (listen, idle) in [
            (&own[..], &[v4, v6][..]),
            (&["0.0.0.0:3240"], &[v6]),
            (&["192.168.1.5:3240", "[::1]:3240"], &[v6]),
            (&["[fd00::5]:3240"], &[v4]),
            (&["[::]:3240"], &[]),
            (&["0.0.0.0:3240", "[::]:3240"], &[]),
        ] {
            let listen = listen.iter().map(|address| address.parse().unwrap());
            let listen = listen.map(|address| Listen { address, optional: false }).collect();
            let networks = [v4, v6, "127.0.0.0/8"].map(|network| network.parse().unwrap());
            let allowed = Allowed(networks.to_vec());
            let settings = Settings { listen, allowed, ..Settings::default() };
            let found: Vec<String> =
                settings.idle_networks().iter().map(IpNet::to_string).collect();
            assert_eq!(found, idle, "{:?}", settings.listen);
        }
    }
}
