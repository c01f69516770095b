//! A device as the last scan has found it, and how a scan differs from the scan before.
//!
//! Contract: plain data; part of the reactor's thread.

use std::fmt;
use std::time::Instant;

use crate::config::Settings;
use crate::config::name::Nickname;
use crate::config::rules::Verdict;
use crate::status::Texts;
use crate::usb::{Candidate, DeviceInfo};
use crate::wire::op::UsbDevice;
use crate::wire::types::BusId;

/// A device in the last scan, and the rules' verdict on the device.
pub(super) struct Found<C> {
    pub(super) candidate: C,
    /// The device as seen last without a client: a loan takes the drivers away, and rules may go by
    /// drivers.
    pub(super) judged: DeviceInfo,
    /// The name of the device in another state, in the same port a moment before.
    pub(super) name_before: Option<Nickname>,
    /// When the device has come; `None` for a device of the first scan, which may have been there
    /// for long.
    since: Option<Instant>,
    pub(super) verdict: Verdict,
}

/// How a scan differs from the scan before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A device is new.
    Arrived(BusId),
    /// A device is gone.
    Left(BusId),
    /// Another device is in the place, or the same with another number.
    Replaced(BusId),
}

impl<C: Candidate> Found<C> {
    /// Applies the rules to a new device.
    pub(super) fn new(
        candidate: C,
        name_before: Option<Nickname>,
        since: Option<Instant>,
        settings: &Settings,
    ) -> Self {
        let judged = candidate.info().clone();
        let verdict = settings.verdict_in_place(&judged, name_before);
        Self { candidate, judged, name_before, since, verdict }
    }

    /// When the device has been present for as long as its rule says; `None` by now.
    pub(super) fn settles(&self, now: Instant) -> Option<Instant> {
        self.since.map(|since| since + self.verdict.policy.settle).filter(|&at| now < at)
    }

    /// The device's own words.
    pub(super) fn texts(&self) -> Texts {
        let DeviceInfo { manufacturer, product, serial, .. } = &self.judged;
        Texts {
            manufacturer: manufacturer.clone(),
            product: product.clone(),
            serial: serial.clone(),
        }
    }

    /// idVendor and idProduct.
    pub(super) const fn ids(&self) -> (u16, u16) {
        (self.judged.device.id_vendor, self.judged.device.id_product)
    }

    /// Whether a candidate is this device, and no other in its place.
    pub(super) fn is(&self, candidate: &C) -> bool {
        identity(&self.judged.device) == identity(&candidate.info().device)
    }

    /// Applies the rules to the same device of a later scan; `is_lent`: a client has the device.
    pub(super) fn seen_again(self, candidate: C, is_lent: bool, settings: &Settings) -> Self {
        let judged = if is_lent { self.judged } else { candidate.info().clone() };
        let verdict = settings.verdict_in_place(&judged, self.name_before);
        Self { candidate, judged, verdict, ..self }
    }
}

/// The difference between a device and another device in its place.
const fn identity(device: &UsbDevice) -> (u8, u8, u16, u16) {
    (device.busnum, device.devnum, device.id_vendor, device.id_product)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrived(busid) => write!(f, "{busid}: plugged in"),
            Self::Left(busid) => write!(f, "{busid}: unplugged"),
            Self::Replaced(busid) => write!(f, "{busid}: plugged in anew"),
        }
    }
}
