//! The bytes of a client on their way in: a scratch buffer, and buffers for expected payloads.
//!
//! ```text
//! scratch   |..taken..|====unparsed====|......room......|
//!           0      start              end              len      start <= end <= len
//! ```
//!
//! Small PDUs are read many at a time into the scratch buffer and parsed there. The rest of a
//! large OUT payload is read straight into the URB's buffer, by the same call as the bytes behind.
//!
//! A client that sends a large OUT payload mostly sends more of the same kind. So behind a large
//! payload, the next read is laid out for others of its [`Shape`]: descriptors and header into the
//! scratch, the payload into the next URB's future buffer, and as many more as came in a read
//! before. A single call then takes in several URBs, and nothing is copied.
//!
//! ```text
//! stream    rest of payload | descriptors, header | payload | descriptors, header | payload | ...
//! goes to   the URB's block   scratch               ahead 0   scratch               ahead 1
//! ```
//!
//! Where the client sends something else, the bytes are [gathered](ReadBuffer::gather) in the
//! scratch buffer, and parsed there like any other bytes.
//!
//! Contract: no allocation after `new`, but blocks from the device's memory; knows no socket and no
//! meaning of a PDU. Where in a PDU the stream stands, [`super::receive`] says.

use std::collections::VecDeque;
use std::io::IoSliceMut;

use arrayvec::ArrayVec;
use usbferry_sys::arena::Block;
use usbferry_sys::os::heap::Zeroed;

use super::buffers::Buffers;
use crate::wire::pdu::HEADER_LEN;
use crate::wire::types::EndpointAddress;

/// Bytes read into the scratch buffer at once: some thousand headers, or sixty-four payloads of
/// 4 KiB. A part of what stays in a processor's cache.
pub(super) const READ_LEN: usize = 256 * 1024;

/// Bytes read behind a large payload where nothing is expected: the next header, and a small
/// payload. The rest of another large payload then goes to its place.
const READ_BEHIND_PAYLOAD: usize = 4 * 1024;

/// SUBMITs without a large payload, after a large payload, for which the reads stay as small: a
/// storage device has a command before each payload and a status behind, and up to sixteen commands
/// where the device queues commands (USB Attached SCSI).
const SUBMITS_BETWEEN_PAYLOADS: u8 = 32;

/// Bytes from which on a payload is large: copying as much costs more than another read.
const LARGE_PAYLOAD: usize = 8 * 1024;

/// Bytes from which on a payload is long, see [`ReadBuffer::is_taking_long_payloads`].
const LONG_PAYLOAD: usize = 16 * 1024;

/// Bytes of payloads taken in by a read ahead of the headers: eight of 128 KiB.
const AHEAD_LEN: usize = 1024 * 1024;

/// Payloads taken in by a read ahead of the headers.
const AHEAD_MAX: usize = 16;

/// Bytes of the scratch buffer: the bytes of a whole read must fit when gathered.
const SCRATCH_LEN: usize = READ_LEN + AHEAD_LEN;

/// Slices of a read: the rest of a payload, then scratch and payload in turn, scratch last.
const SLICES_MAX: usize = 2 * AHEAD_MAX + 2;

/// Room for the bytes of a read, in the order of the stream.
pub(crate) type RxSlices<'a> = ArrayVec<IoSliceMut<'a>, SLICES_MAX>;

/// Two SUBMITs of the same shape have payloads for which a read can be laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) endpoint: EndpointAddress,
    /// Bytes of the payload.
    pub(crate) len: usize,
    /// Bytes of the descriptors behind it.
    pub(crate) descriptors: usize,
}

/// A buffer for a payload whose header has not been seen.
struct Ahead {
    block: Block,
    /// Bytes that came.
    filled: usize,
}

