//! The terms on which a device is lent.
//!
//! Contract: plain data and pure functions.

use std::time::Duration;

use super::TakeOver;
use crate::limits::DeviceLimits;

/// The terms on which one device is lent to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Resources for a session with the device.
    pub limits: DeviceLimits,
    /// When a client may take the device from another client.
    pub takeover: TakeOver,
    /// Reset the device when a client gives it back, as the kernel's own server does.
    pub reset_on_release: bool,
    /// Reset the device before a client gets it.
    pub reset_on_import: bool,
    /// The configuration (bConfigurationValue) in which a client gets the device; `None` leaves the
    /// device as found.
    pub configuration: Option<u8>,
    /// For how long the device must have been present before a client gets it.
    pub settle: Duration,
}

/// The terms of a rule: `None` for whatever is as for every other device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// URB slots.
    pub urbs: Option<usize>,
    /// Bytes of buffer memory.
    pub memory: Option<usize>,
    /// Bytes to map from the device.
    pub device_memory: Option<usize>,
    /// Bytes of the largest URB.
    pub urb_len: Option<usize>,
    /// As in [`Policy`].
    pub takeover: Option<TakeOver>,
    /// As in [`Policy`].
    pub reset_on_release: Option<bool>,
    /// As in [`Policy`].
    pub reset_on_import: Option<bool>,
    /// As in [`Policy`].
    pub configuration: Option<u8>,
    /// As in [`Policy`].
    pub settle: Option<Duration>,
}

impl Terms {
    /// The terms where these say something, and the usual terms elsewhere.
    #[must_use]
    pub fn over(&self, usual: Policy) -> Policy {
        let limits = DeviceLimits {
            urbs: self.urbs.unwrap_or(usual.limits.urbs),
            memory: self.memory.unwrap_or(usual.limits.memory),
            device_memory: self.device_memory.unwrap_or(usual.limits.device_memory),
            urb_len: self.urb_len.unwrap_or(usual.limits.urb_len),
        };
        Policy {
            limits,
            takeover: self.takeover.unwrap_or(usual.takeover),
            reset_on_release: self.reset_on_release.unwrap_or(usual.reset_on_release),
            reset_on_import: self.reset_on_import.unwrap_or(usual.reset_on_import),
            configuration: self.configuration.or(usual.configuration),
            settle: self.settle.unwrap_or(usual.settle),
        }
    }
}
