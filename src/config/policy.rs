//! The terms on which a device is lent.
//!
//! Contract: plain data.

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
}
