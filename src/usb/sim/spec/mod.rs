//! The simulated devices of a command line:
//! `disk:size=64M:delay=2ms,loopback:count=64:fault=stall@100`. Devices are separated by commas,
//! their options by colons.
//!
//! | option | meaning | models |
//! | --- | --- | --- |
//! | `size=SIZE` | bytes, from 1M to 2G, or to 512M where addresses have 32 bits | `disk` (16M) |
//! | `count=K` | number of devices | all |
//! | `delay=TIME` | time from the submission to the end of each URB | all |
//! | `fault=slow`, `fault=slow=TIME` | opening and special requests take a second, or TIME | all |
//! | `fault=stall@N` | the Nth URB stalls, once for each time the device is attached | all |
//! | `fault=short@N` | the Nth URB ends after half its bytes, likewise | all |
//! | `fault=vanish@N` | the device is unplugged while the Nth URB is in flight | all |
//! | `pace=on`, `pace=off` | whether isochronous packets take their time on the bus | `microphone` (on), `loopback` (off) |
//! | `replay:FILE` | the device of a recording in a file, whose name has no colon and no comma | `replay` |
//! | `data=pattern`, `data=counter` | sources and sinks know the pattern; or sources put the number of the URB into its first bytes and sinks check nothing, without cost to the processor, like a real controller | `loopback` (pattern) |
//!
//! URBs of the default endpoint do not count. A TIME is a number with `us`, `ms` or `s`, a SIZE a
//! number of bytes or a number with `K`, `M` or `G`.
//!
//! Contract: plain data; errors are sentences for the user.

mod error;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{SIZE_DEFAULT, SIZE_MAX, SIZE_MIN};
use super::replay::script::Script;
use crate::limits::{DISKS_LEN_MAX, RECORDING_LEN_MAX};
use crate::units;
pub use error::{LoadError, LoadFault, SpecError};

/// Largest number of simulated devices: each has its own address on bus 1, and the root hub has the
/// first address.
pub const DEVICES_MAX: usize = 254;

/// The devices without a choice by the user: a device to mount, a device to hear and a device to
/// measure. A serial adapter shows nothing by itself, and is available by name.
pub const ONE_OF_EACH: &str = "disk,microphone,loopback";

/// The opening time of `fault=slow` without a value.
const SLOW_DEFAULT: Duration = Duration::from_secs(1);

/// A device to simulate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The kind of device.
    pub kind: ModelKind,
    /// The number of devices to add.
    pub count: usize,
    /// The time from a URB's submission to its end.
    pub delay: Duration,
    /// The device's fault, if any.
    pub fault: Option<Fault>,
    /// Isochronous packets take as long as on a bus.
    pub paced: bool,
    /// The device's sources number their URBs, without any pattern.
    pub counted: bool,
    /// The file of a recording.
    pub file: Option<PathBuf>,
    /// The recording, once [`Spec::load`] has read the file.
    pub recording: Option<Arc<Script>>,
}

/// The kinds of models of simulated devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModelKind {
    /// A USB stick: see [`super::disk`].
    Disk {
        /// Bytes of the disk.
        size: usize,
    },
    /// Sources, sinks and a loop: see [`super::loopback`].
    Loopback,
    /// A microphone that hears a ramp: see [`super::microphone`].
    Microphone,
    /// A serial adapter with a loopback plug: see [`super::serial`].
    Serial,
    /// The device of a recording: see `super::replay`.
    Replay,
}

/// A fault of a simulated device. URBs count from one at each opening, without URBs of the default
/// endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The time of opening and of special requests.
    Slow(Duration),
    /// The number of the URB to stall; an isochronous URB loses its first packet instead.
    Stall(u64),
    /// The number of the URB to end, with each of its packets, after half the bytes.
    Short(u64),
    /// The number of the URB whose submission unplugs the device.
    Vanish(u64),
}

impl Spec {
    /// A device of `kind` without options.
    #[must_use]
    pub const fn new(kind: ModelKind) -> Self {
        Self {
            kind,
            count: 1,
            delay: Duration::ZERO,
            fault: None,
            paced: matches!(kind, ModelKind::Microphone),
            counted: false,
            file: None,
            recording: None,
        }
    }

    /// Reads the files of recordings. *Blocks.*
    ///
    /// # Errors
    /// A file can't be read, or is no recording of a device.
    pub fn load(specs: &mut [Self]) -> Result<(), LoadError> {
        for spec in specs {
            let Some(file) = &spec.file else { continue };
            let error = |fault| LoadError { file: file.clone(), fault };
            let read = |error| LoadFault::Read(error);
            let len = fs::metadata(file).map_err(read).map_err(error)?.len();
            if len > RECORDING_LEN_MAX {
                return Err(error(LoadFault::TooLong));
            }
            let bytes = fs::read(file).map_err(read).map_err(error)?;
            let script = Script::read(&bytes).map_err(LoadFault::Script).map_err(error)?;
            spec.recording = Some(Arc::new(script));
        }
        Ok(())
    }

