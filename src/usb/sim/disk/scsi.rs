//! The SCSI commands of `disk`: the commands of usb-storage and sd_mod, and of Windows and macOS,
//! for a stick. Numbers and layouts: SCSI Block Commands 3 and SCSI Primary Commands 4.
//!
//! A command block becomes an [`Action`]; the transport moves the data.
//!
//! Contract: nothing panics on any command, allocates or blocks.

use super::super::descriptors::put;

/// Bytes of a block.
pub(super) const BLOCK_LEN: usize = 512;

/// Bytes of the longest answer from outside of the image.
pub(super) const ANSWER_LEN: usize = 64;

/// Bytes of a serial number.
const SERIAL_LEN: usize = 12;

/// The result of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Nothing more.
    Done,
    /// The command failed; the sense data has the reason.
    Failed,
    /// `len` bytes of the answer go to the host.
    Answer { len: usize },
    /// Bytes of the image go to the host.
    Read { at: usize, len: usize },
    /// Bytes from the host go into the image.
    Write { at: usize, len: usize },
}

/// The reason of a failure: sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sense {
    key: u8,
    code: u8,
    qualifier: u8,
}

impl Sense {
    pub(super) const NONE: Self = Self::new(0, 0);
    const ILLEGAL_COMMAND: Self = Self::new(5, 0x20);
    const OUT_OF_RANGE: Self = Self::new(5, 0x21);
    const INVALID_FIELD: Self = Self::new(5, 0x24);
    const NO_SUCH_UNIT: Self = Self::new(5, 0x25);
    const NO_SAVED_VALUES: Self = Self::new(5, 0x39);

    const fn new(key: u8, code: u8) -> Self {
        Self { key, code, qualifier: 0 }
    }
}

/// The logical unit.
pub(super) struct Logical {
    /// Blocks of the disk.
    blocks: usize,
    serial: [u8; SERIAL_LEN],
    /// Why the last command failed.
    pub(super) sense: Sense,
}

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const READ_6: u8 = 0x08;
const WRITE_6: u8 = 0x0a;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
const READ_FORMAT_CAPACITIES: u8 = 0x23;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const VERIFY_10: u8 = 0x2f;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const REPORT_LUNS: u8 = 0xa0;
const READ_12: u8 = 0xa8;
const WRITE_12: u8 = 0xaa;

/// The service action of READ CAPACITY (16).
const READ_CAPACITY_16: u8 = 0x10;

/// A direct access block device, removable, SPC-2; 31 bytes follow the fifth byte.
const INQUIRY_HEADER: [u8; 8] = [0, 0x80, 4, 2, 31, 0, 0, 0];

/// The caching mode page: no write cache, so hosts need not flush.
const CACHING_PAGE: [u8; 20] = {
    let mut page = [0; 20];
    page[0] = 0x08;
    page[1] = 18;
    page
};

impl Logical {
    pub(super) fn new(blocks: usize, serial: &str) -> Self {
        let mut field = [b'0'; SERIAL_LEN];
        put(&mut field, serial.as_bytes());
        Self { blocks, serial: field, sense: Sense::NONE }
    }

    /// Carries out a command without moving its data; the command's own answer goes into `answer`.
    pub(super) fn execute(
        &mut self,
        block: &[u8; 16],
        unit: u8,
        answer: &mut [u8; ANSWER_LEN],
    ) -> Action {
        let previous = std::mem::replace(&mut self.sense, Sense::NONE);
        let result = match (unit, block[0]) {
            (0, REQUEST_SENSE) => Ok(request_sense(block, previous, answer)),
            (0, _) => self.command(block, answer),
            _ => Err(Sense::NO_SUCH_UNIT),
        };
        result.unwrap_or_else(|sense| {
            self.sense = sense;
            Action::Failed
        })
    }

    fn command(&self, c: &[u8; 16], answer: &mut [u8; ANSWER_LEN]) -> Result<Action, Sense> {
        match c[0] {
            TEST_UNIT_READY
            | START_STOP_UNIT
            | PREVENT_ALLOW_MEDIUM_REMOVAL
            | SYNCHRONIZE_CACHE_10
            | SYNCHRONIZE_CACHE_16 => Ok(Action::Done),
            INQUIRY => self.inquiry(c, answer),
            MODE_SENSE_6 => mode_sense(c, answer, 4, c[4].into()),
            MODE_SENSE_10 => mode_sense(c, answer, 8, u16_at(c, 7).into()),
            READ_FORMAT_CAPACITIES => Ok(self.read_format_capacities(c, answer)),
            READ_CAPACITY_10 => Ok(self.read_capacity_10(answer)),
            SERVICE_ACTION_IN_16 if c[1] & 0x1f == READ_CAPACITY_16 => {
                Ok(self.read_capacity_16(c, answer))
            }
            REPORT_LUNS => Ok(report_luns(c, answer)),
            VERIFY_10 => self.verify(c),
            READ_6 | READ_10 | READ_12 | READ_16 => self.read(c),
            WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16 => self.write(c),
            _ => Err(Sense::ILLEGAL_COMMAND),
        }
    }

    fn inquiry(&self, c: &[u8; 16], answer: &mut [u8; ANSWER_LEN]) -> Result<Action, Sense> {
        let allocation = u16_at(c, 3).into();
        match (c[1] & 1, c[2]) {
            (0, 0) => {
                let name = b"usbferrySimulated disk  1.0 ";
                Ok(reply(answer, &[&INQUIRY_HEADER, name], allocation))
            }
            // Which pages there are, and the serial number.
            (1, 0) => Ok(reply(answer, &[&[0, 0, 0, 2, 0, 0x80]], allocation)),
            (1, 0x80) => Ok(reply(answer, &[&[0, 0x80, 0, 12], &self.serial], allocation)),
            _ => Err(Sense::INVALID_FIELD),
        }
    }

