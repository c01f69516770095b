//! Why a server gives no answer, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::wire::op::Refusal;
use crate::wire::op::client::ReplyError;
use crate::wire::{self, PORT};
use crate::words::reason;

/// Why a server gave no answer.
#[derive(Debug)]
pub struct ClientError {
    /// The server, as the user named it.
    pub host: String,
    /// What went wrong.
    pub trouble: Trouble,
}

/// What went wrong between a server and us.
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
    /// The answer was not complete within this time.
    Slow(Duration),
    /// The connection failed within the answer.
    CutShort(io::Error),
    /// The answer is not USB/IP.
    Protocol(wire::Error),
    /// The server refuses.
    Refused(Refusal),
    /// The list has more devices than any machine.
    TooMany(u32),
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
                "the address of {host} can't be found: {}. Is the name right, and does this \
                 machine's name service know the name? Or give the address instead of the name",
                reason(error)
            ),
            Trouble::NoAddress => write!(f, "{host} has no address"),
            Trouble::Unreachable(error) => write!(
                f,
                "can't reach {host}: {}. Is a USB/IP server running there?",
                reason(error)
            ),
            Trouble::Closed => write!(
                f,
                "{host} closed the connection without an answer: the program there is no USB/IP \
                 server, or does not serve this machine's address (usbferry: --allow)"
            ),
            Trouble::Slow(time) => {
                write!(f, "{host} has not answered completely within {time:?}")
            }
            Trouble::CutShort(error) => {
                write!(f, "{host} does not answer as a USB/IP server: {}", reason(error))
            }
            Trouble::Protocol(error) => {
                write!(f, "{host} does not answer as a USB/IP server: {error}")
            }
            Trouble::Refused(refusal) => write!(f, "{host} refused: {refusal}"),
            Trouble::TooMany(count) => write!(f, "{host} claims to export {count} devices"),
        }
    }
}
