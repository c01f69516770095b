//! The simulation's options, from the environment: options behind colons, as in
//! `USBFERRY_USBFS=count=8:delay=200us:stall=100`.
//!
//! Options of the whole simulation:
//!
//! | option | meaning | default |
//! | --- | --- | --- |
//! | `count=K` | number of devices, 1-1 to 1-K | 1 |
//! | `quota=SIZE` | `usbfs_memory_mb`: limit for URBs and mappings of this process, ENOMEM beyond | 16M |
//! | `eintr=N` | a signal interrupts every Nth `poll` or `ppoll` with a device node among its descriptors | never |
//! | `uevents=none` | the system does not say whether the program would hear uevents | heard |
//! | `requests=unrecorded` | the file `requests` has no control requests: writing one costs more than the rest of the simulation | recorded |
//!
//! Options of devices, with `N.` in front for the Nth device alone:
//!
//! | option | meaning | default |
//! | --- | --- | --- |
//! | `delay=TIME` | time from submission to end of a URB | at once |
//! | `rate=BITS` | bits a second of the device's bus, with `M` behind for 10^6: the data of a URB moves after the data of the URB before | no limit |
//! | `data=counter`, `pattern`, `none` | IN data: a counter in the first eight bytes of each page's length, or a pattern: the byte at stream position `p` is `p % 251`, and OUT data is checked for the pattern | `counter` |
//! | `stall=N` | every Nth URB stalls | never |
//! | `unplug=N` | the Nth URB of a device unplugs the device | never |
//! | `slow=TIME` | time of RESET, SET_INTERFACE and SET_CONFIGURATION, with the device's lock held | at once |
//! | `unplug-during=TIME` | time from the start of the first of these calls to an unplug, which fails the call | never |
//! | `driver=NAME` | kernel driver of all interfaces at first; empty for none | `simulated` |
//! | `device=HEX` | the device descriptor | see [`standard`](crate::standard) |
//! | `config=HEX`, `config=@FILE` | the device's answer to GET_DESCRIPTOR(configuration), an option for each configuration: the host reads the bytes like the kernel | see [`standard`](crate::standard) |
//! | `speed=TEXT` | `speed` in sysfs | 480 |
//! | `quirks=HEX` | `quirks` in sysfs: the kernel's quirks of the device; 20 (`USB_QUIRK_HONOR_BNUMINTERFACES`) and 8000 (`USB_QUIRK_ENDPOINT_IGNORE`) matter here | 0 |
//! | `active=N`, `active=none` | number of the configuration set by the host at first | the first configuration's |
//! | `answer-configuration=N` | the device's answer to GET_CONFIGURATION | the last SET_CONFIGURATION's |
//! | `stall-request=HEX` | control requests starting with the given bytes stall; may be repeated | none |
//! | `refuse=WHAT,ERRNO` | the host fails WHAT: `open`, `mmap`, `submit`, `claim`, `release`, `disconnect`, `connect`, `set-interface`, `set-configuration`, `clear-halt`, `reset`, `control`, `get-driver`; with `@N` behind only for interface N, or the endpoint with the hexadecimal address; may be repeated | nothing |
//!
//! URBs of the default endpoint neither stall nor unplug. A TIME is a number with `us` or `ms`, a
//! SIZE a number with `K` or `M`. An ERRNO is its name. With `device=` or `config=` every endpoint
//! is a source or a sink.
//!
//! While a program runs, `locks` in the tree's root sets the locks held by others: see
//! [`locks`](crate::locks).

use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::descriptors::{self, Host, Speed};
use crate::{refuse, standard};

/// Largest number of devices: numbers 2 to 255 of a bus.
pub(crate) const DEVICES_MAX: usize = 254;

/// Where the tree goes.
const ROOT: &str = "USBFERRY_USBFS_ROOT";
/// The variable with the options.
const OPTIONS: &str = "USBFERRY_USBFS";

/// IN data, and the expected OUT data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Data {
    /// The former contents of the buffer.
    None,
    /// The number of the URB on its endpoint, in eight bytes.
    Counter,
    /// The pattern.
    Pattern,
}

/// Which configuration the host has set at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Active {
    First,
    None,
    Number(u8),
}

/// The options of a simulation.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) root: PathBuf,
    pub(crate) quota: usize,
    pub(crate) eintr: Option<u64>,
    pub(crate) uevents: bool,
    pub(crate) records_requests: bool,
    pub(crate) devices: Vec<DeviceOptions>,
}