    /// The recording of a device that is one.
    ///
    /// # Panics
    /// Before [`Self::load`].
    pub(super) fn script(&self) -> Arc<Script> {
        Arc::clone(self.recording.as_ref().expect("recordings were loaded"))
    }

    /// Reads a list of devices.
    ///
    /// # Errors
    /// The text names no devices, or too many.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SpecError> {
        let specs: Vec<Self> = text.split(',').map(Self::parse).collect::<Result<_, _>>()?;
        let total = specs.iter().fold(0, |sum: usize, spec| sum.saturating_add(spec.count));
        if total > DEVICES_MAX {
            return Err(SpecError::TooMany(total));
        }
        let disks = specs.iter().map(|spec| match spec.kind {
            ModelKind::Disk { size } => (size as u64).saturating_mul(spec.count as u64),
            _ => 0,
        });
        if disks.fold(0, u64::saturating_add) > DISKS_LEN_MAX {
            return Err(SpecError::DisksTooLarge);
        }
        Ok(specs)
    }

    fn parse(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.split(':');
        let mut spec = match parts.next().unwrap_or_default() {
            "disk" => Self::new(ModelKind::Disk { size: SIZE_DEFAULT }),
            "loopback" => Self::new(ModelKind::Loopback),
            "microphone" => Self::new(ModelKind::Microphone),
            "serial" => Self::new(ModelKind::Serial),
            "replay" => {
                let file = parts.next().filter(|file| !file.is_empty());
                let file = Some(file.ok_or(SpecError::NoFile)?.into());
                Self { file, paced: true, ..Self::new(ModelKind::Replay) }
            }
            "" => return Err(SpecError::NoName),
            other => return Err(SpecError::Unknown(other.to_owned())),
        };
        for option in parts {
            spec.set(option)?;
        }
        Ok(spec)
    }

    fn set(&mut self, option: &str) -> Result<(), SpecError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, &mut self.kind) {
            ("size", ModelKind::Disk { size }) => *size = parse_size(value)?,
            ("pace", ModelKind::Loopback | ModelKind::Microphone) => {
                self.paced = parse_switch(value)?
            }
            ("data", ModelKind::Loopback) => self.counted = parse_data(value)?,
            ("count", _) => self.count = parse_count(value)?,
            ("delay", _) => self.delay = parse_time(value)?,
            ("fault", _) => self.fault = Some(Fault::parse(value)?),
            _ if option.is_empty() => return Err(SpecError::NoOption(self.kind)),
            _ => return Err(SpecError::NotAnOption(self.kind, option.to_owned())),
        }
        Ok(())
    }
}

impl Fault {
    fn parse(text: &str) -> Result<Self, SpecError> {
        let slow = |value: &str| parse_time(value).map(Self::Slow);
        match (text.split_once('@'), text.split_once('=')) {
            (Some(("stall", n)), _) => parse_number(n).map(Self::Stall),
            (Some(("short", n)), _) => parse_number(n).map(Self::Short),
            (Some(("vanish", n)), _) => parse_number(n).map(Self::Vanish),
            (None, Some(("slow", value))) => slow(value),
            (None, None) if text == "slow" => Ok(Self::Slow(SLOW_DEFAULT)),
            _ => Err(SpecError::Fault(text.to_owned())),
        }
    }
}

fn parse_count(text: &str) -> Result<usize, SpecError> {
    let count = text.parse().ok().filter(|n| (1..=DEVICES_MAX).contains(n));
    count.ok_or_else(|| SpecError::Count(text.to_owned()))
}

fn parse_number(text: &str) -> Result<u64, SpecError> {
    let number = text.parse().ok().filter(|&n| n > 0);
    number.ok_or_else(|| SpecError::Number(text.to_owned()))
}

fn parse_size(text: &str) -> Result<usize, SpecError> {
    let size = units::parse_size(text).filter(|size| (SIZE_MIN..=SIZE_MAX).contains(size));
    size.ok_or_else(|| SpecError::Size(text.to_owned()))
}

fn parse_time(text: &str) -> Result<Duration, SpecError> {
    units::parse_time(text).ok_or_else(|| SpecError::Time(text.to_owned()))
}

fn parse_switch(text: &str) -> Result<bool, SpecError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(SpecError::Pace(text.to_owned())),
    }
}

