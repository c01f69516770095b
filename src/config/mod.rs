//! What a server is told to do, as plain data: where to listen, who may connect, what is exported
//! and on which terms.
//!
//! - `rules`: who may connect, and which devices are exported;
//! - `takeover`: who may take a device from the client that has it;
//! - `policy`: the terms on which one device is lent;
//! - `value`: the values that settings may have, as they are typed.
//!
//! The command line fills [`Settings`] and the reactor goes by them; nothing here knows either.
//!
//! Contract: plain data and pure functions.

mod policy;
pub mod rules;
mod takeover;
pub(crate) mod value;

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::{BUSY_POLL_DEFAULT, CONNECTIONS_MAX, PEER_TIMEOUT_DEFAULT};
use crate::usb::DeviceInfo;
pub use policy::Policy;
use rules::{Allowed, Selection};
pub use takeover::TakeOver;
pub use value::ValueError;

/// Where to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// A machine without this protocol is no error.
    pub optional: bool,
}

/// How the server is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Who may connect beside this machine itself.
    pub allowed: Allowed,
    /// What it exports.
    pub selection: Selection,
    /// The terms on which each device is lent.
    pub policy: Policy,
    /// Bytes of each buffer of a client's socket; the system's choice unless it is set.
    pub socket_buffer: Option<usize>,
    /// How long to look again and again before sleeping, where that pays.
    pub busy_poll: Duration,
    /// How long a client may show no sign of life, or accept no byte.
    pub peer_timeout: Duration,
    /// Clients at once.
    pub connections: usize,
}

impl Default for Settings {
    /// A server that listens nowhere and exports nothing, tuned as by default.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            allowed: Allowed::default(),
            selection: Selection::default(),
            policy: Policy::default(),
            socket_buffer: None,
            busy_poll: BUSY_POLL_DEFAULT,
            peer_timeout: PEER_TIMEOUT_DEFAULT,
            connections: CONNECTIONS_MAX,
        }
    }
}

impl Settings {
    /// The terms on which this device is lent.
    #[must_use]
    pub const fn policy_for(&self, _device: &DeviceInfo) -> Policy {
        self.policy
    }
}
