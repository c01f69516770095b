//! An answer beside the answer of the recording.
//!
//! Contract: pure.

use std::fmt;

use super::link::Answer;
use crate::usbmon::recording::{Ended, Urb};
use crate::wire::status::Status;

/// A URB with another answer than the recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The packet with the submission, as Wireshark counts.
    pub packet: u64,
    /// Number and direction.
    pub endpoint: u8,
    /// Bytes asked for.
    pub len: u32,
    /// The first thing that differs.
    pub what: What,
}

/// What differs; first of the recording, then of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The status.
    Status(Status, Status),
    /// Bytes moved.
    Moved(u32, u32),
    /// The byte at this place.
    Data(usize, u8, u8),
    /// An isochronous packet: its place, and its status and length.
    Packet(usize, (Status, u32), (Status, u32)),
    /// No answer came, where the recording has this status.
    Unanswered(Status),
}

/// The result of a comparison.
pub(super) struct Compared {
    pub(super) what: Option<What>,
    /// The recording has a part of the data only.
    pub(super) is_in_part: bool,
}

impl Difference {
    pub(super) const fn new(urb: &Urb, what: What) -> Self {
        Self { packet: urb.number, endpoint: urb.endpoint, len: urb.asked, what }
    }
}

/// Compares an answer with the recorded end of a URB.
pub(super) fn compare(urb: &Urb, end: &Ended, answer: &Answer, ignore_data: bool) -> Compared {
    let recorded = &end.received;
    let is_in = urb.endpoint & 0x80 != 0;
    let is_isochronous = !urb.packets.is_empty();
    let is_short = !is_isochronous && recorded.bytes.len() < end.moved as usize;
    let what = if end.status != answer.status.0 {
        Some(What::Status(Status(end.status), answer.status))
    } else if end.moved != answer.moved {
        Some(What::Moved(end.moved, answer.moved))
    } else if is_isochronous {
        packets(end, answer, is_in && !ignore_data)
    } else if is_in && !ignore_data {
        first_other(0, &recorded.bytes, &answer.data)
    } else {
        None
    };
    Compared { what, is_in_part: is_in && !ignore_data && (recorded.is_cut || is_short) }
}

/// The first packet that differs.
fn packets(end: &Ended, answer: &Answer, with_data: bool) -> Option<What> {
    let mut from = 0;
    for (place, (was, is)) in end.packets.iter().zip(&answer.packets).enumerate() {
        let (was_like, is_like) = ((Status(was.status), was.length), (is.status, is.actual_length));
        if was_like != is_like {
            return Some(What::Packet(place, was_like, is_like));
        }
        let len = was.length as usize;
        let now = answer.data.get(from..from + len).unwrap_or_default();
        let offset = was.offset as usize;
        let behind = end.received.bytes.get(offset..).unwrap_or_default();
        let recorded = &behind[..len.min(behind.len())];
        from += len;
        if let Some(what) = first_other(offset, recorded, now).filter(|_| with_data) {
            return Some(what);
        }
    }
    None
}

/// The first byte that differs, of as many as both have; data begins at `offset`.
fn first_other(offset: usize, recorded: &[u8], now: &[u8]) -> Option<What> {
    let mut pairs = recorded.iter().zip(now).enumerate();
    let (at, (was, is)) = pairs.find(|(_, (was, is))| was != is)?;
    Some(What::Data(offset + at, *was, *is))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packet, endpoint, len, what } = self;
        write!(f, "packet {packet}, endpoint {endpoint:#04x}, {len} bytes asked for: {what}")
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(was, is) => write!(f, "status {was} in the recording, {is} now"),
            Self::Moved(was, is) => write!(f, "{was} bytes in the recording, {is} now"),
            Self::Data(at, was, is) => {
                write!(f, "byte {at} is {was:#04x} in the recording, {is:#04x} now")
            }
            Self::Packet(at, was, is) => write!(
                f,
                "isochronous packet {at} has status {} and {} bytes in the recording, {} and {} now",
                was.0, was.1, is.0, is.1
            ),
            Self::Unanswered(was) => write!(f, "status {was} in the recording, no answer now"),
        }
    }
}
