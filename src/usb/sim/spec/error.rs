//! Why a text names no simulated devices, and which texts do.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{DEVICES_MAX, ModelKind};
use crate::limits::{DISKS_LEN_MAX, RECORDING_LEN_MAX};
use crate::units::Size;
use crate::usb::sim::disk::{SIZE_MAX, SIZE_MIN};
use crate::usb::sim::replay::script::ScriptError;
use crate::words::reason;

/// The known devices, in words for the user.
const KINDS: &str =
    "the simulated devices are disk, microphone and loopback, and by name serial and replay:FILE";

/// A text that names no simulated devices. Texts in variants are as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpecError {
    /// A device has no name.
    NoName,
    /// A recording has no file.
    NoFile,
    /// No device has this name.
    Unknown(String),
    /// More devices than one bus has room for.
    TooMany(usize),
    /// More bytes than all simulated disks together may have.
    DisksTooLarge,
    /// Nothing stands behind a colon.
    NoOption(ModelKind),
    /// A device has no such option.
    NotAnOption(ModelKind, String),
    /// Not a number of devices.
    Count(String),
    /// Not the number of a URB.
    Number(String),
    /// Not the size of a disk.
    Size(String),
    /// Not a time.
    Time(String),
    /// Not a fault.
    Fault(String),
    /// Neither on nor off.
    Pace(String),
    /// Neither of the two kinds of data.
    Data(String),
}

/// A file that is no recording of a device.
#[derive(Debug)]
pub struct LoadError {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub fault: LoadFault,
}

/// Why a file is no recording of a device.
#[derive(Debug)]
pub enum LoadFault {
    /// The file can't be read.
    Read(io::Error),
    /// The file is too long.
    TooLong,
    /// The contents.
    Script(ScriptError),
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        match &self.fault {
            LoadFault::Read(error) => f.write_str(&reason(error).to_string()),
            LoadFault::TooLong => write!(
                f,
                "a recording has {} at most; cut the part of interest out with editcap",
                Size(RECORDING_LEN_MAX)
            ),
            LoadFault::Script(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => write!(f, "a device's name is missing: {KINDS}"),
            Self::NoFile => f.write_str("replay needs a file: replay:FILE.pcapng"),
            Self::Unknown(name) => write!(f, "{KINDS}; there is no \"{name}\""),
            Self::TooMany(total) => write!(
                f,
                "{total} simulated devices are too many: one bus has room for {DEVICES_MAX}"
            ),
            Self::DisksTooLarge => {
                write!(f, "all simulated disks together have {} at most", Size(DISKS_LEN_MAX))
            }
            Self::NoOption(kind) => {
                let (kind, options) = options_of(*kind);
                write!(f, "an option is missing behind the colon: {kind} has {options}")
            }
            Self::NotAnOption(kind, option) => {
                let (kind, options) = options_of(*kind);
                write!(f, "\"{option}\" is no option of {kind}, which has {options}")
            }
            Self::Count(text) => {
                write!(f, "a count is a number from 1 to {DEVICES_MAX}, not \"{text}\"")
            }
            Self::Number(text) => {
                write!(f, "URBs are counted from 1: \"{text}\" is no URB's number")
            }
            Self::Size(text) => write!(
                f,
                "a disk's size is a number of bytes, or a number with K, M or G, from {} to {}, not \
                 \"{text}\"",
                Size(SIZE_MIN as u64),
                Size(SIZE_MAX as u64)
            ),
            Self::Time(text) => {
                write!(f, "a time is a number with us, ms or s, such as 2ms, not \"{text}\"")
            }
            Self::Fault(text) => {
                write!(
                    f,
                    "a fault is slow, slow=TIME, stall@N, short@N or vanish@N, not \"{text}\""
                )
            }
            Self::Pace(text) => write!(f, "pace is on or off, not \"{text}\""),
            Self::Data(text) => write!(f, "data is pattern or counter, not \"{text}\""),
        }
    }
}

/// The name of a kind of device, and its options.
const fn options_of(kind: ModelKind) -> (&'static str, &'static str) {
    match kind {
        ModelKind::Disk { .. } => ("disk", "size, count, delay and fault"),
        ModelKind::Loopback => ("loopback", "count, delay, fault, pace and data"),
        ModelKind::Microphone => ("microphone", "count, delay, fault and pace"),
        ModelKind::Serial => ("serial", "count, delay and fault"),
        ModelKind::Replay => ("replay", "count, delay and fault behind its file"),
    }
}
