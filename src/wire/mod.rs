//! The protocol's bytes: parsing of untrusted input, and replies for a trusting client's kernel.
//!
//! - [`types`]: seqnum, devid, busid, endpoint address, speed.
//! - [`op`]: the handshake, DEVLIST and IMPORT.
//! - [`watch`]: an extension of the handshake, news of a device.
//! - [`pdu`]: the 48-byte headers of CMD_SUBMIT, CMD_UNLINK and their replies.
//! - [`iso`]: the packet descriptors behind an isochronous URB.
//! - [`setup`]: the SETUP packet of a control transfer.
//! - [`status`]: Linux errno values.
//!
//! Contract: no panic on any input, no blocking, no knowledge of sockets or clocks. Only the
//! handshake ([`op`]) allocates, for its lists and names; PDUs are parsed and emitted in place.
//! Parsers take arrays of the exact length, so no length is checked twice. Integers are big-endian
//! unless a type says otherwise. Layouts: `Documentation/usb/usbip_protocol.rst`,
//! `drivers/usb/usbip/usbip_common.h`; where the two differ, the kernel's code is followed.

pub mod iso;
pub mod op;
pub mod pdu;
pub mod setup;
pub mod status;
pub mod types;
pub mod watch;

use std::fmt;

/// The TCP port that the IANA has given to USB/IP.
pub const PORT: u16 = 3240;

/// A peer's bytes without any possible answer: the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The handshake has a version other than 0x0111, the only known version.
    Version(u16),
    /// A request came with a status, which only replies have.
    RequestStatus(u32),
    /// An operation offered by no server.
    Operation(u16),
    /// A command that is not a client's.
    Command(u32),
    /// A direction other than 0 or 1.
    Direction(u32),
    /// An endpoint number above 15.
    Endpoint(u32),
    /// A negative transfer_buffer_length.
    Length(i32),
    /// More than 1024 isochronous packets, or less than none.
    Packets(i32),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version(version) => {
                write!(f, "protocol version {version:#06x} where only 0x0111 is spoken")
            }
            Self::RequestStatus(status) => {
                write!(f, "a request with status {status} where only 0 is valid")
            }
            Self::Operation(code) => write!(f, "unknown operation {code:#06x}"),
            Self::Command(command) => write!(f, "unknown command {command:#010x}"),
            Self::Direction(direction) => write!(f, "invalid direction {direction}"),
            Self::Endpoint(number) => write!(f, "invalid endpoint number {number}"),
            Self::Length(length) => write!(f, "invalid transfer_buffer_length {length}"),
            Self::Packets(count) => write!(f, "invalid number_of_packets {count}"),
        }
    }
}
