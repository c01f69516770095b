//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng): a section, its interfaces, records, and
//! statistics.
//!
//! Written here and not by a crate: the crates take the data of a record as one slice, and the
//! parts of a record (header, descriptors, data with gaps) would be copied once more for each URB.
//!
//! Contract: appends to a buffer, which grows only where it has no room; nothing panics but for
//! texts and records longer than a block can be, which `capture`
//! keeps out.

use std::fmt::{Display, Write as _};

use super::LINK_TYPE;

/// Bytes that a record needs at most beside its data: the block's own, padding, and a comment of
/// [`COMMENT_MAX`] bytes.
pub(crate) const RECORD_OVERHEAD: usize = 48 + COMMENT_MAX;

/// Bytes of a record's block before its data.
const RECORD_HEAD_LEN: usize = 28;

/// Bytes of the longest comment.
pub(crate) const COMMENT_MAX: usize = 200;

/// The type of a section header, the same in either byte order.
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const RECORD: u32 = 6;

const BYTE_ORDER: u32 = 0x1A2B_3C4D;

/// The options used here.
mod option {
    pub(super) const COMMENT: u16 = 1;
    pub(super) const APPLICATION: u16 = 4;
    pub(super) const NAME: u16 = 2;
    pub(super) const DESCRIPTION: u16 = 3;
    pub(super) const SPEED: u16 = 8;
    pub(super) const RESOLUTION: u16 = 9;
    pub(super) const RECEIVED: u16 = 4;
    pub(super) const DROPPED: u16 = 5;
}

/// Times are in units of 10 to the minus this.
const NANOSECONDS: u8 = 9;

/// Whether a piece of a file begins with a section.
pub(crate) fn begins_section(piece: &[u8]) -> bool {
    piece.starts_with(&SECTION.to_ne_bytes())
}

/// The data of the records in whole blocks.
pub(crate) fn records(mut blocks: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let Some((head, _)) = blocks.split_first_chunk::<8>() {
            let [kind, len] = head.as_chunks::<4>().0 else { return None };
            let len = u32::from_ne_bytes(*len) as usize;
            let (block, behind) = blocks.split_at_checked(len.max(head.len()))?;
            blocks = behind;
            if u32::from_ne_bytes(*kind) == RECORD {
                return block.get(RECORD_HEAD_LEN..);
            }
        }
        None
    })
}

/// The time of the first of some records, in nanoseconds.
pub(crate) fn first_time(records: &[u8]) -> Option<u64> {
    let [high, low] = records.get(12..20)?.as_chunks::<4>().0 else { return None };
    Some(u64::from(u32::from_ne_bytes(*high)) << 32 | u64::from(u32::from_ne_bytes(*low)))
}

/// Appends a section header.
pub(crate) fn section(out: &mut Vec<u8>) {
    let block = Block::begin(out, SECTION);
    block.out.extend(BYTE_ORDER.to_ne_bytes());
    block.out.extend([1u16, 0].map(u16::to_ne_bytes).concat());
    // The length of the section is not known.
    block.out.extend((-1i64).to_ne_bytes());
    let application = concat!("usbferry ", env!("CARGO_PKG_VERSION"));
    block.option(option::APPLICATION, application.as_bytes()).end();
}

/// Appends an interface, the next by number, with a speed in bits a second.
pub(crate) fn interface(
    out: &mut Vec<u8>,
    [name, description]: [&str; 2],
    speed: u64,
    snap_len: u32,
) {
    let block = Block::begin(out, INTERFACE);
    block.out.extend(LINK_TYPE.to_ne_bytes());
    block.out.extend([0; 2]);
    block.out.extend(snap_len.to_ne_bytes());
    block
        .option(option::NAME, name.as_bytes())
        .option(option::DESCRIPTION, description.as_bytes())
        .option(option::SPEED, &speed.to_ne_bytes())
        .option(option::RESOLUTION, &[NANOSECONDS])
        .end();
}

/// Appends the statistics of an interface, at a time in nanoseconds.
pub(crate) fn statistics(
    out: &mut Vec<u8>,
    (interface, time): (u32, u64),
    [received, dropped]: [u64; 2],
    comment: &impl Display,
) {
    let mut block = Block::begin(out, STATISTICS);
    block.out.extend(interface.to_ne_bytes());
    block.time(time);
    block
        .option(option::RECEIVED, &received.to_ne_bytes())
        .option(option::DROPPED, &dropped.to_ne_bytes())
        .comment(comment)
        .end();
}