/// The options of a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceOptions {
    pub(crate) delay: Duration,
    /// Bits a second.
    pub(crate) rate: Option<u64>,
    pub(crate) data: Data,
    pub(crate) stall: Option<u64>,
    pub(crate) unplug: Option<u64>,
    pub(crate) slow: Duration,
    pub(crate) unplug_during: Option<Duration>,
    pub(crate) driver: String,
    pub(crate) speed: String,
    pub(crate) quirks: u32,
    pub(crate) answer_configuration: Option<u8>,
    pub(crate) stall_requests: Vec<Vec<u8>>,
    device: Option<[u8; descriptors::DEVICE_LEN]>,
    /// The device's answers; empty for the standard device.
    configurations: Vec<Vec<u8>>,
    active: Active,
    refusals: Vec<(String, c_int)>,
}

/// The options of this process.
pub(crate) fn get() -> &'static Options {
    static CHOSEN: OnceLock<Options> = OnceLock::new();
    CHOSEN.get_or_init(|| Options::read().unwrap_or_else(|message| refuse(&message)))
}

impl Options {
    fn read() -> Result<Self, String> {
        let root = std::env::var_os(ROOT).ok_or_else(|| format!("{ROOT} is not set"))?;
        let root = std::fs::canonicalize(&root)
            .map_err(|error| format!("{ROOT} {}: {error}", root.display()))?;
        let devices = vec![DeviceOptions::default()];
        let mut options = Self {
            root,
            quota: 16 << 20,
            eintr: None,
            uevents: true,
            records_requests: true,
            devices,
        };
        let text = std::env::var(OPTIONS).unwrap_or_default();
        let given = || text.split(':').filter(|option| !option.is_empty());
        // The number of devices must be known before their options.
        if let Some(count) = given().filter_map(|option| option.strip_prefix("count=")).next_back()
        {
            let count = count.parse().ok().filter(|count| (1..=DEVICES_MAX).contains(count));
            let count = count.ok_or_else(|| format!("{OPTIONS}: 1 to {DEVICES_MAX} devices"))?;
            options.devices.resize(count, DeviceOptions::default());
        }
        for option in given().filter(|option| !option.starts_with("count=")) {
            options.set(option).ok_or_else(|| format!("{OPTIONS}: \"{option}\" is no option"))?;
        }
        Ok(options)
    }

    fn set(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=')?;
        match (name, name.split_once('.')) {
            ("quota", _) => self.quota = parse_size(value)?,
            ("eintr", _) => self.eintr = Some(parse_number(value)?),
            ("uevents", _) => self.uevents = if value == "none" { false } else { return None },
            ("requests", _) if value == "unrecorded" => self.records_requests = false,
            (_, Some((number, name))) => {
                let index = number.parse::<usize>().ok()?.checked_sub(1)?;
                self.devices.get_mut(index)?.set(name, value)?;
            }
            _ => {
                for device in &mut self.devices {
                    device.set(name, value)?;
                }
            }
        }
        Some(())
    }
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            rate: None,
            data: Data::Counter,
            stall: None,
            unplug: None,
            slow: Duration::ZERO,
            unplug_during: None,
            driver: "simulated".to_owned(),
            speed: "480".to_owned(),
            quirks: 0,
            answer_configuration: None,
            stall_requests: Vec::new(),
            device: None,
            configurations: Vec::new(),
            active: Active::First,
            refusals: Vec::new(),
        }
    }
}

