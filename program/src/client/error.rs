//! Why a server gives no answer, or another than the wanted, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::wire::op::Refusal;
use crate::wire::op::client::ReplyError;
use crate::wire::types::BusId;
use crate::wire::{self, PORT};
use crate::words::{look_up_reason, reason, seconds};

/// Why a server gave no answer.
#[derive(Debug)]
pub struct ClientError {
    /// The server, as the user named it.
    pub host: String,
    /// The trouble.
    pub trouble: Trouble,
}

/// The trouble between a server and us.
#[derive(Debug)]
pub enum Trouble {
    /// The text names no host.
    NoHost,
    /// The address of the host can't be found.
    Unknown(io::Error),
    /// The host has no address.
    NoAddress,
    /// No connection can be made.
    Unreachable(io::Error),
    /// The server closed the connection before the first byte of an answer.
    Closed,
    /// No byte of an answer came within this time.
    Silent(Duration),
    /// The answer was not complete within this time.
    Slow(Duration),
    /// The server closed the connection within the answer.
    CutShort,
    /// The connection failed.
    Failed(io::Error),
    /// The answer is not USB/IP.
    Protocol(wire::Error),
    /// The server refuses.
    Refused(Refusal),
    /// The list has more devices than any machine.
    TooMany(u32),
    /// The server lends a device other than the requested.
    OtherDevice(BusId),
    /// The device's speed is none that USB has.
    Speed(u32),
    /// A reply in a session fits no request.
    Stray,
}

impl ClientError {
    /// The status of a refusal; none for any other trouble.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self.trouble {
            Trouble::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl From<ReplyError> for Trouble {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::Malformed(error) => Self::Protocol(error),
            ReplyError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl std::error::Error for ClientError {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.trouble {
            Trouble::NoHost => write!(
                f,
                "\"{host}\" is no host: give a name or an address, alone or with a port as in \
                 host:{PORT}"
            ),
            Trouble::Unknown(error) => write!(
                f,
                "can't resolve {host}: {}. Is the name right, and does this machine's name service \
                 know the name? Or give the address instead of the name",
                look_up_reason(error)
            ),
            Trouble::NoAddress => write!(f, "{host} has no address"),
            Trouble::Unreachable(error) => write!(
                f,
                "can't reach {host}: {}. Is a USB/IP server running there?",
                reason(error)
            ),
            answer => answer.tell_answer(f, host),
        }
    }
}

impl Trouble {
    /// The trouble with an answer, for a server that was reached.
    fn tell_answer(&self, f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
        match self {
            Self::Closed => write!(
                f,
                "{host} closed the connection: is this machine among its --allow? Or the program \
                 there is no USB/IP server"
            ),
            Self::Silent(time) => write!(
                f,
                "{host} said nothing for {}: is a USB/IP server running there?",
                seconds(*time)
            ),
            Self::Slow(time) => {
                write!(f, "the answer of {host} took more than {}", seconds(*time))
            }
            Self::CutShort => write!(f, "{host} closed before its answer was complete"),
            Self::Failed(error) => {
                write!(f, "the connection to {host} failed: {}", reason(error))
            }
            Self::Protocol(error) => {
                write!(f, "{host} does not answer as a USB/IP server: {error}")
            }
            Self::Refused(refusal) => write!(f, "{host} refused: {refusal}"),
            Self::TooMany(count) => write!(f, "{host} claims to export {count} devices"),
            Self::OtherDevice(busid) => {
                write!(f, "{host} lends another device than the requested: {busid}")
            }
            Self::Speed(speed) => {
                write!(f, "{host} names {speed} as the device's speed, which USB does not have")
            }
            Self::Stray => write!(f, "{host} breaks the protocol: a reply fits no request"),
            Self::NoHost | Self::Unknown(_) | Self::NoAddress | Self::Unreachable(_) => Ok(()),
        }
    }
}
