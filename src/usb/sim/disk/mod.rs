//! `disk`: a USB stick of high speed. Bulk-only mass storage, SCSI commands, a RAM disk.
//!
//! This module is the transport (Universal Serial Bus Mass Storage Class, Bulk-Only Transport 1.0):
//! a command block comes in on 0x02, data goes either way, a status goes out on 0x81. Data may be
//! cut into URBs at will; a command block is a single URB, like the single packet on a bus. Module
//! `scsi` has the commands, and `fat` the first contents of the disk.
//!
//! If host and device disagree about the data (section 6.7, the thirteen cases), the device stalls
//! its IN endpoint rather than send less than the host expects. Of OUT data the device takes
//! everything and drops the surplus.
//!
//! Contract: the same as the models', see `model`. Written data lives as long as the bus.

mod fat;
mod scsi;
#[cfg(test)]
mod tests;

use scsi::{ANSWER_LEN, Action, BLOCK_LEN, Logical, Sense};

use super::descriptors::{Descriptors, endpoint, interface, put};
use super::model::Moved;
use crate::limits::DISKS_LEN_MAX;
use crate::wire::setup::Setup;
use crate::wire::types::Speed;

/// idProduct; the vendor is 0x1209.
pub const ID_PRODUCT: u16 = 0x0002;

/// Bytes of a disk by default.
pub const SIZE_DEFAULT: usize = 16 << 20;

/// Bytes of the smallest disk.
pub const SIZE_MIN: usize = 1 << 20;

/// Bytes of the largest disk, limited by FAT16 and by the memory for all disks.
pub const SIZE_MAX: usize = if DISKS_LEN_MAX < 2 << 30 { 512 << 20 } else { 2 << 30 };

const _: () = assert!(SIZE_MAX as u64 <= DISKS_LEN_MAX);

/// The endpoint of IN data and status.
pub const IN: u8 = 0x81;
/// The endpoint of commands and OUT data.
pub const OUT: u8 = 0x02;

/// Bytes of a packet.
const PACKET_LEN: usize = 512;

/// Mass storage, transparent SCSI commands, bulk-only transport.
const CLASS: [u8; 3] = [8, 6, 0x50];

pub(super) fn descriptors(serial: String) -> Descriptors {
    Descriptors::new(
        Speed::High,
        ID_PRODUCT,
        "Simulated disk",
        serial,
        &[&interface(0, 0, 2, CLASS), &endpoint(IN, 2, 512, 0), &endpoint(OUT, 2, 512, 0)],
    )
}

/// Bytes of a command block wrapper.
const CBW_LEN: usize = 31;
/// Bytes of a command status wrapper.
const CSW_LEN: usize = 13;

const CBW_SIGNATURE: [u8; 4] = *b"USBC";
const CSW_SIGNATURE: [u8; 4] = *b"USBS";

/// bCSWStatus.
const PASSED: u8 = 0;
const FAILED: u8 = 1;
const PHASE_ERROR: u8 = 2;

const TO_INTERFACE: u8 = 0x21;
const FROM_INTERFACE: u8 = 0xa1;
const BULK_ONLY_RESET: u8 = 0xff;
const GET_MAX_LUN: u8 = 0xfe;

/// The device.
pub(super) struct Disk {
    image: Vec<u8>,
    logical: Logical,
    phase: Phase,
    /// dCBWTag, which the status repeats.
    tag: [u8; 4],
    /// Bytes expected or sent by the host, but missing at or dropped by the device.
    residue: usize,
    status: u8,
    /// A command's answer from outside of the image.
    answer: [u8; ANSWER_LEN],
}

/// The next step of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A command block.
    Command,
    /// Bytes of the image go to the host.
    Read { at: usize, left: usize },
    /// Bytes of the answer do.
    Answer { at: usize, left: usize },
    /// The host waits for data, and the device has none or no more.
    StallIn,
    /// The host sends `expected` bytes; the first `left` bytes go into the image.
    Write { at: usize, left: usize, expected: usize },
    /// The status goes to the host.
    Status,
    /// The host sent an invalid command block, and must now reset the device.
    OutOfStep,
}

/// The fields of a command block wrapper.
struct CommandBlock {
    /// Bytes announced by the host for either direction.
    length: usize,
    is_in: bool,
    logical_unit: u8,
    block: [u8; 16],
}

impl Disk {
    /// A disk of `size` bytes, formatted.
    pub(super) fn new(size: usize, serial: &str) -> Self {
        let size = size - size % BLOCK_LEN;
        // Zeroed memory is free until first used.
        let mut image = vec![0; size];
        fat::format(&mut image);
        Self {
            image,
            logical: Logical::new(size / BLOCK_LEN, serial),
            phase: Phase::Command,
            tag: [0; 4],
            residue: 0,
            status: PASSED,
            answer: [0; ANSWER_LEN],
        }
    }

    pub(super) const fn ready(&self, is_in: bool) -> bool {
        match self.phase {
            Phase::Command | Phase::Write { .. } => !is_in,
            Phase::Read { .. } | Phase::Answer { .. } | Phase::StallIn | Phase::Status => is_in,
            Phase::OutOfStep => true,
        }
    }

