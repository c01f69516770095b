//! The replies of a session on their way into the socket.
//!
//! A reply is staged at once if there is room, while the URB's record and data are at hand; else,
//! and if the URB was refused, the reply waits as an [`UnstagedReply`]. Staging writes headers,
//! descriptors and small payloads into the staging buffer, and notes large payloads as [`Segment`]s
//! which point into the URB's own buffer and are written from there. Isochronous IN data leaves its
//! padding out by a segment for each run of full packets. A URB's record and buffer are free again
//! as soon as the last of their bytes is with the socket; for a small reply, as soon as the reply
//! is staged.
//!
//! ```text
//! staging   [48 header 7][48 header 9][18 data 9]...
//! segments  staged 0..48 | payload 7 | staged 48..114 | payload 11 |, and behind them the rest
//! unstaged  RET 12 | RET 13 | UNLINK 8 | ...            order of the replies
//! ```
//!
//! Staged bytes become a segment when a payload follows. A row of small replies is no segment, only
//! the rest of the staged bytes.
//!
//! Contract: no allocation after `new`; never blocks; knows no socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use usbferry_sys::os::heap::{self, Zeroed};

use super::urb::{RECORD_LEN, Urb, UrbIndex, UrbTable};
use crate::limits::{RECORD_MEMORY, UNLINK_REPLIES_MAX, URBS_REFUSED_MAX};
use crate::wire::iso::{DESCRIPTOR_LEN, PACKETS_MAX};
use crate::wire::pdu::{HEADER_LEN, RetSubmit, RetUnlink};
use crate::wire::status::Status;
use crate::wire::types::{Direction, SeqNum, TransferType};

/// Slices of a write. More gain nothing: with large payloads a write is bounded by the socket's
/// buffer, with small payloads everything is in one slice.
const SLICES_MAX: usize = 64;

/// Bytes for a write, in order.
pub(crate) type TxSlices<'a> = ArrayVec<IoSlice<'a>, SLICES_MAX>;

/// Bytes up to which a payload is copied beside its header: a slice of its own costs the kernel
/// more than the copy. Sixteen replies with a slice each take 1.23 times as long as copied replies
/// of 1 KiB, 1.05 to 1.15 times for 1.5 KiB, as long for 2 KiB, and 0.83 times for 4 KiB.
const SMALL_PAYLOAD: usize = 2048;

/// The same for a reply that is written alone, as the only slice: a single slice goes by send(2)
/// (`reactor/socket.rs`), and the copy is still in the first cache.
const SMALL_PAYLOAD_ALONE: usize = 4096;

/// Bytes of the staging buffer: the largest block of descriptors four times, and some hundred small
/// replies.
const STAGING_LEN: usize = 64 * 1024;

/// The most bytes a reply stages: header, descriptors, and packets small enough to be copied.
const STAGED_REPLY_MAX: usize = HEADER_LEN + PACKETS_MAX as usize * DESCRIPTOR_LEN + SMALL_PAYLOAD;

/// The most segments a reply takes: the packets, and the bytes before and behind.
const SEGMENTS_REPLY_MAX: usize = PACKETS_MAX as usize + 3;

/// The most segments kept.
const SEGMENTS_MAX: usize = 2 * SEGMENTS_REPLY_MAX;

const _: () = assert!(STAGED_REPLY_MAX <= STAGING_LEN, "a reply fits into an empty buffer");
const _: () = {
    // A place in the queue behind a barrier, and two among the replies.
    let queued = size_of::<UrbIndex>() + 2 * size_of::<UnstagedReply>();
    assert!(RECORD_LEN + queued <= RECORD_MEMORY);
};

/// A reply not staged yet.
#[derive(Clone, Copy, Debug)]
enum UnstagedReply {
    Submit(UrbIndex),
    Unlink(RetUnlink),
}

/// Bytes to write, in order.
#[derive(Clone, Copy, Debug)]
enum Segment {
    /// Bytes of the staging buffer.
    Staged { start: usize, end: usize },
    /// Bytes of a URB's buffer; behind the `last` segment the URB is done.
    Payload { urb: UrbIndex, start: usize, end: usize, last: bool },
}

/// The replies of a session on their way to the socket.
pub(crate) struct TxQueue {
    unstaged: VecDeque<UnstagedReply>,
    /// RET_UNLINKs among the unstaged replies.
    unlinks: usize,
    staging: Zeroed<u8>,
    /// Bytes of the staging buffer in use.
    staged: usize,
    /// Bytes of those in a segment, or written.
    segmented: usize,
    /// Several replies are about to be queued.
    is_batch: bool,
    segments: VecDeque<Segment>,
}

