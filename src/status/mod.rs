//! The state of a server at one moment, as plain data.
//!
//! The reactor fills a [`Snapshot`] on request
//! ([`StatusHandle::snapshot`](crate::reactor::StatusHandle::snapshot)). How a user reads it, as a
//! page, over a socket or as metrics, is the reader's part.
//!
//! Contract: plain data, owned by the reader; nothing in a snapshot changes or refers to the
//! server.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::config::name::Nickname;
use crate::stats::SessionStats;
use crate::wire::types::{BusId, DevId};

/// The state of a server at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Clients that are connected, with or without a device.
    pub clients: usize,
    /// Known devices, in the order of the last scan, whether or not clients may have them.
    pub exports: Vec<ExportStatus>,
    /// Devices on loan, in the order of their busids.
    pub loans: Vec<LoanStatus>,
}

/// A known device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportStatus {
    /// The device's busid.
    pub busid: BusId,
    /// The name that the device's rule gives, by which clients see the device and may ask for it.
    pub name: Option<Nickname>,
    /// Whether the last scan has found the device. A device that is gone is known until its client
    /// has returned the device.
    pub is_present: bool,
    /// Whether the rules offer the device to clients.
    pub is_offered: bool,
    /// The client that has the device, as in [`LoanStatus::client`].
    pub client: Option<SocketAddr>,
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
