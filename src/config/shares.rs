//! The share of the server that a single address may have.
//!
//! Contract: plain data and pure functions.

use std::net::IpAddr;

use crate::limits::{ACCEPTS_PER_SECOND, SESSIONS_PER_ADDRESS_MAX, WATCHES_PER_ADDRESS_MAX};

/// The most that clients at the same address may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    /// Devices at once.
    pub sessions: usize,
    /// Watches of devices at once.
    pub watches: usize,
    /// Connections accepted within a second.
    pub accepts_per_second: u32,
    /// Whether the shares hold for loopback addresses, too. Over `ssh -R` every client has the
    /// address 127.0.0.1, so by default these clients share no share.
    pub of_loopback: bool,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            sessions: SESSIONS_PER_ADDRESS_MAX,
            watches: WATCHES_PER_ADDRESS_MAX,
            accepts_per_second: ACCEPTS_PER_SECOND,
            of_loopback: false,
        }
    }
}

impl Shares {
    /// Whether the shares hold for clients at an address.
    #[must_use]
    pub fn hold_for(&self, address: IpAddr) -> bool {
        self.of_loopback || !address.to_canonical().is_loopback()
    }
}