/// Bytes received and not taken, and room for more.
pub(crate) struct ReadBuffer {
    scratch: Zeroed<u8>,
    /// Where bytes are gathered.
    other: Zeroed<u8>,
    start: usize,
    end: usize,
    /// The last OUT payload, if large.
    shape: Option<Shape>,
    /// SUBMITs since the last large payload, up to [`SUBMITS_BETWEEN_PAYLOADS`].
    since_large: u8,
    /// Payloads to lay the next read out for.
    wanted: usize,
    /// Payloads of the read at hand. In the stream the first lies behind `boundary` of the scratch,
    /// each other behind the descriptors and the header next in the scratch.
    ahead: VecDeque<Ahead>,
    boundary: usize,
    /// A read was laid out, and nobody has said how much came.
    reading: bool,
    /// Bytes of scratch in a read, at most, where no payload is expected.
    limit: usize,
    /// Blocks of no use any more, to be given back.
    unused: Vec<Block>,
    /// Bytes from which on a payload is large.
    large: usize,
}

impl ReadBuffer {
    /// `None` when the system has no memory for it.
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            scratch: Zeroed::apart(SCRATCH_LEN)?,
            other: Zeroed::apart(SCRATCH_LEN)?,
            start: 0,
            end: 0,
            shape: None,
            since_large: SUBMITS_BETWEEN_PAYLOADS,
            wanted: 0,
            ahead: VecDeque::with_capacity(AHEAD_MAX),
            boundary: 0,
            reading: false,
            limit: READ_LEN,
            unused: Vec::with_capacity(AHEAD_MAX),
            large: LARGE_PAYLOAD,
        })
    }

    /// Makes small payloads count as large, to test the way of large payloads with few bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn set_large(&mut self, large: usize) {
        self.large = large;
    }

    /// Lays out the next read; [`Self::add_slices`] says where the bytes go. `before_header` bytes
    /// come before the next header and behind the payload at hand, or `None` if the bytes at hand
    /// are thrown away, by large pieces. Expected payloads get `buffers`, but not of the last part.
    pub(super) fn lay_out(&mut self, before_header: Option<usize>, buffers: &mut Buffers) {
        self.expect_nothing(buffers);
        self.reading = true;
        if self.start < self.end {
            self.scratch.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, self.end - self.start);
        self.limit = READ_LEN;
        let Some(before_header) = before_header else { return };
        if self.since_large < SUBMITS_BETWEEN_PAYLOADS {
            self.limit = READ_BEHIND_PAYLOAD;
        }
        let Some(shape) = self.shape else { return };
        self.boundary = before_header + HEADER_LEN;
        // More than a header waits to be parsed.
        if self.end >= self.boundary {
            return;
        }
        let step = shape.len + self.tail();
        let room = (SCRATCH_LEN - HEADER_LEN - self.boundary) / step;
        for _ in 0..self.wanted.min(room).min(AHEAD_LEN / shape.len) {
            let Some(block) = buffers.take(shape.len, false) else { break };
            self.ahead.push_back(Ahead { block, filled: 0 });
        }
    }

    /// Adds room for bytes from the socket behind the room for the rest of a payload: a slice at
    /// least.
    pub(crate) fn add_slices<'a>(&'a mut self, slices: &mut RxSlices<'a>) {
        let end = self.end;
        let scratch = &mut self.scratch[end..];
        if self.ahead.is_empty() {
            let room = self.limit.saturating_sub(end).max(HEADER_LEN).min(scratch.len());
            slices.push(IoSliceMut::new(&mut scratch[..room]));
            return;
        }
        let tail = self.shape.map_or(0, |shape| shape.descriptors) + HEADER_LEN;
        let (first, mut scratch) = scratch.split_at_mut(self.boundary - end);
        slices.push(IoSliceMut::new(first));
        for ahead in &mut self.ahead {
            let (next, rest) = scratch.split_at_mut(tail);
            scratch = rest;
            slices.push(IoSliceMut::new(&mut ahead.block));
            slices.push(IoSliceMut::new(next));
        }
    }

    /// Bytes of scratch between two payloads of the read at hand.
    fn tail(&self) -> usize {
        self.shape.map_or(0, |shape| shape.descriptors) + HEADER_LEN
    }

    /// Notes `len` bytes that were read into the slices of [`Self::add_slices`].
    #[inline]
    pub(super) fn received(&mut self, len: usize, buffers: &mut Buffers) {
        let reading = std::mem::replace(&mut self.reading, false);
        debug_assert!(reading || len == 0, "nothing is read where there was no room");
        if self.ahead.is_empty() || !reading {
            self.end += len;
            debug_assert!(self.end <= self.scratch.len(), "no more is read than there is room for");
            return;
        }
        self.received_ahead(len, buffers);
    }

    #[inline(never)]
    fn received_ahead(&mut self, len: usize, buffers: &mut Buffers) {
        let tail = self.tail();
        let first = len.min(self.boundary - self.end);
        self.end += first;
        let mut rest = len - first;
        for ahead in &mut self.ahead {
            ahead.filled = rest.min(ahead.block.len());
            rest -= ahead.filled;
            let scratch = rest.min(tail);
            self.end += scratch;
            rest -= scratch;
        }
        let expected = self.ahead.len();
        let full = self.ahead.iter().filter(|ahead| ahead.filled == ahead.block.len()).count();
        // As many as came, and another perhaps on its way; twice as many if there was no room for
        // more. After fewer, as many as before less one: the next may be more again, and a read
        // that does not take all costs a second call.
        self.wanted =
            if full == expected { (2 * full).min(AHEAD_MAX) } else { (full + 1).max(expected - 1) };
        let filled = self.ahead.iter().filter(|ahead| ahead.filled > 0).count();
        for Ahead { block, .. } in self.ahead.drain(filled..) {
            buffers.free(block);
        }
    }

    /// Notes the beginning of an OUT payload; if the payload was expected, returns the block with
    /// the bytes and how many are there. Whether the payload `fits` a block of its own is for the
    /// caller to say.
    pub(crate) fn take_expected(&mut self, shape: Shape, fits: bool) -> Option<(Block, usize)> {
        let large = (shape.len >= self.large).then_some(shape);
        if large == self.shape && fits && self.start == self.boundary {
            let Ahead { block, filled } = self.ahead.pop_front()?;
            self.boundary += self.tail();
            return Some((block, filled));
        }
        self.gather();
        if large != self.shape {
            (self.shape, self.wanted) = (large, 1);
        }
        self.note_since_large(large.is_some());
        None
    }

    /// Notes a SUBMIT, with a large payload or without.
    fn note_since_large(&mut self, is_large: bool) {
        if is_large {
            self.since_large = 0;
        } else if self.since_large < SUBMITS_BETWEEN_PAYLOADS {
            self.since_large += 1;
        }
    }

    /// Notes a SUBMIT without OUT data: no payload is expected behind it.
    pub(crate) fn note_no_payload(&mut self) {
        self.gather();
        self.shape = None;
        self.note_since_large(false);
    }

    /// Bytes of the scratch buffer before the stream goes on in a payload.
    fn available(&self) -> usize {
        if self.ahead.is_empty() { self.end - self.start } else { self.boundary - self.start }
    }

    /// Takes `N` bytes, once all are there.
    pub(crate) fn take_array<const N: usize>(&mut self) -> Option<&[u8; N]> {
        if self.available() < N {
            self.gather();
        }
        let bytes = self.scratch[self.start..self.end].first_chunk()?;
        self.start += N;
        Some(bytes)
    }

    /// Takes up to `max` of the bytes received.
    pub(crate) fn take_up_to(&mut self, max: usize) -> &[u8] {
        if self.available() == 0 {
            self.gather();
        }
        let len = max.min(self.available());
        self.start += len;
        &self.scratch[self.start - len..self.start]
    }

    /// Whether the last payload was long: a few of the kind are more than a cache holds.
    pub(crate) fn is_taking_long_payloads(&self) -> bool {
        self.shape.is_some_and(|shape| shape.len >= LONG_PAYLOAD)
    }

    /// Whether another header is here, and no payload is expected.
    pub(crate) fn has_header(&self) -> bool {
        self.ahead.is_empty() && self.end - self.start >= HEADER_LEN
    }

    /// Whether there are bytes not taken.
    pub(crate) fn has_unparsed(&self) -> bool {
        self.start < self.end || self.ahead.front().is_some_and(|ahead| ahead.filled > 0)
    }

    /// Puts all bytes into the scratch buffer, in the order of the stream: the client sent
    /// something else than the read was laid out for.
    fn gather(&mut self) {
        if !self.ahead.is_empty() {
            self.gather_ahead();
        }
    }

    #[cold]
    fn gather_ahead(&mut self) {
        let tail = self.tail();
        let (mut from, mut to, mut at) = (self.start, self.boundary.min(self.end), 0);
        let mut put = |bytes: &[u8]| {
            self.other[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.scratch[from..to]);
        for Ahead { block, filled } in self.ahead.drain(..) {
            put(&block[..filled]);
            (from, to) = (to, (to + tail).min(self.end));
            put(&self.scratch[from..to]);
            self.unused.push(block);
        }
        std::mem::swap(&mut self.scratch, &mut self.other);
        (self.start, self.end, self.wanted) = (0, at, 1);
    }

    /// Gives back the blocks of no use any more.
    #[inline]
    pub(super) fn free_unused(&mut self, buffers: &mut Buffers) {
        if !self.unused.is_empty() {
            self.free_all_unused(buffers);
        }
    }

    #[cold]
    fn free_all_unused(&mut self, buffers: &mut Buffers) {
        for block in self.unused.drain(..) {
            buffers.free(block);
        }
    }

    /// Expects nothing any more; bytes received stay.
    fn expect_nothing(&mut self, buffers: &mut Buffers) {
        self.gather();
        self.free_unused(buffers);
    }

    /// Gives the memory of all bytes but those that wait back to the system, and the buffers of
    /// expected payloads. A payload that comes all the same is copied once.
    pub(super) fn give_back(&mut self, buffers: &mut Buffers) {
        self.expect_nothing(buffers);
        let kept = if self.start < self.end { self.end } else { 0 };
        (self.start, self.end) = if kept > 0 { (self.start, self.end) } else { (0, 0) };
        self.scratch.give_back(kept..SCRATCH_LEN);
        self.other.give_back(0..SCRATCH_LEN);
    }

    /// Forgets everything: nobody will ask.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        self.expect_nothing(buffers);
        self.shape = None;
        (self.start, self.end) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { endpoint: EndpointAddress::from_byte(1), len: 10_000, descriptors: 16 };

    fn memory() -> Buffers {
        Buffers::with_reserve(1 << 20, 0)
    }

    /// Reads from `stream` once, as much as there is room for. A header comes next.
    fn read(buffer: &mut ReadBuffer, memory: &mut Buffers, stream: &mut &[u8]) {
        buffer.lay_out(Some(0), memory);
        read_laid_out(buffer, memory, stream);
    }

    fn read_laid_out(buffer: &mut ReadBuffer, memory: &mut Buffers, stream: &mut &[u8]) {
        let mut slices = RxSlices::new();
        buffer.add_slices(&mut slices);
        let mut len = 0;
        for mut slice in slices {
            let (now, later) = stream.split_at(slice.len().min(stream.len()));
            slice[..now.len()].copy_from_slice(now);
            (*stream, len) = (later, len + now.len());
        }
        buffer.received(len, memory);
    }

    #[test]
    fn an_incomplete_array_stays_until_it_is_whole() {
        let (mut buffer, mut memory) = (ReadBuffer::new().unwrap(), memory());
        read(&mut buffer, &mut memory, &mut &[1, 2, 3][..]);
        assert_eq!(buffer.take_array::<4>(), None);
        read(&mut buffer, &mut memory, &mut &[4, 5][..]);
        assert_eq!(buffer.take_array::<4>(), Some(&[1, 2, 3, 4]));
        assert!(buffer.has_unparsed());
        assert_eq!(buffer.take_up_to(9), [5]);
        assert!(!buffer.has_unparsed());
    }

    #[test]
    fn there_is_always_room_for_a_header() {
        let (mut buffer, mut memory) = (ReadBuffer::new().unwrap(), memory());
        for _ in 0..10_000 {
            read(&mut buffer, &mut memory, &mut &[7; 48][..]);
            assert_eq!(buffer.take_up_to(48).len(), 48);
        }
    }

    #[test]
    fn little_is_read_behind_payloads_too_large_to_be_expected() {
        let (mut buffer, mut memory) = (ReadBuffer::new().unwrap(), memory());
        let stream = [7; READ_LEN + 1];
        for (len, expected) in [(0, READ_LEN), (AHEAD_LEN + 1, READ_BEHIND_PAYLOAD)] {
            assert!(buffer.take_expected(Shape { len, ..SHAPE }, true).is_none());
            let mut rest = &stream[..];
            read(&mut buffer, &mut memory, &mut rest);
            assert_eq!(stream.len() - rest.len(), expected, "behind {len} bytes");
            assert_eq!(buffer.take_up_to(usize::MAX).len(), expected);
        }
        assert_eq!(memory.outstanding(), 0);
    }

    #[test]
    fn little_is_read_between_large_payloads() {
        let (mut buffer, mut memory) = (ReadBuffer::new().unwrap(), memory());
        let stream = [7; READ_LEN + 1];
        let mut bytes_read = |buffer: &mut ReadBuffer| {
            let mut rest = &stream[..];
            read(buffer, &mut memory, &mut rest);
            buffer.take_up_to(usize::MAX);
            stream.len() - rest.len()
        };
        for _ in 0..2 {
            assert!(buffer.take_expected(SHAPE, false).is_none());
            for number in 1..=2 * SUBMITS_BETWEEN_PAYLOADS {
                // A status is read, or a command written.
                if number % 2 == 0 {
                    buffer.note_no_payload();
                } else {
                    assert!(buffer.take_expected(Shape { len: 31, ..SHAPE }, true).is_none());
                }
                let is_between = number < SUBMITS_BETWEEN_PAYLOADS;
                let expected = if is_between { READ_BEHIND_PAYLOAD } else { READ_LEN };
                assert_eq!(bytes_read(&mut buffer), expected, "behind {number} SUBMITs");
            }
        }
        assert_eq!(memory.outstanding(), 0);
    }

    #[test]
    fn a_discarded_payload_is_read_by_large_pieces() {
        let (mut buffer, mut memory) = (ReadBuffer::new().unwrap(), memory());
        assert!(buffer.take_expected(SHAPE, false).is_none());
        let stream = [7; READ_LEN + 1];
        let mut rest = &stream[..];
        buffer.lay_out(None, &mut memory);
        read_laid_out(&mut buffer, &mut memory, &mut rest);
        assert_eq!(rest.len(), 1);
    }

    /// The buffer behind a payload of [`SHAPE`], more of which are expected.
    fn expecting(payloads: usize) -> ReadBuffer {
        let mut buffer = ReadBuffer::new().unwrap();
        assert!(buffer.take_expected(SHAPE, true).is_none());
        buffer.wanted = payloads;
        buffer
    }

    /// Headers, payloads and descriptors of `count` SUBMITs, all numbered.
    fn stream(count: u8) -> Vec<u8> {
        let part = |number: u8, len: usize| vec![number; len];
        let pdus = (0..count).map(|n| [part(n, 48), part(n + 100, 10_000), part(n + 200, 16)]);
        pdus.flatten().flatten().collect()
    }

    #[test]
    fn an_expected_payload_comes_in_its_block() {
        let (mut buffer, mut memory) = (expecting(3), memory());
        let bytes = stream(5);
        let mut rest = &bytes[..];
        read(&mut buffer, &mut memory, &mut rest);
        assert_eq!(bytes.len() - rest.len(), 3 * (48 + 10_000 + 16) + 48);
        for number in 0..3 {
            assert_eq!(buffer.take_array(), Some(&[number; 48]));
            let (block, filled) = buffer.take_expected(SHAPE, true).expect("it was expected");
            assert!(filled == 10_000 && block[..] == [number + 100; 10_000]);
            assert_eq!(buffer.take_array(), Some(&[number + 200; 16]));
            memory.free(block);
        }
        assert_eq!(buffer.take_array(), Some(&[3; 48]));
        assert!(!buffer.has_unparsed() && buffer.take_expected(SHAPE, true).is_none());
        assert_eq!((buffer.wanted, memory.outstanding()), (6, 0));
    }

    #[test]
    fn room_for_payloads_grows_at_once_and_shrinks_slowly() {
        let (mut buffer, mut memory) = (expecting(4), memory());
        for (came, wanted) in [(4, 8), (2, 7), (1, 6), (6, 12), (0, 11), (11, AHEAD_MAX)] {
            read(&mut buffer, &mut memory, &mut &stream(came)[..]);
            for _ in 0..came {
                assert!(buffer.take_array::<48>().is_some());
                let (block, _) = buffer.take_expected(SHAPE, true).expect("it was expected");
                assert!(buffer.take_array::<16>().is_some());
                memory.free(block);
            }
            assert_eq!((buffer.wanted, memory.outstanding()), (wanted, 0), "{came} came");
        }
    }

    #[test]
    fn a_payload_may_end_anywhere() {
        for cut in [48, 49, 48 + 9_999, 48 + 10_000, 48 + 10_007, 48 + 10_016, 48 + 10_030] {
            let (mut buffer, mut memory) = (expecting(2), memory());
            let bytes = stream(2);
            read(&mut buffer, &mut memory, &mut &bytes[..cut]);
            assert_eq!(buffer.take_array(), Some(&[0; 48]));
            let Some((block, filled)) = buffer.take_expected(SHAPE, true) else {
                assert_eq!(cut, 48);
                continue;
            };
            assert_eq!(filled, (cut - 48).min(10_000));
            memory.free(block);
            assert_eq!(buffer.take_up_to(99).len(), cut - 48 - filled);
            assert_eq!(memory.outstanding(), 0);
        }
    }

    #[test]
    fn bytes_not_expected_are_gathered() {
        let others: [fn(&mut ReadBuffer); 4] = [
            |buffer| assert!(buffer.take_expected(SHAPE, false).is_none()),
            |buffer| {
                let other = Shape { len: 9_999, ..SHAPE };
                assert!(buffer.take_expected(other, true).is_none());
            },
            ReadBuffer::note_no_payload,
            |_| {},
        ];
        for other in others {
            let (mut buffer, mut memory) = (expecting(2), memory());
            let bytes = stream(2);
            read(&mut buffer, &mut memory, &mut &bytes[..]);
            assert_eq!(buffer.take_array(), Some(&[0; 48]));
            other(&mut buffer);
            let mut gathered: Vec<u8> = Vec::new();
            while buffer.has_unparsed() {
                gathered.extend(buffer.take_up_to(777));
            }
            assert!(gathered == bytes[48..]);
            buffer.free_unused(&mut memory);
            assert_eq!(memory.outstanding(), 0);
        }
    }

    #[test]
    fn an_empty_read_keeps_no_buffer() {
        let (mut buffer, mut memory) = (expecting(9), memory());
        read(&mut buffer, &mut memory, &mut &[][..]);
        assert!(memory.outstanding() == 0 && !buffer.has_unparsed());
        // Laid out twice, without a word on what came.
        buffer.lay_out(Some(0), &mut memory);
        buffer.lay_out(Some(0), &mut memory);
        buffer.clear(&mut memory);
        assert_eq!(memory.outstanding(), 0);
        // Nothing is expected where memory is short.
        let mut buffer = expecting(9);
        let mut memory = Buffers::with_reserve(1 << 20, (1 << 20) - 20_000);
        buffer.lay_out(Some(0), &mut memory);
        assert_eq!(buffer.ahead.len(), 1);
        buffer.clear(&mut memory);
    }
}
