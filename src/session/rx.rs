//! The bytes of a client on their way in: a scratch buffer, and where in a PDU the stream stands.
//!
//! ```text
//! scratch   |..taken..|====unparsed====|......room......|
//!           0      start              end              len      start <= end <= len
//! ```
//!
//! Small PDUs are read many at a time into the scratch buffer and parsed there. The rest of a
//! large OUT payload is read straight into the URB's buffer, by the same call that reads what
//! follows it into the scratch; while a client sends such payloads little is read behind them, so
//! that the next payload is not copied either.
//!
//! Contract: no allocation after `new`; knows no socket and no meaning of a PDU.

use super::urb::UrbIndex;

/// Bytes of the scratch buffer: several hundred headers, or a good part of a socket's buffer of
/// small payloads.
const SCRATCH_LEN: usize = 64 * 1024;

/// Bytes read behind a large payload: the next header, and payload that is small anyway.
const SCRATCH_BEHIND_PAYLOAD: usize = 4 * 1024;

/// Bytes of a payload from which on it is large: copying so much costs more than another read.
const LARGE_PAYLOAD: usize = 8 * 1024;

/// Where in a PDU the stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// A header comes next.
    Header,
    /// Bytes `filled..end` of a URB's buffer come next.
    Payload { urb: UrbIndex, filled: usize, end: usize },
    /// So many bytes come next that nobody wants.
    Discard { urb: UrbIndex, remaining: usize },
    /// Bytes `filled..end` of a URB's descriptors come next.
    Packets { urb: UrbIndex, filled: usize, end: usize },
}

/// The receiving side of a session.
pub(crate) struct Receiver {
    scratch: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last OUT payload was large.
    large_payloads: bool,
    pub(crate) stage: Stage,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
            large_payloads: false,
            stage: Stage::Header,
        }
    }

    /// Room for bytes from the socket. All that was received is parsed first, so what is left is
    /// less than a header, and moves to the front.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.scratch.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let limit = if self.large_payloads { SCRATCH_BEHIND_PAYLOAD } else { SCRATCH_LEN };
        &mut self.scratch[self.end..limit.max(self.end)]
    }

    /// Notes `len` bytes that were read into [`Self::room`].
    pub(crate) fn received(&mut self, len: usize) {
        self.end += len;
        debug_assert!(self.end <= self.scratch.len(), "no more is read than there is room for");
    }

    /// Notes the length of an OUT payload that begins.
    pub(crate) const fn begin_payload(&mut self, len: usize) {
        self.large_payloads = len >= LARGE_PAYLOAD;
    }

    /// Takes `N` bytes, once they are all there.
    pub(crate) fn take_array<const N: usize>(&mut self) -> Option<&[u8; N]> {
        let bytes = self.scratch[self.start..self.end].first_chunk()?;
        self.start += N;
        Some(bytes)
    }

    /// Takes up to `max` bytes of those that are there.
    pub(crate) fn take_up_to(&mut self, max: usize) -> &[u8] {
        let len = max.min(self.end - self.start);
        self.start += len;
        &self.scratch[self.start - len..self.start]
    }

    /// Whether bytes are there that were not taken.
    pub(crate) const fn has_unparsed(&self) -> bool {
        self.start < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(receiver: &mut Receiver, bytes: &[u8]) {
        receiver.room()[..bytes.len()].copy_from_slice(bytes);
        receiver.received(bytes.len());
    }

    #[test]
    fn an_incomplete_array_stays_until_it_is_whole() {
        let mut receiver = Receiver::new();
        receive(&mut receiver, &[1, 2, 3]);
        assert_eq!(receiver.take_array::<4>(), None);
        receive(&mut receiver, &[4, 5]);
        assert_eq!(receiver.take_array::<4>(), Some(&[1, 2, 3, 4]));
        assert!(receiver.has_unparsed());
        assert_eq!(receiver.take_up_to(9), [5]);
        assert!(!receiver.has_unparsed());
    }

    #[test]
    fn there_is_always_room_for_a_header() {
        let mut receiver = Receiver::new();
        for _ in 0..10_000 {
            receive(&mut receiver, &[7; 47]);
            assert_eq!(receiver.take_up_to(47).len(), 47);
            assert!(receiver.room().len() >= 48);
        }
    }

    #[test]
    fn little_is_read_behind_large_payloads() {
        let mut receiver = Receiver::new();
        assert_eq!(receiver.room().len(), SCRATCH_LEN);
        receiver.begin_payload(LARGE_PAYLOAD);
        assert_eq!(receiver.room().len(), SCRATCH_BEHIND_PAYLOAD);
        receiver.begin_payload(64);
        assert_eq!(receiver.room().len(), SCRATCH_LEN);
    }
}
