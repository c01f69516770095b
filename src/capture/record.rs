//! A record of a capture: the header, the descriptors of isochronous packets, and the data.
//!
//! Contract: runs on the reactor, never blocks, and allocates nothing where the recorder has room.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

use super::recorder::Recorder;
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

/// A record to be written.
pub(super) struct Record<'a> {
    pub(super) header: Header,
    pub(super) urb: Urb<'a>,
    pub(super) offset_by: OffsetBy,
}

impl Record<'_> {
    /// Writes the record. False when there was no room.
    pub(super) fn write(
        &self,
        recorder: &mut Recorder,
        interface: u32,
        comment: Option<&impl Display>,
    ) -> bool {
        let (packets, has_data) = (self.urb.packets, self.header.data_flag == 0);
        let beside = usbmon::HEADER_LEN + packets.len() * usbmon::DESCRIPTOR_LEN;
        let len = if has_data { self.data_len() } else { 0 };
        let captured = len.min(self.data_max(recorder)).min(CAPTURE_DATA_MAX - beside);
        let Some(out) = recorder.room(RECORD_OVERHEAD + beside + captured) else { return false };
        let (time, seconds, microseconds) = now();
        let data_len = word(captured + packets.len() * usbmon::DESCRIPTOR_LEN);
        let header = Header { seconds, microseconds, data_len, ..self.header };
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&header.to_bytes());
            self.write_descriptors(out);
            self.write_data(out, captured);
        };
        let stamp = Stamp { interface, time, captured: beside + captured, len: beside + len };
        block::record(out, stamp, write, comment);
        true
    }

    /// The most bytes of data in the record: of a control URB all, since nothing else in a capture
    /// can be read without the descriptors, and control URBs are few.
    const fn data_max(&self, recorder: &Recorder) -> usize {
        match self.urb.transfer_type {
            TransferType::Control => CAPTURE_DATA_MAX,
            _ => recorder.snap_len,
        }
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

/// The time, in nanoseconds, and in seconds and microseconds.
pub(super) fn now() -> (u64, i64, i32) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    (nanoseconds, seconds, i32::try_from(time.subsec_micros()).unwrap_or(0))
}
