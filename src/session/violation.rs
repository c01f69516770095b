//! PDUs outside of the protocol, in the words of the log.
//!
//! Contract: plain data. A violation is made at most once in a session.

use std::fmt;

use crate::wire;
use crate::wire::types::{DevId, SeqNum};

/// Why a client's connection can't go on: bytes outside the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Violation {
    /// A header never sent by a client.
    Wire(wire::Error),
    /// A PDU for another device than the imported device.
    WrongDevice(DevId),
    /// A SUBMIT with the seqnum of a URB still in flight.
    DuplicateSeqnum(SeqNum),
    /// OUT data longer than the largest accepted URB.
    TooLong(u32),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => fmt::Display::fmt(error, f),
            Self::WrongDevice(devid) => {
                write!(f, "a PDU for device {devid}, not for the imported device")
            }
            Self::DuplicateSeqnum(seqnum) => {
                write!(f, "a second SUBMIT {seqnum} while the first has not ended")
            }
            Self::TooLong(len) => write!(
                f,
                "an OUT transfer of {len} bytes, more than --urb-size allows; a larger one may help"
            ),
        }
    }
}

impl From<wire::Error> for Violation {
    fn from(error: wire::Error) -> Self {
        Self::Wire(error)
    }
}