    fn read_format_capacities(&self, c: &[u8; 16], answer: &mut [u8; ANSWER_LEN]) -> Action {
        let blocks = saturate(self.blocks).to_be_bytes();
        // A single descriptor of 8 bytes: a formatted medium, and the length of a block.
        let parts: [&[u8]; 3] = [&[0, 0, 0, 8], &blocks, &[2, 0, 2, 0]];
        reply(answer, &parts, u16_at(c, 7).into())
    }

    fn read_capacity_10(&self, answer: &mut [u8; ANSWER_LEN]) -> Action {
        let last = saturate(self.blocks - 1).to_be_bytes();
        reply(answer, &[&last, &[0, 0, 2, 0]], 8)
    }

    fn read_capacity_16(&self, c: &[u8; 16], answer: &mut [u8; ANSWER_LEN]) -> Action {
        let last = (self.blocks as u64 - 1).to_be_bytes();
        reply(answer, &[&last, &[0, 0, 2, 0], &[0; 20]], usize_at(c, 10))
    }

    fn read(&self, c: &[u8; 16]) -> Result<Action, Sense> {
        let (at, len) = self.range(c)?;
        Ok(match len {
            0 => Action::Done,
            _ => Action::Read { at, len },
        })
    }

    fn write(&self, c: &[u8; 16]) -> Result<Action, Sense> {
        let (at, len) = self.range(c)?;
        Ok(match len {
            0 => Action::Done,
            _ => Action::Write { at, len },
        })
    }

    /// Nothing is compared: written data is in memory.
    fn verify(&self, c: &[u8; 16]) -> Result<Action, Sense> {
        const BYTE_CHECK: u8 = 0x06;
        if c[1] & BYTE_CHECK != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        self.range(c).map(|_| Action::Done)
    }

    /// The bytes of the image named by a command.
    fn range(&self, c: &[u8; 16]) -> Result<(usize, usize), Sense> {
        let (first, count) = match c[0] {
            READ_6 | WRITE_6 => {
                let first = u32::from_be_bytes([0, c[1] & 0x1f, c[2], c[3]]);
                let count = if c[4] == 0 { 256 } else { u32::from(c[4]) };
                (u64::from(first), count)
            }
            READ_12 | WRITE_12 => (u32_at(c, 2).into(), u32_at(c, 6)),
            READ_16 | WRITE_16 => {
                (u64::from(u32_at(c, 2)) << 32 | u64::from(u32_at(c, 6)), u32_at(c, 10))
            }
            _ => (u32_at(c, 2).into(), u16_at(c, 7).into()),
        };
        let first = usize::try_from(first).map_err(|_| Sense::OUT_OF_RANGE)?;
        let count = usize::try_from(count).map_err(|_| Sense::OUT_OF_RANGE)?;
        let end = first.checked_add(count).ok_or(Sense::OUT_OF_RANGE)?;
        if end > self.blocks {
            return Err(Sense::OUT_OF_RANGE);
        }
        Ok((first * BLOCK_LEN, count * BLOCK_LEN))
    }
}

fn request_sense(c: &[u8; 16], sense: Sense, answer: &mut [u8; ANSWER_LEN]) -> Action {
    let mut data = [0; 18];
    data[0] = 0x70;
    data[2] = sense.key;
    data[7] = 10;
    data[12] = sense.code;
    data[13] = sense.qualifier;
    reply(answer, &[&data], c[4].into())
}

/// Answers with a header of `header_len` bytes and the caching page.
fn mode_sense(
    c: &[u8; 16],
    answer: &mut [u8; ANSWER_LEN],
    header_len: usize,
    allocation: usize,
) -> Result<Action, Sense> {
    const ALL_PAGES: u8 = 0x3f;
    const SAVED: u8 = 3;
    if !matches!(c[2] & 0x3f, ALL_PAGES | 0x08) {
        return Err(Sense::INVALID_FIELD);
    }
    if c[2] >> 6 == SAVED {
        return Err(Sense::NO_SAVED_VALUES);
    }
    // The first length does not count itself.
    let mut header = [0; 8];
    let total = header_len + CACHING_PAGE.len();
    let length_len = header_len / 4;
    header[length_len - 1] = u8::try_from(total - length_len).unwrap_or(u8::MAX);
    let parts: [&[u8]; 2] = [&header[..header_len], &CACHING_PAGE];
    Ok(reply(answer, &parts, allocation))
}

fn report_luns(c: &[u8; 16], answer: &mut [u8; ANSWER_LEN]) -> Action {
    reply(answer, &[&[0, 0, 0, 8, 0, 0, 0, 0], &[0; 8]], usize_at(c, 6))
}

/// Joins `parts`, cut to the host's allocation length.
fn reply(answer: &mut [u8; ANSWER_LEN], parts: &[&[u8]], allocation: usize) -> Action {
    let mut len = 0;
    for part in parts {
        len += put(&mut answer[len..], part);
    }
    match len.min(allocation) {
        0 => Action::Done,
        len => Action::Answer { len },
    }
}

const fn u16_at(c: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([c[at], c[at + 1]])
}

const fn u32_at(c: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]])
}

fn usize_at(c: &[u8; 16], at: usize) -> usize {
    usize::try_from(u32_at(c, at)).unwrap_or(usize::MAX)
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
