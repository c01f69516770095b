//! The URBs of a recording for a replay, in the order of the recording.
//!
//! Contract: pure. Allocates in proportion to the file.

use std::collections::HashMap;
use std::fmt;
use std::io;

use super::Terms;
use crate::limits::{RECORDING_LEN_MAX, REPLAY_URB_LEN_MAX};
use crate::sorted::sort_by_key;
use crate::units::Size;
use crate::usbmon::error::RecordingError;
use crate::usbmon::recording::{self, Recording, Urb};
use crate::wire::iso::PACKETS_MAX;
use crate::wire::status::Status;
use crate::wire::types::TransferType;
use crate::words::reason;

/// bmRequestType and bRequest of SET_ADDRESS, which the host of a device sends.
const SET_ADDRESS: [u8; 2] = [0, 5];

/// The place of idVendor in a device descriptor, with idProduct behind (USB 2.0, 9.6.1).
const IDS_AT: usize = 8;

/// The recorded URBs of a device.
#[derive(Debug)]
pub struct Recorded {
    urbs: Vec<Urb>,
    broken_behind: Option<u64>,
}

/// URBs left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skipped {
    /// Refused without the device, when recorded.
    pub refused: u64,
    /// Data to the device is not in the recording.
    pub cut: u64,
    /// Work of a host (SET_ADDRESS), longer than [`REPLAY_URB_LEN_MAX`], or isochronous without
    /// packets, as with link type 189.
    pub other: u64,
}

/// What happens in a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A URB, by its place, is submitted.
    Submit(usize),
    /// A URB ends.
    End(usize),
}

/// Why a file can't be played.
#[derive(Debug)]
pub enum RecordedError {
    /// The file can't be read.
    Read(io::Error),
    /// The file is too long.
    TooLong,
    /// The file is no recording.
    Recording(RecordingError),
    /// The recording has no URB.
    Empty,
    /// The recording lacks the data of this number of URBs to the device.
    Cut(u64),
}

impl Recorded {
    /// Reads a recording: of several devices the device with the most URBs.
    ///
    /// # Errors
    /// The file has no URBs, or lacks data that has to be sent.
    pub fn read(file: &[u8], terms: Terms) -> Result<Self, RecordedError> {
        let Recording { urbs, broken_behind } =
            recording::read(file).map_err(RecordedError::Recording)?;
        let mut counts: HashMap<(u16, u8), usize> = HashMap::new();
        for urb in &urbs {
            *counts.entry(urb.device).or_default() += 1;
        }
        let chosen = counts.into_iter().max_by_key(|&(device, count)| (count, device));
        let (device, _) = chosen.ok_or(RecordedError::Empty)?;
        let urbs = urbs.into_iter().filter(|urb| urb.device == device).collect();
        let recorded = Self { urbs, broken_behind };
        match recorded.steps(Terms { skip_cut: true, ..terms }).1.cut {
            cut if cut > 0 && !terms.skip_cut => Err(RecordedError::Cut(cut)),
            _ => Ok(recorded),
        }
    }

    pub(super) fn urbs(&self) -> &[Urb] {
        &self.urbs
    }

    /// The file is broken behind the packet with this number, and has nothing more for a replay.
    #[must_use]
    pub const fn broken_behind(&self) -> Option<u64> {
        self.broken_behind
    }

    /// Vendor and product of the recorded device, if the recording has the device descriptor.
    #[must_use]
    pub fn ids(&self) -> Option<(u16, u16)> {
        recording::descriptors(self.urbs.iter(), recording::DEVICE).find_map(|descriptor| {
            let (ids, _) = descriptor.get(IDS_AT..)?.split_first_chunk::<4>()?;
            let [a, b, c, d] = *ids;
            Some((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
        })
    }

    /// The steps in the order of the recording, and the URBs without a step.
    pub(super) fn steps(&self, terms: Terms) -> (Vec<Step>, Skipped) {
        let (mut steps, mut skipped) = (Vec::new(), Skipped::default());
        for (place, urb) in self.urbs.iter().enumerate() {
            let counter = match urb {
                _ if urb.is_refused => &mut skipped.refused,
                _ if is_cut(urb) && terms.skip_cut => &mut skipped.cut,
                _ if is_impossible(urb) => &mut skipped.other,
                _ => {
                    steps.push((urb.number, Step::Submit(place)));
                    steps.extend(urb.end.as_ref().map(|end| (end.number, Step::End(place))));
                    continue;
                }
            };
            *counter += 1;
        }
        sort_by_key(&mut steps, |(number, _)| *number);
        (steps.into_iter().map(|(_, step)| step).collect(), skipped)
    }
}

/// Whether a URB with this status was given up by its client.
pub(super) const fn is_given_up(status: i32) -> bool {
    matches!(Status(status), Status::ECONNRESET | Status::ENOENT | Status::ESHUTDOWN)
}

fn is_in(urb: &Urb) -> bool {
    urb.endpoint & 0x80 != 0
}

/// Whether data to the device is missing.
fn is_cut(urb: &Urb) -> bool {
    !is_in(urb) && (urb.sent.is_cut || urb.sent.bytes.len() < urb.asked as usize)
}

fn is_impossible(urb: &Urb) -> bool {
    let is_isochronous = urb.transfer_type == TransferType::Isochronous;
    let is_control = urb.transfer_type == TransferType::Control;
    urb.asked > REPLAY_URB_LEN_MAX
        || urb.packets.len() > PACKETS_MAX as usize
        || (is_isochronous && urb.packets.is_empty())
        || (is_control && urb.setup.is_none_or(|setup| setup[..2] == SET_ADDRESS))
}

impl std::error::Error for RecordedError {}

impl fmt::Display for RecordedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => f.write_str(&reason(error)),
            Self::TooLong => {
                write!(f, "a recording of more than {} is not read", Size(RECORDING_LEN_MAX))
            }
            Self::Recording(error) => error.fmt(f),
            Self::Empty => f.write_str("the recording has no URB"),
            Self::Cut(urbs) => {
                let [writes, their, these] = match urbs {
                    1 => ["write", "its", "this write"],
                    _ => ["writes", "their", "these writes"],
                };
                write!(
                    f,
                    "{urbs} {writes} can't be repeated, since the recording has a part of {their} \
                     data only: record with serve --capture-snaplen all or capture start --snaplen \
                     all, or leave {these} out with --skip-cut"
                )
            }
        }
    }
}
