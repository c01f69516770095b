//! The settings of a server as plain data: where to listen, which clients may connect, which
//! devices are exported, and on which terms.
//!
//! - `rules`: which clients may connect, and which devices are exported to whom;
//! - `name`: the nickname of a device;
//! - `file`: the file of settings;
//! - `asked`: the device that a client asks for;
//! - `hooks`: programs that run at events of a device;
//! - `takeover`: when a client may take a device from another client;
//! - `policy`: the terms on which one device is lent;
//! - `value`: the values that settings may have, as typed.
//!
//! The command line fills [`Settings`] and the reactor follows them; this part of the crate knows
//! neither.
//!
//! Contract: plain data and pure functions.

pub mod asked;
pub mod file;
pub mod hooks;
pub mod name;
pub mod policy;
pub mod rules;
mod takeover;
pub(crate) mod value;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{BUSY_POLL_DEFAULT, CONNECTIONS_MAX, PEER_TIMEOUT_DEFAULT};
use crate::usb::DeviceInfo;
pub use policy::Policy;
use rules::{Allowed, Rules, Verdict};
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
    /// Clients at once.
    pub connections: usize,
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
            connections: CONNECTIONS_MAX,
        }
    }
}

impl Settings {
    /// What the rules say about a device.
    #[must_use]
    pub fn verdict(&self, device: &DeviceInfo) -> Verdict {
        self.rules.judge(device, self.policy)
    }
}
