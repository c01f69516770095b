//! Records in the format of usbmon, Linux's tap on USB (`struct mon_bin_hdr` of
//! `drivers/usb/mon/mon_bin.c`): link type 220 of pcap.
//!
//! - [`block`]: the blocks of a pcapng file, to write.
//!
//! The bytes are in the order of the section, which is this machine's for everything written here.
//!
//! Contract: plain values; nothing allocates beyond the room of the output, nothing panics.

pub(crate) mod block;

use crate::wire::setup::SETUP_LEN;
use crate::wire::types::TransferType;

/// The link type of records with the long header (`LINKTYPE_USB_LINUX_MMAPPED`).
pub(crate) const LINK_TYPE: u16 = 220;

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 64;

/// Bytes of the descriptor of an isochronous packet, behind the header.
pub(crate) const DESCRIPTOR_LEN: usize = 16;

/// The status of a submission (`-EINPROGRESS`).
pub(crate) const IN_PROGRESS: i32 = -115;

/// The part of a URB's life that a record shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The submission.
    Submit,
    /// The end.
    Complete,
    /// The end of a URB that the device never had.
    Error,
}

impl Event {
    const fn letter(self) -> u8 {
        match self {
            Self::Submit => b'S',
            Self::Complete => b'C',
            Self::Error => b'E',
        }
    }
}

/// A header. The names of fields are those of the kernel's documentation
/// (`Documentation/usb/usbmon.rst`), where a name says anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The same in the records of a URB.
    pub(crate) id: u64,
    pub(crate) event: Event,
    pub(crate) transfer_type: TransferType,
    /// Number and direction; the direction of a control URB is that of its data.
    pub(crate) endpoint: u8,
    pub(crate) device: u8,
    pub(crate) bus: u16,
    /// The SETUP packet, in the submission of a control URB.
    pub(crate) setup: Option<[u8; SETUP_LEN]>,
    /// 0 when data follows, or else a sign: `<` and `>` mean the other record has the data.
    pub(crate) data_flag: u8,
    pub(crate) seconds: i64,
    pub(crate) microseconds: i32,
    pub(crate) status: i32,
    /// Bytes asked for, or moved.
    pub(crate) urb_len: u32,
    /// Bytes behind the header.
    pub(crate) data_len: u32,
    /// Failed packets of an isochronous URB.
    pub(crate) error_count: u32,
    pub(crate) interval: i32,
    pub(crate) start_frame: i32,
    pub(crate) transfer_flags: u32,
    /// Isochronous packets with a descriptor behind the header.
    pub(crate) packets: u32,
}

/// The number of a transfer type, which is not that of a descriptor.
const fn number_of(transfer_type: TransferType) -> u8 {
    match transfer_type {
        TransferType::Isochronous => 0,
        TransferType::Interrupt => 1,
        TransferType::Control => 2,
        TransferType::Bulk => 3,
    }
}

impl Header {
    /// The bytes of the header.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &self.id.to_ne_bytes());
        put(8, &[self.event.letter(), number_of(self.transfer_type), self.endpoint, self.device]);
        put(12, &self.bus.to_ne_bytes());
        put(14, &[if self.setup.is_some() { 0 } else { b'-' }, self.data_flag]);
        put(16, &self.seconds.to_ne_bytes());
        put(24, &self.microseconds.to_ne_bytes());
        put(28, &self.status.to_ne_bytes());
        put(32, &self.urb_len.to_ne_bytes());
        put(36, &self.data_len.to_ne_bytes());
        match self.setup {
            Some(setup) => put(40, &setup),
            None => {
                put(40, &self.error_count.to_ne_bytes());
                put(44, &self.packets.to_ne_bytes());
            }
        }
        put(48, &self.interval.to_ne_bytes());
        put(52, &self.start_frame.to_ne_bytes());
        put(56, &self.transfer_flags.to_ne_bytes());
        put(60, &self.packets.to_ne_bytes());
        bytes
    }
}

/// The descriptor of an isochronous packet.
pub(crate) fn descriptor(status: i32, offset: u32, length: u32) -> [u8; DESCRIPTOR_LEN] {
    let mut bytes = [0; DESCRIPTOR_LEN];
    bytes[..4].copy_from_slice(&status.to_ne_bytes());
    bytes[4..8].copy_from_slice(&offset.to_ne_bytes());
    bytes[8..12].copy_from_slice(&length.to_ne_bytes());
    bytes
}