impl TxQueue {
    /// A queue for the replies of `urbs` URBs; `None` when the system has no memory for the queue.
    pub(crate) fn new(urbs: usize) -> Option<Self> {
        let (mut unstaged, mut segments) = (VecDeque::new(), VecDeque::new());
        // Each URB has a reply, and an UNLINK may come for each; besides, a read may bring some
        // UNLINKs past the bound below.
        let replies = 2 * urbs + 2 * UNLINK_REPLIES_MAX + URBS_REFUSED_MAX;
        unstaged.try_reserve_exact(replies).ok()?;
        segments.try_reserve_exact(SEGMENTS_MAX).ok()?;
        let staging = Zeroed::apart(STAGING_LEN)?;
        let (unlinks, staged, segmented, is_batch) = (0, 0, 0, false);
        Some(Self { unstaged, unlinks, staging, staged, segmented, is_batch, segments })
    }

    /// Whether too many UNLINK answers wait for more UNLINKs to be taken.
    pub(crate) const fn is_full(&self) -> bool {
        self.unlinks >= UNLINK_REPLIES_MAX
    }

    /// Whether everything was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.segmented == self.staged && self.segments.is_empty() && self.unstaged.is_empty()
    }

    /// Says how many replies are about to be queued.
    pub(crate) const fn expect(&mut self, replies: usize) {
        self.is_batch = replies > 1;
    }

    /// Queues the reply of an ended URB, staged at once if possible. True when the record is needed
    /// no longer.
    pub(crate) fn push_submit(&mut self, urbs: &UrbTable, urb: UrbIndex) -> bool {
        if self.stages_at_once() {
            return self.stage_submit(urbs, urb);
        }
        self.push_unstaged(urb);
        false
    }

    /// The same for a URB without packets, with the record at hand.
    #[inline(always)]
    pub(crate) fn push_without_packets(&mut self, urb: &Urb, index: UrbIndex) -> bool {
        if self.stages_at_once() {
            return self.stage_without_packets(urb, index);
        }
        self.push_unstaged(index);
        false
    }

    /// Queues the reply of a refused URB. Staged only before a write, refusals keep their records
    /// until then, and so the client from being read without end.
    pub(crate) fn push_unstaged(&mut self, urb: UrbIndex) {
        self.unstaged.push_back(UnstagedReply::Submit(urb));
    }

    /// Queues the answer of an UNLINK.
    pub(crate) fn push_unlink(&mut self, seqnum: SeqNum, status: Status) {
        let ret = RetUnlink { seqnum, status };
        if self.stages_at_once() {
            return ret.emit(self.stage_header());
        }
        self.unlinks += 1;
        self.unstaged.push_back(UnstagedReply::Unlink(ret));
    }

    /// Whether a reply is staged as soon as queued: no other waits, and there is room.
    #[inline(always)]
    fn stages_at_once(&self) -> bool {
        self.unstaged.is_empty() && self.has_room()
    }

    /// Stages as many replies as there is room for, and tells `done` of each URB whose record is
    /// needed no longer.
    pub(crate) fn stage(
        &mut self,
        urbs: &mut UrbTable,
        mut done: impl FnMut(&mut UrbTable, UrbIndex),
    ) {
        while self.has_room() {
            let Some(reply) = self.unstaged.pop_front() else {
                self.unstaged.clear();
                break;
            };
            match reply {
                UnstagedReply::Submit(urb) => {
                    if self.stage_submit(urbs, urb) {
                        done(urbs, urb);
                    }
                }
                UnstagedReply::Unlink(ret) => {
                    self.unlinks -= 1;
                    ret.emit(self.stage_header());
                }
            }
        }
    }

    /// Whether [`Self::stage`] has something to do.
    pub(crate) fn has_unstaged(&self) -> bool {
        !self.unstaged.is_empty()
    }

    fn has_room(&self) -> bool {
        self.staged + STAGED_REPLY_MAX <= STAGING_LEN
            && self.segments.len() + SEGMENTS_REPLY_MAX <= SEGMENTS_MAX
    }

    /// Stages a URB's reply; true when no segment points into the URB's buffer.
    fn stage_submit(&mut self, urbs: &UrbTable, index: UrbIndex) -> bool {
        let urb = urbs.get(index);
        if urb.packets > 0 {
            self.stage_ret(urb, urb.error_count);
            return self.stage_with_packets(urbs, index);
        }
        self.stage_without_packets(urb, index)
    }

    /// Stages the header of a URB's reply, with the number of failed packets.
    #[inline(always)]
    fn stage_ret(&mut self, urb: &Urb, error_count: u32) {
        let ret = RetSubmit {
            seqnum: urb.submit.seqnum,
            status: urb.status,
            actual_length: urb.actual_length,
            start_frame: urb.submit.start_frame,
            number_of_packets: urb.submit.number_of_packets,
            error_count,
        };
        ret.emit(self.stage_header());
    }

    /// Stages the reply of a URB without packets; true when no segment points into the URB's
    /// buffer.
    #[inline(always)]
    fn stage_without_packets(&mut self, urb: &Urb, index: UrbIndex) -> bool {
        self.stage_ret(urb, 0);
        if urb.direction == Direction::Out || urb.actual_length == 0 {
            return true;
        }
        let (start, len) = (urb.data_offset(), urb.actual_length as usize);
        if len <= SMALL_PAYLOAD || len <= SMALL_PAYLOAD_ALONE && self.is_alone() {
            self.stage_bytes(&urb.block.as_deref().unwrap_or_default()[start..start + len]);
            return true;
        }
        self.end_segment();
        self.segments.push_back(Segment::Payload {
            urb: index,
            start,
            end: start + len,
            last: true,
        });
        false
    }

    /// Stages the rest of the reply of a URB with packets, behind the header.
    #[inline(never)]
    fn stage_with_packets(&mut self, urbs: &UrbTable, index: UrbIndex) -> bool {
        let urb = urbs.get(index);
        let segments_before = self.segments.len();
        if urb.direction == Direction::In && urb.actual_length > 0 {
            let block = urb.block.as_deref().unwrap_or_default();
            if urb.transfer_type == TransferType::Isochronous {
                self.stage_packets(urbs, index, block);
            } else {
                let offset = urb.data_offset();
                self.stage_payload(index, block, offset, offset + urb.actual_length as usize);
            }
        }
        let payload_last = self.mark_last_payload(index, segments_before);
        self.stage_bytes(urbs.descriptors(index));
        !payload_last
    }

    /// Stages isochronous data: packets lie behind each other by their requested length, and each
    /// sends only its actual length.
    fn stage_packets(&mut self, urbs: &UrbTable, index: UrbIndex, block: &[u8]) {
        // The buffer has the packets' lengths and no more: without padding all is a single run.
        if urbs.get(index).actual_length as usize == block.len() {
            return self.stage_payload(index, block, 0, block.len());
        }
        let (mut at, mut run_start, mut run_end) = (0, 0, 0);
        for packet in urbs.packets(index).iter() {
            if run_end != at {
                self.stage_payload(index, block, run_start, run_end);
                run_start = at;
            }
            run_end = at + packet.actual_length as usize;
            at += packet.length as usize;
        }
        self.stage_payload(index, block, run_start, run_end);
    }

    /// Stages bytes of a URB's buffer: a copy of a few bytes if there is room, else a segment.
    fn stage_payload(&mut self, urb: UrbIndex, block: &[u8], start: usize, end: usize) {
        let len = end - start;
        // The reply's bytes behind the payload must still fit.
        let reserve = STAGED_REPLY_MAX - SMALL_PAYLOAD;
        let small = if self.is_alone() { SMALL_PAYLOAD_ALONE } else { SMALL_PAYLOAD };
        if len <= small && self.staged + len + reserve <= STAGING_LEN {
            self.stage_bytes(&block[start..end]);
        } else {
            self.end_segment();
            self.segments.push_back(Segment::Payload { urb, start, end, last: false });
        }
    }

    /// Whether the reply whose header was staged last is written alone, as far as known.
    fn is_alone(&self) -> bool {
        self.staged == HEADER_LEN && self.unstaged.is_empty() && !self.is_batch
    }

    /// Marks the last segment for `urb` behind the first `before`; false when none points into the
    /// URB's buffer.
    fn mark_last_payload(&mut self, urb: UrbIndex, before: usize) -> bool {
        if self.segments.len() == before {
            return false;
        }
        let added = self.segments.range_mut(before..).rev();
        for segment in added {
            if let Segment::Payload { urb: of, last, .. } = segment {
                debug_assert_eq!(*of, urb, "segments of one reply belong to one URB");
                *last = true;
                return true;
            }
        }
        false
    }

    /// Room for a header behind the staged bytes; the caller writes all of the header.
    #[inline(always)]
    fn stage_header(&mut self) -> &mut [u8; HEADER_LEN] {
        let room = self.staging[self.staged..].first_chunk_mut().expect("room was looked for");
        self.staged += HEADER_LEN;
        room
    }

    #[inline(always)]
    fn stage_bytes(&mut self, bytes: &[u8]) {
        let end = self.staged + bytes.len();
        self.staging[self.staged..end].copy_from_slice(bytes);
        self.staged = end;
    }

    /// Makes a segment of the bytes staged since the last segment.
    #[inline(never)]
    fn end_segment(&mut self) {
        let (start, end) = (self.segmented, self.staged);
        if start < end {
            self.segments.push_back(Segment::Staged { start, end });
            self.segmented = end;
        }
    }

    /// Adds the bytes to write next, `most` of them and as many slices as there is room for, to no
    /// slices.
    #[inline(always)]
    pub(crate) fn add_slices<'a>(
        &'a self,
        urbs: &'a UrbTable,
        slices: &mut TxSlices<'a>,
        mut most: usize,
    ) {
        if !self.segments.is_empty() {
            self.add_segments(urbs, slices, &mut most);
        }
        let rest = &self.staging[self.segmented..self.staged];
        let rest = &rest[..rest.len().min(most)];
        if !rest.is_empty() && !slices.is_full() {
            slices.push(IoSlice::new(rest));
        }
    }

    /// Adds the bytes of the segments.
    #[inline(never)]
    fn add_segments<'a>(&'a self, urbs: &'a UrbTable, slices: &mut TxSlices<'a>, most: &mut usize) {
        for segment in self.segments.iter().take(SLICES_MAX) {
            if *most == 0 {
                break;
            }
            let bytes = self.bytes_of(urbs, segment);
            let bytes = &bytes[..bytes.len().min(*most)];
            *most -= bytes.len();
            slices.push(IoSlice::new(bytes));
        }
    }

    fn bytes_of<'a>(&'a self, urbs: &'a UrbTable, segment: &Segment) -> &'a [u8] {
        match *segment {
            Segment::Staged { start, end } => &self.staging[start..end],
            Segment::Payload { urb, start, end, .. } => {
                let block = urbs.get(urb).block.as_deref();
                &block.expect("a URB keeps its buffer until it is written")[start..end]
            }
        }
    }

    /// Notes `written` bytes as with the socket, and tells `done` of each URB whose record is
    /// needed no longer.
    pub(crate) fn advance(&mut self, mut written: usize, mut done: impl FnMut(UrbIndex)) {
        while written > 0 {
            let Some(segment) = self.segments.front_mut() else {
                self.segmented += written;
                debug_assert!(self.segmented <= self.staged, "no more is written than was given");
                break;
            };
            let (Segment::Staged { start, end } | Segment::Payload { start, end, .. }) = segment;
            let (start, end) = (start, *end);
            let step = written.min(end - *start);
            *start += step;
            written -= step;
            if *start < end {
                break;
            }
            if let Some(Segment::Payload { urb, last: true, .. }) = self.segments.pop_front() {
                done(urb);
            }
            if self.segments.is_empty() {
                // As below.
                self.segments.clear();
            }
        }
        // An empty queue starts at its beginning again: going round in all of the room, a few
        // entries at a time, each would be a miss in the processor's cache.
        if self.segmented == self.staged && self.segments.is_empty() {
            (self.staged, self.segmented) = (0, 0);
        }
    }

    /// The room allocated, which must never change.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn footprint(&self) -> usize {
        self.unstaged.capacity() + self.segments.capacity()
    }

    /// Gives the room back to the system, unless replies wait.
    pub(crate) fn give_back(&mut self) {
        if self.is_empty() {
            (self.staged, self.segmented) = (0, 0);
            self.staging.give_back(0..STAGING_LEN);
            heap::give_back_queue(&mut self.unstaged);
            heap::give_back_queue(&mut self.segments);
        }
    }

    /// Forgets everything not written.
    pub(crate) fn clear(&mut self) {
        self.unstaged.clear();
        self.segments.clear();
        (self.staged, self.segmented, self.unlinks) = (0, 0, 0);
    }
}