fn parse_data(text: &str) -> Result<bool, SpecError> {
    match text {
        "counter" => Ok(true),
        "pattern" => Ok(false),
        _ => Err(SpecError::Data(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Size;

    fn error(text: &str) -> String {
        Spec::parse_list(text).unwrap_err().to_string()
    }

    #[test]
    fn devices_and_their_options_are_read() {
        let specs =
            Spec::parse_list("loopback,loopback:count=64:delay=2ms:fault=vanish@100:data=counter")
                .unwrap();
        assert_eq!(specs[0], Spec::new(ModelKind::Loopback));
        let disk = Spec::parse_list("disk:size=64M,disk,disk:size=64m").unwrap();
        assert_eq!(disk[0].kind, ModelKind::Disk { size: 64 << 20 });
        assert_eq!(disk[1].kind, ModelKind::Disk { size: 16 << 20 });
        assert_eq!(disk[2], disk[0]);
        let second = Spec {
            count: 64,
            delay: Duration::from_millis(2),
            fault: Some(Fault::Vanish(100)),
            counted: true,
            ..Spec::new(ModelKind::Loopback)
        };
        assert_eq!(specs[1], second);
    }

    #[test]
    fn the_default_list_is_valid() {
        let specs = Spec::parse_list(ONE_OF_EACH).unwrap();
        let kinds: Vec<ModelKind> = specs.iter().map(|spec| spec.kind).collect();
        let disk = ModelKind::Disk { size: SIZE_DEFAULT };
        assert_eq!(kinds, [disk, ModelKind::Microphone, ModelKind::Loopback]);
        assert!(specs[1].paced, "a microphone keeps time");
    }

    #[test]
    fn the_size_of_all_disks_is_limited() {
        let largest = Size(SIZE_MAX as u64);
        let most = DISKS_LEN_MAX / SIZE_MAX as u64;
        let specs = Spec::parse_list(&format!("disk:size={largest}:count={most}")).unwrap();
        assert_eq!(specs[0].kind, ModelKind::Disk { size: SIZE_MAX });
        let text = &Size(DISKS_LEN_MAX).to_string();
        for more in ["disk", "disk:size=1M", "disk:count=100"] {
            let error = error(&format!("disk:size={largest}:count={most},{more}"));
            assert!(error.contains(text), "{error}");
        }
        assert!(error(&format!("disk:size={largest}:count=254")).contains(text));
        let larger = format!("disk:size={}", SIZE_MAX + 1);
        assert!(error(&larger).contains(&format!("to {largest}")));
    }

    #[test]
    fn faults_are_read() {
        let fault = |text: &str| Fault::parse(text).ok();
        assert_eq!(fault("slow"), Some(Fault::Slow(SLOW_DEFAULT)));
        assert_eq!(fault("slow=5us"), Some(Fault::Slow(Duration::from_micros(5))));
        assert_eq!(fault("stall@1"), Some(Fault::Stall(1)));
        assert_eq!(fault("short@18446744073709551615"), Some(Fault::Short(u64::MAX)));
        for wrong in ["", "slow@3", "stall", "stall=3", "stall@0", "vanish@-1", "slow="] {
            assert_eq!(fault(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_allowed_values() {
        assert!(error("tape").contains("loopback"));
        assert!(error("").contains("loopback"));
        for nameless in ["", "disk,", ",disk", "disk,,serial", ":count=2"] {
            assert!(error(nameless).starts_with("a device's name is missing: the"), "{nameless}");
        }
        for bare in ["disk:", "disk::count=2", "serial,disk:count=2:"] {
            let error = error(bare);
            assert!(error.contains("missing behind the colon: disk has size, count"), "{error}");
        }
        assert!(error("loopback:speed=3").contains("count, delay"));
        assert!(error("loopback:delay=2").contains("2ms"));
        assert!(error("loopback:delay=99999999999s").contains("2ms"));
        assert!(error("loopback:count=0").contains("254"));
        assert!(error("loopback:count=254,loopback").contains("too many"));
        assert!(error("loopback:size=1M").contains("count, delay"));
        assert!(error("disk:pace=on").contains("size, count"));
        for size in ["", "M", "1", "1MM", "3G", "-1M", "99999999999999999999"] {
            assert!(error(&format!("disk:size={size}")).contains("1M to "));
        }
        assert!(error("loopback:pace=yes").contains("on or off"));
        assert!(error("loopback:data=none").contains("pattern or counter"));
        assert!(error("disk:data=counter").contains("size, count"));
        assert!(error("serial:pace=on").contains("count, delay and fault"));
        assert!(error("modem").contains("serial"));
    }
}
