//! Why connections end: the one list of reasons, in the words of the log.
//!
//! Contract: plain values.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::session::Violation;
use crate::wire;
use crate::words::reason;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed the connection.
    Closed,
    /// The system reports a broken connection.
    Socket(io::Error),
    /// The handshake is not USB/IP's.
    Handshake(wire::Error),
    /// The client sends something behind the name of the device that it watches.
    TooMuch,
    /// The bytes behind the handshake are not the protocol.
    Violation(Violation),
    /// The handshake, or writing the last bytes of a reply, took too long.
    TimedOut,
    /// The client accepted no byte for too long.
    Stalled,
    /// The server was full, and this client had been without a device for longest.
    Displaced,
    /// Another client took the device.
    TakenOver(SocketAddr),
    /// The client's device is gone.
    DeviceGone,
    /// Everything is answered, and the client needs nothing more.
    Answered,
    /// The client had to part from its device.
    Parted(Parting),
    /// The settings do not allow the client any more.
    NotAllowed,
    /// The device's worker has died, and the client no longer has the device.
    WorkerDied,
}

/// Why a client has to part from its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parting {
    /// The server stops.
    Stop,
    /// The settings, read again, do not let the client have the device.
    Reload,
    /// An operator ends the session.
    Operator,
}

impl End {
    /// A word for programs, which the documentation lists.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Socket(_) => "lost",
            Self::Handshake(_) | Self::TooMuch | Self::Violation(_) => "protocol",
            Self::TimedOut | Self::Stalled => "timeout",
            Self::Displaced => "full",
            Self::TakenOver(_) => "taken-over",
            Self::DeviceGone | Self::Answered => "gone",
            Self::Parted(Parting::Stop) => "stop",
            Self::Parted(Parting::Reload) | Self::NotAllowed => "rules",
            Self::Parted(Parting::Operator) => "operator",
            Self::WorkerDied => "failed",
        }
    }

    /// Whether the end is the fault of a client, or of too many clients.
    pub(super) const fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Handshake(_)
                | Self::TooMuch
                | Self::Violation(_)
                | Self::TimedOut
                | Self::Displaced
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the client"),
            Self::Socket(error) => write!(f, "connection lost: {}", reason(error)),
            Self::Handshake(error) => write!(f, "not a USB/IP request: {error}"),
            Self::TooMuch => f.write_str("sends more than the name of a device to watch"),
            Self::Violation(violation) => write!(f, "protocol violation: {violation}"),
            Self::TimedOut => f.write_str("no complete request in time"),
            Self::Stalled => f.write_str("the client reads nothing (see --peer-timeout)"),
            Self::Displaced => {
                f.write_str("closed for newer clients: no device yet, and the server is full")
            }
            Self::TakenOver(by) => write!(f, "{by} takes over (see --take-over)"),
            Self::DeviceGone => f.write_str("the client's device is gone"),
            Self::Answered => f.write_str("done"),
            Self::Parted(Parting::Stop) => f.write_str("the server stops"),
            Self::Parted(Parting::Reload) => {
                f.write_str("the settings, read again, do not let the client have the device")
            }
            Self::Parted(Parting::Operator) => f.write_str("an operator ends the session"),
            Self::NotAllowed => {
                f.write_str("the settings, read again, do not let the client connect")
            }
            Self::WorkerDied => {
                f.write_str("its worker died from a bug in usbferry; the log has the panic")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_told_in_words_alone() {
        let end = End::Socket(io::Error::from_raw_os_error(104)).to_string();
        assert!(end.starts_with("connection lost: ") && !end.contains("os error"), "{end}");
    }
}
