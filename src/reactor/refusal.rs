//! Why requests are refused: the one list of reasons, each with its status on the wire and its
//! words for the log.
//!
//! Contract: plain values.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::hooks::Failure;
use crate::limits::{ATTACHED_MAX, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT, SETTLE_MAX, WATCHES_MAX};
use crate::units::{Lasting, clock};
use crate::usb::OpenError;
use crate::wire::op::OpStatus;
use crate::words::{printable, reason};

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No device of the name is exported to the client.
    NotExported,
    /// Several devices have the name: these, in words.
    Ambiguous(String),
    /// Nobody knows whether there is a device of the name: a scan has not come back.
    NotScanned,
    /// Nobody knows of any device: a scan has failed.
    ScanFailed,
    /// An operator holds the device back, since then.
    Held(SystemTime),
    /// An operator has ended the import.
    Operator,
    /// Another client has the device, and has had the device for this time.
    Busy(SocketAddr, Duration),
    /// Another client was to give the device back, and has not done so.
    NotReturned,
    /// The device comes again and again before it has settled.
    Unsettled,
    /// Every place for an attached device is taken.
    Full,
    /// The client's address has as many devices as an address may have.
    AddressFull(IpAddr, usize),
    /// The program that authorizes imports, with this path, refuses this import, or has failed.
    Unauthorized(String, Failure),
    /// As many clients watch devices as may.
    TooManyWatches,
    /// The client's address has as many watches as an address may have.
    AddressWatches(IpAddr, usize),
    /// The system has no thread or memory for the device.
    NoThread(io::Error),
    /// The system can't watch the device.
    Unwatched(io::Error),
    /// The device can't be opened.
    Closed(OpenError),
    /// The device could not be opened in time.
    Slow,
    /// The device's worker has died.
    WorkerDied,
    /// The server stops.
    Stopping,
    /// The server is full, and the client had waited for longest.
    Displaced,
}

impl Refusal {
    /// The status for the client.
    pub(super) const fn status(&self) -> OpStatus {
        match self {
            Self::NotExported | Self::Ambiguous(_) => OpStatus::NoDevice,
            Self::Busy(..) | Self::NotReturned => OpStatus::DeviceBusy,
            Self::Closed(error) => error.status(),
            _ => OpStatus::NotAvailable,
        }
    }

    /// Whether the reason is of use to the client's user alone, and no sign of trouble here.
    pub(super) const fn is_ordinary(&self) -> bool {
        matches!(
            self,
            Self::NotExported
                | Self::Ambiguous(_)
                | Self::Held(_)
                | Self::Operator
                | Self::Busy(..)
                | Self::NotReturned
                | Self::Stopping
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExported => f.write_str("no such device is exported to this client"),
            Self::Ambiguous(candidates) => {
                write!(f, "several devices fit: {candidates}; ask for one by its place or serial")
            }
            Self::NotScanned => f.write_str(
                "no such device was there at the last scan, and a new scan does not come back",
            ),
            Self::ScanFailed => f.write_str("the devices of this machine are not known"),
            Self::Held(since) => write!(
                f,
                "an operator holds the device back since {}: \"usbferry release\" ends the hold",
                clock(*since)
            ),
            Self::Operator => f.write_str("an operator has ended the import"),
            Self::Busy(holder, since) => {
                write!(f, "busy: {holder} has had the device for {}", Lasting(*since))
            }
            Self::Unauthorized(path, failure) => {
                write!(f, "the program of on-attach, {}, {failure}", printable(path))
            }
            Self::NoThread(error) => {
                write!(f, "the system has no thread or memory for the device: {}", reason(error))
            }
            Self::Unwatched(error) => {
                write!(f, "the system can't watch the device: {}", reason(error))
            }
            Self::Closed(error) => error.fmt(f),
            Self::WorkerDied => f.write_str("a bug in usbferry; the log has the panic"),
            Self::Stopping => f.write_str("the server stops"),
            Self::NotReturned | Self::Unsettled | Self::Slow => self.tell_wait(f),
            Self::Full
            | Self::AddressFull(..)
            | Self::TooManyWatches
            | Self::AddressWatches(..)
            | Self::Displaced => self.tell_limit(f),
        }
    }
}

impl Refusal {
    /// What the client has waited for in vain.
    fn tell_wait(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReturned => write!(
                f,
                "busy: the client before has not given the device back within \
                 {HANDSHAKE_TIMEOUT:?}"
            ),
            Self::Unsettled => write!(
                f,
                "the device has not been present for as long as its rule says (settle) within \
                 {SETTLE_MAX:?}"
            ),
            _ => write!(
                f,
                "can't be opened within {OPEN_TIMEOUT:?}: the system holds the device, perhaps \
                 for an unanswered request. The device is busy until the system lets go"
            ),
        }
    }

    /// The limit that leaves the client no place.
    fn tell_limit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "{ATTACHED_MAX} devices are attached, the limit"),
            Self::AddressFull(address, most) => {
                write!(f, "{address} has {most} devices, the limit for an address")
            }
            Self::TooManyWatches => write!(f, "{WATCHES_MAX} clients watch devices, the limit"),
            Self::AddressWatches(address, most) => {
                write!(f, "{address} has {most} watches, the limit for an address")
            }
            _ => f.write_str("the server is full, and newer clients need the place"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_device_is_refused_with_its_holder_and_the_time() {
        let holder = "192.168.1.5:40000".parse().unwrap();
        let refusal = Refusal::Busy(holder, Duration::from_secs(125));
        assert_eq!(refusal.to_string(), "busy: 192.168.1.5:40000 has had the device for 2 min 5 s");
        assert_eq!(refusal.status(), OpStatus::DeviceBusy);
    }
}
