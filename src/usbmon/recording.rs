//! The URBs of a recording: a file of usbmon's records, by Wireshark, tcpdump or our own capture.
//!
//! A crate reads the blocks of the file; the records inside are read here, and joined to URBs: a
//! submission and its end have the same id.
//!
//! Contract: any bytes are read without a panic; errors have the number of the packet, as Wireshark
//! counts. Allocates in proportion to the file.

use std::collections::HashMap;

use pcap_parser::{
    Block, PcapBlockOwned, PcapNGSlice, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header,
};

use super::error::{PacketFault, RecordingError};
use super::{Event, Header, LINK_TYPE, LINK_TYPE_SHORT, Packet, Words, read_packets};
use crate::wire::setup::SETUP_LEN;
use crate::wire::types::TransferType;

/// The option of an interface with its speed.
const SPEED: u16 = 8;

/// A recorded URB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Urb {
    /// The number of the submission's packet.
    pub number: u64,
    /// Bus and address.
    pub device: (u16, u8),
    /// Number and direction.
    pub endpoint: u8,
    /// Of the endpoint.
    pub transfer_type: TransferType,
    /// The setup packet of a control transfer.
    pub setup: Option<[u8; SETUP_LEN]>,
    /// Bytes asked for.
    pub asked: u32,
    /// URB_* of `linux/usb.h`; 0 where the recording has no flags.
    pub flags: u32,
    /// As the client asked for, in the units of `struct urb`.
    pub interval: i32,
    /// As the client asked for.
    pub start_frame: i32,
    /// Isochronous packets as asked for.
    pub packets: Vec<Packet>,
    /// Data to the device.
    pub sent: Data,
    /// The device never had the URB.
    pub is_refused: bool,
    /// `None` where the recording has no end, or the device never had the URB.
    pub end: Option<Ended>,
    /// In bits a second, if the recording says so.
    pub speed: Option<u64>,
}

/// The end of a URB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The number of the packet.
    pub number: u64,
    /// How the URB ended: 0, or the negative of an error.
    pub status: i32,
    /// Bytes moved.
    pub moved: u32,
    /// Isochronous packets as moved.
    pub packets: Vec<Packet>,
    /// Data from the device.
    pub received: Data,
}

/// Data in a recording.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Data {
    /// As many bytes as the recording has.
    pub bytes: Vec<u8>,
    /// There were more bytes than the recording has.
    pub is_cut: bool,
}

/// An interface of a file.
#[derive(Clone, Copy)]
struct Interface {
    link_type: u32,
    speed: Option<u64>,
    words: Words,
}

/// A packet of a file.
struct Captured<'a> {
    interface: Interface,
    data: &'a [u8],
    /// The packet was longer.
    is_cut: bool,
}

/// What a file has.
pub struct Recording {
    /// In the order of their submissions.
    pub urbs: Vec<Urb>,
    /// The file is broken behind the packet with this number, as after a capture that was cut off.
    pub broken_behind: Option<u64>,
}

/// bDescriptorType of a device descriptor (USB 2.0, table 9-5).
pub const DEVICE: u8 = 1;

/// The answers to requests for the standard descriptor of a kind, the first of the kind (USB 2.0,
/// 9.4.3), with as many bytes as the recording has.
pub fn descriptors<'a>(
    urbs: impl Iterator<Item = &'a Urb>,
    kind: u8,
) -> impl Iterator<Item = &'a [u8]> {
    urbs.filter_map(move |urb| {
        urb.setup.filter(|setup| setup[..6] == [0x80, 6, 0, kind, 0, 0])?;
        let end = urb.end.as_ref().filter(|end| end.status == 0)?;
        Some(&end.received.bytes[..])
    })
}

/// The URBs of a file, up to the place where the file is broken.
///
/// # Errors
/// The file is no recording of USB.
pub fn read(file: &[u8]) -> Result<Recording, RecordingError> {
    let mut joined = Joined::default();
    let is_whole = match PcapNGSlice::from_slice(file) {
        Ok(blocks) => read_blocks(blocks, &mut joined)?,
        Err(_) => read_legacy(file, &mut joined)?,
    };
    if joined.number == 0 {
        return Err(RecordingError::Block(0));
    }
    let broken_behind = (!is_whole).then_some(joined.number);
    Ok(Recording { urbs: joined.urbs, broken_behind })
}

