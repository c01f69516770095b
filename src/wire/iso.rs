//! The packet descriptors at the end of an isochronous URB's PDU (`struct
//! usbip_iso_packet_descriptor`): four big-endian words each.
//!
//! A reply carries the request's descriptors, with only the last two words of each changed. So both
//! types are views of the same bytes, and the descriptors stay where they were received.
//!
//! Contract: pure functions in place, without allocation. [`Packets::join`] takes packets that
//! [`Packets::check`] has accepted for the same buffer, and panics for packets outside of the
//! buffer; nothing else panics.

use super::status::Status;

/// Bytes of one descriptor.
pub const DESCRIPTOR_LEN: usize = 16;

/// Most packets of one URB (`USBIP_MAX_ISO_PACKETS`).
pub const PACKETS_MAX: u32 = 1024;

/// The descriptors of a URB, to read.
#[derive(Clone, Copy)]
pub struct Packets<'a>(&'a [[u8; DESCRIPTOR_LEN]]);

/// One packet of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are the kernel's")]
pub struct Packet {
    /// Where the packet starts in the client's buffer, in bytes.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    pub actual_length: u32,
    pub status: Status,
}

/// The fault in a request's descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketError {
    /// A packet ends behind the buffer, or the packets together are longer than the buffer.
    OutOfBuffer,
    /// OUT packets overlap or go backwards, so the data cannot be joined in place.
    Overlap,
}

impl<'a> Packets<'a> {
    /// Views `bytes` as descriptors, without an incomplete descriptor at the end.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.as_chunks().0)
    }

    /// Number of packets.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The packets in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Packet> + 'a {
        self.0.iter().map(|bytes| {
            let words = bytes.as_chunks::<4>().0;
            Packet {
                offset: u32::from_be_bytes(words[0]),
                length: u32::from_be_bytes(words[1]),
                actual_length: u32::from_be_bytes(words[2]),
                status: Status(i32::from_be_bytes(words[3])),
            }
        })
    }

    /// Checks a request against its buffer of `buffer_len` bytes and returns the sum of the
    /// lengths: the bytes of the packets without gaps, as usbfs stores them.
    ///
    /// # Errors
    /// See [`PacketError`]; overlaps only matter `for_out`, where data is joined in place.
    pub fn check(self, buffer_len: u32, for_out: bool) -> Result<u32, PacketError> {
        let mut sum = 0u64;
        for packet in self.iter() {
            let end = u64::from(packet.offset) + u64::from(packet.length);
            if end > buffer_len.into() {
                return Err(PacketError::OutOfBuffer);
            }
            if for_out && u64::from(packet.offset) < sum {
                return Err(PacketError::Overlap);
            }
            sum += u64::from(packet.length);
        }
        u32::try_from(sum).ok().filter(|&sum| sum <= buffer_len).ok_or(PacketError::OutOfBuffer)
    }

    /// Closes the gaps between the packets of an OUT buffer, checked `for_out`.
    pub fn join(self, data: &mut [u8]) {
        let mut to = 0;
        for packet in self.iter() {
            let (offset, length) = (packet.offset as usize, packet.length as usize);
            if offset != to {
                data.copy_within(offset..offset + length, to);
            }
            to += length;
        }
    }
}

/// The descriptors of a URB, to fill in.
pub struct PacketsMut<'a>(&'a mut [[u8; DESCRIPTOR_LEN]]);

impl<'a> PacketsMut<'a> {
    /// Views `bytes` as descriptors, without an incomplete descriptor at the end.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes.as_chunks_mut().0)
    }

    /// Number of packets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the actual length and status of each packet, in order; packets without a result stay
    /// as they are. Returns the sum of the actual lengths and the number of failed packets. An
    /// actual length never exceeds the requested length.
    #[inline]
    pub fn fill(&mut self, results: impl IntoIterator<Item = (u32, Status)>) -> (u32, u32) {
        let (mut sum, mut errors) = (0u32, 0);
        for (bytes, (actual_length, status)) in self.0.iter_mut().zip(results) {
            let words = bytes.as_chunks_mut::<4>().0;
            let length = u32::from_be_bytes(words[1]);
            let actual_length = actual_length.min(length);
            words[2] = actual_length.to_be_bytes();
            words[3] = status.0.to_be_bytes();
            sum = sum.saturating_add(actual_length);
            errors += u32::from(status != Status::OK);
        }
        (sum, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(packets: &[(u32, u32)]) -> Vec<u8> {
        let words = packets.iter().flat_map(|&(offset, length)| [offset, length, 0, 0xffff_ffee]);
        words.flat_map(u32::to_be_bytes).collect()
    }

    #[test]
    fn packets_read_back() {
        let bytes = descriptors(&[(0, 192), (192, 100)]);
        let packets = Packets::new(&bytes);
        assert_eq!(packets.len(), 2);
        let second = Packet { offset: 192, length: 100, actual_length: 0, status: Status::EXDEV };
        assert_eq!(packets.iter().last(), Some(second));
        assert_eq!(packets.check(292, true), Ok(292));
    }

    #[test]
    fn packets_outside_the_buffer_are_refused() {
        let check = |packets: &[(u32, u32)], len, for_out| {
            Packets::new(&descriptors(packets)).check(len, for_out)
        };
        assert_eq!(check(&[(0, 100), (100, 101)], 200, false), Err(PacketError::OutOfBuffer));
        assert_eq!(check(&[(u32::MAX, 2)], 200, false), Err(PacketError::OutOfBuffer));
        assert_eq!(check(&[(0, 150), (0, 150)], 200, false), Err(PacketError::OutOfBuffer));
        assert_eq!(check(&[(0, 100), (50, 100)], 200, true), Err(PacketError::Overlap));
        assert_eq!(check(&[(0, 100), (50, 100)], 200, false), Ok(200));
    }

    #[test]
    fn gaps_close() {
        let mut data: Vec<u8> = (0..=255).collect();
        let bytes = descriptors(&[(0, 2), (100, 3), (103, 1), (250, 4)]);
        let packets = Packets::new(&bytes);
        assert_eq!(packets.check(256, true), Ok(10));
        packets.join(&mut data);
        assert_eq!(data[..10], [0, 1, 100, 101, 102, 103, 250, 251, 252, 253]);
    }

    #[test]
    fn results_go_into_the_last_two_words_only() {
        let mut bytes = descriptors(&[(0, 10), (10, 10), (20, 10)]);
        let results = [(10, Status::OK), (4, Status::EPROTO), (99, Status::OK)];
        let totals = PacketsMut::new(&mut bytes).fill(results);
        assert_eq!(totals, (24, 1));
        let read: Vec<Packet> = Packets::new(&bytes).iter().collect();
        assert_eq!((read[1].offset, read[1].length), (10, 10));
        assert_eq!((read[1].actual_length, read[1].status), (4, Status::EPROTO));
        assert_eq!(read[2].actual_length, 10, "never more than was asked for");
    }
}
