//! The protocol's bytes, as far as a load needs them. Written for this program alone, so that no
//! mistake in the server's own wire code can hide behind the same mistake here.

use std::io::IoSlice;

/// Bytes of a header.
pub const HEADER_LEN: usize = 48;

/// Bytes of a packet descriptor.
pub const DESCRIPTOR_LEN: usize = 16;

/// The place of the seqnum in a header.
pub const SEQNUM: std::ops::Range<usize> = 4..8;

/// Bytes after which the pattern repeats.
pub const PERIOD: usize = 251;

/// Puts the parts of a PDU behind the first `skip` bytes into `slices`, and subtracts the skipped
/// bytes from `skip`. Returns the number of used slices.
pub fn slice_parts<'a>(
    parts: [&'a [u8]; 3],
    skip: &mut usize,
    slices: &mut [IoSlice<'a>],
) -> usize {
    let mut used = 0;
    for part in parts {
        let skipped = (*skip).min(part.len());
        *skip -= skipped;
        if skipped < part.len() {
            slices[used] = IoSlice::new(&part[skipped..]);
            used += 1;
        }
    }
    used
}

/// A CMD_SUBMIT to be written.
#[derive(Clone, Copy, Debug)]
pub struct Submit {
    /// The command's own number.
    pub seqnum: u32,
    /// The device, by the reply to its import.
    pub devid: u32,
    /// Data flows to the client.
    pub is_in: bool,
    /// Endpoint number.
    pub endpoint: u8,
    /// `transfer_buffer_length`.
    pub len: usize,
    /// `number_of_packets`.
    pub packets: usize,
    /// The SETUP packet.
    pub setup: [u8; 8],
}

impl Submit {
    /// The header.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER_LEN] {
        let len = u32::try_from(self.len).expect("loads are short");
        let packets = u32::try_from(self.packets).expect("a thousand packets at most");
        let words =
            [1, self.seqnum, self.devid, self.is_in.into(), self.endpoint.into(), 0, len, 0];
        let mut header = [0; HEADER_LEN];
        put_words(&mut header, &words);
        header[32..36].copy_from_slice(&packets.to_be_bytes());
        header[40..].copy_from_slice(&self.setup);
        header
    }
}

/// The header of a CMD_UNLINK.
#[must_use]
pub fn unlink(seqnum: u32, devid: u32, target: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    put_words(&mut header, &[2, seqnum, devid, 0, 0, target]);
    header
}

fn put_words(bytes: &mut [u8], words: &[u32]) {
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// Word `index` of a header.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn word(header: &[u8], index: usize) -> u32 {
    let bytes = header[4 * index..4 * index + 4].try_into().expect("four bytes");
    u32::from_be_bytes(bytes)
}

/// The descriptors of packets without gaps.
#[must_use]
pub fn descriptors(packets: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; packets * DESCRIPTOR_LEN];
    for (index, descriptor) in bytes.chunks_exact_mut(DESCRIPTOR_LEN).enumerate() {
        let offset = u32::try_from(index * len).expect("loads are short");
        put_words(descriptor, &[offset, u32::try_from(len).expect("packets are short")]);
    }
    bytes
}

/// The pattern, from position 0 on.
#[must_use]
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|position| u8::try_from(position % PERIOD).expect("below 251")).collect()
}