/// Whether the file is whole.
fn read_blocks(blocks: PcapNGSlice<'_>, joined: &mut Joined) -> Result<bool, RecordingError> {
    let (mut words, mut interfaces) = (Words { is_big_endian: false }, Vec::new());
    for block in blocks {
        let Ok(PcapBlockOwned::NG(block)) = block else {
            return if joined.number > 0 { Ok(false) } else { Err(RecordingError::Block(0)) };
        };
        match block {
            Block::SectionHeader(section) => {
                words = Words { is_big_endian: section.big_endian() };
                interfaces.clear();
            }
            Block::InterfaceDescription(found) => {
                let speed = found.options.iter().find(|option| option.code.0 == SPEED);
                let speed = speed.and_then(|option| Some(words.long(option.value.first_chunk()?)));
                let link_type = found.linktype.0.cast_unsigned();
                interfaces.push(Interface { link_type, speed, words });
            }
            Block::EnhancedPacket(packet) => {
                let number = joined.number + 1;
                let interface = interfaces.get(packet.if_id as usize);
                let &interface = interface.ok_or(RecordingError::Interface(number))?;
                let data = packet.data.get(..packet.caplen as usize);
                let data = data.ok_or(RecordingError::Block(joined.number))?;
                let is_cut = packet.caplen < packet.origlen;
                joined.take(&Captured { interface, data, is_cut })?;
            }
            _ => {}
        }
    }
    Ok(true)
}

/// Whether the file is whole.
fn read_legacy(file: &[u8], joined: &mut Joined) -> Result<bool, RecordingError> {
    let header = parse_pcap_header(file).map_err(|_| RecordingError::Format);
    let (mut rest, header) = header?;
    let words = Words { is_big_endian: header.is_bigendian() };
    // The crate's own iterator reads the packets of one order only.
    let parse = if words.is_big_endian { parse_pcap_frame_be } else { parse_pcap_frame };
    let link_type = header.network.0.cast_unsigned();
    let interface = Interface { link_type, speed: None, words };
    while let Ok((behind, packet)) = parse(rest) {
        rest = behind;
        let is_cut = packet.caplen < packet.origlen;
        joined.take(&Captured { interface, data: packet.data, is_cut })?;
    }
    Ok(rest.is_empty())
}

/// URBs, and the submissions that still have no end.
#[derive(Default)]
struct Joined {
    urbs: Vec<Urb>,
    /// The number of the last packet.
    number: u64,
    open: HashMap<(u64, (u16, u8), u8), usize>,
}

impl Joined {
    fn take(&mut self, captured: &Captured<'_>) -> Result<(), RecordingError> {
        self.number += 1;
        let number = self.number;
        let Interface { link_type, words, speed } = captured.interface;
        let is_short = match link_type {
            link_type if link_type == u32::from(LINK_TYPE) => false,
            link_type if link_type == u32::from(LINK_TYPE_SHORT) => true,
            _ => return Err(RecordingError::LinkType { number, link_type }),
        };
        let fault = |fault| RecordingError::Packet { number, fault: PacketFault(fault) };
        let parsed = Header::parse(captured.data, words, is_short);
        let (header, behind) = parsed.map_err(fault)?;
        let (packets, behind) = read_packets(behind, header.packets, words).map_err(fault)?;
        let device = (header.bus, header.device);
        let key = (header.id, device, header.endpoint);
        let data = || Data { bytes: behind.to_vec(), is_cut: captured.is_cut };
        match header.event {
            Event::Submit => {
                self.open.insert(key, self.urbs.len());
                self.urbs.push(Urb {
                    number,
                    device,
                    endpoint: header.endpoint,
                    transfer_type: header.transfer_type,
                    setup: header.setup,
                    asked: header.urb_len,
                    flags: header.transfer_flags,
                    interval: header.interval,
                    start_frame: header.start_frame,
                    packets,
                    sent: data(),
                    is_refused: false,
                    end: None,
                    speed,
                });
            }
            Event::Complete => {
                let Some(urb) = self.open.remove(&key) else { return Ok(()) };
                let (status, moved, received) = (header.status, header.urb_len, data());
                self.urbs[urb].end = Some(Ended { number, status, moved, packets, received });
            }
            Event::Error => {
                if let Some(urb) = self.open.remove(&key) {
                    self.urbs[urb].is_refused = true;
                }
            }
        }
        Ok(())
    }
}