/// The place, the time and the lengths of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) interface: u32,
    /// In nanoseconds.
    pub(crate) time: u64,
    /// Bytes in the file.
    pub(crate) captured: usize,
    /// Bytes that there were to capture.
    pub(crate) len: usize,
}

/// A record at the end of a buffer, to which its captured bytes are appended next.
#[must_use]
pub(crate) struct Record {
    start: usize,
    /// Bytes of the block without a comment.
    len: u32,
    is_aligned: bool,
}

impl Record {
    /// Appends the head of a record. In a single piece, and with the length of the block without a
    /// comment, since most records have none and two are written for each URB.
    #[inline(always)]
    pub(crate) fn begin(out: &mut Vec<u8>, stamp: Stamp) -> Self {
        let Stamp { interface, time, captured, len } = stamp;
        let [high, low] = halves(time);
        let block_len = word(RECORD_HEAD_LEN + captured.next_multiple_of(4) + 4);
        let start = out.len();
        let head = [RECORD, block_len, interface, high, low, word(captured), word(len)];
        out.extend_from_slice(head.map(u32::to_ne_bytes).as_flattened());
        Self { start, len: block_len, is_aligned: captured.is_multiple_of(4) }
    }

    /// Ends the record behind its captured bytes.
    #[inline(always)]
    pub(crate) fn end(self, out: &mut Vec<u8>) {
        let Self { start, len, is_aligned } = self;
        if !is_aligned {
            Block { out, start }.pad();
        }
        out.extend_from_slice(&len.to_ne_bytes());
    }

    /// Ends the record with a comment.
    pub(crate) fn end_with(self, out: &mut Vec<u8>, comment: &impl Display) {
        let mut block = Block { out, start: self.start };
        block.pad();
        block.comment(comment).end();
    }
}

/// Makes whole blocks of records those of another interface.
pub(crate) fn change_interface(mut records: &mut [u8], interface: u32) {
    while let Some(head) = records.first_chunk_mut::<12>() {
        let [_, len, place] = head.as_chunks_mut::<4>().0 else { return };
        *place = interface.to_ne_bytes();
        let len = u32::from_ne_bytes(*len) as usize;
        let Some((_, behind)) = records.split_at_mut_checked(len) else { return };
        records = behind;
    }
}

/// The two words of a time in a block: the high word goes first, in either byte order.
fn halves(time: u64) -> [u32; 2] {
    [time >> 32, time & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(u32::MAX))
}

fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A block under way at the end of a buffer.
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        out.extend(kind.to_ne_bytes());
        out.extend([0; 4]);
        Self { out, start }
    }

    /// A time in nanoseconds.
    fn time(&mut self, time: u64) {
        self.out.extend_from_slice(halves(time).map(u32::to_ne_bytes).as_flattened());
    }

    fn pad(&mut self) {
        let len = self.out.len() - self.start;
        self.out.extend_from_slice(&[0; 3][..len.next_multiple_of(4) - len]);
    }

    fn option(mut self, code: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.out.extend(code.to_ne_bytes());
        self.out.extend(len.to_ne_bytes());
        self.out.extend(&value[..usize::from(len)]);
        self.pad();
        self
    }

    /// A comment, cut at [`COMMENT_MAX`] bytes.
    fn comment(mut self, text: &impl Display) -> Self {
        self.out.extend(option::COMMENT.to_ne_bytes());
        let start = self.out.len() + 2;
        self.out.extend([0; 2]);
        let mut room = Room { out: self.out, room: COMMENT_MAX };
        let _ = write!(room, "{text}");
        let len = u16::try_from(self.out.len() - start).unwrap_or(u16::MAX);
        self.out[start - 2..start].copy_from_slice(&len.to_ne_bytes());
        self.pad();
        self
    }

    /// Ends a block with options.
    fn end(self) {
        self.out.extend([0; 4]);
        let len = word(self.out.len() + 4 - self.start);
        self.out.extend_from_slice(&len.to_ne_bytes());
        self.out[self.start + 4..self.start + 8].copy_from_slice(&len.to_ne_bytes());
    }
}

/// A buffer that takes text, up to a number of bytes.
struct Room<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
}

impl std::fmt::Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let mut len = text.len().min(self.room);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.room -= len;
        self.out.extend(&text.as_bytes()[..len]);
        Ok(())
    }
}