    pub(super) fn fill(&mut self, room: &mut [u8]) -> Moved {
        if room.is_empty() {
            return Moved::bytes(0);
        }
        match self.phase {
            Phase::Read { at, left } => {
                let bytes = put(room, &self.image[at..at + left]);
                let (at, left) = (at + bytes, left - bytes);
                self.sent(bytes, room.len(), Phase::Read { at, left }, left)
            }
            Phase::Answer { at, left } => {
                let bytes = put(room, &self.answer[at..at + left]);
                let (at, left) = (at + bytes, left - bytes);
                self.sent(bytes, room.len(), Phase::Answer { at, left }, left)
            }
            Phase::Status => {
                self.phase = Phase::Command;
                Moved::bytes(put(room, &self.status()))
            }
            Phase::StallIn => {
                self.phase = Phase::Status;
                Moved::stall(0)
            }
            Phase::Command | Phase::Write { .. } | Phase::OutOfStep => Moved::stall(0),
        }
    }

    /// Goes on after sending data: with `next` while bytes are left. At the end a short packet
    /// informs a host that waits for more, or a stall if the packet was full.
    fn sent(&mut self, bytes: usize, room: usize, next: Phase, left: usize) -> Moved {
        let told = self.residue == 0 || !bytes.is_multiple_of(PACKET_LEN);
        self.phase = match left {
            0 if told || bytes < room => Phase::Status,
            0 => Phase::StallIn,
            _ => next,
        };
        if left == 0 && !told && bytes < room {
            return Moved::stall(bytes);
        }
        Moved::bytes(bytes)
    }

    pub(super) fn consume(&mut self, data: &[u8]) -> Moved {
        match self.phase {
            Phase::Command if data.is_empty() => Moved::bytes(0),
            Phase::Command => {
                self.phase = Phase::OutOfStep;
                if let Some(command) = self.unwrap(data) {
                    self.begin(&command);
                }
                Moved::bytes(data.len())
            }
            Phase::Write { at, left, expected } => {
                self.received(data, at, left, expected);
                Moved::bytes(data.len())
            }
            _ => Moved::stall(0),
        }
    }

    fn received(&mut self, data: &[u8], at: usize, left: usize, expected: usize) {
        let bytes = put(&mut self.image[at..at + left], data);
        if data.len() > expected {
            self.status = PHASE_ERROR;
        }
        let expected = expected.saturating_sub(data.len());
        self.phase = if expected == 0 {
            Phase::Status
        } else {
            Phase::Write { at: at + bytes, left: left - bytes, expected }
        };
    }

    /// Reads a command block wrapper; `None` unless valid and meaningful (section 6.2).
    fn unwrap(&mut self, data: &[u8]) -> Option<CommandBlock> {
        let wrapper: &[u8; CBW_LEN] = data.try_into().ok()?;
        let (signature, rest) = wrapper.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let &[flags, logical_unit, block_len, ref block @ ..] = rest else {
            return None;
        };
        let valid = *signature == CBW_SIGNATURE && logical_unit < 16;
        if !valid || !(1..=16).contains(&block_len) {
            return None;
        }
        self.tag = *tag;
        Some(CommandBlock {
            length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            is_in: flags & 0x80 != 0,
            logical_unit,
            block: block.try_into().ok()?,
        })
    }

    /// Starts the step after a command. H bytes are the host's length, D bytes the device's.
    fn begin(&mut self, command: &CommandBlock) {
        let action = self.logical.execute(&command.block, command.logical_unit, &mut self.answer);
        self.status = if action == Action::Failed { FAILED } else { PASSED };
        let (device_len, device_in) = match action {
            Action::Done | Action::Failed => (0, command.is_in),
            Action::Answer { len } | Action::Read { len, .. } => (len, true),
            Action::Write { len, .. } => (len, false),
        };
        // Cases 2, 3, 7, 8, 10 and 13: the host must not believe in a success.
        let same_way = device_in == command.is_in;
        if device_len > command.length || (device_len > 0 && !same_way) {
            self.status = PHASE_ERROR;
        }
        let len = if same_way { device_len.min(command.length) } else { 0 };
        self.residue = command.length - len;
        self.phase = match action {
            _ if command.length == 0 => Phase::Status,
            Action::Read { at, .. } if len > 0 => Phase::Read { at, left: len },
            Action::Answer { .. } if len > 0 => Phase::Answer { at: 0, left: len },
            _ if command.is_in => Phase::StallIn,
            // Case 13 would write part of the data of a failed command.
            Action::Write { at, .. } if self.status == PASSED => {
                Phase::Write { at, left: len, expected: command.length }
            }
            _ => Phase::Write { at: 0, left: 0, expected: command.length },
        };
    }

    fn status(&self) -> [u8; CSW_LEN] {
        let residue = u32::try_from(self.residue).unwrap_or(u32::MAX);
        let mut status = [0; CSW_LEN];
        status[..4].copy_from_slice(&CSW_SIGNATURE);
        status[4..8].copy_from_slice(&self.tag);
        status[8..12].copy_from_slice(&residue.to_le_bytes());
        status[12] = self.status;
        status
    }

    /// Notes that a fault of the bus ended the data early: the rest is never moved.
    pub(super) const fn cut_short(&mut self) {
        let (Phase::Read { left, .. } | Phase::Answer { left, .. } | Phase::Write { left, .. }) =
            self.phase
        else {
            return;
        };
        self.residue += left;
        self.phase = Phase::Status;
    }

    pub(super) fn control(&mut self, setup: &Setup, data: &mut [u8]) -> Option<usize> {
        if setup.value != 0 || setup.index != 0 {
            return None;
        }
        match (setup.request_type, setup.request) {
            (TO_INTERFACE, BULK_ONLY_RESET) => {
                self.reset();
                Some(0)
            }
            (FROM_INTERFACE, GET_MAX_LUN) => Some(put(data, &[0])),
            _ => None,
        }
    }

    pub(super) fn reset(&mut self) {
        self.phase = Phase::Command;
        self.logical.sense = Sense::NONE;
    }
}
