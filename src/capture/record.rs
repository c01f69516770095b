//! A record of a capture: the header, the descriptors of isochronous packets, and the data.
//!
//! Contract: runs on the reactor, never blocks, and allocates nothing where the output has room.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::tap::Urb;
use crate::limits::{CAPTURE_DATA_MAX, SNAP_LEN_DEFAULT};
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
        Self::at(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The moment at a time in nanoseconds.
    pub(super) fn at(time: u64) -> Self {
        let since = Duration::from_nanos(time);
        Self {
            time,
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            microseconds: i32::try_from(since.subsec_micros()).unwrap_or(0),
        }
    }
}

/// A record to be written.
#[derive(Clone, Copy)]
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
    #[inline(always)]
    pub(super) fn size(&self, snap_len: usize) -> Size {
        let most = match self.urb.transfer_type {
            TransferType::Control => CAPTURE_DATA_MAX,
            _ => snap_len,
        };
        let len = if self.header.data_flag == 0 { self.data_len() } else { 0 };
        let beside = usbmon::HEADER_LEN + self.urb.packets.len() * usbmon::DESCRIPTOR_LEN;
        Size { beside, len, captured: len.min(most).min(CAPTURE_DATA_MAX - beside) }
    }

    /// Whether the record is as most are: without packets.
    #[inline(always)]
    pub(super) const fn is_plain(&self) -> bool {
        self.urb.packets.is_empty()
    }

    /// Writes a plain record, of a size by [`Self::size`], without a comment. The bytes of the head
    /// are put together where they go, in line with the code that has their values at hand.
    #[inline(always)]
    pub(super) fn write_plain(&self, out: &mut Vec<u8>, size: Size, place: (u32, &Moment)) {
        let block = self.begin(out, size, place);
        write_start(out, self.urb.data, size.captured);
        block.end(out);
    }

    /// Writes any record, of a size by [`Self::size`].
    #[inline(never)]
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        size: Size,
        place: (u32, &Moment),
        comment: Option<&impl Display>,
    ) {
        let block = self.begin(out, size, place);
        self.write_packets(out);
        self.write_data(out, size.captured);
        match comment {
            Some(comment) => block.end_with(out, comment),
            None => block.end(out),
        }
    }

    /// Writes the heads of the record, for its interface and moment.
    #[inline(always)]
    fn begin(
        &self,
        out: &mut Vec<u8>,
        Size { beside, len, captured }: Size,
        (interface, moment): (u32, &Moment),
    ) -> block::Record {
        let Moment { time, seconds, microseconds } = *moment;
        let stamp = Stamp { interface, time, captured: beside + captured, len: beside + len };
        let block = block::Record::begin(out, stamp);
        let data_len = word(beside - usbmon::HEADER_LEN + captured);
        let header = Header { seconds, microseconds, data_len, ..self.header };
        out.extend_from_slice(&header.to_bytes());
        block
    }

    /// Bytes of data, with the gaps between isochronous packets.
    #[inline(always)]
    fn data_len(&self) -> usize {
        if self.urb.packets.is_empty() || self.offset_by == OffsetBy::Client {
            return self.urb.data.len();
        }
        len_with_gaps(self.urb)
    }

    fn write_packets(&self, out: &mut Vec<u8>) {
        for Packet { offset, length, actual_length, status } in self.urb.packets.iter() {
            // What was asked for, or what was moved.
            let (status, len) = match self.header.event {
                Event::Submit => (IN_PROGRESS, length),
                Event::Complete | Event::Error => (status.0, actual_length),
            };
            out.extend_from_slice(&usbmon::descriptor(status, offset, len));
        }
    }

    /// Writes the first `len` bytes of data.
    fn write_data(&self, out: &mut Vec<u8>, len: usize) {
        if self.urb.packets.is_empty() || self.offset_by == OffsetBy::Client {
            return write_start(out, self.urb.data, len);
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

/// Writes the first `len` bytes of data without gaps. The usual length is copied without a call.
#[inline(always)]
fn write_start(out: &mut Vec<u8>, data: &[u8], len: usize) {
    match data.first_chunk::<SNAP_LEN_DEFAULT>() {
        Some(start) if start.len() == len => out.extend_from_slice(start),
        _ => out.extend_from_slice(&data[..len]),
    }
}

/// Out of line, lest a URB without packets pay for the place.
#[inline(never)]
fn len_with_gaps(urb: Urb<'_>) -> usize {
    let filled = urb.packets.iter().filter(|packet| packet.actual_length > 0);
    let end = filled.map(|packet| packet.offset as usize + packet.actual_length as usize).max();
    end.filter(|_| !urb.data.is_empty()).unwrap_or(0)
}

pub(super) fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