impl DeviceOptions {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "delay" => self.delay = parse_time(value)?,
            "rate" => self.rate = Some(parse_number(value.strip_suffix('M')?)? * 1_000_000),
            "data" => {
                self.data = match value {
                    "none" => Data::None,
                    "counter" => Data::Counter,
                    "pattern" => Data::Pattern,
                    _ => return None,
                }
            }
            "stall" => self.stall = Some(parse_number(value)?),
            "unplug" => self.unplug = Some(parse_number(value)?),
            "slow" => self.slow = parse_time(value)?,
            "unplug-during" => self.unplug_during = Some(parse_time(value)?),
            "driver" => value.clone_into(&mut self.driver),
            "device" => self.device = Some(parse_hex(value)?.try_into().ok()?),
            "config" => self.configurations.push(match value.strip_prefix('@') {
                Some(path) => std::fs::read(path).ok()?,
                None => parse_hex(value)?,
            }),
            "speed" => value.clone_into(&mut self.speed),
            "quirks" => self.quirks = u32::from_str_radix(value, 16).ok()?,
            "active" if value == "none" => self.active = Active::None,
            "active" => self.active = Active::Number(value.parse().ok()?),
            "answer-configuration" => self.answer_configuration = Some(value.parse().ok()?),
            "stall-request" => self.stall_requests.push(parse_hex(value)?),
            "refuse" => {
                let (what, errno) = value.split_once(',')?;
                self.refusals.push((what.to_owned(), parse_errno(errno)?));
            }
            _ => return None,
        }
        Some(())
    }

    /// The time that bytes take on the bus.
    pub(crate) fn time_of(&self, len: usize) -> Duration {
        let bits = 8 * len as u64;
        let nanoseconds = self.rate.map_or(0, |rate| bits.saturating_mul(1_000_000_000) / rate);
        Duration::from_nanos(nanoseconds)
    }

    /// Whether the device is the library's own.
    pub(crate) const fn is_standard(&self) -> bool {
        self.device.is_none() && self.configurations.is_empty()
    }

    /// The device's answer to GET_DESCRIPTOR(configuration).
    pub(crate) fn configuration(&self, index: usize) -> Option<&[u8]> {
        match self.configurations.get(index) {
            None if index == 0 && self.configurations.is_empty() => Some(&standard::CONFIGURATION),
            configuration => configuration.map(Vec::as_slice),
        }
    }

    /// The device's answer to GET_DESCRIPTOR(device).
    pub(crate) fn device(&self) -> [u8; descriptors::DEVICE_LEN] {
        self.device.unwrap_or_else(|| {
            let mut device = standard::DEVICE_DESCRIPTOR;
            let count = self.configurations.len().max(1);
            device[17] = u8::try_from(count).unwrap_or(u8::MAX);
            device
        })
    }

    pub(crate) fn speed(&self) -> Speed {
        match self.speed.as_str() {
            "1.5" => Speed::Low,
            "12" => Speed::Full,
            "5000" => Speed::Super,
            // A later kernel may know more speeds.
            text if text.len() > 4 && text.parse::<u32>().is_ok() => Speed::SuperPlus,
            _ => Speed::High,
        }
    }

    /// The host's view of the device. A device given up by the host can't be simulated.
    pub(crate) fn host(&self) -> Host {
        let answers: Vec<Vec<u8>> =
            (0..).map_while(|index| self.configuration(index)).map(<[u8]>::to_vec).collect();
        let host = descriptors::read(self.device(), &answers, (self.speed(), self.quirks));
        host.unwrap_or_else(|error| refuse(&format!("the kernel would give this up: {error}")))
    }

    /// Index of the first configuration.
    pub(crate) fn first_configuration(&self, host: &Host) -> Option<usize> {
        let Active::Number(number) = self.active else {
            return (self.active == Active::First).then_some(0);
        };
        let index = host.configurations.iter().position(|one| one.value == number);
        Some(index.unwrap_or_else(|| refuse("active= names no configuration")))
    }

    /// Whether the host fails a call, and the errno.
    pub(crate) fn refuses(&self, what: &str) -> Result<(), c_int> {
        let refusal = self.refusals.iter().find(|(named, _)| named == what);
        refusal.map_or(Ok(()), |&(_, errno)| Err(errno))
    }

    /// The same for a call on an interface or an endpoint.
    pub(crate) fn refuses_at(&self, what: &str, at: &dyn std::fmt::Display) -> Result<(), c_int> {
        if self.refusals.is_empty() {
            return Ok(());
        }
        self.refuses(what).and_then(|()| self.refuses(&format!("{what}@{at}")))
    }
}

fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|&number| number > 0)
}

fn parse_time(text: &str) -> Option<Duration> {
    match (text.strip_suffix("us"), text.strip_suffix("ms")) {
        (Some(number), _) => number.parse().ok().map(Duration::from_micros),
        (_, Some(number)) => number.parse().ok().map(Duration::from_millis),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let (number, shift) = match (text.strip_suffix('K'), text.strip_suffix('M')) {
        (Some(number), _) => (number, 10),
        (_, Some(number)) => (number, 20),
        _ => (text, 0),
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn parse_errno(name: &str) -> Option<c_int> {
    let errnos = [
        ("EPERM", libc::EPERM),
        ("ENOENT", libc::ENOENT),
        ("EINTR", libc::EINTR),
        ("EIO", libc::EIO),
        ("EAGAIN", libc::EAGAIN),
        ("ENOMEM", libc::ENOMEM),
        ("EACCES", libc::EACCES),
        ("EFAULT", libc::EFAULT),
        ("EBUSY", libc::EBUSY),
        ("ENODEV", libc::ENODEV),
        ("EINVAL", libc::EINVAL),
        ("EMFILE", libc::EMFILE),
        ("ENOTTY", libc::ENOTTY),
        ("ENOSPC", libc::ENOSPC),
        ("EPIPE", libc::EPIPE),
        ("ENODATA", libc::ENODATA),
        ("EPROTO", libc::EPROTO),
        ("EOVERFLOW", libc::EOVERFLOW),
        ("EILSEQ", libc::EILSEQ),
        ("EMSGSIZE", libc::EMSGSIZE),
        ("ESHUTDOWN", libc::ESHUTDOWN),
        ("ETIMEDOUT", libc::ETIMEDOUT),
        ("EHOSTUNREACH", libc::EHOSTUNREACH),
        ("EREMOTEIO", libc::EREMOTEIO),
    ];
    errnos.iter().find(|(known, _)| *known == name).map(|&(_, errno)| errno)
}
