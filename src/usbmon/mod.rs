//! Records in the format of usbmon, Linux's tap on USB (`struct mon_bin_hdr` of
//! `drivers/usb/mon/mon_bin.c`): link type 220 of pcap, and 189 with a shorter header.
//!
//! - `block`: the blocks of a pcapng file, to write;
//! - [`recording`]: the URBs of a file, to read; [`error`]: why a file is no recording.
//!
//! The bytes are in the order of the section, which is this machine's for everything written here.
//!
//! Contract: plain values; nothing allocates beyond the room of the output, nothing panics.

pub(crate) mod block;
pub mod error;
// Only simulated devices need the speed.
#[cfg_attr(not(feature = "simulate"), allow(dead_code))]
pub mod recording;

use crate::wire::setup::SETUP_LEN;
use crate::wire::types::TransferType;

/// The link type of records with the long header (`LINKTYPE_USB_LINUX_MMAPPED`).
pub(crate) const LINK_TYPE: u16 = 220;

/// The link type of records with the short header (`LINKTYPE_USB_LINUX`).
const LINK_TYPE_SHORT: u16 = 189;

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 64;

/// Bytes of the short header, which ends behind the SETUP packet.
const HEADER_LEN_SHORT: usize = 48;

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

    const fn of(letter: u8) -> Option<Self> {
        match letter {
            b'S' => Some(Self::Submit),
            b'C' => Some(Self::Complete),
            b'E' => Some(Self::Error),
            _ => None,
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

const fn type_of(number: u8) -> Option<TransferType> {
    match number {
        0 => Some(TransferType::Isochronous),
        1 => Some(TransferType::Interrupt),
        2 => Some(TransferType::Control),
        3 => Some(TransferType::Bulk),
        _ => None,
    }
}

/// The fault of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Shorter than its header, or its descriptors.
    Short,
    /// Neither a submission nor an end.
    Event(u8),
    /// Not one of the four types.
    TransferType(u8),
}

/// Words of a record, in the order of its section.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    pub(crate) is_big_endian: bool,
}

impl Words {
    fn array<const N: usize>(self, bytes: &[u8], at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&bytes[at..at + N]);
        // All words are read as little-endian.
        if self.is_big_endian {
            array.reverse();
        }
        array
    }

    fn word(self, bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(self.array(bytes, at))
    }

    fn long(self, bytes: &[u8; 8]) -> u64 {
        u64::from_le_bytes(self.array(bytes, 0))
    }

    fn int(self, bytes: &[u8], at: usize) -> i32 {
        self.word(bytes, at).cast_signed()
    }
}

impl Header {
    /// Reads a header, of the short form where `is_short`, and returns what follows.
    ///
    /// # Errors
    /// The bytes are no record.
    pub(crate) fn parse(
        bytes: &[u8],
        words: Words,
        is_short: bool,
    ) -> Result<(Self, &[u8]), Fault> {
        let len = if is_short { HEADER_LEN_SHORT } else { HEADER_LEN };
        let (head, behind) = bytes.split_at_checked(len).ok_or(Fault::Short)?;
        let has_setup = head[14] == 0;
        let long = |at| if is_short { 0 } else { words.word(head, at) };
        let header = Self {
            id: u64::from_le_bytes(words.array(head, 0)),
            event: Event::of(head[8]).ok_or(Fault::Event(head[8]))?,
            transfer_type: type_of(head[9]).ok_or(Fault::TransferType(head[9]))?,
            endpoint: head[10],
            device: head[11],
            bus: u16::from_le_bytes(words.array(head, 12)),
            setup: has_setup.then(|| *head[40..].first_chunk().expect("the header is whole")),
            data_flag: head[15],
            seconds: i64::from_le_bytes(words.array(head, 16)),
            microseconds: words.int(head, 24),
            status: words.int(head, 28),
            urb_len: words.word(head, 32),
            data_len: words.word(head, 36),
            error_count: if has_setup { 0 } else { words.word(head, 40) },
            interval: long(48).cast_signed(),
            start_frame: long(52).cast_signed(),
            transfer_flags: long(56),
            packets: 0,
        };
        let is_isochronous = header.transfer_type == TransferType::Isochronous;
        let packets = if is_isochronous && !is_short { words.word(head, 44) } else { 0 };
        Ok((Self { packets, ..header }, behind))
    }

    /// The bytes of the header.
    #[inline(always)]
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

/// The id and the event of a record written here.
pub(crate) fn id_and_event(record: &[u8]) -> Option<(u64, Event)> {
    let (id, behind) = record.split_first_chunk()?;
    Some((u64::from_ne_bytes(*id), Event::of(*behind.first()?)?))
}

/// The descriptor of an isochronous packet.
pub(crate) fn descriptor(status: i32, offset: u32, length: u32) -> [u8; DESCRIPTOR_LEN] {
    let mut bytes = [0; DESCRIPTOR_LEN];
    bytes[..4].copy_from_slice(&status.to_ne_bytes());
    bytes[4..8].copy_from_slice(&offset.to_ne_bytes());
    bytes[8..12].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// An isochronous packet in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// How the packet ended.
    pub status: i32,
    /// Where the packet's data begins, in bytes from the first packet's.
    pub offset: u32,
    /// Bytes asked for, or moved.
    pub length: u32,
}

/// Reads the descriptors of `count` packets, and returns what follows.
///
/// # Errors
/// There are fewer bytes.
pub(crate) fn read_packets(
    bytes: &[u8],
    count: u32,
    words: Words,
) -> Result<(Vec<Packet>, &[u8]), Fault> {
    let len = (count as usize).checked_mul(DESCRIPTOR_LEN).ok_or(Fault::Short)?;
    let (descriptors, behind) = bytes.split_at_checked(len).ok_or(Fault::Short)?;
    let packet = |bytes: &[u8]| Packet {
        status: words.int(bytes, 0),
        offset: words.word(bytes, 4),
        length: words.word(bytes, 8),
    };
    Ok((descriptors.chunks(DESCRIPTOR_LEN).map(packet).collect(), behind))
}
