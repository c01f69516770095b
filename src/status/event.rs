//! Events of a server, for operators that follow them.
//!
//! Contract: plain data.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::config::name::Nickname;
use crate::stats::EndpointStats;
use crate::wire::types::BusId;

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A device was found.
    Arrive,
    /// A device is gone.
    Leave,
    /// A client got a device.
    Attach,
    /// A client lost its device, or gave the device back.
    Detach,
    /// A device has no client any more, and the next client can have the device.
    Free,
    /// A device was reset for its client.
    Reset,
    /// An operator holds a device back.
    Hold,
    /// An operator holds a device back no more.
    Release,
}

impl EventKind {
    /// The word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Arrive => "arrive",
            Self::Leave => "leave",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Free => "free",
            Self::Reset => "reset",
            Self::Hold => "hold",
            Self::Release => "release",
        }
    }
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What has happened.
    pub kind: EventKind,
    /// When, by the system's clock.
    pub time: SystemTime,
    /// The place of the device; `None` for the release of a device that is gone.
    pub busid: Option<BusId>,
    /// The name that the rules give.
    pub name: Option<Nickname>,
    /// idVendor and idProduct.
    pub ids: Option<(u16, u16)>,
    /// The device's serial number, any text.
    pub serial: Option<String>,
    /// The client.
    pub client: Option<SocketAddr>,
    /// The cause, a word for programs as in docs/hooks.md.
    pub reason: Option<&'static str>,
    /// The work of the session that has ended.
    pub work: Option<Work>,
}

/// The work of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// URBs that the device has ended.
    pub urbs: u64,
    /// Bytes from the device.
    pub bytes_in: u64,
    /// Bytes to the device.
    pub bytes_out: u64,
}

impl From<EndpointStats> for Work {
    fn from(stats: EndpointStats) -> Self {
        Self { urbs: stats.urbs, bytes_in: stats.bytes_in, bytes_out: stats.bytes_out }
    }
}

impl Event {
    /// An event of which nothing else is known, not even the time.
    pub(crate) const fn new(kind: EventKind) -> Self {
        Self {
            kind,
            time: SystemTime::UNIX_EPOCH,
            busid: None,
            name: None,
            ids: None,
            serial: None,
            client: None,
            reason: None,
            work: None,
        }
    }

    /// An event of a device.
    pub(crate) fn of(kind: EventKind, busid: BusId) -> Self {
        Self { busid: Some(busid), ..Self::new(kind) }
    }
}
