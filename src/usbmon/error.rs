//! Why a file is no recording of USB, in words for a user.
//!
//! Contract: plain data.

use std::fmt;

use super::Fault;

/// Why a file is no recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordingError {
    /// The file is neither pcapng nor pcap.
    Format,
    /// The file ends, or makes no sense, behind this many packets.
    Block(u64),
    /// A packet belongs to no interface of the file.
    Interface(u64),
    /// A packet is of another link type.
    LinkType {
        /// The packet's number.
        number: u64,
        /// The link type.
        link_type: u32,
    },
    /// A packet is no record of usbmon.
    Packet {
        /// The packet's number.
        number: u64,
        /// Its fault.
        fault: PacketFault,
    },
    /// More packets than are read.
    TooMany(u64),
}

/// The fault of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketFault(pub(super) Fault);

impl std::error::Error for RecordingError {}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str(
                "the file is neither pcapng nor pcap; record with usbferry serve --capture, or with \
                 Wireshark or tcpdump on usbmon",
            ),
            Self::Block(0) => f.write_str("the file has no packet that can be read"),
            Self::Block(number) => {
                write!(f, "the file makes no sense behind packet {number}: it is cut or damaged")
            }
            Self::Interface(number) => {
                write!(f, "packet {number} belongs to no interface of the file")
            }
            Self::LinkType { number, link_type } => write!(
                f,
                "packet {number} is not from usbmon (link type {link_type}; 220 and 189 are read): \
                 record on Linux with usbmon, or with usbferry serve --capture"
            ),
            Self::Packet { number, fault: PacketFault(fault) } => {
                write!(f, "packet {number} is no record of usbmon: ")?;
                match fault {
                    Fault::Short => f.write_str("the packet is too short"),
                    Fault::Event(letter) => write!(f, "there is no event {letter:#04x}"),
                    Fault::TransferType(number) => write!(f, "there is no transfer type {number}"),
                }
            }
            Self::TooMany(most) => write!(
                f,
                "the file has more than {most} packets; cut the part of interest out with editcap"
            ),
        }
    }
}
