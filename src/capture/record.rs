//! A record of a capture: the header, the descriptors of isochronous packets, and the data.
//!
//! Contract: runs on the reactor, never blocks, and allocates nothing where the output has room.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

use super::tap::Urb;
use crate::limits::CAPTURE_DATA_MAX;
use crate::usbmon::block::{self, RECORD_OVERHEAD, Stamp};
use crate::usbmon::{self, Event, Header, IN_PROGRESS};
use crate::wire::iso::Packet;
use crate::wire::types::TransferType;

/// The places of isochronous packets in the data at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetBy {
    /// By the client's offsets.
    Client,
    /// Behind each other, each with as many bytes as were asked for.
    Sum,
}

/// A moment on the two scales of a record. The clock is read once for all records of a batch: all
/// SUBMITs of a batch arrived with one read, and all its ends were found by one look at the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// In nanoseconds.
    pub(super) time: u64,
    seconds: i64,
    microseconds: i32,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            microseconds: i32::try_from(time.subsec_micros()).unwrap_or(0),
        }
    }
}

/// A record to be written.
pub(super) struct Record<'a> {
    pub(super) header: Header,
    pub(super) urb: Urb<'a>,
    pub(super) offset_by: OffsetBy,
}

/// The bytes of a record.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// The header and the descriptors.
    beside: usize,
    /// The data that there was to capture, and the data in the record.
    len: usize,
    captured: usize,
}

impl Size {
    /// Bytes that the record needs at most.
    pub(super) const fn room(self) -> usize {
        RECORD_OVERHEAD + self.beside + self.captured
    }
}

impl Record<'_> {
    /// The bytes of the record with up to `snap_len` bytes of data. Of a control URB all data is
    /// there, since nothing else in a capture can be read without the descriptors, and control URBs
    /// are few.
    pub(super) fn size(&self, snap_len: usize) -> Size {
        let most = match self.urb.transfer_type {
            TransferType::Control => CAPTURE_DATA_MAX,
            _ => snap_len,
        };
        let len = if self.header.data_flag == 0 { self.data_len() } else { 0 };
        let beside = usbmon::HEADER_LEN + self.urb.packets.len() * usbmon::DESCRIPTOR_LEN;
        Size { beside, len, captured: len.min(most).min(CAPTURE_DATA_MAX - beside) }
    }

    /// Writes the record, of a size by [`Self::size`].
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        Size { beside, len, captured }: Size,
        (interface, moment): (u32, Moment),
        comment: Option<&impl Display>,
    ) {
        let Moment { time, seconds, microseconds } = moment;
        let data_len = word(beside - usbmon::HEADER_LEN + captured);
        let header = Header { seconds, microseconds, data_len, ..self.header };
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&header.to_bytes());
            self.write_descriptors(out);
            self.write_data(out, captured);
        };
        let stamp = Stamp { interface, time, captured: beside + captured, len: beside + len };
        block::record(out, stamp, write, comment);
    }

    const fn is_submission(&self) -> bool {
        matches!(self.header.event, Event::Submit)
    }

    /// Bytes of a packet that count: asked for, or moved.
    const fn len_of(&self, packet: &Packet) -> u32 {
        if self.is_submission() { packet.length } else { packet.actual_length }
    }

    /// Bytes of data, with the gaps between isochronous packets.
    fn data_len(&self) -> usize {
        if self.urb.packets.is_empty() || self.offset_by == OffsetBy::Client {
            return self.urb.data.len();
        }
        let filled = self.urb.packets.iter().filter(|packet| packet.actual_length > 0);
        let end = filled.map(|packet| packet.offset as usize + packet.actual_length as usize).max();
        end.filter(|_| !self.urb.data.is_empty()).unwrap_or(0)
    }

    fn write_descriptors(&self, out: &mut Vec<u8>) {
        for packet in self.urb.packets.iter() {
            let status = if self.is_submission() { IN_PROGRESS } else { packet.status.0 };
            out.extend_from_slice(&usbmon::descriptor(status, packet.offset, self.len_of(&packet)));
        }
    }

    /// Writes the first `len` bytes of data.
    fn write_data(&self, out: &mut Vec<u8>, len: usize) {
        if self.urb.packets.is_empty() || self.offset_by == OffsetBy::Client {
            return out.extend_from_slice(&self.urb.data[..len]);
        }
        let start = out.len();
        out.resize(start + len, 0);
        let data = &mut out[start..];
        let mut from = 0;
        for packet in self.urb.packets.iter() {
            let offset = (packet.offset as usize).min(len);
            let moved = (packet.actual_length as usize).min(len - offset);
            let bytes = self.urb.data.get(from..from + moved).unwrap_or_default();
            data[offset..offset + bytes.len()].copy_from_slice(bytes);
            from += packet.length as usize;
        }
    }
}

pub(super) fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
