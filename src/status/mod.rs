//! The state of a server at one moment, as plain data.
//!
//! The reactor fills a [`Snapshot`] on request
//! ([`StatusHandle::snapshot`](crate::reactor::StatusHandle::snapshot)). How a user reads it, as a
//! page, over a socket or as metrics, is the reader's part. [`event`] has the changes from one
//! moment to the next, as operators follow them.
//!
//! Contract: plain data, owned by the reader; nothing in a snapshot changes or refers to the
//! server.

pub mod event;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::name::Nickname;
use crate::stats::SessionStats;
use crate::wire::types::{BusId, DevId};

/// What does not change of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerStatus {
    /// When the server was started, by the system's clock.
    pub started: SystemTime,
    /// The addresses of the listeners.
    pub addresses: Vec<SocketAddr>,
}

/// The state of a server at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// How far the server is.
    pub phase: Phase,
    /// Connections so far.
    pub connections: Connections,
    /// Clients that are connected, with or without a device.
    pub clients: usize,
    /// Known devices, in the order of the last scan, whether or not clients may have them.
    pub exports: Vec<ExportStatus>,
    /// Devices on loan, in the order of their busids.
    pub loans: Vec<LoanStatus>,
    /// Devices that operators hold back, in the order of the holds, also where no such device is
    /// there now.
    pub holds: Vec<HoldStatus>,
    /// Captures, in the order of their beginning.
    pub captures: Vec<CaptureStatus>,
}

/// A capture of URBs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureStatus {
    /// The file, or the name that the operator has given.
    pub file: PathBuf,
    /// The name of the devices that are captured; `None` for all.
    pub device: Option<String>,
    /// Since when, by the system's clock.
    pub since: SystemTime,
    /// The most bytes of data of a URB.
    pub snap_len: usize,
    /// Bytes of the capture, if limited.
    pub size: Option<u64>,
    /// URBs whose end is in the capture.
    pub urbs: u64,
    /// URBs whose end is not in the capture.
    pub dropped: u64,
    /// SUBMITs that are not in the capture.
    pub submissions_dropped: u64,
    /// Bytes written.
    pub bytes: u64,
    /// How far the capture is.
    pub state: CaptureState,
}

/// How far a capture is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaptureState {
    /// Records are written.
    Writing,
    /// Nobody reads the stream.
    Waiting,
    /// Nothing more can be written, for a reason in words.
    Failed(String),
}

/// How far a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// The first look for devices is not over.
    #[default]
    Starting,
    /// Clients are served.
    Serving,
    /// The devices are given back, and then the server ends.
    Stopping,
}

impl Phase {
    /// The word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
        }
    }
}

/// Connections since the start of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Connections {
    /// Accepted.
    pub accepted: u64,
    /// Closed at once, since `--allow` does not have the client's address.
    pub not_allowed: u64,
    /// Closed at once, since the client's address had connected too often.
    pub too_often: u64,
    /// Closed, since as many clients were connected as may.
    pub full: u64,
}

/// A device that an operator holds back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldStatus {
    /// The text by which the device is held back, and released.
    pub name: String,
    /// Since when, by the system's clock.
    pub since: SystemTime,
}

/// A known device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportStatus {
    /// The device's busid.
    pub busid: BusId,
    /// The name that the device's rule gives, by which clients see the device and may ask for it.
    pub name: Option<Nickname>,
    /// idVendor and idProduct; `None` for a device that is gone.
    pub ids: Option<(u16, u16)>,
    /// The device's own words.
    pub texts: Texts,
    /// Whether the last scan has found the device. A device that is gone is known until its client
    /// has returned the device.
    pub is_present: bool,
    /// Whether the rules offer the device to clients.
    pub is_offered: bool,
    /// Whether the rules offer the device to every client that may connect.
    pub is_for_all: bool,
    /// Whether a program is asked before a client gets the device.
    pub asks_program: bool,
    /// Whether an operator holds the device back.
    pub is_held: bool,
    /// The client that has the device, as in [`LoanStatus::client`].
    pub client: Option<SocketAddr>,
}

/// A device's own words, as far as the system knows them. Any text is possible.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Texts {
    /// iManufacturer's text.
    pub manufacturer: Option<String>,
    /// iProduct's text.
    pub product: Option<String>,
    /// iSerialNumber's text.
    pub serial: Option<String>,
}

/// A device on loan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoanStatus {
    /// The device.
    pub busid: BusId,
    /// The client's address.
    pub client: SocketAddr,
    /// Whether the client is still connected.
    pub is_connected: bool,
    /// How far the loan is.
    pub state: LoanState,
    /// The client's session with the device, in [`LoanState::Lent`] and until all transfers in
    /// flight have ended.
    pub session: Option<SessionStatus>,
}

/// How far a loan is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoanState {
    /// The device is being opened.
    Opening,
    /// The client has the device.
    Lent,
    /// The client no longer has the device, which is being given back.
    Returning,
    /// The device rests after a client that broke the protocol.
    Resting,
}

/// A client's session with a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    /// The device in each PDU.
    pub devid: DevId,
    /// When the client got the device, by the system's clock.
    pub since: SystemTime,
    /// Counters of the session and of each endpoint, slots and buffers in use.
    pub stats: SessionStats,
}
